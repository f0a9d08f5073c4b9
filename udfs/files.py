"""Blocks in files that all workers see: Arrow files, memory-mapped, so that a pass copies nothing.

What travels through Spark is then a small row for each block: where it is, and what is in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

PLACE_DDL = "path string, place int"


def write_files(batches: Iterator[pa.RecordBatch], folder: str, keep: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Write a partition's rows to a file, and say where each is.

    A repeated task writes a file of its own; the one that nobody names is removed with the folder.

    Args:
        batches: The partition.
        folder: Where to write; it is made if it is missing.
        keep: Columns to hand on beside path and place.
    """
    path = str(Path(folder, f"{uuid4().hex}.arrow"))
    os.makedirs(folder, exist_ok=True)
    writer = None
    places: list[pa.RecordBatch] = []
    for place, row in enumerate(each_row(batches)):
        if writer is None:
            writer = pa.ipc.new_file(path, row.schema)
        writer.write_batch(row)
        columns = {"path": pa.array([path]), "place": pa.array([place], pa.int32())}
        places.append(pa.RecordBatch.from_pydict(columns | {name: row[name] for name in keep}))
    if writer is not None:
        writer.close()
    yield from places


def each_row(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Record batches of one row: those given, or those in the files that they name."""
    for batch in batches:
        if "path" in batch.schema.names:
            for path, place in zip(batch["path"].to_pylist(), batch["place"].to_pylist(), strict=True):
                yield _open(path).get_batch(place)
        else:
            for row in range(len(batch)):
                yield batch.slice(row, 1)


@lru_cache(maxsize=64)
def _open(path: str) -> pa.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(path))
