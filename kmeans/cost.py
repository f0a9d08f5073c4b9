"""What clustering costs before it is done: bytes, memory, passes and arithmetic, from n, d and the levels alone."""

from __future__ import annotations

from dataclasses import dataclass

from .seeding import is_greedy, sample_size
from .tree import LevelSpec
from .work import Passes, Work, Workload, level_work

_CLUSTER_BYTES = 100  # of a cluster on the driver, whatever its level: counts, costs, parents
_CUT_BYTES = 700  # of a cluster on the driver, where the last of its members that are kept comes to it as a row
_COPIES = 3  # of vectors that come to the driver: as they were sent, as an array, in the order and form of a search
_CHUNK_BYTES = 96 << 20  # of a worker: blocks as they come, scores, sums as they go
_WAITING_BYTES = 80  # of a candidate, while the best of those that wait are found
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
    here = load.on_driver(level)
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
    """Vectors that come to it; where these are clustered there, what that takes; the cuts of a resampling round."""
    spec, points = load.levels[level - 1], load.points(level)
    k = spec.groups or spec.n_clusters
    init, members = load.options.init, load.members(level)
    sample = sample_size(k, load.d, init)
    come = min(points, sample) if is_greedy(k, init) or load.fits(sample) else 0  # else they are drawn into files
    if spec.groups or load.fits(k):  # the centroids of groups are handed out from here
        come = max(come, load.n_groups(level) if spec.groups else k)
    array = points if load.on_driver(level) else members if load.fits(members) else 0
    # Twice the points, and twice more while seeds are chosen, or the centroids and their sums in float64 as they move.
    clustered = 4 * load.d * max(4 * array, 2 * array + 12 * k) if array else 0
    cuts = _CUT_BYTES * k if members and not load.on_driver(level) else 0
    return max(4 * load.d * _COPIES * come, clustered, cuts)


def _worker_bytes(load: Workload, level: int) -> int:
    """Centroids, mapped from a file; and sums of those met, twice while they grow, or candidates; or a group."""
    spec, points, members = load.levels[level - 1], load.points(level), load.members(level)
    k = load.n_groups(level) if spec.groups else spec.n_clusters
    sums = 16 * load.met_by_task(points, k) * load.d
    # Once twice as many wait as are kept, the worse are dropped.
    waiting = min(2 * members, load.of_task(points))
    step = 4 * k * load.d + max(sums, _WAITING_BYTES * waiting)
    # Likewise of a group too large to cluster. It is there as it came, as one array, in order, and laid out.
    group = 16 * min(points, 2 * load.most_in_group) * load.d if spec.groups else 0
    return max(step, group) + _CHUNK_BYTES
