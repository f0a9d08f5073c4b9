"""Runs: what a job was asked, what it read and wrote, and whether its rows add up; resume or refuse."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from .. import __version__
from ..schemas.errors import AccountingError, ResumeError
from ..schemas.tables import RUNS
from .recipe import ALGORITHM_VERSION, config_hash
from .store import Commit, DeltaTable, Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a job did.

    Attributes:
        job: Its name.
        unchanged: Whether there was nothing to do.
        rows_in: Rows read.
        rows_out: Rows that came through.
        set_aside: Rows that did not, by reason.
        outputs: Tables written, with their versions.
        metrics: Figures of the run.
    """

    job: str
    unchanged: bool
    rows_in: int
    rows_out: int
    set_aside: dict[str, int]
    outputs: dict[str, str]
    metrics: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        aside = "".join(f", {n:,} {reason}" for reason, n in sorted(self.set_aside.items()) if n)
        done = " (nothing to do: finished before, same recipe and input)" if self.unchanged else ""
        return f"{self.job}: {self.rows_in:,} rows in, {self.rows_out:,} out{aside}{done}"


@dataclass
class Run:
    """A job's run in progress; `finished` is the earlier result where there is nothing to do.

    `history` has the rows of the runs before, the latest first.
    """

    table: DeltaTable
    row: dict[str, Any]
    history: list[dict[str, Any]]
    finished: Result | None = None

    @property
    def run_id(self) -> str:
        """Identifies the run, also when it is resumed."""
        return str(self.row["run_id"])

    def commit(self, step: str) -> Commit:
        """The mark of one of the run's commits."""
        return Commit(self.run_id, step, self.row["config_hash"])

    def finish(
        self,
        rows_in: int,
        rows_out: int,
        set_aside: Mapping[str, int],
        outputs: Mapping[str, str],
        metrics: Mapping[str, float] | None = None,
    ) -> Result:
        """Check that no row is lost, and record the run as finished.

        Raises:
            AccountingError: If rows in are not rows out and rows set aside.
        """
        check_rows(self.row["job"], rows_in, rows_out, set_aside)
        self.row |= {
            "status": "finished",
            "finished": _now(),
            "rows_in": rows_in,
            "rows_out": rows_out,
            "set_aside": {reason: n for reason, n in set_aside.items() if n},
            "outputs": dict(outputs),
            "metrics": dict(metrics or {}),
        }
        self.table.upsert(self.frame(), RUNS.key)
        result = _result(self.row, unchanged=False)
        logger.info("%s", result)
        return result

    @property
    def superseded_models(self) -> list[str]:
        """Trees that earlier runs of this name and job made."""
        mine = self.row["outputs"].get("model_id")
        return sorted({row["outputs"]["model_id"] for row in self.history if "model_id" in row["outputs"]} - {mine})

    @property
    def earlier_trees(self) -> list[str]:
        """Trees that earlier runs of this name and job read."""
        return sorted({row["inputs"]["tree"] for row in self.history} - {self.row["inputs"]["tree"]})

    def frame(self) -> DataFrame:
        """The run's row, for the table of runs."""
        return self.table.spark.createDataFrame([self.row], RUNS.schema)


def check_rows(job: str, rows_in: int, rows_out: int, set_aside: Mapping[str, int]) -> None:
    """Fail unless rows in are rows out plus rows set aside.

    Raises:
        AccountingError: With the figures.
    """
    aside = sum(set_aside.values())
    if rows_in != rows_out + aside:
        parts = ", ".join(f"{n} {reason}" for reason, n in set_aside.items() if n) or "none"
        raise AccountingError(
            f"{job}: {rows_in} rows in, but {rows_out} out and {aside} set aside ({parts}): "
            "did an input change during the run? Run the job again."
        )


def begin(
    store: Store,
    name: str,
    job: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    fresh: bool,
    incremental: bool = False,
) -> Run:
    """Begin a run: continue the one before if it asked the same, refuse if it asked something else.

    Args:
        store: Where the table of runs is.
        name: The recipe's name; runs of one name and job follow each other.
        job: The job.
        config: The semantic keys that the job depends on.
        inputs: Input tables and the versions to read.
        fresh: Start anew where the run would be refused.
        incremental: The job's tables are those of all recipes under `work`, and follow their input: the run
            before is the last of any name, and another version of its input is no reason to refuse.

    Raises:
        ResumeError: If the run before had another recipe or input, and `fresh` is not set.
    """
    table = store.table(RUNS.name)
    table.create(RUNS)
    runs = history(store, None if incremental else name, job)
    before = runs[0] if runs else None
    digest = config_hash(config)
    same_config = before is not None and before["config_hash"] == digest
    if before is not None and same_config and before["inputs"] == dict(inputs):
        done = _result(before, unchanged=True) if before["status"] == "finished" else None
        if done is None:
            logger.info("%s: resuming the run of %s", job, before["started"])
        return Run(table, before, runs, finished=done)
    if before is not None and not fresh and not (incremental and same_config):
        raise ResumeError(_refusal(job, before, config, inputs, "work" if incremental else "name"))
    run = Run(table, _new_row(name, job, config, digest, inputs), runs)
    table.append(run.frame(), run.commit("started"))
    return run


def history(store: Store, name: str | None, job: str) -> list[dict[str, Any]]:
    """The runs of a job under a recipe's name (or any name), the latest first."""
    table = store.table(RUNS.name)
    if not table.exists():
        return []
    rows = table.read().where(F.col("job") == job)
    rows = rows.where(F.col("name") == name) if name is not None else rows
    found = [row.asDict() for row in rows.collect()]
    return sorted(found, key=lambda row: (row["started"], row["run_id"]), reverse=True)


def _new_row(name: str, job: str, config: Mapping[str, Any], digest: str, inputs: Mapping[str, str]) -> dict[str, Any]:
    return {
        "run_id": uuid4().hex,
        "name": name,
        "job": job,
        "status": "started",
        "started": _now(),
        "finished": None,
        "config": json.dumps(config, sort_keys=True),
        "config_hash": digest,
        "algorithm_version": ALGORITHM_VERSION,
        "package_version": __version__,
        "inputs": dict(inputs),
        "outputs": {},
        "rows_in": None,
        "rows_out": None,
        "set_aside": {},
        "metrics": {},
    }


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _result(row: Mapping[str, Any], *, unchanged: bool) -> Result:
    return Result(
        job=row["job"],
        unchanged=unchanged,
        rows_in=row["rows_in"],
        rows_out=row["rows_out"],
        set_aside=dict(row["set_aside"]),
        outputs=dict(row["outputs"]),
        metrics=dict(row["metrics"]),
    )


def _refusal(
    job: str, before: Mapping[str, Any], config: Mapping[str, Any], inputs: Mapping[str, str], other: str
) -> str:
    old, new = _flat(json.loads(before["config"])), _flat(config)
    old |= {f"input {table}": version for table, version in before["inputs"].items()}
    new |= {f"input {table}": version for table, version in inputs.items()}
    if before["algorithm_version"] != ALGORITHM_VERSION:
        old["algorithm_version"], new["algorithm_version"] = before["algorithm_version"], ALGORITHM_VERSION
    changes = [
        f"{key} was {_shown(old, key)}, is now {_shown(new, key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    state = "was begun" if before["status"] == "started" else "was done"
    return (
        f"{job} of {before['name']!r} {state} with another recipe or input: {'; '.join(changes)}. To start anew, "
        f"add --fresh (it replaces what is there) or choose another {other} (--set {other}=...)."
    )


def _shown(values: Mapping[str, Any], key: str) -> str:
    return str(values[key]) if key in values else "absent"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
