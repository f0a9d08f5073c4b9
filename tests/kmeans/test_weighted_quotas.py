"""Quotas by given weights: exact sums, limits, nesting, true means, and weights of one level made those of a tree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans.quotas import tree_quotas, tree_sizes, tree_weights
from lakestrata.kmeans.waterfill import power_weights


def random_tree(seed, leaves=30, groups=6, tops=2):
    """Two levels above the leaves, with empty leaves and uneven weights."""
    rng = np.random.default_rng(seed)
    parents = [rng.integers(0, groups, leaves), rng.integers(0, tops, groups)]
    parents[0][-1], parents[1][-1] = groups - 1, tops - 1
    weights = [np.exp(rng.normal(0, 2, k)) for k in (leaves, groups, tops)]
    return parents, rng.integers(0, 12, leaves), weights


trees = st.builds(random_tree, st.integers(0, 2**32), st.integers(1, 25), st.integers(1, 5), st.integers(1, 3))


@settings(max_examples=150, deadline=None)
@given(tree=trees, multiplier=st.integers(1, 3), part=st.floats(0, 1.1), seed=st.integers(0, 2**32))
def test_sums_are_exact_and_nothing_gives_more_than_it_has(tree, multiplier, part, seed):
    parents, leaf_sizes, weights = tree
    target = int(part * multiplier * leaf_sizes.sum())
    levels = tree_quotas(parents, leaf_sizes, target, multiplier=multiplier, weights=weights, seed=seed)
    for level in levels:
        assert level.quota.sum() == min(target, multiplier * leaf_sizes.sum())
        assert level.expected.sum() == pytest.approx(level.quota.sum(), abs=1e-9)
        assert np.all((level.quota >= 0) & (level.quota <= multiplier * level.sizes))
        assert np.all((level.expected >= 0) & (level.expected <= multiplier * level.sizes))
    for below, above, parent in zip(levels, levels[1:], parents, strict=False):
        np.testing.assert_array_equal(np.bincount(parent, below.quota, len(above.quota)), above.quota)
        sums = np.bincount(parent, below.expected, len(above.quota))
        np.testing.assert_allclose(sums, above.expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_samples_nest_as_the_target_grows(multiplier):
    parents, leaf_sizes, weights = random_tree(3, leaves=80)
    before = np.zeros(80, dtype=np.int64)
    for target in range(0, multiplier * int(leaf_sizes.sum()) + 20, 9):
        quota = tree_quotas(parents, leaf_sizes, target, multiplier=multiplier, weights=weights, seed=5)[0].quota
        assert np.all(quota >= before)
        before = quota
    np.testing.assert_array_equal(before, multiplier * leaf_sizes)


@pytest.mark.parametrize(("multiplier", "target"), [(1, 20), (1, 60), (2, 150)])
def test_expected_is_the_mean_over_seeds(multiplier, target):
    parents, leaf_sizes, weights = random_tree(1)
    n = 800
    runs = [
        tree_quotas(parents, leaf_sizes, target, multiplier=multiplier, weights=weights, seed=seed) for seed in range(n)
    ]
    for t in range(3):
        quotas, expected = np.array([run[t].quota for run in runs]), runs[0][t].expected
        np.testing.assert_array_equal(runs[-1][t].expected, expected)  # of no seed
        error = np.sqrt((quotas.var(axis=0) + 0.02) / n)
        assert np.all(np.abs(quotas.mean(axis=0) - expected) < 5 * error)
        assert len(np.unique(quotas, axis=0)) > 1


@pytest.mark.parametrize("temperature", [0.0, 0.25, 0.5, 1.0])
def test_powers_of_the_sizes_as_weights_are_a_temperature(temperature):
    sizes = np.random.default_rng(0).integers(0, 60, 40)
    for target in (1, 77, 600, int(sizes.sum())):
        (by_weight,) = tree_quotas([], sizes, target, weights=[power_weights(sizes, temperature)], seed=2)
        (by_temperature,) = tree_quotas([], sizes, target, temperature=temperature, seed=2)
        np.testing.assert_array_equal(by_weight.quota, by_temperature.quota)
        # Temperature 0 has the exact mean; that of weights is off by up to 0.04 for targets of one item.
        slack = 0.04 if temperature == 0 else 0
        np.testing.assert_allclose(by_weight.expected, by_temperature.expected, rtol=0, atol=slack)


@pytest.mark.parametrize("seed", range(4))
def test_certain_shares_by_hand(seed):
    (level,) = tree_quotas([], np.array([1, 100]), 50, weights=[np.array([1000.0, 1.0])], seed=seed)
    assert level.quota.tolist() == [1, 49]  # the heavy one has no more
    assert level.expected.tolist() == [1, 49]
    leaves, tops = tree_quotas(
        [np.array([0, 0, 1])], np.array([2, 3, 50]), 30, weights=[np.ones(3), np.array([10.0, 1.0])], seed=seed
    )
    assert tops.quota.tolist() == [5, 25]
    assert leaves.quota.tolist() == [2, 3, 25]


def test_shares_are_in_proportion_to_the_weights_where_there_is_enough():
    weights = np.array([1.0, 2.0, 3.0, 0.5])
    sizes = np.array([10**6, 10**7, 10**6, 10**8])
    (level,) = tree_quotas([], sizes, 650_000, weights=[weights], seed=1)
    assert np.all(np.abs(level.quota - 100_000 * weights) <= 3)
    np.testing.assert_allclose(level.expected, 100_000 * weights, rtol=0, atol=1)
    (scaled,) = tree_quotas([], sizes, 650_000, weights=[4 * weights], seed=1)
    np.testing.assert_array_equal(scaled.quota, level.quota)


def test_weights_of_one_level_by_hand():
    parents = [np.array([0, 0, 1, 2]), np.array([0, 1, 1])]
    cases = {
        1: ([1.0, 2.0, 3.0, 4.0], [[1, 2, 3, 4], [3, 3, 4], [3, 7]]),
        2: ([5.0, 7.0, 9.0], [[1, 1, 1, 1], [5, 7, 9], [5, 16]]),
        3: ([2.0, 8.0], [[1, 1, 1, 1], [1, 1, 1], [2, 8]]),
    }
    for level, (given_weights, expected) in cases.items():
        found = tree_weights(parents, np.array(given_weights), level, 4)
        assert [weights.tolist() for weights in found] == expected
    (alone,) = tree_weights([], np.array([3.0, 1.0]), 1, 2)
    assert alone.tolist() == [3, 1]


@settings(max_examples=60, deadline=None)
@given(tree=trees, level=st.integers(1, 3))
def test_weights_of_a_tree_fit_it_and_add_up(tree, level):
    parents, leaf_sizes, weights = tree
    sizes = tree_sizes(parents, leaf_sizes)
    found = tree_weights(parents, weights[level - 1], level, len(leaf_sizes))
    assert [len(w) for w in found] == [len(s) for s in sizes]
    for t, w in enumerate(found, start=1):
        if t < level:
            assert np.all(w == 1)
        else:
            assert w.sum() == pytest.approx(weights[level - 1].sum(), rel=1e-12)
    np.testing.assert_array_equal(found[level - 1], weights[level - 1])


def test_below_the_weighed_level_siblings_share_evenly():
    parents = [np.repeat([0, 1], 5)]
    weights = tree_weights(parents, np.array([1.0, 3.0]), 2, 10)
    leaves, tops = tree_quotas(parents, np.full(10, 1000), 403, weights=weights, seed=0)
    assert np.all(np.abs(tops.quota - [403 / 4, 403 * 3 / 4]) < 1.5)
    for group in (0, 1):
        assert np.ptp(leaves.quota[parents[0] == group]) <= 1
        np.testing.assert_allclose(leaves.expected[parents[0] == group], tops.expected[group] / 5)
