"""Where k-means starts: greedy k-means++ on a bounded sample, in exact arithmetic; for very many clusters at random."""

from __future__ import annotations

import logging
from math import log
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .hashing import draw_below, mix64
from .partial import CentroidSet
from .points import Points, random_keys

if TYPE_CHECKING:
    from .array_points import ArrayPoints

logger = logging.getLogger(__name__)

# Coordinates of the sample: 64 MiB in float64, which every step reads once; for many clusters up to 512 MiB.
_SAMPLE_COORDINATES, _MOST_COORDINATES = 1 << 23, 1 << 26
_SAMPLE_PER_CLUSTER, _LEAST_PER_CLUSTER = 8, 2
# The greedy choice costs k times the sample: beyond this it would take longer than the iterations that follow.
MOST_GREEDY = 20_000
RANDOM_SAMPLE = 2  # points looked at for a random centroid: some may be equal


def seed_centroids(points: Points, k: int, seed: int) -> CentroidSet:
    """Choose starting centroids: by greedy k-means++ up to 20,000, beyond that at random.

    The points chosen from are those with the smallest hashes of their ids, and the whole set where that is small.

    Args:
        points: The points to cluster.
        k: How many centroids.
        seed: Of the sample and the draws.

    Returns:
        Distinct points in steps, float32, shape (k, d); fewer rows if those chosen from have fewer distinct points.
    """
    if k > MOST_GREEDY:
        logger.info("seeding %d centroids: distinct ones at random from %d points", k, points.n)
        return points.draw(k, seed)
    sample = points.sample(sample_size(k, points.d), seed)
    logger.info("seeding %d centroids: greedy k-means++ among %d of %d points", k, sample.n, points.n)
    return sample.x[kmeans_plusplus(sample.x, k, seed)]


def sample_size(k: int, d: int) -> int:
    """Points to look at for k starting centroids of d coordinates."""
    if k > MOST_GREEDY:
        return RANDOM_SAMPLE * k
    wanted = max(_SAMPLE_PER_CLUSTER * k, _SAMPLE_COORDINATES // d)
    return min(wanted, max(_LEAST_PER_CLUSTER * k, _MOST_COORDINATES // d))


def random_distinct(points: ArrayPoints, k: int, seed: int) -> NDArray[np.intp]:
    """Rows of the k distinct vectors with the smallest hash(id, seed), ties by id; fewer if there are fewer."""
    ranked = np.lexsort((points.ids, random_keys(points.hashes, seed)))
    vectors = points.x[ranked] + np.float32(0)  # no negative zeros: equal vectors have equal bytes
    _, first = np.unique(vectors.view(f"V{4 * points.d}").ravel(), return_index=True)
    chosen: NDArray[np.intp] = ranked[np.sort(first)[:k]]
    return chosen


def kmeans_plusplus(x: NDArray[np.float32], k: int, seed: int) -> NDArray[np.intp]:
    """Greedy k-means++: of 2 + floor(ln k) draws by squared distance, the one that lowers the cost most.

    Arthur & Vassilvitskii 2007, with the greedy choice of their section 5 as in scikit-learn. Squared distances are
    scaled (and rounded up) so that their sum stays below 2**53: sums of whole numbers, exact in any order.

    Args:
        x: Points in grid steps, float32, shape (n, d).
        k: How many to choose.
        seed: Of the draws.

    Returns:
        Row numbers of distinct points, shape (k,); fewer if `x` has fewer distinct points.
    """
    wide = np.ones((x.shape[1] + 2, len(x)))  # coordinates, squared norms, ones
    wide[:-2] = x.T
    wide[-2] = np.einsum("ij,ij->j", wide[:-2], wide[:-2])
    n_candidates = 2 + int(log(k))
    words = mix64(np.arange(k * n_candidates, dtype=np.uint64), seed).reshape(k, n_candidates)
    chosen = [draw_below(len(x), seed)]
    closest = _squared_distances(wide, np.array(chosen), 1.0)[0]
    scale = _exact_scale(closest)
    closest = np.ceil(closest * scale)
    for step in range(1, k):
        cumulated = np.cumsum(closest)
        total = int(cumulated[-1])
        if total == 0:
            break
        draws = np.array([(word * total) >> 64 for word in words[step].tolist()], dtype=np.float64)
        candidates = np.searchsorted(cumulated, draws, side="right")
        distances = _squared_distances(wide, candidates, scale)
        np.ceil(distances, out=distances)
        np.minimum(distances, closest, out=distances)
        best = int(distances.sum(axis=1).argmin())
        chosen.append(int(candidates[best]))
        closest = distances[best]
    return np.array(chosen, dtype=np.intp)


def _squared_distances(wide: NDArray[np.float64], rows: NDArray[np.intp], scale: float) -> NDArray[np.float64]:
    """Squared distances of all points to some of them times a power of two, shape (len(rows), n).

    One product of (-2c, 1, |c|^2) and (x, |x|^2, 1), exact on the grid: no partial sum exceeds 2**53 before scaling.
    """
    some = wide[:, rows].T
    factors = np.column_stack([-2 * some[:, :-2], some[:, -1], some[:, -2]])
    factors *= scale
    distances: NDArray[np.float64] = factors @ wide
    return distances


def _exact_scale(squared: NDArray[np.float64]) -> float:
    """A power of two that brings any sum of len(squared) distances below 2**53.

    No distance within the set is more than four times the largest from one of its points.
    """
    largest = 4 * int(squared.max())
    return float(2.0 ** min(0, 53 - largest.bit_length() - len(squared).bit_length() - 1))
