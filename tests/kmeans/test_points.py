"""Points in an array, against what the protocol says, done the slow way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.hashing import hash_ids
from lakestrata.kmeans.points import MOST_FARTHEST, ArrayPoints, farthest_rows, random_keys, select

GRID = Grid(exponent=0, bits=20)


def make_ids(kind, n, rng):
    numbers = rng.choice(10 * n + 1, n, replace=False).astype(np.int64)
    return numbers if kind == "int" else np.array([f"pétale/{i}" for i in numbers], dtype=object)


@st.composite
def some_points(draw):
    """Few values a coordinate, so that there are duplicates and equal distances."""
    n, d = draw(st.integers(1, 40)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.integers(-2, 2, (n, d), endpoint=True).astype(np.float32)
    return ArrayPoints(x, make_ids(draw(st.sampled_from(["int", "str"])), n, rng), GRID)


def squared_to(points, centroids):
    return ((points.x[:, None] - centroids[None]) ** 2).sum(axis=2)


def slow_members(points, centroids, size, keys):
    labels = squared_to(points, centroids).argmin(axis=1)
    chosen = []
    for cluster in range(len(centroids)):
        rows = sorted(np.flatnonzero(labels == cluster), key=lambda row: (keys[row], points.ids[row]))
        chosen += rows[:size]
    return sorted(points.ids[row] for row in chosen)


@settings(max_examples=100, deadline=None)
@given(some_points(), st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))
def test_members_are_the_closest_or_random_ones_of_each_cluster(points, k, size, seed):
    centroids = points.x[:k] + np.float32(1)
    closest, random = (points.members(centroids, size, how, seed) for how in ("closest", "random"))
    distances = squared_to(points, centroids).min(axis=1)
    assert closest.ids.tolist() == slow_members(points, centroids, size, distances)
    ranks = random_keys(hash_ids(points.ids), seed)
    assert random.ids.tolist() == slow_members(points, centroids, size, ranks)
    by_id = dict(zip(points.ids.tolist(), points.x.tolist(), strict=True))
    assert [by_id[i] for i in closest.ids.tolist()] == closest.x.tolist()


@settings(max_examples=100, deadline=None)
@given(some_points(), st.integers(1, 50), st.integers(0, 99))
def test_a_sample_has_the_smallest_hashes(points, size, seed):
    ranks = dict(zip(points.ids.tolist(), random_keys(hash_ids(points.ids), seed).tolist(), strict=True))
    expected = sorted(sorted(ranks, key=lambda i: (ranks[i], i))[:size])
    assert points.sample(size, seed).ids.tolist() == expected


@settings(max_examples=100, deadline=None)
@given(some_points(), st.integers(0, 50), st.integers(1, 4))
def test_farthest_are_distinct_and_off_their_centroids(points, size, k):
    centroids = points.x[:k]
    distances = squared_to(points, centroids).min(axis=1)
    expected = []
    for row in sorted(range(points.n), key=lambda row: (-distances[row], points.ids[row])):
        vector = points.x[row].tolist()
        if distances[row] > 0 and vector not in expected and len(expected) < size:
            expected.append(vector)
    found = points.farthest(centroids, size)
    assert found.tolist() == expected
    assert found.shape == (len(expected), points.d)


@settings(max_examples=50, deadline=None)
@given(some_points(), st.integers(0, 2**32))
def test_the_order_of_rows_does_not_matter(points, seed):
    order = np.random.default_rng(seed).permutation(points.n)
    shuffled = ArrayPoints(points.x[order], points.ids[order], GRID)
    assert shuffled.ids.tolist() == points.ids.tolist()
    np.testing.assert_array_equal(shuffled.x, points.x)
    np.testing.assert_array_equal(shuffled.sample(3, 0).x, points.sample(3, 0).x)


@settings(max_examples=50, deadline=None)
@given(some_points(), st.integers(1, 5))
def test_a_step_sums_up_each_cluster(points, k):
    centroids = points.x[:k] + np.float32(1)
    partial = points.step(centroids)
    squared = squared_to(points, centroids)
    labels = squared.argmin(axis=1)
    for cluster in range(len(centroids)):
        assert partial.counts[cluster] == (labels == cluster).sum()
        np.testing.assert_array_equal(partial.sums[cluster], points.x[labels == cluster].sum(axis=0))
    assert partial.cost == squared.min(axis=1).sum()


def test_samples_nest_and_depend_on_the_seed():
    points = ArrayPoints(np.zeros((300, 1), np.float32), np.arange(300), GRID)
    small, large = (set(points.sample(size, 7).ids.tolist()) for size in (20, 100))
    assert small < large
    assert set(points.sample(20, 8).ids.tolist()) != small
    assert points.sample(300, 7).n == points.sample(10**9, 7).n == 300


def test_each_point_is_as_likely_to_be_drawn():
    points = ArrayPoints(np.zeros((20, 1), np.float32), np.arange(20), GRID)
    drawn = np.bincount(np.concatenate([points.sample(5, seed).ids for seed in range(2000)]), minlength=20)
    assert drawn.sum() == 10_000
    assert abs(drawn - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_select_breaks_ties_by_id():
    labels, keys = np.array([1, 0, 1, 1, 0]), np.array([5, 2, 5, 9, 2])
    ids = np.array(["d", "b", "c", "a", "e"], dtype=object)
    assert sorted(ids[select(labels, keys, ids, 1)]) == ["b", "c"]
    assert sorted(ids[select(labels, keys, ids, 2)]) == ["b", "c", "d", "e"]


def test_select_takes_no_points():
    empty = np.empty(0, np.int64)
    assert len(select(empty, empty, empty, 3)) == 0


@pytest.mark.parametrize("size", [0, 1, 2, 9])
def test_farthest_rows_take_the_lowest_id_of_equal_vectors(size):
    x = np.array([[5, 5], [5, 5], [1, 0], [0, 0]], dtype=np.float32)
    rows = farthest_rows(x, np.array([50.0, 50.0, 1.0, 0.0]), np.array([8, 3, 1, 2]), size)
    assert rows.tolist() == [1, 2][:size]


def test_points_quantized_from_small_negatives_are_not_told_apart_from_zeros():
    x = Grid.covering(1.0, 2).quantize(np.array([[1.0, -1e-9], [1.0, 1e-9], [0.0, 0.0]]))
    found = ArrayPoints(x, np.arange(3), GRID).farthest(np.zeros((1, 2), np.float32), 3)
    assert found.tolist() == [[2**20, 0]]


def test_one_search_for_far_points_is_bounded():
    x = np.arange(1, MOST_FARTHEST + 10, dtype=np.float32)[:, None]
    found = ArrayPoints(x, np.arange(len(x)), GRID).farthest(np.zeros((1, 1), np.float32), len(x))
    np.testing.assert_array_equal(found, x[::-1][:MOST_FARTHEST])
