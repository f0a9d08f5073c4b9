"""Leverage by hand, against a plain reckoning, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans import balance
from lakestrata.kmeans import leverage as module
from lakestrata.kmeans.balance import FLATTENING, balanced_weights, ways_to_share
from lakestrata.kmeans.communities import community_mass, find_communities
from lakestrata.kmeans.density import local_density
from lakestrata.kmeans.leverage import Directions
from lakestrata.kmeans.network import learned_network
from lakestrata.kmeans.surroundings import graph_of

RIDGE, FARTHEST = 32, 4


def scattered(k, d, seed, decay=0.0):
    """Grid points whose spread falls from coordinate to coordinate, and items of each."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(k, d)) * np.exp(-decay * np.arange(d)) + rng.normal(size=d)
    return np.rint(x * 2**12).astype(np.float32), rng.integers(1, 100, k)


def plain(x, items):
    """What it should be, by the inverse of numpy and before the cap; and the dimensions by the eigenvalues."""
    shares = items / items.sum()
    centred = x - shares @ x.astype(np.float64)
    covariance = (centred * shares[:, None]).T @ centred
    ridged = covariance + np.trace(covariance) / RIDGE * np.eye(len(covariance))
    squared = 1 + np.einsum("ij,ij->i", centred @ np.linalg.inv(ridged), centred)
    eigenvalues = np.linalg.eigvalsh(covariance)
    return squared, eigenvalues.sum() ** 2 / (eigenvalues**2).sum()


@settings(max_examples=60, deadline=None)
@given(k=st.integers(2, 80), d=st.integers(1, 40), seed=st.integers(0, 2**32), decay=st.floats(0, 0.5))
def test_it_is_that_of_a_plain_reckoning(k, d, seed, decay):
    x, items = scattered(k, d, seed, decay)
    squared, dimensions = plain(x, items)
    found = Directions(x, items)
    cap = FARTHEST * np.average(squared, weights=items)
    np.testing.assert_allclose(found.leverage(), np.minimum(squared, cap), rtol=0.03)  # coordinates keep 11 bits
    assert found.dimensions == pytest.approx(dimensions, rel=0.01)


def test_a_direction_that_few_items_share_by_hand():
    x = np.array([[64, 0], [-64, 0], [0, 64], [0, -64], [0, 0]], dtype=np.float32)
    items = np.array([45, 45, 5, 5, 7])
    directions = Directions(x, items)  # they hold .9 and .1 of the variance, and the ridge is 1 / 32
    found = directions.leverage()
    np.testing.assert_allclose(found[:2], 1 + 107 / 100 / (0.9 + 1 / 32), rtol=1e-4)
    mean = (90 * found[0] + 10 * (1 + 107 / 100 / (0.1 + 1 / 32)) + 7) / 107
    np.testing.assert_allclose(found[2:4], min(1 + 107 / 100 / (0.1 + 1 / 32), 4 * mean), rtol=1e-4)
    assert found[4] == 1
    assert directions.dimensions == pytest.approx(1 / (0.9**2 + 0.1**2))


def test_outliers_have_no_more_than_four_times_the_mean():
    x, items = scattered(400, 8, 0)
    x[0] = 1_000_000
    items[0] = 1
    found = Directions(x, items).leverage()
    assert plain(x, items)[0][0] > 20 * np.average(plain(x, items)[0], weights=items)
    assert found[0] == found.max()
    assert found[0] == pytest.approx(FARTHEST * plain(x, items)[0] @ items / items.sum(), rel=0.03)


@pytest.mark.parametrize("d", [3, 48])
def test_blocks_scale_order_and_counts_make_no_difference(monkeypatch, d):
    x, items = scattered(300, d, 5, 0.1)
    directions = Directions(x, items)
    first = directions.leverage()
    order = np.random.default_rng(1).permutation(300)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 8 * d * 7)
    for other, again in [
        (Directions(x, items), first),
        (Directions(4 * x, items), first),
        (Directions(x, 2 * items), first),
        (Directions(x[order], items[order]), first[order]),
    ]:
        np.testing.assert_array_equal(other.leverage(), again)
        assert other.dimensions == directions.dimensions


def test_a_lake_of_ten_billion_items():
    x, items = scattered(300, 6, 2)
    found = Directions(x, items * 700_000).leverage()
    np.testing.assert_allclose(found, Directions(x, items).leverage(), rtol=1e-3)


@pytest.mark.parametrize("x", [np.ones((5, 3)), np.zeros((1, 4))])
def test_where_all_is_one_there_are_no_directions(x):
    found = Directions(x.astype(np.float32), np.arange(1, len(x) + 1))
    assert found.leverage().tolist() == [1.0] * len(x)
    assert found.dimensions == 1


def near(x, size):
    return ((x[:, None] - x[None]) ** 2).sum(axis=2).argsort(axis=1, kind="stable")[:, :size]


@pytest.mark.parametrize(("d", "decay", "counts"), [(6, 0.0, True), (30, 0.0, True), (60, 0.0, False)])
def test_the_weights_of_clusters_count_it_where_the_lake_has_few_dimensions(monkeypatch, d, decay, counts):
    x, items = scattered(500, d, 3, decay)
    directions = Directions(x, items)
    leverage = directions.leverage()
    if not counts:  # it takes d^3 operations
        monkeypatch.setattr(balance, "Directions", type("Without", (Directions,), {"leverage": None}))
    _, weights = next(ways_to_share(x, items))
    found_together = [one.labels for one in find_communities(near(x, 17))]
    around = np.sqrt(local_density(x, items).items * community_mass(found_together, items))
    learned = np.exp2(np.floor(learned_network()(graph_of(x, items)) * 4 / 3 * 256) / 256)
    without = balanced_weights(items, around, FLATTENING) * learned**FLATTENING
    trust = min(1.0, max(0.0, (40 - directions.dimensions) / 20))
    assert (trust > 0) == counts
    found = weights / without
    np.testing.assert_allclose(found / found[0], (leverage / leverage[0]) ** (trust * FLATTENING), rtol=1e-9)
