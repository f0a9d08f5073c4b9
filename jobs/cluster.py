"""The cluster job: embeddings in, a tree of centroids and every item's path through it out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from pyspark.sql import SparkSession

from ..kmeans.partial import CentroidSet
from ..kmeans.points import Points
from ..kmeans.tree import Progress, build
from ..kmeans.work import ITEMS_SHARE
from ..schemas.errors import LakestrataError
from ..schemas.tables import CHECKPOINTS
from ..udfs.centroids import files_of
from ..udfs.kept import parallelism, small_batches
from ..udfs.points import DataFramePoints, Engine
from ..udfs.shared_files import remove
from .checkpoints import Checkpoints
from .inputs import check_inputs, open_embeddings
from .levels import fit_options, level_specs, told_of_auto
from .plan import check
from .progress import progress_bar
from .publish import Published, publish_tree
from .quarantine import publish_aside
from .recipe import Cluster, Recipe, semantic
from .runs import Result, Run, begin
from .scratch import Scratch, check_place
from .store import Input, Store
from .vectors import id_type_of, pack_vectors, split_by_key

logger = logging.getLogger(__name__)

JOB = "cluster"


def run(spark: SparkSession, recipe: Recipe, *, fresh: bool = False) -> Result:
    """Cluster the embeddings of a recipe into a tree.

    Args:
        spark: The session.
        recipe: What to cluster, and how.
        fresh: Start anew where another recipe or input was clustered under the same name.

    Returns:
        Rows clustered and set aside, and the tables written: centroids, assignments.

    Raises:
        ConfigurationError: If the embeddings or their columns are missing, or have fewer rows than clusters, or there
            is no place for the scratch.
        ResumeError: If an earlier run had another recipe or input, and `fresh` is not set.
    """
    if recipe.embeddings:
        check_inputs(spark, recipe)
    store = Store(spark, recipe.work)
    check_place(store, recipe.cluster)
    source = open_embeddings(spark, recipe)
    config = {"cluster": semantic(recipe.cluster), "embeddings": semantic(recipe.embeddings)}
    current = begin(store, recipe.name, JOB, config, {source.name: source.version}, fresh=fresh)
    id_type = str(id_type_of(source.rows.schema["id"].dataType))
    scratch = Scratch(store, recipe.cluster, recipe.name, current.run_id, id_type)
    try:
        result = current.finished or _cluster(store, recipe, source, current, scratch, id_type)
    finally:
        scratch.close()
    _forget_checkpoints(store, current)  # also those that a finished run could not remove any more
    return result


def _cluster(store: Store, recipe: Recipe, source: Input, current: Run, scratch: Scratch, id_type: str) -> Result:
    options = recipe.cluster
    engine = Engine(store.spark, scratch.keep, scratch.folder, options.driver_bytes, options.device)
    keyed = split_by_key(source.rows)
    packed = pack_vectors(keyed, source.name, id_type, options, engine)
    mine = f"name = '{recipe.name}' AND job = '{JOB}'"
    set_aside = publish_aside(store, packed.aside, packed.n_aside, recipe.name, JOB, current, mine)
    scratch.let_go("raw")
    points = packed.points
    check(options, points.n, points.d, parallelism(store.spark))
    with small_batches(store.spark):
        levels = _fit(store, points, options, current)
        published = publish_tree(store, points, levels, _model_id(current.row), current)
    if source.has_changed():
        raise LakestrataError(f"{source.name}: its rows changed while they were clustered: run the job again.")
    return _finish(store, source, current, published, set_aside)


def _fit(store: Store, points: DataFramePoints, options: Cluster, current: Run) -> list[CentroidSet]:
    """The centroids of all levels; each is committed before the next begins."""
    specs = level_specs(options, points.n)
    chosen = told_of_auto(options, points.n, points.d)
    if chosen:
        logger.info("levels %s", chosen)
    checkpoints = Checkpoints(store, current, points.engine, points.d, options.checkpoint_seconds, specs[0].probe)
    resumed = checkpoints.resume()
    levels = resumed.levels
    if levels or resumed.progress.before is not None or resumed.progress.state:
        logger.info("resuming after level %d, in round %d of the next", len(levels), resumed.progress.round)
    small = 4 * points.n * points.d <= options.driver_bytes // ITEMS_SHARE
    items: Points = points.sample(points.n, 0) if small else points
    files: set[str] = set()  # of the centroids that may be needed again
    with progress_bar(specs) as show:

        def save(level: int, progress: Progress) -> None:
            nonlocal files
            show(level, progress)
            checkpoints.save(level, progress)
            moved = progress.state.centroids if progress.state else None
            old, files = files, files_of(*levels, progress.before, moved)
            remove(old - files)

        further = build(
            items,
            specs,
            seed=options.seed,
            options=fit_options(options),
            done=levels[-1] if levels else None,
            first=len(levels) + 1,
            progress=resumed.progress,
            save=save,
        )
        for centroids in further:
            levels.append(centroids)
            checkpoints.save_level(len(levels), centroids)
    return levels


def _model_id(run: Mapping[str, Any]) -> str:
    """The name of a run's tree: the same recipe, under the same name, over the same input gives the same."""
    parts = (run["name"], run["config_hash"], *sorted(run["inputs"].items()))
    return sha256(repr(parts).encode()).hexdigest()[:16]


def _finish(store: Store, source: Input, current: Run, published: Published, set_aside: dict[str, int]) -> Result:
    model_id = _model_id(current.row)
    # A run that was broken off and replaced may have published some of its tree, too.
    old = {*current.superseded_models, *map(_model_id, current.history)} - {model_id}
    for table in published.tables:
        table.forget_trees(old)
    versions = {table.name: f"version {table.version()}" for table in published.tables}
    return current.finish(
        rows_in=source.rows.count(),
        rows_out=published.n_items,
        set_aside=set_aside,
        outputs={"model_id": model_id, **versions},
        metrics=published.metrics,
    )


def _forget_checkpoints(store: Store, current: Run) -> None:
    table = store.table(CHECKPOINTS.name)
    ended = f"run_id IN ({', '.join(sorted(map(repr, {current.run_id, *(row['run_id'] for row in current.history)})))})"
    if not table.read().where(ended).isEmpty():
        table.delete(ended)
