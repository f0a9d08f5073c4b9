"""How much each cluster of a tree should give, from the items in it and those around it, without labels.

Concepts that lie apart are evened out, and what little lies between them counts as one. Where there are none, a cluster
gives its items over a power of what is around it, the geometric mean of the density and of the mass of its community,
over its leverage, and over what a network takes it for that has learned on other lakes. It is a careful step, for each
of them errs: density takes compact concepts for common ones, a community may be several concepts or a part of one,
leverage takes noise for rare ones, the more so the more directions a lake spreads over, and what held for other lakes
need not hold for this one. They err in other places, so that together they err less.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .communities import Communities, community_mass, find_communities
from .density import local_density
from .leverage import Directions
from .nearest import Centroids
from .network import BITS, learned_network
from .rows import Rows
from .surroundings import graph_of, merged
from .waterfill import power_weights

MOST_CLUSTERS = 1 << 15  # that are compared with each other: the lowest level of at most so many is weighed
FLATTENING = 0.375
_FLATTENINGS = (FLATTENING, 0.0, 0.1875, 0.5625, 0.75)  # the default first
_LEARNED = 4 / 3  # how much the network has to say: half of what it says at the default
_NEIGHBOURS = 16  # that tell communities
_FEW_NEIGHBOURS = 8  # that tell whether communities lie apart: small ones are not taken for part of others
_APART, _EACH_APART = 0.95, 0.85  # of the votes stay within them, then; on ten real sets at most .945 did
_CLEAR = 0.9  # of their own: what keeps less is noise, where noise is in the way
_FEW_DIMENSIONS, _MANY_DIMENSIONS = 20, 40  # up to the first leverage has all its say, from the second on none
_OUTLYING_NEIGHBOUR = 5


def balanced_weights(
    items: NDArray[np.int64], around: NDArray[np.int64] | NDArray[np.float64], flattening: float
) -> NDArray[np.float64]:
    """Weights to share a sample by: items / around^flattening.

    Args:
        items: Of each cluster, shape (k,).
        around: Items in and around each cluster, or a mean of several such figures, shape (k,), at least 1.
        flattening: 0 shares in proportion to the items, 1 evenly over what is around as far as the figures tell it.

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
    filled = np.flatnonzero(items)
    for name, weights in _ways(centroids[filled], items[filled]):
        every = np.zeros(len(items))
        every[filled] = weights
        yield name, every


def _ways(centroids: NDArray[np.float32], items: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """The same, of clusters that have items."""
    rows = Rows.of(centroids)
    near = Centroids(centroids).several(rows, min(_NEIGHBOURS + 1, len(items)))  # itself is one of them
    concepts = _concepts(find_communities(near[:, : _FEW_NEIGHBOURS + 1]))
    if concepts:
        n = len(np.unique(concepts[0]))
        yield f"{n} communities that lie apart", items / community_mass(concepts, items)
    density, communities = local_density(centroids, items), find_communities(near)
    around = np.sqrt(density.items * community_mass([one.labels for one in communities], items))
    directions = Directions(centroids, items)
    common = around / (_far_out(directions, len(items)) * _power_of_two(_LEARNED * _rarity(centroids, items)))
    told = f"{communities[0].n} communities, {directions.dimensions:.0f} dimensions"
    details = {FLATTENING: f" (1/{density.part} of the items within a radius, {told})"}  # once
    for flattening in _FLATTENINGS:
        name = f"what is around, flattened by {flattening:g}{details.get(flattening, '')}"
        yield name, balanced_weights(items, common / common.min(), flattening)


def _far_out(directions: Directions, k: int) -> NDArray[np.float64]:
    """The leverage where the lake has few dimensions, a power of it where more, and 1 where many."""
    trust = (_MANY_DIMENSIONS - directions.dimensions) / (_MANY_DIMENSIONS - _FEW_DIMENSIONS)
    return power_weights(directions.leverage(), min(1.0, trust)) if trust > 0 else np.ones(k)


def _rarity(centroids: NDArray[np.float32], items: NDArray[np.int64]) -> NDArray[np.float64]:
    """How rare the concept of each cluster is, as the network says; of many it is asked about few made of them."""
    few, held, labels = merged(centroids, items)
    return learned_network()(graph_of(few, held))[labels] if len(few) > 1 else np.zeros(len(items))


def _power_of_two(exponents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of exponents down to multiples of 2**-8; the same bits everywhere: no libm."""
    steps = np.floor(np.ldexp(exponents, BITS)).astype(np.int64)
    root, found = 2.0, np.ones(len(steps))
    for bit in range(BITS - 1, -1, -1):
        root = float(np.sqrt(root))
        found = np.where(steps >> bit & 1, found * root, found)
    powers: NDArray[np.float64] = np.ldexp(found, steps >> BITS)
    return powers


def _concepts(found: list[Communities]) -> list[NDArray[np.int64]]:
    """Labels of the communities that lie apart, as some orders find them; or of those that do but for some noise."""
    apart = [one for one in found if one.n > 1 and one.within >= _APART]
    clear = [one.labels for one in apart if one.each >= _EACH_APART]
    return clear or [one.joined(_CLEAR) for one in apart if np.count_nonzero(one.own >= _CLEAR) > 1]


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
    neighbour = search.several(rows, min(_OUTLYING_NEIGHBOUR + 1, k))[:, -1]
    farthest = np.argsort(-search.squared(rows, np.arange(k), neighbour), kind="stable")
    held = np.cumsum(items[farthest])
    out = np.zeros(k, dtype=np.bool_)
    out[farthest[held <= int(share * int(items.sum()))]] = True
    return out
