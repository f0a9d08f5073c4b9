"""The search in groups: exact among the groups looked into, and exact altogether where that is all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans import routed
from lakestrata.kmeans.nearest import Centroids
from lakestrata.kmeans.routed import GroupedCentroids, recall
from lakestrata.kmeans.rows import Rows

MOST = 2**20


def exact_squared(x, c):
    x, c = x.astype(np.int64), c.astype(np.int64)
    return ((x[:, None] - c[None]) ** 2).sum(axis=2)


def slow_nearest(x, grouped):
    """The nearest groups, ties by id; then the nearest of all they have, ties by id."""
    flat, sizes = grouped.flat(), [len(part) for part in grouped.parts]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    to_groups, to_all = exact_squared(x, grouped.groups), exact_squared(x, flat)
    labels = []
    for row in range(len(x)):
        probed = sorted(range(len(sizes)), key=lambda group: (to_groups[row, group], group))[: grouped.probe]
        able = [cluster for cluster in range(len(flat)) if owner[cluster] in probed]
        labels.append(min(able, key=lambda cluster: (to_all[row, cluster], cluster)))
    return np.array(labels), to_all[np.arange(len(x)), labels]


def as_float(*arrays):
    return [array.astype(np.float32) for array in arrays]


@st.composite
def cases(draw):
    """Points and centroids in groups; near ties, copies and groups without centroids among them."""
    d, n_groups = draw(st.integers(1, 24)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = draw(st.lists(st.integers(0, 5), min_size=n_groups, max_size=n_groups).filter(any))
    spread = draw(st.sampled_from([1, 2, 30, MOST]))
    offset = draw(st.sampled_from([0, MOST - spread]))
    x = offset + rng.integers(-spread, spread, (draw(st.integers(1, 25)), d), endpoint=True)
    groups = offset + rng.integers(-spread, spread, (n_groups, d), endpoint=True)
    parts = [offset + rng.integers(-spread, spread, (size, d), endpoint=True) for size in sizes]
    if draw(st.booleans()):  # all within a step of each other, at the edge of the grid
        groups, parts = (np.full_like(groups, MOST), [np.full_like(part, MOST) for part in parts])
        for array in (groups, *parts):
            array -= rng.integers(0, 2, array.shape)
    probe = draw(st.integers(sizes.count(0) + 1, n_groups + 2))  # so that each point finds a centroid
    return as_float(x)[0], GroupedCentroids(as_float(groups)[0], as_float(*parts), probe)


@settings(max_examples=300, deadline=None)
@given(cases(), st.sampled_from([1, 4, 4096]))
def test_exact_among_the_groups_looked_into(case, at_once):
    x, grouped = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routed, "_ROWS_AT_ONCE", at_once)
        search = grouped.ready()
        labels, squared = search.nearest(Rows.of(x))
        np.testing.assert_array_equal(search.labels(Rows.of(x)), labels)
    expected, exact = slow_nearest(x, grouped)
    assert labels.dtype == np.int64
    assert squared.dtype == np.float64
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(squared.astype(np.int64), exact)
    assert len(search) == len(grouped) == len(grouped.flat())


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(0, 2))
def test_looking_into_all_groups_is_exact(case, more):
    x, grouped = case
    everywhere = GroupedCentroids(grouped.groups, grouped.parts, len(grouped.groups) + more).ready()
    for found, exact in zip(everywhere.nearest(Rows.of(x)), Centroids(grouped.flat()).nearest(Rows.of(x)), strict=True):
        np.testing.assert_array_equal(found, exact)
    assert recall(everywhere, Rows.of(x)) == 1


def by_hand(probe):
    """Groups at 0 and 100; the second has the centroid nearest to 45."""
    parts = [np.array([[0], [10]]), np.array([[52], [148]])]
    return GroupedCentroids(np.array([[0], [100]], np.float32), as_float(*parts), probe).ready()


def test_a_point_near_the_border_solved_by_hand():
    rows = Rows.of(np.array([[45], [55], [2], [-9], [200]], np.float32))
    labels, squared = by_hand(1).nearest(rows)
    assert labels.tolist() == [1, 2, 0, 0, 3]
    assert squared.tolist() == [35**2, 3**2, 2**2, 9**2, 52**2]
    labels, squared = by_hand(2).nearest(rows)
    assert labels.tolist() == [2, 2, 0, 0, 3]
    assert squared.tolist() == [7**2, 3**2, 2**2, 9**2, 52**2]
    assert recall(by_hand(1), rows) == 0.8
    assert recall(by_hand(2), rows) == 1


def test_a_point_midway_between_groups_looks_into_the_first():
    assert by_hand(1).nearest(Rows.of(np.array([[50]], np.float32)))[0].tolist() == [1]


def test_recall_counts_another_centroid_that_is_as_near():
    parts = [np.array([[20]]), np.array([[60]])]
    search = GroupedCentroids(np.array([[0], [100]], np.float32), as_float(*parts), 1).ready()
    assert recall(search, Rows.of(np.array([[40], [39], [41]], np.float32))) == pytest.approx(2 / 3)


def test_no_points_give_no_labels():
    labels, squared = by_hand(1).nearest(Rows.of(np.empty((0, 1), np.float32)))
    assert len(labels) == len(squared) == 0


def test_looking_into_more_groups_finds_more():
    rng = np.random.default_rng(0)
    centres = rng.integers(-MOST // 2, MOST // 2, (20, 4))
    parts = as_float(*(centre + rng.integers(-300_000, 300_000, (15, 4)) for centre in centres))
    rows = Rows.of(rng.integers(-MOST, MOST, (500, 4)).astype(np.float32))
    found = [recall(GroupedCentroids(as_float(centres)[0], parts, p).ready(), rows) for p in (1, 3, 8, 19, 20)]
    assert found == sorted(found)
    assert found[0] < 0.9 < found[3] <= found[4] == 1
