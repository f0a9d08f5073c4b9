"""Partial results: the same bits whatever the parts and their order, and costs past 2**63."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans.partial import Partial

MOST = 2**20


def random_step(seed, n, k, d):
    """Points, labels and squared distances as a step would give them, large ones too."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-MOST, MOST, (n, d), endpoint=True).astype(np.float32)
    return x, rng.integers(0, k, n), rng.integers(0, 2**53, n, endpoint=True).astype(np.float64)


def added(parts, k, d):
    total = Partial.zeros(k, d)
    for part in parts:
        total.add(part)
    return total


def part_of(step, rows, k, d):
    partial = Partial.zeros(k, d)
    partial.add_points(*(array[rows] for array in step))
    return partial


def assert_same(a, b):
    for left, right in zip(astuple(a), astuple(b), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    assert a.cost == b.cost


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 60), st.integers(1, 8), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32))
def test_parts_add_up_to_the_whole_in_any_order(n, k, d, n_parts, seed):
    step, rng = random_step(seed, n, k, d), np.random.default_rng(seed)
    owner = rng.integers(0, n_parts, n)
    rows = [rng.permutation(np.flatnonzero(owner == part)) for part in range(n_parts)]
    parts = [part_of(step, part, k, d) for part in rows]
    whole = part_of(step, np.arange(n), k, d)
    assert_same(added(parts, k, d), whole)
    assert_same(added(parts[::-1], k, d), whole)
    assert_same(added([added(parts[:2], k, d), added(parts[2:], k, d)], k, d), whole)


def test_counts_sums_and_costs_are_those_of_the_points():
    x, labels, squared = random_step(5, 500, 6, 3)
    labels[labels == 4] = 2
    partial = part_of((x, labels, squared), np.arange(500), 6, 3)
    for cluster in range(6):
        mine = labels == cluster
        assert partial.counts[cluster] == mine.sum()
        assert partial.sums[cluster].tolist() == [sum(map(int, column)) for column in x[mine].T]
        exact = sum(map(int, squared[mine]))
        assert (int(partial.high[cluster]) << 26) + int(partial.low[cluster]) == exact
        assert partial.mean_squared()[cluster] == exact / max(1, int(mine.sum()))
    assert partial.cost == sum(map(int, squared))


def test_costs_past_two_to_the_63_are_exact():
    squared = np.full(5000, 2.0**53) - np.arange(5000)
    partial = Partial.zeros(2, 1)
    partial.add_points(np.zeros((5000, 1), np.float32), np.arange(5000) % 2, squared)
    assert partial.cost == sum(map(int, squared)) > 2**65
    doubled = partial
    for _ in range(20):
        doubled = added([doubled, doubled], 2, 1)
    assert doubled.cost == partial.cost << 20
    np.testing.assert_array_equal(doubled.mean_squared(), partial.mean_squared())


def test_clusters_cuts_out_a_range():
    partial = part_of(random_step(6, 200, 7, 2), np.arange(200), 7, 2)
    assert_same(partial.clusters(0, 7), partial)
    halves = [partial.clusters(0, 3), partial.clusters(3, 7)]
    assert sum(half.cost for half in halves) == partial.cost
    np.testing.assert_array_equal(np.vstack([half.sums for half in halves]), partial.sums)


def test_empty_clusters_have_no_mean_distance():
    assert Partial.zeros(3, 2).mean_squared().tolist() == [0.0] * 3
    assert Partial.zeros(3, 2).cost == 0
