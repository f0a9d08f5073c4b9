"""The levels of a recipe's tree for so many items; told without Spark."""

from __future__ import annotations

import sys

from ..kmeans.lloyd import Options
from ..kmeans.tree import LevelSpec
from ..schemas.errors import ConfigurationError
from .recipe import Cluster

# What `auto` makes: small clusters, to weigh by what is around them (see kmeans/balance.py), and some above them.
_ITEMS, _MOST_CLUSTERS, _CHILDREN = 4, 20_000, 8
_AUTO_ROUNDS, _PAPERS_ROUNDS = 3, 10
_LEAST_DIRECTIONS = 16  # coordinates of an embedding; vectors of fewer are places


def level_specs(options: Cluster, n: int) -> list[LevelSpec]:
    """What to do at each level for n items.

    Raises:
        ConfigurationError: If a level has more clusters than there are items, or its settings name other levels.
    """
    clusters = _auto(n) if options.levels == "auto" else options.levels
    if clusters[0] > n:
        raise ConfigurationError(
            [f"cluster.levels: n_samples={n} should be >= n_clusters={clusters[0]}: ask for fewer clusters."]
        )
    try:
        splits = options.splits(len(clusters))
    except ValueError as error:
        raise ConfigurationError([f"cluster.split: {error}."]) from None
    resampling = options.resampling
    sizes = resampling.sizes if resampling else "auto"
    members = [max(1, below // k // 2) for below, k in zip([n, *clusters], clusters, strict=False)]
    if sizes != "auto":
        if len(sizes) != len(clusters):
            raise ConfigurationError(
                [f"cluster.resampling: {len(sizes)} sizes for {len(clusters)} levels: name one a level, or auto."]
            )
        members = sizes
    rounds = resampling.rounds if resampling else 0
    if rounds == "auto":
        rounds = _AUTO_ROUNDS if options.levels == "auto" else _PAPERS_ROUNDS
    strategy = resampling.strategy if resampling else "closest"
    probe = sys.maxsize if options.probe == "all" else options.probe
    return [
        LevelSpec(k, 0 if groups else rounds, size, strategy, groups, probe)
        for k, size, groups in zip(clusters, members, splits, strict=True)
    ]


def _auto(n: int) -> list[int]:
    bottom = min(max(1, n // _ITEMS), _MOST_CLUSTERS)
    return [bottom, bottom // _CHILDREN] if bottom >= _CHILDREN else [bottom]


def metric_of(options: Cluster, d: int) -> str:
    """The metric for vectors of d coordinates: of embeddings the length says little, and much of it harms.

    The paper's is l2, and whoever names levels has it.
    """
    if options.metric != "auto":
        return options.metric
    return "cosine" if options.levels == "auto" and d >= _LEAST_DIRECTIONS else "l2"


def told_of_auto(options: Cluster, n: int, d: int) -> str | None:
    """What levels `auto` come to, and why, in a line; None where the recipe names its own."""
    if options.levels != "auto":
        return None
    bottom, *above = [f"{k:,}" for k in _auto(n)]
    least = n // _ITEMS > _MOST_CLUSTERS
    why = f"the most that auto makes of {n:,} items" if least else f"{_ITEMS} items each"
    upper = "".join(f", {k} above" for k in above)
    made = f"{bottom} clusters ({why}){upper}, metric {metric_of(options, d)}"
    return f"auto: {made}; the sample weighs them by what is around each"


def fit_options(options: Cluster) -> Options:
    """How each k-means of a recipe goes; with levels `auto` it starts at random points.

    Greedy k-means++ seeks out what lies alone, and few rounds do not forget that: its centroids tell of the spread of a
    concept, not of its mass. On embeddings of images whose classes differ in spread, balance came out worse than at
    random with it, and better with random starts.
    """
    init = ("random" if options.levels == "auto" else "k-means++") if options.init == "auto" else options.init
    return Options(options.algorithm, options.max_iter, options.tol, init)
