"""What clustering costs before it is done: bytes, memory, passes and arithmetic, from n, d and the levels alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from .seeding import sample_size
from .tree import LevelSpec
from .work import Passes, Work, Workload, level_work

_CLUSTER_BYTES = 100  # of a cluster on the driver, whatever its level: counts, costs, parents
_CHUNK_BYTES = 20 << 20  # a worker's block and scores
_EXACT = 1.15  # the search for near ties, the sums: beside the bare product
_MOVED_PER_CORE = 150e6  # bytes a second from Spark to Python, or through a shuffle
_STEP_SECONDS = 1.0  # of a Spark job, beside its work


@dataclass(frozen=True)
class LevelCost:
    """What one level costs.

    Attributes:
        spec: The level.
        points: That it clusters.
        on_driver: Whether these are an array on the driver.
        block_bytes: Of the points, packed; 0 for an array.
        centroid_bytes: Of the level's centroids.
        driver_bytes: Memory of the driver, beside what it holds of every cluster throughout.
        worker_bytes: Memory of one Python worker; 0 where all is done on the driver.
        expected: Work that such a level usually takes.
        most: Work that it takes at most.
    """

    spec: LevelSpec
    points: int
    on_driver: bool
    block_bytes: int
    centroid_bytes: int
    driver_bytes: int
    worker_bytes: int
    expected: Work
    most: Work

    @property
    def passes(self) -> tuple[float, float]:
        """How often all points are read: expected, and at most."""
        return self.expected.rows / self.points, self.most.rows / self.points


@dataclass(frozen=True)
class Estimate:
    """What a tree costs.

    Attributes:
        load: The tree.
        levels: From the bottom.
    """

    load: Workload
    levels: tuple[LevelCost, ...]

    @property
    def cluster_bytes(self) -> int:
        """What the driver holds of every cluster throughout."""
        return _CLUSTER_BYTES * sum(level.spec.n_clusters for level in self.levels)

    @property
    def driver_bytes(self) -> int:
        """Memory of the driver."""
        return self.cluster_bytes + max(level.driver_bytes for level in self.levels)

    @property
    def worker_bytes(self) -> int:
        """Memory of one Python worker."""
        return max(level.worker_bytes for level in self.levels)

    @property
    def scratch_bytes(self) -> int:
        """Scratch while the items are packed, which is when it holds most."""
        raw = 4 * self.load.n * self.load.d if self.load.metric == "l2" else 0
        return self.levels[0].block_bytes + raw

    @property
    def expected(self) -> Work:
        """Work that such a tree usually takes."""
        return sum((level.expected for level in self.levels), Work())

    @property
    def most(self) -> Work:
        """Work that it takes at most."""
        return sum((level.most for level in self.levels), Work())


@dataclass(frozen=True)
class Machines:
    """What the work is done on.

    Attributes:
        cores: Of all executors.
        rate: float32 multiply-adds a second of all executors together, on their cores or GPUs.
        driver_rate: The same of the driver.
    """

    cores: int
    rate: float
    driver_rate: float

    def seconds(self, level: LevelCost, work: Work) -> float:
        """Time that work at a level takes."""
        read = 0 if level.on_driver else work.rows / level.points * level.block_bytes
        moved = (read + work.shuffled) / (_MOVED_PER_CORE * self.cores)
        product = work.multiply_adds / self.rate + work.driver_multiply_adds / self.driver_rate
        return _EXACT * product + moved + _STEP_SECONDS * work.steps


def estimate(load: Workload) -> Estimate:
    """What a tree costs."""
    return Estimate(load, tuple(level_cost(load, level) for level in range(1, len(load.levels) + 1)))


def level_cost(load: Workload, level: int) -> LevelCost:
    """What a level (1-based) costs."""
    spec, points = load.levels[level - 1], load.points(level)
    here = load.on_driver(level, points)
    # Items come from a table, packed, and are given their place in one, wherever the level is made.
    is_array = here and level > 1
    return LevelCost(
        spec,
        points,
        here,
        block_bytes=0 if is_array else points * load.row_bytes,
        centroid_bytes=4 * spec.n_clusters * load.d,
        driver_bytes=_driver_bytes(load, level),
        worker_bytes=0 if is_array else _worker_bytes(load, level),
        expected=level_work(load, level, Passes.expected(load.options)),
        most=level_work(load, level, Passes.most(load.options)),
    )


def _driver_bytes(load: Workload, level: int) -> int:
    """An array of the points, if it is one; and the sample to seed from, or centroids and their sums if they fit."""
    spec, points = load.levels[level - 1], load.points(level)
    k = spec.groups or spec.n_clusters
    array = 4 * points * load.d if load.on_driver(level, points) else 0
    centroids = 12 * k * load.d
    if centroids > load.driver_bytes // 2:  # they stay in files
        centroids = 0
    return array + max(centroids, 8 * min(points, sample_size(k, load.d)) * load.d)


def _worker_bytes(load: Workload, level: int) -> int:
    """Centroids twice, as given and for the product; and partial sums, or candidates for resampling, or a group."""
    spec, points = load.levels[level - 1], load.points(level)
    k = spec.groups or spec.n_clusters
    step = 16 * k * load.d + _CHUNK_BYTES
    if spec.groups is None:
        # Candidates are held twice, with their order beside them, when those of the next block join.
        return max(step, 8 * k * load.d + _CHUNK_BYTES + 64 * load.candidates(level)) if spec.rounds else step
    b = ceil(spec.n_clusters / load.n_groups(level))
    members = min(points, load.most_in_group)
    return max(step, 2 * members * load.row_bytes + 16 * b * load.d)
