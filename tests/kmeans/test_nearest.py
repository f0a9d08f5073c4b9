"""Labels and distances against exact integers, where ranking in float32 alone would go wrong."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans.nearest import Centroids

MOST = 2**20


def exact_nearest(x, c):
    """Labels (ties to the lowest id) and squared distances in int64, which hold any of them."""
    x, c = x.astype(np.int64), c.astype(np.int64)
    squared = np.stack([((x - row) ** 2).sum(axis=1) for row in c], axis=1)
    labels = squared.argmin(axis=1)
    return labels, squared[np.arange(len(x)), labels]


def check_exact(x, c):
    labels, squared = Centroids(c.astype(np.float32)).nearest(x.astype(np.float32))
    expected_labels, expected = exact_nearest(x, c)
    assert labels.dtype == np.int64
    assert squared.dtype == np.float64
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_array_equal(squared.astype(np.int64), expected)


@st.composite
def points_and_centroids(draw):
    n, k, d = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 64))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([1, 2, 30, 2**10, MOST]))
    offset = draw(st.sampled_from([0, 0, MOST - spread]))
    x, c = (offset + rng.integers(-spread, spread, (rows, d), endpoint=True) for rows in (n, k))
    arrangement = draw(st.sampled_from(["any", "duplicates", "near ties", "points as centroids"]))
    if arrangement == "duplicates":
        c = c[rng.integers(0, max(1, k // 3), k)]
    elif arrangement == "near ties":  # all centroids within a step or two of each other, far from the points
        c = np.clip(c[0] + rng.integers(-1, 1, (k, d), endpoint=True), -MOST, MOST)
    elif arrangement == "points as centroids":
        c = x[rng.integers(0, n, k)]
    return np.minimum(x, MOST), np.minimum(c, MOST)


@settings(max_examples=400, deadline=None)
@given(points_and_centroids())
def test_labels_and_distances_are_exact(case):
    check_exact(*case)


@pytest.mark.parametrize("d", [1, 2, 48, 768, 2048])
@pytest.mark.parametrize("k", [2, 300])
def test_exact_where_centroids_differ_by_one_step_at_the_edge_of_the_grid(d, k):
    rng = np.random.default_rng(d + k)
    c = np.full((k, d), MOST)
    c[np.arange(k), rng.integers(0, d, k)] -= rng.integers(0, 2, k)
    x = rng.choice([-MOST, MOST, MOST - 1], (50, d))
    check_exact(x, c)


def test_exact_over_many_chunks():
    rng = np.random.default_rng(3)
    x, c = rng.integers(-3, 4, (9000, 3)), rng.integers(-3, 4, (200, 3))
    assert len(x) > 1.5 * Centroids(c.astype(np.float32)).chunk_rows
    check_exact(x, c)


def test_equal_centroids_give_the_lowest_id():
    c = np.tile(np.random.default_rng(0).integers(-MOST, MOST, 16), (7, 1)).astype(np.float32)
    x = np.random.default_rng(1).integers(-MOST, MOST, (30, 16)).astype(np.float32)
    assert Centroids(c).nearest(x)[0].tolist() == [0] * 30


def test_a_point_midway_goes_to_the_lowest_id():
    c = np.array([[9], [4], [-4], [4]], dtype=np.float32)
    labels, squared = Centroids(c).nearest(np.array([[0], [5]], dtype=np.float32))
    assert labels.tolist() == [1, 1]
    assert squared.tolist() == [16.0, 1.0]


def test_one_centroid_takes_all():
    check_exact(np.arange(-5, 5)[:, None], np.array([[2**20]]))


def test_no_points_give_no_labels():
    labels, squared = Centroids(np.ones((3, 2), np.float32)).nearest(np.empty((0, 2), np.float32))
    assert len(labels) == len(squared) == 0


def test_chunks_and_order_of_rows_do_not_matter():
    rng = np.random.default_rng(4)
    c, x = (rng.integers(-MOST, MOST, (n, 64)).astype(np.float32) for n in (50, 1000))
    centroids, order = Centroids(c), rng.permutation(1000)
    labels, squared = centroids.nearest(x)
    in_parts = [centroids.nearest(part) for part in np.array_split(x[order], 13)]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in in_parts]), labels[order])
    np.testing.assert_array_equal(np.concatenate([part[1] for part in in_parts]), squared[order])


@pytest.mark.parametrize("d", [2, 64, 384])
def test_agrees_with_faiss_where_the_gap_is_clear(d):
    rng = np.random.default_rng(d)
    x, c = (rng.integers(-MOST, MOST, (n, d)).astype(np.float32) for n in (2000, 100))
    index = faiss.IndexFlatL2(d)
    index.add(c)
    distances, ids = index.search(x, 2)
    clear = distances[:, 1] - distances[:, 0] > 1e-3 * distances[:, 1]
    labels, squared = Centroids(c).nearest(x)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(labels[clear], ids[clear, 0])
    np.testing.assert_allclose(squared[clear], distances[clear, 0], rtol=1e-2)
