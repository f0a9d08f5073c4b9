"""How dense the data are around each cluster: the items within a radius that the data choose.

The sizes of clusters tell little of the sizes of concepts: k-means makes clusters of about equal mass, so a large
concept has many of them. The items within a radius tell more, if the radius is that of a concept. A small one meets the
cluster itself alone, a large one meets everything: in between, counts differ most from place to place. So the radius is
the largest at which they still differ about as much as they do at any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .hashing import mix64

_PARTS = tuple(int(8 * 2 ** (i / 4)) for i in range(24, -1, -1))  # radii meet a part of the lake: 1 in 512 .. an eighth
_SAMPLE = 1024  # clusters that the radii are taken from
_AS_MUCH = 0.95
_BLOCK_BYTES = 1 << 25  # of distances at a time
PARTS = _PARTS[::4]  # the powers of two of them


@dataclass(frozen=True)
class Density:
    """Items around each cluster.

    Attributes:
        items: Within the radius, its own among them, int64, shape (k,), at least 1.
        part: The radius is where the median item has one part in so many of all items within reach.
    """

    items: NDArray[np.int64]
    part: int


def local_density(centroids: NDArray[np.float32], items: NDArray[np.int64]) -> Density:
    """Count the items around each cluster, each taken to lie at its cluster's centroid.

    Args:
        centroids: In grid steps, float32, shape (k, d).
        items: Of each cluster, shape (k,).

    Returns:
        The same counts everywhere: distances are whole numbers.
    """
    counts = items_within(centroids, items, _PARTS)
    spread = _spread(np.log(counts), items)
    chosen = last = int(spread.argmax())
    while last + 1 < len(counts) and spread[last + 1] >= _AS_MUCH * spread[chosen]:
        last += 1
    return Density(counts[last], _PARTS[last])


def items_within(
    centroids: NDArray[np.float32], items: NDArray[np.int64], parts: Sequence[int] = PARTS
) -> NDArray[np.int64]:
    """Count the items within several radii of each cluster.

    Args:
        centroids: In grid steps, float32, shape (k, d).
        items: Of each cluster, shape (k,).
        parts: A radius is where the median item has one part in so many of all items within reach.

    Returns:
        Shape (parts, k), at least 1. The same counts everywhere: distances are whole numbers.
    """
    places = _Places(centroids)
    return np.maximum(_counts(places, items, _radii(places, items, parts)), 1)


class _Places:
    """Centroids, and squared distances between them: whole numbers, in blocks of float64 that are never all there."""

    def __init__(self, x: NDArray[np.float32]) -> None:
        k, d = x.shape
        self.x, self.rows, self.columns = x, max(1, _BLOCK_BYTES // (8 * k)), max(1, _BLOCK_BYTES // (8 * d))
        self.lengths = np.concatenate([np.einsum("ij,ij->i", part, part) for part in self._parts()])

    def _parts(self) -> Iterator[NDArray[np.float64]]:
        for start in range(0, len(self.x), self.columns):
            yield self.x[start : start + self.columns].astype(np.float64)

    def squared(self, some: NDArray[np.intp]) -> Iterator[NDArray[np.float64]]:
        """From some centroids to all, a block of rows at a time, shape (rows, k)."""
        for start in range(0, len(some), self.rows):
            rows = some[start : start + self.rows]
            mine = self.x[rows].astype(np.float64)
            products = np.concatenate([mine @ part.T for part in self._parts()], axis=1)
            yield self.lengths[rows, None] - 2 * products + self.lengths


def _radii(places: _Places, items: NDArray[np.int64], parts: Sequence[int]) -> NDArray[np.float64]:
    """Squared radii within which the median item has each part of all items, from the smallest part on."""
    some = np.argsort(mix64(np.arange(len(items), dtype=np.uint64), 0), kind="stable")[:_SAMPLE]
    least = np.array([-(-int(items.sum()) // part) for part in parts])
    reach = []
    for squared in places.squared(some):
        nearest = np.argsort(squared, axis=1, kind="stable")
        for row, order, held in zip(squared, nearest, np.cumsum(items[nearest], axis=1), strict=True):
            met = np.searchsorted(held, least)
            reach.append(row[order[np.minimum(met, len(order) - 1)]])
    return np.array([_median(column, items[some]) for column in np.array(reach).T])


def _median(values: NDArray[np.float64], weights: NDArray[np.int64]) -> float:
    """The lower weighted median."""
    order = np.argsort(values, kind="stable")
    held = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(2 * held, held[-1])]])


def _counts(places: _Places, items: NDArray[np.int64], radii: NDArray[np.float64]) -> NDArray[np.int64]:
    """Items within each radius of each cluster, shape (radii, k)."""
    n, found = len(radii) + 1, []
    for squared in places.squared(np.arange(len(items))):
        ring = np.searchsorted(radii, squared) + n * np.arange(len(squared))[:, None]
        weights = np.broadcast_to(items, squared.shape)
        held = np.bincount(ring.ravel(), weights.ravel(), n * len(squared)).reshape(-1, n)
        found.append(np.cumsum(held, axis=1)[:, :-1].T.astype(np.int64))
    return np.concatenate(found, axis=1)


def _spread(logs: NDArray[np.float64], items: NDArray[np.int64]) -> NDArray[np.float64]:
    """Standard deviation over the items at each radius, rounded: it only serves to compare."""
    shares = items / max(1, items.sum())
    centred = logs - (logs * shares).sum(axis=1, keepdims=True)
    spread: NDArray[np.float64] = np.round(np.sqrt((centred**2 * shares).sum(axis=1)), 6)
    return spread
