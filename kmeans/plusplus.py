"""Greedy k-means++ in exact arithmetic, with candidates looked at many at a time.

Arthur & Vassilvitskii 2007, with the greedy choice of their section 5 as in scikit-learn. The first centroids are
chosen one by one. Later each changes the distances of few points, so candidates for many steps are drawn at once, from
the distances that hold then; a step takes those that a coin accepts with the probability new distance / old one, which
makes them draws from the distances that hold at the step (rejection, compare Cohen-Addad et al. 2020, "Fast and
Accurate k-means++ via Rejection Sampling"). One float32 product shows which points a candidate may come nearest to;
their distances are found exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from .hashing import draw_below, mix64
from .nearest import Centroids
from .rows import Rows

_ONE_BY_ONE = 64  # centroids chosen before candidates are drawn many at a time
_DENSE = 8  # where more than one pair in so many is near, a product over all costs less
_MOST_SCORES = 1 << 24  # of one product of candidates and points, 64 MiB
_ROWS_AT_ONCE = 4096  # converted to float64
_LEAST_CANDIDATES, _MOST_CANDIDATES = 32, 512  # of one product


@dataclass
class _Points:
    """The points, and how far each is from the centroids chosen so far.

    Attributes:
        rows: The points.
        closest: Squared distances times `scale`, rounded up: whole numbers whose sum is below 2**53, so exact in any
            order; shape (n,).
        scale: A power of two.
        reach: Scores from which on a centroid may be nearer than those chosen, float32, shape (n,).
        bound: Of the scores' errors, shape (n,).
    """

    rows: Rows
    closest: NDArray[np.float64]
    scale: float
    reach: NDArray[np.float32]
    bound: NDArray[np.float64]

    @classmethod
    def around(cls, x: NDArray[np.float32], first: int) -> _Points:
        """With one centroid chosen."""
        rows = Rows.of(x)
        squared = _squared(rows, np.array([first]))[0]
        scale = _exact_scale(squared)
        points = cls(rows, np.ceil(squared * scale), scale, np.empty(len(x), np.float32), np.empty(len(x)))
        points.bound = Centroids(parts=[_augmented(rows, np.array([int(rows.norms.argmax())]))]).bound(rows)
        points.come_nearer(np.arange(len(x)), points.closest)
        return points

    def come_nearer(self, places: NDArray[np.intp], closest: NDArray[np.float64]) -> None:
        """Lower the distances of some points."""
        self.closest[places] = closest
        least = (self.rows.norms[places] - closest / self.scale) / 2 - self.bound[places]
        self.reach[places] = np.nextafter(least.astype(np.float32), np.float32(-np.inf))


def kmeans_plusplus(x: NDArray[np.float32], k: int, seed: int) -> NDArray[np.intp]:
    """Greedy k-means++: of 2 + floor(ln k) draws by squared distance, the one that lowers the cost most.

    Args:
        x: Points in grid steps, float32, shape (n, d).
        k: How many to choose.
        seed: Of the draws.

    Returns:
        Row numbers of distinct points, shape (k,); fewer if `x` has fewer distinct points.
    """
    n_candidates = 2 + int(log(k))
    chosen = [draw_below(len(x), seed)]
    points = _Points.around(np.ascontiguousarray(x), chosen[0])
    _choose_one_by_one(points, chosen, min(k, _ONE_BY_ONE), n_candidates, seed)
    drawn = 0
    while len(chosen) < k and points.closest.any():
        drawn = _choose_many(points, chosen, k, n_candidates, seed, drawn)
    return np.array(chosen, dtype=np.intp)


def _choose_one_by_one(points: _Points, chosen: list[int], k: int, n_candidates: int, seed: int) -> None:
    words = mix64(np.arange(k * n_candidates, dtype=np.uint64), seed, 1).reshape(k, n_candidates)
    for step in range(1, k):
        if not points.closest.any():
            return
        chosen.append(_best_to_all(points, _draw(points.closest, words[step])))


def _choose_many(points: _Points, chosen: list[int], k: int, n_candidates: int, seed: int, drawn: int) -> int:
    """Choose from as many candidates as one product takes; gives how many have been drawn so far."""
    most = int(np.clip(_MOST_SCORES // len(points.rows), max(_LEAST_CANDIDATES, 2 * n_candidates), _MOST_CANDIDATES))
    size = min(most, 2 * n_candidates * (k - len(chosen)))
    numbers = np.arange(drawn, drawn + size, dtype=np.uint64)
    candidates = _draw(points.closest, mix64(numbers, seed, 2))
    coins = mix64(numbers, seed, 3).tolist()
    scores = _augmented(points.rows, candidates) @ points.rows.a.T
    before = points.closest[candidates].tolist()
    accepted: list[int] = []
    for place, candidate in enumerate(candidates.tolist()):
        if coins[place] * int(before[place]) < int(points.closest[candidate]) << 64:
            accepted.append(place)
        if len(accepted) == n_candidates:
            chosen.append(_best(points, candidates[accepted], scores[accepted]))
            accepted = []
            if len(chosen) == k:
                break
    if accepted and len(chosen) < k:  # the last of a product take fewer; they are draws all the same
        chosen.append(_best(points, candidates[accepted], scores[accepted]))
    return drawn + size


def _best_to_all(points: _Points, candidates: NDArray[np.intp]) -> int:
    """The candidate that lowers the cost most, the first of several; the points it is nearest to are given to it."""
    distances = _squared(points.rows, candidates)
    distances *= points.scale
    np.ceil(distances, out=distances)
    np.minimum(distances, points.closest, out=distances)
    best = int(distances.sum(axis=1).argmin())
    nearer = np.flatnonzero(distances[best] < points.closest)
    points.come_nearer(nearer, distances[best, nearer])
    return int(candidates[best])


def _best(points: _Points, candidates: NDArray[np.intp], scores: NDArray[np.float32]) -> int:
    """The same, looking only at pairs that score high enough."""
    near_pairs = scores >= points.reach
    if np.count_nonzero(near_pairs) > near_pairs.size // _DENSE:
        return _best_to_all(points, candidates)
    places, near = np.nonzero(near_pairs)
    squared = Centroids(parts=[_augmented(points.rows, candidates)]).squared(points.rows, near, places)
    closest = np.minimum(np.ceil(squared * points.scale), points.closest[near])
    gains = np.bincount(places, weights=points.closest[near] - closest, minlength=len(candidates))
    best = int(gains.argmax())
    points.come_nearer(near[places == best], closest[places == best])
    return int(candidates[best])


def _draw(closest: NDArray[np.float64], words: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Draw points with probabilities proportional to whole numbers, one for each 64-bit word."""
    cumulated = np.cumsum(closest)
    total = int(cumulated[-1])
    draws = np.array([(word * total) >> 64 for word in words.tolist()], dtype=np.float64)
    return np.searchsorted(cumulated, draws, side="right")


def _augmented(rows: Rows, some: NDArray[np.intp]) -> NDArray[np.float32]:
    """Points as centroids, see `nearest.augment`."""
    return np.hstack([rows.x[some], (rows.norms[some, None] / 2).astype(np.float32)])


def _squared(rows: Rows, some: NDArray[np.intp]) -> NDArray[np.float64]:
    """Exact squared distances of all points to some of them, float64, shape (len(some), n)."""
    factors = -2 * rows.x[some].astype(np.float64)
    squared = np.empty((len(some), len(rows)))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        np.matmul(factors, rows.x[part].astype(np.float64).T, out=squared[:, part])
    squared += rows.norms
    squared += rows.norms[some, None]
    return squared


def _exact_scale(squared: NDArray[np.float64]) -> float:
    """A power of two that brings any sum of len(squared) distances below 2**53.

    No distance within the set is more than four times the largest from one of its points.
    """
    largest = 4 * int(squared.max())
    return float(2.0 ** min(0, 53 - largest.bit_length() - len(squared).bit_length() - 1))
