"""The report of the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

BENCHMARKS = ("passes", "fit", "mllib", "hierarchy", "scaling", "curation")
# Name, what it is, and what it should be.
RATIOS = (
    ("pass_k1000_files", "a pass, k = 1,000, blocks in files / bare product and arg-max in numpy", "<= 1.4"),
    ("pass_k1000_cache", "a pass, k = 1,000, blocks in Spark's cache / the same", "<= 2.2"),
    ("pass_k10000_files", "a pass, k = 10,000, blocks in files / the same", "<= 1.1"),
    ("fit_seconds_over_faiss", "a fit through Spark to faiss's cost / faiss.Kmeans, 10 iterations, no Spark", "<= 1.0"),
    ("fit_cost_over_faiss", "its cost a row / faiss's", "<= 1.0"),
    ("mllib_seconds_over_ours", "an iteration of Spark MLlib's KMeans / a pass of ours", ">= 40"),
    ("rows_exponent", "slope of log time over log rows, 0.25 to 2 million", "<= 1.05"),
    ("driver_growth", "driver's memory on 2 million rows / on 0.25 million", "<= 1.1"),
)
FIGURES = (
    ("pass_k1000_bare_seconds", "bare product and arg-max, k = 1,000, s"),
    ("pass_k1000_files_seconds", "a pass, files, s"),
    ("pass_k1000_cache_seconds", "a pass, cache, s"),
    ("pass_k10000_bare_seconds", "bare product and arg-max, k = 10,000, s"),
    ("pass_k10000_files_seconds", "a pass, files, s"),
    ("faiss_seconds", "faiss.Kmeans, 10 iterations, s"),
    ("faiss_cost", "its cost a row"),
    ("fit_seconds_to_faiss_cost", "ours, from seeding to that cost, s"),
    ("fit_converged_seconds", "ours, until a pass gains less than 1e-4, s"),
    ("fit_converged_cost", "its cost a row"),
    ("fit_full_passes", "its passes over all rows"),
    ("mllib_seconds", "MLlib, an iteration, s"),
    ("hierarchy_seconds", "23,700 x 384 sentences, levels 3000/600/150, 10 rounds, r = 4/2/2: the whole job, s"),
    ("hierarchy_peak_mb", "its most memory, Python, JVM and workers together, MiB"),
    *((f"rows_{n}_seconds", f"{n:,} rows, the whole job, s") for n in (250_000, 500_000, 1_000_000, 2_000_000)),
    *((f"rows_{n}_driver_mb", f"{n:,} rows, driver, MiB") for n in (250_000, 500_000, 1_000_000, 2_000_000)),
)


def write(found: Mapping[str, float], machine: str, path: Path) -> str:
    """Write the report, and give its tables."""
    tables = [table(("name", "what", "should be", "is"), _ratios(found))]
    tables.append(table(("what", "is"), _figures(found)))
    gains = _gains(found)
    if gains:
        tables.append(table(("classes", "gain in entropy", "gain of a linear probe"), gains))
    if "hierarchy_cost_level_1" in found:
        tables.append(table(("level", "resampled", "ours, plain", "scikit-learn"), _levels(found)))
    notes = (
        "Data: 500,000 x 384 float32 around 2,000 normal centres, masses 1 / rank^1.3, unit noise, unless another is "
        "named. All in one process tree on the same cores, medians of alternating runs. A pass finds the nearest "
        "centroid of every row exactly, and the exact sums. In the table of levels cost is the mean squared distance "
        "of a level's input to its centroids, on the same input for the last two columns; resampling is meant to cost "
        "more. A gain is how far curation with `auto` levels and temperature, which sees no classes, goes of the way "
        "from random sets (0) to sets that are even by class (1); [CURATION.md](CURATION.md) says what was run, and "
        "has other recipes beside it."
    )
    report = "\n\n".join(["# Benchmarks", "`make bench` measured on: " + machine, notes, *tables]) + "\n"
    path.write_text(report)
    return "\n\n".join(tables) + "\n"


def _ratios(found: Mapping[str, float]) -> list[tuple[str, ...]]:
    return [(name, what, bound, f"{found[name]:.3g}") for name, what, bound in RATIOS if name in found]


def _figures(found: Mapping[str, float]) -> list[tuple[str, ...]]:
    return [(what, f"{found[name]:,.4g}") for name, what in FIGURES if name in found]


def _levels(found: Mapping[str, float]) -> list[tuple[str, ...]]:
    kinds = ("_resampled", "", "_sklearn")
    return [(str(t), *(f"{found[f'hierarchy_cost_level_{t}{kind}']:.4g}" for kind in kinds)) for t in (1, 2, 3)]


def _gains(found: Mapping[str, float]) -> list[tuple[str, ...]]:
    """The gains of curation, a row a set and cut."""
    kinds = ("auto_entropy_gain_", "auto_probe_gain_")
    lakes = {name.removeprefix(kind) for name in found for kind in kinds if name.startswith(kind)}
    return [
        (_lake_name(lake), *(_signed(found.get(kind + lake)) for kind in kinds)) for lake in sorted(lakes, key=_order)
    ]


def _order(lake: str) -> tuple[str, bool, int]:
    name, imbalance, *background = lake.split("_")
    return name, bool(background), int(imbalance)


def _lake_name(lake: str) -> str:
    name, has_background, imbalance = _order(lake)
    return f"{name}, largest class / smallest = {imbalance}" + ", with a background" * has_background


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
