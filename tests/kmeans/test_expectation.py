"""Expected quotas against simulated lotteries, and the weights made from them."""

from __future__ import annotations

import time

import numpy as np
import pytest

from lakestrata.kmeans.expectation import expected_level
from lakestrata.kmeans.law import Law
from lakestrata.kmeans.quotas import expected_water_fill, tree_quotas, tree_sizes
from lakestrata.kmeans.waterfill import fill_level, power_weights

TREES = {
    "one level": ([], [1, 2, 50, 7, 13, 20, 30, 4, 44]),
    "two levels": ([[0, 0, 0, 1, 1, 1, 2, 2, 2]], [1, 2, 50, 7, 13, 20, 30, 4, 44]),
    "three levels": ([[0, 0, 0, 0, 0, 1, 1, 2, 2], [0, 1, 1]], [1, 3, 7, 12, 25, 33, 50, 50, 2]),
    "one child, empty child": ([[0, 1, 1, 2, 2, 2]], [9, 0, 13, 5, 5, 40]),
    "one giant": ([[0, 0, 0, 1, 1, 1]], [400, 1, 2, 3, 9, 17]),
}


def simulate(parents, leaf_sizes, target, multiplier, temperature, n_lotteries, seed):
    """Draw many lotteries at once, as a forest; returns each level's quotas, (lotteries, k_t)."""
    rng = np.random.default_rng(seed)
    sizes = tree_sizes(parents, leaf_sizes)
    quota = np.full(n_lotteries, min(target, multiplier * int(leaf_sizes.sum())))
    levels = []
    for t in range(len(sizes), 0, -1):
        parent = parents[t - 1] if t < len(sizes) else np.zeros(len(sizes[-1]), np.int64)
        order = np.argsort(parent, kind="stable")
        owner = np.arange(n_lotteries)[:, None] * (len(quota) // n_lotteries) + parent[order]
        lots = rng.random(owner.size)
        forest = np.tile(sizes[t - 1][order], n_lotteries)
        filled = fill_level(owner.ravel(), forest, power_weights(forest, temperature), quota, multiplier, lots)
        level = np.empty(owner.shape, np.int64)
        level[:, order] = filled.reshape(owner.shape)
        levels.append(level)
        quota = level.ravel()
    return levels[::-1]


def assert_is_the_mean(expected, draws, slack):
    error = draws.std(axis=0) / np.sqrt(len(draws))
    # A quota that hardly ever differs shows too small an error: allow for one event more or less.
    error = np.maximum(error, 1 / len(draws))
    assert np.all(np.abs(expected - draws.mean(axis=0)) <= slack + 4.5 * error)


@pytest.mark.parametrize("temperature", [0.0, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("tree", TREES)
def test_expected_quotas_are_means_over_lotteries(tree, temperature):
    parents, leaf_sizes = [np.array(p) for p in TREES[tree][0]], np.array(TREES[tree][1])
    total = int(leaf_sizes.sum())
    for target, multiplier in ((1, 1), (7, 3), (total * 37 // 100, 1), (total * 9 // 10, 1), (total * 2, 3)):
        levels = tree_quotas(parents, leaf_sizes, target, multiplier=multiplier, temperature=temperature)
        draws = simulate(parents, leaf_sizes, target, multiplier, temperature, 10_000, seed=target)
        for level, drawn in zip(levels, draws, strict=True):
            assert_is_the_mean(level.expected, drawn, slack=0.001)


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_nodes_with_many_children(temperature):
    rng = np.random.default_rng(1)
    parents, leaf_sizes = [rng.integers(0, 30, 1500)], rng.integers(1, 60, 1500)
    for target in (500, 6_000):
        levels = tree_quotas(parents, leaf_sizes, target, temperature=temperature)
        draws = simulate(parents, leaf_sizes, target, 1, temperature, 2_000, seed=target)
        for level, drawn in zip(levels, draws, strict=True):
            assert_is_the_mean(level.expected, drawn, slack=0.01)


def test_it_is_better_than_the_recursion_over_the_reals():
    sizes, target = np.array([31, 17, 28, 4, 18]), 88
    (level,) = tree_quotas([], sizes, target, temperature=0.25)
    (draws,) = simulate([], sizes, target, 1, 0.25, 100_000, seed=0)
    mean = draws.mean(axis=0)
    assert np.abs(level.expected - mean).max() < 0.008
    assert np.abs(expected_water_fill(sizes, target, temperature=0.25) - mean).max() > 0.05


def test_two_children_by_hand():
    # One of two steps: child i wins if u_i is such that (1 - u_i) / w_i comes first. With w = (1, 2) and
    # v = 1 - u uniform, P(v_0 < v_1 / 2) = 1/4.
    (level,) = tree_quotas([], np.array([1, 2]), 1, temperature=1.0)
    np.testing.assert_allclose(level.expected, [0.25, 0.75], atol=1e-9)


def test_the_law_of_a_quota_is_its_distribution():
    sizes, target = np.array([3, 8, 20, 41]), 30
    owner, caps = np.zeros(4, np.int64), sizes.astype(np.float64)
    weights = power_weights(sizes, 0.5)
    _, law = expected_level(owner, weights, caps, np.array([30.0]), Law.certain(np.array([target])))
    (draws,) = simulate([], sizes, target, 1, 0.5, 50_000, seed=8)
    for child in range(4):
        for r in range(int(law.width[child]) + 2):
            tail = law.tails[law.start[child] + r]
            found = np.mean(draws[:, child] >= law.low[child] + r)
            assert abs(tail - found) <= 4.5 * np.sqrt(0.25 / len(draws))
    mean, variance = law.moments()
    np.testing.assert_allclose(mean, draws.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(variance, draws.var(axis=0), atol=0.01)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_weights_estimate_totals_of_the_lake_without_bias(temperature):
    """Items drawn uniformly within their leaf, each with the weight size / expected quota."""
    rng = np.random.default_rng(6)
    parents = [np.array([0, 0, 0, 1, 1, 2, 2, 2])]
    leaf_sizes = np.array([2, 5, 40, 11, 3, 25, 8, 17])
    leaf = np.repeat(np.arange(8), leaf_sizes)
    values = rng.lognormal(1, 1, len(leaf)) * (1 + leaf)
    first = np.cumsum(leaf_sizes) - leaf_sizes
    estimates = []
    for seed in range(600):
        level = tree_quotas(parents, leaf_sizes, 30, multiplier=2, temperature=temperature, seed=seed)[0]
        estimate = 0.0
        for i in np.flatnonzero(level.quota):
            # With repeats: whole rounds of the leaf, then some of its items at random.
            rounds, rest = divmod(int(level.quota[i]), int(leaf_sizes[i]))
            items = values[first[i] : first[i] + leaf_sizes[i]]
            total = rounds * items.sum() + rng.choice(items, rest, replace=False).sum()
            estimate += total * leaf_sizes[i] / level.expected[i]
        estimates.append(estimate)
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - values.sum()) <= 4.5 * error
    assert error < 0.02 * values.sum()  # so that the test could see a bias of a few per cent


def test_wide_ranges_of_sizes_stay_within_bounds():
    rng = np.random.default_rng(9)
    leaf_sizes = np.concatenate([[10**10, 10**10 - 1, 0, 1], rng.integers(1, 10**9, 1000)])
    parents = [rng.integers(0, 20, len(leaf_sizes))]
    for temperature in (0.1, 0.5, 1.0):
        for level in tree_quotas(parents, leaf_sizes, 10**9, temperature=temperature):
            assert abs(level.expected.sum() - 10**9) < 1e-5
            assert np.all((level.expected >= 0) & (level.expected <= level.sizes))
            assert np.abs(level.expected - level.quota).max() < 6


def test_ten_thousand_nodes_take_seconds():
    rng = np.random.default_rng(0)
    parents = [rng.integers(0, 10_000, 200_000), rng.integers(0, 300, 10_000)]
    parents[0][-1] = 9_999
    leaf_sizes = np.ceil(rng.lognormal(3, 1, 200_000)).astype(np.int64)
    start = time.perf_counter()
    tree_quotas(parents, leaf_sizes, 300_000, temperature=0.5)
    assert time.perf_counter() - start < 30  # usually 3 s; a loaded machine may be slow
