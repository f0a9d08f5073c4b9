"""How a sample is shared among the clusters of a tree: by the tree alone, by what is around them, or by labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import functions as F

from ..kmeans.balance import MOST_CLUSTERS, outlying, ways_to_share
from ..kmeans.choice import LabelledTable, Weights, choose_by_labels
from ..kmeans.grid import Grid
from ..kmeans.quotas import Quotas, tree_quotas, tree_weights
from ..schemas.tables import CENTROIDS
from .labelled import read_labelled
from .levels import metric_of
from .recipe import Recipe, Sample
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
    """The temperature that a recipe means: "auto" weighs by what is around clusters made for that."""
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
    if options.outliers:
        steps = _grid(recipe, centroids).quantize(centroids)
        far = outlying(steps, tree.items[level - 1], options.outliers)
        out = far[_ancestors(tree, level)]
        leaves = np.where(out, 0, leaves)
        logger.info("outliers: %d clusters of level %d set aside, %d items", far.sum(), level, tree.items[0][out].sum())
    if temperature != "auto":
        return Shared(_quotas(tree, leaves, options, float(temperature), None), out)
    return Shared(_weighed(store, recipe, options, tree, leaves, centroids), out)


def _weighed(
    store: Store,
    recipe: Recipe,
    options: Sample,
    tree: Tree,
    leaves: NDArray[np.int64],
    centroids: NDArray[np.float32],
) -> list[Quotas]:
    """Quotas by the weights of the clusters of one level: the default ones, or those that labels speak for."""
    level, labels = tree.weighed, recipe.labels
    items = np.zeros(len(centroids), dtype=np.int64)
    np.add.at(items, _ancestors(tree, level), leaves)

    def quotas_of(weights: Weights, options: Sample) -> list[Quotas]:
        down = None if weights is None else tree_weights(tree.parents, weights, level, len(leaves))
        return _quotas(tree, leaves, options, 0.0, down)

    def shares_of(weights: Weights, size: int) -> NDArray[np.float64]:
        usual = options.model_copy(update={"size": size, "multiplier": 1})
        return quotas_of(weights, usual)[level - 1].expected

    if labels is None:
        default, weights = next(ways_to_share(_grid(recipe, centroids).quantize(centroids), items))
        logger.info("temperature auto: by the %d clusters of level %d: %s", len(items), level, default)
        return quotas_of(weights, options)
    x, y = read_labelled(store.spark, labels, centroids.shape[1], _MOST_LABELLED)
    grid = _grid(recipe, centroids, x)
    labelled = LabelledTable(grid.quantize(x), y, grid.quantize(centroids), items, grid)
    choice = choose_by_labels(labelled, shares_of)
    told = "; ".join(f"{name} {value:.3f}" for name, value in choice.evenness.items())
    logger.info("temperature auto: %s, by %d labels (evenness: %s)", choice.name, len(y), told)
    return quotas_of(choice.weights, options)


def _grid(recipe: Recipe, *vectors: NDArray[np.float32]) -> Grid:
    """One that covers all of these, with the metric of the tree."""
    d = vectors[0].shape[1]
    largest = max(float(np.abs(some).max(initial=0.0)) for some in vectors)
    return Grid.covering(largest, d, metric_of(recipe.cluster, d))


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
