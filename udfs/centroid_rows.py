"""Centroids as rows of a table, and back: written by executors where they are in files, never by the driver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from ..kmeans.nearest import augment
from ..kmeans.partial import CentroidSet
from ..kmeans.points import as_array
from ..kmeans.routed import GroupedCentroids
from .centroids import ENDING, StoredCentroids
from .kept import parallelism
from .shared_files import new_path

_RUN_COORDINATES = 1 << 22  # of centroids in one run, 16 MiB
ROWS_DDL = "grp bigint, cluster_id bigint, centroid array<float>"
_RUNS_DDL = "grp bigint, cluster_id bigint, path string, first bigint, n bigint"


def to_rows(centroids: CentroidSet, spark: SparkSession) -> DataFrame:
    """Rows of grp (null for a level made in one step), cluster_id and centroid, in grid steps."""
    if isinstance(centroids, StoredCentroids):
        starts = np.r_[0, np.cumsum(centroids.places[:, 2])].tolist()
        runs = spark.createDataFrame(list(enumerate(starts[:-1])), "run bigint, start bigint")
        return runs.repartition(parallelism(spark)).mapInArrow(partial(_rows_of_runs, centroids=centroids), ROWS_DDL)
    if isinstance(centroids, GroupedCentroids):
        array = centroids.flat()
        groups = np.repeat(np.arange(len(centroids.parts)), [len(part) for part in centroids.parts])
    else:
        array, groups = as_array(centroids), None
    k, d = array.shape
    columns = {
        "grp": pa.nulls(k, pa.int64()) if groups is None else pa.array(groups),
        "cluster_id": pa.array(np.arange(k)),
        "centroid": pa.LargeListArray.from_arrays(np.arange(0, (k + 1) * d, d), pa.array(array.ravel())),
    }
    return spark.createDataFrame(pa.table(columns), ROWS_DDL)


def from_rows(
    rows: DataFrame, d: int, *, folder: str | None, groups: CentroidSet | None = None, probe: int = 1
) -> CentroidSet:
    """The centroids of such rows.

    Args:
        rows: As from `to_rows`.
        d: Coordinates of each.
        folder: Where to write them to files; None brings them to the driver.
        groups: Of a level made in two steps: centroids of its a groups.
        probe: Groups that a point looks into.
    """
    if folder is None:
        table = rows.orderBy("cluster_id").toArrow()
        values = table["centroid"].combine_chunks().flatten().to_numpy()
        array: NDArray[np.float32] = values.astype(np.float32).reshape(-1, d)
        if groups is None:
            return array
        bounds = np.searchsorted(table["grp"].to_numpy(), np.arange(1, len(groups)))
        return GroupedCentroids(as_array(groups), np.split(array, bounds), probe)
    key = "cluster_id" if groups is None else "grp"
    together = rows.repartitionByRange(parallelism(rows.sparkSession), key).sortWithinPartitions("cluster_id")
    runs = together.mapInArrow(partial(_write_rows, folder=folder, d=d), _RUNS_DDL).toArrow()
    if groups is None:
        return _stored(runs, d)
    return replace(_stored(runs, d, len(groups)), groups=groups, probe=probe)


def _stored(runs: pa.Table, d: int, n_groups: int = 0) -> StoredCentroids:
    ordered = runs.sort_by("cluster_id")
    files, number = np.unique(ordered["path"].to_numpy(zero_copy_only=False), return_inverse=True)
    places = np.column_stack([number, ordered["first"].to_numpy(), ordered["n"].to_numpy()]).astype(np.int64)
    if n_groups:  # each group is one run, also one without centroids
        runs_of, places = places, np.zeros((n_groups, 3), dtype=np.int64)
        places[ordered["grp"].to_numpy()] = runs_of
    return StoredCentroids(tuple(files.tolist()), places, d)


def _rows_of_runs(batches: Iterator[pa.RecordBatch], centroids: StoredCentroids) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for run, start in zip(batch["run"].to_pylist(), batch["start"].to_pylist(), strict=True):
            x = centroids.run(run)
            n, d = x.shape
            grp = pa.array([run if centroids.groups is not None else None] * n, pa.int64())
            offsets = pa.array(np.arange(0, (n + 1) * d, d), pa.int32())
            vectors = pa.ListArray.from_arrays(offsets, pa.array(x.ravel()))
            ids = pa.array(np.arange(start, start + n))
            yield pa.RecordBatch.from_arrays([grp, ids, vectors], ["grp", "cluster_id", "centroid"])


def _write_rows(batches: Iterator[pa.RecordBatch], folder: str, d: int) -> Iterator[pa.RecordBatch]:
    unpacked = (
        (grp, cluster, x[None])
        for batch in batches
        for grp, cluster, x in zip(
            batch["grp"].to_pylist(),
            batch["cluster_id"].to_pylist(),
            batch["centroid"].flatten().to_numpy().reshape(-1, d),
            strict=True,
        )
    )
    return _write_runs(unpacked, folder, d)


def _write_runs(
    rows: Iterator[tuple[int | None, int, NDArray[np.float32]]], folder: str, d: int
) -> Iterator[pa.RecordBatch]:
    """Write a partition's centroids to one file; a row for each run of them: a group, or as many as fit a block.

    Args:
        rows: Group, cluster id and vector, shape (1, d), by cluster id.
        folder: Where to.
        d: Coordinates of each.
    """
    path, most = new_path(folder, ENDING), max(1, _RUN_COORDINATES // d)
    runs: list[list[Any]] = []  # group, first cluster id, first row, rows
    with fsspec.open(path, "wb", auto_mkdir=True) as file:
        for written, (grp, cluster, x) in enumerate(rows):
            file.write(augment(x).tobytes())
            if runs and runs[-1][0] == grp and (grp is not None or written - runs[-1][2] < most):
                runs[-1][3] += 1
            else:
                runs.append([grp, cluster, written, 1])
    for run in runs:
        numbers = zip(("grp", "cluster_id", "first", "n"), run, strict=True)
        columns = {name: pa.array([value], pa.int64()) for name, value in numbers} | {"path": pa.array([path])}
        yield pa.RecordBatch.from_pydict({name: columns[name] for name in ("grp", "cluster_id", "path", "first", "n")})


def from_vectors(rows: DataFrame, d: int, folder: str) -> StoredCentroids:
    """Centroids in files, from rows of cluster_id and x (the vector as float32 bytes)."""
    together = rows.repartitionByRange(parallelism(rows.sparkSession), "cluster_id").sortWithinPartitions("cluster_id")
    found = together.mapInArrow(partial(_write_vectors, folder=folder, d=d), _RUNS_DDL).toArrow()
    return _stored(found, d)


def _write_vectors(batches: Iterator[pa.RecordBatch], folder: str, d: int) -> Iterator[pa.RecordBatch]:
    unpacked = (
        (None, cluster, np.frombuffer(x.as_buffer(), np.float32)[None])
        for batch in batches
        for cluster, x in zip(batch["cluster_id"].to_pylist(), batch["x"], strict=True)
    )
    return _write_runs(unpacked, folder, d)
