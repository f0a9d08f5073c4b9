"""The masses of concepts that lie apart, told without labels.

Cells around seeds of k-means++ are the same whichever seeds were drawn, if the concepts lie well apart and the cells
are as many: then their masses recur from draw to draw. Elsewhere the masses of larger cells recur less than those of
small ones. So masses that recur more are taken for those of concepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .nearest import Centroids
from .plusplus import kmeans_plusplus
from .rows import Rows

_SPREAD_DRAWS = 4  # of cells around spread seeds
_ALONE = 3  # times the usual distance to the nearest other cluster
_AS_RELIABLE = 0.85  # of the best: finer cells that recur about as well tell more concepts apart


@dataclass(frozen=True)
class ConceptMass:
    """Masses that recur, whichever seeds the cells were drawn around.

    Attributes:
        mass: Items in the cells around each cluster, float64, shape (k,), at least 1.
        n_cells: How many cells there are.
        reliability: Mean correlation of the log mass of an item between two draws.
        least: That of the smallest cells, which it has to exceed.
    """

    mass: NDArray[np.float64]
    n_cells: int
    reliability: float
    least: float


def concept_mass(centroids: NDArray[np.float32], items: NDArray[np.int64], seed: int) -> ConceptMass | None:
    """The masses of concepts, where there are any that recur.

    Args:
        centroids: In grid steps, float32, shape (k, d).
        items: Of each cluster, shape (k,).
        seed: Of the cells.
    """
    found = _spread_masses(centroids, items, seed)
    most, least = max((one.reliability for one in found), default=0.0), found[0].reliability if found else 0.0
    if most <= least:
        return None
    best = next(one for one in found[1:] if one.reliability >= max(_AS_RELIABLE * most, least))
    return replace(best, least=least)


def items_in_cells(seeds: NDArray[np.float32], rows: Rows, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Items in the Voronoi cell of each cluster, of cells around some places, at least 1.

    Args:
        seeds: The places, in grid steps, shape (c, d).
        rows: The centroids of the clusters, k of them, in the same steps.
        items: Of each cluster, shape (k,).

    Returns:
        int64, shape (k,).
    """
    cells = Centroids(seeds).labels(rows)
    held = np.zeros(len(seeds), dtype=np.int64)
    np.add.at(held, cells, items)
    return np.maximum(held[cells], 1)


def _spread_masses(centroids: NDArray[np.float32], items: NDArray[np.int64], seed: int) -> list[ConceptMass]:
    """Masses of cells around seeds of k-means++, from small cells to large ones."""
    rows, sizes = Rows.of(centroids), _cells(len(items))
    if not sizes:
        return []
    usual = np.flatnonzero(~_alone(rows))  # what lies alone would be a seed in every draw
    spread = [usual[kmeans_plusplus(rows.x[usual], sizes[0], seed + draw)] for draw in range(_SPREAD_DRAWS)]
    found = []
    for n_cells in sizes:  # the first of k-means++ are those of fewer clusters
        held = _held(rows, items, [seats[:n_cells] for seats in spread])
        found.append(ConceptMass(_mean(held), n_cells, _reliability(held, items), 0.0))
    return found


def _alone(rows: Rows) -> NDArray[np.bool_]:
    """Clusters whose nearest other one is unusually far, shape (k,)."""
    every = np.arange(len(rows))
    search = Centroids(rows.x)
    near = search.several(rows, 2)
    other = np.where(near[:, 0] == every, near[:, 1], near[:, 0])  # itself, unless another lies at the same place
    squared = search.squared(rows, every, other)
    return squared > _ALONE**2 * np.median(squared)


def _cells(k: int) -> list[int]:
    """Numbers of cells of k clusters: k / 4, and halves of it down to 2."""
    return [k >> shift for shift in range(2, k.bit_length()) if k >> shift >= 2]


def _held(rows: Rows, items: NDArray[np.int64], draws: Sequence[NDArray[np.intp]]) -> NDArray[np.int64]:
    """Items in each cluster's cell, of cells around the clusters of each draw, at least 1, int64, shape (draws, k)."""
    return np.stack([items_in_cells(rows.x[np.sort(seats)], rows, items) for seats in draws])


def _mean(held: NDArray[np.int64]) -> NDArray[np.float64]:
    """Harmonic mean over the draws, shape (k,)."""
    rarity = np.zeros(held.shape[1])
    for one in held:  # in a fixed order
        rarity += 1 / one
    mass: NDArray[np.float64] = len(held) / rarity
    return mass


def _reliability(held: NDArray[np.int64], items: NDArray[np.int64]) -> float:
    """Mean correlation between two draws over the items, rounded: it only serves to compare."""
    logs, shares = np.log(held), items / items.sum()
    centred = logs - (logs * shares).sum(axis=1, keepdims=True)
    spread = np.sqrt((centred**2 * shares).sum(axis=1))
    if not spread.all():
        return 0.0
    unit = centred / spread[:, None]
    together = (unit.sum(axis=0) ** 2 * shares).sum()
    n = len(held)
    return round(float((together - n) / (n * (n - 1))), 6)
