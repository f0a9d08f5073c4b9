"""What one step of k-means knows of each cluster: exact, so that partial results add up in any order."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from .grid import Grid
from .nearest import firsts
from .rows import Rows

# An array in grid steps, float32, shape (k, d), or what points keep in its place where that is large.
CentroidSet = Sized

# A sum of squared lengths can pass 2**63: it is kept as high * 2**26 + low, both int64.
_LOW_BITS = 26
_LOW = (1 << _LOW_BITS) - 1
_ROWS_AT_ONCE = 2048  # converted to float64 while they are in the processor's cache


@dataclass
class Partial:
    """Counts and sums of clusters 0..k-1 over some of the points.

    Attributes:
        counts: Points, int64, shape (k,).
        sums: Coordinate sums in steps, float64 whole numbers, shape (k, d).
        high: Sums of squared norms in squared steps, upper part, int64, shape (k,).
        low: The same, lower part: the sum is high * 2**26 + low.
    """

    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    high: NDArray[np.int64]
    low: NDArray[np.int64]

    @classmethod
    def zeros(cls, k: int, d: int) -> Partial:
        """The result over no points."""
        return cls(np.zeros(k, np.int64), np.zeros((k, d)), np.zeros(k, np.int64), np.zeros(k, np.int64))

    def add_points(self, rows: Rows, labels: NDArray[np.int64]) -> None:
        """Add points, with the cluster of each, shape (n,)."""
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            self._add(rows[part], labels[part])

    def _add(self, rows: Rows, labels: NDArray[np.int64]) -> None:
        order = np.argsort(labels, kind="stable")
        ordered = labels[order]
        begins = firsts(ordered)
        present, bounds = ordered[begins], np.r_[begins, len(order)]
        member = csr_array((np.ones(len(order)), order, bounds), shape=(len(present), len(order)))
        self.sums[present] += (member @ rows.a.astype(np.float64))[:, :-1]
        self.counts[present] += np.diff(bounds)
        whole = rows.norms[order].astype(np.int64)
        self.high[present] += np.add.reduceat(whole >> _LOW_BITS, begins)
        self.low[present] += np.add.reduceat(whole & _LOW, begins)

    def add(self, other: Partial, ids: NDArray[np.int64] | slice = slice(None)) -> None:
        """Add the result over other points, whose clusters have these ids here, each once."""
        self.counts[ids] += other.counts
        self.sums[ids] += other.sums
        self.high[ids] += other.high
        self.low[ids] += other.low

    def take(self, ids: NDArray[np.int64]) -> Partial:
        """The part for these clusters."""
        return Partial(self.counts[ids], self.sums[ids], self.high[ids], self.low[ids])

    def grown(self, k: int) -> Partial:
        """With empty clusters at the end: k, or twice as many as before where that is more."""
        total = Partial.zeros(max(k, 2 * len(self.counts)), self.sums.shape[1])
        total.add(self, slice(len(self.counts)))
        return total

    def finish(self, centroids: NDArray[np.float32], grid: Grid) -> Step:
        """What the assignment cost, and where it moves the centroids, shape (k, d), that it was made to."""
        full = self.counts > 0
        moved = centroids.copy()
        moved[full] = grid.mean(self.sums[full], self.counts[full])
        offsets = (moved - centroids).astype(np.float64)
        high, low = _costs(self, centroids)
        return Step(self.counts, high, low, np.einsum("ij,ij->i", offsets, offsets), moved)


@dataclass
class Step:
    """One step of k-means: an assignment of points to centroids, and the means it gives.

    Attributes:
        counts: Points of each cluster, int64, shape (k,).
        high: Sum of squared distances to the centroid in squared steps, upper part, int64, shape (k,).
        low: The same, lower part: the cost is high * 2**26 + low.
        shift: Squared distance from each centroid to its mean in squared steps, float64, shape (k,).
        moved: The means; the centroid itself where a cluster is empty.
    """

    counts: NDArray[np.int64]
    high: NDArray[np.int64]
    low: NDArray[np.int64]
    shift: NDArray[np.float64]
    moved: CentroidSet

    @property
    def cost(self) -> int:
        """Sum of squared distances over all clusters, in squared steps, exact."""
        return (int(self.high.sum()) << _LOW_BITS) + int(self.low.sum())

    @property
    def costs(self) -> NDArray[np.float64]:
        """Sum of squared distances of each cluster, in squared steps, rounded to float64, shape (k,)."""
        return _joined(self.high, self.low)

    @property
    def gain(self) -> float:
        """How much the cost falls when the centroids move to the means of their points, in squared steps."""
        return fsum(self.counts * self.shift)

    @property
    def noise(self) -> float:
        """How much the cost of many more such points would exceed its least, in squared steps.

        A mean of n points misses that of the population by 1/n of its variance, which the cluster's cost / (n - 1)
        estimates; times n points that is cost / (n - 1). Clusters of one point say nothing.
        """
        several = self.counts > 1
        return fsum(self.costs[several] / (self.counts[several] - 1))


def sum_by(labels: NDArray[np.int64], squared: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Sums of squared distances (whole numbers below 2**53) by label, exact until the last rounding, shape (k,)."""
    whole = squared.astype(np.int64)
    high, low = np.zeros(k, np.int64), np.zeros(k, np.int64)
    np.add.at(high, labels, whole >> _LOW_BITS)
    np.add.at(low, labels, whole & _LOW)
    return _joined(high, low)


def _joined(high: NDArray[np.int64], low: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.ldexp(high.astype(np.float64), _LOW_BITS) + low


def _costs(part: Partial, c: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sum of |x - c|^2 = sum |x|^2 - 2 c.sum x + n |c|^2 by cluster, in two parts of int64 that never overflow."""
    whole = c.astype(np.int64)
    sums = part.sums.astype(np.int64)
    norms = np.einsum("ij,ij->i", whole, whole)
    high = part.high - 2 * np.einsum("ij,ij->i", whole, sums >> _LOW_BITS) + part.counts * (norms >> _LOW_BITS)
    low = part.low - 2 * np.einsum("ij,ij->i", whole, sums & _LOW) + part.counts * (norms & _LOW)
    return high + (low >> _LOW_BITS), low & _LOW
