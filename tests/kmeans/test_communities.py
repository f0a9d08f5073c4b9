"""Communities of clusters, by hand and against a plain reckoning; and how a sample is shared where they lie apart."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans import communities
from lakestrata.kmeans.balance import FLATTENING, ways_to_share
from lakestrata.kmeans.communities import Communities, community_mass, find_communities, items_together

# Two triangles, and a way from one to the other: 2 has 3 among those near it.
TRIANGLES = np.array([[1, 2, 1], [0, 2, 0], [0, 1, 3], [4, 5, 4], [3, 5, 3], [3, 4, 3]])


def blobs(sizes, d=16, apart=30.0, seed=0, noise=0):
    """Clusters of four items around distant centres, on a grid: (centroids, items, the blob of each cluster)."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), d)) * apart
    blob = np.repeat(np.arange(len(sizes)), sizes)
    x = np.r_[centres[blob] + rng.normal(size=(len(blob), d)), rng.normal(size=(noise, d)) * 40 * apart]
    return np.rint(x * 64).astype(np.float32), np.full(len(x), 4), np.r_[blob, np.full(noise, -1)]


def neighbours(x, size):
    return ((x[:, None] - x[None]) ** 2).sum(axis=2).argsort(axis=1, kind="stable")[:, :size]


def plain_votes(near):
    """Neighbours in common, itself among them, of those of whom one is the other's neighbour."""
    own = [{one, *row} for one, row in enumerate(near.tolist())]
    every = range(len(near))
    return [[len(own[i] & own[j]) if i != j and (j in own[i] or i in own[j]) else 0 for j in every] for i in every]


