"""A user's small table of labelled embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from ..schemas.errors import ConfigurationError
from .recipe import Labels
from .store import open_rows


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
        ConfigurationError: If there are not two classes, one of them with two usable rows.
    """
    rows = open_rows(spark, labels.table)
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
