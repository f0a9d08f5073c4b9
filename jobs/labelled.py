"""A user's small table of labelled embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from ..schemas.errors import ConfigurationError, LakestrataError
from .recipe import Labels
from .store import open_rows
from .vectors import is_vector


def read_labelled(
    spark: SparkSession, labels: Labels, d: int, most: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors, shape (m, d), and classes 0..c-1, shape (m,); in an order of their own, whatever that of the rows.

    Args:
        spark: The session.
        labels: The table.
        d: Coordinates that a vector should have.
        most: Rows to read at most: those of smallest hash.

    Raises:
        ConfigurationError: If the table or a column is missing, or there are not two classes of two usable rows.
    """
    try:
        rows = open_rows(spark, labels.table)
    except LakestrataError as error:
        raise ConfigurationError([f"labels.table: {error.message}"]) from None
    types = {field.name: field.dataType for field in rows.schema.fields}
    for key, column in (("labels.column", labels.column), ("labels.label", labels.label)):
        if column not in types:
            raise ConfigurationError([f"{key}: the table has no column {column!r} (it has: {', '.join(types)})."])
    if not is_vector(types[labels.column]):
        found = types[labels.column].simpleString()
        raise ConfigurationError([f"labels.column: column {labels.column!r} is {found}; it should be array<float>."])
    x, y = F.col(f"`{labels.column}`").cast("array<float>"), F.col(f"`{labels.label}`").cast("string")
    usable = rows.select(x.alias("x"), y.alias("y")).where(F.col("y").isNotNull() & (F.size("x") == d))
    drawn = usable.where(~F.exists("x", lambda v: v.isNull() | F.isnan(v))).orderBy(F.xxhash64("x", "y")).limit(most)
    table = drawn.toArrow().to_pandas()
    names, numbers = np.unique(table["y"].to_numpy(dtype=str), return_inverse=True)
    if len(names) < 2 or np.bincount(numbers).max() < 2:
        raise ConfigurationError(
            [
                f"labels.table: {labels.table}: {len(table):,} usable rows (a label, and {d} numbers) of {len(names)} "
                "classes: two classes or more are needed, with several rows each."
            ]
        )
    return np.stack(table["x"].to_list()).astype(np.float32), numbers.astype(np.int64)
