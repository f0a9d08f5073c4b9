"""Lloyd's algorithm over points, wherever they are, on nested mini-batches first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from heapq import heapreplace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from .partial import CentroidSet, Step
from .points import Points
from .seeding import Init, seed_centroids

logger = logging.getLogger(__name__)

# The first batch has at least so many points, and so many a cluster: less is noise, or costs less than to start a pass.
_FIRST_POINTS, _FIRST_PER_CLUSTER = 1 << 15, 16
MOST_RESEEDS = 1024  # vectors that one search gives: they meet on the driver


@dataclass(frozen=True)
class State:
    """Where a fit stands: enough to go on from.

    Attributes:
        centroids: In grid steps, float32, shape (k, d), or what the points keep in its place.
        batch: The nested batch it works on; 0 is all points.
        n_iter: Moves of the centroids on this batch.
        cost: Of the assignment before the last move on this batch, in squared steps; None before the first.
    """

    centroids: CentroidSet
    batch: int
    n_iter: int = 0
    cost: int | None = None


@dataclass(frozen=True)
class Options:
    """How to fit.

    Attributes:
        algorithm: "minibatch" or "lloyd" (all points from the start).
        max_iter: Most moves of the centroids on any one batch.
        tol: Relative decrease of the cost on all points at which to stop.
        init: Where it starts: "k-means++" (greedy), or "random" points.
    """

    algorithm: str = "minibatch"
    max_iter: int = 50
    tol: float = 0.0
    init: Init = "k-means++"


DEFAULT_OPTIONS = Options()


@dataclass(frozen=True)
class Fit:
    """Centroids and the assignment of all points to them.

    Attributes:
        centroids: In grid steps, float32, shape (k, d), or what the points keep in its place; every one has points.
        step: The assignment.
        n_iter: Moves on all points.
    """

    centroids: CentroidSet
    step: Step
    n_iter: int


def fit(
    points: Points,
    k: int,
    *,
    seed: int,
    options: Options = DEFAULT_OPTIONS,
    name: str = "",
    state: State | None = None,
    on_move: Callable[[State], None] = lambda state: None,
) -> Fit:
    """Cluster points into k: seeds, nested mini-batches, then Lloyd's iterations on all points.

    A batch is left for one of twice its size as soon as moving the centroids on it gains less than what its being a
    sample costs (compare Newling & Fleuret 2016, "Nested Mini-Batch K-Means"). On all points it stops when no centroid
    moves, when a move lowered the cost by no more than `tol` times the cost, or after `max_iter` moves. A cluster that
    runs empty restarts at a point of the heaviest, so k distinct points always give k clusters; fewer distinct points
    give fewer clusters, and a warning says so.

    Args:
        points: The points.
        k: Clusters to make.
        seed: Of the seeding, and of restarts.
        options: How.
        name: What the log calls this fit; without a name it says nothing.
        state: Go on from here.
        on_move: Called with the state after every move.

    Returns:
        Centroids, all with points, and their assignment.

    Raises:
        ValueError: If there are fewer points than clusters.
    """
    if points.n < k:
        raise ValueError(f"n_samples={points.n} should be >= n_clusters={k}.")
    state = state or _start(points, k, seed, options)
    step = _step(points, state, name)
    while not _has_converged(state, step, options):
        if state.batch and _is_settled(state, step, options):
            state = State(step.moved, state.batch - 1)
        else:
            moved = step.moved if state.batch else _refill(points, state.centroids, step, seed + state.n_iter)
            state = State(moved, state.batch, state.n_iter + 1, step.cost)
        on_move(state)
        step = _step(points, state, name)
    return _settle(points, Fit(state.centroids, step, state.n_iter), k, seed, name)


def _start(points: Points, k: int, seed: int, options: Options) -> State:
    seeds = seed_centroids(points, k, seed, options.init)
    if len(seeds) < k:  # copies attract no points, so they restart elsewhere
        seeds = points.pick(seeds, np.r_[np.arange(len(seeds)), np.zeros(k - len(seeds), dtype=np.intp)])
    return State(seeds, first_batch(points.batches, k) if options.algorithm == "minibatch" else 0)


def first_batch(batches: NDArray[np.int64], k: int) -> int:
    """The smallest nested batch that is worth a start with k clusters; 0 where all points are few."""
    enough = np.flatnonzero(batches >= max(_FIRST_POINTS, _FIRST_PER_CLUSTER * k))
    return int(enough[-1]) if len(enough) else 0


def _step(points: Points, state: State, name: str) -> Step:
    started = perf_counter()
    step = points.step(state.centroids, state.batch)
    n = int(points.batches[state.batch])
    logger.log(
        logging.INFO if name else logging.DEBUG,
        "%s: batch %d of %d points, step %d: cost %.6g, moved %.3g, %.2f s",
        name,
        state.batch,
        n,
        state.n_iter,
        points.grid.step**2 * step.cost / n,
        points.grid.step * float(np.sqrt(step.shift.mean())),
        perf_counter() - started,
    )
    return step


def _has_converged(state: State, step: Step, options: Options) -> bool:
    if state.batch:
        return False
    if state.n_iter >= options.max_iter or not step.cost:
        return True
    whole = bool(step.counts.all())
    if whole and not step.shift.any():
        return True
    return whole and state.cost is not None and state.cost - step.cost <= options.tol * state.cost


def _is_settled(state: State, step: Step, options: Options) -> bool:
    return state.n_iter >= options.max_iter or step.gain <= step.noise


def _refill(points: Points, centroids: CentroidSet, step: Step, seed: int) -> CentroidSet:
    """The moved centroids, with those of empty clusters put on points of the heaviest, as far as there are any."""
    empty = np.flatnonzero(step.counts == 0)
    if not len(empty):
        return step.moved
    given = points.reseeds(centroids, donors(step, len(empty)), seed)
    return points.put(step.moved, empty[: len(given)], given)


def donors(step: Step, missing: int) -> NDArray[np.int64]:
    """Points that each cluster gives away to start others at: the heaviest gives first, and counts as split by it.

    Args:
        step: The heaviest is the one that costs most. Those without cost have no point off their centroid.
        missing: Clusters to start anew; one search starts at most `MOST_RESEEDS`.

    Returns:
        int64, shape (k,).
    """
    sizes = np.zeros(len(step.counts), dtype=np.int64)
    able = np.flatnonzero(step.costs > 0)
    costs = step.costs
    heaviest = able[np.argsort(-costs[able], kind="stable")][:MOST_RESEEDS]
    heap = [(-float(costs[cluster]), int(cluster)) for cluster in heaviest]
    for _ in range(min(missing, MOST_RESEEDS) if heap else 0):
        cluster = heap[0][1]
        sizes[cluster] += 1
        heapreplace(heap, (-float(costs[cluster]) / int(sizes[cluster] + 1), cluster))
    return sizes


def _settle(points: Points, fitted: Fit, k: int, seed: int, name: str) -> Fit:
    """Leave no cluster empty: refill until all have points, or every point lies on its centroid."""
    while not fitted.step.counts.all():
        if not fitted.step.cost:
            full = np.flatnonzero(fitted.step.counts)
            if name:
                logger.warning("%s: %d distinct points give %d clusters, not %d", name, len(full), len(full), k)
            centroids = points.pick(fitted.centroids, full)
        else:
            kept = replace(fitted.step, moved=fitted.centroids)
            centroids = _refill(points, fitted.centroids, kept, seed)
        fitted = replace(fitted, centroids=centroids, step=points.step(centroids))
    return fitted
