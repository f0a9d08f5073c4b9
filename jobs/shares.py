"""How a sample is shared among the clusters of a tree: by the tree alone, by the mass around them, or by labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import functions as F

from ..kmeans.balance import MOST_CLUSTERS, outlying, ways_to_share
from ..kmeans.grid import Grid
from ..kmeans.quotas import Quotas, tree_quotas, tree_weights
from ..schemas.tables import CENTROIDS
from .recipe import Labels, Recipe, Sample
from .store import Store

logger = logging.getLogger(__name__)

_MOST_LABELLED = 20_000


@dataclass(frozen=True)
class Tree:
    """The nodes of a tree.

    Attributes:
        model_id: Its name.
        parents: As `tree_quotas` takes them.
        items: Of each cluster, a level each.
    """

    model_id: str
    parents: list[NDArray[np.int64]]
    items: list[NDArray[np.int64]]

    @property
    def weighed(self) -> int:
        """The level whose clusters are compared with each other: the lowest that is small enough; 1-based."""
        return next((t for t, k in enumerate(map(len, self.items), 1) if k <= MOST_CLUSTERS), len(self.items))


@dataclass(frozen=True)
class Shared:
    """What each cluster gives.

    Attributes:
        quotas: A level each.
        outlying: Which clusters of level 1 are left out as outliers, shape (k_1,).
    """

    quotas: list[Quotas]
    outlying: NDArray[np.bool_]


def temperature_of(recipe: Recipe, options: Sample) -> float | str:
    """The temperature that a recipe means: "auto" weighs by mass, where the levels are made for that."""
    if options.temperature != "auto" or recipe.cluster.levels == "auto" or recipe.labels:
        return options.temperature
    return 0.0


def read_tree(store: Store, model_id: str) -> Tree:
    """Parents and sizes of all clusters."""
    nodes = store.table(CENTROIDS.name).read().where(F.col("model_id") == model_id)
    columns = nodes.select("level", "cluster_id", "parent_id", "items").orderBy("level", "cluster_id").toArrow()
    level, items = columns["level"].to_numpy(), columns["items"].to_numpy()
    parent = columns["parent_id"].fill_null(-1).to_numpy()
    top = int(level.max())
    return Tree(model_id, [parent[level == t] for t in range(1, top)], [items[level == t] for t in range(1, top + 1)])


def share_out(store: Store, recipe: Recipe, options: Sample, tree: Tree) -> Shared:
    """Share a sample among the clusters of a tree, and say how in the log."""
    leaves, temperature = tree.items[0], temperature_of(recipe, options)
    out = np.zeros(len(leaves), dtype=np.bool_)
    if temperature != "auto" and not options.outliers:
        return Shared(_quotas(tree, leaves, options, float(temperature), None), out)
    level = tree.weighed
    centroids = _centroids(store, tree, level)
    grid = Grid.covering(float(np.abs(centroids).max()), centroids.shape[1])
    steps = grid.quantize(centroids)
    if options.outliers:
        far = outlying(steps, tree.items[level - 1], options.outliers)
        out = far[_ancestors(tree, level)]
        leaves = np.where(out, 0, leaves)
        logger.info("outliers: %d clusters of level %d set aside, %d items", far.sum(), level, tree.items[0][out].sum())
    if temperature != "auto":
        return Shared(_quotas(tree, leaves, options, float(temperature), None), out)
    held = np.zeros(len(steps), dtype=np.int64)
    np.add.at(held, _ancestors(tree, level), leaves)
    ways = ways_to_share(steps, held)
    if recipe.labels is None:
        default, weights = next(iter(ways.items()))
        logger.info("temperature auto: by the mass around each of %d clusters: %s", len(held), default)
        return Shared(_quotas(tree, leaves, options, 0.0, _weights(tree, weights, level)), out)
    every = {way: _quotas(tree, leaves, options, 0.0, _weights(tree, w, level)) for way, w in ways.items()}
    every["the tree's even shares"] = _quotas(tree, leaves, options, 0.0, None)
    return Shared(_by_labels(store, recipe.labels, every, centroids, level), out)


def _by_labels(
    store: Store, labels: Labels, every: dict[str, list[Quotas]], centroids: NDArray[np.float32], level: int
) -> list[Quotas]:
    """The quotas that a labelled table speaks for, out of those of every way; the first is the default."""
    # These bring scikit-learn along, which takes seconds to import.
    from ..kmeans.choice import choose, fold_evenness
    from .labelled import read_labelled

    names = list(every)
    x, y = read_labelled(store.spark, labels, centroids.shape[1], _MOST_LABELLED)
    found = fold_evenness(x, y, centroids, [every[name][level - 1].expected for name in names])
    chosen = names[choose(found, default=0)]
    told = "; ".join(f"{name} {value:.3f}" for name, value in zip(names, found.mean(axis=0), strict=True))
    logger.info("temperature auto: %s, by %d labels (evenness: %s)", chosen, len(y), told)
    return every[chosen]


def _quotas(
    tree: Tree,
    leaves: NDArray[np.int64],
    options: Sample,
    temperature: float,
    weights: Sequence[NDArray[np.float64]] | None,
) -> list[Quotas]:
    return tree_quotas(
        tree.parents,
        leaves,
        options.size,
        multiplier=options.multiplier,
        temperature=temperature,
        weights=weights,
        seed=options.seed,
    )


def _weights(tree: Tree, weights: NDArray[np.float64], level: int) -> list[NDArray[np.float64]]:
    return tree_weights(tree.parents, weights, level, len(tree.items[0]))


def _ancestors(tree: Tree, level: int) -> NDArray[np.int64]:
    """The cluster at a level that each cluster of level 1 is in, shape (k_1,)."""
    found = np.arange(len(tree.items[0]))
    for parent in tree.parents[: level - 1]:
        found = parent[found]
    return found


def _centroids(store: Store, tree: Tree, level: int) -> NDArray[np.float32]:
    mine = (F.col("model_id") == tree.model_id) & (F.col("level") == level)
    rows = store.table(CENTROIDS.name).read().where(mine).orderBy("cluster_id").select("centroid").toArrow()
    values = rows["centroid"].combine_chunks().flatten().to_numpy()
    found: NDArray[np.float32] = values.astype(np.float32).reshape(rows.num_rows, -1)
    return found


def quota_rows(tree: Tree, shared: Shared, multiplier: int) -> list[tuple[object, ...]]:
    """Rows of the quotas table."""
    rows: list[tuple[object, ...]] = []
    for level, (q, items) in enumerate(zip(shared.quotas, tree.items, strict=True), start=1):
        out = shared.outlying if level == 1 else np.zeros(len(items), dtype=np.bool_)
        full = q.quota == q.sizes * multiplier
        reasons = np.where(out, "outlier", np.where(full, "all", "share"))
        columns = (items, q.quota, q.expected, reasons)
        for cluster_id, figures in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
            rows.append((tree.model_id, level, cluster_id, *figures))
    return rows
