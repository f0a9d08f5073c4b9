"""Packed blocks: rows of vectors laid out once as binary columns, so that every later pass reads arrays, not rows.

A block holds up to `block_rows` points: their ids, the 64-bit hashes of those, and their vectors as float32 bytes.
Packing and all passes run per partition, without a shuffle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from ..kmeans.grid import Grid
from ..kmeans.hashing import hash_ids
from ..kmeans.points import Ids

_BLOCK_COORDINATES = 1 << 20  # 4 MiB of float32


@dataclass
class Block:
    """Some points: ids and hashes of shape (n,), x of shape (n, d)."""

    ids: Ids
    hashes: NDArray[np.uint64]
    x: NDArray[np.float32]

    def take(self, rows: NDArray[Any]) -> Block:
        """The points at `rows`."""
        return Block(self.ids[rows], self.hashes[rows], self.x[rows])


def arrow_id(id_type: str) -> pa.DataType:
    """The Arrow type of ids of Spark type "bigint" or "string"."""
    return pa.int64() if id_type == "bigint" else pa.string()


def block_ddl(id_type: str) -> str:
    """Spark schema of blocks. `largest` is max |x|; blocks of unusable rows have a `reason` and no vectors."""
    return f"ids array<{id_type}>, hashes binary, x binary, largest double, reason string"


def block_rows(d: int) -> int:
    """Points in a full block."""
    return max(16, min(4096, _BLOCK_COORDINATES // d))


def pack(rows: DataFrame, d: int, id_type: str, *, zero_is_bad: bool) -> DataFrame:
    """Pack rows into blocks of raw vectors.

    Args:
        rows: Columns id (bigint or string, not null) and embedding (array of float or double).
        d: Length that a usable vector has.
        id_type: "bigint" or "string".
        zero_is_bad: Whether a vector of zeros is unusable, as it is for cosine.

    Returns:
        Blocks; those with a reason hold the ids of unusable rows: null_vector, wrong_dimension, not_finite,
        zero_vector.
    """
    run = partial(_pack_partition, d=d, id_type=id_type, zero_is_bad=zero_is_bad)
    return rows.select("id", "embedding").mapInArrow(run, block_ddl(id_type))


def quantize(blocks: DataFrame, grid: Grid, d: int, id_type: str) -> DataFrame:
    """Round the vectors of raw blocks to the grid; blocks of unusable rows are left out."""
    usable = blocks.where("reason IS NULL")
    return usable.mapInArrow(partial(_quantize_partition, grid=grid, d=d, id_type=id_type), block_ddl(id_type))


def read_blocks(batches: Iterator[pa.RecordBatch], d: int) -> Iterator[Block]:
    """The blocks in a partition's record batches."""
    for batch in batches:
        for ids, hashes, x in zip(batch["ids"], batch["hashes"], batch["x"], strict=True):
            yield Block(
                _to_ids(ids.values),
                np.frombuffer(hashes.as_buffer(), dtype=np.uint64),
                np.frombuffer(x.as_buffer(), dtype=np.float32).reshape(-1, d),
            )


def write_block(block: Block, id_type: str) -> pa.RecordBatch:
    """One block as a record batch of one row."""
    largest = float(np.abs(block.x).max(initial=0.0))
    return _one_row(block.ids, block.hashes.tobytes(), block.x.tobytes(), largest, None, id_type)


def _one_row(ids: Ids, hashes: bytes, x: bytes, largest: float, reason: str | None, id_type: str) -> pa.RecordBatch:
    offsets = pa.array([0, len(ids)], pa.int32())
    values = pa.array(ids, arrow_id(id_type))
    columns = [
        pa.ListArray.from_arrays(offsets, values),
        pa.array([hashes], pa.binary()),
        pa.array([x], pa.binary()),
        pa.array([largest], pa.float64()),
        pa.array([reason], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, ["ids", "hashes", "x", "largest", "reason"])


def _to_ids(values: pa.Array) -> Ids:
    if pa.types.is_int64(values.type):
        numbers: Ids = values.to_numpy(zero_copy_only=False)
        return numbers
    return np.array(values.to_pylist(), dtype=object)


def _pack_partition(
    batches: Iterator[pa.RecordBatch], d: int, id_type: str, zero_is_bad: bool
) -> Iterator[pa.RecordBatch]:
    full = block_rows(d)
    waiting: list[Block] = []
    for batch in batches:
        ids = _to_ids(batch["id"])
        x, reasons = usable_vectors(batch["embedding"], d, zero_is_bad)
        for reason in np.unique(reasons[reasons != ""]):
            yield _one_row(ids[reasons == reason], b"", b"", 0.0, str(reason), id_type)
        good = ids[reasons == ""]
        waiting.append(Block(good, hash_ids(good), x))
        while sum(len(block.ids) for block in waiting) >= full:
            joined = _join(waiting)
            yield write_block(joined.take(np.arange(full)), id_type)
            waiting = [joined.take(np.arange(full, len(joined.ids)))]
    joined = _join(waiting)
    if len(joined.ids):
        yield write_block(joined, id_type)


def _join(blocks: list[Block]) -> Block:
    if not blocks:
        return Block(np.empty(0, object), np.empty(0, np.uint64), np.empty((0, 1), np.float32))
    return Block(
        np.concatenate([b.ids for b in blocks]),
        np.concatenate([b.hashes for b in blocks]),
        np.concatenate([b.x for b in blocks]),
    )


def usable_vectors(column: pa.Array, d: int, zero_is_bad: bool) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Sort out the vectors of a list column.

    Args:
        column: Lists of float or double, n of them.
        d: Length that a usable vector has.
        zero_is_bad: Whether zero vectors are unusable.

    Returns:
        The usable vectors, float32, shape (n_usable, d); a reason for each row, "" where usable, shape (n,).
    """
    lengths = column.value_lengths()
    reasons = np.full(len(column), "", dtype="<U15")
    reasons[lengths.fill_null(-1).to_numpy() != d] = "wrong_dimension"
    reasons[column.is_null().to_numpy(zero_copy_only=False)] = "null_vector"
    rows = np.flatnonzero(reasons == "")
    values = column.take(pa.array(rows)).flatten()
    with np.errstate(over="ignore"):
        x = values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(rows), d)  # null becomes NaN
    finite = np.isfinite(x).all(axis=1)
    reasons[rows[~finite]] = "not_finite"
    if zero_is_bad:
        zero = ~x.any(axis=1)
        reasons[rows[zero]] = "zero_vector"
        finite &= ~zero
    return x[finite], reasons


def _quantize_partition(
    batches: Iterator[pa.RecordBatch], grid: Grid, d: int, id_type: str
) -> Iterator[pa.RecordBatch]:
    for block in read_blocks(batches, d):
        yield write_block(Block(block.ids, block.hashes, grid.quantize(block.x)), id_type)
