"""Scratch: blocks that one run reads many times, kept near the executors, and removed at its end."""

from __future__ import annotations

from uuid import uuid4

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..schemas.errors import LakestrataError
from ..schemas.tables import scratch
from .store import Commit, Store


class Scratch:
    """Keeps block DataFrames under names, in Spark's cache or in a Delta table.

    Args:
        store: Where the scratch table is.
        kind: "cache", "table", or "auto": the cache where the session has one (serverless has none).
        run_id: The run; what an earlier, broken attempt of it left is removed.
        id_type: "bigint" or "string".
    """

    def __init__(self, store: Store, kind: str, run_id: str, id_type: str) -> None:
        self.kind = kind
        self.run_id = run_id
        self.declared = scratch(id_type)
        self.table = store.table(self.declared.name)
        self._cached: dict[str, DataFrame] = {}
        self._attempt = uuid4().hex  # a resumed run repeats step names with other blocks
        self._n_steps = 0
        self._clear_table()

    def keep(self, blocks: DataFrame, name: str) -> DataFrame:
        """Keep blocks; those kept before under the same name are let go.

        Raises:
            LakestrataError: If the cache was asked for and the session has none.
        """
        if self.kind == "table":
            return self._to_table(blocks, name)
        try:
            cached = blocks.persist()
        except PySparkException as error:
            if self.kind == "cache":
                raise LakestrataError("cluster.scratch: this session has no cache; use auto or table.") from error
            self.kind = "table"
            return self._to_table(blocks, name)
        self.let_go(name)
        self._cached[name] = cached
        return cached

    def let_go(self, name: str) -> None:
        """Free the cached blocks of this name; blocks in the table stay until the end."""
        if name in self._cached:
            self._cached.pop(name).unpersist()

    def close(self) -> None:
        """Let go of everything."""
        for name in list(self._cached):
            self.let_go(name)
        self._clear_table()

    def _to_table(self, blocks: DataFrame, name: str) -> DataFrame:
        self._n_steps += 1
        self.table.create(self.declared)
        mine = f"run_id = '{self.run_id}' AND name = '{name}'"
        labelled = blocks.withColumns({"run_id": F.lit(self.run_id), "name": F.lit(name)})
        commit = Commit(self.run_id, f"scratch-{self._attempt}-{self._n_steps}", "")
        self.table.replace(labelled, mine, commit)
        # Pinned to its version: what replaces it under its name may be made from it.
        return self.table.read(self.table.version()).where(mine).drop("run_id", "name")

    def _clear_table(self) -> None:
        if self.table.exists():
            self.table.delete(f"run_id = '{self.run_id}'")
