"""Packed blocks: rows of vectors laid out once as binary columns, so that every later pass reads arrays, not rows.

A block is a row that holds up to `block_rows` points of one batch class. Packing and all passes run per partition,
without a shuffle. Passes take blocks from wherever a scratch keeps them; see `udfs.files` for those in files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from ..kmeans.grid import Grid
from ..kmeans.hashing import batch_class, hash_ids
from ..kmeans.points import Ids
from ..kmeans.rows import Rows
from .files import each_row

_BLOCK_COORDINATES = 1 << 21  # 8 MiB of float32
SMALL_COLUMNS = ("class", "n", "largest", "reason")  # those that say what is in a block


@dataclass
class Block:
    """Some points: ids and hashes of shape (n,), and their rows on the grid."""

    ids: Ids
    hashes: NDArray[np.uint64]
    rows: Rows

    def __getitem__(self, rows: NDArray[Any]) -> Block:
        return Block(self.ids[rows], self.hashes[rows], self.rows[rows])


class StoredBlock:
    """A block in a record batch of one row; what a pass does not ask for is not read."""

    def __init__(self, row: pa.RecordBatch) -> None:
        self._row = row
        self.n: int = row["n"][0].as_py()

    @property
    def reason(self) -> str | None:
        """Why the rows are unusable; None where they are not."""
        reason: str | None = self._row["reason"][0].as_py()
        return reason

    @cached_property
    def ids(self) -> Ids:
        """Ids of the points, shape (n,)."""
        return to_ids(self._row["ids"][0].values)

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """Their hashes, shape (n,)."""
        return self._array("hashes", np.uint64)

    @cached_property
    def rows(self) -> Rows:
        """Their vectors on the grid."""
        return Rows(self._array("a", np.float32).reshape(self.n, -1), self._array("norms", np.float64))

    @cached_property
    def raw(self) -> NDArray[np.float32]:
        """The vectors of a raw block, shape (n, d)."""
        return self._array("a", np.float32).reshape(self.n, -1)

    def _array(self, column: str, kind: type) -> NDArray[Any]:
        return np.frombuffer(self._row[column][0].as_buffer(), dtype=kind)

    def whole(self) -> Block:
        """All of it."""
        return Block(self.ids, self.hashes, self.rows)


def arrow_id(id_type: str) -> pa.DataType:
    """The Arrow type of ids of Spark type "bigint" or "string"."""
    return pa.int64() if id_type == "bigint" else pa.string()


def block_ddl(id_type: str) -> str:
    """Spark schema of blocks.

    `a` has the vectors: of a raw block as they are, else as in `Rows.a`; `largest` is max |x| of a raw block. Blocks
    of unusable rows have a `reason` and no vectors.
    """
    return (
        f"ids array<{id_type}>, hashes binary, a binary, norms binary, class int, n int, largest double, reason string"
    )


def block_rows(d: int) -> int:
    """Points in a full block."""
    return max(16, min(1 << 14, _BLOCK_COORDINATES // d))


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
    """Round the vectors of raw blocks to the grid, and sort them into blocks by batch class.

    Blocks of unusable rows are left out.
    """
    return blocks.mapInArrow(partial(_quantize_partition, grid=grid, d=d, id_type=id_type), block_ddl(id_type))


def stored_blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[StoredBlock]:
    """The blocks in a partition's record batches, or in the files that these name."""
    for row in each_row(batches):
        yield StoredBlock(row)


def write_blocks(blocks: Iterable[Block], d: int, id_type: str) -> Iterator[pa.RecordBatch]:
    """Sort points into full blocks by batch class, each a record batch of one row."""
    full = block_rows(d)
    waiting: dict[int, list[Block]] = {}
    for block in blocks:
        classes = batch_class(block.hashes)
        for number in np.unique(classes).tolist():
            parts = waiting.setdefault(number, [])
            parts.append(block[np.flatnonzero(classes == number)])
            while sum(len(part.ids) for part in parts) >= full:
                joined = _join(parts)
                yield _write_block(joined[np.arange(full)], number, id_type)
                parts[:] = [joined[np.arange(full, len(joined.ids))]]
    for number, parts in sorted(waiting.items()):
        joined = _join(parts)
        if len(joined.ids):
            yield _write_block(joined, number, id_type)


def _write_block(block: Block, number: int, id_type: str) -> pa.RecordBatch:
    rows = block.rows
    binary = block.hashes.tobytes(), rows.a.tobytes(), rows.norms.tobytes()
    return _one_row(block.ids, *binary, number, 0.0, None, id_type)


def _one_row(
    ids: Ids, hashes: bytes, a: bytes, norms: bytes, number: int, largest: float, reason: str | None, id_type: str
) -> pa.RecordBatch:
    offsets = pa.array([0, len(ids)], pa.int32())
    columns = {
        "ids": pa.ListArray.from_arrays(offsets, pa.array(ids, arrow_id(id_type))),
        "hashes": pa.array([hashes], pa.binary()),
        "a": pa.array([a], pa.binary()),
        "norms": pa.array([norms], pa.binary()),
        "class": pa.array([number], pa.int32()),
        "n": pa.array([len(ids)], pa.int32()),
        "largest": pa.array([largest], pa.float64()),
        "reason": pa.array([reason], pa.string()),
    }
    return pa.RecordBatch.from_pydict(columns)


def to_ids(values: pa.Array) -> Ids:
    """Ids of an Arrow column, as the mathematics takes them."""
    if pa.types.is_int64(values.type):
        numbers: Ids = values.to_numpy(zero_copy_only=False)
        return numbers
    return np.array(values.to_pylist(), dtype=object)


def _join(blocks: Sequence[Block]) -> Block:
    return Block(
        np.concatenate([b.ids for b in blocks]),
        np.concatenate([b.hashes for b in blocks]),
        Rows.concatenate([b.rows for b in blocks]),
    )


def _pack_partition(
    batches: Iterator[pa.RecordBatch], d: int, id_type: str, zero_is_bad: bool
) -> Iterator[pa.RecordBatch]:
    full = block_rows(d)
    ids: list[Ids] = []
    vectors: list[NDArray[np.float32]] = []
    for batch in batches:
        all_ids = to_ids(batch["id"])
        x, reasons = usable_vectors(batch["embedding"], d, zero_is_bad)
        for reason in np.unique(reasons[reasons != ""]):
            yield _one_row(all_ids[reasons == reason], b"", b"", b"", 0, 0.0, str(reason), id_type)
        ids.append(all_ids[reasons == ""])
        vectors.append(x)
        while sum(map(len, ids)) >= full:
            joined_ids, joined = np.concatenate(ids), np.concatenate(vectors)
            yield _raw_block(joined_ids[:full], joined[:full], id_type)
            ids, vectors = [joined_ids[full:]], [joined[full:]]
    if sum(map(len, ids)):
        yield _raw_block(np.concatenate(ids), np.concatenate(vectors), id_type)


def _raw_block(ids: Ids, x: NDArray[np.float32], id_type: str) -> pa.RecordBatch:
    largest = float(np.abs(x).max(initial=0.0))
    return _one_row(ids, hash_ids(ids).tobytes(), x.tobytes(), b"", 0, largest, None, id_type)


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
    usable = (block for block in stored_blocks(batches) if block.reason is None)
    blocks = (Block(block.ids, block.hashes, Rows.of(grid.quantize(block.raw))) for block in usable)
    return write_blocks(blocks, d, id_type)
