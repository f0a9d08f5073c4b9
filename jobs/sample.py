"""The sample job: quotas down the tree, and the curated table."""

from __future__ import annotations

import logging

import numpy as np
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StructField

from ..schemas.errors import ConfigurationError, LakestrataError
from ..schemas.tables import QUOTAS, curated
from . import cluster
from .columns import own_columns
from .inputs import check_inputs, labels_read
from .recipe import Recipe, Sample, semantic
from .runs import Result, Run, begin, history
from .shares import quota_rows, read_tree, share_out, temperature_of
from .store import Store

logger = logging.getLogger(__name__)

JOB = "sample"


def run(spark: SparkSession, recipe: Recipe, *, fresh: bool = False) -> Result:
    """Take a balanced sample from the tree that `cluster` made.

    Args:
        spark: The session.
        recipe: How many items, and how evenly.
        fresh: Start anew where another sample was taken under the same name.

    Returns:
        Items of the tree, items chosen, and the tables written: curated, quotas.

    Raises:
        ConfigurationError: If the recipe has no sample, or a column to keep is missing.
        LakestrataError: If there is no finished tree.
        ResumeError: If an earlier run had another recipe or tree, and `fresh` is not set.
    """
    options = recipe.sample
    if options is None:
        raise ConfigurationError(["sample: missing: say how many items to take, as in --set sample.size=10000."])
    keep = _kept_columns(recipe)
    if keep or recipe.labels:
        check_inputs(spark, recipe)
    store = Store(spark, recipe.work)
    trees = history(store, recipe.name, cluster.JOB)
    if not trees or trees[0]["status"] != "finished":
        raise LakestrataError(f"{recipe.work}: there is no finished tree of {recipe.name!r}: run cluster first.")
    model_id = trees[0]["outputs"]["model_id"]
    sampled = semantic(options) | {"temperature": temperature_of(recipe, options)}
    config = {"sample": sampled, "keep": keep, "labels": semantic(recipe.labels)}
    current = begin(store, recipe.name, JOB, config, {"tree": model_id, **labels_read(spark, recipe)}, fresh=fresh)
    if current.finished:
        return current.finished
    return _sample(store, recipe, options, model_id, current)


def _kept_columns(recipe: Recipe) -> list[str]:
    given = recipe.source or recipe.embeddings
    return list(given.keep) if given else []


def _sample(store: Store, recipe: Recipe, options: Sample, model_id: str, current: Run) -> Result:
    tree = read_tree(store, model_id)
    shared = share_out(store, recipe, options, tree)
    quotas, outlying = shared.quotas, shared.outlying
    n_items, n_outliers = int(tree.items[0].sum()), int(tree.items[0][outlying].sum())
    capacity = (n_items - n_outliers) * options.multiplier
    if options.size > capacity:
        logger.warning("sample.size=%d, but the tree can give only %d: it gives all.", options.size, capacity)
    mine = f"model_id = '{model_id}'"
    table = store.table(QUOTAS.name)
    table.create(QUOTAS)
    shares = store.spark.createDataFrame(quota_rows(tree, shared, options.multiplier), QUOTAS.schema)
    table.replace(shares, mine, current.commit("quotas"))
    rows = _choose(store, options, model_id, table.read().where(mine), len(quotas))
    kept: list[StructField] = []
    if _kept_columns(recipe):
        columns = own_columns(store, recipe, _kept_columns(recipe), rows)
        kept = [field for field in columns.schema.fields if field.name != "id"]
        rows = rows.join(columns, "id", "left")
    found = store.table("curated")
    id_type = rows.schema["id"].dataType.simpleString()
    found.create(curated(id_type, len(quotas), kept))
    found.replace(rows, mine, current.commit("curated"))
    for one in (table, found):
        one.forget_trees(current.earlier_trees)
    chosen = found.read().where(mine).agg(F.count("*").alias("n"), F.sum("copies").alias("copies")).collect()[0]
    not_chosen = int(np.maximum(quotas[0].sizes - quotas[0].quota, 0).sum())
    set_aside = {"outlier": n_outliers, "not_chosen": not_chosen}
    return current.finish(
        rows_in=n_items,
        rows_out=chosen["n"],
        set_aside=set_aside,
        outputs={"model_id": model_id, **{t.name: f"version {t.version()}" for t in (found, table)}},
        metrics={"copies": float(chosen["copies"] or 0), "asked": float(options.size)},
    )


def _choose(store: Store, options: Sample, model_id: str, shares: DataFrame, n_levels: int) -> DataFrame:
    """Rows of the curated table, before the source's columns: each leaf's quota of its best-ranked items."""
    leaves = shares.where("level = 1 AND quota > 0").select(
        F.col("cluster_id").alias("level_1"), "items", "quota", "expected_quota"
    )
    tree = store.table("assignments").read().where(F.col("model_id") == model_id)
    own = {f"level_{t}" for t in range(1, n_levels + 1)}  # the table may hold taller trees
    tree = tree.drop(*[c for c in tree.columns if c.startswith("level_") and c not in own])
    key = F.col("distance") if options.strategy == "closest" else F.xxhash64("id", F.lit(options.seed))
    rank = F.row_number().over(Window.partitionBy("level_1").orderBy(key, "id"))
    ranked = tree.join(F.broadcast(leaves), "level_1").withColumn("rank", rank)
    copies = F.expr("quota DIV items + CAST(rank <= quota % items AS BIGINT)")
    expected = F.col("expected_quota") / F.col("items")
    known = F.lit(options.strategy == "random")
    probability = F.when(known, F.least(expected, F.lit(1.0)))
    weight = F.when(known, 1 / expected)
    chosen = ranked.withColumns({"copies": copies, "inclusion_probability": probability, "weight": weight})
    return chosen.where("copies > 0").drop("distance", "items", "quota", "expected_quota", "rank")
