"""Points in an array, against what the protocol says, done the slow way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.hashing import hash_ids
from lakestrata.kmeans.points import as_array, random_keys, reseed_rows, select
from lakestrata.kmeans.seeding import RANDOM_SAMPLE

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
    assert sorted(closest.ids.tolist()) == slow_members(points, centroids, size, distances)
    ranks = random_keys(hash_ids(points.ids), seed)
    assert sorted(random.ids.tolist()) == slow_members(points, centroids, size, ranks)
    by_id = dict(zip(points.ids.tolist(), points.x.tolist(), strict=True))
    assert [by_id[i] for i in closest.ids.tolist()] == closest.x.tolist()


@settings(max_examples=100, deadline=None)
@given(some_points(), st.integers(1, 50), st.integers(0, 99))
def test_a_sample_has_the_smallest_hashes(points, size, seed):
    ranks = dict(zip(points.ids.tolist(), random_keys(hash_ids(points.ids), seed).tolist(), strict=True))
    expected = sorted(sorted(ranks, key=lambda i: (ranks[i], i))[:size])
    assert sorted(points.sample(size, seed).ids.tolist()) == expected


@settings(max_examples=150, deadline=None)
@given(some_points(), st.integers(1, 4), st.integers(0, 99), st.data())
def test_reseeds_are_distinct_off_their_centroid_and_of_the_smallest_hashes(points, k, seed, data):
    centroids = points.x[:k] + np.float32(data.draw(st.sampled_from([0, 0.5, 1])))
    sizes = np.array(data.draw(st.lists(st.integers(0, 4), min_size=len(centroids), max_size=len(centroids))))
    squared, ranks = squared_to(points, centroids), random_keys(hash_ids(points.ids), seed)
    expected = []
    for cluster, size in enumerate(sizes.tolist()):
        mine = [row for row in range(points.n) if squared[row].argmin() == cluster and squared[row].min() > 0]
        vectors = []
        for row in sorted(mine, key=lambda row: (ranks[row], points.ids[row])):
            if points.x[row].tolist() not in vectors:
                vectors.append(points.x[row].tolist())
        expected += vectors[:size]
    found = points.reseeds(centroids, sizes, seed)
    assert found.tolist() == expected
    assert found.shape == (len(expected), points.d)


@pytest.mark.parametrize("size", [0, 1, 2, 9])
def test_reseed_rows_take_the_lowest_id_of_equal_keys_and_each_vector_once(size):
    x = np.array([[5, 5], [5, 5], [1, 0], [0, 0], [1, 0], [7, 7]], dtype=np.float32)
    squared = np.array([50.0, 50.0, 1.0, 0.0, 1.0, 98.0])
    keys, ids = np.array([3, 3, 5, 0, 4, 1]), np.array([8, 3, 1, 2, 9, 4])
    rows = reseed_rows(x, np.array([0, 0, 0, 0, 0, 1]), squared, keys, ids, np.array([size, 0]))
    assert rows.tolist() == [1, 4][:size]


def test_points_quantized_from_small_negatives_are_not_told_apart_from_zeros():
    x = Grid.covering(1.0, 2).quantize(np.array([[1.0, -1e-9], [1.0, 1e-9], [0.0, 0.0]]))
    found = ArrayPoints(x, np.arange(3), GRID).reseeds(np.zeros((1, 2), np.float32), np.array([3]), 0)
    assert found.tolist() == [[2**20, 0]]


def test_restarts_differ_with_the_seed():
    points = ArrayPoints(np.arange(1, 200, dtype=np.float32)[:, None], np.arange(199), GRID)
    found = [points.reseeds(np.zeros((1, 1), np.float32), np.array([5]), seed).tolist() for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_put_and_pick_leave_the_centroids_given_as_they_are():
    points = ArrayPoints(np.zeros((3, 2), np.float32), np.arange(3), GRID)
    centroids = np.arange(8, dtype=np.float32).reshape(4, 2)
    put = points.put(centroids, np.array([3, 1]), np.array([[9, 9], [8, 8]], np.float32))
    assert put.tolist() == [[0, 1], [8, 8], [4, 5], [9, 9]]
    assert points.pick(put, np.array([1, 3])).tolist() == [[8, 8], [9, 9]]
    assert points.put(centroids, np.array([], np.intp), np.empty((0, 2), np.float32)).tolist() == centroids.tolist()
    assert centroids.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


@settings(max_examples=100, deadline=None)
@given(some_points(), st.integers(1, 40), st.integers(0, 99))
def test_draw_takes_distinct_vectors_of_the_smallest_hashes_of_a_sample_twice_as_large(points, size, seed):
    ranks = random_keys(hash_ids(points.ids), seed)
    expected = []
    for row in sorted(range(points.n), key=lambda row: (ranks[row], points.ids[row]))[: RANDOM_SAMPLE * size]:
        if points.x[row].tolist() not in expected:
            expected.append(points.x[row].tolist())
    assert points.draw(size, seed).tolist() == expected[:size]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 2**32))
def test_locate_goes_by_id_whatever_the_order_within(n, k, seed):
    rng = np.random.default_rng(seed)
    x, c = (rng.integers(-3, 3, (rows, 2), endpoint=True).astype(np.float32) for rows in (n, k))
    ids = rng.permutation(n)
    labels, squared = ArrayPoints(x[ids], ids, GRID).locate(c)
    exact = ((x[:, None] - c[None]) ** 2).sum(axis=2)
    assert labels.tolist() == exact.argmin(axis=1).tolist()
    assert squared.tolist() == exact.min(axis=1).tolist()


def test_centroids_become_unweighted_points_of_the_same_grid():
    points = ArrayPoints(np.arange(80, dtype=np.float32).reshape(40, 2), np.arange(40), Grid(-3, 20, "cosine"))
    centroids = points.x[:30]
    above = points.lift(centroids)
    assert (above.n, above.d, above.grid) == (30, points.d, points.grid)
    assert sorted(above.ids.tolist()) == list(range(30))
    np.testing.assert_array_equal(above.x, centroids[above.ids])


def test_only_an_array_is_an_array():
    with pytest.raises(TypeError, match="centroids should be an array, not list"):
        as_array([1.0])


@settings(max_examples=50, deadline=None)
@given(some_points(), st.integers(0, 2**32))
def test_the_order_of_rows_does_not_matter(points, seed):
    order = np.random.default_rng(seed).permutation(points.n)
    shuffled = ArrayPoints(points.x[order], points.ids[order], GRID)
    assert shuffled.ids.tolist() == points.ids.tolist()
    np.testing.assert_array_equal(shuffled.x, points.x)
    np.testing.assert_array_equal(shuffled.batches, points.batches)
    np.testing.assert_array_equal(shuffled.sample(3, 0).x, points.sample(3, 0).x)


@settings(max_examples=50, deadline=None)
@given(some_points(), st.integers(1, 5))
def test_a_step_sums_up_each_cluster(points, k):
    centroids = points.x[:k] + np.float32(1)
    step = points.step(centroids)
    squared = squared_to(points, centroids)
    labels = squared.argmin(axis=1)
    for cluster in range(len(centroids)):
        mine = labels == cluster
        assert step.counts[cluster] == mine.sum()
        assert step.costs[cluster] == squared.min(axis=1)[mine].sum()
        mean = np.rint(points.x[mine].astype(np.float64).mean(axis=0)) if mine.any() else centroids[cluster]
        assert step.moved[cluster].tolist() == mean.tolist()
        assert step.shift[cluster] == ((mean - centroids[cluster]) ** 2).sum()
    assert step.cost == squared.min(axis=1).sum()


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
