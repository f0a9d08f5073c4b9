"""Nested mini-batches: which ids they have, that each is half of the one before, and what a step on one gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans import lloyd
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.hashing import MOST_CLASS, batch_class, hash_ids
from lakestrata.kmeans.lloyd import first_batch
from lakestrata.kmeans.points import nested_sizes

GRID = Grid(exponent=0, bits=20)


def leading_zeros(value):
    return 64 - int(value).bit_length()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**64 - 1, 0),
        (2**63, 0),
        (2**63 - 1, 1),  # rounded to float64 it would have none
        (2**62, 1),
        (2**62 - 1, 2),
        (2**49, 14),
        (2**49 - 1, 15),
        (2**48, 15),
        (2**48 - 1, 15),
        (1, 15),
        (0, 15),
    ],
)
def test_the_class_is_the_number_of_leading_zeros_up_to_the_most(value, expected):
    assert MOST_CLASS == 15
    assert batch_class(np.array([value], np.uint64)).tolist() == [expected]


@given(st.lists(st.integers(0, 64).flatmap(lambda bits: st.integers(0, max(0, 2**bits - 1))), max_size=50))
def test_classes_of_any_hashes(values):
    classes = batch_class(np.array(values, np.uint64))
    assert classes.dtype == np.int64
    assert classes.tolist() == [min(leading_zeros(value), MOST_CLASS) for value in values]


@pytest.mark.parametrize("kind", ["int", "str"])
def test_each_batch_has_about_half_of_the_points_of_the_one_before(kind):
    ids = np.arange(40_000, dtype=np.int64)
    ids = ids if kind == "int" else np.array([f"item {i}" for i in ids], dtype=object)
    batches = ArrayPoints(np.zeros((len(ids), 1), np.float32), ids, GRID).batches
    assert len(batches) == MOST_CLASS + 1
    assert batches[0] == len(ids)
    for j, size in enumerate(batches.tolist()):
        share = 2.0**-j
        assert abs(size - len(ids) * share) <= 5 * np.sqrt(len(ids) * share * (1 - share)) + 1


def test_sizes_by_class_add_up_from_the_smallest_batch():
    assert nested_sizes(np.array([5, 0, 2, 1])).tolist() == [8, 3, 3, 1]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 300), st.sampled_from(["int", "str"]), st.integers(0, 2**32))
def test_batches_are_prefixes_that_depend_on_ids_alone(n, kind, seed):
    rng = np.random.default_rng(seed)
    numbers = rng.choice(10 * n + 1, n, replace=False)
    ids = numbers.astype(np.int64) if kind == "int" else np.array([f"id {i}" for i in numbers], dtype=object)
    points = ArrayPoints(rng.integers(-9, 9, (n, 2)).astype(np.float32), ids, GRID)
    zeros = {i: min(leading_zeros(h), MOST_CLASS) for i, h in zip(ids.tolist(), hash_ids(ids).tolist(), strict=True)}
    for j, size in enumerate(points.batches.tolist()):
        assert set(points.ids[:size].tolist()) == {i for i, zero in zeros.items() if zero >= j}
    assert points.ids.tolist() == sorted(ids.tolist(), key=lambda i: (-zeros[i], i))


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_a_step_on_a_batch_is_a_step_on_its_points_alone(metric):
    rng = np.random.default_rng(0)
    grid = Grid.covering(5.0, 3, metric)
    points = ArrayPoints(grid.quantize(rng.uniform(-5, 5, (3000, 3))), rng.permutation(3000), grid)
    centroids = points.x[:20] + np.float32(1)
    classes = batch_class(hash_ids(points.ids))
    for j in range(6):
        of_batch = points.step(centroids, j)
        alone = points.take(np.flatnonzero(classes >= j)).step(centroids)
        for name in ("counts", "high", "low", "shift", "moved"):
            np.testing.assert_array_equal(getattr(of_batch, name), getattr(alone, name))
        assert of_batch.counts.sum() == (classes >= j).sum()


@pytest.mark.parametrize(
    ("sizes", "k", "expected"),
    [
        ([1000, 500, 250, 99, 50], 1, 2),  # at least 100 points
        ([1000, 500, 250, 100, 50], 1, 3),
        ([1000, 500, 250, 99, 50], 20, 2),  # and 10 a cluster
        ([1000, 500, 250, 99, 50], 30, 1),
        ([1000, 500, 250, 99, 50], 80, 0),
        ([99, 40, 30, 10, 0], 1, 0),
        ([1000, 1000, 1000, 0, 0], 2, 2),
    ],
)
def test_the_first_batch_is_the_smallest_with_enough_points(monkeypatch, sizes, k, expected):
    monkeypatch.setattr(lloyd, "_FIRST_POINTS", 100)
    monkeypatch.setattr(lloyd, "_FIRST_PER_CLUSTER", 10)
    assert first_batch(np.array(sizes), k) == expected
