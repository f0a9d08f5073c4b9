"""Levels in two steps: shares that are even, groups that fit a worker, and clusters that are those of each group."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans import split
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.lloyd import Options, fit
from lakestrata.kmeans.points import random_keys
from lakestrata.kmeans.split import Groups, equal_shares, fit_group, share_out
from lakestrata.kmeans.tree import LevelSpec, build, fit_level

GRID = Grid(exponent=0, bits=20)
OPTIONS = Options()


def as_points(x):
    return ArrayPoints(np.asarray(x, dtype=np.float32), np.arange(len(x)), GRID)


def mixture(seed=0, n=1200, d=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(10, d))[rng.integers(0, 10, n)] * 4 + rng.normal(size=(n, d))
    grid = Grid.covering(float(np.abs(x).max()), d)
    return ArrayPoints(grid.quantize(x), rng.permutation(n), grid)


def exact_labels(points, centroids):
    whole, c = points.x.astype(np.int64), centroids.astype(np.int64)
    return ((whole[:, None] - c[None]) ** 2).sum(axis=2).argmin(axis=1)


def dealt_out(sizes, k):
    """One each in turn, to those that have room."""
    shares = [0] * len(sizes)
    while k:
        for group, size in enumerate(sizes):
            if k and shares[group] < size:
                shares[group] += 1
                k -= 1
    return shares


@pytest.mark.parametrize(
    ("sizes", "k", "expected"),
    [
        ([10, 10, 10], 6, [2, 2, 2]),
        ([10, 10, 10], 7, [3, 2, 2]),  # what is left goes in order
        ([1, 10, 10], 7, [1, 3, 3]),
        ([10, 1, 10], 8, [4, 1, 3]),
        ([3, 2, 1], 6, [3, 2, 1]),
        ([5, 5], 1, [1, 0]),
        ([7], 4, [4]),
        ([2**40, 1, 2**40], 2**30, [2**29, 1, 2**29 - 1]),
    ],
)
def test_shares_solved_by_hand(sizes, k, expected):
    assert equal_shares(np.array(sizes), k).tolist() == expected


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=9).flatmap(lambda s: st.tuples(st.just(s), st.integers(1, sum(s))))
)
def test_shares_are_even_up_to_the_sizes(case):
    sizes, k = case
    shares = equal_shares(np.array(sizes), k)
    assert shares.dtype == np.int64
    assert shares.tolist() == dealt_out(sizes, k)
    assert shares.sum() == k
    for share, size in zip(shares.tolist(), sizes, strict=True):
        assert share <= size
        assert share == size or share >= shares.max() - 1


def test_more_clusters_than_points_are_told_with_both_numbers():
    with pytest.raises(ValueError, match="n_samples=5 should be >= n_clusters=6"):
        equal_shares(np.array([2, 3]), 6)


def test_groups_that_fit_stay_and_those_without_points_go():
    points = as_points([[0], [1], [2], [100], [101]])
    centroids = np.array([[1], [-5000], [100], [5000]], np.float32)
    groups = share_out(points, centroids, 4, seed=9, options=OPTIONS)
    assert groups.centroids.tolist() == [[1], [100]]
    assert groups.shares.tolist() == [2, 2]
    assert (groups.most, groups.seed, groups.options) == (split.MOST_GROUP_COORDINATES, 9, OPTIONS)


@pytest.mark.parametrize("most", [7, 40, 300])
@pytest.mark.parametrize("seed", range(3))
def test_groups_with_too_many_points_are_divided(monkeypatch, caplog, most, seed):
    points = mixture(seed)
    monkeypatch.setattr(split, "MOST_GROUP_COORDINATES", most * points.d)
    before = fit(points, 5, seed=0).centroids
    with caplog.at_level(logging.INFO, logger=split.__name__):
        groups = share_out(points, before, 900, seed=seed, options=OPTIONS)
    sizes = np.bincount(exact_labels(points, groups.centroids), minlength=len(groups.centroids))
    assert groups.most == most
    assert 0 < sizes.min() <= sizes.max() <= most
    assert groups.shares.tolist() == equal_shares(sizes, 900).tolist()
    assert len(groups.centroids) >= points.n / most
    assert f"groups have more than {most} points and are divided" in caplog.text
    small = np.bincount(exact_labels(points, before)) <= most  # those that fit stay as they are
    assert set(map(tuple, before[small])) <= set(map(tuple, groups.centroids))


def test_more_groups_than_clusters_are_told_with_both_numbers(monkeypatch):
    monkeypatch.setattr(split, "MOST_GROUP_COORDINATES", 10)
    points = as_points(np.arange(200)[:, None])
    with pytest.raises(ValueError, match=r"n_clusters=5 should be >= the \d\d groups of at most 10 points"):
        share_out(points, points.x[:2], 5, seed=0, options=OPTIONS)


def test_equal_points_are_not_divided_and_one_cluster_is_made_of_them(monkeypatch, caplog):
    monkeypatch.setattr(split, "MOST_GROUP_COORDINATES", 20)
    points = as_points(np.r_[np.full(500, 7), np.arange(1000, 1030)][:, None])
    with caplog.at_level(logging.INFO, logger=split.__name__):
        groups = share_out(points, np.array([[7], [1015]], np.float32), 12, seed=0, options=OPTIONS)
    assert caplog.messages == ["1 of 2 groups have more than 20 points and are divided"]
    sizes = np.bincount(exact_labels(points, groups.centroids))
    assert groups.centroids[sizes > 20].tolist() == [[7]]
    made = points.split(groups, probe=1)
    parts = {tuple(centroid): part for centroid, part in zip(groups.centroids.tolist(), made.parts, strict=True)}
    assert parts[(7,)].tolist() == [[7]]
    assert [len(part) for part in made.parts if part.tolist() != [[7]]] == groups.shares[sizes <= 20].tolist()


def test_a_group_of_mostly_equal_points_ends(monkeypatch):
    monkeypatch.setattr(split, "MOST_GROUP_COORDINATES", 20)
    points = as_points(np.r_[np.full(2000, 7), 8, 9, 10][:, None])
    groups = share_out(points, np.array([[7]], np.float32), 30, seed=0, options=OPTIONS)
    made = points.split(groups, probe=8)
    labels, squared = points.locate(made)
    assert len(made) >= 1
    assert labels.max() < len(made)
    assert squared[:2000].max() <= 1


def test_of_too_many_points_those_with_the_smallest_hashes_are_clustered():
    points = mixture(4)
    groups = Groups(points.x[:3], np.array([5, 30, 0]), most=20, seed=77, options=Options(max_iter=3))
    keys = random_keys(points.hashes, 77)
    smallest = points.take(np.lexsort((points.ids, keys))[:20])
    expected = fit(smallest, 5, seed=77, options=Options(max_iter=3)).centroids
    assert fit_group(points, groups, 0).tobytes() == expected.tobytes()
    assert len(fit_group(points, groups, 1)) == 20  # all that are left of them
    assert fit_group(points, groups, 2).shape == (0, points.d)


@pytest.mark.parametrize("seed", range(3))
def test_each_group_is_clustered_by_itself(seed):
    points = mixture(seed)
    groups = share_out(points, fit(points, 6, seed=0).centroids, 50, seed=123, options=Options(max_iter=4))
    made = points.split(groups, probe=2)
    labels = exact_labels(points, groups.centroids)
    assert (made.probe, len(made)) == (2, 50)
    np.testing.assert_array_equal(made.groups, groups.centroids)
    np.testing.assert_array_equal(made.flat(), np.concatenate(made.parts))
    for group, (part, share) in enumerate(zip(made.parts, groups.shares.tolist(), strict=True)):
        inside = points.take(np.flatnonzero(labels == group))
        alone = fit(inside, share, seed=123 + group, options=Options(max_iter=4)).centroids
        assert part.tobytes() == alone.tobytes()


@pytest.mark.parametrize(("k", "groups"), [(60, 6), (60, 60), (61, 2), (1200, 10)])
@pytest.mark.parametrize("most", [50, 1 << 26])
def test_distinct_points_give_every_cluster_of_a_level(monkeypatch, k, groups, most):
    points = mixture(5)
    assert len(np.unique(points.x, axis=0)) == points.n
    monkeypatch.setattr(split, "MOST_GROUP_COORDINATES", most * points.d)
    made = fit_level(points, LevelSpec(k, groups=groups, probe=3), 1, seed=0)
    labels, _ = points.locate(made)
    assert len(made) == k
    assert 0 <= labels.min() <= labels.max() < k
    assert set(map(tuple, points.lift(made).x)) == set(map(tuple, made.flat()))
    if k == points.n:
        assert sorted(labels.tolist()) == list(range(k))


def test_a_level_in_two_steps_costs_little_more_than_one_in_one_step():
    one, two = [], []
    for seed in range(3):
        points = mixture(seed, n=3000)
        one.append(points.step(fit_level(points, LevelSpec(120), 1, seed=seed)).cost)
        two.append(points.locate(fit_level(points, LevelSpec(120, groups=6, probe=6), 1, seed=seed))[1].sum())
    assert np.mean(two) <= 1.1 * np.mean(one)


def test_a_tree_stands_on_a_level_in_two_steps():
    points = mixture(6)
    levels = list(build(points, [LevelSpec(90, groups=6, probe=2), LevelSpec(20, 1, 2), LevelSpec(5)], seed=0))
    assert [len(level) for level in levels] == [90, 20, 5]
    above = fit_level(points.lift(levels[0].flat()), LevelSpec(20, 1, 2), 2, seed=0)
    assert above.tobytes() == levels[1].tobytes()


@pytest.mark.parametrize("most", [60, 1 << 26])
def test_the_order_of_rows_does_not_matter(monkeypatch, most):
    points = mixture(7)
    monkeypatch.setattr(split, "MOST_GROUP_COORDINATES", most * points.d)
    order = np.random.default_rng(0).permutation(points.n)
    shuffled = ArrayPoints(points.x[order], points.ids[order], points.grid)
    first, second = (fit_level(some, LevelSpec(90, groups=6, probe=2), 1, seed=0) for some in (points, shuffled))
    assert first.groups.tobytes() == second.groups.tobytes()
    assert first.flat().tobytes() == second.flat().tobytes()
    for a, b in zip(points.locate(first), shuffled.locate(second), strict=True):
        np.testing.assert_array_equal(a, b)
