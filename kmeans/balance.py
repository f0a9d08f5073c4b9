"""How much each cluster of a tree should give, from its items and those around it, without labels.

The sizes of clusters tell little of the sizes of concepts: k-means makes clusters of about equal mass, so a large
concept has many of them. What tells more is the mass around a cluster: how many items lie where equally many centroids
do. Resampling has spread the centroids more evenly over the support than the items, so their number stands for how much
there is to learn, and the mass for how often it is repeated. The mass is measured in cells of a few centroids, as
Voronoi cells of some centroids drawn at random; its mean over many such draws, of three sizes, has little noise left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .hashing import mix64
from .nearest import Centroids
from .rows import Rows
from .waterfill import power_weights

MOST_CLUSTERS = 1 << 15  # that are compared with each other: the lowest level of at most so many is weighed
FLATTENING = 0.75
_CELL_CLUSTERS = (4, 8, 16)  # mean number of clusters in a cell
_DRAWS = 8
_NEIGHBOUR = 5


def local_masses(centroids: NDArray[np.float32], items: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Items in the cells around each cluster, harmonic means over draws, for cells of three sizes.

    Args:
        centroids: In grid steps, float32, shape (k, d).
        items: Of each cluster, shape (k,).
        seed: Of the cells.

    Returns:
        float64, shape (3, k), at least 1. The same bits everywhere: no libm, and sums in a fixed order.
    """
    rows = Rows.of(centroids)
    return np.stack([_mass(rows, items, max(1, len(items) // clusters), seed) for clusters in _CELL_CLUSTERS])


def _mass(rows: Rows, items: NDArray[np.int64], n_cells: int, seed: int) -> NDArray[np.float64]:
    rarity = np.zeros(len(items))
    for draw in range(_DRAWS):
        order = np.argsort(mix64(np.arange(len(items), dtype=np.uint64), seed, n_cells, draw), kind="stable")
        seats = np.sort(order[:n_cells])
        cells = Centroids(rows.x[seats]).labels(rows)
        held = np.zeros(n_cells, dtype=np.int64)
        np.add.at(held, cells, items)
        rarity += 1 / np.maximum(held[cells], 1)
    mass: NDArray[np.float64] = _DRAWS / rarity
    return mass


def balanced_weights(
    items: NDArray[np.int64], masses: NDArray[np.float64], flattening: float = FLATTENING
) -> NDArray[np.float64]:
    """Weights to share a sample by: items / mass^flattening, the mass being the geometric mean of the three.

    Args:
        items: Of each cluster, shape (k,).
        masses: As from `local_masses`, shape (3, k).
        flattening: 0 shares in proportion to the items, 1 evenly over the places of the centroids.

    Returns:
        float64, shape (k,); 0 for clusters without items.
    """
    weights = items.astype(np.float64)
    for mass in masses:
        weights = weights / power_weights(mass, flattening / len(masses))
    return weights


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
