"""Ways to share a sample that a small labelled table gives, and the choice among all ways by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .balance import balanced_weights, ways_to_share
from .communities import items_together
from .grid import Grid
from .metrics import Floats, Labels, evenness_of_shares, fit_probe, rank_in_class
from .nearest import Centroids
from .rows import Rows

Weights = NDArray[np.float64] | None  # None: none but the tree
_FLATTENINGS = (1.0, 0.75, 0.5)
_DRAWS = 5  # of halves
_USUAL = 10  # one pick of so many items
_AHEAD = 0.5  # standard errors by which a way must beat the default: labels that say nothing seldom do so much
_EVEN = "the tree's even shares"


@dataclass(frozen=True)
class LabelledTable:
    """A small labelled table beside the clusters, all in steps of one grid.

    Attributes:
        x: Labelled vectors, float32, shape (m, d).
        y: Their classes 0..c-1, shape (m,).
        centroids: Of the clusters, float32, shape (k, d).
        items: Of each cluster, shape (k,).
        grid: Of both.
    """

    x: NDArray[np.float32]
    y: Labels
    centroids: NDArray[np.float32]
    items: NDArray[np.int64]
    grid: Grid


@dataclass(frozen=True)
class Choice:
    """A way that labels spoke for.

    Attributes:
        weights: Of the clusters, shape (k,); None for the tree's even shares.
        name: What the log calls the way.
        evenness: Of every way, by name, as `cross_evenness` sees it; means over the halves.
    """

    weights: Weights
    name: str
    evenness: dict[str, float]


def choose_by_labels(labelled: LabelledTable, shares_of: Callable[[Weights, int], NDArray[np.float64]]) -> Choice:
    """Choose among the ways that need no labels, the tree's even shares, and cells around the means of the classes.

    All are compared by shares of a set of one size, whatever is asked for: else samples would not nest.

    Args:
        labelled: The table, and the clusters.
        shares_of: What a set of some size takes from each cluster by some weights, shape (k,).
    """
    size = max(1, int(labelled.items.sum()) // _USUAL)
    ways: dict[str, Weights] = {**dict(ways_to_share(labelled.centroids, labelled.items)), _EVEN: None}
    fixed = [shares_of(weights, size) for weights in ways.values()]

    def of_classes(x: NDArray[np.float32], y: Labels) -> dict[str, NDArray[np.float64]]:
        return ways_by_classes(x, y, labelled.centroids, labelled.items, labelled.grid)

    def shares(x: NDArray[np.float32], y: Labels) -> list[NDArray[np.float64]]:
        return [*fixed, *(shares_of(weights, size) for weights in of_classes(x, y).values())]

    found = cross_evenness(labelled.x, labelled.y, labelled.centroids, shares)
    every = {**ways, **of_classes(labelled.x, labelled.y)}
    names = list(every)
    chosen = names[choose(found, default=0)]
    return Choice(every[chosen], chosen, dict(zip(names, found.mean(axis=0).tolist(), strict=True)))


def ways_by_classes(
    x: NDArray[np.float32], y: Labels, centroids: NDArray[np.float32], items: NDArray[np.int64], grid: Grid
) -> dict[str, NDArray[np.float64]]:
    """Weights of the clusters that even out cells around the means of labelled classes.

    Args:
        x: Labelled vectors in grid steps, float32, shape (m, d).
        y: Their classes 0..c-1, shape (m,); not every class need be there.
        centroids: Of the clusters, in the same steps, shape (k, d).
        items: Of each cluster, shape (k,).
        grid: Of both.

    Returns:
        Under what the log calls each way; the same bits everywhere.
    """
    present, classes = np.unique(y, return_inverse=True)
    sums = np.zeros((len(present), x.shape[1]))
    np.add.at(sums, classes, x.astype(np.float64))
    cells = Centroids(grid.mean(sums, np.bincount(classes))).labels(Rows.of(centroids))
    around = items_together(cells, items)
    return {f"cells of classes, flattened by {f:g}": balanced_weights(items, around, f) for f in _FLATTENINGS}


def cross_evenness(
    x: Floats, y: Labels, centroids: Floats, shares_of: Callable[[Floats, Labels], list[NDArray[np.float64]]]
) -> NDArray[np.float64]:
    """How even over the classes each way to share a sample would be, as probes see it.

    Of random halves of every class one makes the ways, and a linear probe on the other tells the class of each cluster;
    the entropy is that of the shares of the classes then. What the halves differ by says how far to trust it.

    Args:
        x: Labelled vectors, shape (m, d), in the units of the centroids.
        y: Their classes 0..c-1, shape (m,).
        centroids: Of the clusters, shape (k, d).
        shares_of: Gives what each way, made of some labelled vectors, takes from each cluster, each of shape (k,).

    Returns:
        Shape (halves, ways).
    """
    n_classes = int(y.max()) + 1
    found = []
    for half in _halves(y):
        classes = fit_probe(x[~half], y[~half])(centroids)
        shares = [np.bincount(classes, weights=one, minlength=n_classes) for one in shares_of(x[half], y[half])]
        found.append([evenness_of_shares(one.astype(np.float64)) for one in shares])
    return np.array(found)


def _halves(y: Labels) -> Iterator[NDArray[np.bool_]]:
    """Half of every class, and the other half, for each draw; of a class of one row it is in the second."""
    for draw in range(_DRAWS):
        order = np.random.default_rng(draw).permutation(len(y))
        half = np.zeros(len(y), dtype=np.bool_)
        half[order] = rank_in_class(y[order]) % 2 == 1
        yield half
        yield ~half


def choose(found: NDArray[np.float64], default: int) -> int:
    """The most even way; the default, unless it is beaten by more than half a standard error.

    Halves vary about as much as figures of all labels would (the jackknife that leaves out half).

    Args:
        found: As from `cross_evenness`, shape (halves, ways).
        default: The way to take where labels do not tell.
    """
    best = int(found.mean(axis=0).argmax())
    ahead = found[:, best] - found[:, default]
    return best if ahead.mean() > _AHEAD * ahead.std() else default
