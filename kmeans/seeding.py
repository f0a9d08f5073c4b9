"""Where k-means starts: greedy k-means++ on a bounded sample, in exact arithmetic; for very many clusters at random."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from .partial import CentroidSet
from .plusplus import kmeans_plusplus
from .points import Points, random_keys

if TYPE_CHECKING:
    from .array_points import ArrayPoints

logger = logging.getLogger(__name__)

Init = Literal["k-means++", "random"]

# Coordinates of the sample: 64 MiB in float64, which every step reads once; for many clusters up to 512 MiB.
_SAMPLE_COORDINATES, _MOST_COORDINATES = 1 << 23, 1 << 26
_SAMPLE_POINTS = 1 << 18  # more tell no more, unless the clusters are many
_SAMPLE_PER_CLUSTER, _LEAST_PER_CLUSTER = 8, 2
# The greedy choice costs k times the sample: beyond this it would take longer than the iterations that follow.
MOST_GREEDY = 20_000
RANDOM_SAMPLE = 2  # points looked at for a random centroid: some may be equal


def seed_centroids(points: Points, k: int, seed: int, init: Init = "k-means++") -> CentroidSet:
    """Choose starting centroids: at random, or by greedy k-means++ up to 20,000 and beyond that at random.

    The points chosen from are those with the smallest hashes of their ids, and the whole set where that is small.

    Args:
        points: The points to cluster.
        k: How many centroids.
        seed: Of the sample and the draws.
        init: "k-means++" or "random".

    Returns:
        Distinct points in steps, float32, shape (k, d); fewer rows if those chosen from have fewer distinct points.
    """
    if not is_greedy(k, init):
        logger.info("seeding %d centroids: distinct ones at random from %d points", k, points.n)
        return points.draw(k, seed)
    sample = points.sample(sample_size(k, points.d), seed)
    logger.info("seeding %d centroids: greedy k-means++ among %d of %d points", k, sample.n, points.n)
    return sample.x[kmeans_plusplus(sample.x, k, seed)]


def is_greedy(k: int, init: Init) -> bool:
    """Whether k starting centroids are chosen by greedy k-means++, and not at random."""
    return init == "k-means++" and k <= MOST_GREEDY


def sample_size(k: int, d: int, init: Init = "k-means++") -> int:
    """Points to look at for k starting centroids of d coordinates."""
    if not is_greedy(k, init):
        return RANDOM_SAMPLE * k
    wanted = max(_SAMPLE_PER_CLUSTER * k, min(_SAMPLE_COORDINATES // d, _SAMPLE_POINTS))
    return min(wanted, max(_LEAST_PER_CLUSTER * k, _MOST_COORDINATES // d))


def random_distinct(points: ArrayPoints, k: int, seed: int) -> NDArray[np.intp]:
    """Rows of the k distinct vectors with the smallest hash(id, seed), ties by id; fewer if there are fewer."""
    ranked = np.lexsort((points.ids, random_keys(points.hashes, seed)))
    vectors = points.x[ranked] + np.float32(0)  # no negative zeros: equal vectors have equal bytes
    _, first = np.unique(vectors.view(f"V{4 * points.d}").ravel(), return_index=True)
    chosen: NDArray[np.intp] = ranked[np.sort(first)[:k]]
    return chosen
