"""A small network on the graph of nearest clusters, reckoned in whole numbers.

Every cluster takes in, a few times, what its nearest ones hold and how near they are (message passing, Gilmer et al.
2017, arXiv 1704.01212; means and maxima of messages as in Corso et al. 2020, arXiv 2004.05718). Activations are
multiples of 2**-8 and weights of 2**-12, so few bits that float64 holds every sum exactly: the same bits everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from .grid import to_bits

BITS, WEIGHT_BITS = 8, 12  # after the point
EPSILON = 2.0**-16  # of a variance
_LARGEST = 2.0**7  # of an activation
_ROWS = 1 << 12  # clusters whose messages are there at a time
FARTHEST = 8.0  # what comes out lies between this and its negative

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Graph:
    """What a network is asked about; all but `near` are multiples of 2**-8.

    Attributes:
        nodes: Of each cluster, shape (k, f).
        near: Its nearest ones, shape (k, m).
        edges: Of each pair, shape (k, m, e).
        lake: Of all, shape (g,).
        weights: Of each cluster in means over all, whole numbers that add up to at most 2**26, shape (k,).
    """

    nodes: Array
    near: NDArray[np.int64]
    edges: Array
    lake: Array
    weights: Array


class Network:
    """Learned numbers, ready to be asked.

    Args:
        learned: By name, in steps of 2**-12, int16 or int32.
    """

    def __init__(self, learned: Mapping[str, NDArray[np.integer]]) -> None:
        self._learned = {name: np.ldexp(values.astype(np.float64), -WEIGHT_BITS) for name, values in learned.items()}
        self._layers = len({name.split(".")[1] for name in learned if name.startswith("layer.")})

    def __call__(self, graph: Graph) -> Array:
        """One number for each cluster between -8 and 8, a multiple of 2**-8, shape (k,): how rare what it holds is."""
        lake = np.clip(graph.lake, self._learned["lake.least"], self._learned["lake.most"])  # as lessons had it
        state = self._two("in", np.hstack([graph.nodes, np.broadcast_to(lake, (len(graph.nodes), len(lake)))]))
        for layer in range(self._layers):
            state = rounded(state + self._layer(f"layer.{layer}", _normed(state), graph))
        out = self._two("out", _normed(state))[:, 0]
        return rounded(out / np.sqrt(1 + (out / FARTHEST) ** 2))

    def _layer(self, name: str, state: Array, graph: Graph) -> Array:
        mine, theirs = self._linear(f"{name}.mine", state), state @ self._learned[f"{name}.theirs.weight"]
        between = self._learned[f"{name}.between.weight"]
        heard = np.empty((len(state), 2 * mine.shape[1]))
        for rows in _blocks(len(state)):
            messages = theirs[graph.near[rows]]
            messages += mine[rows, None] + graph.edges[rows] @ between
            np.maximum(messages, 0, out=messages)
            heard[rows] = np.hstack([messages.mean(axis=1), messages.max(axis=1)])
        every = rounded(graph.weights @ state / graph.weights.sum())
        return self._two(name, np.hstack([state, rounded(heard), np.broadcast_to(every, state.shape)]))

    def _two(self, name: str, x: Array) -> Array:
        """Two linear maps, and only what is above zero between them."""
        return rounded(self._linear(f"{name}.second", rounded(np.maximum(self._linear(f"{name}.first", x), 0))))

    def _linear(self, name: str, x: Array) -> Array:
        product: Array = x @ self._learned[f"{name}.weight"] + self._learned[f"{name}.bias"]
        return product


def rounded(x: Array) -> Array:
    """To multiples of 2**-8, and no farther from zero than 2**7."""
    found: Array = np.clip(to_bits(x, BITS), -_LARGEST, _LARGEST)
    return found


def _normed(state: Array) -> Array:
    """Less the mean of a row, over its standard deviation (layer normalization, Ba et al. 2016, arXiv 1607.06450)."""
    centred = state - state.mean(axis=1, keepdims=True)  # a power of two of them: exact
    variance = (centred**2).mean(axis=1, keepdims=True)
    return rounded(centred / np.sqrt(variance + EPSILON))


def _blocks(k: int) -> Iterator[slice]:
    for start in range(0, k, _ROWS):
        yield slice(start, start + _ROWS)


@cache
def learned_network() -> Network:
    """The one that benchmarks/learn.py has taught."""
    with resources.files(__package__).joinpath("learned.npz").open("rb") as file, np.load(file) as learned:
        return Network(dict(learned))
