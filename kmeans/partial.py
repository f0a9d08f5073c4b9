"""What one step of k-means knows of each cluster: exact, so that partial results add up in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

# A sum of squared distances can pass 2**63: it is kept as high * 2**26 + low, both int64.
_LOW_BITS = 26


@dataclass
class Partial:
    """Counts, sums and costs of clusters 0..k-1 over some of the points.

    Attributes:
        counts: Points, int64, shape (k,).
        sums: Coordinate sums in steps, float64 whole numbers, shape (k, d).
        high: Sums of squared distances in squared steps, upper part, int64, shape (k,).
        low: The same, lower part: cost = high * 2**26 + low.
    """

    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    high: NDArray[np.int64]
    low: NDArray[np.int64]

    @classmethod
    def zeros(cls, k: int, d: int) -> Partial:
        """The result over no points."""
        return cls(np.zeros(k, np.int64), np.zeros((k, d)), np.zeros(k, np.int64), np.zeros(k, np.int64))

    def add_points(self, x: NDArray[np.float32], labels: NDArray[np.int64], squared: NDArray[np.float64]) -> None:
        """Add labelled points.

        Args:
            x: Points in steps, shape (n, d).
            labels: Cluster of each point, shape (n,).
            squared: Squared distance of each point to its centroid, in squared steps, shape (n,).
        """
        present, compact, counts = np.unique(labels, return_inverse=True, return_counts=True)
        member = csr_array((np.ones(len(x)), (compact, np.arange(len(x)))), shape=(len(present), len(x)))
        self.counts[present] += counts
        self.sums[present] += member @ x.astype(np.float64)
        whole = squared.astype(np.int64)
        high, low = whole >> _LOW_BITS, whole & ((1 << _LOW_BITS) - 1)
        np.add.at(self.high, labels, high)
        np.add.at(self.low, labels, low)

    def add(self, other: Partial) -> None:
        """Add the result over other points."""
        self.counts += other.counts
        self.sums += other.sums
        self.high += other.high
        self.low += other.low

    def clusters(self, start: int, stop: int) -> Partial:
        """The part for clusters start..stop-1."""
        part = slice(start, stop)
        return Partial(self.counts[part], self.sums[part], self.high[part], self.low[part])

    @property
    def cost(self) -> int:
        """Sum of squared distances over all clusters, in squared steps, exact."""
        return (int(self.high.sum()) << _LOW_BITS) + int(self.low.sum())

    def mean_squared(self) -> NDArray[np.float64]:
        """Mean squared distance of each cluster's points in squared steps, shape (k,); 0 for empty ones."""
        costs = [(int(h) << _LOW_BITS) + int(low) for h, low in zip(self.high, self.low, strict=True)]
        return np.array([c / max(int(n), 1) for c, n in zip(costs, self.counts, strict=True)], dtype=np.float64)
