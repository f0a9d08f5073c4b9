"""When curation helps: how even picks are over classes that curation does not see, and what is learned from them.

Without Spark: levels, trees, quotas and weights are made by the functions that the jobs call, on arrays.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.data import figures_of
from benchmarks.lakes import EMBEDDINGS, LABELLED, MOST_ITEMS, Cut, Labelled, Lake, cut_lake, cuts_of, labelled_sets
from benchmarks.report import table
from lakestrata.jobs.levels import fit_options, level_specs, metric_of
from lakestrata.jobs.recipe import Cluster
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.balance import outlying, ways_to_share
from lakestrata.kmeans.choice import LabelledTable, Weights, choose_by_labels
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.metrics import even_counts, evenness, linear_probe
from lakestrata.kmeans.nearest import Centroids, ranks_of
from lakestrata.kmeans.quotas import Quotas, tree_quotas, tree_weights
from lakestrata.kmeans.rows import Rows
from lakestrata.kmeans.tree import build

SEEDS = 5
SHARES = (20, 6)  # one pick of so many items
DRAWS = 5
LEAST_WAY = 0.005  # from random sets to even ones: below it a share of the way is noise
RANDOM, EVEN, AUTO = "random", "even by class", "auto"
FIGURES = ("entropy", "probe")


@dataclass(frozen=True)
class Tree:
    """A tree over a lake.

    Attributes:
        parents: As `tree_quotas` takes them.
        labels: Level-1 cluster of each item.
        leaves: Centroids of level 1 in steps of the grid.
        grid: It covers the items, and what is labelled.
    """

    parents: list[NDArray[np.int64]]
    labels: NDArray[np.int64]
    leaves: NDArray[np.float32]
    grid: Grid

    @property
    def items(self) -> NDArray[np.int64]:
        """Of each cluster of level 1."""
        return np.bincount(self.labels, minlength=len(self.leaves))


@dataclass(frozen=True)
class Method:
    """A way to pick from a tree.

    Attributes:
        tree: Which of `TREES`.
        n_levels: Of them from the bottom; those above are as if never made.
        temperature: As in a recipe: a number, or "auto" for what is around clusters.
        outliers: As in a recipe.
        labels: Whether a few labels of every class are known.
    """

    tree: str
    n_levels: int
    temperature: float | str = 0.0
    outliers: float = 0.0
    labels: bool = False


@dataclass(frozen=True)
class Record:
    """What was found on one lake with picks of one size; all figures by method."""

    set: str
    cut: str
    seed: int
    items: int
    picks: int
    entropy: dict[str, float]
    probe: dict[str, float]


def _falling(*clusters: int) -> list[int]:
    """Levels that fall from the bottom to the top, however few the items."""
    return sorted({max(1, k) for k in clusters}, reverse=True)


TREES: dict[str, Callable[[int], Cluster]] = {
    "resampled": lambda n: Cluster(levels=_falling(n // 8, n // 32, n // 128, n // 512)),
    "plain": lambda n: Cluster(levels=_falling(n // 8, n // 32, n // 128, n // 512), resampling=None),
    "resampled, cosine": lambda n: Cluster(levels=_falling(n // 8, n // 32, n // 128), metric="cosine"),
    "plain, cosine": lambda n: Cluster(levels=_falling(n // 8, n // 32, n // 128), resampling=None, metric="cosine"),
    "low": lambda n: Cluster(levels=_falling(n // 20, n // 80)),
    "auto": lambda n: Cluster(),
}
METHODS = {
    "the paper's recipe: n/8, n/32, n/128, resampled": Method("resampled", 3),
    "1 level, resampled": Method("resampled", 1),
    "2 levels, resampled": Method("resampled", 2),
    "4 levels, resampled": Method("resampled", 4),
    **{f"{t} level{'s' * (t > 1)}, not resampled": Method("plain", t) for t in (1, 2, 3, 4)},
    "the paper's recipe, cosine": Method("resampled, cosine", 3),
    **{f"{t} levels, not resampled, cosine": Method("plain, cosine", t) for t in (2, 3)},
    "n/20, n/80, temperature 0.25": Method("low", 2, 0.25),
    "n/20, n/80, temperature 0.5": Method("low", 2, 0.5),
    AUTO: Method("auto", 2, "auto"),
    "auto, outliers 0.03": Method("auto", 2, "auto", 0.03),
    f"auto, {LABELLED} labels a class": Method("auto", 2, "auto", labels=True),
}


def make_tree(lake: Lake, options: Cluster, seed: int) -> Tree:
    """The tree that the cluster job makes, on arrays."""
    x = lake.items.x
    largest = max(float(np.abs(some.x).max()) for some in (lake.items, lake.known))
    grid = Grid.covering(largest, x.shape[1], metric_of(options, x.shape[1]))
    points = ArrayPoints(grid.quantize(x), np.arange(len(x)), grid)
    levels = list(build(points, level_specs(options, len(x)), seed=seed, options=fit_options(options)))
    parents = [Centroids(above).labels(Rows.of(below)) for below, above in pairwise(levels)]
    return Tree(parents, points.locate(levels[0])[0], levels[0], grid)


def quotas_of(lake: Lake, tree: Tree, method: Method, size: int, seed: int) -> NDArray[np.int64]:
    """Quotas of the leaves as jobs/shares.py shares them."""
    parents, items = tree.parents[: method.n_levels - 1], tree.items
    if method.outliers:
        items = np.where(outlying(tree.leaves, items, method.outliers), 0, items)
    if method.temperature != "auto":
        return tree_quotas(parents, items, size, temperature=float(method.temperature), seed=seed)[0].quota

    def weighed(weights: Weights, size: int) -> Quotas:
        down = None if weights is None else tree_weights(parents, weights, 1, len(items))
        return tree_quotas(parents, items, size, weights=down, seed=seed)[0]

    if not method.labels:
        return weighed(next(ways_to_share(tree.leaves, items))[1], size).quota
    known = LabelledTable(tree.grid.quantize(lake.known.x), lake.known.y, tree.leaves, items, tree.grid)
    choice = choose_by_labels(known, lambda weights, size: weighed(weights, size).expected)
    return weighed(choice.weights, size).quota


def picks_of(lake: Lake, tree: Tree, method: Method, size: int, seed: int) -> NDArray[np.intp]:
    """Rows that the sample job would pick: items of a leaf at random."""
    quota = quotas_of(lake, tree, method, size, seed)
    order = np.random.default_rng(seed).permutation(len(tree.labels))
    order = order[np.argsort(tree.labels[order], kind="stable")]
    leaf = tree.labels[order]
    return order[ranks_of(leaf) < quota[leaf]]


def even_picks(y: NDArray[np.int64], size: int, seed: int) -> NDArray[np.intp]:
    """Rows that one who knows the classes would pick."""
    rows = np.random.default_rng(seed).permutation(len(y))
    rows = rows[np.argsort(y[rows], kind="stable")]
    return rows[ranks_of(y[rows]) < even_counts(np.bincount(y), size)[y[rows]]]


def study(lake: Lake, size: int, seed: int, trees: dict[str, Tree]) -> tuple[dict[str, float], dict[str, float]]:
    """Evenness and probe of random sets, an even one, and the methods' on one lake; of random sets the mean."""
    y = lake.items.y
    sets = {RANDOM: [np.random.default_rng([seed, draw]).permutation(len(y))[:size] for draw in range(DRAWS)]}
    sets[EVEN] = [even_picks(y, size, seed)]
    sets |= {name: [picks_of(lake, trees[m.tree], m, size, seed)] for name, m in METHODS.items()}

    def entropy(rows: NDArray[np.intp]) -> float:
        return evenness(np.bincount(y[rows], minlength=lake.n_classes))

    def probe(rows: NDArray[np.intp]) -> float:
        return linear_probe(lake.items.x[rows], y[rows], lake.test.x, lake.test.y)

    def mean(figure: Callable[[NDArray[np.intp]], float]) -> dict[str, float]:
        return {name: float(np.mean([figure(rows) for rows in found])) for name, found in sets.items()}

    return mean(entropy), mean(probe)


