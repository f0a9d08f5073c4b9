"""Masses of concepts that lie apart, and the ways to share a sample where there are any, or none."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lakestrata.kmeans.balance import FLATTENING, ways_to_share
from lakestrata.kmeans.concepts import concept_mass


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
    weights = next(ways_to_share(centroids, items))[1]
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
        name, _ = next(ways_to_share(centroids, items))
        assert re.fullmatch(rf"density \(.*\), flattened by {FLATTENING:.2g}", name)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_few_clusters_have_no_concepts(k):
    assert concept_mass(*blobs([k])[:2], 0) is None


def test_every_way_weighs_clusters_that_have_items_and_no_others():
    centroids, items, _ = blobs([60, 20, 9])
    items[[3, 70]] = 0
    for _, weights in ways_to_share(centroids, items):
        np.testing.assert_array_equal(weights > 0, items > 0)


def test_equal_centroids_are_no_fault():
    centroids = np.repeat(blobs([10])[0], 8, axis=0)
    assert len(list(ways_to_share(centroids, np.full(80, 3)))) >= 5
