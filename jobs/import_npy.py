"""Import a .npy file of vectors, as other tools write them, into a Delta table."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from ..schemas.errors import ConfigurationError
from ..schemas.tables import IMPORTED
from .store import Commit, DeltaTable

_ROWS_PER_TASK = 1 << 16


def run(spark: SparkSession, file: str, table: str) -> int:
    """Import vectors; each task memory-maps the file and writes its own rows.

    Args:
        spark: The session.
        file: A .npy array of float, shape (n, d), on a path that all workers see.
        table: The Delta table to make, with columns id (bigint, the row number) and embedding.

    Returns:
        Rows imported.

    Raises:
        ConfigurationError: If the file is no such array, or the table is there already.
    """
    path = Path(file).resolve()
    n = _check(path, file)
    made = DeltaTable(spark, table)
    if made.exists():
        raise ConfigurationError([f"{table}: is there already: choose another name, or remove it first."])
    made.create(IMPORTED)
    rows = spark.range(0, n, 1, max(1, -(-n // _ROWS_PER_TASK)))
    vectors = rows.mapInArrow(partial(_read_rows, path=str(path)), "id bigint, embedding array<float>")
    made.append(vectors, Commit("import", str(path), ""))
    return n


def _check(path: Path, file: str) -> int:
    if not path.is_file():
        raise ConfigurationError([f"{file}: no such file."])
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ConfigurationError([f"{file}: not a .npy array: {error}"]) from None
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ConfigurationError(
            [f"{file}: shape {array.shape} of {array.dtype}; it should be (n, d) of floating point numbers."]
        )
    return len(array)


def _read_rows(batches: Iterator[pa.RecordBatch], path: str) -> Iterator[pa.RecordBatch]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    for batch in batches:
        x = array[batch["id"].to_numpy()].astype(np.float32)
        offsets = pa.array(np.arange(len(x) + 1, dtype=np.int32) * x.shape[1])
        vectors = pa.ListArray.from_arrays(offsets, pa.array(x.reshape(-1)))
        yield pa.RecordBatch.from_arrays([batch["id"], vectors], ["id", "embedding"])
