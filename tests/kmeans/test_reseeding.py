"""Clusters that run empty: who gives a point away, that all are filled again, and what holds if points are too few."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans import lloyd, seeding
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.lloyd import MOST_RESEEDS, Options, State, donors, fit

GRID = Grid(exponent=0, bits=20)


def as_points(x, grid=GRID):
    return ArrayPoints(np.asarray(x, dtype=np.float32), np.arange(len(x)), grid)


def costing(*costs):
    return SimpleNamespace(counts=np.ones(len(costs), np.int64), costs=np.array(costs, np.float64))


@pytest.mark.parametrize(
    ("costs", "missing", "expected"),
    [
        ([5, 9, 1], 1, [0, 1, 0]),  # the heaviest gives
        ([5, 9, 1], 2, [1, 1, 0]),  # and counts for half of it, 4.5
        ([5, 9, 1], 3, [1, 2, 0]),  # 2.5, 4.5, 1
        ([5, 9, 1], 4, [1, 3, 0]),  # 2.5, 3, 1
        ([5, 9, 1], 5, [2, 3, 0]),  # 2.5, 2.25, 1
        ([4, 4, 4], 2, [1, 1, 0]),  # of equal ones the first
        ([0, 7, 0], 3, [0, 3, 0]),  # those without cost have nothing to give
        ([0, 0], 3, [0, 0]),
        ([3, 8], 0, [0, 0]),
        ([2.0**70, 2.0**70 / 3], 3, [3, 0]),
    ],
)
def test_donors_solved_by_hand(costs, missing, expected):
    assert donors(costing(*costs), missing).tolist() == expected


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 30))
def test_the_next_donor_is_always_the_one_with_the_largest_share_left(costs, missing):
    expected = [0] * len(costs)
    for _ in range(missing if any(costs) else 0):
        shares = [cost / (given + 1) for cost, given in zip(costs, expected, strict=True)]
        expected[shares.index(max(shares))] += 1
    assert donors(costing(*costs), missing).tolist() == expected


def test_one_search_is_bounded_in_points_and_keeps_to_the_heaviest():
    many = costing(*range(5 * MOST_RESEEDS))
    sizes = donors(many, 4 * MOST_RESEEDS)
    assert sizes.sum() == MOST_RESEEDS
    assert not sizes[: 4 * MOST_RESEEDS].any()
    assert donors(costing(7, 0), 10 * MOST_RESEEDS).tolist() == [MOST_RESEEDS, 0]


def test_an_empty_cluster_restarts_within_the_cluster_that_costs_most():
    # Twenty points beside 0 cost 20; the three about 1000 cost 2 * 10**2 and give one of theirs away.
    x = np.r_[np.full(10, 1), np.full(10, -1), 990, 1000, 1010][:, None]
    points = as_points(x)
    start = State(np.array([[0], [1000], [-(2.0**20)]], np.float32), 0)
    moves = []
    fitted = fit(points, 3, seed=0, state=start, options=Options(max_iter=1), on_move=moves.append)
    assert moves[0].centroids[:2].tolist() == [[0], [1000]]
    assert moves[0].centroids[2, 0] in (990, 1010)
    assert fitted.step.counts.tolist() == [20, 2, 1]


def test_many_equal_points_give_one_restart_of_each_vector():
    x = np.r_[np.zeros(50), np.full(30, 100), np.full(20, -100), 1][:, None]
    fitted = fit(as_points(x), 4, seed=0, state=State(np.zeros((4, 1), np.float32), 0))
    assert sorted(fitted.centroids[:, 0].tolist()) == [-100, 0, 1, 100]
    assert fitted.step.cost == 0


def test_fewer_distinct_points_give_fewer_clusters_and_a_warning(caplog):
    x = np.repeat([[0, 0], [5, 5], [9, 1]], 20, axis=0)
    with caplog.at_level(logging.WARNING, logger=lloyd.__name__):
        fitted = fit(as_points(x), 7, seed=0, name="level 2")
    assert sorted(fitted.centroids.tolist()) == [[0, 0], [5, 5], [9, 1]]
    assert fitted.step.counts.tolist() == [20] * 3
    assert fitted.step.cost == 0
    assert [record.getMessage() for record in caplog.records] == ["level 2: 3 distinct points give 3 clusters, not 7"]


def test_enough_distinct_points_give_no_warning(caplog):
    with caplog.at_level(logging.WARNING, logger=lloyd.__name__):
        fit(as_points(np.arange(50)[:, None]), 49, seed=0, name="level 1")
    assert not caplog.records


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_k_distinct_points_give_k_clusters(data):
    d, spread = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    few = rng.integers(0, spread, (data.draw(st.integers(1, 20)), d), endpoint=True)
    x = np.vstack([few, np.repeat(few[:1], data.draw(st.integers(0, 80)), axis=0)])
    distinct = len(np.unique(x, axis=0))
    k = data.draw(st.integers(1, min(len(x), distinct + 2)))
    options = Options(data.draw(st.sampled_from(["minibatch", "lloyd"])), data.draw(st.sampled_from([1, 2, 50])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lloyd, "_FIRST_POINTS", data.draw(st.sampled_from([1, 5, 1 << 15])))
        patch.setattr(lloyd, "_FIRST_PER_CLUSTER", data.draw(st.sampled_from([0, 1, 16])))
        patch.setattr(lloyd, "MOST_RESEEDS", data.draw(st.sampled_from([1, 3, 1024])))
        fitted = fit(as_points(x), k, seed=data.draw(st.integers(0, 99)), options=options)
    assert len(fitted.centroids) == min(k, distinct)
    assert fitted.step.counts.all()
    assert fitted.step.counts.sum() == len(x)
    if k >= distinct:
        assert fitted.step.cost == 0


ADVERSARIES = {
    "far from all points": lambda x, k: np.full((k, x.shape[1]), 2.0**20),
    "all on one point": lambda x, k: np.tile(x[:1], (k, 1)),
    "one": lambda x, k: x[:1],
    "one good and many far": lambda x, k: np.vstack([x[:1], np.full((k - 1, x.shape[1]), -(2.0**20))]),
}


@pytest.mark.parametrize("start", ADVERSARIES)
@pytest.mark.parametrize("max_iter", [1, 3, 50])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("first_points", [8, 1 << 15])
def test_empty_clusters_are_filled_again_from_any_start(monkeypatch, start, max_iter, metric, first_points):
    grid = Grid(exponent=-20, bits=20, metric=metric)
    x = grid.quantize(np.random.default_rng(2).uniform(-1, 1, (60, 2)))
    monkeypatch.setattr(lloyd, "_FIRST_POINTS", first_points)
    monkeypatch.setattr(lloyd, "_FIRST_PER_CLUSTER", 0)
    monkeypatch.setattr(
        lloyd, "seed_centroids", lambda points, k, seed, init: ADVERSARIES[start](x, k).astype(np.float32)
    )
    fitted = fit(as_points(x, grid), 30, seed=0, options=Options(max_iter=max_iter))
    assert len(fitted.centroids) == 30
    assert fitted.step.counts.all()
    assert fitted.step.counts.sum() == 60


def test_more_clusters_missing_than_one_search_gives(monkeypatch):
    x = np.arange(3 * MOST_RESEEDS)[:, None]
    monkeypatch.setattr(lloyd, "seed_centroids", lambda points, k, seed, init: points.x[:1])
    fitted = fit(as_points(x), len(x) - 100, seed=0, options=Options(max_iter=1))
    assert len(fitted.centroids) == len(x) - 100
    assert fitted.step.counts.all()


def test_a_sample_with_too_few_distinct_points_still_gives_k_clusters(monkeypatch):
    monkeypatch.setattr(seeding, "_SAMPLE_COORDINATES", 1)
    x = np.zeros((5000, 2))
    x[:20] = np.random.default_rng(0).integers(1, 1000, (20, 2))
    fitted = fit(as_points(x), 15, seed=0)
    assert len(fitted.centroids) == 15
    assert fitted.step.counts.all()
