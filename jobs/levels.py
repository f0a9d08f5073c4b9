"""The levels of a recipe's tree for so many items; told without Spark."""

from __future__ import annotations

import sys

from ..kmeans.tree import LevelSpec
from ..schemas.errors import ConfigurationError
from .recipe import Cluster

_AUTO_LEVELS = (20, 80)  # items a cluster, from the bottom


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
    strategy = resampling.strategy if resampling else "closest"
    probe = sys.maxsize if options.probe == "all" else options.probe
    return [
        LevelSpec(k, 0 if groups else rounds, size, strategy, groups, probe)
        for k, size, groups in zip(clusters, members, splits, strict=True)
    ]


def _auto(n: int) -> list[int]:
    sizes = [max(1, n // items) for items in _AUTO_LEVELS]
    return [k for t, k in enumerate(sizes) if t == 0 or k < sizes[t - 1]]
