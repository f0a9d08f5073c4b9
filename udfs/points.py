"""Points in packed blocks: the algorithm's interface, computed on executors.

Each pass maps partitions to partial results by cluster range and adds those up on executors too; the driver gets
counts, costs and the moved centroids, and of very many centroids only where they are. Vectors reach the driver only as
a sample or as members that fit `driver_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from ..kmeans.array_points import ArrayPoints
from ..kmeans.grid import Grid
from ..kmeans.partial import CentroidSet, Step
from ..kmeans.points import Points, Strategy, fits_driver, nested_sizes
from ..kmeans.seeding import RANDOM_SAMPLE
from ..kmeans.split import Groups
from . import passes
from .blocks import block_ddl
from .centroid_rows import from_vectors
from .centroids import CLOSURE_BYTES, StoredCentroids, fetch, files_of, pick, put, store
from .kept import Kept, class_sizes, collect, small_batches
from .passes import Ranking, Search
from .shared_files import remove, save_array
from .split import blocks_of, fit_groups

_RANGE_BYTES = 1 << 24  # of partial sums that travel as one row
_BUCKET_ROWS = 1 << 16  # that one task puts in order


@dataclass(frozen=True)
class Engine:
    """What passes run with.

    Attributes:
        spark: The session.
        keep: Keeps a DataFrame of blocks in scratch under a name.
        folder: Folder or URI that all workers see, for centroids too large for a closure; None where there is none.
        driver_bytes: Bound of what may come to the driver.
        device: Of the search, see `kmeans.torch_kernel.make_centroids`.
    """

    spark: SparkSession
    keep: Callable[[DataFrame, str], Kept]
    folder: str | None
    driver_bytes: int
    device: str = "cpu"

    def holds(self, n_vectors: int, d: int) -> bool:
        """Whether the driver has room for so many vectors, and clusters them faster than executors would."""
        return fits_driver(n_vectors, d, self.driver_bytes)


class DataFramePoints:
    """Points in packed blocks on the grid. See `kmeans.points.Points` for the methods.

    Args:
        blocks: As from `blocks.quantize`, kept in some scratch: every pass reads them.
        d: Coordinates of each.
        id_type: "bigint" or "string".
        grid: Grid of the vectors.
        engine: What passes run with.
    """

    def __init__(self, blocks: Kept, d: int, id_type: str, grid: Grid, engine: Engine) -> None:
        self.blocks = blocks
        self.d = d
        self.id_type = id_type
        self.grid = grid
        self.engine = engine
        self.batches = nested_sizes(class_sizes(blocks))
        self.n = int(self.batches[0])

    def sample(self, size: int, seed: int) -> ArrayPoints:
        """See `Points.sample`; never cut to `driver_bytes`, which must not change an answer."""
        if size >= self.n:
            return self._collect(self.blocks.frame())
        return self._collect(self._select(Ranking(None, size, "random", seed), 1)[0])

    def step(self, centroids: CentroidSet, batch: int = 0) -> Step:
        """See `Points.step`."""
        search = self.search(centroids)
        width = max(1, _RANGE_BYTES // (8 * (self.d + 3)))
        partials = self.blocks.frame(batch, ["a", "norms"]).mapInArrow(
            partial(passes.partial_sums, search=search, width=width), passes.PARTIAL_DDL
        )
        folder = None if self.engine.holds(len(centroids), self.d) else self.engine.folder
        finish = partial(passes.finish_ranges, search=search, grid=self.grid, width=width, folder=folder)
        ranges = partials.repartition(-(-len(centroids) // width), "start").mapInArrow(finish, passes.STEP_DDL)
        step = passes.read_step(collect(ranges), search, width, folder)
        remove(files_of(search.centroids) - files_of(centroids))  # a copy for this step alone
        return step

    def members(self, centroids: CentroidSet, size: int, strategy: Strategy, seed: int) -> Points:
        """See `Points.members`; an array if the driver has room for it, else again a DataFrame."""
        ranking = Ranking(self.search(centroids), size, strategy, seed)
        return self._points(*self._select(ranking, len(centroids)), "members")

    def reseeds(self, centroids: CentroidSet, sizes: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
        """See `Points.reseeds`."""
        run = partial(passes.reseeds, search=self.search(centroids), sizes=sizes, seed=seed, id_type=self.id_type)
        found = self.blocks.frame().mapInArrow(run, f"cluster bigint, x binary, key bigint, id {self.id_type}")
        distinct = found.groupBy("cluster", "x").agg(F.min(F.struct("key", "id")).alias("first"))
        rows = sorted(collect(distinct), key=lambda row: (row["cluster"], row["first"]["key"], row["first"]["id"]))
        given = np.zeros(len(sizes), dtype=np.int64)
        vectors = []
        for row in rows:
            if given[row["cluster"]] < sizes[row["cluster"]]:
                given[row["cluster"]] += 1
                vectors.append(np.frombuffer(row["x"], dtype=np.float32))
        return np.stack(vectors) if vectors else np.empty((0, self.d), dtype=np.float32)

    def put(self, centroids: CentroidSet, ids: NDArray[np.intp], vectors: NDArray[np.float32]) -> CentroidSet:
        """See `Points.put`."""
        return put(centroids, ids, vectors, self.engine.folder)

    def pick(self, centroids: CentroidSet, ids: NDArray[np.intp]) -> CentroidSet:
        """See `Points.pick`."""
        return pick(centroids, ids)

    def fetch(self, centroids: CentroidSet) -> NDArray[np.float32]:
        """See `Points.fetch`."""
        return fetch(centroids)

    def draw(self, size: int, seed: int) -> CentroidSet:
        """See `Points.draw`; vectors that the driver has no room for go to files."""
        most = RANDOM_SAMPLE * size
        if self.engine.holds(most, self.d) or self.engine.folder is None:
            return self.sample(most, seed).draw(size, seed)
        blocks = self._select(Ranking(None, most, "random", seed), 1)[0] if most < self.n else self.blocks.frame()
        run = partial(passes.ranked_vectors, seed=seed, id_type=self.id_type)
        found = blocks.mapInArrow(run, f"x binary, key bigint, id {self.id_type}")
        distinct = found.groupBy("x").agg(F.min(F.struct("key", "id")).alias("first"))
        return from_vectors(_numbered(distinct, size, self.n), self.d, self.engine.folder)

    def split(self, groups: Groups, probe: int) -> CentroidSet:
        """See `Points.split`."""
        search = self.search(groups.centroids)
        return fit_groups(self.blocks.frame(), groups, probe, search, self.grid, self.engine.folder, self.id_type)

    def lift(self, centroids: CentroidSet) -> Points:
        """See `Points.lift`."""
        if not isinstance(centroids, StoredCentroids) or self.engine.holds(len(centroids), self.d):
            vectors = fetch(centroids)
            return ArrayPoints(vectors, np.arange(len(vectors), dtype=np.int64), self.grid)
        blocks = blocks_of(centroids, self.engine.spark)
        return DataFramePoints(self.engine.keep(blocks, "lifted"), self.d, "bigint", self.grid, self.engine)

    def search(self, centroids: CentroidSet) -> Search:
        """A search against centroids, which travel as a file where they are large and there is a place for it."""
        if isinstance(centroids, np.ndarray) and centroids.nbytes > CLOSURE_BYTES and self.engine.folder:
            centroids = store(centroids, self.engine.folder)
        return Search(centroids, self.engine.device, self.d)

    def assign(self, centroids: CentroidSet, parents: Sequence[NDArray[np.int64]]) -> DataFrame:
        """Assign all points, with their cluster at every level.

        Args:
            centroids: Of level 1, in steps.
            parents: The t-th maps clusters of level t, shape (k_t,), to those of level t + 1.

        Returns:
            Columns id, level_1 .. level_T (bigint), distance (double, in the units of the data).
        """
        folder = self.engine.folder
        shipped = [save_array(p, folder) if folder and p.nbytes > CLOSURE_BYTES else p for p in parents]
        levels = ", ".join(f"level_{t} bigint" for t in range(1, len(parents) + 2))
        run = partial(
            passes.assign, search=self.search(centroids), parents=shipped, grid=self.grid, id_type=self.id_type
        )
        return self.blocks.frame().mapInArrow(run, f"id {self.id_type}, {levels}, distance double")

    def locate(self, centroids: CentroidSet) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Nearest centroid and squared distance of each point, by id: for points that are centroids, of ids 0..n-1."""
        run = partial(passes.nearest, search=self.search(centroids), id_type=self.id_type)
        table = self.blocks.frame().mapInArrow(run, f"id {self.id_type}, cluster bigint, squared bigint").toArrow()
        order = np.argsort(table["id"].to_numpy())
        return table["cluster"].to_numpy()[order], table["squared"].to_numpy()[order].astype(np.float64)

    def _select(self, ranking: Ranking, k: int) -> tuple[DataFrame, int]:
        """Blocks of the best-ranked members of each of k clusters, and how many they are.

        A first pass finds each cluster's last chosen (key, id), a second keeps what ranks up to it: what travels
        between is never a vector, and no pass sorts the data.
        """
        find = partial(passes.candidates, ranking=ranking, id_type=self.id_type)
        found = self.blocks.frame().mapInArrow(find, f"cluster bigint, key bigint, id {self.id_type}")
        ranked = found.withColumn("rank", F.row_number().over(Window.partitionBy("cluster").orderBy("key", "id")))
        chosen = ranked.where(F.col("rank") <= ranking.size).groupBy("cluster")
        last = chosen.agg(F.max(F.struct("key", "id")).alias("last"), F.count("*").alias("n"))
        cuts = last.select("cluster", "last.key", "last.id", "n").toArrow()
        cut = passes.Cut.of_table(cuts, k, self.id_type)
        keep = partial(passes.keep_up_to, cut=cut, ranking=ranking, d=self.d, id_type=self.id_type)
        return self.blocks.frame().mapInArrow(keep, block_ddl(self.id_type)), int(cuts["n"].to_numpy().sum())

    def _points(self, blocks: DataFrame, most: int, name: str) -> Points:
        if self.engine.holds(most, self.d):
            return self._collect(blocks)
        kept = self.engine.keep(blocks, name)
        return DataFramePoints(kept, self.d, self.id_type, self.grid, self.engine)

    def _collect(self, frame: DataFrame) -> ArrayPoints:
        run = partial(passes.vectors, id_type=self.id_type)
        with small_batches(self.engine.spark):
            found = frame.mapInArrow(run, f"ids array<{self.id_type}>, x binary, n int")
            ids, x = passes.read_vectors(found.toArrow(), self.d)  # the table is let go before its copy is sorted
        return ArrayPoints(x, ids, self.grid)


def _numbered(drawn: DataFrame, size: int, n: int) -> DataFrame:
    """The `size` rows of smallest `first` (key, id), numbered in this order as cluster_id.

    The keys are those of the n points that were smallest, out of an even spread over 63 bits: equal widths of them
    hold about as many each, and are put in order by a task each.
    """
    width = 63 - (n // _BUCKET_ROWS).bit_length()
    bucketed = drawn.withColumn("bucket", F.shiftright("first.key", width))
    counts = bucketed.groupBy("bucket").count().toArrow().sort_by("bucket")
    begins = np.cumsum(counts["count"].to_numpy()) - counts["count"].to_numpy()
    needed = counts.set_column(1, "begin", pa.array(begins)).filter(pa.array(begins < size))
    starts = drawn.sparkSession.createDataFrame(needed.to_pandas())
    rank = F.row_number().over(Window.partitionBy("bucket").orderBy("first")) - 1
    numbered = bucketed.withColumn("rank", rank).join(F.broadcast(starts), "bucket")
    return numbered.withColumn("cluster_id", F.col("rank") + F.col("begin")).where(F.col("cluster_id") < size)
