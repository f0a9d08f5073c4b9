"""Points in a DataFrame of packed blocks: the algorithm's interface, computed on executors.

Each pass maps partitions to partial results by cluster range and adds those up on executors too; the driver gets
one total. Vectors reach the driver only as a sample or as members that fit `driver_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from ..kmeans.grid import Grid
from ..kmeans.partial import Partial
from ..kmeans.points import MOST_FARTHEST, ArrayPoints, Points, Strategy
from . import passes
from .blocks import block_ddl, read_blocks

_RANGE_BYTES = 1 << 24  # of partial sums that travel as one row
_BATCH_BLOCKS = 16  # blocks that travel to Python at once

Keep = Callable[[DataFrame, str], DataFrame]


class DataFramePoints:
    """Points in packed blocks on the grid. See `kmeans.points.Points` for the methods.

    Args:
        blocks: As from `blocks.quantize`, kept in some scratch: every pass reads it.
        n: Points in it.
        d: Coordinates of each.
        id_type: "bigint" or "string".
        grid: Grid of the vectors.
        driver_bytes: Largest set of vectors that may come to the driver.
        keep: Keeps a DataFrame in scratch under a name and gives it back.
    """

    def __init__(
        self, blocks: DataFrame, n: int, d: int, id_type: str, grid: Grid, driver_bytes: int, keep: Keep
    ) -> None:
        self.blocks = blocks
        self.n, self.d = n, d
        self.id_type = id_type
        self.grid = grid
        self.driver_bytes = driver_bytes
        self.keep = keep

    def sample(self, size: int, seed: int) -> ArrayPoints:
        """See `Points.sample`; never cut to `driver_bytes`, which must not change an answer."""
        if size >= self.n:
            return self._collect(self.blocks)
        return self._collect(self._select(None, size, "random", seed)[0])

    def step(self, centroids: NDArray[np.float32]) -> Partial:
        """See `Points.step`."""
        k, d = centroids.shape
        width = max(1, _RANGE_BYTES // (8 * (d + 3)))
        partials = self.blocks.mapInArrow(
            partial(passes.partial_sums, centroids=centroids, width=width), passes.PARTIAL_DDL
        )
        totals = partials.repartition(-(-k // width), "start").mapInArrow(
            partial(passes.add_partials, d=d), passes.PARTIAL_DDL
        )
        total = Partial.zeros(k, d)
        for row in self._rows(totals):
            part = passes.read_partial(row, d)
            total.clusters(row["start"], row["start"] + len(part.counts)).add(part)
        return total

    def members(self, centroids: NDArray[np.float32], size: int, strategy: Strategy, seed: int) -> Points:
        """See `Points.members`; an array if it fits `driver_bytes`, else again a DataFrame."""
        blocks, n = self._select(centroids, size, strategy, seed)
        if 4 * n * self.d <= self.driver_bytes:
            return self._collect(blocks)
        kept = self.keep(blocks, "members")
        return DataFramePoints(kept, n, self.d, self.id_type, self.grid, self.driver_bytes, self.keep)

    def farthest(self, centroids: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        """See `Points.farthest`; a search gives at most 1,024 points."""
        size = min(size, MOST_FARTHEST)
        schema = f"x binary, key bigint, id {self.id_type}"
        found = self.blocks.mapInArrow(
            partial(passes.farthest, centroids=centroids, size=size, id_type=self.id_type), schema
        )
        distinct = found.groupBy("x").agg(F.max("key").alias("key"), F.min("id").alias("id"))
        rows = self._rows(distinct.orderBy(F.desc("key"), "id").limit(size))
        vectors = [np.frombuffer(row["x"], dtype=np.float32) for row in rows]
        return np.stack(vectors) if vectors else np.empty((0, self.d), dtype=np.float32)

    def assign(self, centroids: NDArray[np.float32], parents: Sequence[NDArray[np.int64]]) -> DataFrame:
        """Assign all points, with their cluster at every level.

        Args:
            centroids: Of level 1, in steps, shape (k_1, d).
            parents: As from `kmeans.tree.parents`.

        Returns:
            Columns id, level_1 .. level_T (bigint), distance (double, in the units of the data).
        """
        levels = ", ".join(f"level_{t} bigint" for t in range(1, len(parents) + 2))
        run = partial(passes.assign, centroids=centroids, parents=list(parents), grid=self.grid, id_type=self.id_type)
        return self.blocks.mapInArrow(run, f"id {self.id_type}, {levels}, distance double")

    def _select(
        self, centroids: NDArray[np.float32] | None, size: int, strategy: Strategy, seed: int
    ) -> tuple[DataFrame, int]:
        """Blocks of the `size` best-ranked members of each cluster (of all points, without centroids), and how many.

        A first pass finds each cluster's last chosen (key, id), a second keeps what ranks up to it: what travels
        between is never a vector, and no pass sorts the data.
        """
        run = partial(
            passes.candidates,
            centroids=centroids,
            d=self.d,
            size=size,
            strategy=strategy,
            seed=seed,
            id_type=self.id_type,
        )
        found = self.blocks.mapInArrow(run, f"cluster bigint, key bigint, id {self.id_type}")
        ranked = found.withColumn("rank", F.row_number().over(Window.partitionBy("cluster").orderBy("key", "id")))
        chosen = ranked.where(F.col("rank") <= size).groupBy("cluster")
        cuts = self._rows(chosen.agg(F.max(F.struct("key", "id")).alias("last"), F.count("*").alias("n")))
        cut = passes.Cut.from_rows(cuts, 1 if centroids is None else len(centroids), self.id_type)
        keep = partial(
            passes.keep_up_to,
            cut=cut,
            centroids=centroids,
            d=self.d,
            strategy=strategy,
            seed=seed,
            id_type=self.id_type,
        )
        return self.blocks.mapInArrow(keep, block_ddl(self.id_type)), sum(row["n"] for row in cuts)

    def _collect(self, blocks: DataFrame) -> ArrayPoints:
        with small_batches(blocks.sparkSession):
            table = blocks.toArrow()
        found = list(read_blocks(iter(table.to_batches()), self.d))
        x = np.concatenate([block.x for block in found])
        return ArrayPoints(x, np.concatenate([block.ids for block in found]), self.grid)

    def _rows(self, frame: DataFrame) -> list[dict[str, Any]]:
        with small_batches(frame.sparkSession):
            rows: list[dict[str, Any]] = frame.toArrow().to_pylist()
        return rows


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
