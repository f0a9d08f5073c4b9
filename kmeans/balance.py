"""How much each cluster of a tree should give, from the items in it and those around it, without labels.

Concepts that lie apart are evened out. Where there are none, a cluster gives its items over a power of the density
around it: a careful step, since density tells how common a concept is and how compact it is, and not which.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .concepts import concept_mass
from .density import local_density
from .nearest import Centroids
from .rows import Rows
from .waterfill import power_weights

MOST_CLUSTERS = 1 << 15  # that are compared with each other: the lowest level of at most so many is weighed
FLATTENING = 1 / 3
_FLATTENINGS = (FLATTENING, 0.0, 0.15, 0.5, 0.7, 1.0)  # the default first
_NEIGHBOUR = 5
_SEED = 0  # not that of the sample: what is expected over all its seeds is so for one set of cells


def balanced_weights(
    items: NDArray[np.int64], around: NDArray[np.int64], flattening: float = FLATTENING
) -> NDArray[np.float64]:
    """Weights to share a sample by: items / around^flattening.

    Args:
        items: Of each cluster, shape (k,).
        around: Items in and around each cluster, shape (k,), at least 1.
        flattening: 0 shares in proportion to the items, 1 evenly over the places of the centroids.

    Returns:
        float64, shape (k,); 0 for clusters without items. The same bits everywhere: no libm.
    """
    return items / power_weights(around, flattening)


def ways_to_share(
    centroids: NDArray[np.float32], items: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Ways to share a sample: what the log calls each, and weights of the clusters; the default first, made when asked.

    Args:
        centroids: In grid steps, float32, shape (k, d).
        items: Of each cluster, shape (k,).
    """
    concepts = concept_mass(centroids, items, _SEED)
    if concepts is not None:
        reliability = f"reliability {concepts.reliability:.2f}, small ones {concepts.least:.2f}"
        yield f"{concepts.n_cells} cells that recur ({reliability})", items / concepts.mass
    density = local_density(centroids, items)
    told = f"density (1/{density.part} of the items within a radius)"
    for flattening in _FLATTENINGS:
        yield f"{told}, flattened by {flattening:.2g}", balanced_weights(items, density.items, flattening)


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
