"""Nested mini-batches: the order in which a fit takes them, what they save and cost, and that it resumes anywhere."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from lakestrata.kmeans import lloyd
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.lloyd import Options, State, first_batch, fit


class Watched:
    """Points that note every step: batch, centroids given, and what came of it."""

    def __init__(self, points):
        self.points = points
        self.steps = []

    def __getattr__(self, name):
        return getattr(self.points, name)

    def step(self, centroids, batch=0):
        step = self.points.step(centroids, batch)
        self.steps.append((batch, centroids.copy(), step))
        return step

    @property
    def taken(self):
        return [batch for batch, _, _ in self.steps]

    @property
    def passes(self):
        """Points looked at, in units of all points."""
        return sum(self.points.batches[self.taken]) / self.points.n


def mixture(seed, n=4000, d=8, blobs=25, metric="l2"):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(blobs, d))[rng.integers(0, blobs, n)] * 3 + rng.normal(size=(n, d))
    grid = Grid.covering(float(np.abs(x).max()), d, metric)
    return ArrayPoints(grid.quantize(x), np.arange(n), grid)


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(lloyd, "_FIRST_POINTS", 200)
    monkeypatch.setattr(lloyd, "_FIRST_PER_CLUSTER", 4)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("seed", range(3))
def test_batches_are_taken_from_the_smallest_to_all_and_left_when_a_move_gains_less_than_noise(
    small_batches, metric, seed
):
    points = Watched(mixture(seed, metric=metric))
    fitted = fit(points, 25, seed=seed)
    first = first_batch(points.batches, 25)
    assert first >= 3
    assert sorted(set(points.taken), reverse=True) == list(range(first, -1, -1))
    assert points.taken == sorted(points.taken, reverse=True)
    for (batch, _, step), (after, centroids, _) in pairwise(points.steps):
        if batch:
            assert after == (batch - 1 if step.gain <= step.noise else batch)
            np.testing.assert_array_equal(centroids, step.moved)
    assert fitted.n_iter == points.taken.count(0) - 1
    assert fitted.step.counts.sum() == points.n


def test_lloyd_takes_all_points_from_the_start(small_batches):
    points = Watched(mixture(0))
    fit(points, 25, seed=0, options=Options("lloyd"))
    assert set(points.taken) == {0}


def test_few_points_are_taken_all_at_once():
    points = Watched(mixture(0))
    mini = fit(points, 25, seed=0)
    assert set(points.taken) == {0}
    np.testing.assert_array_equal(mini.centroids, fit(points, 25, seed=0, options=Options("lloyd")).centroids)


@pytest.mark.parametrize("max_iter", [1, 2])
def test_no_batch_sees_more_moves_than_it_may(small_batches, max_iter):
    points = Watched(mixture(1))
    poor = State(points.x[:25], first_batch(points.batches, 25))  # there is much to gain
    fitted = fit(points, 25, seed=0, state=poor, options=Options(max_iter=max_iter))
    assert fitted.n_iter == max_iter
    assert set(np.bincount(points.taken)) <= set(range(1, max_iter + 2))
    assert points.taken.count(poor.batch) == max_iter + 1


def test_the_moves_are_told_one_by_one(small_batches):
    points, states = Watched(mixture(2)), []
    fitted = fit(points, 25, seed=0, on_move=states.append)
    assert len(states) == len(points.steps) - 1
    for state, (batch, centroids, _), (_, _, before) in zip(states, points.steps[1:], points.steps, strict=False):
        assert state.batch == batch
        np.testing.assert_array_equal(state.centroids, centroids)
        assert state.cost == (before.cost if state.n_iter else None)
    for state, after in pairwise(states):
        assert (after.batch, after.n_iter) in {(state.batch, state.n_iter + 1), (state.batch - 1, 0)}
    np.testing.assert_array_equal(states[-1].centroids, fitted.centroids)


def test_costs_no_more_than_lloyd_in_a_third_of_the_passes(monkeypatch):
    monkeypatch.setattr(lloyd, "_FIRST_POINTS", 1000)
    costs, passes = [], []
    for seed in range(4):
        points = mixture(seed, n=30_000)
        ways = [Options(tol=1e-3), Options("lloyd"), Options("lloyd", tol=1e-3)]
        watched = [Watched(points) for _ in ways]
        fits = [fit(some, 40, seed=seed, options=way) for some, way in zip(watched, ways, strict=True)]
        costs.append([fitted.step.cost for fitted in fits])
        passes.append([some.passes for some in watched])
    mini, whole, stopped = np.transpose(costs).astype(np.float64)
    assert (mini / whole).mean() <= 1.01
    assert (mini / stopped).mean() <= 1.01
    mini, whole, stopped = np.sum(passes, axis=0)
    assert mini <= whole / 3
    assert mini < stopped


@pytest.mark.parametrize("algorithm", ["minibatch", "lloyd"])
@pytest.mark.parametrize("tol", [0.01, 1e-4])
def test_stops_with_the_first_move_on_all_points_that_lowers_the_cost_too_little(small_batches, algorithm, tol):
    points = Watched(mixture(4))
    fitted = fit(points, 60, seed=0, options=Options(algorithm, 100, tol))
    costs = [step.cost for batch, _, step in points.steps if not batch]
    falls = [(before - after) / before for before, after in pairwise(costs)]
    assert 0 < fitted.n_iter == len(falls) < 100
    assert falls[-1] <= tol or not fitted.step.shift.any()  # or it came to rest
    assert all(fall > tol for fall in falls[:-1])
    assert fitted.step.cost == costs[-1]


def test_clusters_without_points_stay_on_small_batches_and_are_filled_on_all_points(small_batches, monkeypatch):
    monkeypatch.setattr(lloyd, "MOST_RESEEDS", 1)
    points, states = mixture(5), []
    far = np.full((3, points.d), -(2.0**20), np.float32)
    start = State(np.vstack([points.x[:22], far]), 2)
    fitted = fit(points, 25, seed=0, state=start, options=Options(tol=1.0), on_move=states.append)
    assert fitted.step.counts.all()
    assert fitted.n_iter == 3  # one a move; the tolerance alone would stop at the first
    still_far = [int((state.centroids == far[0]).all(axis=1).sum()) for state in states]
    assert still_far == [3] * (len(states) - 3) + [2, 1, 0]
    assert {state.batch for state in states[:-3]} == {2, 1, 0}


CASES = {
    "mixture": lambda: (mixture(6, n=2000), 25, Options()),
    "cosine": lambda: (mixture(7, n=2000, metric="cosine"), 25, Options(tol=1e-3)),
    "lloyd": lambda: (mixture(8, n=1000), 25, Options("lloyd")),
    "few moves": lambda: (mixture(9, n=2000), 25, Options(max_iter=2)),
    "many equal": lambda: (of_few_vectors(), 30, Options()),
    "too few": lambda: (of_few_vectors(), 45, Options(max_iter=5)),
}


def of_few_vectors(n=1500, distinct=40):
    rng = np.random.default_rng(0)
    x = np.minimum(rng.geometric(0.15, n) - 1, distinct - 1)
    return ArrayPoints((x[:, None] ** 2).astype(np.float32), np.arange(n), Grid(0, 20))


@pytest.mark.parametrize("case", CASES)
def test_resumes_from_any_state_with_the_same_bits(small_batches, case):
    points, k, options = CASES[case]()
    states = []
    whole = fit(points, k, seed=3, options=options, on_move=states.append)
    assert len(states) > 1
    assert (max(state.batch for state in states) > 0) == (options.algorithm == "minibatch")
    for number, state in enumerate(states):
        rest = []
        again = fit(points, k, seed=3, options=options, state=state, on_move=rest.append)
        assert again.n_iter == whole.n_iter
        assert again.centroids.tobytes() == whole.centroids.tobytes()
        for name in ("counts", "high", "low", "shift", "moved"):
            np.testing.assert_array_equal(getattr(again.step, name), getattr(whole.step, name))
        assert [(s.batch, s.n_iter, s.cost) for s in rest] == [
            (s.batch, s.n_iter, s.cost) for s in states[number + 1 :]
        ]
        for a, b in zip(rest, states[number + 1 :], strict=True):
            assert a.centroids.tobytes() == b.centroids.tobytes()


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_the_order_of_rows_does_not_matter(small_batches, metric):
    points = mixture(10, metric=metric)
    order = np.random.default_rng(0).permutation(points.n)
    shuffled = ArrayPoints(points.x[order], points.ids[order], points.grid)
    first, second = (fit(some, 25, seed=0) for some in (points, shuffled))
    assert first.centroids.tobytes() == second.centroids.tobytes()
    assert first.step.cost == second.step.cost
