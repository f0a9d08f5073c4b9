"""One full pass through Spark, exact sums and re-check included, over the bare product and arg-max in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import figures_of, mixture, points_of, shared_parquet
from benchmarks.machine import Clock
from lakestrata.jobs.session import get_session
from lakestrata.udfs.points import DataFramePoints

RUNS = {1_000: 5, 10_000: 2}
CHUNK = {1_000: 1024, 10_000: 512}  # rows of a product: of 256 to 16,384 the fastest here


def bare(x: NDArray[np.float32], c: NDArray[np.float32]) -> float:
    """Seconds of the float32 product with all centroids and its arg-max, on all cores."""
    transposed = np.ascontiguousarray(c.T)
    with Clock() as clock:
        for start in range(0, len(x), CHUNK[len(c)]):
            (x[start : start + CHUNK[len(c)]] @ transposed).argmax(axis=1)
    return clock.seconds


def ours(points: DataFramePoints, c: NDArray[np.float32]) -> float:
    """Seconds of one step."""
    with Clock() as clock:
        points.step(c)
    return clock.seconds


def measure(folder: Path) -> dict[str, float]:
    """Medians of alternating runs."""
    x = mixture()
    rows = get_session().read.parquet(str(shared_parquet(folder)))
    figures = {}
    for scratch, sizes in (("files", (1_000, 10_000)), ("cache", (1_000,))):
        points = points_of(get_session(), rows, folder / scratch, scratch)
        for k in sizes:
            c = points.sample(k, 1).x.copy()
            plain = points.grid.to_float(c)
            ours(points, c)  # the first pass fills the cache and starts the workers
            pairs = [(bare(x, plain), ours(points, c)) for _ in range(RUNS[k])]
            floor, seconds = np.median(pairs, axis=0)
            figures[f"pass_k{k}_{scratch}"] = seconds / floor
            figures[f"pass_k{k}_{scratch}_seconds"] = seconds
            figures[f"pass_k{k}_bare_seconds"] = floor
    return figures


figures_of(measure)
