"""Items set aside: written by job and recipe, counted by reason."""

from __future__ import annotations

from pyspark.sql import DataFrame

from ..schemas.tables import QUARANTINE
from .runs import Run
from .store import DeltaTable, Store
from .vectors import quarantine_rows


def publish_aside(
    store: Store, aside: DataFrame, n_aside: int, name: str, job: str, current: Run, where: str
) -> dict[str, int]:
    """Put the rows that a job set aside into quarantine, in the place of those of its earlier run.

    Args:
        store: Where the table is.
        aside: Columns id (string), content_hash, reason, detail.
        n_aside: How many they are; a table that has none and gets none is not written.
        name: The recipe's name.
        job: The job.
        current: Its run.
        where: SQL condition for the rows to replace; the new ones meet it.

    Returns:
        Rows now in quarantine that meet the condition, by reason.
    """
    table = store.table(QUARANTINE.name)
    table.create(QUARANTINE)
    if n_aside or count_aside(table, where):
        table.replace(quarantine_rows(aside, name, job), where, current.commit("aside"))
    return count_aside(table, where)


def count_aside(table: DeltaTable, where: str) -> dict[str, int]:
    """Rows in quarantine that meet a condition, by reason."""
    return {row["reason"]: row["count"] for row in table.read().where(where).groupBy("reason").count().collect()}
