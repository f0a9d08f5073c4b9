"""Points: the one interface that the algorithm knows, and its implementation over an array.

Whatever holds the points (an array here, a DataFrame in `udfs.points`), the same ids and vectors give the same bits.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .grid import Grid
from .hashing import hash_ids, mix64
from .nearest import Centroids
from .partial import Partial

Ids = NDArray[Any]  # int64, or str objects
Strategy = Literal["closest", "random"]
# Vectors that one search for far points gives: they meet on the driver, and all points must stop at the same number.
MOST_FARTHEST = 1024


class Points(Protocol):
    """Points on a grid, each with an id.

    Attributes:
        n: How many.
        d: Coordinates of each.
        grid: What one step means, and the metric.
    """

    n: int
    d: int
    grid: Grid

    def sample(self, size: int, seed: int) -> ArrayPoints:
        """The `size` points whose hash(id, seed) is smallest, in the order of their ids."""
        ...

    def step(self, centroids: NDArray[np.float32]) -> Partial:
        """Assign all points to centroids, shape (k, d), and sum them up by cluster."""
        ...

    def members(self, centroids: NDArray[np.float32], size: int, strategy: Strategy, seed: int) -> Points:
        """The union of `size` members of each cluster: the closest to its centroid, or random ones."""
        ...

    def farthest(self, centroids: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        """Up to `size` distinct points that lie farthest from their centroids, farthest first, none at distance 0.

        One search gives at most `MOST_FARTHEST`.
        """
        ...


class ArrayPoints:
    """Points in memory.

    Args:
        x: Vectors in grid steps, float32, shape (n, d).
        ids: Their ids, unique, int64 or str, shape (n,).
        grid: The grid of `x`.
    """

    def __init__(self, x: NDArray[np.float32], ids: Ids, grid: Grid) -> None:
        order = np.argsort(ids, kind="stable")  # one order, wherever the rows came from
        self.x = np.ascontiguousarray(x[order], dtype=np.float32)
        self.ids = ids[order]
        self.grid = grid
        self.n, self.d = self.x.shape

    def sample(self, size: int, seed: int) -> ArrayPoints:
        """See `Points.sample`."""
        if size >= self.n:
            return self
        return self._take(select(np.zeros(self.n, np.int64), random_keys(hash_ids(self.ids), seed), self.ids, size))

    def step(self, centroids: NDArray[np.float32]) -> Partial:
        """See `Points.step`."""
        partial = Partial.zeros(*centroids.shape)
        partial.add_points(self.x, *Centroids(centroids).nearest(self.x))
        return partial

    def members(self, centroids: NDArray[np.float32], size: int, strategy: Strategy, seed: int) -> ArrayPoints:
        """See `Points.members`."""
        labels, squared = Centroids(centroids).nearest(self.x)
        keys = squared if strategy == "closest" else random_keys(hash_ids(self.ids), seed)
        return self._take(select(labels, keys, self.ids, size))

    def farthest(self, centroids: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        """See `Points.farthest`."""
        _, squared = Centroids(centroids).nearest(self.x)
        return self.x[farthest_rows(self.x, squared, self.ids, min(size, MOST_FARTHEST))]

    def _take(self, rows: NDArray[np.intp]) -> ArrayPoints:
        return ArrayPoints(self.x[rows], self.ids[rows], self.grid)


def random_keys(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.int64]:
    """Ranks to draw by: 63 bits of hash(id, seed) for id hashes of shape (n,)."""
    return (mix64(hashes, seed) >> np.uint64(1)).astype(np.int64)


def select(labels: NDArray[np.int64], keys: NDArray[Any], ids: Ids, size: int) -> NDArray[np.intp]:
    """Rows of the `size` smallest (key, id) of each label; all arguments of shape (n,)."""
    order = np.lexsort((ids, keys, labels))
    ordered = labels[order]
    firsts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(order) else np.empty(0, np.intp)
    lengths = np.diff(np.r_[firsts, len(order)])
    ranks = np.arange(len(order)) - np.repeat(firsts, lengths)
    return order[ranks < size]


def farthest_rows(x: NDArray[np.float32], squared: NDArray[np.float64], ids: Ids, size: int) -> NDArray[np.intp]:
    """Rows of up to `size` distinct vectors with the largest positive distance; ties by id."""
    rows = np.flatnonzero(squared > 0)
    rows = rows[np.lexsort((ids[rows], -squared[rows]))]
    chosen: list[int] = []
    seen: set[bytes] = set()
    for row in rows:
        if len(chosen) == size:
            break
        vector = x[row].tobytes()
        if vector not in seen:
            seen.add(vector)
            chosen.append(int(row))
    return np.array(chosen, dtype=np.intp)
