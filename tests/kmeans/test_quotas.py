"""Quotas against the definition, step by step, and the properties that samples rely on."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans.quotas import expected_water_fill, lots_of_level, tree_quotas, tree_sizes, water_fill
from lakestrata.kmeans.waterfill import fill_level, power_weights

TEMPERATURES = (0.0, 0.25, 1 / 3, 0.5, 0.77, 1.0)


def fill_by_steps(sizes, target, multiplier, temperature, u):
    """Enumerate all steps of all children and take the first `target` in order of (x, child)."""
    weights = power_weights(sizes, temperature)
    steps = sorted(((j - u[i]) / weights[i], i) for i in range(len(sizes)) for j in range(1, multiplier * sizes[i] + 1))
    return np.bincount([i for _, i in steps[:target]], minlength=len(sizes)).astype(np.int64)


@st.composite
def nodes(draw):
    sizes = np.array(draw(st.lists(st.integers(0, draw(st.sampled_from([2, 9, 60]))), min_size=1, max_size=9)))
    multiplier, temperature = draw(st.integers(1, 3)), draw(st.sampled_from(TEMPERATURES))
    target = draw(st.integers(0, multiplier * int(sizes.sum()) + 3))
    lot = draw(st.sampled_from([st.integers(0, 2).map(lambda k: k / 4), st.floats(0, 1, exclude_max=True)]))
    u = np.array(draw(st.lists(lot, min_size=len(sizes), max_size=len(sizes))))
    return sizes, target, multiplier, temperature, u


@settings(max_examples=500, deadline=None)
@given(nodes())
def test_equals_the_enumeration_of_all_steps(node):
    sizes, target, multiplier, temperature, u = node
    quotas = water_fill(sizes, target, multiplier=multiplier, temperature=temperature, u=u)
    np.testing.assert_array_equal(quotas, fill_by_steps(sizes, target, multiplier, temperature, u))
    assert quotas.dtype == np.int64
    assert quotas.sum() == min(target, multiplier * sizes.sum())
    assert np.all((quotas >= 0) & (quotas <= multiplier * sizes))


@settings(max_examples=200, deadline=None)
@given(nodes())
def test_quotas_only_grow_with_the_target(node):
    sizes, target, multiplier, temperature, u = node
    less = water_fill(sizes, target, multiplier=multiplier, temperature=temperature, u=u)
    more = water_fill(sizes, target + 1, multiplier=multiplier, temperature=temperature, u=u)
    assert np.all(more >= less)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_many_nodes_at_once_equal_each_alone(temperature):
    rng = np.random.default_rng(5)
    owner = np.sort(rng.integers(0, 40, 300))
    sizes, u = rng.integers(0, 30, 300), rng.random(300)
    targets = rng.integers(0, 120, 41)  # the last node has no children
    together = fill_level(owner, sizes, power_weights(sizes, temperature), targets, 2, u)
    for node in range(40):
        its = owner == node
        expected = fill_by_steps(sizes[its], targets[node], 2, temperature, u[its])
        np.testing.assert_array_equal(together[its], expected)


def test_small_cases_by_hand():
    lots = np.array([0.5, 0.25, 0.0])
    # Even: two rounds of three, then the child with the largest lot first.
    assert water_fill(np.array([9, 9, 9]), 7, u=lots).tolist() == [3, 2, 2]
    # The small child gives all it has, the others share what is left.
    assert water_fill(np.array([1, 9, 9]), 11, u=lots).tolist() == [1, 5, 5]
    assert water_fill(np.array([1, 9, 9]), 12, multiplier=2, u=lots).tolist() == [2, 5, 5]
    # In proportion: steps come at (j - u) / s.
    assert water_fill(np.array([10, 20, 30]), 6, temperature=1.0, u=np.zeros(3)).tolist() == [1, 2, 3]


def test_children_that_step_at_once_go_in_order_of_their_ids():
    assert water_fill(np.full(4, 5), 6, u=np.full(4, 0.25)).tolist() == [2, 2, 1, 1]
    assert water_fill(np.array([4, 16]), 1, temperature=0.5, u=np.array([0.5, 0.0])).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_edges(temperature):
    u = np.array([0.1, 0.9, 0.4])
    sizes = np.array([3, 0, 5])
    assert water_fill(sizes, 0, temperature=temperature, u=u).tolist() == [0, 0, 0]
    assert water_fill(sizes, 8, temperature=temperature, u=u).tolist() == [3, 0, 5]
    assert water_fill(sizes, 10**30, multiplier=2, temperature=temperature, u=u).tolist() == [6, 0, 10]
    assert water_fill(np.zeros(3, np.int64), 4, temperature=temperature, u=u).tolist() == [0, 0, 0]
    assert water_fill(np.zeros(0, np.int64), 4, temperature=temperature, u=np.zeros(0)).tolist() == []
    for target in range(8):
        assert water_fill(np.array([7]), target, temperature=temperature, u=u[:1]).tolist() == [target]


def test_temperature_0_differs_by_at_most_1_and_temperature_1_is_proportional():
    rng = np.random.default_rng(2)
    for _ in range(30):
        sizes, u = rng.integers(1, 500, 20), rng.random(20)
        target = int(rng.integers(1, sizes.sum()))
        even = water_fill(sizes, target, u=u)
        uncapped = even[even < sizes]
        assert uncapped.max() - uncapped.min() <= 1
        assert np.all(even[even == sizes] <= uncapped.max())
        # The water level itself moves by about a step of the average child.
        x = target / sizes.sum()
        proportional = water_fill(sizes, target, temperature=1.0, u=u)
        assert np.all(np.abs(proportional - x * sizes) <= 1 + 3 * sizes / sizes.mean() / np.sqrt(20))
        same = water_fill(np.full(20, 30), 333, temperature=1.0, u=u)
        assert np.all(np.abs(same - 333 / 20) <= 1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_huge_sizes_keep_the_sum_and_the_order_of_steps(temperature):
    rng = np.random.default_rng(3)
    sizes = np.concatenate([[10**10, 10**10, 1, 0, 2], rng.integers(1, 10**9, 2000)])
    u = rng.random(len(sizes))
    weights = np.where(sizes > 0, power_weights(sizes, temperature), 1.0)
    for target in (1, 10**9, int(sizes.sum()) - 1):
        quotas = water_fill(sizes, target, temperature=temperature, u=u)
        assert quotas.sum() == target
        # By definition: the last step taken by any child comes before the next step of every child.
        last = np.where(quotas > 0, (quotas - u) / weights, -np.inf)
        following = np.where(quotas < sizes, (quotas + 1 - u) / weights, np.inf)
        assert last.max() <= following.min()


def test_a_million_children_take_seconds():
    rng = np.random.default_rng(4)
    sizes, u = np.ceil(rng.lognormal(3, 2, 10**6)).astype(np.int64), rng.random(10**6)
    for temperature in (0.0, 0.5, 1.0):
        start = time.perf_counter()
        assert water_fill(sizes, 10**7, temperature=temperature, u=u).sum() == 10**7
        assert time.perf_counter() - start < 10  # usually 0.5 s; a loaded machine may be slow


def test_power_weights_are_powers_and_monotone():
    sizes = np.array([0, 1, 2, 3, 10, 999, 10**6, 10**10])
    for temperature in (0.1, 0.25, 0.5, 0.77, 0.999999):
        weights = power_weights(sizes, temperature)
        np.testing.assert_allclose(weights, sizes.astype(float) ** temperature, rtol=1e-14)
        assert weights[0] == 0
        assert np.all(np.diff(power_weights(np.arange(1, 5000), temperature)) >= 0)
    np.testing.assert_array_equal(power_weights(sizes, 0.5), np.sqrt(sizes))
    np.testing.assert_array_equal(power_weights(sizes, 0.0), np.ones(8))
    np.testing.assert_array_equal(power_weights(sizes, 1.0), sizes)
    np.testing.assert_array_equal(power_weights(sizes[1:], 5e-324), np.ones(7))


def test_real_shares_by_hand():
    np.testing.assert_allclose(expected_water_fill(np.array([1, 9, 9]), 11.5), [1, 5.25, 5.25])
    np.testing.assert_allclose(expected_water_fill(np.array([4, 16, 0]), 3, temperature=0.5), [1, 2, 0])
    np.testing.assert_allclose(expected_water_fill(np.array([4, 16]), 99.0, multiplier=2), [8, 32])
    assert expected_water_fill(np.zeros(0, np.int64), 3.0).tolist() == []


def test_lots_depend_on_cluster_level_and_seed():
    lots = lots_of_level(1000, 2, 7)
    assert np.all((lots >= 0) & (lots < 1))
    np.testing.assert_array_equal(lots[:10], lots_of_level(10, 2, 7))
    assert not np.any(lots == lots_of_level(1000, 1, 7))
    assert not np.any(lots == lots_of_level(1000, 2, 8))
    assert abs(lots_of_level(10**5, 1, 0).mean() - 0.5) < 4 / np.sqrt(12 * 10**5)


def a_tree(seed=0, leaves=200):
    rng = np.random.default_rng(seed)
    parents = [rng.integers(0, 20, leaves), rng.integers(0, 4, 20)]
    parents[0][-1], parents[1][-1] = 19, 3
    return parents, rng.integers(0, 40, leaves)


@pytest.mark.parametrize("temperature", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("multiplier", [1, 3])
def test_children_add_up_to_their_parent_at_every_level(temperature, multiplier):
    parents, leaf_sizes = a_tree()
    for target in (0, 1, 57, 1500, 10**6):
        levels = tree_quotas(parents, leaf_sizes, target, multiplier=multiplier, temperature=temperature, seed=3)
        assert len(levels) == 3
        for below, above, parent in zip(levels, levels[1:], parents, strict=False):
            np.testing.assert_array_equal(np.bincount(parent, below.sizes, len(above.sizes)), above.sizes)
            np.testing.assert_array_equal(np.bincount(parent, below.quota, len(above.sizes)), above.quota)
            sums = np.bincount(parent, below.expected, len(above.sizes))
            np.testing.assert_allclose(sums, above.expected, rtol=0, atol=1e-9)
        for level in levels:
            assert level.quota.sum() == min(target, multiplier * leaf_sizes.sum())
            assert abs(level.expected.sum() - level.quota.sum()) < 1e-9
            assert np.all((level.quota >= 0) & (level.quota <= multiplier * level.sizes))
            assert np.all((level.expected >= 0) & (level.expected <= multiplier * level.sizes))


@pytest.mark.parametrize("temperature", [0.0, 0.4, 1.0])
def test_trees_nest_in_the_target(temperature):
    parents, leaf_sizes = a_tree(1)
    before = np.zeros(200, np.int64)
    for target in range(0, int(leaf_sizes.sum()) + 40, 37):
        quota = tree_quotas(parents, leaf_sizes, target, temperature=temperature, seed=5)[0].quota
        assert np.all(quota >= before)
        before = quota


def test_a_tree_of_one_level_is_one_water_fill():
    sizes = np.array([3, 0, 20, 8])
    (level,) = tree_quotas([], sizes, 12, temperature=0.5, seed=9)
    np.testing.assert_array_equal(level.quota, water_fill(sizes, 12, temperature=0.5, u=lots_of_level(4, 1, 9)))


def test_answers_are_the_same_bits_everywhere():
    rng = np.random.default_rng(12)
    parents = [rng.integers(0, 60, 3000), rng.integers(0, 3, 60)]
    levels = tree_quotas(parents, rng.integers(0, 500, 3000), 40_000, multiplier=2, temperature=0.3, seed=1)
    digest = hashlib.sha256()
    for level in levels:
        digest.update(level.quota.astype("<i8").tobytes() + level.expected.astype("<f8").tobytes())
    # A change of this value changes published samples and weights: raise algorithm_version with it.
    assert digest.hexdigest()[:16] == "24d22e67ad382926"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": -1}, "target=-1 must be an integer >= 0"),
        ({"target": 2.5}, "target=2.5 must be an integer"),
        ({"multiplier": 0}, "multiplier=0 must be an integer >= 1"),
        ({"temperature": 1.5}, r"temperature=1.5 must lie in \[0, 1\]"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"sizes": np.array([1, -2])}, "sizes must be >= 0, got -2"),
        ({"sizes": np.array([1.0, 2.0])}, "must be integers of one dimension, got float64"),
        ({"sizes": np.array([2**62, 2**62])}, "above the limit"),
        ({"multiplier": 2**50}, "above the limit"),
        ({"u": np.array([0.5])}, r"u has shape \(1,\)"),
        ({"u": np.array([0.5, 1.0])}, "u must lie in"),
    ],
)
def test_faulty_arguments_are_told_with_their_values(change, message):
    arguments = {"sizes": np.array([4, 5]), "target": 3, "u": np.array([0.1, 0.2])} | change
    with pytest.raises(ValueError, match=message):
        water_fill(**arguments)


def test_faulty_trees_are_told_with_their_values():
    with pytest.raises(ValueError, match=r"parents of level 1 have shape \(2,\); the level has 3 clusters"):
        tree_sizes([np.array([0, 0])], np.array([1, 2, 3]))
    with pytest.raises(ValueError, match=r"parents of level 1 must lie in \[0, 2\), got 0 to 2"):
        tree_sizes([np.array([0, 1, 2]), np.array([0, 0])], np.array([1, 2, 3]))
    with pytest.raises(ValueError, match=r"target=-3"):
        expected_water_fill(np.array([1]), -3.0)
