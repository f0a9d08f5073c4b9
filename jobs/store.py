"""Tables by name or path: create, read a version, commit. The only module that writes tables."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ..schemas.errors import LakestrataError
from ..schemas.tables import Table, column_ddl

# Connect gives Delta's errors no class of their own: their codes are in the text.
_MISSING = (
    "[PATH_NOT_FOUND]",
    "[TABLE_OR_VIEW_NOT_FOUND]",
    "[DELTA_TABLE_NOT_FOUND]",
    "[DELTA_MISSING_DELTA_TABLE]",
    "[DELTA_PATH_DOES_NOT_EXIST]",
    "[SCHEMA_NOT_FOUND]",
    "[CATALOG_NOT_FOUND]",
    "[REQUIRES_SINGLE_PART_NAMESPACE]",
    "[UNABLE_TO_INFER_SCHEMA]",
    "DELTA_MISSING_TRANSACTION_LOG",
    "is not a Delta table",
)
_NOT_DELTA = ("[EXPECT_TABLE_NOT_VIEW", "[DELTA_ONLY_OPERATION]", "[DELTA_TABLE_ONLY_OPERATION]")


def is_path(name: str) -> bool:
    """Whether a table's name is a path or URI, not `catalog.schema.table`."""
    return "/" in name or "\\" in name


def first_line(error: Exception) -> str:
    """What a Spark error says, without its stack trace."""
    return str(error).strip().splitlines()[0].strip()


@dataclass(frozen=True)
class Commit:
    """Marks a commit, so that a repeated one is recognised and skipped.

    Attributes:
        run_id: The run.
        step: Name and number of the step within the run, e.g. "slice-3".
        config_hash: Recorded beside the commit, for those who read the table's history.
    """

    run_id: str
    step: str
    config_hash: str

    @property
    def app_id(self) -> str:
        """Delta's txnAppId: a run commits each step once."""
        return f"lakestrata-{self.run_id}-{self.step}"

    @property
    def options(self) -> dict[str, str]:
        """Writer options."""
        metadata = {"run_id": self.run_id, "step": self.step, "config_hash": self.config_hash}
        return {"txnAppId": self.app_id, "txnVersion": "1", "userMetadata": json.dumps(metadata)}


class DeltaTable:
    """A Delta table, by name or path.

    Args:
        spark: The session.
        name: `catalog.schema.table`, or a path or URI; local paths are made absolute.
    """

    def __init__(self, spark: SparkSession, name: str) -> None:
        self.spark = spark
        self.is_path = is_path(name)
        self.name = os.path.abspath(name) if self.is_path and "://" not in name and ":/" not in name else name

    @property
    def sql(self) -> str:
        """Quoted for SQL."""
        if self.is_path:
            return f"delta.`{self.name}`"
        return ".".join(f"`{part.strip('`')}`" for part in self.name.split("."))

    def exists(self) -> bool:
        """Whether the table is there and is Delta's."""
        try:
            if self.is_path:  # many times quicker than asking for the history, which a view needs
                _ = self.read().schema
            else:
                self.version()
        except PySparkException as error:
            if any(code in str(error) for code in _MISSING + _NOT_DELTA):
                return False
            raise
        return True

    def version(self) -> int:
        """Number of the latest commit."""
        return int(self.spark.sql(f"DESCRIBE HISTORY {self.sql} LIMIT 1").collect()[0]["version"])

    def read(self, version: int | None = None) -> DataFrame:
        """The table's rows, at a version or the latest."""
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        return reader.load(self.name) if self.is_path else reader.table(self.name)

    def create(self, table: Table) -> None:
        """Create the table if it is missing; add columns that a wider declaration has.

        Raises:
            LakestrataError: If a column has another type than declared.
        """
        if not self.exists():
            self.spark.sql(table.ddl(self.sql))
            return
        present = {column.name: column.dataType for column in self.read().schema.fields}
        for column in table.schema.fields:
            found = present.get(column.name)
            if found is not None and found.simpleString() != column.dataType.simpleString():
                raise LakestrataError(
                    f"{self.name}: column {column.name} is {found.simpleString()}, not "
                    f"{column.dataType.simpleString()}: use another folder or schema as work."
                )
        missing = [column_ddl(c) for c in table.schema.fields if c.name not in present and c.nullable]
        if missing:
            self.spark.sql(f"ALTER TABLE {self.sql} ADD COLUMNS ({', '.join(missing)})")

    def append(self, rows: DataFrame, commit: Commit) -> None:
        """Add rows; a commit that was made before is skipped."""
        self._write(rows, "append", commit.options)

    def replace(self, rows: DataFrame, where: str, commit: Commit) -> None:
        """Put rows in the place of those that match, in one commit; all rows must match."""
        if self.read().isEmpty():  # an append does the same, five times as fast
            self.append(rows, commit)
        else:
            self._write(rows, "overwrite", {"replaceWhere": where, **commit.options})

    def upsert(self, rows: DataFrame, key: tuple[str, ...]) -> None:
        """Update the rows that have the same key, and insert the others; safe to repeat."""
        self._merge(rows, key, "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *")

    def remove(self, keys: DataFrame, key: tuple[str, ...]) -> None:
        """Delete the rows with these keys; safe to repeat."""
        self._merge(keys, key, "WHEN MATCHED THEN DELETE")

    def delete(self, where: str) -> None:
        """Delete the rows that match; safe to repeat."""
        self.spark.sql(f"DELETE FROM {self.sql} WHERE {where}")

    def forget_trees(self, model_ids: Iterable[str]) -> None:
        """Delete the rows of these trees, if there are any; safe to repeat."""
        if named := sorted(map(repr, model_ids)):
            self.delete(f"model_id IN ({', '.join(named)})")

    def _merge(self, rows: DataFrame, key: tuple[str, ...], clauses: str) -> None:
        same = " AND ".join(f"t.`{c}` <=> s.`{c}`" for c in key)
        self.spark.sql(f"MERGE INTO {self.sql} AS t USING {{rows}} AS s ON {same} {clauses}", rows=rows).collect()

    def _write(self, rows: DataFrame, mode: str, options: dict[str, str]) -> None:
        columns = self.read().columns
        missing = [F.lit(None).alias(c) for c in columns if c not in rows.columns]
        ordered = rows.select(*[c for c in columns if c in rows.columns], *missing)
        writer = ordered.write.format("delta").mode(mode).options(**options)
        if self.is_path:
            writer.save(self.name)
        else:
            writer.saveAsTable(self.name)


