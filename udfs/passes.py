"""What each pass over packed blocks does in one partition; these functions run on executors, on Arrow batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..kmeans.grid import Grid
from ..kmeans.nearest import augment
from ..kmeans.partial import CentroidSet, Partial, Step
from ..kmeans.points import Ids, Strategy, as_array, random_keys, reseed_rows, select
from ..kmeans.routed import RoutedCentroids
from ..kmeans.tree import paths
from .blocks import StoredBlock, arrow_id, stored_blocks, to_ids, write_blocks
from .centroids import join_ranges, ready, save_rows, some_of
from .shared_files import open_array

Batches = Iterator[pa.RecordBatch]

PARTIAL_DDL = "start bigint, ids binary, counts binary, sums binary, high binary, low binary"
STEP_DDL = "start bigint, counts binary, high binary, low binary, shift binary, path binary, moved binary"
_KEPT_AT_ONCE = 1 << 16  # candidates that wait before the worse ones are dropped


@dataclass(frozen=True)
class Search:
    """Against what, and where, a pass looks for the nearest centroid.

    Attributes:
        centroids: In grid steps: an array, or what `udfs.centroids` keeps in its place.
        device: See `torch_kernel.make_centroids`.
        d: Coordinates of each.
    """

    centroids: CentroidSet
    device: str
    d: int


def partial_sums(batches: Batches, search: Search, width: int) -> Batches:
    """One step over a partition: counts and sums of the clusters met, by range of `width` clusters."""
    centroids = ready(search.centroids, search.device)
    slots = np.full(len(centroids), -1, dtype=np.int64)  # where a cluster's sums are; memory grows with those met
    total, n_met = Partial.zeros(0, search.d), 0
    for block in stored_blocks(batches):
        labels = centroids.labels(block.rows)
        new = np.unique(labels[slots[labels] < 0])
        slots[new] = n_met + np.arange(len(new))
        n_met += len(new)
        if n_met > len(total.counts):
            total = total.grown(n_met)
        total.add_points(block.rows, slots[labels])
    met = np.flatnonzero(slots >= 0)
    for start in np.unique(met // width * width).tolist():
        ids = met[(met >= start) & (met < start + width)]
        part = total.take(slots[ids])
        yield _row(start, ids=ids - start, counts=part.counts, sums=part.sums, high=part.high, low=part.low)


def finish_ranges(batches: Batches, search: Search, grid: Grid, width: int, folder: str | None) -> Batches:
    """Add up the rows of each cluster range, and move its centroids to the means; with a folder, put them there."""
    centroids = ready(search.centroids)
    if isinstance(centroids, RoutedCentroids):
        raise TypeError("a level made in two steps takes no steps of k-means.")
    totals: dict[int, Partial] = {}
    for batch in batches:
        for row in batch.to_pylist():
            start = row["start"]
            if start not in totals:
                totals[start] = Partial.zeros(min(width, len(centroids) - start), search.d)
            totals[start].add(_read_partial(row, search.d), np.frombuffer(row["ids"], np.int64))
    for start, total in totals.items():
        step = total.finish(centroids.vectors(np.arange(start, start + len(total.counts))), grid)
        moved = as_array(step.moved)
        path = np.frombuffer((save_rows(augment(moved), folder) if folder else "").encode(), np.uint8)
        arrays: dict[str, NDArray[Any]] = {"path": path, "moved": moved[:0] if folder else moved}
        yield _row(start, counts=step.counts, high=step.high, low=step.low, shift=step.shift, **arrays)


def _row(start: int, **arrays: NDArray[Any]) -> pa.RecordBatch:
    columns = {name: pa.array([array.tobytes()], pa.binary()) for name, array in arrays.items()}
    return pa.RecordBatch.from_pydict({"start": pa.array([start], pa.int64()), **columns})


def _read_partial(row: dict[str, Any], d: int) -> Partial:
    counts, high, low = (np.frombuffer(row[name], np.int64) for name in ("counts", "high", "low"))
    return Partial(counts, np.frombuffer(row["sums"], np.float64).reshape(-1, d), high, low)


def read_step(rows: Sequence[dict[str, Any]], search: Search, width: int, folder: str | None) -> Step:
    """The step from the rows of cluster ranges; those without points have no row, and stay where they are."""
    k, found = len(search.centroids), {row["start"]: row for row in rows}
    counts, high, low = (np.zeros(k, np.int64) for _ in range(3))
    shift = np.zeros(k)
    moved: list[NDArray[np.float32] | str] = []
    for start in range(0, k, width):
        part = slice(start, min(start + width, k))
        row = found.get(start)
        if row is None:
            moved.append(some_of(search.centroids, part))
            continue
        for name, array in (("counts", counts), ("high", high), ("low", low)):
            array[part] = np.frombuffer(row[name], np.int64)
        shift[part] = np.frombuffer(row["shift"], np.float64)
        moved.append(row["path"].decode() or np.frombuffer(row["moved"], np.float32).reshape(-1, search.d))
    return Step(counts, high, low, shift, join_ranges(moved, search.d, folder))


@dataclass(frozen=True)
class Ranking:
    """How a pass ranks points: within clusters, or (without a search) all together.

    Attributes:
        search: Against what; None where all points are one cluster.
        size: Members that each cluster keeps.
        strategy: Which: the closest, or random ones.
        seed: Of random ones.
    """

    search: Search | None
    size: int
    strategy: Strategy
    seed: int

    def ranked(self, blocks: Iterator[StoredBlock]) -> Iterator[tuple[StoredBlock, NDArray[Any], NDArray[Any]]]:
        """Each block with the cluster and the rank key of its points, int64, shape (n,)."""
        centroids = ready(self.search.centroids, self.search.device) if self.search else None
        for block in blocks:
            if centroids is None:
                yield block, np.zeros(block.n, np.int64), random_keys(block.hashes, self.seed)
            elif self.strategy == "closest":
                labels, squared = centroids.nearest(block.rows)
                yield block, labels, squared.astype(np.int64)
            else:
                yield block, centroids.labels(block.rows), random_keys(block.hashes, self.seed)


def candidates(batches: Batches, ranking: Ranking, id_type: str) -> Batches:
    """The partition's best-ranked members of each cluster, as (cluster, key, id)."""
    waiting: list[tuple[NDArray[np.int64], NDArray[np.int64], Ids]] = []
    n_best = 0
    for block, labels, keys in ranking.ranked(stored_blocks(batches)):
        waiting.append((labels, keys, block.ids.copy()))  # a view would keep the whole block
        if sum(len(part[0]) for part in waiting) > max(_KEPT_AT_ONCE, 2 * n_best):
            waiting = [_best(waiting, ranking.size)]
            n_best = len(waiting[0][0])
    if waiting:
        labels, keys, ids = _best(waiting, ranking.size)
        columns = [pa.array(labels), pa.array(keys), pa.array(ids, arrow_id(id_type))]
        yield pa.RecordBatch.from_arrays(columns, ["cluster", "key", "id"])


