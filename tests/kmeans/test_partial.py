"""Steps of k-means: the same bits whatever the parts and their order, and costs past 2**63."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.partial import Partial
from lakestrata.kmeans.rows import Rows

MOST = 2**20
GRID = Grid(exponent=0, bits=20)


def random_case(seed, n, k, d, most=MOST):
    """Points, labels and centroids, large ones too; the labels need not be the nearest."""
    rng = np.random.default_rng(seed)
    x, c = (rng.integers(-most, most, (rows, d), endpoint=True).astype(np.float32) for rows in (n, k))
    return x, rng.integers(0, k, n), c


def added(parts, k, d):
    total = Partial.zeros(k, d)
    for part in parts:
        total.add(part)
    return total


def part_of(x, labels, k, rows=slice(None)):
    partial = Partial.zeros(k, x.shape[1])
    partial.add_points(Rows.of(x[rows]), labels[rows])
    return partial


def exact_costs(x, labels, c):
    """Sum of squared distances of each cluster, in Python integers."""
    costs = [0] * len(c)
    for point, label in zip(x.tolist(), labels.tolist(), strict=True):
        costs[label] += sum((int(a) - int(b)) ** 2 for a, b in zip(point, c[label].tolist(), strict=True))
    return costs


def whole(high, low):
    return [(int(upper) << 26) + int(lower) for upper, lower in zip(high, low, strict=True)]


def assert_same(a, b):
    for left, right in zip(astuple(a), astuple(b), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 60), st.integers(1, 8), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32))
def test_parts_add_up_to_the_whole_in_any_order(n, k, d, n_parts, seed):
    (x, labels, c), rng = random_case(seed, n, k, d), np.random.default_rng(seed)
    owner = rng.integers(0, n_parts, n)
    parts = [part_of(x, labels, k, rng.permutation(np.flatnonzero(owner == part))) for part in range(n_parts)]
    undivided = part_of(x, labels, k)
    for total in (
        added(parts, k, d),
        added(parts[::-1], k, d),
        added([added(parts[:2], k, d), added(parts[2:], k, d)], k, d),
    ):
        assert_same(total, undivided)
        assert_same(total.finish(c, GRID), undivided.finish(c, GRID))
        assert total.finish(c, GRID).cost == sum(exact_costs(x, labels, c))


def test_counts_sums_and_norms_are_those_of_the_points():
    x, labels, _ = random_case(5, 500, 6, 3)
    labels[labels == 4] = 2
    partial = part_of(x, labels, 6)
    for cluster in range(6):
        mine = labels == cluster
        assert partial.counts[cluster] == mine.sum()
        assert partial.sums[cluster].tolist() == [sum(map(int, column)) for column in x[mine].T]
    assert whole(partial.high, partial.low) == exact_costs(x, labels, np.zeros((6, 3)))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 30), st.integers(1, 5), st.integers(1, 70), st.sampled_from([1, 9, 2**13, MOST]), st.integers(0, 99)
)
def test_costs_are_exact(n, k, d, most, seed):
    x, labels, c = random_case(seed, n, k, d, most)
    x[: n // 2] = np.sign(x[: n // 2]) * most  # the edge of the grid
    exact = exact_costs(x, labels, c)
    step = part_of(x, labels, k).finish(c, GRID)
    assert whole(step.high, step.low) == exact
    assert step.cost == sum(exact)
    assert (step.low >= 0).all()
    assert (step.low < 2**26).all()
    assert step.costs.tolist() == [float(cost) for cost in exact]
    assert step.counts.tolist() == np.bincount(labels, minlength=k).tolist()


@pytest.mark.parametrize("d", [1, 2048])
def test_costs_past_two_to_the_63_are_exact(d):
    n = 400
    x, c = np.full((n, d), -MOST, np.float32), np.full((2, d), MOST, np.float32)
    x[:, 0] += np.arange(n)
    labels = np.arange(n) % 2
    partial = part_of(x, labels, 2)
    exact = sum((2 * MOST - i) ** 2 for i in range(n)) + n * (d - 1) * (2 * MOST) ** 2
    assert partial.finish(c, GRID).cost == exact
    doubled = partial
    for _ in range(24):  # 2**32 points and more
        doubled = added([doubled, doubled], 2, d)
    step = doubled.finish(c, GRID)
    assert step.counts.sum() == n << 24 < 2**33
    assert step.cost == exact << 24 > 2 ** (73 if d == 1 else 83)
    np.testing.assert_array_equal(step.costs, partial.finish(c, GRID).costs * 2.0**24)
    np.testing.assert_array_equal(step.moved, partial.finish(c, GRID).moved)


def test_no_cost_is_left_where_all_points_lie_on_their_centroids():
    c = np.full((2, 2048), MOST, np.float32)
    c[1] *= -1
    partial = part_of(c[[0, 1, 1]], np.array([0, 1, 1]), 2)
    step = partial.finish(c, GRID)
    assert (step.cost, step.high.tolist(), step.low.tolist()) == (0, [0, 0], [0, 0])


def test_some_clusters_taken_out_finish_as_in_the_whole():
    x, labels, c = random_case(6, 200, 7, 2)
    partial = part_of(x, labels, 7)
    step = partial.finish(c, GRID)
    for ids in (np.array([4, 0, 6]), np.arange(7), np.array([], np.int64)):
        some = partial.take(ids).finish(c[ids], GRID)
        for name in ("counts", "high", "low", "shift", "moved"):
            np.testing.assert_array_equal(getattr(some, name), getattr(step, name)[ids])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_clusters_taken_out_add_up_again_in_any_order(n, k, n_parts, seed):
    (x, labels, _), rng = random_case(seed, n, k, 3), np.random.default_rng(seed)
    partial, total = part_of(x, labels, k), Partial.zeros(k, 3)
    for ids in np.array_split(rng.permutation(k), n_parts):
        total.add(partial.take(ids), ids)
    assert_same(total, partial)


@pytest.mark.parametrize(("k", "expected"), [(1, 14), (14, 14), (15, 15), (40, 40)])
def test_grown_has_empty_clusters_at_the_end(k, expected):
    x, labels, _ = random_case(7, 100, 7, 2)
    partial = part_of(x, labels, 7)
    grown = partial.grown(k)
    assert len(grown.counts) == expected
    assert_same(grown.take(np.arange(7)), partial)
    assert not any(array[7:].any() for array in astuple(grown))


def test_empty_clusters_stay_where_they_are_and_cost_nothing():
    c = np.arange(6, dtype=np.float32).reshape(3, 2)
    step = Partial.zeros(3, 2).finish(c, GRID)
    assert step.costs.tolist() == step.shift.tolist() == [0.0] * 3
    assert (step.cost, step.gain, step.noise) == (0, 0, 0)
    assert step.moved.tolist() == c.tolist()


def test_one_step_solved_by_hand():
    x = np.array([[0], [4], [5], [20], [24], [50]], dtype=np.float32)
    c = np.array([[2], [20], [48], [-70]], dtype=np.float32)
    partial = part_of(x, np.array([0, 0, 0, 1, 1, 2]), 4)
    step = partial.finish(c, GRID)
    assert step.counts.tolist() == [3, 2, 1, 0]
    assert step.costs.tolist() == [17, 16, 4, 0]
    assert step.moved.tolist() == [[3], [22], [50], [-70]]
    assert step.shift.tolist() == [1, 4, 4, 0]
    assert step.gain == 3 * 1 + 2 * 4 + 1 * 4
    assert step.noise == 17 / 2 + 16 / 1  # a cluster of one says nothing
    assert partial.finish(step.moved, GRID).cost == step.cost - step.gain == 22
    assert c.tolist() == [[2], [20], [48], [-70]]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_the_gain_is_how_much_the_cost_falls_where_means_lie_on_the_grid(n, k, d, seed):
    x, labels, c = random_case(seed, n, k, d, 1000)
    centres = np.random.default_rng(seed + 1).integers(-1000, 1000, (k, d)).astype(np.float32)
    x, labels = np.vstack([centres[labels] + x, centres[labels] - x]), np.r_[labels, labels]
    partial = part_of(x, labels, k)
    step = partial.finish(c, GRID)
    assert step.cost - step.gain == partial.finish(step.moved, GRID).cost


def test_the_noise_is_what_the_mean_of_a_sample_costs_too_much():
    rng, n, d = np.random.default_rng(0), 20, 5
    noises, excesses = [], []
    for _ in range(400):
        x = np.rint(rng.normal(0, 1000, (n, d))).astype(np.float32)
        step = part_of(x, np.zeros(n, np.int64), 1).finish(x.mean(axis=0, keepdims=True).round(), GRID)
        noises.append(step.noise)
        excesses.append(n * float((step.moved**2).sum()))  # of n other points, whose mean is 0
    assert np.mean(noises) == pytest.approx(d * 1000**2, rel=0.05)
    assert np.mean(noises) == pytest.approx(np.mean(excesses), rel=0.15)


def test_a_step_of_points_finishes_what_it_added():
    x, _, c = random_case(8, 300, 9, 4)
    points = ArrayPoints(x, np.arange(300), GRID)
    labels = ((x[:, None].astype(np.int64) - c[None].astype(np.int64)) ** 2).sum(axis=2).argmin(axis=1)
    assert_same(points.step(c), part_of(x, labels, 9).finish(c, GRID))
