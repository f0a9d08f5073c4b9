"""A fit of 1,000 clusters through Spark, from seeding to faiss's cost, over faiss's own time without Spark."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import faiss
import numpy as np

from benchmarks.data import D, figures_of, mixture, points_of, shared_parquet
from benchmarks.machine import Clock
from lakestrata.jobs.session import get_session
from lakestrata.kmeans.lloyd import Options, fit

K, ITERATIONS = 1_000, 10


def faiss_fit() -> tuple[float, float]:
    """Seconds of ten full iterations in one process, and the cost a row after them."""
    x = mixture()
    machine = faiss.Kmeans(D, K, niter=ITERATIONS, seed=1, max_points_per_centroid=len(x))
    with Clock() as clock:
        machine.train(x)
    return clock.seconds, float(machine.index.search(x, 1)[0].mean(dtype=np.float64))


def measure(folder: Path) -> dict[str, float]:
    """faiss first, alone; then ours."""
    seconds, cost = faiss_fit()
    rows = get_session().read.parquet(str(shared_parquet(folder)))
    points = points_of(get_session(), rows, folder / "fit", "files")
    points.step(points.sample(2, 0).x.copy())  # starts the workers
    reached: list[tuple[float, float]] = []
    plain_step = points.step
    started = perf_counter()

    def step(centroids, batch=0):  # type: ignore[no-untyped-def]
        done = plain_step(centroids, batch)
        cost_of_row = done.cost * points.grid.step**2 / points.n
        if not batch and cost_of_row <= cost:
            reached.append((perf_counter() - started, cost_of_row))
        return done

    points.step = step  # type: ignore[method-assign]
    fitted = fit(points, K, seed=0, options=Options(tol=1e-4), name="fit")
    whole = perf_counter() - started
    return {
        "fit_seconds_over_faiss": reached[0][0] / seconds,
        "fit_cost_over_faiss": reached[0][1] / cost,
        "fit_seconds_to_faiss_cost": reached[0][0],
        "fit_converged_seconds": whole,
        "fit_converged_cost": fitted.step.cost * points.grid.step**2 / points.n,
        "fit_full_passes": float(fitted.n_iter + 1),
        "faiss_seconds": seconds,
        "faiss_cost": cost,
    }


figures_of(measure)
