"""Points in memory."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .grid import Grid
from .hashing import MOST_CLASS, batch_class, hash_ids
from .nearest import Centroids
from .partial import CentroidSet, Partial, Step
from .points import Ids, Strategy, as_array, nested_sizes, random_keys, reseed_rows, select
from .routed import GroupedCentroids
from .rows import Rows
from .seeding import RANDOM_SAMPLE, random_distinct
from .split import Groups, fit_group


class ArrayPoints:
    """Points in memory, in the order of their batch class (the smallest batch first), then of their ids.

    Args:
        x: Vectors in grid steps, float32, shape (n, d).
        ids: Their ids, unique, int64 or str, shape (n,).
        grid: The grid of `x`.
    """

    def __init__(self, x: NDArray[np.float32], ids: Ids, grid: Grid) -> None:
        hashes = hash_ids(ids)
        classes = batch_class(hashes)
        order = np.lexsort((ids, -classes))  # one order, wherever the rows came from, with nested batches as slices
        self.rows = Rows.of(x[order])
        self.ids, self.hashes = ids[order], hashes[order]
        self.grid = grid
        self.n, self.d = x.shape
        self.batches = nested_sizes(np.bincount(classes, minlength=MOST_CLASS + 1))

    @property
    def x(self) -> NDArray[np.float32]:
        """The vectors, shape (n, d); a view."""
        return self.rows.x

    def sample(self, size: int, seed: int) -> ArrayPoints:
        """See `Points.sample`."""
        if size >= self.n:
            return self
        return self.take(select(np.zeros(self.n, np.int64), random_keys(self.hashes, seed), self.ids, size))

    def step(self, centroids: CentroidSet, batch: int = 0) -> Step:
        """See `Points.step`."""
        rows, array = self.rows[: self.batches[batch]], as_array(centroids)
        partial = Partial.zeros(*array.shape)
        partial.add_points(rows, Centroids(array).labels(rows))
        return partial.finish(array, self.grid)

    def members(self, centroids: CentroidSet, size: int, strategy: Strategy, seed: int) -> ArrayPoints:
        """See `Points.members`."""
        labels, squared = Centroids(as_array(centroids)).nearest(self.rows)
        keys = squared if strategy == "closest" else random_keys(self.hashes, seed)
        return self.take(select(labels, keys, self.ids, size))

    def reseeds(self, centroids: CentroidSet, sizes: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
        """See `Points.reseeds`."""
        labels, squared = Centroids(as_array(centroids)).nearest(self.rows)
        return self.x[reseed_rows(self.x, labels, squared, random_keys(self.hashes, seed), self.ids, sizes)]

    def put(self, centroids: CentroidSet, ids: NDArray[np.intp], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Points.put`."""
        array = as_array(centroids).copy()
        array[ids] = vectors
        return array

    def pick(self, centroids: CentroidSet, ids: NDArray[np.intp]) -> NDArray[np.float32]:
        """See `Points.pick`."""
        return as_array(centroids)[ids]

    def fetch(self, centroids: CentroidSet) -> NDArray[np.float32]:
        """See `Points.fetch`."""
        return centroids.flat() if isinstance(centroids, GroupedCentroids) else as_array(centroids)

    def draw(self, size: int, seed: int) -> NDArray[np.float32]:
        """See `Points.draw`."""
        some = self.sample(RANDOM_SAMPLE * size, seed)
        return some.x[random_distinct(some, size, seed)]

    def split(self, groups: Groups, probe: int) -> GroupedCentroids:
        """See `Points.split`."""
        labels = Centroids(groups.centroids).labels(self.rows)
        order = np.argsort(labels, kind="stable")
        bounds = np.searchsorted(labels[order], np.arange(len(groups.centroids) + 1))
        members = (order[begin:end] for begin, end in pairwise(bounds))
        parts = [fit_group(self.take(rows), groups, group) for group, rows in enumerate(members)]
        return GroupedCentroids(groups.centroids, parts, probe)

    def locate(self, centroids: CentroidSet) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See `Points.locate`."""
        if isinstance(centroids, GroupedCentroids):
            labels, squared = centroids.ready().nearest(self.rows)
        else:
            labels, squared = Centroids(as_array(centroids)).nearest(self.rows)
        order = np.argsort(self.ids)
        return labels[order], squared[order]

    def lift(self, centroids: CentroidSet) -> ArrayPoints:
        """See `Points.lift`."""
        array = self.fetch(centroids)
        return ArrayPoints(array, np.arange(len(array), dtype=np.int64), self.grid)

    def take(self, rows: NDArray[np.intp]) -> ArrayPoints:
        """The points at these rows."""
        return ArrayPoints(self.x[rows], self.ids[rows], self.grid)
