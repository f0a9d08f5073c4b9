"""The data of the benchmarks: a mixture with Zipf masses, as arrays, Parquet files and packed blocks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakestrata.kmeans.grid import Grid
from lakestrata.udfs.blocks import pack, quantize
from lakestrata.udfs.kept import FileBlocks, FrameBlocks, Kept
from lakestrata.udfs.points import DataFramePoints, Engine

N, D = 500_000, 384
CENTRES, EXPONENT = 2000, 1.3
_PART = 62_500


def mixture(n: int = N, d: int = D, seed: int = 0) -> NDArray[np.float32]:
    """Unit noise around 2,000 normal centres with masses 1 / rank^1.3, shape (n, d)."""
    centres = np.random.default_rng(0).normal(size=(CENTRES, d)).astype(np.float32)
    rng = np.random.default_rng(seed + 1)
    masses = 1 / np.arange(1, CENTRES + 1) ** EXPONENT
    labels = rng.choice(CENTRES, n, p=masses / masses.sum())
    x = np.empty((n, d), dtype=np.float32)
    for start in range(0, n, _PART):
        part = labels[start : start + _PART]
        x[start : start + _PART] = centres[part] + rng.standard_normal((len(part), d), dtype=np.float32)
    return x


def write_parquet(folder: Path, x: NDArray[np.float32], first: int = 0) -> None:
    """Write vectors to Parquet files of 62,500 rows, with ids from `first` on."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(x), _PART):
        part = x[start : start + _PART]
        offsets = pa.array(np.arange(0, part.size + 1, part.shape[1]), pa.int32())
        vectors = pa.ListArray.from_arrays(offsets, pa.array(part.ravel()))
        ids = pa.array(np.arange(first + start, first + start + len(part)))
        table = pa.table({"id": ids, "embedding": vectors})
        pq.write_table(table, folder / f"{first + start:09}.parquet", row_group_size=1 << 14)


def points_of(spark: SparkSession, rows: DataFrame, folder: Path, scratch: str) -> DataFramePoints:
    """Points packed as the cluster job packs them, in files or in Spark's cache."""
    numbers = count()

    def keep(blocks: DataFrame, name: str) -> Kept:
        if scratch == "files":
            return FileBlocks.write(blocks, str(folder / f"{name}-{next(numbers)}"))
        return FrameBlocks(blocks.persist())

    engine = Engine(spark, keep, str(folder / "centroids"), 1 << 30)
    raw = keep(pack(rows, D, "bigint", zero_is_bad=False), "raw")
    grid = Grid.covering(raw.small().agg(F.max("largest")).collect()[0][0], D)
    points = DataFramePoints(keep(quantize(raw.frame(), grid, D, "bigint"), "blocks"), D, "bigint", grid, engine)
    if isinstance(raw, FrameBlocks):
        raw.blocks.unpersist()
    return points


def shared_parquet(folder: Path) -> Path:
    """The mixture as Parquet, written by the first benchmark that asks for it."""
    where = folder / "mixture"
    if not (where / "done").exists():
        write_parquet(where, mixture())
        (where / "done").touch()
    return where


def figures_of(measure: Callable[[Path], dict[str, float]]) -> None:
    """Run a benchmark as `python -m benchmarks.NAME FOLDER OUT`."""
    folder, out = map(Path, sys.argv[1:3])
    out.write_text(json.dumps(measure(folder)))
