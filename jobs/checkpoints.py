"""Checkpoints of a tree in the making: its finished levels, and how far the one in progress has come."""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import monotonic

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..kmeans.lloyd import State
from ..kmeans.partial import CentroidSet
from ..kmeans.tree import Progress
from ..schemas.tables import CHECKPOINTS
from ..udfs.centroid_rows import from_rows, to_rows
from ..udfs.centroids import StoredCentroids
from ..udfs.points import Engine
from .runs import Run
from .store import Store

_FINISHED = -1  # in place of a round: the level's own centroids
_GROUPS = -2  # those of its groups
_OVERHEAD = 20  # work between two checkpoints lasts at least so many times as long as writing one


@dataclass
class Resumed:
    """What an earlier attempt of the run left.

    Attributes:
        levels: Finished levels, from the bottom.
        progress: How far the next has come.
    """

    levels: list[CentroidSet]
    progress: Progress


class Checkpoints:
    """Commits the centroids of a run: each level, and rounds and moves as often as is worth it.

    Args:
        store: Where the table is.
        current: The run.
        engine: For centroids that are too large for the driver.
        d: Coordinates of each.
        seconds: Work that may be lost: checkpoints within a level are at least so far apart.
        probe: Groups to look into, for levels made in two steps.
    """

    def __init__(self, store: Store, current: Run, engine: Engine, d: int, seconds: float, probe: int) -> None:
        self._table = store.table(CHECKPOINTS.name)
        self._table.create(CHECKPOINTS)
        self._run, self._engine, self._d = current, engine, d
        self._seconds, self._probe = seconds, probe
        self._mine = F.col("run_id") == current.run_id
        self._part = 0
        self._boundary: tuple[int, int] | None = None  # level and round whose start is stored
        self._last = monotonic()
        self._pause = seconds

    def resume(self) -> Resumed:
        """Load what is there."""
        stored = self._table.read().where(self._mine)
        found = stored.groupBy("level", "round", "state", "part").agg(F.count("*").alias("k")).collect()
        self._part = max((row["part"] for row in found), default=-1) + 1
        finished = sorted(row["level"] for row in found if row["round"] == _FINISHED)
        levels = [self._level(level, stored) for level in finished]
        open_parts = [row for row in found if row["level"] == len(levels) + 1]
        if not open_parts:
            return Resumed(levels, Progress())
        last = max(open_parts, key=lambda row: int(row["part"]))
        number = last["round"]
        starts = [row["part"] for row in open_parts if row["round"] == number and row["state"] is None]
        before = self._load(stored.where(F.col("part") == max(starts))) if starts else None
        self._boundary = (last["level"], number) if starts else None
        state = None
        if last["state"] is not None:
            values = json.loads(last["state"])
            centroids = self._load(stored.where(F.col("part") == last["part"]))
            state = State(centroids, values["batch"], values["n_iter"], values["cost"])
        return Resumed(levels, Progress(number, before, state))

    def save_level(self, level: int, centroids: CentroidSet) -> None:
        """Commit a finished level."""
        rows = self._rows(level, _FINISHED, centroids)
        groups = getattr(centroids, "groups", None)
        if groups is not None:
            rows = rows.unionByName(self._rows(level, _GROUPS, groups))
        self._append(rows)

    def save(self, level: int, progress: Progress) -> None:
        """Commit how far a level has come, if enough work has been done since the last time."""
        started = monotonic()
        if started - self._last < self._pause:
            return
        if progress.before is not None and self._boundary != (level, progress.round):
            self._append(self._rows(level, progress.round, progress.before))
            self._boundary = (level, progress.round)
        if progress.state is not None:
            state = progress.state
            values = {"batch": state.batch, "n_iter": state.n_iter, "cost": state.cost}
            self._append(self._rows(level, progress.round, state.centroids, json.dumps(values)))
        self._last = monotonic()
        self._pause = max(self._seconds, _OVERHEAD * (self._last - started) if self._seconds else 0.0)

    def _rows(self, level: int, number: int, centroids: CentroidSet, state: str | None = None) -> DataFrame:
        labels = {
            "run_id": F.lit(self._run.run_id),
            "level": F.lit(level),
            "round": F.lit(number),
            "state": F.lit(state).cast("string"),
            "part": F.lit(self._part),
        }
        return to_rows(centroids, self._engine.spark).withColumns(labels)

    def _append(self, rows: DataFrame) -> None:
        self._table.append(rows, self._run.commit(f"checkpoint-{self._part}"))
        self._part += 1

    def _level(self, level: int, stored: DataFrame) -> CentroidSet:
        mine = stored.where(F.col("level") == level)
        rows = mine.where(F.col("round") == _GROUPS)
        groups = None if rows.isEmpty() else self._load(rows)
        return self._load(mine.where(F.col("round") == _FINISHED), groups)

    def _load(self, rows: DataFrame, groups: CentroidSet | None = None) -> CentroidSet:
        fits = self._engine.holds(rows.count(), self._d) and not isinstance(groups, StoredCentroids)
        columns = rows.select("grp", "cluster_id", "centroid")
        folder = None if fits else self._engine.folder
        return from_rows(columns, self._d, folder=folder, groups=groups, probe=self._probe)
