"""The plan job: what clustering will cost, and what of it will not fit, before any of it is done."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ..kmeans.advice import WORKER_BYTES, Finding, findings, readable_bytes, readable_time
from ..kmeans.cost import Estimate, LevelCost, Machines, estimate
from ..kmeans.work import Workload
from ..schemas.errors import ConfigurationError, LakestrataError
from .levels import fit_options, level_specs, metric_of, told_of_auto
from .rates import core_rate, gpu_rate
from .recipe import Cluster, Recipe

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

_CORE_BYTES = 4 << 30  # of memory a core, for Python: what machines at hand usually have
# NVIDIA's data sheet gives an A100 156 TFLOP/s at its peak in tf32; products of this shape reach some two thirds.
_ASSUMED_GPU_RATE = 100e12 / 2
_ASSUMED_GPU = "assumed: an A100 in tf32, at 100 of its 156 TFLOP/s; no GPU is here to measure"


@dataclass(frozen=True)
class Plan:
    """What clustering a recipe's items will cost.

    Attributes:
        name: Of the recipe.
        size: Where n and d are from.
        estimate: Bytes, memory, passes and arithmetic.
        machines: What the time is reckoned for.
        machines_text: The same, in words.
        findings: What will not fit.
        levels: What levels `auto` come to; None where the recipe names them.
    """

    name: str
    size: str
    estimate: Estimate
    machines: Machines
    machines_text: str
    findings: tuple[Finding, ...]
    levels: str | None = None

    @property
    def is_possible(self) -> bool:
        """Whether the cluster job would begin."""
        return not any(finding.is_fatal for finding in self.findings)

    def print_to(self, console: Console) -> None:
        """Print tables for people: a row a level, then the sums, then what will not fit."""
        console.print(_level_table(self))
        console.print()
        lines = [f"{name:12}{text}" for name, text in _sums(self).items()]
        lines += ["", *(finding.text for finding in self.findings)] if self.findings else ["", "Everything fits."]
        for line in lines:
            console.print(line, soft_wrap=True, markup=False, highlight=False)


def run(spark: SparkSession | None, recipe: Recipe, cores: int | None = None, gpus: int | None = None) -> Plan:
    """Plan the clustering of a recipe's items.

    Args:
        spark: The session; not needed where the recipe gives `plan.rows` and `plan.dimension`.
        recipe: What to cluster, and how.
        cores: Of all executors; by default `plan.cores`, or those of this machine.
        gpus: Of all executors; by default `plan.gpus`, or none.

    Raises:
        ConfigurationError: If it is not known how many vectors of which length there are, or the tree cannot be.
    """
    n, d, size = size_of(spark, recipe)
    options = recipe.cluster
    cores = cores or recipe.plan.cores or os.cpu_count() or 1
    gpus = (recipe.plan.gpus or 0) if gpus is None else gpus
    if gpus and options.device == "cpu":
        raise ConfigurationError([f"cluster.device: cpu leaves {gpus} GPUs idle: set auto or cuda, or plan for none."])
    made = estimate(workload(options, n, d, cores))
    while (tasks := max(1, cores // _cores_of_a_task(made))) < made.load.tasks:  # of fewer tasks each takes more
        made = estimate(workload(options, n, d, tasks))
    heaviest = max(made.levels, key=lambda level: level.expected.multiply_adds + level.expected.driver_multiply_adds)
    machines, text = _machines(heaviest.spec.groups or heaviest.spec.n_clusters, d, cores, gpus)
    return Plan(
        recipe.name, size, made, machines, text, tuple(findings(made, machines=machines)), told_of_auto(options, n, d)
    )


def check(options: Cluster, n: int, d: int, tasks: int | None = None) -> None:
    """Refuse a tree that the driver or no worker has room for; warn of what else will not fit.

    Args:
        options: The tree.
        n: Vectors.
        d: Coordinates of each.
        tasks: That run at a time; by default one a core of this machine. The fewer, the more each takes.

    Raises:
        ConfigurationError: With one line for each thing that would end the run, and the setting that does not.
    """
    found = findings(estimate(workload(options, n, d, tasks or os.cpu_count() or 1)))
    for finding in found:
        if not finding.is_fatal:
            logger.warning("%s", finding.text)
    fatal = [f"cluster: {finding.text}" for finding in found if finding.is_fatal]
    if fatal:
        raise ConfigurationError(fatal)


def workload(options: Cluster, n: int, d: int, tasks: int) -> Workload:
    """A recipe's tree over n vectors of d coordinates, as the cost model takes it."""
    return Workload(
        n,
        d,
        tuple(level_specs(options, n)),
        options=fit_options(options),
        metric=metric_of(options, d),
        driver_bytes=options.driver_bytes,
        tasks=tasks,
    )


def needs_spark(recipe: Recipe) -> bool:
    """Whether the table must be looked at to know how many vectors of which length there are."""
    return recipe.plan.rows is None or recipe.plan.dimension is None


def size_of(spark: SparkSession | None, recipe: Recipe) -> tuple[int, int, str]:
    """Number of vectors, their length, and where these are from.

    Raises:
        ConfigurationError: If it can be known neither from the recipe nor from its table.
    """
    rows, dimension = recipe.plan.rows, recipe.plan.dimension
    if rows is not None and dimension is not None:
        return rows, dimension, "as plan.rows and plan.dimension say"
    if spark is None:
        raise ConfigurationError([_unknown("without Spark no table can be looked at")])
    vectors, items, name = _tables(spark, recipe)
    if rows is None:
        rows = items.count()
        if not rows:
            raise ConfigurationError([_unknown(f"{name} has no rows")])
    if dimension is not None:
        return rows, dimension, f"rows of {name}, dimension as plan.dimension says"
    if vectors is None:
        raise ConfigurationError([_unknown(f"the items of {name} are not embedded yet")])
    from .vectors import dimension_of

    told = "" if recipe.plan.rows is None else ", rows as plan.rows says"
    return rows, dimension_of(vectors, name), f"of {name}{told}"


