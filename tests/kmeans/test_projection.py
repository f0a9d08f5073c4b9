"""Projected centroids against an eigendecomposition, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest

from lakestrata.kmeans.grid import bits_for
from lakestrata.kmeans.leverage import Directions
from lakestrata.kmeans.projection import DIRECTIONS, projected


def falling(k, d, seed, decay=0.03):
    """Grid points with a spread that falls from direction to direction, none along an axis, and items of each."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(size=(d, d)))[0]
    x = rng.normal(size=(k, d)) * np.exp(-decay * np.arange(d)) @ turned + rng.normal(size=d)
    return np.rint(x * 2**12).astype(np.float32), rng.integers(1, 50, k)


def variance(x, items):
    centred = x - items @ x.astype(np.float64) / items.sum()
    return float(items @ (centred**2).sum(axis=1) / items.sum())


@pytest.mark.parametrize(("k", "d"), [(500, 150), (300, 400), (60, 200)])  # the last has fewer points than directions
def test_it_keeps_the_distances_along_the_first_directions(k, d):
    x, items = falling(k, d, 0)
    found = projected(x, items)
    assert found.shape == (k, DIRECTIONS)
    np.testing.assert_array_equal(found, np.rint(found))
    assert 2 ** (bits_for(DIRECTIONS) - 1) <= np.abs(found).max() <= 2 ** bits_for(DIRECTIONS)
    values, vectors = np.linalg.eigh(Directions(x, items).covariance)
    along = (x - items @ x.astype(np.float64) / items.sum()) @ vectors[:, ::-1][:, :DIRECTIONS]
    scale = np.sqrt(variance(found, items) / variance(along, items))
    apart, expected = (np.linalg.norm(one[1:] - one[0], axis=1) for one in (found, along * scale))
    np.testing.assert_allclose(apart, expected, rtol=0.02)
    assert values.sum() == pytest.approx(1)


def test_few_coordinates_stay_as_they_are():
    x, items = falling(200, DIRECTIONS, 1)
    assert projected(x, items) is x


def test_the_same_to_the_last_bit():
    x, items = falling(300, 120, 2)
    first = projected(x, items)
    order = np.random.default_rng(0).permutation(300)
    for again, expected in [
        (projected(4 * x, items), first),
        (projected(x, 3 * items), first),
        (projected(x[order], items[order]), first[order]),
    ]:
        np.testing.assert_array_equal(again, expected)


def test_where_all_is_one_nothing_fails():
    assert not projected(np.ones((5, 200), np.float32), np.arange(1, 6)).any()
