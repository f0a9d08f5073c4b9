"""Centroids in groups: a point looks for the nearest only in the groups whose own centroids are nearest to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .nearest import Centroids, augment, firsts
from .rows import Rows

_ROWS_AT_ONCE, _SCORES_AT_ONCE = 4096, 1 << 24


@dataclass(frozen=True)
class GroupedCentroids:
    """Centroids of a level made in two steps.

    Attributes:
        groups: Centroids of the groups, in grid steps, float32, shape (a, d).
        parts: Those of each group, float32, shape (k_g, d), k_g >= 0; cluster ids run through them in order.
        probe: Groups that a point looks into.
    """

    groups: NDArray[np.float32]
    parts: Sequence[NDArray[np.float32]]
    probe: int

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def flat(self) -> NDArray[np.float32]:
        """All centroids, shape (k, d)."""
        return np.concatenate(self.parts)

    def ready(self) -> RoutedCentroids:
        """Ready for a search."""
        return RoutedCentroids(Centroids(self.groups), [augment(part) for part in self.parts], self.probe)


class RoutedCentroids:
    """Centroids of a level made in two steps, ready for many chunks of points.

    Args:
        groups: Centroids of the a groups.
        parts: For each group its centroids as from `nearest.augment`, shape (k_g, d + 1); k_g may be 0, but not of all
            groups that a point looks into.
        probe: Groups to look into, the nearest ones; all of them is exact.
    """

    def __init__(self, groups: Centroids, parts: Sequence[NDArray[np.float32]], probe: int) -> None:
        self.groups = groups
        self.flat = Centroids(parts=parts)
        self.probe = probe

    def __len__(self) -> int:
        return len(self.flat)

    def labels(self, rows: Rows) -> NDArray[np.int64]:
        """Each point's nearest centroid in the groups looked into, int64, shape (n,)."""
        return self.nearest(rows)[0]

    def nearest(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """As `Centroids.nearest`, in the groups looked into."""
        if self.probe >= len(self.groups):
            return self.flat.nearest(rows)
        labels = np.empty(len(rows), dtype=np.int64)
        squared = np.empty(len(rows), dtype=np.float64)
        scores = -(-self.probe * len(self) // len(self.groups))  # of a row
        at_once = int(np.clip(_SCORES_AT_ONCE // scores, 64, _ROWS_AT_ONCE))
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            labels[part], squared[part] = self._nearest(rows[part])
        return labels, squared

    def _nearest(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        places, ids = self._near(rows, self.groups.several(rows, self.probe))
        squared = self.flat.squared(rows, places, ids)
        order = np.lexsort((ids, squared, places))
        best = order[firsts(places[order])]
        return ids[best], squared[best]

    def _near(self, rows: Rows, probed: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Pairs of a row and a centroid of its groups, shape (n, probe), that may be its nearest."""
        order = np.argsort(probed, axis=None, kind="stable")
        owners, groups = order // probed.shape[1], probed.ravel()[order]
        bounds = np.r_[firsts(groups), len(groups)]
        best = np.full(len(rows), -np.inf)
        scored = []
        for begin, end in pairwise(bounds.tolist()):
            mine, group = owners[begin:end], int(groups[begin])
            part = self.flat.parts[group]
            if len(part):
                scores = rows.a[mine] @ part.T
                best[mine] = np.maximum(best[mine], scores.max(axis=1))
                scored.append((mine, int(self.flat.starts[group]), scores))
        least = best - 2 * self.flat.bound(rows)
        pairs = [(mine, start, np.nonzero(scores >= least[mine, None])) for mine, start, scores in scored]
        places = np.concatenate([mine[near[0]] for mine, _, near in pairs])
        return places, np.concatenate([near[1] + start for _, start, near in pairs])


def recall(centroids: RoutedCentroids, rows: Rows) -> float:
    """How many of some points find their nearest centroid (or one as near) in the groups looked into, from 0 to 1."""
    found = centroids.nearest(rows)[1]
    least = centroids.flat.nearest(rows)[1]
    return float((found == least).mean())