def _best(
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], Ids]], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Ids]:
    labels, keys, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
    rows = select(labels, keys, ids, size)
    return labels[rows], keys[rows], ids[rows]


@dataclass
class Cut:
    """The last (key, id) that each cluster keeps; shapes (k,)."""

    keys: NDArray[np.int64]
    ids: Ids

    @classmethod
    def of_table(cls, table: pa.Table, k: int, id_type: str) -> Cut:
        """From rows of (cluster, key, id); clusters without a row keep nothing."""
        keys = np.full(k, -1, dtype=np.int64)
        ids: Ids = np.zeros(k, np.int64) if id_type == "bigint" else np.full(k, "", dtype=object)
        clusters = table["cluster"].to_numpy()
        keys[clusters], ids[clusters] = table["key"].to_numpy(), to_ids(table["id"].combine_chunks())
        return cls(keys, ids)

    def keeps(self, labels: NDArray[np.int64], keys: NDArray[np.int64], ids: Ids) -> NDArray[np.bool_]:
        """Whether each point ranks up to its cluster's cut."""
        last = self.keys[labels]
        kept: NDArray[np.bool_] = (keys < last) | ((keys == last) & (ids <= self.ids[labels]))
        return kept


def keep_up_to(batches: Batches, cut: Cut, ranking: Ranking, d: int, id_type: str) -> Batches:
    """Blocks of the points that rank up to their cluster's cut."""
    ranked = ranking.ranked(stored_blocks(batches))
    kept = (block.whole()[cut.keeps(labels, keys, block.ids)] for block, labels, keys in ranked)
    return write_blocks(kept, d, id_type)


