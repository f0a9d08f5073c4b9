"""Lloyd's algorithm: solved by hand, what holds where it ends, and as good as others'."""

from __future__ import annotations

import logging

import faiss
import numpy as np
import pytest
from sklearn.cluster import KMeans

from lakestrata.kmeans import lloyd
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.lloyd import Options, fit
from lakestrata.kmeans.nearest import Centroids

GRID = Grid(exponent=0, bits=20)


def as_points(x, grid=GRID):
    return ArrayPoints(np.asarray(x, dtype=np.float32), np.arange(len(x)), grid)


def mixture(seed, n=4000, d=8, blobs=25):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(blobs, d))[rng.integers(0, blobs, n)] * 3 + rng.normal(size=(n, d))
    grid = Grid.covering(float(np.abs(x).max()), d)
    return as_points(grid.quantize(x), grid)


def sums_of(points, centroids):
    labels = Centroids(centroids).labels(points.rows)
    return np.stack([points.x[labels == j].astype(np.float64).sum(axis=0) for j in range(len(centroids))])


def cost_of(points, fitted):
    return fitted.step.cost * points.grid.step**2


@pytest.mark.parametrize("seed", range(10))
def test_four_points_solved_by_hand(seed):
    points = as_points([[0, 0], [2, 0], [10, 10], [10, 14]])
    fitted = fit(points, 2, seed=seed)
    order = np.argsort(fitted.centroids[:, 0])
    assert fitted.centroids[order].tolist() == [[1, 0], [10, 12]]
    assert fitted.step.counts[order].tolist() == [2, 2]
    assert fitted.step.moved[order].tolist() == [[1, 0], [10, 12]]
    assert fitted.step.costs[order].tolist() == [2, 8]
    assert fitted.step.cost == 10


def test_one_cluster_is_the_mean():
    x = np.random.default_rng(0).integers(-(2**20), 2**20, (99, 3))
    fitted = fit(as_points(x), 1, seed=0)
    np.testing.assert_array_equal(fitted.centroids[0], np.rint(x.sum(axis=0) / 99))
    assert fitted.step.counts.tolist() == [99]


def test_as_many_clusters_as_points_cost_nothing():
    x = np.random.default_rng(0).integers(-9, 9, (40, 4))
    x = np.unique(x, axis=0)
    fitted = fit(as_points(x), len(x), seed=1)
    assert fitted.step.cost == 0
    assert fitted.step.counts.tolist() == [1] * len(x)


@pytest.mark.parametrize(("n", "k"), [(3, 5), (1, 2), (0, 1)])
def test_fewer_points_than_clusters_is_told_with_both_numbers(n, k):
    with pytest.raises(ValueError, match=f"n_samples={n} should be >= n_clusters={k}"):
        fit(as_points(np.zeros((n, 2))), k, seed=0)


def test_centroids_are_the_means_of_their_points_where_it_converged():
    points = mixture(1, n=500)
    fitted = fit(points, 12, seed=0, options=Options(max_iter=200))
    assert fitted.n_iter < 200
    means = points.grid.mean(sums_of(points, fitted.centroids), fitted.step.counts)
    np.testing.assert_array_equal(means, fitted.centroids)
    np.testing.assert_array_equal(fitted.step.moved, fitted.centroids)
    assert not fitted.step.shift.any()
    assert fitted.step.gain == 0


def test_it_ends_with_the_assignment_to_its_own_centroids():
    points = mixture(6, n=500)
    for options in (Options(max_iter=2), Options(tol=0.1), Options()):
        fitted = fit(points, 12, seed=0, options=options)
        step = points.step(fitted.centroids)
        for name in ("counts", "high", "low", "shift", "moved"):
            np.testing.assert_array_equal(getattr(fitted.step, name), getattr(step, name))


def test_the_cost_falls_with_every_iteration():
    points = mixture(2)
    costs = [fit(points, 25, seed=0, options=Options(max_iter=n)).step.cost for n in (1, 2, 4, 8, 16)]
    assert costs == sorted(costs, reverse=True)


def test_the_seed_decides():
    points = mixture(3)
    first, again, other = (fit(points, 25, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.centroids, again.centroids)
    assert first.step.cost == again.step.cost
    assert not np.array_equal(first.centroids, other.centroids)


def test_tolerance_stops_early_and_costs_no_more_than_it_says():
    points = mixture(4)
    loose, tight = (fit(points, 60, seed=0, options=options) for options in (Options(tol=0.01), Options(max_iter=300)))
    assert loose.n_iter < tight.n_iter
    last_but_one = fit(points, 60, seed=0, options=Options(max_iter=loose.n_iter - 1))
    assert last_but_one.step.cost - loose.step.cost <= 0.01 * last_but_one.step.cost
    assert fit(points, 60, seed=0, options=Options(max_iter=3)).n_iter == 3


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
    points = as_points(x, grid)
    fitted = fit(points, 6, seed=0, options=Options(max_iter=200))
    units = grid.to_float(fitted.centroids).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, atol=1e-5)
    sums = sums_of(points, fitted.centroids)
    np.testing.assert_allclose(units, sums / np.linalg.norm(sums, axis=1, keepdims=True), atol=1e-5)


def test_logs_one_line_a_step_with_its_name_and_none_without(caplog):
    with caplog.at_level(logging.INFO, logger=lloyd.__name__):
        fit(mixture(5, n=300), 5, seed=0, options=Options(max_iter=3))
        assert not caplog.records
        fit(mixture(5, n=300), 5, seed=0, options=Options(max_iter=3), name="level 1")
    assert [record.getMessage().split(": cost")[0] for record in caplog.records] == [
        f"level 1: batch 0 of 300 points, step {n}" for n in (0, 1, 2, 3)
    ]
