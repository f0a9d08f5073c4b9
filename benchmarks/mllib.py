"""A full iteration of Spark MLlib's KMeans over one of ours: same data, same cores, same k."""

from __future__ import annotations

from pathlib import Path

from pyspark.ml.clustering import KMeans
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from benchmarks.data import figures_of, points_of, shared_parquet
from benchmarks.machine import Clock
from lakestrata.jobs.session import get_session

K = 1_000


def seconds_of_mllib(rows: DataFrame, iterations: int) -> float:
    """Seconds of a fit with random starting points."""
    machine = KMeans(k=K, initMode="random", maxIter=iterations, seed=1, tol=0.0, featuresCol="embedding")
    with Clock() as clock:
        machine.fit(rows)
    return clock.seconds


def measure(folder: Path) -> dict[str, float]:
    """An iteration of MLlib is what a fit of two takes more than a fit of one."""
    rows = get_session().read.parquet(str(shared_parquet(folder)))
    vectors = rows.select(array_to_vector(F.col("embedding")).alias("embedding")).persist()
    vectors.count()
    one, two = (seconds_of_mllib(vectors, iterations) for iterations in (1, 2))
    vectors.unpersist()
    points = points_of(get_session(), rows, folder / "mllib", "files")
    centroids = points.sample(K, 1).x.copy()
    points.step(centroids)
    with Clock() as clock:
        for _ in range(3):
            points.step(centroids)
    return {"mllib_seconds_over_ours": 3 * (two - one) / clock.seconds, "mllib_seconds": two - one}


figures_of(measure)
