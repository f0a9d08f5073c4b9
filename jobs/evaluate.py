"""The evaluate job: did curation help? The curated set beside random sets of its size, and an even one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table as Grid

from ..kmeans.evaluation import Figure, Sets, class_figures, probe_figures, shape_figures, verdict, with_labels
from ..kmeans.metrics import unit_length
from ..schemas.errors import ConfigurationError, LakestrataError
from ..schemas.tables import CENTROIDS, EVALUATION
from . import sample
from .columns import own_columns, vectors_of
from .inputs import check_inputs, labels_read
from .labelled import read_labelled
from .levels import metric_of
from .recipe import Evaluate, Recipe, semantic
from .runs import Result, begin, history
from .store import Store

JOB = "evaluate"
_MOST_CLASSES = 10_000
_LEAST_ITEMS, _COPIES = 1000, 8  # of a sample; and arrays of it that the driver holds at a time
_SHARE = 5  # a sample of the lake is at least so many times as large as the sets that are drawn from it


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        result: Items looked at, and the table written.
        figures: One a measure.
        notes: What was sampled, and where classes are from.
    """

    result: Result
    figures: list[Figure]
    notes: list[str]

    def print_to(self, console: Console) -> None:
        """Print the figures and the verdict."""
        table = Grid("figure", "curated", "random sets", "even set", "of the way", "", box=None, pad_edge=False)
        for figure in self.figures:
            gain = "" if figure.gain is None else f"{figure.gain:+.0%}"
            even = "" if figure.oracle is None else _number(figure.oracle)
            spread = f"{_number(figure.mean)} ± {_number(figure.sd)}"
            table.add_row(figure.name, _number(figure.curated), spread, even, gain, figure.outcome)
        console.print(table, *self.notes, verdict(self.figures), sep="\n", highlight=False, soft_wrap=True)


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and abs(value) > 1 else f"{value:.3f}"


def run(spark: SparkSession, recipe: Recipe) -> Evaluation:
    """Compare the curated set of a recipe with random sets of its size.

    Args:
        spark: The session.
        recipe: As curated before; `evaluate` and `labels` say by what to judge.

    Returns:
        The figures; they are in the table `evaluation`, too.

    Raises:
        ConfigurationError: If a table or column of classes is missing.
        LakestrataError: If nothing was curated yet.
    """
    if recipe.evaluate.label or recipe.labels or recipe.embeddings:  # else no table of the user's is read
        check_inputs(spark, recipe)
    store = Store(spark, recipe.work)
    sampled = history(store, recipe.name, sample.JOB)
    if not sampled or sampled[0]["status"] != "finished":
        raise LakestrataError(
            f"{recipe.work}: there is no curated set of {recipe.name!r}: run sample first, or curate."
        )
    model_id = sampled[0]["outputs"]["model_id"]
    config = {"evaluate": semantic(recipe.evaluate), "labels": semantic(recipe.labels)}
    inputs = {"tree": model_id, "curated": sampled[0]["run_id"], **labels_read(spark, recipe)}
    current = begin(store, recipe.name, JOB, config, inputs, fresh=True)
    figures, notes = _figures(store, recipe, model_id)
    table = store.table(EVALUATION.name)
    table.create(EVALUATION)
    mine = f"model_id = '{model_id}'"
    table.replace(_rows(store, model_id, figures), mine, current.commit("evaluation"))
    table.forget_trees(current.earlier_trees)
    n = sampled[0]["rows_in"]
    outputs = {"model_id": model_id, table.name: f"version {table.version()}"}
    metrics = {figure.name: figure.curated for figure in figures}
    result = current.finish(n, n, {}, outputs, metrics)
    return Evaluation(result, figures, notes)


def _rows(store: Store, model_id: str, figures: list[Figure]) -> DataFrame:
    rows = [(model_id, f.name, f.curated, f.mean, f.sd, len(f.random), f.oracle, f.gain, f.outcome) for f in figures]
    return store.spark.createDataFrame(rows, EVALUATION.schema)