class Store:
    """The tables under `work`: a folder or URI, or a schema of a catalog.

    Args:
        spark: The session.
        work: Where the tables are.
    """

    def __init__(self, spark: SparkSession, work: str) -> None:
        self.spark = spark
        self.work = work

    def table(self, name: str) -> DeltaTable:
        """The table `name` under `work`."""
        separator = "/" if is_path(self.work) else "."
        return DeltaTable(self.spark, self.work.rstrip("/") + separator + name)


@dataclass(frozen=True)
class Input:
    """A table that a job reads, as it stood when the job began.

    Attributes:
        name: As the recipe has it.
        rows: Its rows, in the form that the job reads.
        table: Its rows as they are.
        version: "version N" of a Delta table, else "digest N-H": count of the rows and a hash of them.
    """

    name: str
    rows: DataFrame
    table: DataFrame
    version: str

    def has_changed(self) -> bool:
        """Whether an input without versions has other rows by now."""
        return self.version.startswith("digest") and _digest(self.table) != self.version


def open_rows(spark: SparkSession, name: str, version: str | None = None) -> DataFrame:
    """Rows of a Delta table (at a "version N", or the latest), a view or another table, or a Parquet folder.

    Raises:
        LakestrataError: If there is no such table.
    """
    table = DeltaTable(spark, name)
    if table.exists():
        return table.read(int(version.removeprefix("version ")) if version else None)
    if name.endswith(".npy"):
        raise LakestrataError(f"{name}: import it first: lakestrata import-npy {name} TABLE.")
    try:
        rows = spark.read.parquet(table.name) if table.is_path else spark.table(name)
        _ = rows.schema  # Connect looks for the table only when something is asked of it
        return rows
    except PySparkException as error:
        if any(code in str(error) for code in _MISSING):
            kind = "no Delta table and no Parquet files" if table.is_path else "no table or view"
            raise LakestrataError(f"{name}: there is {kind} of this name.") from None
        raise


def open_input(spark: SparkSession, name: str, version: str | None = None, where: str | None = None) -> Input:
    """Open a table at a version, the one given or that of now.

    Args:
        spark: The session.
        name: `catalog.schema.table`, or a path or URI.
        version: "version N" of a Delta table; others are read as they are.
        where: SQL condition for the rows to read.

    Raises:
        LakestrataError: If there is no such table.
    """
    table = DeltaTable(spark, name)
    pinned = version
    if pinned is None and table.exists():
        pinned = f"version {table.version()}"
    rows = open_rows(spark, name, pinned)
    rows = rows.where(where) if where else rows
    return Input(name, rows, rows, pinned or _digest(rows))


def _digest(rows: DataFrame) -> str:
    """A fingerprint of all rows in any order: their number and the sum of their hashes."""
    hashed = rows.select(F.xxhash64(*[F.col(f"`{c}`") for c in rows.columns]).cast("decimal(38,0)").alias("h"))
    row = hashed.agg(F.count("*").alias("n"), F.sum("h").alias("h")).collect()[0]
    return f"digest {row['n']}-{row['h']}"
