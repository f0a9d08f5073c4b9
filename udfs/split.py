"""The second step of a level made in two: each group clustered by itself, in one worker, all over the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from ..kmeans.array_points import ArrayPoints
from ..kmeans.grid import Grid
from ..kmeans.hashing import hash_ids
from ..kmeans.nearest import augment, ranks_of
from ..kmeans.partial import CentroidSet
from ..kmeans.points import Ids
from ..kmeans.routed import GroupedCentroids
from ..kmeans.rows import Rows
from ..kmeans.split import Groups, fit_group
from .blocks import Block, arrow_id, block_ddl, stored_blocks, to_ids, write_blocks
from .centroids import ENDING, StoredCentroids, ready
from .kept import parallelism, small_batches
from .passes import Search
from .shared_files import new_path

Batches = Iterator[pa.RecordBatch]

_PIECE_ROWS = 64  # points of one group that travel as a row
_PIECES_AT_ONCE = 256
_GROUP_DDL = "grp bigint, path string, first bigint, n bigint, vectors binary"
_TASKS_PER_CORE = 4  # groups differ in size: small tasks even that out


def fit_groups(
    blocks: DataFrame, groups: Groups, probe: int, search: Search, grid: Grid, folder: str | None, id_type: str
) -> CentroidSet:
    """Cluster each group by itself; one shuffle brings its points together.

    Args:
        blocks: Blocks of all points.
        groups: The groups, and their shares.
        probe: Groups that a point will look into.
        search: Against the groups' centroids.
        grid: Of the points.
        folder: Where the centroids are written; without one they come to the driver.
        id_type: Of the points.
    """
    groups_sent = replace(groups, centroids=groups.centroids[:0])  # what is known of them by the search need not travel
    scatter = partial(_scatter, search=search, groups=groups_sent, id_type=id_type)
    pieces = blocks.mapInArrow(scatter, f"grp bigint, ids array<{id_type}>, x binary")
    spark = blocks.sparkSession
    together = pieces.repartition(_TASKS_PER_CORE * parallelism(spark), "grp").sortWithinPartitions("grp")
    run = partial(_fit_partition, groups=groups_sent, grid=grid, folder=folder)
    with small_batches(spark, _PIECES_AT_ONCE):
        found = together.mapInArrow(run, _GROUP_DDL).toArrow().to_pylist()
    return _joined({row["grp"]: row for row in found}, groups, probe, search, folder)


def _scatter(batches: Batches, search: Search, groups: Groups, id_type: str) -> Batches:
    """Points of groups that have a share, by group, in pieces."""
    centroids = ready(search.centroids, search.device)
    for block in stored_blocks(batches):
        labels = centroids.labels(block.rows)
        wanted = np.flatnonzero(groups.shares[labels])
        order = wanted[np.argsort(labels[wanted], kind="stable")]
        begins = np.flatnonzero(ranks_of(labels[order]) % _PIECE_ROWS == 0)
        for rows in np.split(order, begins[1:]) if len(order) else ():
            offsets = pa.array([0, len(rows)], pa.int32())
            ids = pa.ListArray.from_arrays(offsets, pa.array(block.ids[rows], arrow_id(id_type)))
            x = pa.array([block.rows.x[rows].tobytes()], pa.binary())
            group = pa.array([labels[rows[0]]], pa.int64())
            yield pa.RecordBatch.from_arrays([group, ids, x], ["grp", "ids", "x"])


def _fit_partition(batches: Batches, groups: Groups, grid: Grid, folder: str | None) -> Batches:
    """Cluster the groups of a partition, which come one after the other; their centroids go into one file."""
    pieces = (row for batch in batches for row in zip(batch["grp"].to_pylist(), batch["ids"], batch["x"], strict=True))
    fits = (
        (group, fit_group(_gather(rows, groups, grid), groups, group))
        for group, rows in groupby(pieces, key=lambda row: row[0])
    )
    if folder is None:
        for group, centroids in fits:
            yield _group_row(group, "", 0, len(centroids), centroids.tobytes())
        return
    path, first = new_path(folder, ENDING), 0
    with fsspec.open(path, "wb", auto_mkdir=True) as file:
        for group, centroids in fits:
            file.write(augment(centroids).tobytes())
            yield _group_row(group, path, first, len(centroids), b"")
            first += len(centroids)


def _group_row(group: int, path: str, first: int, n: int, vectors: bytes) -> pa.RecordBatch:
    numbers = {name: pa.array([value], pa.int64()) for name, value in (("grp", group), ("first", first), ("n", n))}
    columns = numbers | {"path": pa.array([path]), "vectors": pa.array([vectors], pa.binary())}
    return pa.RecordBatch.from_pydict({name: columns[name] for name in ("grp", "path", "first", "n", "vectors")})


def _gather(rows: Iterable[tuple[int, pa.Scalar, pa.Scalar]], groups: Groups, grid: Grid) -> ArrayPoints:
    """A group's points; of too many those that `fit_group` would draw, so that memory stays bounded."""
    d = groups.centroids.shape[1]
    ids: list[Ids] = []
    x: list[NDArray[np.float32]] = []
    n = 0
    for _, some, vectors in rows:
        ids.append(to_ids(some.values))
        x.append(np.frombuffer(vectors.as_buffer(), np.float32).reshape(-1, d))
        n += len(ids[-1])
        if n > 2 * groups.most:
            drawn = ArrayPoints(np.concatenate(x), np.concatenate(ids), grid).sample(groups.most, groups.seed)
            ids, x, n = [drawn.ids], [drawn.x], drawn.n
    return ArrayPoints(np.concatenate(x), np.concatenate(ids), grid)


def _joined(
    rows: Mapping[int, dict[str, Any]], groups: Groups, probe: int, search: Search, folder: str | None
) -> GroupedCentroids | StoredCentroids:
    numbers = range(len(groups.centroids))
    if folder is None:
        none = {"vectors": b""}
        parts = [np.frombuffer(rows.get(g, none)["vectors"], np.float32).reshape(-1, search.d) for g in numbers]
        return GroupedCentroids(groups.centroids, parts, probe)
    paths = sorted({row["path"] for row in rows.values()})
    number = {path: place for place, path in enumerate(paths)}
    places = np.zeros((len(numbers), 3), dtype=np.int64)
    for g, row in rows.items():
        places[g] = number[row["path"]], row["first"], row["n"]
    return StoredCentroids(tuple(paths), places, search.d, search.centroids, probe)


def blocks_of(centroids: StoredCentroids, spark: SparkSession) -> DataFrame:
    """Centroids in files as blocks of points, whose ids are their cluster ids."""
    starts = np.r_[0, np.cumsum(centroids.places[:, 2])]
    runs = [(int(number), int(starts[number])) for number in np.flatnonzero(centroids.places[:, 2])]
    slices = parallelism(spark)
    rows = spark.createDataFrame(runs, "run bigint, start bigint").repartition(slices)
    return rows.mapInArrow(partial(_read_runs, centroids=centroids), block_ddl("bigint"))


def _read_runs(batches: Batches, centroids: StoredCentroids) -> Batches:
    return write_blocks(_runs(batches, centroids), centroids.d, "bigint")


def _runs(batches: Batches, centroids: StoredCentroids) -> Iterator[Block]:
    for batch in batches:
        for number, start in zip(batch["run"].to_pylist(), batch["start"].to_pylist(), strict=True):
            x = centroids.run(number)
            ids = np.arange(start, start + len(x), dtype=np.int64)
            yield Block(ids, hash_ids(ids), Rows.of(x))
