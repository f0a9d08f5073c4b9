"""Communities of clusters: groups that share more of their nearest neighbours with each other than with the rest.

Every cluster has as many nearest neighbours, whether they are near or far. So the mass of a community says how common
something is and not how compact, where density says both. But communities of like size are found more easily: rare
things are taken for part of common ones, and common ones fall apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from .hashing import mix64

_DRAWS, _KEPT = 8, 4  # orders in which clusters choose; `community_mass` takes the fourth root
_SWEEPS = 20  # at most; labels hardly change after ten


@dataclass(frozen=True)
class Communities:
    """Which clusters belong together.

    Attributes:
        labels: Community of each cluster, 0..n-1, int64, shape (k,).
        within: The part of the votes given inside communities: 1 where they have nothing in common. Of all votes.
        own: The same of each community's own votes, float64, shape (n,).
    """

    labels: NDArray[np.int64]
    within: float
    own: NDArray[np.float64]

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.own)

    @property
    def each(self) -> float:
        """Mean of `own`: small communities count as much as large ones."""
        return math.fsum(self.own) / self.n

    def joined(self, least: float) -> NDArray[np.int64]:
        """Labels with all communities that keep less than this part of their own votes taken for one."""
        return np.where(self.own[self.labels] >= least, self.labels, self.n)


def items_together(labels: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Items in all clusters of the same label, at least 1, int64, shape (k,), from those in each, shape (k,)."""
    held = np.zeros(int(labels.max()) + 1, dtype=np.int64)
    np.add.at(held, labels, items)
    return np.maximum(held[labels], 1)


def find_communities(near: NDArray[np.int64]) -> list[Communities]:
    """Find communities by label propagation (Raghavan, Albert & Kumara 2007, arXiv 0709.2938).

    Clusters in a random order take, time and again, the label that has most votes among those near them; a vote counts
    as many neighbours as the two have in common. Each order ends otherwise.

    Args:
        near: The nearest clusters of each, itself among them or not, shape (k, m).

    Returns:
        Of half of the orders those that leave most votes within communities, the best first. The same everywhere.
    """
    votes = _votes(near)
    every = np.arange(len(near), dtype=np.uint64)
    found = [_propagate(votes, np.argsort(mix64(every, draw), kind="stable")) for draw in range(_DRAWS)]
    return sorted(found, key=lambda one: -one.within)[:_KEPT]


def community_mass(found: Sequence[NDArray[np.int64]], items: NDArray[np.int64]) -> NDArray[np.float64]:
    """Items in the community of each cluster.

    Args:
        found: Labels, up to four times, the best first; where there are fewer the best count more often.
        items: Of each cluster, shape (k,).

    Returns:
        Geometric mean over them, float64, shape (k,), at least 1: what falls apart or is joined with others in one of
        them weighs little. The same bits everywhere: no libm.
    """
    product = np.ones(len(items))
    for one in [*found, *[found[0]] * (_KEPT - len(found))]:
        product *= items_together(one, items)
    mass: NDArray[np.float64] = np.sqrt(np.sqrt(product))  # the fourth root
    return mass


def named_by(near: NDArray[np.int64]) -> csr_array:
    """Ones where a cluster (a row) names another or itself, int64, shape (k, k), from its nearest, shape (k, m)."""
    k = len(near)
    near = np.column_stack([np.arange(k), near])
    voters = np.arange(k).repeat(near.shape[1])
    chosen = csr_array((np.ones(near.size, np.int64), (voters, near.ravel())), shape=(k, k))
    chosen.data[:] = 1  # also where it was named twice
    return chosen


def _votes(near: NDArray[np.int64]) -> csr_array:
    """How many neighbours two have in common, itself being one, where one is a neighbour of the other; shape (k, k)."""
    chosen = named_by(near)
    votes = (chosen @ chosen.T).multiply(chosen.maximum(chosen.T)).tocsr()
    votes.setdiag(0)
    votes.eliminate_zeros()
    return votes


def _propagate(votes: csr_array, order: NDArray[np.intp]) -> Communities:
    """Let clusters choose in this order until none changes its mind."""
    starts, near, counts = votes.indptr.tolist(), votes.indices.tolist(), votes.data.tolist()
    labels = np.argsort(order).tolist()  # the place in the order: the first has the least
    for _ in range(_SWEEPS):
        changed = False
        for one in order.tolist():
            some = slice(starts[one], starts[one + 1])
            label = _most_voted(labels[one], near[some], counts[some], labels)
            changed, labels[one] = changed or label != labels[one], label
        if not changed:
            break
    return _communities(np.unique(labels, return_inverse=True)[1].astype(np.int64), votes)


def _communities(labels: NDArray[np.int64], votes: csr_array) -> Communities:
    """Communities, and the part of the votes that stays in them."""
    voter = labels[np.arange(len(labels)).repeat(np.diff(votes.indptr))]
    given, kept = np.zeros((2, int(labels.max()) + 1), dtype=np.int64)
    np.add.at(given, voter, votes.data)
    np.add.at(kept, voter, np.where(voter == labels[votes.indices], votes.data, 0))
    own = np.divide(kept, given, out=np.ones(len(given)), where=given > 0)
    return Communities(labels, int(kept.sum()) / max(1, int(given.sum())), own)


def _most_voted(own: int, near: Sequence[int], counts: Sequence[int], labels: Sequence[int]) -> int:
    """The label with most votes; of several the own one, or else the least."""
    got = {own: 0}
    for other, count in zip(near, counts, strict=True):
        label = labels[other]
        got[label] = got.get(label, 0) + count
    most = max(got.values())
    return own if got[own] == most else min(label for label, votes in got.items() if votes == most)
