"""Whether curation helped: a curated set beside random ones of its size and, where classes are known, an even one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from .array_points import ArrayPoints
from .grid import Grid
from .lloyd import Options
from .metrics import (
    Floats,
    Labels,
    balanced_accuracy,
    coverage_radius,
    even_counts,
    evenness,
    fit_probe,
    knn_probe,
    linear_probe,
    near_duplicates,
    nearest,
    other_neighbour,
    rank_in_class,
)
from .tree import LevelSpec, build

NEAR = 0.95  # cosine similarity of near-duplicates
_COVERED = 0.99  # share of the lake that the coverage radius is told for
_OUTLIERS = 0.01  # share of the lake that lies farthest from its neighbours
_NEIGHBOUR = 10  # the neighbour whose distance says how far out an item lies
_MOST_TESTED = 25  # held-out items of a class
_TESTED_SHARE = 5  # one in so many items of a class, at most
_REFERENCE_ITEMS, _REFERENCE_MOST = 64, 16_384  # items a cluster of the reference, and most of which it is made


@dataclass(frozen=True)
class Figure:
    """One figure of a curated set, beside those of random sets.

    Attributes:
        name: What it measures.
        curated: Its value for the curated set.
        random: Its values for random sets of the same size.
        oracle: Its value for a set that one who knows the classes would take; None without classes.
        better: 1 where more is better, -1 where less is, 0 where that depends.
    """

    name: str
    curated: float
    random: tuple[float, ...] = field(repr=False)
    oracle: float | None = None
    better: int = 1

    @property
    def mean(self) -> float:
        """Mean over the random sets."""
        return float(np.mean(self.random))

    @property
    def sd(self) -> float:
        """Standard deviation over the random sets."""
        return float(np.std(self.random, ddof=1)) if len(self.random) > 1 else 0.0

    @property
    def gain(self) -> float | None:
        """Share of the way from the random sets to the oracle; None where there is no way to go."""
        if self.oracle is None or self.better * (self.oracle - self.mean) <= 1e-9:
            return None
        return (self.curated - self.mean) / (self.oracle - self.mean)

    @property
    def outcome(self) -> str:
        """ "better" or "worse" than random sets by more than two standard deviations, or "as random"."""
        ahead = self.better * (self.curated - self.mean)
        if not self.better or abs(ahead) <= max(2 * self.sd, 1e-9):
            return "as random"
        return "better" if ahead > 0 else "worse"


def class_figures(
    lake: NDArray[np.int64], curated: NDArray[np.int64], draws: int, rng: np.random.Generator
) -> list[Figure]:
    """Evenness over the classes, and how many are there at all.

    Args:
        lake: Items of each class, shape (c,).
        curated: Copies of each class, shape (c,).
        draws: Random sets.
        rng: Draws them.
    """
    size = min(int(curated.sum()), int(lake.sum()))
    counts = _random_counts(lake, size, draws, rng)
    even = even_counts(lake, size)
    return [
        Figure(name, of(curated), tuple(map(of, counts)), of(even))
        for name, of in (("entropy of classes", evenness), ("classes covered", lambda c: float((c > 0).sum())))
    ]


def _random_counts(lake: NDArray[np.int64], size: int, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if lake.sum() < 1_000_000_000:
        return rng.multivariate_hypergeometric(lake, size, draws)
    return rng.multinomial(size, lake / lake.sum(), draws)  # of so many items hardly one is drawn twice


@dataclass(frozen=True)
class Sets:
    """Items that sets are made of, and learned from.

    Attributes:
        x: Vectors, float32, shape (n, d).
        y: Classes 0..c-1; -1 where it is not known. Shape (n,).
        copies: How often the curated set has the item, shape (n,).
        lake: Whether the item is of a uniform sample of the lake; others are there for their class. Shape (n,).
    """

    x: Floats
    y: Labels
    copies: Labels
    lake: NDArray[np.bool_]

    @property
    def size(self) -> int:
        """Items of each set."""
        return int(self.copies.sum())

    def counts(self) -> tuple[Labels, Labels]:
        """Items of the lake, and copies in the curated set, of each class, both of shape (c,)."""
        known, k = self.y >= 0, int(self.y.max()) + 1
        lake = np.bincount(self.y[known & self.lake], minlength=k)
        return lake, np.bincount(self.y[known], self.copies[known], k).astype(np.int64)

    def curated(self) -> NDArray[np.intp]:
        """Rows of the curated set, repeated ones as often."""
        return np.repeat(np.arange(len(self.x)), self.copies)

    def random(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Rows of a random set."""
        rows = np.flatnonzero(self.lake)
        return rng.permutation(rows)[: self.size]

    def even(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Rows of a set that is even over the classes, as far as there are items."""
        known = rng.permutation(np.flatnonzero(self.y >= 0))
        sizes = np.bincount(self.y[known], minlength=int(self.y.max()) + 1)
        wanted = even_counts(sizes, self.size)
        found: NDArray[np.intp] = known[rank_in_class(self.y[known]) < wanted[self.y[known]]]
        return found

    def held_out(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Rows of a test set: of each class a fifth of its items, at least one of two, and at most 25."""
        known = rng.permutation(np.flatnonzero(self.y >= 0))
        sizes = np.bincount(self.y[known])
        tested = np.minimum(_MOST_TESTED, np.maximum(sizes // _TESTED_SHARE, sizes > 1))
        found: NDArray[np.intp] = known[rank_in_class(self.y[known]) < tested[self.y[known]]]
        return found


def probe_figures(
    sets: Sets, draws: int, rng: np.random.Generator, test: tuple[Floats, Labels] | None = None
) -> list[Figure]:
    """What is learned from each set, tested on held-out items of all classes, each class counting the same.

    Args:
        sets: The items.
        draws: Random sets.
        rng: Draws them.
        test: Vectors, shape (m, d), and classes, shape (m,), of a test set; by default items are held out.

    Returns:
        The figures; none where no class has two items, so that there is nothing to test.
    """
    out = sets.held_out(rng) if test is None else np.empty(0, dtype=np.intp)
    x_test, y_test = test if test is not None else (sets.x[out], sets.y[out])
    if not len(y_test):
        return []
    usable = sets.y >= 0
    usable[out] = False
    chosen = [sets.curated(), *(sets.random(rng) for _ in range(draws)), sets.even(rng)]
    trained = [rows[usable[rows]] for rows in chosen]
    figures = []
    for name, probe in (("linear probe", linear_probe), ("nearest neighbours", knn_probe)):
        curated, *random, even = (probe(sets.x[rows], sets.y[rows], x_test, y_test) for rows in trained)
        figures.append(Figure(name, curated, tuple(random), even))
    return figures


def shape_figures(sets: Sets, draws: int, rng: np.random.Generator, seed: int) -> list[Figure]:
    """What can be said without classes.

    Args:
        sets: The items; classes are not looked at.
        draws: Random sets.
        rng: Draws them.
        seed: Of the reference clustering: another than that of the tree.
    """
    lake = sets.x[sets.lake]
    reference = _reference(lake, seed)
    far = np.quantile(_lying_out(lake, lake, np.ones(len(lake), dtype=np.intp)), 1 - _OUTLIERS)
    x, own = sets.x, sets.lake.astype(np.intp)  # items of the sample find themselves first
    measures: list[tuple[str, Callable[[NDArray[np.intp]], float], int]] = [
        ("evenness of a reference clustering", lambda rows: _evenness_in(reference, x[rows]), 1),
        ("distance to the nearest other pick", lambda rows: float(other_neighbour(x[rows]).mean()), 0),
        (f"coverage radius ({_COVERED:.0%} of the lake)", lambda rows: coverage_radius(lake, x[rows], _COVERED), -1),
        (f"near-duplicates (cosine {NEAR} and more)", lambda rows: near_duplicates(x[rows], NEAR), -1),
        (
            f"outliers (the lake has {_OUTLIERS:.0%})",
            lambda rows: float((_lying_out(x[rows], lake, own[rows]) > far).mean()),
            -1,
        ),
    ]
    chosen = [sets.curated(), *(sets.random(rng) for _ in range(draws))]
    figures = []
    for name, measure, better in measures:
        curated, *random = map(measure, chosen)
        figures.append(Figure(name, curated, tuple(random), better=better))
    return figures


def _reference(lake: Floats, seed: int) -> Floats:
    """Centroids of a clustering that the masses of the lake have little say in: two levels, the lower one resampled."""
    grid = Grid.covering(float(np.abs(lake).max()), lake.shape[1])
    points = ArrayPoints(grid.quantize(lake), np.arange(len(lake)), grid).sample(_REFERENCE_MOST, seed)
    k = int(np.clip(points.n // _REFERENCE_ITEMS, 2, points.n))
    fine = LevelSpec(min(points.n, 8 * k), rounds=3, size=max(1, points.n // (16 * k)))
    *_, top = build(points, [fine, LevelSpec(k)], seed=seed, options=Options(max_iter=20))
    return (np.asarray(top) * grid.step).astype(np.float32)


def _evenness_in(reference: Floats, x: Floats) -> float:
    return evenness(np.bincount(nearest(x, reference, 1)[1][:, 0], minlength=len(reference)))


def _lying_out(x: Floats, lake: Floats, own: NDArray[np.intp]) -> NDArray[np.float64]:
    """Distance of each item to its tenth neighbour in the lake, shape (n,); `own` is 1 where it finds itself first."""
    distances = nearest(x, lake, min(_NEIGHBOUR + 1, len(lake)))[0]
    tenth = np.minimum(_NEIGHBOUR - 1 + own, distances.shape[1] - 1)
    found: NDArray[np.float64] = distances[np.arange(len(x)), tenth]
    return found


def with_labels(sets: Sets, x: Floats, y: Labels) -> tuple[Sets, tuple[Floats, Labels], float]:
    """Classes for all items from a labelled table: half of each class teaches, the other is the test set.

    Args:
        sets: The items.
        x: Labelled vectors, shape (m, d).
        y: Their classes 0..c-1, shape (m,).

    Returns:
        The items with classes, the test set, and the teacher's balanced accuracy on it.
    """
    teaching = rank_in_class(y) % 2 == 0
    test = x[~teaching], y[~teaching]
    teacher = fit_probe(x[teaching], y[teaching])
    found = teacher(sets.x).astype(np.int64)
    return replace(sets, y=found), test, balanced_accuracy(test[1], teacher(test[0]))


def verdict(figures: Sequence[Figure]) -> str:
    """In a sentence: whether curation helped, judged by classes where they are known, else by the reference."""
    named = {figure.name: figure for figure in figures}
    judges = [named[name] for name in ("entropy of classes", "linear probe") if name in named]
    judges = judges or [figure for figure in figures if figure.name.startswith("evenness")]
    outcomes = {figure.outcome for figure in judges}
    told = ", ".join(_told(figure) for figure in judges)
    if "worse" not in outcomes:
        return f"Curation helped: {told}." if "better" in outcomes else f"Curation made no clear difference: {told}."
    return (
        f"Curation helped one figure and harmed another: {told}."
        if "better" in outcomes
        else f"Curation harmed: {told}."
    )


def _told(figure: Figure) -> str:
    text = f"{figure.name} {figure.curated:.3f}, random sets {figure.mean:.3f} ± {figure.sd:.3f}"
    gain = figure.gain
    return text if gain is None else f"{text}, {gain:+.0%} of the way to an even set"