def _figures(store: Store, recipe: Recipe, model_id: str) -> tuple[list[Figure], list[str]]:
    options, rng = recipe.evaluate, np.random.default_rng(recipe.evaluate.seed)
    items = _items(store, recipe, model_id)
    n, size = (int(value) for value in items.agg(F.count("*"), F.sum("copies")).collect()[0])
    if size < 2:
        raise LakestrataError(f"{recipe.work}: the curated set of {recipe.name!r} has {size} items: too few to judge.")
    nodes = store.table(CENTROIDS.name).read().where(F.col("model_id") == model_id)
    d = int(nodes.select(F.size("centroid").alias("d")).limit(1).collect()[0]["d"])
    most = min(options.items, max(_LEAST_ITEMS, recipe.cluster.driver_bytes // (_COPIES * 4 * d)))
    most_picks = size if n <= most else min(size, most // _SHARE)
    notes = [] if n <= most else [f"On samples: {most:,} of {n:,} items, {most_picks:,} of {size:,} picks."]
    classes = _classes(items, options) if options.label else None
    sets = _sets(store, recipe, items, classes, most, most_picks)
    figures: list[Figure] = []
    if classes is not None:
        notes += [f"{unknown:,} items have no class." for unknown in [n - int(classes["n"].sum())] if unknown]
        figures += class_figures(classes["n"].to_numpy(), classes["copies"].to_numpy(), options.draws, rng)
        figures += probe_figures(sets, options.draws, rng)
    elif recipe.labels:
        x, y = read_labelled(store.spark, recipe.labels, d, most)
        sets, test, accuracy = with_labels(sets, _seen(recipe, x), y)
        notes.append(
            f"Classes are those that a linear probe on half of {recipe.labels.table} finds: "
            f"{accuracy:.0%} right on the other half, which is the test set."
        )
        figures += class_figures(*sets.counts(), options.draws, rng)
        figures += probe_figures(sets, options.draws, rng, test)
    return [*figures, *shape_figures(sets, options.draws, rng, options.seed + 1)], notes


def _items(store: Store, recipe: Recipe, model_id: str) -> DataFrame:
    """Columns id, copies (0 for items not chosen), rank (random), and label where the recipe names a column."""
    mine = F.col("model_id") == model_id
    tree = store.table("assignments").read().where(mine).select("id")
    curated = store.table("curated").read().where(mine).select("id", "copies")
    rank = F.xxhash64("id", F.lit(recipe.evaluate.seed))
    items = tree.join(curated, "id", "left").fillna(0, ["copies"]).withColumn("rank", rank)
    label = recipe.evaluate.label
    if label is None:
        return items
    return items.join(own_columns(store, recipe, [label], tree).withColumnRenamed(label, "label"), "id", "left")


def _classes(items: DataFrame, options: Evaluate) -> pd.DataFrame:
    """Items and copies of each class."""
    sums = (
        items.where("label IS NOT NULL").groupBy("label").agg(F.count("*").alias("n"), F.sum("copies").alias("copies"))
    )
    found = sums.limit(_MOST_CLASSES + 1).toArrow().to_pandas().sort_values("label", ignore_index=True)
    if not 2 <= len(found) <= _MOST_CLASSES:
        told = f"more than {_MOST_CLASSES:,}" if len(found) > 1 else str(len(found))
        raise ConfigurationError([f"evaluate.label: column {options.label!r} has {told} classes: name one of few."])
    return found


def _sets(
    store: Store, recipe: Recipe, items: DataFrame, classes: pd.DataFrame | None, most: int, most_picks: int
) -> Sets:
    """Vectors of a uniform sample of the items, of one of the picks, and of some items of every class."""
    lake = items.orderBy("rank", "id").limit(most).select("id", F.lit(True).alias("lake"))
    picks = items.where("copies > 0").orderBy("rank", "id").limit(most_picks).select("id", F.lit(True).alias("pick"))
    chosen = lake.join(picks, "id", "full")
    if classes is not None:
        each = Window.partitionBy("label").orderBy("rank", "id")
        per_class = -(-most // len(classes))
        some = items.where("label IS NOT NULL").withColumn("place", F.row_number().over(each))
        chosen = chosen.join(some.where(F.col("place") <= per_class).select("id"), "id", "full")
    known = items.select("id", "copies", *(["label"] if classes is not None else []))
    rows = vectors_of(store, recipe, chosen).join(chosen, "id").join(known, "id").orderBy("id")
    table = rows.toArrow().to_pandas()
    labels = np.full(len(table), -1) if classes is None else pd.Categorical(table["label"], classes["label"]).codes
    copies = np.where(table["pick"].notna(), table["copies"], 0)
    x = _seen(recipe, np.stack(table["embedding"].to_list()).astype(np.float32))
    return Sets(x, labels.astype(np.int64), copies.astype(np.int64), table["lake"].notna().to_numpy())


def _seen(recipe: Recipe, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors as the tree sees them."""
    return unit_length(x) if metric_of(recipe.cluster, x.shape[1]) == "cosine" else x
