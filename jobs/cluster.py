"""The cluster job: embeddings in, a tree of centroids and every item's path through it out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from ..kmeans.grid import Grid
from ..kmeans.points import Points
from ..kmeans.quotas import tree_sizes
from ..kmeans.tree import LevelSpec, as_points, build, parents
from ..schemas.errors import ConfigurationError, LakestrataError
from ..schemas.tables import CENTROIDS, CHECKPOINTS, assignments
from ..udfs.points import DataFramePoints, small_batches
from .inputs import check_inputs, open_embeddings
from .quarantine import publish_aside
from .recipe import Cluster, Recipe, semantic
from .runs import Result, Run, begin
from .scratch import Scratch
from .store import Input, Store
from .vectors import id_type_of, pack_vectors, split_by_key

logger = logging.getLogger(__name__)

JOB = "cluster"
Levels = Sequence[NDArray[np.float32]]
_AUTO_LEVELS = (20, 80)  # items a cluster, from the bottom
# Below this share of driver_bytes a pass over Spark costs more than the arithmetic: such points come to the driver.
_ARRAY_SHARE = 16


def run(spark: SparkSession, recipe: Recipe, *, fresh: bool = False) -> Result:
    """Cluster the embeddings of a recipe into a tree.

    Args:
        spark: The session.
        recipe: What to cluster, and how.
        fresh: Start anew where another recipe or input was clustered under the same name.

    Returns:
        Rows clustered and set aside, and the tables written: centroids, assignments.

    Raises:
        ConfigurationError: If the embeddings or their columns are missing, or have fewer rows than clusters.
        ResumeError: If an earlier run had another recipe or input, and `fresh` is not set.
    """
    if recipe.embeddings:
        check_inputs(spark, recipe)
    store = Store(spark, recipe.work)
    source = open_embeddings(spark, recipe)
    config = {"cluster": semantic(recipe.cluster), "embeddings": semantic(recipe.embeddings)}
    current = begin(store, recipe.name, JOB, config, {source.name: source.version}, fresh=fresh)
    if current.finished:
        return current.finished
    id_type = str(id_type_of(source.rows.schema["id"].dataType))
    scratch = Scratch(store, recipe.cluster.scratch, current.run_id, id_type)
    try:
        return _cluster(store, recipe, source, current, scratch, id_type)
    finally:
        scratch.close()


def level_specs(options: Cluster, n: int) -> list[LevelSpec]:
    """What to do at each level for n items.

    Raises:
        ConfigurationError: If a level has more clusters than there are points below it.
    """
    if options.levels == "auto":
        sizes = [max(1, n // items) for items in _AUTO_LEVELS]
        clusters = [k for t, k in enumerate(sizes) if t == 0 or k < sizes[t - 1]]
    else:
        clusters = options.levels
    if clusters[0] > n:
        raise ConfigurationError(
            [f"cluster.levels: n_samples={n} should be >= n_clusters={clusters[0]}: ask for fewer clusters."]
        )
    resampling = options.resampling
    if resampling is None:
        return [LevelSpec(k) for k in clusters]
    below = [n, *clusters]
    auto = [max(1, below[t] // k // 2) for t, k in enumerate(clusters)]
    members = auto if resampling.sizes == "auto" else resampling.sizes
    if len(members) != len(clusters):
        raise ConfigurationError(
            [f"cluster.resampling: {len(members)} sizes for {len(clusters)} levels: name one a level, or auto."]
        )
    return [
        LevelSpec(k, resampling.rounds, size, resampling.strategy) for k, size in zip(clusters, members, strict=True)
    ]


def _cluster(store: Store, recipe: Recipe, source: Input, current: Run, scratch: Scratch, id_type: str) -> Result:
    options = recipe.cluster
    keyed = split_by_key(source.rows)
    packed = pack_vectors(keyed, source.name, id_type, options.metric, scratch, options.driver_bytes)
    mine = f"name = '{recipe.name}' AND job = '{JOB}'"
    set_aside = publish_aside(store, packed.aside, packed.n_aside, recipe.name, JOB, current, mine)
    points = packed.points
    with small_batches(store.spark):
        points.blocks.count()  # fills the scratch, so that the raw blocks can go
        scratch.let_go("raw")
        levels = _fit(store, points, options, current)
        _publish(store, points, levels, _model_id(recipe, current), id_type, current)
    if source.has_changed():
        raise LakestrataError(f"{source.name}: its rows changed while they were clustered: run the job again.")
    return _finish(store, recipe, source, current, levels, set_aside)


def _fit(store: Store, points: DataFramePoints, options: Cluster, current: Run) -> Levels:
    """The centroids of all levels, in grid steps; each is committed before the next begins."""
    table = store.table(CHECKPOINTS.name)
    table.create(CHECKPOINTS)
    levels = _load_levels(store, current)
    if levels:
        logger.info("resuming after level %d", len(levels))
    small = 4 * points.n * points.d <= options.driver_bytes // _ARRAY_SHARE
    items: Points = points.sample(points.n, 0) if small else points
    specs = level_specs(options, points.n)
    further = build(items, specs, seed=options.seed, max_iter=options.max_iter, tol=options.tol, done=levels)
    for centroids in further:
        levels.append(centroids)
        rows = [(current.run_id, len(levels), cluster, vector.tolist()) for cluster, vector in enumerate(centroids)]
        frame = store.spark.createDataFrame(rows, CHECKPOINTS.schema)
        table.append(frame, current.commit(f"level-{len(levels)}"))
    return levels


def _load_levels(store: Store, current: Run) -> list[NDArray[np.float32]]:
    rows = store.table(CHECKPOINTS.name).read().where(F.col("run_id") == current.run_id)
    found = rows.orderBy("level", "cluster_id").toArrow().to_pylist()
    n_levels = max((row["level"] for row in found), default=0)
    return [
        np.array([row["centroid"] for row in found if row["level"] == level], dtype=np.float32)
        for level in range(1, n_levels + 1)
    ]


def _model_id(recipe: Recipe, current: Run) -> str:
    """The tree's name: the same recipe, under the same name, over the same input gives the same."""
    parts = (recipe.name, current.row["config_hash"], *sorted(current.row["inputs"].items()))
    return sha256(repr(parts).encode()).hexdigest()[:16]


