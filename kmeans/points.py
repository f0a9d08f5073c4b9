"""Points: the one interface that the algorithm knows.

Whatever holds the points (an array in `array_points`, a DataFrame in `udfs.points`), the same ids and vectors give the
same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .grid import Grid
from .hashing import mix64
from .nearest import ranks_of
from .partial import CentroidSet, Step

if TYPE_CHECKING:
    from .array_points import ArrayPoints
    from .split import Groups

Ids = NDArray[Any]  # int64, or str objects
Strategy = Literal["closest", "random"]
_MOST_VECTORS = 1 << 17  # that come to the driver: a pass over more takes it longer than the executors
_SHARE = 4  # nor may they fill more than this part of driver_bytes


class Points(Protocol):
    """Points on a grid, each with an id.

    Attributes:
        n: How many.
        d: Coordinates of each.
        grid: What one step means, and the metric.
        batches: Points of each nested batch: all, about half of them, a quarter, ...
    """

    n: int
    d: int
    grid: Grid
    batches: NDArray[np.int64]

    def sample(self, size: int, seed: int) -> ArrayPoints:
        """The `size` points whose hash(id, seed) is smallest, in the order of `ArrayPoints`."""
        ...

    def step(self, centroids: CentroidSet, batch: int = 0) -> Step:
        """Assign the points of a nested batch (0: all) to centroids, shape (k, d), and find the means."""
        ...

    def members(self, centroids: CentroidSet, size: int, strategy: Strategy, seed: int) -> Points:
        """The union of `size` members of each cluster: the closest to its centroid, or random ones."""
        ...

    def reseeds(self, centroids: CentroidSet, sizes: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
        """Points to start clusters anew at: of each cluster up to `sizes`, shape (k,), distinct ones off its centroid.

        Those whose hash(id, seed) is smallest, cluster by cluster, shape (m, d).
        """
        ...

    def put(self, centroids: CentroidSet, ids: NDArray[np.intp], vectors: NDArray[np.float32]) -> CentroidSet:
        """The centroids with those of these ids, shape (m,), replaced by vectors, shape (m, d)."""
        ...

    def pick(self, centroids: CentroidSet, ids: NDArray[np.intp]) -> CentroidSet:
        """The centroids of these ids alone."""
        ...

    def fetch(self, centroids: CentroidSet) -> NDArray[np.float32]:
        """All centroids as an array in grid steps, shape (k, d)."""
        ...

    def draw(self, size: int, seed: int) -> CentroidSet:
        """The `size` distinct vectors of smallest hash(id, seed), or fewer; see `seeding.random_distinct`."""
        ...

    def split(self, groups: Groups, probe: int) -> CentroidSet:
        """Cluster each group by itself: `split.fit_group` on the points nearest to its centroid."""
        ...

    def locate(self, centroids: CentroidSet) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Nearest centroid and squared distance of each point, shape (n,), in the order of ids, which are 0..n-1."""
        ...

    def lift(self, centroids: CentroidSet) -> Points:
        """The centroids of a level as the points of the next, unweighted: cluster ids are their ids."""
        ...


def fits_driver(n_vectors: int, d: int, driver_bytes: int) -> bool:
    """Whether the driver has room for so many vectors of d floats, and clusters them faster than executors would."""
    return n_vectors <= _MOST_VECTORS and 4 * n_vectors * d <= driver_bytes // _SHARE


def as_array(centroids: CentroidSet) -> NDArray[np.float32]:
    """Centroids that are an array.

    Raises:
        TypeError: If they are kept elsewhere.
    """
    if not isinstance(centroids, np.ndarray):
        raise TypeError(f"centroids should be an array, not {type(centroids).__name__}.")
    return centroids


def nested_sizes(by_class: NDArray[np.int64]) -> NDArray[np.int64]:
    """Points of each nested batch from those of each class: batch j has all of class >= j."""
    sizes: NDArray[np.int64] = by_class[::-1].cumsum()[::-1].astype(np.int64)
    return sizes


def random_keys(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.int64]:
    """Ranks to draw by: 63 bits of hash(id, seed) for id hashes of shape (n,)."""
    return (mix64(hashes, seed) >> np.uint64(1)).astype(np.int64)


def select(labels: NDArray[np.int64], keys: NDArray[Any], ids: Ids, size: int) -> NDArray[np.intp]:
    """Rows of the `size` smallest (key, id) of each label; all arguments of shape (n,)."""
    order = np.lexsort((ids, keys, labels))
    return order[ranks_of(labels[order]) < size]


def reseed_rows(
    x: NDArray[np.float32],
    labels: NDArray[np.int64],
    squared: NDArray[np.float64],
    keys: NDArray[np.int64],
    ids: Ids,
    sizes: NDArray[np.int64],
) -> NDArray[np.intp]:
    """Rows of up to `sizes[label]` distinct vectors of each label at a distance, by smallest (key, id).

    All arguments of shape (n,) but `x`, shape (n, d), and `sizes`, shape (k,).
    """
    rows = np.flatnonzero((squared > 0) & (sizes[labels] > 0))
    rows = rows[np.lexsort((ids[rows], keys[rows], labels[rows]))]
    vectors = np.ascontiguousarray(x[rows]).view(f"V{4 * x.shape[1]}").ravel()  # grid vectors have no negative zeros
    _, first = np.unique(vectors, return_index=True)  # equal vectors have one label
    rows = rows[np.sort(first)]
    return rows[ranks_of(labels[rows]) < sizes[labels[rows]]]