def records_of(name: str, full: Labelled, cut: Cut, seed: int) -> list[Record]:
    """All that is found on one lake; on one thread, since lakes run side by side."""
    with threadpool_limits(1):
        lake = cut_lake(full, cut, seed)
        n = len(lake.items.y)
        trees = {kind: make_tree(lake, options(n), seed) for kind, options in TREES.items()}
        sizes = [n // share for share in SHARES]
        return [Record(name, cut.name, seed, n, size, *study(lake, size, seed, trees)) for size in sizes]


def measure(folder: Path) -> dict[str, float]:
    """Nothing where the embeddings are not at hand."""
    sets = labelled_sets()
    if not sets:
        sys.stderr.write(f"{EMBEDDINGS}: not there, so nothing was curated; LAKESTRATA_DATA names another folder\n")
        return {}
    jobs = [(name, full, cut, seed) for name, full in sets.items() for cut in cuts_of(full) for seed in range(SEEDS)]
    with get_context("fork").Pool(os.cpu_count()) as pool:
        records = []
        for result in [pool.apply_async(records_of, job) for job in jobs]:
            records += result.get()
            sys.stderr.writelines(json.dumps(asdict(record)) + "\n" for record in records[-len(SHARES) :])
    lakes = grouped(records)
    Path(__file__).with_name("CURATION.md").write_text(markdown(lakes))
    return auto_gains(lakes)


def grouped(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records by set and cut, in the order they come."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(f"{record.set}_{record.cut}", []).append(record)
    return found


def ahead(records: Sequence[Record], figure: str, method: str) -> float:
    """How far a method is ahead of random sets, mean over seeds and sizes."""
    values = [getattr(record, figure) for record in records]
    return float(np.mean([value[method] - value[RANDOM] for value in values]))


def gain(records: Sequence[Record], figure: str, method: str) -> float | None:
    """The share of the way from random sets to even ones; None where there is hardly a way to go."""
    way = ahead(records, figure, EVEN)
    return ahead(records, figure, method) / way if way >= LEAST_WAY else None


def auto_gains(lakes: dict[str, list[Record]]) -> dict[str, float]:
    """The figures that are kept."""
    found = {
        f"auto_{figure}_gain_{lake}": gain(records, figure, AUTO)
        for figure in FIGURES
        for lake, records in lakes.items()
    }
    return {name: value for name, value in found.items() if value is not None}


def markdown(lakes: dict[str, list[Record]]) -> str:
    """The tables of all methods, and what was run."""
    notes = (
        "Three sets with classes that curation does not see: scikit-learn's digits (64 pixels, 10 classes), EuroSAT "
        "(MobileNet, 1,024 numbers, 10 classes) and CLINC150 (MiniLM, 384 numbers, 150 classes, without the sentences "
        "that have none). Of each a test set is held out: 100 items a class, or 10 of CLINC150's, and at most a third. "
        "Then class number r of C in a random order keeps the largest class's items * imbalance^(-r / (C - 1)), or all "
        "it has; a column is a set and its imbalance. With a background 30% of the classes give a tenth of the lake, "
        "as one class that counts for the entropy and is not in the test set. Lakes of more than "
        f"{MOST_ITEMS:,} items are thinned at random.",
        f"Sets of a twentieth and of a sixth of the lake are picked, with {SEEDS} seeds of the cut and of the tree. "
        "Levels shrink to a quarter each from n/8 on, with ten rounds on the closest members where they are resampled, "
        "and are shared evenly (temperature 0) unless a temperature is named. The metric is l2 unless cosine is named. "
        "`auto` is what a recipe does that says nothing of levels, metric and temperature; with labels it has a table "
        f"of {LABELLED} items of every class (but the background), which are neither in the lake nor in the test set.",
        f"A gain is the share of the way from random sets (of {DRAWS} draws the mean) to a set that is even by class: "
        "how far the method is ahead of random sets, over how far the even set is, both means over seeds and sizes. "
        f"Where the even set is ahead by less than {LEAST_WAY}, the difference itself stands in brackets. The first "
        "rows are the figures themselves, the last says how much the gain of `auto` differs between seeds.",
        "The network of `auto` has learned from other sets, never from these; but how much it has to say, and the rest "
        "of the rule, was chosen with these at hand. That it does as well on sets nobody has looked at is a hope, and "
        "`evaluate` is there to tell.",
    )
    titles = ("Entropy of the classes", "Balanced accuracy of a linear probe")
    tables = [f"## {title}\n\n{_table_of(lakes, figure)}" for title, figure in zip(titles, FIGURES, strict=True)]
    return "\n\n".join(["# When curation helps", "Written by `make bench ARGS=curation`.", *notes, *tables]) + "\n"


def _table_of(lakes: dict[str, list[Record]], figure: str) -> str:
    def row(name: str, cell: Callable[[list[Record]], str]) -> tuple[str, ...]:
        return name, *map(cell, lakes.values())

    rows = [row(f"{name}: {figure}", partial(_mean, figure=figure, method=name)) for name in (RANDOM, EVEN)]
    rows += [row(name, partial(_cell, figure=figure, method=name)) for name in METHODS]
    rows.append(row("auto: standard deviation over seeds", partial(_spread, figure=figure)))
    return table(("", *(lake.replace("_", " ") for lake in lakes)), rows)


def _mean(records: Sequence[Record], figure: str, method: str) -> str:
    return f"{np.mean([getattr(record, figure)[method] for record in records]):.3f}"


def _cell(records: Sequence[Record], figure: str, method: str) -> str:
    value = gain(records, figure, method)
    return f"({ahead(records, figure, method):+.3f})" if value is None else f"{value:+.2f}"


def _spread(records: Sequence[Record], figure: str) -> str:
    gains = [gain([r for r in records if r.seed == seed], figure, AUTO) for seed in sorted({r.seed for r in records})]
    known = [value for value in gains if value is not None]
    return f"{np.std(known, ddof=1):.2f}" if len(known) > 1 else ""


if __name__ == "__main__":
    figures_of(measure)
