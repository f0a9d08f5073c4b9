"""Mass around clusters, the weights made of it, and outlying clusters, by hand and by what they must add up to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans.balance import (
    FLATTENING,
    balanced_weights,
    concept_mass,
    local_masses,
    outlying,
    ways_to_share,
)


def scattered(k, seed, d=3):
    rng = np.random.default_rng(seed)
    spots = rng.choice(2000**2, k, replace=False)  # distinct in the first two coordinates
    far = rng.integers(0, 2000, (k, d - 2))
    return np.column_stack([spots // 2000, spots % 2000, far]).astype(np.float32), rng.integers(1, 1000, k)


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_few_clusters_are_one_cell_that_holds_everything(k):
    centroids, items = scattered(k, seed=k)
    masses = local_masses(centroids, items, seed=0)
    assert masses.shape == (3, k)
    np.testing.assert_allclose(masses, float(items.sum()), rtol=1e-14)


@settings(max_examples=60, deadline=None)
@given(k=st.integers(1, 150), data=st.integers(0, 2**32), seed=st.integers(0, 2**32))
def test_what_the_cells_hold_adds_up(k, data, seed):
    centroids, items = scattered(k, data)
    masses = local_masses(centroids, items, seed)
    for mass, clusters in zip(masses, (4, 8, 16), strict=True):
        # Each draw shares every cell's items among its clusters, so these add up to the number of cells: a harmonic
        # mean keeps that, and another mean does not.
        assert (items / mass).sum() == pytest.approx(max(1, k // clusters), rel=1e-12)
    assert np.all(masses >= items * (1 - 1e-12))  # a cluster is in its own cell
    assert np.all(masses <= items.sum() * (1 + 1e-12))


def test_two_places_by_hand():
    # Four clusters on one spot and four on another: of two seats drawn, both are on one spot (3 times in 7), and the
    # lower of them takes all, or each takes its spot.
    centroids = np.repeat(np.array([[0.0], [1000.0]], np.float32), 4, axis=0)
    items = np.array([1, 2, 3, 4, 100, 200, 300, 400])
    together = []
    for seed in range(200):
        mass = local_masses(centroids, items, seed)[0]
        here, there = mass[0], mass[4]
        np.testing.assert_array_equal(mass, np.repeat([here, there], 4))
        draws = (8 / 10 - 8 / here) / (1 / 10 - 1 / 1010)  # solves 8 / here = draws / 1010 + (8 - draws) / 10
        assert draws == pytest.approx(round(draws), abs=1e-9)
        assert there == pytest.approx(8 / (draws / 1010 + (8 - draws) / 1000), rel=1e-12)
        together.append(draws)
    assert abs(np.mean(together) - 8 * 3 / 7) < 5 * np.sqrt(8 * 12 / 49 / 200)


def test_masses_are_at_least_1_where_nothing_is():
    centroids, items = scattered(60, seed=0)
    np.testing.assert_array_equal(local_masses(centroids, np.zeros_like(items), seed=0), np.ones((3, 60)))
    items[:50] = 0
    assert local_masses(centroids, items, seed=0).min() >= 1


def test_masses_depend_on_the_seed_and_repeat_to_the_last_bit():
    centroids, items = scattered(300, seed=1)
    first = local_masses(centroids, items, seed=7)
    np.testing.assert_array_equal(local_masses(centroids.copy(), items.copy(), seed=7), first)
    np.testing.assert_array_equal(local_masses(4 * centroids, 2 * items, seed=7), 2 * first)
    assert not np.array_equal(local_masses(centroids, items, seed=8), first)
    assert np.all(np.diff(first.mean(axis=1)) > 0)  # cells of more clusters hold more


@settings(max_examples=100, deadline=None)
@given(k=st.integers(1, 30), seed=st.integers(0, 2**32), flattening=st.floats(0, 1))
def test_weights_are_items_over_a_power_of_the_geometric_mean(k, seed, flattening):
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 1000, k)
    masses = 10 ** rng.uniform(0, 9, (3, k))
    expected = items / np.exp(np.log(masses).mean(axis=0)) ** flattening
    weights = balanced_weights(items, masses, flattening)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    assert np.all((weights == 0) == (items == 0))


def test_weights_by_hand():
    items = np.array([0, 10, 10, 30])
    masses = np.array([[1, 2, 16, 16], [1, 4, 16, 16], [1, 8, 16, 16]], dtype=float)
    np.testing.assert_array_equal(balanced_weights(items, masses, 0.0), items)
    np.testing.assert_allclose(balanced_weights(items, masses, 1.0), [0, 10 / 4, 10 / 16, 30 / 16], rtol=1e-12)
    np.testing.assert_allclose(balanced_weights(items, masses, 0.5), [0, 10 / 2, 10 / 4, 30 / 4], rtol=1e-12)
    np.testing.assert_array_equal(balanced_weights(items, masses), balanced_weights(items, masses, FLATTENING))


def test_a_larger_mass_gives_a_smaller_share_of_each_item():
    masses = np.sort(np.random.default_rng(0).uniform(1, 1e6, 500))[None].repeat(3, axis=0)
    items = np.random.default_rng(1).integers(1, 100, 500)
    assert np.all(np.diff(balanced_weights(items, masses) / items) < 0)


@pytest.mark.parametrize("seed", range(5))
def test_a_heavy_blob_gives_less_than_its_part_the_more_it_is_flattened(seed):
    # One blob of 40,000 items and four of 2,000, far from each other, with 40 centroids each.
    rng = np.random.default_rng(seed)
    blob = np.repeat(np.arange(5), 40)
    centroids = (blob[:, None] * 50_000 + rng.integers(-500, 500, (200, 3))).astype(np.float32)
    items = np.where(blob == 0, 1000, 50)
    masses = local_masses(centroids, items, seed)
    ways = [balanced_weights(items, masses, f) for f in (0.0, 0.25, 0.5, 0.75, 1.0)]
    heavy = [way[blob == 0].sum() / way.sum() for way in ways]
    assert heavy[0] == pytest.approx(40_000 / 48_000)
    assert np.all(np.diff(heavy) < 0)
    assert heavy[3] < 0.4
    assert heavy[4] == pytest.approx(1 / 5, abs=0.05)  # evenly over the places
    light = [np.bincount(blob, way)[1:] for way in ways]
    assert all(shares.max() < 1.6 * shares.min() for shares in light)


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


def blobs(sizes, d=16, apart=30.0, seed=0, noise=0):
    """Clusters of four items around distant centres, on a grid: (centroids, items, the blob of each cluster)."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), d)) * apart
    blob = np.repeat(np.arange(len(sizes)), sizes)
    x = np.r_[centres[blob] + rng.normal(size=(len(blob), d)), rng.normal(size=(noise, d)) * 40 * apart]
    return np.rint(x * 64).astype(np.float32), np.full(len(x), 4), np.r_[blob, np.full(noise, -1)]


