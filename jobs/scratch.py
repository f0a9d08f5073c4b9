"""Scratch: blocks that one run reads many times, kept near the executors, and removed at its end."""

from __future__ import annotations

import logging
import os
import shutil
from uuid import uuid4

import fsspec
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ..schemas.errors import ConfigurationError, LakestrataError
from ..schemas.tables import scratch
from ..udfs.kept import FileBlocks, FrameBlocks, Kept
from ..udfs.shared_files import is_uri, remove_folder
from .recipe import Cluster
from .store import Commit, Store, first_line, is_path

logger = logging.getLogger(__name__)

_FOLDER = "scratch_files"
_MOUNTS = ("/dbfs", "/Volumes", "/Workspace")  # object stores that look like folders, on Databricks


class Scratch:
    """Keeps block DataFrames under names: in Spark's cache, in files that all workers see, or in a Delta table.

    Args:
        store: Where the scratch table is, and (where that is a local path) the folder of files.
        options: scratch, and scratch_path: "auto" takes files where this machine does all the work, else the cache
            where the session has one (serverless has none), else the table.
        name: The recipe's name: what earlier, broken runs of that name left is removed.
        run_id: The run.
        id_type: "bigint" or "string".
    """

    def __init__(self, store: Store, options: Cluster, name: str, run_id: str, id_type: str) -> None:
        self.name, self.run_id = name, run_id
        # Centroids as points have numbers, whatever the ids of the items are.
        self.tables = {kind: store.table(scratch(kind).name) for kind in sorted({"bigint", id_type})}
        self.root = _place(store, options)
        obstacle = self.root and _obstacle(self.root)
        if obstacle:
            logger.info("no files at %s (%s): the driver passes on centroids of any size", self.root, obstacle)
            self.root = None
        self.kind = options.scratch
        if self.kind == "auto" and _is_disk(self.root) and _is_local(store.spark):
            self.kind = "files"
        self._cached: dict[str, DataFrame] = {}
        self._attempt = uuid4().hex  # a resumed run repeats step names with other blocks
        self._n_steps = 0
        self._clear()

    @property
    def folder(self) -> str | None:
        """Where files of this run go; None where there is no place for any."""
        return self.root and f"{self.root}/run-{self.name}/{self._attempt}"

    def keep(self, blocks: DataFrame, name: str) -> Kept:
        """Keep blocks; those kept before under the same name are let go.

        Raises:
            LakestrataError: If the cache was asked for and the session has none.
        """
        if self.kind == "files" and self.folder:
            self._n_steps += 1
            kept = FileBlocks.write(blocks, f"{self.folder}/{name}-{self._n_steps}")
            for old in range(1, self._n_steps):
                shutil.rmtree(f"{self.folder}/{name}-{old}", ignore_errors=True)
            return kept
        if self.kind == "table":
            return FrameBlocks(self._to_table(blocks, name))
        return FrameBlocks(self._cache(blocks, name))

    def _cache(self, blocks: DataFrame, name: str) -> DataFrame:
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
        """Free the blocks of this name; blocks in the table stay until the end."""
        if name in self._cached:
            self._cached.pop(name).unpersist()
        for step in range(1, self._n_steps + 1):
            shutil.rmtree(f"{self.folder}/{name}-{step}", ignore_errors=True)

    def close(self) -> None:
        """Let go of everything."""
        for name in list(self._cached):
            self.let_go(name)
        self._clear()

    def _to_table(self, blocks: DataFrame, name: str) -> DataFrame:
        self._n_steps += 1
        id_type = dict(blocks.dtypes)["ids"].removeprefix("array<").removesuffix(">")
        table = self.tables[id_type]
        table.create(scratch(id_type))
        mine = f"owner = '{self.name}' AND name = '{name}'"
        labelled = blocks.withColumns({"owner": F.lit(self.name), "name": F.lit(name)})
        commit = Commit(self.run_id, f"scratch-{self._attempt}-{self._n_steps}", "")
        table.replace(labelled, mine, commit)
        # Pinned to its version: what replaces it under its name may be made from it.
        return table.read(table.version()).where(mine).drop("owner", "name")

    def _clear(self) -> None:
        for table in self.tables.values():
            if table.exists():
                table.delete(f"owner = '{self.name}'")
        if self.root is None:
            return
        try:
            remove_folder(f"{self.root}/run-{self.name}")
        except Exception as error:  # whatever the store's library raises; to go on does no harm
            logger.warning("%s/run-%s could not be removed: %s", self.root, self.name, error)


def check_place(store: Store, options: Cluster) -> None:
    """Check that files have a place, if they are asked for.

    Raises:
        ConfigurationError: If they have none.
    """
    path = _place(store, options)
    obstacle = path and _obstacle(path)
    if options.scratch == "files" and (path is None or is_uri(path)):
        raise ConfigurationError(
            ["cluster.scratch: files need a folder that all workers see: name it with cluster.scratch_path."]
        )
    if obstacle and (options.scratch_path or options.scratch == "files"):
        raise ConfigurationError([f"cluster.scratch_path: no files can be made at {path}: {obstacle}."])


def _place(store: Store, options: Cluster) -> str | None:
    """Where files should go: a folder, or a URI; None where nothing says."""
    path = options.scratch_path or (store.table(_FOLDER).name if is_path(store.work) else None)
    if path is None:
        return None
    if path.startswith("dbfs:/"):  # the same files as a mounted folder
        path = path.removeprefix("dbfs:") if path.startswith("dbfs:/Volumes/") else f"/dbfs/{path[6:].lstrip('/')}"
    return path.rstrip("/") if is_uri(path) else os.path.abspath(path)  # workers have another working directory


def _obstacle(path: str) -> str | None:
    """Why Python cannot make files there, if it cannot: mostly that the library of a store is not installed."""
    try:
        fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        return first_line(error).rstrip(".")
    mount = f"/{path.split('/')[1]}"
    return f"there is no {mount} here" if mount in _MOUNTS and not os.path.isdir(mount) else None


def _is_disk(root: str | None) -> bool:
    """Whether a folder is on a disk, and not an object store that only looks like one."""
    return root is not None and not is_uri(root) and f"/{root.split('/')[1]}" not in _MOUNTS


def _is_local(spark: SparkSession) -> bool:
    """Whether driver and workers are this machine."""
    if "SPARK_REMOTE" in os.environ:
        return os.environ["SPARK_REMOTE"].startswith("local")
    return str(spark.conf.get("spark.master", "")).startswith("local")
