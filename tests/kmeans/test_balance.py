"""The weights of clusters, and outlying clusters, by hand and by what they must add up to."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans.balance import balanced_weights, outlying, ways_to_share
from lakestrata.kmeans.density import local_density


@settings(max_examples=100, deadline=None)
@given(k=st.integers(1, 30), seed=st.integers(0, 2**32), flattening=st.floats(0, 1))
def test_weights_are_items_over_a_power_of_those_around(k, seed, flattening):
    rng = np.random.default_rng(seed)
    items, around = rng.integers(0, 1000, k), rng.integers(1, 10**9, k)
    weights = balanced_weights(items, around, flattening)
    np.testing.assert_allclose(weights, items / around.astype(float) ** flattening, rtol=1e-12)
    assert np.all((weights == 0) == (items == 0))


def test_weights_by_hand():
    items, around = np.array([0, 10, 10, 30]), np.array([1, 4, 16, 64])
    np.testing.assert_array_equal(balanced_weights(items, around, 0.0), items)
    np.testing.assert_allclose(balanced_weights(items, around, 1.0), [0, 10 / 4, 10 / 16, 30 / 64], rtol=1e-12)
    np.testing.assert_allclose(balanced_weights(items, around, 0.5), [0, 10 / 2, 10 / 4, 30 / 8], rtol=1e-12)
    np.testing.assert_allclose(balanced_weights(items, np.array([1, 4.5, 16, 64]), 1.0)[1], 10 / 4.5, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_a_dense_cloud_gives_less_than_its_part_the_more_it_is_flattened(seed):
    # A dense half of one cloud: nothing lies apart, and yet its items are more common.
    rng = np.random.default_rng(seed)
    x = np.rint(rng.uniform(0, 1000, (400, 3))).astype(np.float32)
    dense = x[:, 0] < 500
    items = np.where(dense, 40, 2)
    ways = dict(ways_to_share(x, items))
    flattening = {name: float(re.search(r"flattened by (\S+)", name)[1]) for name in ways}
    shares = {flattening[name]: way[dense].sum() / way.sum() for name, way in ways.items()}
    by_flattening = [shares[flattening] for flattening in sorted(shares)]
    assert by_flattening[0] == pytest.approx(items[dense].sum() / items.sum())
    assert np.all(np.diff(by_flattening) < 0)
    assert by_flattening[-1] < 0.75  # it holds .95 of the items
    by_density = balanced_weights(items, local_density(x, items).items, 1.0)
    assert by_density[dense].sum() / by_density.sum() == pytest.approx(dense.mean(), abs=0.1)  # evenly over the places


LINE = np.array([*range(10), 1000], dtype=np.float32)[:, None]


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, []),
        (0.09, []),  # 9 of 110 items
        (0.1, [10]),  # the fifth neighbour of 1000 is 995 away
        (0.2, [0, 10]),  # those of both ends are 5 away: the lower id first
        (0.28, [0, 9, 10]),
        (0.99, [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]),  # from 2 to 7 it is 3 away: the last id stays
    ],
)
def test_outlying_by_hand(share, expected):
    assert np.flatnonzero(outlying(LINE, np.full(11, 10), share)).tolist() == expected


def test_what_is_farthest_goes_first_or_nothing_goes():
    items = np.full(11, 10)
    items[10] = 50
    assert not outlying(LINE, items, 0.3).any()  # 50 of 150 items lie farthest: the next do not step in
    assert np.flatnonzero(outlying(LINE, items, 0.34)).tolist() == [10]


def test_clusters_that_lie_together_in_noise_are_not_outlying():
    # Seven far clusters on one spot have a near fifth neighbour; one alone does not.
    centroids = np.concatenate([LINE[:10], np.full((7, 1), 5000, np.float32), [[-400.0]]]).astype(np.float32)
    assert np.flatnonzero(outlying(centroids, np.ones(18, dtype=int), 1 / 18)).tolist() == [17]


@settings(max_examples=100, deadline=None)
@given(k=st.integers(1, 60), seed=st.integers(0, 2**32), share=st.floats(0, 0.999))
def test_outlying_are_the_first_by_the_distance_of_the_fifth_neighbour(k, seed, share):
    rng = np.random.default_rng(seed)
    centroids, items = rng.integers(0, 30, (k, 2)).astype(np.float32), rng.integers(1, 50, k)
    squared = np.sort(((centroids[:, None] - centroids[None]) ** 2).sum(axis=2), axis=1)[:, min(5, k - 1)]
    out = outlying(centroids, items, share)
    order = sorted(range(k), key=lambda i: (-squared[i], i))
    n = int(out.sum())
    assert sorted(order[:n]) == np.flatnonzero(out).tolist()
    assert items[out].sum() <= share * items.sum()
    if n < k:
        assert items[order[: n + 1]].sum() > int(share * items.sum())
