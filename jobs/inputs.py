"""What the jobs read: checked before any work, opened at the version that stood when the run began."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, DataType, StringType

from ..schemas.errors import ConfigurationError, LakestrataError
from .recipe import Labels, Recipe
from .store import Input, Store, first_line, open_input, open_rows
from .vectors import id_type_of, is_vector


def check_inputs(spark: SparkSession, recipe: Recipe) -> None:
    """Check that the tables that the recipe reads, and all columns it names, are there and of usable types.

    Raises:
        ConfigurationError: With one line for each thing that is wrong.
    """
    given = recipe.source or recipe.embeddings
    if given is None:  # the recipe's own check rules this out
        return
    section = "source" if recipe.source else "embeddings"
    try:
        rows = open_rows(spark, given.table)
    except LakestrataError as error:
        raise ConfigurationError([f"{section}.table: {error.message}"]) from None
    problems = _check_column(rows, f"{section}.id", given.id, "bigint, int or string", _is_key)
    if recipe.source:
        wanted, fits = _content_types(recipe.source.kind)
        problems += _check_column(rows, "source.content", recipe.source.content, wanted, fits)
    elif recipe.embeddings:
        problems += _check_column(
            rows, "embeddings.column", recipe.embeddings.column, "array<float> or array<double>", is_vector
        )
    for column in given.keep:
        problems += _check_column(rows, f"{section}.keep", column, "", lambda _: True)
    problems += _check_where(rows, section, given.where)
    if recipe.evaluate.label is not None:
        problems += _check_column(rows, "evaluate.label", recipe.evaluate.label, "", lambda _: True)
    if recipe.labels is not None:
        problems += _check_labels(spark, recipe.labels)
    if problems:
        raise ConfigurationError(problems)


def _is_key(kind: DataType) -> bool:
    return id_type_of(kind) is not None


def _content_types(kind: str) -> tuple[str, Callable[[DataType], bool]]:
    if kind == "image":
        return "binary (the file's bytes) or string (its path or URI)", lambda t: isinstance(t, BinaryType | StringType)
    return "string", lambda t: isinstance(t, BinaryType | StringType)


def _check_column(rows: DataFrame, key: str, column: str, wanted: str, fits: Callable[[DataType], bool]) -> list[str]:
    types = {field.name: field.dataType for field in rows.schema.fields}
    if column not in types:
        return [f"{key}: the table has no column {column!r} (it has: {', '.join(types)})."]
    if not fits(types[column]):
        return [f"{key}: column {column!r} is {types[column].simpleString()}; it should be {wanted}."]
    return []


def labels_read(spark: SparkSession, recipe: Recipe) -> dict[str, str]:
    """The recipe's labelled table, if it names one, and the version that it has now."""
    return {labels.table: open_input(spark, labels.table).version for labels in [recipe.labels] if labels}


def _check_labels(spark: SparkSession, labels: Labels) -> list[str]:
    try:
        rows = open_rows(spark, labels.table)
    except LakestrataError as error:
        return [f"labels.table: {error.message}"]
    problems = _check_column(rows, "labels.column", labels.column, "array<float> or array<double>", is_vector)
    return problems + _check_column(rows, "labels.label", labels.label, "", lambda _: True)


def _check_where(rows: DataFrame, section: str, where: str | None) -> list[str]:
    if where is None:
        return []
    try:
        # Connect hands a filter the schema it knows already; what is selected from it must be analysed.
        _ = rows.where(where).selectExpr("1").schema
    except PySparkException as error:
        return [f"{section}.where: not a condition on this table: {first_line(error)}"]
    return []


def open_source(spark: SparkSession, recipe: Recipe, version: str | None = None, keep: Sequence[str] = ()) -> Input:
    """The items: columns id, content, content_hash (SHA-256) and those to keep."""
    if recipe.source is None:
        raise ConfigurationError(["source: missing: this recipe brings embeddings, there is nothing to embed."])
    source = recipe.source
    found = open_input(spark, source.table, version, source.where)
    content = F.col(f"`{source.content}`")
    # "null" ranks above all hexadecimal hashes: of rows with one key, any content stays before none.
    hashed = F.coalesce(F.sha2(content.cast("binary"), 256), F.lit("null"))
    rows = found.rows.select(
        _key(found.rows, source.id),
        content.alias("content"),
        hashed.alias("content_hash"),
        *_kept(keep),
    )
    return replace(found, rows=rows)


def open_embeddings(spark: SparkSession, recipe: Recipe, version: str | None = None, keep: Sequence[str] = ()) -> Input:
    """The vectors: columns id, embedding, content_hash and, of a user's own table, those to keep.

    Raises:
        LakestrataError: If items of the recipe have not been embedded yet.
    """
    if recipe.embeddings is None:
        table = Store(spark, recipe.work).table("embeddings")
        if not table.exists():
            raise LakestrataError(f"{table.name}: there are no embeddings yet: run embed first, or curate.")
        found = open_input(spark, table.name, version)
        return replace(found, rows=found.rows.select("id", "embedding", "content_hash"))
    own = recipe.embeddings
    found = open_input(spark, own.table, version, own.where)
    vector = F.col(f"`{own.column}`")
    rows = found.rows.select(
        _key(found.rows, own.id),
        vector.alias("embedding"),
        F.hex(F.xxhash64(vector)).alias("content_hash"),
        *_kept(keep),
    )
    return replace(found, rows=rows)


def _key(rows: DataFrame, column: str) -> Column:
    kind = id_type_of(rows.schema[column].dataType)
    return F.col(f"`{column}`").cast(str(kind)).alias("id")


def _kept(columns: Sequence[str]) -> list[Column]:
    return [F.col(f"`{column}`").alias(column) for column in columns]