def _tables(spark: SparkSession, recipe: Recipe) -> tuple[DataFrame | None, DataFrame, str]:
    """Vectors, if there are any yet; items; and the name of the table."""
    from pyspark.sql import functions as F

    from .inputs import check_inputs
    from .store import Store, open_rows

    if recipe.source:
        table = Store(spark, recipe.work).table("embeddings")
        if table.exists():
            return table.read(), table.read(), table.name
    given = recipe.source or recipe.embeddings
    if given is None:  # the recipe's own check rules this out
        raise ConfigurationError([_unknown("the recipe names no table")])
    try:
        rows = open_rows(spark, given.table)
    except LakestrataError as error:
        raise ConfigurationError([_unknown(error.message.rstrip("."))]) from None
    check_inputs(spark, recipe)
    rows = rows.where(given.where) if given.where else rows
    if recipe.embeddings is None:
        return None, rows, given.table
    return rows.select(F.col(f"`{recipe.embeddings.column}`").alias("embedding")), rows, given.table


def _unknown(why: str) -> str:
    return f"plan: {why}; say how many of which length, as in --set plan.rows=1000000 --set plan.dimension=768."


def _machines(k: int, d: int, cores: int, gpus: int) -> tuple[Machines, str]:
    core, here = core_rate(k, d), os.cpu_count() or 1
    text = f"{cores:,} cores of {_power(core)} multiply-adds a second (measured here, float32)"
    rate = cores * core
    if gpus:
        measured = gpu_rate(k, d)
        gpu = measured or _ASSUMED_GPU_RATE
        text = f"{gpus:,} GPUs of {_power(gpu)} ({'measured here' if measured else _ASSUMED_GPU}), beside {text}"
        rate = gpus * gpu
    return Machines(cores, rate, here * core), f"{text}; the driver has {here}, as this machine"


def _cores_of_a_task(made: Estimate) -> int:
    """Cores whose memory together is what a worker takes; a machine's, where it takes more."""
    return max(1, ceil(min(made.worker_bytes, WORKER_BYTES) / _CORE_BYTES))


def _level_table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "level",
        "points",
        "clusters",
        "made",
        "on",
        "passes",
        "multiply-adds",
        "shuffled",
        "worker",
        "driver",
    ):
        table.add_column(name, justify="left" if name in ("made", "on") else "right")
    table.add_column("time", justify="right")
    for number, level in enumerate(plan.estimate.levels, start=1):
        table.add_row(str(number), *_level_cells(level), readable_time(plan.machines.seconds(level, level.expected)))
    return table


def _level_cells(level: LevelCost) -> list[str]:
    spec, work = level.spec, level.expected
    made = f"{spec.rounds} rounds of {spec.size:,}" if spec.rounds else "at once"
    if spec.groups:
        made = f"{spec.groups:,} x {spec.n_clusters // spec.groups:,}"
    usual, most = level.passes
    return [
        f"{level.points:,}",
        f"{spec.n_clusters:,}",
        made,
        "driver" if level.on_driver else "executors",
        f"{usual:.0f}-{most:.0f}",
        _power(work.multiply_adds + work.driver_multiply_adds),
        readable_bytes(work.shuffled),
        readable_bytes(level.worker_bytes),
        readable_bytes(level.driver_bytes),
    ]


def _sums(plan: Plan) -> dict[str, str]:
    made, load, usual, most = plan.estimate, plan.estimate.load, plan.estimate.expected, plan.estimate.most
    seconds = sum(plan.machines.seconds(level, level.expected) for level in made.levels)
    longest = sum(plan.machines.seconds(level, level.most) for level in made.levels)
    blocks, worker, a_core = (readable_bytes(b) for b in (made.levels[0].block_bytes, made.worker_bytes, _CORE_BYTES))
    cores = _cores_of_a_task(made)
    tasks = f": spark.task.cpus {cores}" if cores > 1 else ""
    executors = f"{_power(usual.multiply_adds)} multiply-adds on executors, at most {_power(most.multiply_adds)}"
    driver = f"{_power(usual.driver_multiply_adds)} on the driver, at most {_power(most.driver_multiply_adds)}"
    return {
        "recipe": f"{plan.name}: {load.n:,} vectors of {load.d:,} floats ({plan.size})",
        **({"levels": plan.levels} if plan.levels else {}),
        "blocks": f"{blocks}, with what packing them takes {readable_bytes(made.scratch_bytes)} of scratch",
        "centroids": readable_bytes(sum(level.centroid_bytes for level in made.levels)),
        "shuffles": f"{readable_bytes(usual.shuffled)}, at most {readable_bytes(most.shuffled)}",
        "driver": f"{readable_bytes(made.driver_bytes)} of cluster.driver_bytes: {readable_bytes(load.driver_bytes)}",
        "workers": f"{worker} each, of {a_core} a core (assumed){tasks}",
        "arithmetic": f"{executors}; {driver}",
        "time": f"{readable_time(seconds)}, at most {readable_time(longest)}",
        "machines": plan.machines_text,
    }


def _power(count: float) -> str:
    return f"{count:.1e}".replace("e+", "e")
