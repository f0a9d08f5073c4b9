"""The tree, built bottom-up: hierarchical k-means with resampling (Vo et al. 2024, arXiv 2405.15613)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .lloyd import Fit, fit
from .nearest import Centroids
from .points import ArrayPoints, Points, Strategy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LevelSpec:
    """How to make one level.

    Attributes:
        n_clusters: k of this level.
        rounds: m, resampling rounds; 0 for plain k-means.
        size: r, members of each cluster that a round keeps.
        strategy: Which members: "closest" to the centroid, or "random".
    """

    n_clusters: int
    rounds: int = 0
    size: int = 1
    strategy: Strategy = "closest"


def fit_level(points: Points, spec: LevelSpec, level: int, *, seed: int, max_iter: int = 50, tol: float = 0.0) -> Fit:
    """Make one level: k-means, then rounds of k-means on resampled members; at the end all points are assigned.

    Each round keeps `size` members of every cluster and clusters those afresh, which forgets the masses of the
    clusters and so brings the centroids nearer to uniform over the support of the data.

    Args:
        points: Input of the level: the items, or the centroids of the level below.
        spec: Clusters, rounds and members.
        level: 1-based; part of the seed.
        seed: Of the whole tree.
        max_iter: Most Lloyd iterations of each k-means.
        tol: See `lloyd.fit`.

    Returns:
        The level's centroids and the assignment of all points to them.
    """
    fitted = fit(points, spec.n_clusters, seed=_seed(seed, level, 0), max_iter=max_iter, tol=tol, name=f"level {level}")
    for step in range(1, spec.rounds + 1):
        step_seed = _seed(seed, level, step)
        members = points.members(fitted.centroids, spec.size, spec.strategy, step_seed)
        fitted = fit(
            members,
            len(fitted.centroids),
            seed=step_seed,
            max_iter=max_iter,
            tol=tol,
            name=f"level {level} round {step} of {spec.rounds}",
        )
    if not spec.rounds:
        return fitted
    return Fit(fitted.centroids, points.step(fitted.centroids), fitted.n_iter)


def _seed(seed: int, level: int, step: int) -> int:
    return (seed << 32) + (level << 24) + step


def build(
    points: Points,
    specs: Sequence[LevelSpec],
    *,
    seed: int,
    max_iter: int = 50,
    tol: float = 0.0,
    done: Sequence[NDArray[np.float32]] = (),
) -> Iterator[NDArray[np.float32]]:
    """Make the tree's levels bottom-up, each from the centroids of the one below.

    Args:
        points: The items.
        specs: One entry a level, from the bottom.
        seed: Of everything drawn.
        max_iter: Most Lloyd iterations of each k-means.
        tol: See `lloyd.fit`.
        done: Centroids of the levels that an earlier run made, from the bottom.

    Yields:
        Centroids of each further level in grid steps, float32, shape (k_t, d).
    """
    below = done[-1] if done else None
    for level, spec in enumerate(specs[len(done) :], start=len(done) + 1):
        level_points = points if below is None else as_points(below, points)
        fitted = fit_level(level_points, spec, level, seed=seed, max_iter=max_iter, tol=tol)
        below = fitted.centroids
        logger.info("level %d: %d clusters of %d points", level, len(below), level_points.n)
        yield below


def as_points(centroids: NDArray[np.float32], items: Points) -> ArrayPoints:
    """The centroids of a level as the points of the next, unweighted: cluster ids are their ids."""
    return ArrayPoints(centroids, np.arange(len(centroids), dtype=np.int64), items.grid)


def parents(levels: Sequence[NDArray[np.float32]]) -> list[NDArray[np.int64]]:
    """Each cluster's parent: the nearest centroid of the level above.

    Args:
        levels: Centroids of levels 1..T in grid steps.

    Returns:
        T - 1 arrays; the t-th maps cluster ids of level t, shape (k_t,), to cluster ids of level t + 1.
    """
    return [Centroids(above).nearest(below)[0] for below, above in pairwise(levels)]


def paths(parents: Sequence[NDArray[np.int64]], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each item's cluster at every level, from its level-1 cluster.

    Args:
        parents: As from `parents`.
        labels: Level-1 cluster ids, shape (n,).

    Returns:
        Cluster ids of levels 1..T, int64, shape (T, n).
    """
    path = [labels]
    for parent in parents:
        path.append(parent[path[-1]])
    return np.stack(path)
