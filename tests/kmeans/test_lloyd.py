"""Lloyd's algorithm: solved by hand, no cluster left empty, and as good as others'."""

from __future__ import annotations

import logging

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from lakestrata.kmeans import lloyd, seeding
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.lloyd import fit
from lakestrata.kmeans.points import MOST_FARTHEST, ArrayPoints

GRID = Grid(exponent=0, bits=20)


def as_points(x, grid=GRID):
    return ArrayPoints(np.asarray(x, dtype=np.float32), np.arange(len(x)), grid)


def mixture(seed, n=4000, d=8, blobs=25):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(blobs, d))[rng.integers(0, blobs, n)] * 3 + rng.normal(size=(n, d))
    grid = Grid.covering(float(np.abs(x).max()), d)
    return as_points(grid.quantize(x), grid)


def cost_of(points, fitted):
    return fitted.partial.cost * points.grid.step**2


@pytest.mark.parametrize("seed", range(10))
def test_four_points_solved_by_hand(seed):
    points = as_points([[0, 0], [2, 0], [10, 10], [10, 14]])
    fitted = fit(points, 2, seed=seed)
    order = np.argsort(fitted.centroids[:, 0])
    assert fitted.centroids[order].tolist() == [[1, 0], [10, 12]]
    assert fitted.partial.counts[order].tolist() == [2, 2]
    assert fitted.partial.sums[order].tolist() == [[2, 0], [20, 24]]
    assert fitted.partial.mean_squared()[order].tolist() == [1, 4]
    assert fitted.partial.cost == 10


def test_one_cluster_is_the_mean():
    x = np.random.default_rng(0).integers(-(2**20), 2**20, (99, 3))
    fitted = fit(as_points(x), 1, seed=0)
    np.testing.assert_array_equal(fitted.centroids[0], np.rint(x.sum(axis=0) / 99))
    assert fitted.partial.counts.tolist() == [99]


def test_as_many_clusters_as_points_cost_nothing():
    x = np.random.default_rng(0).integers(-9, 9, (40, 4))
    x = np.unique(x, axis=0)
    fitted = fit(as_points(x), len(x), seed=1)
    assert fitted.partial.cost == 0
    assert fitted.partial.counts.tolist() == [1] * len(x)


@pytest.mark.parametrize(("n", "k"), [(3, 5), (1, 2), (0, 1)])
def test_fewer_points_than_clusters_is_told_with_both_numbers(n, k):
    with pytest.raises(ValueError, match=f"n_samples={n} should be >= n_clusters={k}"):
        fit(as_points(np.zeros((n, 2))), k, seed=0)


def test_fewer_distinct_points_give_fewer_clusters_and_a_warning(caplog):
    x = np.repeat([[0, 0], [5, 5], [9, 1]], 20, axis=0)
    with caplog.at_level(logging.WARNING, logger=lloyd.__name__):
        fitted = fit(as_points(x), 7, seed=0)
    assert sorted(fitted.centroids.tolist()) == [[0, 0], [5, 5], [9, 1]]
    assert fitted.partial.counts.tolist() == [20] * 3
    assert [record.getMessage() for record in caplog.records] == ["3 distinct points give 3 clusters, not 7"]


def test_enough_distinct_points_give_no_warning(caplog):
    with caplog.at_level(logging.WARNING, logger=lloyd.__name__):
        fit(as_points(np.arange(50)[:, None]), 49, seed=0)
    assert not caplog.records


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_k_distinct_points_give_k_clusters(data):
    d, spread = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    few = rng.integers(0, spread, (data.draw(st.integers(1, 20)), d), endpoint=True)
    x = np.vstack([few, np.repeat(few[:1], data.draw(st.integers(0, 80)), axis=0)])
    distinct = len(np.unique(x, axis=0))
    k = data.draw(st.integers(1, min(len(x), distinct + 2)))
    max_iter = data.draw(st.sampled_from([1, 2, 50]))
    fitted = fit(as_points(x), k, seed=data.draw(st.integers(0, 99)), max_iter=max_iter)
    assert len(fitted.centroids) == min(k, distinct)
    assert fitted.partial.counts.all()
    assert fitted.partial.counts.sum() == len(x)
    if k >= distinct:
        assert fitted.partial.cost == 0


ADVERSARIES = {
    "far from all points": lambda x, k: np.full((k, x.shape[1]), 2.0**20),
    "all on one point": lambda x, k: np.tile(x[:1], (k, 1)),
    "one": lambda x, k: x[:1],
    "one good and many far": lambda x, k: np.vstack([x[:1], np.full((k - 1, x.shape[1]), -(2.0**20))]),
}


