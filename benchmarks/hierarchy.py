"""The cluster job on 23,700 sentences: three levels with resampling, and each level's cost beside scikit-learn's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans

from benchmarks.data import figures_of, write_parquet
from benchmarks.machine import MIB, Clock, peak_memory
from lakestrata.jobs import cluster
from lakestrata.jobs.recipe import Recipe
from lakestrata.jobs.session import get_session
from lakestrata.jobs.store import Store

SENTENCES = Path(__file__).parents[2] / "shared" / "data" / "embeddings" / "clinc150_minilm.npz"
LEVELS, MEMBERS, ROUNDS = [3000, 600, 150], [4, 2, 2], 10


def run(folder: Path, rounds: int) -> dict[str, float]:
    """Metrics of the job with so many rounds of resampling."""
    options = {"levels": LEVELS, "resampling": {"rounds": rounds, "closest": MEMBERS}}
    recipe = Recipe.model_validate(
        {
            "name": "hierarchy",
            "embeddings": {"table": str(folder / "sentences")},
            "work": str(folder / f"hierarchy-{rounds}"),
            "cluster": options,
        }
    )
    return cluster.run(get_session(), recipe).metrics


def inputs_of(folder: Path, rounds: int, x: np.ndarray) -> list[np.ndarray]:
    """The input of each level of that run: the sentences, then the centroids of the level below."""
    nodes = Store(get_session(), str(folder / f"hierarchy-{rounds}")).table("centroids").read()
    table = nodes.orderBy("level", "cluster_id").toPandas()
    below = [np.stack(table.loc[table["level"] == level, "centroid"]) for level in range(1, len(LEVELS))]
    return [x, *below]


def measure(folder: Path) -> dict[str, float]:
    """Nothing where the sentences are not at hand."""
    if not SENTENCES.exists():
        return {}
    x = np.load(SENTENCES)["embedding"].astype(np.float32)
    write_parquet(folder / "sentences", x)
    get_session()
    with peak_memory() as peak, Clock() as clock:
        resampled = run(folder, ROUNDS)
    figures = {"hierarchy_seconds": clock.seconds, "hierarchy_peak_mb": peak[-1] / MIB}
    plain = run(folder, 0)
    for level, (k, below) in enumerate(zip(LEVELS, inputs_of(folder, 0, x), strict=True), start=1):
        theirs = KMeans(k, n_init=1, random_state=0).fit(below)
        figures |= {
            f"hierarchy_cost_level_{level}_resampled": resampled[f"cost_level_{level}"],
            f"hierarchy_cost_level_{level}": plain[f"cost_level_{level}"],
            f"hierarchy_cost_level_{level}_sklearn": float(theirs.inertia_) / len(below),
        }
    return figures


figures_of(measure)
