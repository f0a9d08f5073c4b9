"""A level in two steps: pre-clusters over all points, then each clustered by itself (Vo et al. 2024, section 3.3)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .lloyd import Options, fit
from .points import Points, as_array

if TYPE_CHECKING:
    from .array_points import ArrayPoints

logger = logging.getLogger(__name__)

MOST_GROUP_COORDINATES = 1 << 26  # of one group, 256 MiB of float32: what one worker clusters by itself
_MOST_DIVISIONS = 8  # rounds of dividing groups that are too large


@dataclass(frozen=True)
class Groups:
    """How a level is shared out.

    Attributes:
        centroids: Of the groups, in grid steps, float32, shape (a, d).
        shares: Clusters to make in each, int64, shape (a,); no more than it has points.
        most: Points of one group that are clustered; of a larger one those whose hashes are smallest.
        seed: Of the level.
        options: How each is clustered.
    """

    centroids: NDArray[np.float32]
    shares: NDArray[np.int64]
    most: int
    seed: int
    options: Options


def share_out(points: Points, centroids: NDArray[np.float32], k: int, *, seed: int, options: Options) -> Groups:
    """Divide the groups that are too large for one worker, and share out the level's clusters.

    Args:
        points: All points.
        centroids: Of the pre-clusters, in grid steps, shape (a, d).
        k: Clusters of the level.
        seed: Of the level.
        options: How each group is clustered.

    Returns:
        The groups; more than pre-clusters where some had to be divided.
    """
    most = max(1, MOST_GROUP_COORDINATES // points.d)
    step = points.step(centroids)
    for _ in range(_MOST_DIVISIONS):
        giants = (step.counts > most) & (step.costs > 0)
        if not giants.any():
            break
        logger.info("%d of %d groups have more than %d points and are divided", giants.sum(), len(centroids), most)
        wanted = np.where(giants, -(-2 * step.counts // most), 0)
        divided = points.split(Groups(centroids, wanted, most, seed, options), probe=1)
        centroids = np.concatenate([centroids[~giants], points.fetch(divided)])
        step = points.step(centroids)
    full = step.counts > 0
    if full.sum() > k:
        raise ValueError(f"n_clusters={k} should be >= the {full.sum()} groups of at most {most} points.")
    return Groups(centroids[full], equal_shares(step.counts[full], k), most, seed, options)


def equal_shares(sizes: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Share k clusters out evenly among groups, to each at most its size, shape (a,); what is left goes in order.

    Raises:
        ValueError: If the groups together have fewer points.
    """
    if sizes.sum() < k:
        raise ValueError(f"n_samples={sizes.sum()} should be >= n_clusters={k}.")
    ordered = np.sort(sizes)
    below = np.r_[0, np.cumsum(ordered)]  # what the smallest groups take together
    rest = np.arange(len(sizes), 0, -1)
    full = int(np.argmax(below[:-1] + rest * ordered >= k))  # groups that give all they have
    level = int((k - below[full]) // rest[full])
    shares = np.minimum(sizes, level)
    able = np.flatnonzero(sizes > level)[: k - int(shares.sum())]
    shares[able] += 1
    return shares


def fit_group(points: ArrayPoints, groups: Groups, group: int) -> NDArray[np.float32]:
    """Cluster one group by itself: centroids in grid steps, shape (at most its share, d)."""
    share = int(groups.shares[group])
    if not share:
        return np.empty((0, points.d), dtype=np.float32)
    some = points.sample(groups.most, groups.seed)
    return as_array(fit(some, min(share, some.n), seed=groups.seed + group, options=groups.options).centroids)