def reseeds(batches: Batches, search: Search, sizes: NDArray[np.int64], seed: int, id_type: str) -> Batches:
    """The partition's distinct vectors off their centroids, up to `sizes` of each cluster, as (cluster, x, key, id)."""
    centroids = ready(search.centroids, search.device)
    best: dict[str, NDArray[Any]] | None = None
    for block in stored_blocks(batches):
        labels, squared = centroids.nearest(block.rows)
        some: dict[str, NDArray[Any]] = {
            "x": block.rows.x,
            "labels": labels,
            "squared": squared,
            "keys": random_keys(block.hashes, seed),
            "ids": block.ids,
        }
        joined = some if best is None else {name: np.concatenate([best[name], some[name]]) for name in some}
        rows = reseed_rows(**joined, sizes=sizes)
        best = {name: column[rows] for name, column in joined.items()}
    if best is not None and len(best["ids"]):
        columns = {
            "cluster": pa.array(best["labels"]),
            "x": pa.array([x.tobytes() for x in best["x"]], pa.binary()),
            "key": pa.array(best["keys"]),
            "id": pa.array(best["ids"], arrow_id(id_type)),
        }
        yield pa.RecordBatch.from_pydict(columns)


def ranked_vectors(batches: Batches, seed: int, id_type: str) -> Batches:
    """Every vector with its rank in a draw."""
    for block in stored_blocks(batches):
        x = pa.array([row.tobytes() for row in block.rows.x], pa.binary())
        columns = [x, pa.array(random_keys(block.hashes, seed)), pa.array(block.ids, arrow_id(id_type))]
        yield pa.RecordBatch.from_arrays(columns, ["x", "key", "id"])


def nearest(batches: Batches, search: Search, id_type: str) -> Batches:
    """Each point's nearest centroid, and its squared distance in squared steps."""
    centroids = ready(search.centroids, search.device)
    for block in stored_blocks(batches):
        labels, squared = centroids.nearest(block.rows)
        columns = [pa.array(block.ids, arrow_id(id_type)), pa.array(labels), pa.array(squared.astype(np.int64))]
        yield pa.RecordBatch.from_arrays(columns, ["id", "cluster", "squared"])


def assign(
    batches: Batches, search: Search, parents: Sequence[NDArray[np.int64] | str], grid: Grid, id_type: str
) -> Batches:
    """Each point's clusters at all levels, and its distance to the first."""
    centroids = ready(search.centroids, search.device)
    above = [open_array(parent) for parent in parents]
    for block in stored_blocks(batches):
        labels, squared = centroids.nearest(block.rows)
        path = paths(above, labels)
        columns = [pa.array(block.ids, arrow_id(id_type)), *(pa.array(level) for level in path)]
        names = ["id", *(f"level_{t}" for t in range(1, len(path) + 1)), "distance"]
        yield pa.RecordBatch.from_arrays([*columns, pa.array(grid.distance(squared))], names)


def unusable_ids(batches: Batches, id_type: str) -> Batches:
    """Ids of unusable rows, with the reason."""
    for block in stored_blocks(batches):
        if block.reason is None:
            continue
        ids = pa.array(block.ids, arrow_id(id_type))
        yield pa.RecordBatch.from_arrays([ids, pa.array([block.reason] * block.n, pa.string())], ["id", "reason"])


def vectors(batches: Batches, id_type: str) -> Batches:
    """Ids and vectors of whole blocks."""
    for block in stored_blocks(batches):
        ids = pa.ListArray.from_arrays(pa.array([0, block.n], pa.int32()), pa.array(block.ids, arrow_id(id_type)))
        columns = [ids, pa.array([block.rows.x.tobytes()], pa.binary()), pa.array([block.n], pa.int32())]
        yield pa.RecordBatch.from_arrays(columns, ["ids", "x", "n"])


def read_vectors(table: pa.Table, d: int) -> tuple[Ids, NDArray[np.float32]]:
    """Ids, shape (n,), and vectors, shape (n, d), from rows of `vectors`."""
    ids, x = [np.empty(0, np.int64)], [np.empty((0, d), np.float32)]
    for batch in table.to_batches():
        for some, part in zip(batch["ids"], batch["x"], strict=True):
            ids.append(to_ids(some.values))
            x.append(np.frombuffer(part.as_buffer(), np.float32).reshape(-1, d))
    return np.concatenate(ids[1:] or ids), np.concatenate(x)
