"""What is around each cluster, as a network takes it: neighbours, and how near and how many they are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .array_points import ArrayPoints
from .communities import named_by
from .density import items_within
from .grid import Grid, bits_for
from .leverage import Directions, whole_weights
from .lloyd import Options, fit
from .nearest import Centroids
from .network import BITS, Graph, rounded
from .projection import projected
from .rows import Rows

MOST_CLUSTERS = 1 << 11  # with more, what is of one kind lies too many steps apart
NEIGHBOURS = 16  # that a cluster hears
_RANKS = (1, 2, 4, 8, 16, 32)  # of neighbours whose distance counts
_NAMING, _ADDED, _BESIDE = (8, 16), (8, 32), (8, 24)  # nearest: that may name it; that add items; that may lie denser
_WEIGHT_BITS = 26
_MOST = 8  # doublings from the mean that a figure tells apart
_MERGING = Options("lloyd", max_iter=6, init="random")
_USUAL = (2.0**11, 4.0, 16.0)  # clusters, items of each, dimensions

Array = NDArray[np.float64]


def merged(
    centroids: NDArray[np.float32], items: NDArray[np.int64], most: int = MOST_CLUSTERS
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Merge clusters into fewer, by k-means on their centroids, where there are more than `most`.

    Args:
        centroids: In grid steps, float32, shape (k, d).
        items: Of each cluster, shape (k,).
        most: To have after.

    Returns:
        Centroids and items of those that are left, and which of them each cluster went into, shape (k,). The same bits
        everywhere.
    """
    k, d = centroids.shape
    if k <= most:
        return centroids, items, np.arange(k)
    points = ArrayPoints(centroids, np.arange(k), Grid(0, bits_for(d)))
    found = points.fetch(fit(points, most, seed=0, options=_MERGING).centroids)
    labels = Centroids(found).labels(Rows.of(centroids))
    held = np.zeros(len(found), dtype=np.int64)
    np.add.at(held, labels, items)
    return found, held, labels


def graph_of(centroids: NDArray[np.float32], items: NDArray[np.int64]) -> Graph:
    """Measure what is around clusters.

    Args:
        centroids: In grid steps, float32, shape (k, d), k at least 2.
        items: Of each cluster, at least 1, shape (k,).

    Returns:
        The same bits everywhere. Logarithms are to base two; those of nodes are less their means over the items.
    """
    x = projected(centroids, items)
    near = _neighbours(x, min(_RANKS[-1], len(x) - 1))
    far = _distances(x, near)
    reach = [_at_rank(far, rank) for rank in _RANKS]
    growth = [after - before for before, after in pairwise(reach)]
    directions, weights = Directions(x, items), whole_weights(items, _WEIGHT_BITS)
    held = [log2(items), *reach, *growth, *log2(items_within(x, items)), *_among_neighbours(near, items)]
    nodes = rounded(np.column_stack([*held, log2(directions.leverage()), *_beside(near, far)]))
    nodes = np.clip(rounded(nodes - _mean(nodes, weights)), -_MOST, _MOST)
    whole = np.array([len(x), items.sum() / len(x), directions.dimensions]) / _USUAL
    spread = np.sqrt(_mean(nodes**2, weights))
    lake = np.concatenate([log2(whole), _mean(np.column_stack(growth), weights), log2(spread + 1 / 64)])
    heard = near[:, :NEIGHBOURS]
    return Graph(nodes, heard, _edges(heard, far[:, : heard.shape[1]]), rounded(lake), weights)


def log2(x: NDArray[np.int64] | Array) -> Array:
    """Logarithms of positive numbers to base two, down to multiples of 2**-8: no libm."""
    mantissa, exponent = np.frexp(np.asarray(x, dtype=np.float64))
    mantissa, found = mantissa * 2, exponent - 1.0
    for bit in range(1, BITS + 1):
        mantissa = mantissa**2
        over = mantissa >= 2
        mantissa = np.where(over, mantissa / 2, mantissa)
        found = found + np.where(over, 2.0**-bit, 0.0)
    return found


def _neighbours(x: NDArray[np.float32], size: int) -> NDArray[np.int64]:
    """The nearest other clusters, nearest first, shape (k, size)."""
    near = Centroids(x).several(Rows.of(x), size + 1)
    other = near != np.arange(len(x))[:, None]
    other[other.all(axis=1), -1] = False  # more lie at one place than were asked for
    found: NDArray[np.int64] = near[other].reshape(len(x), size)
    return found


def _distances(x: NDArray[np.float32], near: NDArray[np.int64]) -> Array:
    """Their logarithms, shape of `near`; those at one place are a step apart."""
    places = np.arange(len(x)).repeat(near.shape[1])
    squared = Centroids(x).squared(Rows.of(x), places, near.ravel())
    return rounded(log2(np.maximum(squared, 1.0)) / 2).reshape(near.shape)


def _edges(near: NDArray[np.int64], far: Array) -> Array:
    """How far for the one and for the other, how many neighbours they share, and whether they name each other."""
    k, m = near.shape
    rows, columns = np.arange(k).repeat(m), near.ravel()
    named = named_by(near)
    mutual = np.asarray(named[columns, rows]).reshape(k, m)
    shared = np.asarray((named @ named.T).tocsr()[rows, columns]).reshape(k, m) / (m + 1)
    last = far[:, -1]
    return rounded(np.stack([far - last[:, None], far - last[near], shared, mutual], axis=2))


def _among_neighbours(near: NDArray[np.int64], items: NDArray[np.int64]) -> list[Array]:
    """How many name it as one of their nearest, and the items in its nearest and itself."""
    named = [log2(1 + np.bincount(near[:, :m].ravel(), minlength=len(near))) for m in _NAMING]
    return [*named, *(log2(items + items[near[:, :m]].sum(axis=1)) for m in _ADDED)]


def _beside(near: NDArray[np.int64], far: Array) -> list[Array]:
    """How much farther its neighbours have to go for theirs than it for its own."""
    return [_at_rank(far, m)[near[:, :m]].mean(axis=1) - _at_rank(far, m) for m in _BESIDE]


def _at_rank(far: Array, rank: int) -> Array:
    """Distances of the neighbours of a rank, or of the last ones."""
    return far[:, min(rank, far.shape[1]) - 1]


def _mean(values: Array, weights: Array) -> Array:
    mean: Array = weights @ values / weights.sum()
    return mean