@pytest.mark.parametrize("noise", [0, 5])
def test_the_masses_of_distant_concepts_recur(noise):
    centroids, items, blob = blobs([160, 80, 40, 20, 12], noise=noise)
    found = concept_mass(centroids, items, 0)
    assert found.reliability > found.least
    assert 3 <= found.n_cells <= 10
    of_blob = [np.median(found.mass[blob == one]) for one in range(5)]
    assert of_blob[0] == max(of_blob)  # the two smallest may be taken for one
    weights = next(iter(ways_to_share(centroids, items).values()))
    share = np.array([weights[blob == one].sum() for one in range(5)])
    assert share.max() < 160 / 12 / 2 * share.min()  # less than half as uneven as by items
    again = concept_mass(centroids, items, 0)
    assert (again.mass.tobytes(), again.n_cells, again.reliability) == (
        found.mass.tobytes(),
        found.n_cells,
        found.reliability,
    )


def test_one_cloud_has_no_concepts():
    for seed in range(5):
        centroids, items, _ = blobs([300], seed=seed)
        assert concept_mass(centroids, items, 0) is None
        assert next(iter(ways_to_share(centroids, items))) == f"mass, flattened by {FLATTENING:g}"


@pytest.mark.parametrize("k", [1, 2, 7])
def test_few_clusters_have_no_concepts(k):
    assert concept_mass(*blobs([k])[:2], 0) is None


def test_every_way_weighs_clusters_that_have_items_and_no_others():
    centroids, items, _ = blobs([60, 20, 9])
    items[[3, 70]] = 0
    for weights in ways_to_share(centroids, items).values():
        np.testing.assert_array_equal(weights > 0, items > 0)


def test_equal_centroids_are_no_fault():
    centroids = np.repeat(blobs([10])[0], 8, axis=0)
    assert len(ways_to_share(centroids, np.full(80, 3))) >= 5
