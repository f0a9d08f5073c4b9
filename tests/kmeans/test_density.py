"""Items around each cluster: by hand, against a plain reckoning, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans import density
from lakestrata.kmeans.density import PARTS, items_within, local_density


def scattered(k, seed, d=3, most=1000):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2000, (k, d)).astype(np.float32), rng.integers(1, most, k)


def plain_counts(x, items, part):
    """Items within the distance in which the median item has one part in so many of all."""
    squared = ((x[:, None].astype(int) - x[None].astype(int)) ** 2).sum(axis=2)
    reach = []
    for row in squared:
        met = 0
        for other in np.argsort(row, kind="stable"):
            met += items[other]
            if met * part >= items.sum():
                break
        reach.append(row[other])
    radius = np.sort(np.repeat(reach, items))[(items.sum() - 1) // 2]
    return np.array([items[row <= radius].sum() for row in squared])


def spread(counts, items):
    return np.repeat(np.log(counts), items).std()


@settings(max_examples=40, deadline=None)
@given(k=st.integers(1, 60), seed=st.integers(0, 2**32), d=st.integers(1, 4))
def test_counts_are_those_of_a_plain_reckoning(k, seed, d):
    x, items = scattered(k, seed, d, most=30)
    found = local_density(x, items)
    np.testing.assert_array_equal(found.items, plain_counts(x, items, found.part))
    assert found.items.dtype == np.int64
    assert np.all(found.items >= items)
    assert np.all(found.items <= items.sum())


def test_counts_within_several_radii_are_those_of_a_plain_reckoning():
    x, items = scattered(60, 6, most=30)
    for part, counts in zip(PARTS, items_within(x, items), strict=True):
        np.testing.assert_array_equal(counts, plain_counts(x, items, part))
    assert PARTS == (512, 256, 128, 64, 32, 16, 8)


@pytest.mark.parametrize("seed", range(10))
def test_the_radius_is_the_largest_at_which_counts_still_differ(seed):
    x, items = scattered(80, seed, most=20)
    found = local_density(x, items)
    parts = density._PARTS  # from the smallest radius on
    spreads = [spread(plain_counts(x, items, part), items) for part in parts]
    chosen, most = parts.index(found.part), int(np.argmax(spreads))
    assert chosen >= most
    assert all(one >= 0.95 * spreads[most] for one in spreads[most : chosen + 1])
    assert chosen == len(parts) - 1 or spreads[chosen + 1] < 0.95 * spreads[most]


def test_common_places_have_more_around_them():
    # Twenty spots of ten clusters each; a common spot has 100 items, a rare one 20.
    rng = np.random.default_rng(0)
    spot = np.repeat(np.arange(20), 10)
    x = rng.integers(0, 10**6, (20, 3))[spot] + rng.integers(-50, 50, (200, 3))
    common = spot < 10
    found = local_density(x.astype(np.float32), np.where(common, 10, 2)).items
    assert found.max() <= 100  # the radius stays within a spot
    assert found[common].mean() == pytest.approx(5 * found[~common].mean(), rel=0.2)


def test_one_cluster_has_its_own_items():
    assert local_density(np.ones((1, 5), np.float32), np.array([7])).items.tolist() == [7]


def test_clusters_without_items_are_no_fault():
    x, items = scattered(50, 1)
    items[::3] = 0
    assert local_density(x, items).items.min() >= 1
    assert set(local_density(x, np.zeros(50, dtype=int)).items) == {1}


def test_equal_centroids_have_the_same_around_them():
    found = local_density(np.repeat(scattered(10, 2)[0], 8, axis=0), np.full(80, 3)).items.reshape(10, 8)
    assert np.all(found == found[:, :1])
    assert found.min() >= 24


@pytest.mark.parametrize("k", [40, 1500])  # fewer and more than the radii are taken from
def test_the_same_to_the_last_bit(monkeypatch, k):
    x, items = scattered(k, 3)
    first = local_density(x, items)
    monkeypatch.setattr(density, "_BLOCK_BYTES", 8 * k * 7)  # seven rows at a time
    np.testing.assert_array_equal(local_density(x.copy(), items.copy()).items, first.items)
    np.testing.assert_array_equal(local_density(4 * x, items).items, first.items)
    np.testing.assert_array_equal(local_density(x, 2 * items).items, 2 * first.items)


def test_the_order_of_the_clusters_does_not_matter():
    x, items = scattered(500, 4)
    order = np.random.default_rng(0).permutation(500)
    np.testing.assert_array_equal(local_density(x[order], items[order]).items, local_density(x, items).items[order])


def test_radii_of_a_sample_are_about_those_of_all(monkeypatch):
    rng = np.random.default_rng(5)
    x, items = np.rint(rng.normal(size=(2500, 8)) * 1000).astype(np.float32), rng.integers(1, 9, 2500)
    sampled = local_density(x, items).items
    monkeypatch.setattr(density, "_SAMPLE", 2500)
    whole = local_density(x, items).items
    assert np.corrcoef(np.log(sampled), np.log(whole))[0, 1] > 0.98
