"""The nearest centroid of each point: ranked in float32, decided exactly.

A float32 product ranks the centroids. Wherever the runner-up lies within twice the product's rigorous error bound
of the best, all centroids within that bound are compared again in float64, where grid arithmetic is exact. Ties go
to the lowest id. So the labels do not depend on BLAS, CPU, chunk size, or on whether a GPU did the ranking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .rows import Rows

_UNIT_ROUNDOFF = 2.0**-24  # of float32
_PAIRS_AT_ONCE = 1 << 12  # rows x candidates compared in one float64 batch
# Of one product: 8 MiB of scores, which stay in the processor's cache (measured: larger or smaller costs up to 20%).
_SCORES, _CENTROIDS_AT_ONCE = 1 << 21, 1 << 11
_SEVERAL_SCORES = 1 << 24  # of rows against all centroids, where more than the two best are wanted


def augment(c: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centroids, shape (k, d), with half their squared norms as last column, float32, shape (k, d + 1)."""
    half = np.einsum("ij,ij->i", c, c, dtype=np.float64) / 2
    return np.hstack([c, half[:, None].astype(np.float32)])


class Centroids:
    """Centroids made ready for many chunks of points.

    Args:
        c: Centroids in grid steps, float32, shape (k, d).
        parts: They as from `augment`, in parts that follow each other, where those are at hand (mapped files, say).
    """

    def __init__(self, c: NDArray[np.float32] | None = None, *, parts: Sequence[NDArray[np.float32]] = ()) -> None:
        self.parts = [augment(c)] if c is not None else list(parts)
        self.starts = np.cumsum([0, *map(len, self.parts)])
        half_max = max((float(part[:, -1].max(initial=0)) for part in self.parts), default=0.0)
        self.half_max = half_max * (1 + 2 * _UNIT_ROUNDOFF)
        self.longest = float(np.sqrt(2 * self.half_max))
        self._scores: NDArray[np.float32] = np.empty(0, dtype=np.float32)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def chunk_rows(self) -> int:
        """Rows of points to rank at a time."""
        return int(np.clip(_SCORES // min(len(self), _CENTROIDS_AT_ONCE), 256, 8192))

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Centroids of these ids, in grid steps, float32, shape (len(ids), d)."""
        if len(self.parts) == 1:
            return self.parts[0][ids, :-1]
        found = np.empty((len(ids), self.parts[0].shape[1] - 1), dtype=np.float32)
        owner = np.searchsorted(self.starts, ids, side="right") - 1
        for part in np.unique(owner):
            mine = owner == part
            found[mine] = self.parts[part][ids[mine] - self.starts[part], :-1]
        return found

    def labels(self, rows: Rows) -> NDArray[np.int64]:
        """Each point's nearest centroid, int64, shape (n,)."""
        labels = np.zeros(len(rows), dtype=np.int64)
        if len(self) == 1:
            return labels
        least = np.empty(len(rows))
        close = np.empty(len(rows), dtype=np.bool_)
        for start in range(0, len(rows), self.chunk_rows):
            part = slice(start, start + self.chunk_rows)
            labels[part], best, second = self._rank(rows[part])
            least[part] = best - 2 * self.bound(rows[part])
            close[part] = second >= least[part]
        if close.any():  # all at once: a product with few rows costs as much as one with many
            labels[close] = self._decide(rows[close], least[close])
        return labels

    def nearest(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Find each point's nearest centroid and how far it is.

        Args:
            rows: n points of the centroids' dimension.

        Returns:
            Labels, int64, shape (n,); exact squared distances in squared steps, float64, shape (n,).
        """
        labels = self.labels(rows)
        return labels, self.squared(rows, np.arange(len(rows)), labels)

    def several(self, rows: Rows, size: int) -> NDArray[np.int64]:
        """Each point's `size` nearest centroids, nearest first, ties by id, int64, shape (n, size); size <= k."""
        found = [self._several(chunk, size) for chunk in rows.chunks(max(16, _SEVERAL_SCORES // len(self)))]
        return np.concatenate(found) if found else np.empty((0, size), dtype=np.int64)

    def squared(self, rows: Rows, places: NDArray[np.intp], ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Exact squared distances of pairs of a row and a centroid, in squared steps, float64, shape (m,)."""
        squared = np.empty(len(places), dtype=np.float64)
        for start in range(0, len(places), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            offsets = rows.x[places[part]] - self.vectors(ids[part])  # below 2**21: exact in float32
            squared[part] = np.einsum("ij,ij->i", offsets, offsets, dtype=np.float64)
        return squared

    def bound(self, rows: Rows) -> NDArray[np.float64]:
        """How far a score may be from the exact one, float64, shape (n,).

        Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1, for any order of summation.
        """
        terms = (rows.a.shape[1] + 2) * _UNIT_ROUNDOFF
        gamma = terms / (1 - terms)
        bound: NDArray[np.float64] = gamma * (np.sqrt(rows.norms) * self.longest + self.half_max)
        return bound

    def _decide(self, rows: Rows, least: NDArray[np.float64]) -> NDArray[np.int64]:
        """The exact nearest among the centroids that score at least `least`, shape (n,); ties to the lowest id."""
        labels = np.empty(len(rows), dtype=np.int64)
        for start in range(0, len(rows), self.chunk_rows):
            part = slice(start, start + self.chunk_rows)
            places, ids = self._near(rows[part], least[part])
            order = np.lexsort((ids, self.squared(rows[part], places, ids), places))
            labels[part] = ids[order][firsts(places[order])]
        return labels

    def _rank(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Label, score of the best and of the runner-up, as float32 has them."""
        n, every = len(rows), np.arange(len(rows))
        labels = np.zeros(n, dtype=np.int64)
        best, second = np.full(n, -np.inf), np.full(n, -np.inf)
        for start, scores in self._products(rows):
            top = scores.argmax(axis=1)
            value = scores[every, top].astype(np.float64)
            scores[every, top] = -np.inf
            second = np.maximum(second, np.maximum(scores.max(axis=1), np.minimum(best, value)))
            better = value > best
            labels[better] = start + top[better]
            best = np.maximum(best, value)
        return labels, best, second

    def _near(self, rows: Rows, least: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Pairs of a row and a centroid that score at least `least`, shape (n,)."""
        found = [(np.nonzero(scores >= least[:, None]), start) for start, scores in self._products(rows)]
        places = np.concatenate([pair[0] for pair, _ in found])
        return places, np.concatenate([pair[1] + start for pair, start in found])

    def _several(self, rows: Rows, size: int) -> NDArray[np.int64]:
        scores = np.concatenate([scores.copy() for _, scores in self._products(rows)], axis=1)
        last = np.partition(scores, len(self) - size, axis=1)[:, len(self) - size].astype(np.float64)
        places, ids = np.nonzero(scores >= (last - 2 * self.bound(rows))[:, None])
        order = np.lexsort((ids, self.squared(rows, places, ids), places))
        chosen = ids[order][ranks_of(places[order]) < size]
        return chosen.reshape(len(rows), size).astype(np.int64)

    def _products(self, rows: Rows) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Scores against up to 2**11 centroids at a time, in a buffer that the next product overwrites."""
        for start, part in zip(self.starts.tolist(), self.parts, strict=False):
            for first in range(0, len(part), _CENTROIDS_AT_ONCE):
                some = part[first : first + _CENTROIDS_AT_ONCE]
                if len(self._scores) < len(rows) * len(some):
                    self._scores = np.empty(len(rows) * len(some), dtype=np.float32)
                scores = self._scores[: len(rows) * len(some)].reshape(len(rows), len(some))
                yield start + first, np.matmul(rows.a, some.T, out=scores)


def firsts(ordered: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where each run of equal values begins, for values in order."""
    return np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, np.intp)


def ranks_of(ordered: NDArray[np.int64]) -> NDArray[np.intp]:
    """How many equal values stand before each, for values in order, shape (n,)."""
    begins = firsts(ordered)
    return np.arange(len(ordered)) - np.repeat(begins, np.diff(np.r_[begins, len(ordered)]))
