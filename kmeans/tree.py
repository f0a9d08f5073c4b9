"""The tree, built bottom-up: hierarchical k-means with resampling (Vo et al. 2024, arXiv 2405.15613)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from .lloyd import DEFAULT_OPTIONS, Options, State, fit
from .partial import CentroidSet
from .points import Points, Strategy
from .split import share_out

logger = logging.getLogger(__name__)

_GROUPS = 1 << 20  # numbers of seeds from here on are those of a level's groups


@dataclass(frozen=True)
class LevelSpec:
    """How to make one level.

    Attributes:
        n_clusters: k of this level.
        rounds: m, resampling rounds; 0 for plain k-means.
        size: r, members of each cluster that a round keeps.
        strategy: Which members: "closest" to the centroid, or "random".
        groups: Pre-clusters, for a level made in two steps; rounds are those of the pre-clusters then.
        probe: Groups that a point looks into for its nearest centroid.
    """

    n_clusters: int
    rounds: int = 0
    size: int = 1
    strategy: Strategy = "closest"
    groups: int | None = None
    probe: int = 8


@dataclass(frozen=True)
class Progress:
    """How far the making of a level has come.

    Attributes:
        round: The round in progress; 0 is the k-means on all points.
        before: Centroids of the round before; None in round 0.
        state: Where the round's fit stands; None before it begins.
    """

    round: int = 0
    before: CentroidSet | None = None
    state: State | None = None


_START = Progress()


def fit_level(
    points: Points,
    spec: LevelSpec,
    level: int,
    *,
    seed: int,
    options: Options = DEFAULT_OPTIONS,
    progress: Progress = _START,
    save: Callable[[Progress], None] = lambda progress: None,
) -> CentroidSet:
    """Make one level: k-means, then rounds of k-means on resampled members.

    Each round keeps `size` members of every cluster and clusters those afresh, which forgets the masses of the
    clusters and so brings the centroids nearer to uniform over the support of the data. A level in two steps has its
    pre-clusters made so, and each clustered by itself.

    Args:
        points: Input of the level: the items, or the centroids of the level below.
        spec: Clusters, rounds and members.
        level: 1-based; part of the seed.
        seed: Of the whole tree.
        options: How each k-means goes.
        progress: Go on from here.
        save: Called with the progress after every move of the centroids and after every round.

    Returns:
        The level's centroids. Each is the nearest to some of the points; of a level in two steps a few may be to none.
    """
    before = progress.before
    for number in range(progress.round, spec.rounds + 1):
        of_round = partial(Progress, number, before)
        round_seed = seed_of(seed, level, number)
        fitted = fit(
            points if before is None else points.members(before, spec.size, spec.strategy, round_seed),
            (spec.groups or spec.n_clusters) if before is None else len(before),
            seed=round_seed,
            options=options,
            name=f"level {level}" + (f" round {number} of {spec.rounds}" if number else ""),
            state=progress.state if number == progress.round else None,
            on_move=lambda state, of_round=of_round: save(of_round(state)),  # type: ignore[misc]
        )
        before = fitted.centroids
        save(Progress(number + 1, before))
    if before is None:
        raise ValueError(f"progress.round={progress.round} should be at most rounds={spec.rounds}, or have `before`.")
    if not spec.groups:
        return before
    groups = share_out(
        points, points.fetch(before), spec.n_clusters, seed=seed_of(seed, level, _GROUPS), options=options
    )
    centroids = points.split(groups, spec.probe)
    if len(centroids) < spec.n_clusters:
        text = "level %d: some groups have fewer distinct points than their share: %d clusters, not %d"
        logger.warning(text, level, len(centroids), spec.n_clusters)
    return centroids


def seed_of(seed: int, level: int, number: int) -> int:
    """The seed of a round of a level (from 2**20 on: of one of its groups)."""
    return (seed << 32) + (level << 28) + number


def build(
    points: Points,
    specs: Sequence[LevelSpec],
    *,
    seed: int,
    options: Options = DEFAULT_OPTIONS,
    done: CentroidSet | None = None,
    first: int = 1,
    progress: Progress = _START,
    save: Callable[[int, Progress], None] = lambda level, progress: None,
) -> Iterator[CentroidSet]:
    """Make the tree's levels bottom-up, each from the centroids of the one below.

    Args:
        points: The items.
        specs: One entry a level, from the bottom.
        seed: Of everything drawn.
        options: How each k-means goes.
        done: Centroids of the last level that an earlier run made.
        first: The level to begin with, one above that.
        progress: How far that level has come.
        save: Called with the level and its progress, see `fit_level`.

    Yields:
        Centroids of each further level in grid steps, float32, shape (k_t, d), or what the points keep in their place.
    """
    below = done
    for level, spec in enumerate(specs[first - 1 :], start=first):
        level_points = points if below is None else points.lift(below)
        below = fit_level(
            level_points,
            spec,
            level,
            seed=seed,
            options=options,
            progress=progress if level == first else _START,
            save=partial(save, level),
        )
        logger.info("level %d: %d clusters of %d points", level, len(below), level_points.n)
        yield below


def paths(parents: Sequence[NDArray[np.int64]], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each item's cluster at every level, from its level-1 cluster.

    Args:
        parents: The t-th maps cluster ids of level t, shape (k_t,), to cluster ids of level t + 1.
        labels: Level-1 cluster ids, shape (n,).

    Returns:
        Cluster ids of levels 1..T, int64, shape (T, n).
    """
    path = [labels]
    for parent in parents:
        path.append(parent[path[-1]])
    return np.stack(path)