@pytest.mark.parametrize("start", ADVERSARIES)
@pytest.mark.parametrize("max_iter", [1, 3, 50])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_empty_clusters_are_filled_again_from_any_start(monkeypatch, start, max_iter, metric):
    grid = Grid(exponent=-20, bits=20, metric=metric)
    x = grid.quantize(np.random.default_rng(2).uniform(-1, 1, (60, 2)))
    monkeypatch.setattr(lloyd, "seed_centroids", lambda points, k, seed: ADVERSARIES[start](x, k).astype(np.float32))
    fitted = fit(as_points(x, grid), 30, seed=0, max_iter=max_iter)
    assert len(fitted.centroids) == 30
    assert fitted.partial.counts.all()
    assert fitted.partial.counts.sum() == 60


def test_more_clusters_missing_than_one_search_gives(monkeypatch):
    x = np.arange(3 * MOST_FARTHEST)[:, None]
    monkeypatch.setattr(lloyd, "seed_centroids", lambda points, k, seed: points.x[:1])
    fitted = fit(as_points(x), len(x) - 100, seed=0, max_iter=1)
    assert len(fitted.centroids) == len(x) - 100
    assert fitted.partial.counts.all()


def test_a_sample_with_too_few_distinct_points_still_gives_k_clusters(monkeypatch):
    monkeypatch.setattr(seeding, "_SAMPLE_COORDINATES", 1)
    x = np.zeros((5000, 2))
    x[:20] = np.random.default_rng(0).integers(1, 1000, (20, 2))
    fitted = fit(as_points(x), 15, seed=0)
    assert len(fitted.centroids) == 15
    assert fitted.partial.counts.all()


def test_centroids_are_the_means_of_their_points_where_it_converged():
    points = mixture(1, n=500)
    fitted = fit(points, 12, seed=0, max_iter=200)
    assert fitted.n_iter < 200
    np.testing.assert_array_equal(points.grid.mean(fitted.partial.sums, fitted.partial.counts), fitted.centroids)


def test_the_cost_falls_with_every_iteration():
    points = mixture(2)
    costs = [fit(points, 25, seed=0, max_iter=n).partial.cost for n in (1, 2, 4, 8, 16)]
    assert costs == sorted(costs, reverse=True)


def test_the_seed_decides():
    points = mixture(3)
    first, again, other = (fit(points, 25, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.centroids, again.centroids)
    assert first.partial.cost == again.partial.cost
    assert not np.array_equal(first.centroids, other.centroids)


def test_tolerance_stops_early_and_costs_no_more_than_it_says():
    points = mixture(4)
    loose, tight = fit(points, 25, seed=0, tol=0.01), fit(points, 25, seed=0, max_iter=300)
    assert loose.n_iter < tight.n_iter
    last_but_one = fit(points, 25, seed=0, max_iter=loose.n_iter - 1)
    assert last_but_one.partial.cost - loose.partial.cost <= 0.01 * last_but_one.partial.cost
    assert fit(points, 25, seed=0, max_iter=3).n_iter == 3


def test_no_dearer_than_scikit_learn_and_faiss():
    ours, sklearns, faisses = [], [], []
    for seed in range(6):
        points = mixture(seed)
        x = points.grid.to_float(points.x)
        ours.append(cost_of(points, fit(points, 40, seed=seed)))
        theirs = KMeans(40, init="k-means++", n_init=1, max_iter=50, tol=0, random_state=seed)
        sklearns.append(theirs.fit(x.astype(np.float64)).inertia_)
        machine = faiss.Kmeans(x.shape[1], 40, niter=50, seed=seed, max_points_per_centroid=10**6)
        machine.train(x)
        faisses.append(float(machine.index.search(x, 1)[0].sum(dtype=np.float64)))
    assert np.mean(ours) <= 1.03 * np.mean(sklearns)
    assert np.mean(ours) <= 1.03 * np.mean(faisses)


def test_cosine_centroids_are_unit_vectors_along_the_mean_of_their_points():
    rng = np.random.default_rng(0)
    grid = Grid.covering(1.0, 6, "cosine")
    x = grid.quantize(rng.normal(size=(6, 6))[rng.integers(0, 6, 600)] + 0.1 * rng.normal(size=(600, 6)))
    fitted = fit(as_points(x, grid), 6, seed=0, max_iter=200)
    units = grid.to_float(fitted.centroids).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, atol=1e-5)
    means = fitted.partial.sums / np.linalg.norm(fitted.partial.sums, axis=1, keepdims=True)
    np.testing.assert_allclose(units, means, atol=1e-5)


def test_logs_one_line_an_iteration(caplog):
    with caplog.at_level(logging.INFO, logger=lloyd.__name__):
        fit(mixture(5, n=300), 5, seed=0, max_iter=3, name="level 1")
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"level 1 iteration {n}" for n in (1, 2, 3)
    ]
