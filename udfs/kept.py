"""Blocks that a run reads many times, wherever a scratch keeps them: as rows of a DataFrame, or in files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ..kmeans.hashing import MOST_CLASS
from .blocks import SMALL_COLUMNS
from .files import PLACE_DDL, write_files

_BATCH_BLOCKS = 4  # blocks that travel to Python at once
_SMALL_DDL = "class int, n int, largest double, reason string"


class Kept(Protocol):
    """Blocks in some scratch."""

    def frame(self, batch: int = 0, columns: Sequence[str] | None = None) -> DataFrame:
        """Rows for a pass over the blocks of class >= `batch`; of blocks in a DataFrame only these columns and n."""
        ...

    def small(self) -> DataFrame:
        """The small columns of all blocks: class, n, largest, reason."""
        ...


class FrameBlocks:
    """Blocks as rows of a DataFrame, cached or read from a table."""

    def __init__(self, blocks: DataFrame) -> None:
        self.blocks = blocks

    def frame(self, batch: int = 0, columns: Sequence[str] | None = None) -> DataFrame:
        """See `Kept.frame`."""
        blocks = self.blocks.where(F.col("class") >= batch) if batch else self.blocks
        return blocks.select(*columns, "n") if columns else blocks

    def small(self) -> DataFrame:
        """See `Kept.small`."""
        return self.blocks.select(*SMALL_COLUMNS)


class FileBlocks:
    """Blocks in files.

    Args:
        places: Rows of path, place and the small columns, one a block.
        spark: The session.
        hands: Partitions that Spark makes of such rows: each should hold as many points of every class.
    """

    def __init__(self, places: pa.Table, spark: SparkSession, hands: int) -> None:
        self.places = places
        self.spark = spark
        self.hands = hands

    @classmethod
    def write(cls, blocks: DataFrame, folder: str) -> FileBlocks:
        """Write blocks to files in a folder that all workers see."""
        spark = blocks.sparkSession
        run = partial(write_files, folder=folder, keep=SMALL_COLUMNS)
        with small_batches(spark):
            places = blocks.mapInArrow(run, f"{PLACE_DDL}, {_SMALL_DDL}").toArrow()
        return cls(places, spark, parallelism(spark))

    def frame(self, batch: int = 0, columns: Sequence[str] | None = None) -> DataFrame:
        """See `Kept.frame`."""
        places = self.places
        if batch:
            places = places.filter(pa.compute.greater_equal(places["class"], batch))
        return self._rows(_deal(places, self.hands).select(["path", "place"]), PLACE_DDL)

    def small(self) -> DataFrame:
        """See `Kept.small`."""
        return self._rows(self.places.select(list(SMALL_COLUMNS)), _SMALL_DDL)

    def _rows(self, table: pa.Table, ddl: str) -> DataFrame:
        return self.spark.createDataFrame(table.to_pandas(), ddl)


def class_sizes(kept: Kept) -> NDArray[np.int64]:
    """Points of each batch class, int64, shape (MOST_CLASS + 1,)."""
    sizes = np.zeros(MOST_CLASS + 1, dtype=np.int64)
    for row in kept.small().groupBy("class").agg(F.sum("n").alias("n")).collect():
        sizes[row["class"]] = row["n"]
    return sizes


def parallelism(spark: SparkSession) -> int:
    """Partitions that this session makes of local rows."""
    numbers = spark.range(4096).select(F.spark_partition_id().alias("number"))
    return int(numbers.agg(F.max("number")).collect()[0][0]) + 1


def _deal(places: pa.Table, hands: int) -> pa.Table:
    """Order blocks so that equal slices of them, `hands` in number, hold about as many points of each class."""
    order = np.lexsort((places["n"].to_numpy(), places["class"].to_numpy()))
    return places.take(np.concatenate([order[hand::hands] for hand in range(hands)]))


@contextmanager
def small_batches(spark: SparkSession, rows: int = _BATCH_BLOCKS) -> Iterator[None]:
    """Let few rows travel to Python at once while an action runs: a row may be a block, or a file, of some MiB."""
    conf, key = spark.conf, "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = str(conf.get(key))
    conf.set(key, str(rows))
    try:
        yield
    finally:
        conf.set(key, before)


def collect(frame: DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame, some of which may be large."""
    with small_batches(frame.sparkSession):
        rows: list[dict[str, Any]] = frame.toArrow().to_pylist()
    return rows
