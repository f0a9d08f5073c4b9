"""The user's own columns and vectors, for items of a tree: as they stood when the tree was made."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from . import cluster, embed
from .inputs import open_embeddings, open_source
from .recipe import Recipe
from .runs import history
from .store import Store


def own_columns(store: Store, recipe: Recipe, columns: Sequence[str], chosen: DataFrame) -> DataFrame:
    """Columns id and those asked for, of the chosen items, one row an id, from the version that was read."""
    name = recipe.source.table if recipe.source else str(recipe.embeddings and recipe.embeddings.table)
    pinned = _version_read(store, recipe, embed.JOB if recipe.source else cluster.JOB, name)
    opened = open_source if recipe.source else open_embeddings
    rows = opened(store.spark, recipe, pinned, columns).rows
    return _first_of_each(rows, chosen).select("id", *columns)


def vectors_of(store: Store, recipe: Recipe, chosen: DataFrame) -> DataFrame:
    """Columns id and embedding of the chosen items, from the version that the tree was made of."""
    name = recipe.embeddings.table if recipe.embeddings else store.table("embeddings").name
    pinned = _version_read(store, recipe, cluster.JOB, name)
    return _first_of_each(open_embeddings(store.spark, recipe, pinned).rows, chosen).select("id", "embedding")


def _version_read(store: Store, recipe: Recipe, job: str, table: str) -> str | None:
    readers = history(store, recipe.name if job == cluster.JOB else None, job)
    version = readers[0]["inputs"].get(table) if readers else None
    return version if version and version.startswith("version") else None


def _first_of_each(rows: DataFrame, chosen: DataFrame) -> DataFrame:
    """Of rows that share an id the one that stayed: that of the smallest content hash."""
    order = Window.partitionBy("id").orderBy("content_hash")
    mine = rows.join(chosen.select("id"), "id", "left_semi").withColumn("rank", F.row_number().over(order))
    return mine.where("rank = 1")