def _publish(store: Store, points: DataFramePoints, levels: Levels, model_id: str, id_type: str, current: Run) -> None:
    above = parents(levels)
    mine = f"model_id = '{model_id}'"
    table = store.table("assignments")
    table.create(assignments(id_type, len(levels)))
    paths = points.assign(levels[0], above).withColumn("model_id", F.lit(model_id))
    table.replace(paths, mine, current.commit("assignments"))
    table = store.table(CENTROIDS.name)
    table.create(CENTROIDS)
    nodes = _nodes(points, levels, above, model_id)
    table.replace(store.spark.createDataFrame(nodes, CENTROIDS.schema), mine, current.commit("centroids"))


def _nodes(
    points: DataFramePoints, levels: Levels, above: Sequence[NDArray[np.int64]], model_id: str
) -> list[tuple[object, ...]]:
    """Rows of the centroids table."""
    nodes: list[tuple[object, ...]] = []
    grid: Grid = points.grid
    below: Points = points
    items: list[NDArray[np.int64]] = []
    for t, centroids in enumerate(levels):
        partial = below.step(centroids)
        if t == 0:
            items = tree_sizes(list(above), partial.counts)
        radius = grid.distance(partial.mean_squared())
        parent: list[int | None] = above[t].tolist() if t < len(above) else [None] * len(centroids)
        vectors = grid.to_float(centroids)
        for cluster in range(len(centroids)):
            numbers = int(partial.counts[cluster]), int(items[t][cluster]), float(radius[cluster])
            nodes.append((model_id, t + 1, cluster, parent[cluster], vectors[cluster].tolist(), *numbers))
        below = as_points(centroids, points)
    return nodes


def _finish(
    store: Store, recipe: Recipe, source: Input, current: Run, levels: Levels, set_aside: dict[str, int]
) -> Result:
    model_id = _model_id(recipe, current)
    old = [model for model in current.superseded_models if model != model_id]
    tables = [store.table("assignments"), store.table(CENTROIDS.name)]
    if old:
        for table in tables:
            table.delete(f"model_id IN ({', '.join(repr(model) for model in old)})")
    n_out = tables[0].read().where(F.col("model_id") == model_id).count()
    versions = {table.name: f"version {table.version()}" for table in tables}
    result = current.finish(
        rows_in=source.rows.count(),
        rows_out=n_out,
        set_aside=set_aside,
        outputs={"model_id": model_id, **versions},
        metrics={f"clusters_level_{t}": float(len(c)) for t, c in enumerate(levels, start=1)},
    )
    store.table(CHECKPOINTS.name).delete(f"run_id = '{current.run_id}'")
    return result
