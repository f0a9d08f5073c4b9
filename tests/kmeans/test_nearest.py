"""Labels and distances against exact integers, where ranking in float32 alone would go wrong."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans import nearest
from lakestrata.kmeans.nearest import Centroids, augment, firsts, ranks_of
from lakestrata.kmeans.rows import Rows

MOST = 2**20


def exact_squared(x, c):
    """In int64, which holds any of them, shape (n, k)."""
    return np.stack([((x.astype(np.int64) - row) ** 2).sum(axis=1) for row in c.astype(np.int64)], axis=1)


def rows_of(x):
    return Rows.of(np.asarray(x, dtype=np.float32))


def check_exact(x, c, centroids=None):
    """Labels (ties to the lowest id) and distances are those in integers."""
    labels, squared = (centroids or Centroids(c.astype(np.float32))).nearest(rows_of(x))
    exact = exact_squared(x, c)
    assert labels.dtype == np.int64
    assert squared.dtype == np.float64
    np.testing.assert_array_equal(labels, exact.argmin(axis=1))
    np.testing.assert_array_equal(squared.astype(np.int64), exact.min(axis=1))


def in_parts(c, n_parts, rng):
    """Centroids given in parts, empty ones among them."""
    bounds = np.sort(rng.integers(0, len(c), n_parts - 1, endpoint=True))
    return Centroids(parts=[augment(part.astype(np.float32)) for part in np.split(c, bounds)])


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


@settings(max_examples=150, deadline=None)
@given(points_and_centroids(), st.integers(1, 6), st.sampled_from([1, 3, 2048]), st.sampled_from([1, 2**21]))
def test_exact_over_parts_and_over_more_than_one_product(case, n_parts, at_once, scores):
    x, c = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_CENTROIDS_AT_ONCE", at_once)
        patch.setattr(nearest, "_SCORES", scores)
        patch.setattr(nearest, "_PAIRS_AT_ONCE", 7)
        centroids = in_parts(c, n_parts, np.random.default_rng(n_parts))
        assert len(centroids) == len(c)
        check_exact(x, c, centroids)
        np.testing.assert_array_equal(centroids.labels(rows_of(x)), exact_squared(x, c).argmin(axis=1))


@settings(max_examples=300, deadline=None)
@given(points_and_centroids(), st.integers(1, 40), st.integers(1, 4), st.sampled_from([1, 5, 2048]))
def test_several_are_the_nearest_in_order_with_ties_by_id(case, size, n_parts, at_once):
    x, c = case
    size = min(size, len(c))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_CENTROIDS_AT_ONCE", at_once)
        patch.setattr(nearest, "_SEVERAL_SCORES", 1)
        found = in_parts(c, n_parts, np.random.default_rng(n_parts)).several(rows_of(x), size)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.argsort(exact_squared(x, c), axis=1, kind="stable")[:, :size])


def test_several_solved_by_hand():
    centroids = Centroids(np.array([[9], [4], [-4], [4], [0]], dtype=np.float32))
    assert centroids.several(rows_of([[0], [5]]), 4).tolist() == [[4, 1, 2, 3], [1, 3, 0, 4]]
    assert centroids.several(rows_of([[0], [5]]), 5).tolist() == [[4, 1, 2, 3, 0], [1, 3, 0, 4, 2]]
    assert centroids.several(rows_of(np.empty((0, 1))), 3).shape == (0, 3)


def test_squared_measures_any_pairs():
    rng = np.random.default_rng(0)
    x, c = (rng.choice([-MOST, MOST, MOST - 1, 0], (n, 48)) for n in (30, 20))
    places, ids = rng.integers(0, 30, 9000), rng.integers(0, 20, 9000)
    for centroids in (Centroids(c.astype(np.float32)), in_parts(c, 5, rng)):
        found = centroids.squared(rows_of(x), places, ids)
        np.testing.assert_array_equal(found.astype(np.int64), exact_squared(x, c)[places, ids])
        np.testing.assert_array_equal(centroids.vectors(ids), c[ids])


@settings(max_examples=100, deadline=None)
@given(points_and_centroids())
def test_no_score_is_farther_from_the_exact_one_than_the_bound(case):
    x, c = case
    centroids, rows = Centroids(c.astype(np.float32)), rows_of(x)
    scores = np.concatenate([part.copy() for _, part in centroids._products(rows)], axis=1).astype(np.longdouble)
    doubled = 2 * x.astype(np.int64) @ c.T.astype(np.int64) - (c.astype(np.int64) ** 2).sum(axis=1)
    assert (abs(2 * scores - doubled) <= 2 * centroids.bound(rows)[:, None]).all()


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
    x, c = rng.integers(-3, 4, (13_000, 3)), rng.integers(-3, 4, (200, 3))
    assert len(x) > 1.5 * Centroids(c.astype(np.float32)).chunk_rows
    check_exact(x, c)


def test_equal_centroids_give_the_lowest_id():
    c = np.tile(np.random.default_rng(0).integers(-MOST, MOST, 16), (7, 1)).astype(np.float32)
    x = np.random.default_rng(1).integers(-MOST, MOST, (30, 16))
    assert Centroids(c).nearest(rows_of(x))[0].tolist() == [0] * 30
    assert Centroids(parts=[augment(c[:3]), augment(c[3:])]).nearest(rows_of(x))[0].tolist() == [0] * 30


def test_a_point_midway_goes_to_the_lowest_id():
    c = np.array([[9], [4], [-4], [4]], dtype=np.float32)
    labels, squared = Centroids(c).nearest(rows_of([[0], [5]]))
    assert labels.tolist() == [1, 1]
    assert squared.tolist() == [16.0, 1.0]


def test_one_centroid_takes_all():
    check_exact(np.arange(-5, 5)[:, None], np.array([[2**20]]))


def test_no_points_give_no_labels():
    labels, squared = Centroids(np.ones((3, 2), np.float32)).nearest(rows_of(np.empty((0, 2))))
    assert len(labels) == len(squared) == 0


def test_chunks_and_order_of_rows_do_not_matter():
    rng = np.random.default_rng(4)
    c, x = (rng.integers(-MOST, MOST, (n, 64)).astype(np.float32) for n in (50, 1000))
    centroids, order = Centroids(c), rng.permutation(1000)
    labels, squared = centroids.nearest(rows_of(x))
    some = [centroids.nearest(rows_of(part)) for part in np.array_split(x[order], 13)]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in some]), labels[order])
    np.testing.assert_array_equal(np.concatenate([part[1] for part in some]), squared[order])


@pytest.mark.parametrize("d", [2, 64, 384])
def test_agrees_with_faiss_where_the_gap_is_clear(d):
    rng = np.random.default_rng(d)
    x, c = (rng.integers(-MOST, MOST, (n, d)).astype(np.float32) for n in (2000, 100))
    index = faiss.IndexFlatL2(d)
    index.add(c)
    distances, ids = index.search(x, 2)
    clear = distances[:, 1] - distances[:, 0] > 1e-3 * distances[:, 1]
    labels, squared = Centroids(c).nearest(rows_of(x))
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(labels[clear], ids[clear, 0])
    np.testing.assert_allclose(squared[clear], distances[clear, 0], rtol=1e-2)


def test_rows_are_the_same_however_they_are_cut():
    x = np.random.default_rng(5).integers(-MOST, MOST, (100, 7))
    rows = rows_of(x)
    np.testing.assert_array_equal(rows.a, np.hstack([x, np.full((100, 1), -1)]))
    np.testing.assert_array_equal(rows.x, x)
    np.testing.assert_array_equal(rows.norms.astype(np.int64), (x.astype(np.int64) ** 2).sum(axis=1))
    chunks = list(rows.chunks(33))
    assert [len(chunk) for chunk in chunks] == [33, 33, 33, 1]
    again = Rows.concatenate(chunks)
    np.testing.assert_array_equal(again.a, rows.a)
    np.testing.assert_array_equal(again.norms, rows.norms)
    np.testing.assert_array_equal(rows[x[:, 0] > 0].x, x[x[:, 0] > 0])


def test_runs_of_equal_values():
    ordered = np.array([2, 2, 2, 5, 7, 7])
    assert firsts(ordered).tolist() == [0, 3, 4]
    assert ranks_of(ordered).tolist() == [0, 1, 2, 0, 0, 1]
    assert len(firsts(ordered[:0])) == len(ranks_of(ordered[:0])) == 0
