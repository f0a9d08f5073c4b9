"""The finished tree, as tables: every item's path, and the nodes with what is below them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from math import fsum

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..kmeans.partial import CentroidSet, sum_by
from ..kmeans.points import Points
from ..kmeans.quotas import tree_sizes
from ..kmeans.routed import RoutedCentroids, recall
from ..schemas.tables import CENTROIDS, assignments
from ..udfs.centroid_rows import to_rows
from ..udfs.centroids import ready
from ..udfs.points import DataFramePoints
from .runs import Run
from .store import DeltaTable, Store

logger = logging.getLogger(__name__)

_RECALL_SAMPLE = 512


@dataclass
class Published:
    """What was written.

    Attributes:
        tables: assignments and centroids.
        n_items: Items assigned.
        metrics: Clusters and cost a point of each level.
    """

    tables: list[DeltaTable]
    n_items: int
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Level:
    """What a level's clusters hold.

    Attributes:
        centroids: Of the level.
        children: Points of the level's input nearest to each, int64, shape (k,).
        squared: Sum of their squared distances in squared steps, float64, shape (k,).
    """

    centroids: CentroidSet
    children: NDArray[np.int64]
    squared: NDArray[np.float64]


def publish_tree(
    store: Store, points: DataFramePoints, levels: Sequence[CentroidSet], model_id: str, current: Run
) -> Published:
    """Assign the items and write both tables, each in one commit in the place of the tree's earlier rows."""
    above, held = _levels_above(points, levels)
    mine = f"model_id = '{model_id}'"
    table = store.table("assignments")
    table.create(assignments(points.id_type, len(levels)))
    paths = points.assign(levels[0], above).withColumn("model_id", F.lit(model_id))
    table.replace(paths, mine, current.commit("assignments"))
    held.insert(0, _bottom(table.read().where(mine), levels[0], points))
    nodes = store.table(CENTROIDS.name)
    nodes.create(CENTROIDS)
    nodes.replace(_nodes(store, held, above, points, model_id), mine, current.commit("centroids"))
    return Published([table, nodes], int(held[0].children.sum()), _metrics(held, points))


def _levels_above(
    points: DataFramePoints, levels: Sequence[CentroidSet]
) -> tuple[list[NDArray[np.int64]], list[Level]]:
    """Each cluster's parent by level, and what the clusters of levels 2 and up hold."""
    above, held = [], []
    _report_recall(points, levels[0], 1)
    for number, (below, centroids) in enumerate(pairwise(levels), start=2):
        inputs = points.lift(below)
        _report_recall(inputs, centroids, number)
        labels, squared = inputs.locate(centroids)
        above.append(labels)
        held.append(
            Level(centroids, np.bincount(labels, minlength=len(centroids)), sum_by(labels, squared, len(centroids)))
        )
    return above, held


def _bottom(assigned: DataFrame, centroids: CentroidSet, points: DataFramePoints) -> Level:
    """What the clusters of level 1 hold: added up by Spark in whole squared steps, which have no order."""
    steps = F.expr(f"CAST(rint(pow(distance * {2.0**-points.grid.exponent!r}D, 2)) AS DECIMAL(20, 0))")
    sums = assigned.groupBy("level_1").agg(F.count("*").alias("n"), F.sum(steps).cast("double").alias("squared"))
    table = sums.toArrow()
    children, squared = np.zeros(len(centroids), np.int64), np.zeros(len(centroids))
    clusters = table["level_1"].to_numpy()
    children[clusters], squared[clusters] = table["n"].to_numpy(), table["squared"].to_numpy()
    return Level(centroids, children, squared)


def _nodes(
    store: Store, held: Sequence[Level], above: Sequence[NDArray[np.int64]], points: DataFramePoints, model_id: str
) -> DataFrame:
    """Rows of the centroids table: coordinates from where they are, figures from here."""
    items = tree_sizes(list(above), held[0].children)
    step = 2.0**points.grid.exponent
    frames = []
    for number, level in enumerate(held, start=1):
        figures = {
            "cluster_id": np.arange(len(level.centroids)),
            "children": level.children,
            "items": items[number - 1],
            "radius": points.grid.distance(level.squared / np.maximum(level.children, 1)),
        }
        if number <= len(above):
            figures["parent_id"] = above[number - 1]
        rows = to_rows(level.centroids, store.spark).drop("grp")
        joined = rows.join(store.spark.createDataFrame(pd.DataFrame(figures)), "cluster_id")
        coordinates = F.transform("centroid", lambda x: (x * F.lit(step)).cast("float"))
        labels = {"model_id": F.lit(model_id), "level": F.lit(number), "centroid": coordinates}
        frames.append(joined.withColumns(labels))
    return reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), frames)


def _report_recall(inputs: Points, centroids: CentroidSet, number: int) -> None:
    """Say how often looking into some groups finds the nearest centroid, on a sample of the level's input."""
    search = ready(centroids)
    if isinstance(search, RoutedCentroids) and search.probe < len(search.groups):
        sample = inputs.sample(_RECALL_SAMPLE, 0)
        found = recall(search, sample.rows)
        logger.info(
            "level %d: %d of %d groups probed: recall %.4f on %d",
            number,
            search.probe,
            len(search.groups),
            found,
            sample.n,
        )


def _metrics(held: Sequence[Level], points: DataFramePoints) -> dict[str, float]:
    metrics = {}
    for number, level in enumerate(held, start=1):
        metrics[f"clusters_level_{number}"] = float(len(level.centroids))
        metrics[f"cost_level_{number}"] = points.grid.step**2 * fsum(level.squared) / int(level.children.sum())
    return metrics
