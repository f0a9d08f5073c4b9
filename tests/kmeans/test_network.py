"""The network against a plain reckoning in floating point, and what must not change what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lakestrata.kmeans import network as module
from lakestrata.kmeans.network import Graph, Network, learned_network
from lakestrata.kmeans.surroundings import graph_of

WIDTH, HIDDEN = 16, 24


def random_graph(k=50, f=5, m=6, e=3, g=4, seed=0):
    rng = np.random.default_rng(seed)
    near = np.array([rng.choice(np.delete(np.arange(k), one), m, replace=False) for one in range(k)])
    nodes, edges, lake = (np.rint(rng.normal(size=shape) * 256) / 256 for shape in ((k, f), (k, m, e), (g,)))
    return Graph(nodes, near, edges, lake, rng.integers(1, 1000, k).astype(np.float64))


def random_weights(graph, layers=2, seed=1):
    rng = np.random.default_rng(seed)
    learned = {}

    def linear(name, inputs, outputs, bias=True):
        weight = rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)
        learned[f"{name}.weight"] = np.rint(weight * 4096).astype(np.int16)
        if bias:
            learned[f"{name}.bias"] = np.rint(rng.normal(size=outputs) * 1024).astype(np.int16)

    def two(name, inputs, outputs):
        linear(f"{name}.first", inputs, HIDDEN)
        linear(f"{name}.second", HIDDEN, outputs)

    two("in", graph.nodes.shape[1] + len(graph.lake), WIDTH)
    for layer in range(layers):
        linear(f"layer.{layer}.mine", WIDTH, WIDTH)
        linear(f"layer.{layer}.theirs", WIDTH, WIDTH, bias=False)
        linear(f"layer.{layer}.between", graph.edges.shape[2], WIDTH, bias=False)
        two(f"layer.{layer}", 4 * WIDTH, WIDTH)
    two("out", WIDTH, 1)
    return learned | {
        "lake.least": np.full(len(graph.lake), -(1 << 14)),
        "lake.most": np.full(len(graph.lake), 1 << 14),
    }


def plain(learned, graph, layers=2):
    """The same without any rounding, a cluster at a time where messages are heard."""
    w = {name: values / 4096 for name, values in learned.items()}

    def two(name, x):
        hidden = np.maximum(x @ w[f"{name}.first.weight"] + w[f"{name}.first.bias"], 0)
        return hidden @ w[f"{name}.second.weight"] + w[f"{name}.second.bias"]

    def normed(x):
        return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 2.0**-16)

    state = two("in", np.array([np.r_[one, graph.lake] for one in graph.nodes]))
    for layer in range(layers):
        z, name, heard = normed(state), f"layer.{layer}", []
        mean = np.average(z, axis=0, weights=graph.weights)
        for one, row in enumerate(graph.near):
            said = z[one] @ w[f"{name}.mine.weight"] + w[f"{name}.mine.bias"]
            said = said + z[row] @ w[f"{name}.theirs.weight"] + graph.edges[one] @ w[f"{name}.between.weight"]
            said = np.maximum(said, 0)
            heard.append(np.r_[z[one], said.mean(axis=0), said.max(axis=0), mean])
        state = state + two(name, np.array(heard))
    out = two("out", normed(state))[:, 0]
    return out / np.sqrt(1 + (out / 8) ** 2)


@pytest.mark.parametrize("seed", range(5))
def test_it_says_what_a_plain_reckoning_says(seed):
    graph = random_graph(seed=seed)
    learned = random_weights(graph, seed=seed)
    found = Network(learned)(graph)
    np.testing.assert_allclose(found, plain(learned, graph), atol=0.05)
    assert found.std() > 0.1
    np.testing.assert_array_equal(found * 256, np.rint(found * 256))


def test_the_same_to_the_last_bit(monkeypatch):
    graph = random_graph(k=100)
    network = Network(random_weights(graph))
    first = network(graph)
    monkeypatch.setattr(module, "_ROWS", 7)
    np.testing.assert_array_equal(network(graph), first)
    order = np.random.default_rng(0).permutation(100)
    place = np.argsort(order)
    turned = Graph(graph.nodes[order], place[graph.near[order]], graph.edges[order], graph.lake, graph.weights[order])
    np.testing.assert_array_equal(network(turned), first[order])


def test_a_lake_unlike_all_lessons_is_taken_for_the_nearest_that_was_like_them():
    graph = random_graph()
    learned = random_weights(graph)
    learned["lake.most"][0], learned["lake.least"][1] = 4096, -2048  # one, and minus a half
    network = Network(learned)
    found = [network(replace(graph, lake=np.array([*ends, 0.25, -1]))) for ends in ([1, -0.5], [9, -7], [0.5, 0])]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.any(found[0] != found[2])


def test_what_was_learned_tells_common_from_rare():
    # Clouds of one shape and spread that run into each other: of some there are 120 clusters, of others eight.
    rng = np.random.default_rng(0)
    sizes = np.array([120, 120, 120, 60, 60, 30, 30, 15, 15, 8, 8, 8])
    cloud = np.repeat(np.arange(len(sizes)), sizes)
    x = (rng.normal(size=(len(sizes), 16)) * 1.2)[cloud] + rng.normal(size=(len(cloud), 16))
    found = learned_network()(graph_of(np.rint(x * 4096).astype(np.float32), np.full(len(cloud), 4)))
    rarity = np.array([found[cloud == one].mean() for one in range(len(sizes))])
    assert np.corrcoef(rarity, np.log(sizes))[0, 1] < -0.7
    assert np.abs(found).max() < 8
