"""What each pass over packed blocks does in one partition; these functions run on executors, on Arrow batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..kmeans.grid import Grid
from ..kmeans.nearest import Centroids
from ..kmeans.partial import Partial
from ..kmeans.points import Ids, Strategy, farthest_rows, random_keys, select
from ..kmeans.tree import paths
from .blocks import Block, arrow_id, read_blocks, write_block

Batches = Iterator[pa.RecordBatch]

PARTIAL_DDL = "start bigint, counts binary, sums binary, high binary, low binary"


def partial_sums(batches: Batches, centroids: NDArray[np.float32], width: int) -> Batches:
    """One step over a partition: counts, sums and costs, one row for each range of `width` clusters."""
    ready = Centroids(centroids)
    total = Partial.zeros(*centroids.shape)
    for block in read_blocks(batches, centroids.shape[1]):
        total.add_points(block.x, *ready.nearest(block.x))
    if total.counts.any():
        for start in range(0, len(centroids), width):
            yield _write_partial(start, total.clusters(start, start + width))


def add_partials(batches: Batches, d: int) -> Batches:
    """Add up the rows of each cluster range."""
    totals: dict[int, Partial] = {}
    for batch in batches:
        for row in batch.to_pylist():
            part = read_partial(row, d)
            if row["start"] in totals:
                totals[row["start"]].add(part)
            else:
                totals[row["start"]] = part
    for start, total in totals.items():
        yield _write_partial(start, total)


def _write_partial(start: int, part: Partial) -> pa.RecordBatch:
    arrays = [part.counts, part.sums, part.high, part.low]
    columns = [pa.array([start], pa.int64()), *(pa.array([a.tobytes()], pa.binary()) for a in arrays)]
    return pa.RecordBatch.from_arrays(columns, ["start", "counts", "sums", "high", "low"])


def read_partial(row: dict[str, Any], d: int) -> Partial:
    """A `PARTIAL_DDL` row as arrays of its own."""
    counts, high, low = (np.frombuffer(row[name], np.int64).copy() for name in ("counts", "high", "low"))
    return Partial(counts, np.frombuffer(row["sums"], np.float64).reshape(-1, d).copy(), high, low)


def _ranked(
    block: Block, centroids: Centroids | None, strategy: Strategy, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cluster and rank key of each point; without centroids all points are one cluster."""
    if centroids is None:
        return np.zeros(len(block.ids), np.int64), random_keys(block.hashes, seed)
    labels, squared = centroids.nearest(block.x)
    return labels, squared.astype(np.int64) if strategy == "closest" else random_keys(block.hashes, seed)


def candidates(
    batches: Batches,
    centroids: NDArray[np.float32] | None,
    d: int,
    size: int,
    strategy: Strategy,
    seed: int,
    id_type: str,
) -> Batches:
    """The partition's `size` best-ranked members of each cluster, as (cluster, key, id)."""
    ready = None if centroids is None else Centroids(centroids)
    best: tuple[NDArray[np.int64], NDArray[np.int64], Ids] | None = None
    for block in read_blocks(batches, d):
        labels, keys = _ranked(block, ready, strategy, seed)
        ids = block.ids
        if best is not None:
            labels, keys = np.concatenate([best[0], labels]), np.concatenate([best[1], keys])
            ids = np.concatenate([best[2], ids])
        rows = select(labels, keys, ids, size)
        best = labels[rows], keys[rows], ids[rows]
    if best is not None:
        columns = [pa.array(best[0]), pa.array(best[1]), pa.array(best[2], arrow_id(id_type))]
        yield pa.RecordBatch.from_arrays(columns, ["cluster", "key", "id"])


@dataclass
class Cut:
    """The last (key, id) that each cluster keeps; shapes (k,)."""

    keys: NDArray[np.int64]
    ids: Ids

    @classmethod
    def from_rows(cls, rows: Sequence[dict[str, Any]], k: int, id_type: str) -> Cut:
        """From rows of (cluster, last = (key, id)); clusters without a row keep nothing."""
        keys = np.full(k, -1, dtype=np.int64)
        ids: Ids = np.zeros(k, np.int64) if id_type == "bigint" else np.full(k, "", dtype=object)
        for row in rows:
            keys[row["cluster"]], ids[row["cluster"]] = row["last"]["key"], row["last"]["id"]
        return cls(keys, ids)

    def keeps(self, labels: NDArray[np.int64], keys: NDArray[np.int64], ids: Ids) -> NDArray[np.bool_]:
        """Whether each point ranks up to its cluster's cut."""
        last = self.keys[labels]
        kept: NDArray[np.bool_] = (keys < last) | ((keys == last) & (ids <= self.ids[labels]))
        return kept


def keep_up_to(
    batches: Batches,
    cut: Cut,
    centroids: NDArray[np.float32] | None,
    d: int,
    strategy: Strategy,
    seed: int,
    id_type: str,
) -> Batches:
    """Blocks of the points that rank up to their cluster's cut."""
    ready = None if centroids is None else Centroids(centroids)
    for block in read_blocks(batches, d):
        rows = cut.keeps(*_ranked(block, ready, strategy, seed), block.ids)
        if rows.any():
            yield write_block(block.take(rows), id_type)


def farthest(batches: Batches, centroids: NDArray[np.float32], size: int, id_type: str) -> Batches:
    """The partition's `size` distinct vectors farthest from their centroids, as (x, key, id)."""
    ready = Centroids(centroids)
    best: Block | None = None
    for block in read_blocks(batches, centroids.shape[1]):
        if best is not None:
            x = np.concatenate([best.x, block.x])
            block = Block(np.concatenate([best.ids, block.ids]), np.concatenate([best.hashes, block.hashes]), x)
        best = block.take(farthest_rows(block.x, ready.nearest(block.x)[1], block.ids, size))
    if best is not None and len(best.ids):
        squared = ready.nearest(best.x)[1].astype(np.int64)
        vectors = pa.array([x.tobytes() for x in best.x], pa.binary())
        columns = [vectors, pa.array(squared), pa.array(best.ids, arrow_id(id_type))]
        yield pa.RecordBatch.from_arrays(columns, ["x", "key", "id"])


def assign(
    batches: Batches,
    centroids: NDArray[np.float32],
    parents: Sequence[NDArray[np.int64]],
    grid: Grid,
    id_type: str,
) -> Batches:
    """Each point's clusters at all levels, and its distance to the first."""
    ready = Centroids(centroids)
    for block in read_blocks(batches, centroids.shape[1]):
        labels, squared = ready.nearest(block.x)
        path = paths(parents, labels)
        columns = [pa.array(block.ids, arrow_id(id_type)), *(pa.array(level) for level in path)]
        names = ["id", *(f"level_{t}" for t in range(1, len(path) + 1)), "distance"]
        yield pa.RecordBatch.from_arrays([*columns, pa.array(grid.distance(squared))], names)
