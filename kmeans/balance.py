"""How much each cluster of a tree should give, from its items and those around it, without labels.

The sizes of clusters tell little of the sizes of concepts: k-means makes clusters of about equal mass, so a large
concept has many of them. What tells more is the mass around a cluster: how many items lie where equally many centroids
do. Resampling has spread the centroids more evenly over the support than the items, so their number stands for how much
there is to learn, and the mass for how often it is repeated. The mass is measured in cells of a few centroids: Voronoi
cells around some drawn at random, and around seeds of k-means++, which lie more evenly. The two kinds err in different
ways, and means over draws and three sizes have little noise left.

Where concepts lie well apart, larger cells tell them from each other: those around seeds of k-means++ are then the same
whichever seeds were drawn, if they are as many as the concepts, and their masses recur. Elsewhere the masses of larger
cells recur less than those of small ones. So masses that recur more are taken for those of the concepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .hashing import mix64
from .nearest import Centroids
from .plusplus import kmeans_plusplus
from .rows import Rows
from .waterfill import power_weights

MOST_CLUSTERS = 1 << 15  # that are compared with each other: the lowest level of at most so many is weighed
FLATTENING = 0.75
_CELL_CLUSTERS = (4, 8, 16)  # mean number of clusters in a small cell
_DRAWS, _SPREAD_DRAWS = 8, 4  # of small cells at random; of cells around spread seeds, which cost more
_NEIGHBOUR = 5
_ALONE = 3  # times the usual distance to the nearest other cluster
_AS_RELIABLE = 0.85  # of the best: finer cells that recur about as well tell more concepts apart
_FLATTENINGS = (FLATTENING, 0.0, 0.25, 0.5, 1.0)  # the default first
_SEED = 0  # not that of the sample: what is expected over all its seeds is so for one set of cells


def local_masses(centroids: NDArray[np.float32], items: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Items in the cells around each cluster, harmonic means over draws, for cells of three sizes.

    Args:
        centroids: In grid steps, float32, shape (k, d).
        items: Of each cluster, shape (k,).
        seed: Of the cells.

    Returns:
        float64, shape (3, k), at least 1. The same bits everywhere: no libm, and sums in a fixed order.
    """
    rows, every = Rows.of(centroids), np.arange(len(items), dtype=np.uint64)

    def drawn(n_cells: int, draw: int) -> NDArray[np.intp]:
        return np.argsort(mix64(every, seed, n_cells, draw), kind="stable")[:n_cells]

    sizes = [max(1, len(items) // clusters) for clusters in _CELL_CLUSTERS]
    return np.stack([_mean(_held(rows, items, [drawn(n, draw) for draw in range(_DRAWS)])) for n in sizes])


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
    """The masses of concepts, where there are any that recur; see `local_masses` for the arguments."""
    return _recurring(_spread_masses(centroids, items, seed))


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


def _recurring(found: list[ConceptMass]) -> ConceptMass | None:
    most, least = max((one.reliability for one in found), default=0.0), found[0].reliability if found else 0.0
    if most <= least:
        return None
    best = next(one for one in found[1:] if one.reliability >= max(_AS_RELIABLE * most, least))
    return replace(best, least=least)


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
    found = np.empty((len(draws), len(items)), dtype=np.int64)
    for draw, seats in enumerate(draws):
        cells = Centroids(rows.x[np.sort(seats)]).labels(rows)
        held = np.zeros(len(seats), dtype=np.int64)
        np.add.at(held, cells, items)
        found[draw] = np.maximum(held[cells], 1)
    return found


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


def balanced_weights(
    items: NDArray[np.int64], masses: NDArray[np.float64], flattening: float = FLATTENING
) -> NDArray[np.float64]:
    """Weights to share a sample by: items / mass^flattening, the mass being the geometric mean of those given.

    Args:
        items: Of each cluster, shape (k,).
        masses: As from `local_masses`, shape (m, k).
        flattening: 0 shares in proportion to the items, 1 evenly over the places of the centroids.

    Returns:
        float64, shape (k,); 0 for clusters without items.
    """
    weights = items.astype(np.float64)
    for mass in masses:
        weights = weights / power_weights(mass, flattening / len(masses))
    return weights


def ways_to_share(centroids: NDArray[np.float32], items: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Weights of the clusters by each way to share a sample, under what the log calls it; the first is the default.

    Args:
        centroids: In grid steps, float32, shape (k, d).
        items: Of each cluster, shape (k,).
    """
    spread = _spread_masses(centroids, items, _SEED)
    small = [one.mass for one in spread[: len(_CELL_CLUSTERS)]]
    drawn = local_masses(centroids, items, _SEED)
    masses, concepts = np.stack([*drawn, *drawn, *small]), _recurring(spread)  # of drawn cells twice: they err less
    ways = {f"mass, flattened by {f:g}": balanced_weights(items, masses, f) for f in _FLATTENINGS}
    if concepts is None:
        return ways
    reliability = f"reliability {concepts.reliability:.2f}, small ones {concepts.least:.2f}"
    weights = balanced_weights(items, concepts.mass[None], 1.0)
    return {f"{concepts.n_cells} cells that recur ({reliability})": weights, **ways}


def outlying(centroids: NDArray[np.float32], items: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Clusters that lie farthest from others and together hold at most this share of the items.

    Far is what has a far fifth neighbour among the centroids: noise is scattered, and so are its clusters.

    Args:
        centroids: In grid steps, float32, shape (k, d).
        items: Of each cluster, shape (k,).
        share: In [0, 1).

    Returns:
        bool, shape (k,).
    """
    k, rows, search = len(items), Rows.of(centroids), Centroids(centroids)
    neighbour = search.several(rows, min(_NEIGHBOUR + 1, k))[:, -1]
    farthest = np.argsort(-search.squared(rows, np.arange(k), neighbour), kind="stable")
    held = np.cumsum(items[farthest])
    out = np.zeros(k, dtype=np.bool_)
    out[farthest[held <= int(share * int(items.sum()))]] = True
    return out
