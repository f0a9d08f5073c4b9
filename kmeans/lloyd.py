"""Lloyd's algorithm over points, wherever they are."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from .partial import Partial
from .points import Points
from .seeding import seed_centroids

logger = logging.getLogger(__name__)


@dataclass
class Fit:
    """Centroids and what their last assignment gave.

    Attributes:
        centroids: In grid steps, float32, shape (k, d); every one has points.
        partial: Counts, sums and costs of the assignment to these centroids.
        n_iter: Iterations run.
    """

    centroids: NDArray[np.float32]
    partial: Partial
    n_iter: int


def fit(points: Points, k: int, *, seed: int, max_iter: int = 50, tol: float = 0.0, name: str = "") -> Fit:
    """Cluster points into k: greedy k-means++, then Lloyd's iterations.

    Stops after `max_iter` iterations, when no centroid moves, or when an iteration lowers the cost by no more than
    `tol` times the cost. A cluster that runs empty restarts at the point farthest from its centroid, so k distinct
    points always give k clusters; fewer distinct points give fewer clusters, and a warning says so.

    Args:
        points: The points.
        k: Clusters to make.
        seed: Of the seeding.
        max_iter: Most iterations.
        tol: Relative decrease of the cost at which to stop.
        name: What the log calls this fit.

    Returns:
        Centroids, all with points, and their assignment.

    Raises:
        ValueError: If there are fewer points than clusters.
    """
    if points.n < k:
        raise ValueError(f"n_samples={points.n} should be >= n_clusters={k}.")
    centroids = seed_centroids(points, k, seed)
    partial = points.step(centroids)
    for n_iter in range(1, max_iter + 1):
        started = perf_counter()
        moved = _update(points, partial, k)
        if np.array_equal(moved, centroids):
            break
        before, centroids = partial.cost, moved
        partial = points.step(centroids)
        logger.info(
            "%s iteration %d: cost %.6g, %.2f s",
            name or "k-means",
            n_iter,
            points.grid.step**2 * partial.cost / points.n,
            perf_counter() - started,
        )
        if len(centroids) == k and partial.counts.all() and before - partial.cost <= tol * before:
            break
    return _settle(points, Fit(centroids, partial, n_iter), k)


def _update(points: Points, partial: Partial, k: int) -> NDArray[np.float32]:
    """Move centroids to the means of their points, and make up for those that have none."""
    full = partial.counts > 0
    return _refill(points, points.grid.mean(partial.sums[full], partial.counts[full]), k)


def _refill(points: Points, centroids: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Bring the centroids up to k with the points farthest from them, as far as there are any off a centroid."""
    missing = k - len(centroids)
    return np.vstack([centroids, points.farthest(centroids, missing)]) if missing else centroids


def _settle(points: Points, fitted: Fit, k: int) -> Fit:
    """Leave no cluster empty: refill until all have points, or every point lies on its centroid."""
    centroids, partial = fitted.centroids, fitted.partial
    while len(centroids) < k or not partial.counts.all():
        full = centroids[partial.counts > 0]
        centroids = _refill(points, full, k)
        partial = points.step(centroids)
        if len(centroids) == len(full):
            logger.warning("%d distinct points give %d clusters, not %d", len(full), len(full), k)
            break
    return Fit(centroids, partial, fitted.n_iter)
