"""The nearest centroid of each point: ranked in float32, decided exactly.

A float32 product ranks the centroids. Wherever the runner-up lies within twice the product's rigorous error bound
of the best, all centroids within that bound are compared again in float64, where grid arithmetic is exact. Ties go
to the lowest id. So the labels do not depend on BLAS, CPU or chunk size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_UNIT_ROUNDOFF = 2.0**-24  # of float32
_PAIRS_AT_ONCE = 1 << 12  # rows x candidates compared in one float64 batch


class Centroids:
    """Centroids made ready for many chunks of points.

    Args:
        c: Centroids in grid steps, float32, shape (k, d).
    """

    def __init__(self, c: NDArray[np.float32]) -> None:
        self.c = np.ascontiguousarray(c, dtype=np.float32)
        squared = np.einsum("ij,ij->i", c, c, dtype=np.float64)
        self._squared = squared  # exact: integers below 2**53
        half = (squared / 2).astype(np.float32)
        # The half norm rides in the product as one more coordinate: x.c - |c|**2 / 2, largest for the nearest.
        self._augmented = np.hstack([self.c, half[:, None]]).T.copy()
        terms = (c.shape[1] + 3) * _UNIT_ROUNDOFF
        self._gamma = terms / (1 - terms)  # Higham 2002, Accuracy and Stability, section 3.1, for any order
        self._longest = float(np.sqrt(squared.max()))
        self._half_max = float(half.max()) * (1 + 2 * _UNIT_ROUNDOFF)

    def __len__(self) -> int:
        return len(self.c)

    @property
    def chunk_rows(self) -> int:
        """Rows of points to rank at a time, so that their scores stay in the processor's cache."""
        return int(np.clip((1 << 20) // len(self), 256, 8192))

    def nearest(self, x: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Find each point's nearest centroid.

        Args:
            x: Points in grid steps, float32, shape (n, d).

        Returns:
            Labels, int64, shape (n,); exact squared distances in squared steps, float64, shape (n,).
        """
        labels = np.empty(len(x), dtype=np.int64)
        squared = np.empty(len(x), dtype=np.float64)
        for start in range(0, len(x), self.chunk_rows):
            rows = slice(start, start + self.chunk_rows)
            labels[rows] = self._label(x[rows])
            offsets = (x[rows] - self.c[labels[rows]]).astype(np.float64)  # below 2**21: exact in float32
            squared[rows] = np.einsum("ij,ij->i", offsets, offsets)
        return labels, squared

    def _label(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        if len(self) == 1:
            return np.zeros(len(x), dtype=np.int64)
        augmented = np.empty((len(x), x.shape[1] + 1), dtype=np.float32)
        augmented[:, :-1], augmented[:, -1] = x, -1.0
        scores = augmented @ self._augmented
        labels: NDArray[np.int64] = scores.argmax(axis=1)
        rows = np.arange(len(x))
        best = scores[rows, labels].astype(np.float64)
        scores[rows, labels] = -np.inf
        second = scores.max(axis=1)
        lengths = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
        bound = self._gamma * (lengths * self._longest + self._half_max)
        close = np.flatnonzero(second >= best - 2 * bound)
        if len(close):
            scores[close, labels[close]] = best[close]
            near = scores[close] >= (best - 2 * bound)[close, None]
            labels[close] = self._decide(x[close], near)
        return labels

    def _decide(self, x: NDArray[np.float32], near: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The exact nearest among the centroids marked in `near`, shape (n, k); ties to the lowest id."""
        rows, candidates = np.nonzero(near)
        score = np.empty(len(rows), dtype=np.float64)
        for start in range(0, len(rows), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            dots = np.einsum("ij,ij->i", x[rows[part]], self.c[candidates[part]], dtype=np.float64)
            score[part] = self._squared[candidates[part]] - 2 * dots
        firsts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
        least = np.minimum.reduceat(score, firsts)
        winners = np.flatnonzero(score == least[rows])
        _, first_winner = np.unique(rows[winners], return_index=True)
        labels: NDArray[np.int64] = candidates[winners[first_winner]].astype(np.int64)
        return labels
