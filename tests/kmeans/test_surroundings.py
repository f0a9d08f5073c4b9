"""What a network sees of clusters: by hand, against plain reckonings, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans import density, leverage
from lakestrata.kmeans.surroundings import NEIGHBOURS, graph_of, log2, merged


def scattered(k, d, seed):
    rng = np.random.default_rng(seed)
    return np.rint(rng.normal(size=(k, d)) * 2**12).astype(np.float32), rng.integers(1, 40, k)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.integers(1, 2**53), st.floats(1e-6, 1e15)))
def test_logarithms_are_those_of_numpy_rounded_down(x):
    exact = np.log2(x)
    found = float(log2(np.array([x]))[0])
    assert found * 256 == np.floor(found * 256)
    assert found - 1e-9 <= exact < found + 1 / 256 + 1e-9


def test_few_clusters_stay_as_they_are():
    x, items = scattered(50, 3, 5)
    few, held, into = merged(x, items, most=50)
    assert few is x
    assert held is items
    np.testing.assert_array_equal(into, np.arange(50))


@pytest.mark.parametrize("distinct", [500, 20])
def test_many_clusters_merge_with_those_near_them_and_lose_no_item(distinct):
    x, items = scattered(500, 3, 6)
    x = x[np.arange(500) % distinct]
    few, held, into = merged(x, items, most=40)
    assert len(few) == min(40, distinct)
    np.testing.assert_array_equal(held, np.bincount(into, items))
    assert held.min() > 0
    squared = ((x[:, None].astype(float) - few[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(into, squared.argmin(axis=1))


def test_neighbours_and_edges_by_hand():
    x = np.array([[0], [1], [3], [7], [15]], dtype=np.float32) * 1024
    graph = graph_of(x, np.array([1, 1, 1, 1, 4]))
    assert graph.near.tolist() == [[1, 2, 3, 4], [0, 2, 3, 4], [1, 0, 3, 4], [2, 1, 0, 4], [3, 2, 1, 0]]
    far = 10 + np.log2([[1, 3, 7, 15], [1, 2, 6, 14], [2, 3, 4, 12], [4, 6, 7, 8], [8, 12, 14, 15]])
    np.testing.assert_allclose(graph.edges[..., 0], far - far[:, -1:], atol=0.02)
    np.testing.assert_allclose(graph.edges[..., 1], far - far[graph.near, -1], atol=0.02)
    np.testing.assert_array_equal(graph.edges[..., 2:], 1)  # all name each other
    np.testing.assert_allclose(graph.nodes[:, 0], [-1, -1, -1, -1, 1])  # items; the mean over them is 2^1
    np.testing.assert_array_equal(graph.weights, [1, 1, 1, 1, 4])


def test_shared_and_mutual_neighbours_are_those_of_a_plain_reckoning():
    x, items = scattered(120, 5, 0)
    graph = graph_of(x, items)
    squared = ((x[:, None].astype(float) - x[None]) ** 2).sum(axis=2)
    np.fill_diagonal(squared, np.inf)
    near = squared.argsort(axis=1, kind="stable")[:, :NEIGHBOURS]
    np.testing.assert_array_equal(graph.near, near)
    with_itself = [{*row, one} for one, row in enumerate(near.tolist())]
    for one, row in enumerate(near.tolist()):
        shared = [len(with_itself[one] & with_itself[other]) / (NEIGHBOURS + 1) for other in row]
        np.testing.assert_allclose(graph.edges[one, :, 2], shared, atol=1 / 512)
        np.testing.assert_array_equal(graph.edges[one, :, 3], [one in with_itself[other] for other in row])


@pytest.mark.parametrize("d", [3, 130])
def test_the_same_to_the_last_bit(monkeypatch, d):
    x, items = scattered(400, d, 1)
    first = graph_of(x, items)
    monkeypatch.setattr(density, "_BLOCK_BYTES", 8 * 400 * 7)
    monkeypatch.setattr(leverage, "_BLOCK_BYTES", 8 * d * 11)
    again = graph_of(4 * x, items)
    for name in ("nodes", "near", "edges", "lake", "weights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))


def test_all_figures_are_multiples_of_a_step_and_nodes_lie_around_their_mean():
    x, items = scattered(300, 12, 2)
    graph = graph_of(x, items)
    for figures in (graph.nodes, graph.edges, graph.lake):
        np.testing.assert_array_equal(figures * 256, np.rint(figures * 256))
    assert np.abs(graph.weights @ graph.nodes / graph.weights.sum()).max() < 0.05
    assert np.abs(graph.nodes).max() <= 8


def test_a_lake_of_ten_billion_items():
    x, items = scattered(300, 6, 3)
    first, many = graph_of(x, items), graph_of(x, items * 1_600_000)
    assert many.weights.sum() <= 2**26
    np.testing.assert_allclose(many.nodes, first.nodes, atol=0.05)


@pytest.mark.parametrize("k", [2, 3, 20])
def test_few_clusters_and_equal_ones_are_no_fault(k):
    x, items = scattered(k, 4, 4)
    for places in (x, np.ones_like(x)):
        graph = graph_of(places, items)
        assert graph.near.shape == (k, min(NEIGHBOURS, k - 1))
        assert not np.any(graph.near == np.arange(k)[:, None])
        assert np.isfinite(graph.nodes).all()
