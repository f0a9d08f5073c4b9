"""The cluster job on 0.25 to 2 million rows at one k: how time grows with the rows, and whether the driver grows.

Each size runs in a process of its own, with a JVM (driver and executors in one) of 1 GiB: less than the largest data,
3 GiB.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.data import figures_of, mixture, write_parquet
from benchmarks.machine import MIB, resident
from lakestrata.jobs import cluster, session
from lakestrata.jobs.recipe import Recipe

SIZES = [250_000, 500_000, 1_000_000, 2_000_000]
_PART = 250_000
_JVM = "1g"


def one(folder: Path, n: int) -> dict[str, float]:
    """Seconds of the job, and memory of its driver at the end."""
    session._LOCAL_CONFS["spark.driver.memory"] = _JVM
    spark = session.get_session()
    options = {"levels": [1000, 100], "resampling": None, "max_iter": 3, "tol": 0.0, "checkpoint_seconds": 3600.0}
    table = folder / f"rows-{n}"
    spark.sql(f"CONVERT TO DELTA parquet.`{table}`")
    recipe = Recipe.model_validate(
        {"name": "scaling", "embeddings": {"table": str(table)}, "work": str(folder / f"work-{n}"), "cluster": options}
    )
    started = perf_counter()
    cluster.run(spark, recipe)
    seconds = perf_counter() - started
    for _ in range(3):
        spark._jvm.System.gc()
    runtime = spark._jvm.Runtime.getRuntime()
    heap = runtime.totalMemory() - runtime.freeMemory()
    return {"seconds": seconds, "driver_mb": (resident() + heap) / MIB}


def measure(folder: Path) -> dict[str, float]:
    """The slope of log time over log rows, and the largest driver over the smallest."""
    found = []
    for n in SIZES:
        for first in range(0, n, _PART):
            write_parquet(folder / f"rows-{n}", mixture(_PART, seed=first), first)
        out = folder / "one.json"
        subprocess.run([sys.executable, "-m", "benchmarks.scaling", str(folder), str(out), str(n)], check=True)
        found.append(json.loads(out.read_text()))
        subprocess.run(["rm", "-rf", str(folder / f"rows-{n}"), str(folder / f"work-{n}")], check=True)
    seconds = [each["seconds"] for each in found]
    memory = [each["driver_mb"] for each in found]
    figures = {f"rows_{n}_seconds": value for n, value in zip(SIZES, seconds, strict=True)}
    figures |= {f"rows_{n}_driver_mb": value for n, value in zip(SIZES, memory, strict=True)}
    slope = float(np.polyfit(np.log(SIZES), np.log(seconds), 1)[0])
    return figures | {"rows_exponent": slope, "driver_growth": max(memory) / min(memory)}


if len(sys.argv) > 3:
    Path(sys.argv[2]).write_text(json.dumps(one(Path(sys.argv[1]), int(sys.argv[3]))))
else:
    figures_of(measure)
