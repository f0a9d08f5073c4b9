"""Greedy k-means++: distinct points, exact draws, and the distribution it should have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import kmeans_plusplus as sklearn_plusplus

from lakestrata.kmeans import plusplus, seeding
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.lloyd import Options, fit
from lakestrata.kmeans.plusplus import kmeans_plusplus
from lakestrata.kmeans.seeding import random_distinct, sample_size, seed_centroids

GRID = Grid(exponent=0, bits=20)


@pytest.fixture(params=[256, 2], ids=["one by one", "many at a time"], scope="module")
def one_by_one(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plusplus, "_ONE_BY_ONE", request.param)
        yield


def seeding_cost(x, rows):
    return ((x[:, None].astype(np.float64) - x[rows][None]) ** 2).sum(axis=2).min(axis=1).sum()


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 60), d=st.integers(1, 4), spread=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_never_picks_the_same_vector_twice(one_by_one, n, d, spread, seed):
    x = np.random.default_rng(seed).integers(0, spread, (n, d), endpoint=True).astype(np.float32)
    distinct = len(np.unique(x, axis=0))
    for k in {1, max(1, distinct - 1), distinct, distinct + 5}:
        rows = kmeans_plusplus(x, k, seed)
        assert len(rows) == len(np.unique(x[rows], axis=0)) == min(k, distinct)


def test_finds_the_few_that_differ_among_many_that_do_not(one_by_one):
    x = np.zeros((20_000, 2), np.float32)
    x[[17, 4000, 19_999]] = [[0, 1], [1, 0], [2**20, -(2**20)]]
    rows = kmeans_plusplus(x, 10, seed=3)
    assert {17, 4000, 19_999} < set(rows.tolist())
    assert len(rows) == 4


@pytest.mark.parametrize("far", [2**20, 2**19 + 1])
def test_a_step_apart_at_the_edge_of_the_grid_is_still_distinct(far):
    x = np.full((500, 2048), far, np.float32)
    x[np.arange(1, 500), np.arange(1, 500)] -= 1
    x[0] = -far
    assert len(np.unique(x[kmeans_plusplus(x, 500, seed=0)], axis=0)) == 500


@pytest.mark.parametrize("seed", range(5))
def test_one_centre_a_blob_where_blobs_lie_far_apart(one_by_one, seed):
    rng = np.random.default_rng(seed)
    blob = rng.integers(0, 12, 3000)
    x = (blob[:, None] * 50_000 + rng.integers(-20, 20, (3000, 2))).astype(np.float32)
    assert sorted(blob[kmeans_plusplus(x, 12, seed)].tolist()) == list(range(12))


def test_costs_like_the_greedy_seeding_of_scikit_learn(one_by_one):
    x = np.random.default_rng(0).integers(-(2**15), 2**15, (600, 5)).astype(np.float32)
    ours = np.mean([seeding_cost(x, kmeans_plusplus(x, 30, seed)) for seed in range(40)])
    theirs = np.mean([seeding_cost(x, sklearn_plusplus(x, 30, random_state=seed)[1]) for seed in range(40)])
    assert ours == pytest.approx(theirs, rel=0.02)


def test_the_second_centroid_is_the_better_of_two_draws_by_squared_distance(one_by_one):
    x = np.array([[0], [-3], [4]], dtype=np.float32)
    after_the_first = [rows[1] for rows in (kmeans_plusplus(x, 2, seed) for seed in range(6000)) if rows[0] == 0]
    n = len(after_the_first)
    assert abs(n - 2000) < 5 * np.sqrt(6000 * 2 / 9)
    p = (9 / 25) ** 2  # -3 lowers the cost less: it is taken if both draws give it
    assert abs(after_the_first.count(1) - n * p) < 5 * np.sqrt(n * p * (1 - p))


def test_depends_on_the_seed_and_on_nothing_else(one_by_one):
    x = np.random.default_rng(0).integers(-1000, 1000, (300, 3)).astype(np.float32)
    first = kmeans_plusplus(x, 20, 5)
    np.testing.assert_array_equal(kmeans_plusplus(np.asfortranarray(x), 20, 5), first)
    assert not np.array_equal(kmeans_plusplus(x, 20, 6), first)


def test_seeds_are_drawn_from_a_sample(monkeypatch):
    monkeypatch.setattr(seeding, "_SAMPLE_COORDINATES", 1)
    x = np.random.default_rng(0).integers(-1000, 1000, (500, 2)).astype(np.float32)
    points = ArrayPoints(x, np.arange(500), GRID)
    sample = {tuple(row) for row in points.sample(8 * 10, seed=4).x.tolist()}
    chosen = {tuple(row) for row in seed_centroids(points, 10, seed=4).tolist()}
    assert len(chosen) == 10
    assert chosen <= sample


@pytest.mark.parametrize(
    ("k", "d", "expected"),
    [
        (10, 384, 2**23 // 384),  # 32 MiB of coordinates
        (10, 8, 2**18),  # or so many points
        (10, 2**19, 80),  # at least 8 a cluster
        (20_000, 1024, 2**16),  # but at most 512 MiB
        (20_000, 2**14, 40_000),  # unless that is less than 2 a cluster
        (20_001, 8, 40_002),  # at random
    ],
)
def test_the_sample_is_bounded_in_coordinates_and_has_enough_a_cluster(k, d, expected):
    assert sample_size(k, d) == expected


def test_very_many_centroids_are_distinct_points_at_random(monkeypatch, caplog):
    monkeypatch.setattr(seeding, "MOST_GREEDY", 9)
    x = np.random.default_rng(0).integers(0, 30, (500, 2)).astype(np.float32)
    points = ArrayPoints(x, np.arange(500), GRID)
    with caplog.at_level("INFO", logger="lakestrata"):
        chosen = seed_centroids(points, 10, seed=4)
        seed_centroids(points, 9, seed=4)
    assert "seeding 10 centroids: distinct ones at random from 500 points" in caplog.text
    assert "seeding 9 centroids: greedy k-means++ among 500 of 500 points" in caplog.text
    assert len(np.unique(chosen, axis=0)) == 10
    # drawn without a look at the vectors: another order of the rows changes nothing, another seed does
    order = np.random.default_rng(1).permutation(500)
    np.testing.assert_array_equal(seed_centroids(ArrayPoints(x[order], order, GRID), 10, seed=4), chosen)
    assert not np.array_equal(seed_centroids(points, 10, seed=5), chosen)
    assert {tuple(row) for row in chosen.tolist()} <= {tuple(row) for row in points.sample(20, seed=4).x.tolist()}
    # of the smallest hashes, in their order: fewer centroids are the first of more
    few, more = (points.x[random_distinct(points, k, seed=4)] for k in (5, 50))
    np.testing.assert_array_equal(few, more[:5])


def test_random_centroids_that_are_too_few_are_made_up_for(monkeypatch):
    monkeypatch.setattr(seeding, "MOST_GREEDY", 1)
    x = np.zeros((400, 1), np.float32)
    x[:7, 0] = np.arange(7)
    x[7, 0] = -0.0
    points = ArrayPoints(x, np.arange(400), GRID)
    assert sorted(points.x[random_distinct(points, 9, seed=0), 0].tolist()) == list(range(7))
    assert sorted(fit(points, 7, seed=0).centroids[:, 0].tolist()) == list(range(7))


def test_random_starts_are_distinct_points_whatever_the_order_of_the_rows():
    x = np.random.default_rng(0).integers(0, 30, (500, 2)).astype(np.float32)
    points = ArrayPoints(x, np.arange(500), GRID)
    chosen = seed_centroids(points, 40, seed=4, init="random")
    assert len(np.unique(chosen, axis=0)) == 40
    assert {tuple(row) for row in chosen.tolist()} <= {tuple(row) for row in x.tolist()}
    order = np.random.default_rng(1).permutation(500)
    turned = ArrayPoints(x[order], order, GRID)
    np.testing.assert_array_equal(seed_centroids(turned, 40, seed=4, init="random"), chosen)
    assert not np.array_equal(seed_centroids(points, 40, seed=5, init="random"), chosen)


def test_random_starts_are_those_that_the_points_draw():
    x = np.random.default_rng(2).integers(-1000, 1000, (300, 3)).astype(np.float32)
    points = ArrayPoints(x, np.arange(300), GRID)
    drawn = points.draw(12, 7)
    np.testing.assert_array_equal(seed_centroids(points, 12, seed=7, init="random"), drawn)
    assert not np.array_equal(seed_centroids(points, 12, seed=7), drawn)
    # a fit of no moves ends where it starts
    stayed = fit(points, 12, seed=7, options=Options(algorithm="lloyd", max_iter=0, init="random")).centroids
    np.testing.assert_array_equal(stayed, drawn)