@settings(max_examples=60, deadline=None)
@given(k=st.integers(1, 25), size=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_votes_are_those_of_a_plain_reckoning(k, size, seed):
    near = np.random.default_rng(seed).integers(0, k, (k, size))
    assert communities._votes(near).toarray().tolist() == plain_votes(near)


@settings(max_examples=60, deadline=None)
@given(k=st.integers(1, 60), size=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_no_cluster_would_rather_be_elsewhere(k, size, seed):
    near = neighbours(np.random.default_rng(seed).normal(size=(k, 2)), size)
    votes = np.array(plain_votes(near))
    for found in find_communities(near):
        check_communities(found, votes)


def check_communities(found, votes):
    of_label = np.stack([votes[:, found.labels == label].sum(axis=1) for label in range(found.n)], axis=1)
    within = of_label[np.arange(len(votes)), found.labels]
    assert np.all(within == of_label.max(axis=1))
    given_ = votes.sum(axis=1)
    assert found.within == (pytest.approx(within.sum() / given_.sum()) if given_.any() else 0.0)
    each = [
        within[found.labels == label].sum() / max(1, given_[found.labels == label].sum()) for label in range(found.n)
    ]
    alone = [not given_[found.labels == label].any() for label in range(found.n)]
    assert found.each == pytest.approx(np.mean(np.where(alone, 1.0, each)))


def test_triangles_by_hand():
    found = find_communities(TRIANGLES)[0]
    assert len(set(found.labels[:3])) == len(set(found.labels[3:])) == 1
    assert found.n == 2
    # Each pair of a triangle has its three in common: six votes of 3 in each. 2 and 3 have 3 itself: a vote each way.
    assert found.within == pytest.approx(36 / 38)
    assert found.each == pytest.approx(18 / 19)


def test_the_mass_is_that_of_all_its_clusters():
    labels, items = np.array([0, 1, 0, 2, 1]), np.array([5, 1, 2, 0, 8])
    assert items_together(labels, items).tolist() == [7, 9, 7, 1, 9]


@pytest.mark.parametrize("seed", range(5))
def test_distant_blobs_are_told_apart_whatever_their_sizes(seed):
    centroids, _, blob = blobs([160, 80, 40, 20, 12], seed=seed)
    found = find_communities(neighbours(centroids, 9))[0]
    assert all(len(set(blob[found.labels == label])) == 1 for label in range(found.n))
    assert 5 <= found.n <= 6  # a small one may fall in two
    assert found.within > 0.98


def test_the_best_come_first_and_the_same_again():
    near = neighbours(np.random.default_rng(0).normal(size=(500, 8)), 9)
    first, again = find_communities(near), find_communities(near)
    assert [one.within for one in first] == sorted((one.within for one in first), reverse=True)
    assert len({one.within for one in first}) > 1
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)


def test_the_mass_is_the_geometric_mean_over_what_was_found():
    first, second = np.array([0, 0, 1]), np.array([0, 1, 1])
    items = np.array([4, 12, 1])
    np.testing.assert_allclose(community_mass([first], items), [16, 16, 1], rtol=1e-15)
    np.testing.assert_allclose(
        community_mass([first, second, second, second], items)[0], (16 * 4**3) ** 0.25, rtol=1e-15
    )
    np.testing.assert_allclose(community_mass([first, second], items)[0], (16**3 * 4) ** 0.25, rtol=1e-15)


def test_those_that_keep_few_of_their_votes_are_taken_for_one():
    found = Communities(np.array([0, 1, 2, 3, 1]), 0.8, np.array([0.95, 0.5, 0.9, 0.7]))
    assert found.joined(0.9).tolist() == [0, 4, 2, 4, 4]
    assert found.joined(0.0).tolist() == found.labels.tolist()


@pytest.mark.parametrize("seed", [3, 5])
def test_what_lies_apart_but_for_noise_is_shared_evenly_and_the_noise_is_taken_for_one(seed):
    centroids, _, blob = blobs([160, 120, 90, 70, 50, 40, 30, 30, 30, 30], apart=6.0, seed=seed)
    noise = np.rint(np.random.default_rng(seed + 100).normal(size=(100, 16)) * 6 * 64)
    centroids, blob = np.r_[centroids, noise].astype(np.float32), np.r_[blob, np.full(100, -1)]
    items = np.where(blob == -1, 1, 4)  # scattered items are alone in their clusters
    found = find_communities(neighbours(centroids, 9))
    assert not any(one.within >= 0.95 and one.each >= 0.85 for one in found)  # noise is in the way
    name, weights = next(ways_to_share(centroids, items))
    assert "communities that lie apart" in name
    share = np.array([weights[blob == one].sum() for one in range(-1, 10)]) / weights.sum()
    assert share[1:].max() <= 2 * share[1:].min()
    assert share[0] < 0.15


@pytest.mark.parametrize("noise", [0, 5])
def test_what_lies_apart_is_shared_evenly(noise):
    centroids, items, blob = blobs([160, 80, 40, 20, 12], noise=noise)
    name, weights = next(ways_to_share(centroids, items))
    assert "communities that lie apart" in name
    share = np.array([weights[blob == one].sum() for one in range(5)])
    assert share.max() <= 3 * share.min()  # by items it would be 13; one falls in two, and noise joins some


@pytest.mark.parametrize("d", [2, 16])
@pytest.mark.parametrize("k", [30, 600])
def test_one_cloud_is_no_community_that_lies_apart(k, d):
    for seed in range(10):
        centroids, items, _ = blobs([k], d=d, seed=seed)
        name, _ = next(ways_to_share(centroids, items))
        told = rf"flattened by {FLATTENING} \(1/\d+ of the items within a radius, \d+ communities, \d+ dimensions\)"
        assert re.fullmatch(f"what is around, {told}", name)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_few_clusters_are_one_community(k):
    assert find_communities(neighbours(blobs([k])[0], 17))[0].n == 1
    assert next(ways_to_share(*blobs([k])[:2]))[0].startswith("what is around")


def test_every_way_weighs_clusters_that_have_items_and_no_others():
    centroids, items, _ = blobs([60, 20, 12])
    items[[3, 70]] = 0
    ways = dict(ways_to_share(centroids, items))
    assert len(ways) >= 5
    for weights in ways.values():
        np.testing.assert_array_equal(weights > 0, items > 0)


def test_equal_centroids_are_no_fault():
    centroids = np.repeat(blobs([10])[0], 8, axis=0)
    assert len(list(ways_to_share(centroids, np.full(80, 3)))) >= 5
