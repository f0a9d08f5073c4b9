"""Reading embeddings: null and duplicate ids and unusable vectors are set aside, the rest is packed into blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, DoubleType, FloatType, IntegerType, LongType, StringType

from ..kmeans.grid import Grid
from ..schemas.errors import LakestrataError
from ..schemas.tables import QUARANTINE
from ..udfs.blocks import pack, quantize
from ..udfs.passes import unusable_ids
from ..udfs.points import DataFramePoints, Engine
from .levels import metric_of
from .recipe import Cluster


def id_type_of(kind: DataType) -> str | None:
    """ "bigint" or "string" for a key column of this type, None if it cannot be a key."""
    if isinstance(kind, LongType | IntegerType):
        return "bigint"
    return "string" if isinstance(kind, StringType) else None


def is_vector(kind: DataType) -> bool:
    """Whether a column of this type holds embeddings."""
    return isinstance(kind, ArrayType) and isinstance(kind.elementType, FloatType | DoubleType)


@dataclass(frozen=True)
class Keyed:
    """Rows with usable ids, and those without.

    Attributes:
        rows: One row an id.
        aside: Columns id (string), content_hash, reason, detail.
        n_aside: How many they are.
    """

    rows: DataFrame
    aside: DataFrame
    n_aside: int


def split_by_key(rows: DataFrame) -> Keyed:
    """Set aside null ids and, of rows that share an id, all but the one with the smallest content hash.

    Args:
        rows: Columns id and content_hash, and any others.
    """
    null = rows.where("id IS NULL")
    keyed = rows.where("id IS NOT NULL")
    counts = rows.groupBy("id").count().where("id IS NULL OR count > 1")
    n_null, n_losers = counts.agg(
        F.coalesce(F.sum(F.expr("CASE WHEN id IS NULL THEN count END")), F.lit(0)),
        F.coalesce(F.sum(F.expr("CASE WHEN id IS NOT NULL THEN count - 1 END")), F.lit(0)),
    ).collect()[0]
    if not n_losers:
        unique, losers = keyed, keyed.limit(0)
    else:
        order = Window.partitionBy("id").orderBy("content_hash")
        repeated = counts.where("id IS NOT NULL").select("id")
        ranked = keyed.join(repeated, "id", "left_semi").withColumn("rank", F.row_number().over(order))
        winners = ranked.where("rank = 1").drop("rank").select(*keyed.columns)
        unique = keyed.join(repeated, "id", "left_anti").select(*keyed.columns).unionByName(winners)
        losers = ranked.where("rank > 1").drop("rank")
    aside = _aside(null, "null_id", "the key is null").unionByName(
        _aside(losers, "duplicate_id", "another row with this key has a smaller content hash")
    )
    return Keyed(unique, aside, n_null + n_losers)


def _aside(rows: DataFrame, reason: str, detail: str) -> DataFrame:
    return rows.select(
        F.col("id").cast("string").alias("id"),
        "content_hash",
        F.lit(reason).alias("reason"),
        F.lit(detail).alias("detail"),
    )


def quarantine_rows(aside: DataFrame, name: str, job: str) -> DataFrame:
    """Rows set aside, in the form of the quarantine table, for a recipe's name and a job."""
    labels = {"name": F.lit(name), "job": F.lit(job), "at": F.current_timestamp()}
    return aside.withColumns(labels).select(*QUARANTINE.schema.names)


def dimension_of(rows: DataFrame, name: str) -> int:
    """The most frequent length of the vectors; the larger of two equally frequent ones.

    Raises:
        LakestrataError: If there is no vector at all.
    """
    lengths = rows.where("size(embedding) > 0").groupBy(F.size("embedding").alias("d")).count()
    found = lengths.orderBy(F.desc("count"), F.desc("d")).limit(1).collect()
    if not found:
        raise LakestrataError(f"{name}: there is no row with an id and an embedding.")
    return int(found[0]["d"])


@dataclass(frozen=True)
class Packed:
    """Embeddings made ready.

    Attributes:
        points: The usable vectors on the grid.
        aside: Unusable rows: id (string), content_hash, reason, detail.
        n_aside: How many they are.
    """

    points: DataFramePoints
    aside: DataFrame
    n_aside: int


def pack_vectors(keyed: Keyed, name: str, id_type: str, options: Cluster, engine: Engine) -> Packed:
    """Pack rows with columns id and embedding into blocks on the grid.

    Raises:
        LakestrataError: If no vector is usable.
    """
    d = dimension_of(keyed.rows, name)
    metric = metric_of(options, d)
    raw = engine.keep(pack(keyed.rows, d, id_type, zero_is_bad=metric == "cosine"), "raw")
    usable = F.col("reason").isNull()
    summary = raw.small().agg(F.max("largest"), F.sum(F.when(usable, 0).otherwise(F.col("n"))), F.max(usable))
    largest, n_bad, any_usable = summary.collect()[0]
    if not any_usable:
        raise LakestrataError(f"{name}: no embedding is usable: all are null, not finite or (for cosine) zero.")
    grid = Grid.covering(largest, d, metric)
    points = DataFramePoints(engine.keep(quantize(raw.frame(), grid, d, id_type), "blocks"), d, id_type, grid, engine)
    if not n_bad:
        return Packed(points, keyed.aside, keyed.n_aside)
    run = partial(unusable_ids, id_type=id_type)
    unusable = raw.frame().mapInArrow(run, f"id {id_type}, reason string")
    hashes = keyed.rows.select("id", "content_hash").join(unusable, "id")
    detail = F.lit(f"a usable vector has {d} finite numbers{', not all zero' if metric == 'cosine' else ''}")
    aside = hashes.select(F.col("id").cast("string").alias("id"), "content_hash", "reason", detail.alias("detail"))
    return Packed(points, keyed.aside.unionByName(aside), keyed.n_aside + n_bad)
