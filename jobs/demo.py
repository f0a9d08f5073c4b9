"""The demo: handwritten digits, made long-tailed, from PNG bytes to a balanced set and a picture of it."""

from __future__ import annotations

import io
from importlib import import_module
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from rich.console import Console
from rich.table import Table as Grid

from ..kmeans.hashing import mix64
from ..schemas.errors import LakestrataError
from ..schemas.tables import DIGITS
from . import curate
from .recipe import Recipe
from .runs import Result
from .store import Commit, DeltaTable, Store

_TAIL = 0.7  # each digit is that much rarer than the one before


def run(spark: SparkSession, recipe: Recipe, console: Console, *, fresh: bool = False) -> list[Result]:
    """Make the source table, curate it, and show what went in and came out.

    Args:
        spark: The session.
        recipe: The demo's recipe; its source table is made if it is missing.
        console: Where to print.
        fresh: Start anew where the recipe changed.

    Returns:
        The result of each job.
    """
    if recipe.source is None or recipe.sample is None:
        raise LakestrataError("demo: the recipe has no source or no sample; use the one that comes along.")
    source = DeltaTable(spark, recipe.source.table)
    if not source.exists():
        with console.status("writing 1,797 digits with a long tail as PNG into a Delta table"):
            _write_source(spark, source)
    with console.status("embedding, clustering, sampling (a minute or two)"):
        results = curate.run(spark, recipe, fresh=fresh)
    store = Store(spark, recipe.work)
    curated = store.table("curated")
    model_id = results[-1].outputs["model_id"]
    before = source.read().select("id", "digit", "image").toArrow()
    after = curated.read().where(f"model_id = '{model_id}'").select("id").toArrow()
    labels, chosen = before["digit"].to_numpy(), np.isin(before["id"].to_numpy(), after["id"].to_numpy())
    picture = Path(recipe.work) / "before_and_after.png"
    _draw(labels, chosen, picture)
    _report(console, store, results, labels, chosen, picture)
    return results


def import_libraries() -> None:
    """Import what the demo needs; the ten seconds this can take fit into the start of Spark."""
    for name in ("torch", "sklearn.datasets", "matplotlib.pyplot"):
        import_module(name)


def evenness(labels: NDArray[np.int64]) -> float:
    """Entropy of class counts over that of an even spread on ten classes: 1 is even."""
    shares = np.bincount(labels, minlength=10) / len(labels)
    return float(-sum(p * log(p) for p in shares if p) / log(10))


def long_tail(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which items the long-tailed lake keeps: of digit j a share of 0.7^j, by a fixed hash of the row number."""
    words = mix64(np.arange(len(labels), dtype=np.uint64), 0)
    return words < np.array([2**64 * _TAIL**j - 1 for j in range(10)])[labels]


def _write_source(spark: SparkSession, source: DeltaTable) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = []
    for row in np.flatnonzero(long_tail(digits.target)):
        png = io.BytesIO()
        Image.fromarray((digits.images[row] * (255 / 16)).astype(np.uint8)).save(png, "PNG")
        rows.append((int(row), png.getvalue(), int(digits.target[row])))
    source.create(DIGITS)
    source.append(spark.createDataFrame(rows, DIGITS.schema), Commit("demo", "source", ""))


def _report(
    console: Console,
    store: Store,
    results: list[Result],
    labels: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    picture: Path,
) -> None:
    for result in results:
        console.print(str(result), highlight=False)
    counts = Grid("digit", *map(str, range(10)), "evenness", box=None, pad_edge=False)
    for name, part in (("in the lake", labels), ("curated", labels[chosen])):
        counts.add_row(name, *map(str, np.bincount(part, minlength=10)), f"{evenness(part):.3f}")
    console.print(counts, "(evenness: 1 is even; the labels serve this print only)", sep="\n", highlight=False)
    for name in ("embeddings", "assignments", "centroids", "curated", "quotas", "runs"):
        console.print(f"{name:12}{store.table(name).name}", highlight=False, soft_wrap=True)
    console.print(f"{'picture':12}{picture.resolve()}", highlight=False, soft_wrap=True)
    tried = "lakestrata demo --set sample.size=300 --fresh"
    own = "lakestrata recipes images > mine.yaml; lakestrata curate --config mine.yaml"
    judge = "lakestrata evaluate --config demo"
    console.print(f"{'try next':12}{judge}\n{'':12}{tried}\n{'':12}{own}", highlight=False, soft_wrap=True)


def _draw(labels: NDArray[np.int64], chosen: NDArray[np.bool_], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    panels: list[tuple[Any, str, NDArray[np.int64], str]] = [
        (axes[0], "In the lake", labels, "#8a94a6"),
        (axes[1], "Curated", labels[chosen], "#1b7f79"),
    ]
    for axis, title, part, colour in panels:
        counts = np.bincount(part, minlength=10)
        bars = axis.bar(range(10), counts, color=colour)
        axis.bar_label(bars, fontsize=8)
        axis.set_title(f"{title}: {len(part):,} digits, evenness {evenness(part):.2f}", fontsize=10)
        axis.set_xticks(range(10))
        axis.set_xlabel("digit")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("items")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
