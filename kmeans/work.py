"""How much is to be read, sent and multiplied to make the levels of a tree, from their numbers alone."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from math import ceil, log

import numpy as np

from .hashing import MOST_CLASS
from .lloyd import Options, first_batch
from .points import fits_driver
from .seeding import is_greedy, sample_size
from .split import MOST_GROUP_COORDINATES
from .tree import LevelSpec

_ROW_BYTES = 24  # of a point in a block, beside its coordinates: id, hash, squared norm
_SUM_BYTES = 40  # of a cluster in a partial result, beside its coordinate sums
_CANDIDATE_BYTES = 32  # (cluster, distance, id)
ITEMS_SHARE = 16  # items up to this part of driver_bytes are an array: less work than passes over Spark


@dataclass(frozen=True)
class Workload:
    """What is to be clustered, and how.

    Attributes:
        n: Items.
        d: Coordinates of each.
        levels: From the bottom.
        options: How each k-means goes.
        metric: "l2" keeps a second copy of the vectors while they are packed, "cosine" does not.
        driver_bytes: Bound on the driver's memory.
        tasks: That run at a time.
    """

    n: int
    d: int
    levels: tuple[LevelSpec, ...]
    options: Options = field(default_factory=Options)
    metric: str = "l2"
    driver_bytes: int = 1 << 30
    tasks: int = 1

    @property
    def row_bytes(self) -> int:
        """Bytes of a point in a block."""
        return 4 * self.d + _ROW_BYTES

    @property
    def most_in_group(self) -> int:
        """Points of a group of a split level that one worker clusters; larger groups are divided."""
        return max(1, MOST_GROUP_COORDINATES // self.d)

    def points(self, level: int) -> int:
        """Points that a level (1-based) clusters: the items, or the centroids of the level below."""
        return self.n if level == 1 else self.levels[level - 2].n_clusters

    def fits(self, n_vectors: int) -> bool:
        """Whether so many vectors, other than the items, come to the driver."""
        return fits_driver(n_vectors, self.d, self.driver_bytes)

    def on_driver(self, level: int) -> bool:
        """Whether the points of a level are an array on the driver, and not blocks on executors."""
        if level == 1:
            return 4 * self.n * self.d <= self.driver_bytes // ITEMS_SHARE
        return self.on_driver(level - 1) or self.fits(self.points(level))

    def of_task(self, points: int) -> int:
        """Points that one task has."""
        return ceil(points / self.tasks)

    def met_by_task(self, points: int, k: int) -> int:
        """Clusters whose sums a task holds and sends: those that some of its points are nearest to."""
        return min(k, self.of_task(points))

    def members(self, level: int) -> int:
        """Points that a resampling round keeps; 0 where there is none."""
        spec = self.levels[level - 1]
        return min(self.points(level), (spec.groups or spec.n_clusters) * spec.size) if spec.rounds else 0

    def n_groups(self, level: int) -> int:
        """Groups of a split level, if all were alike: its pre-clusters, or twice the parts that each must have."""
        groups = self.levels[level - 1].groups or 1
        parts = self.points(level) / groups / self.most_in_group
        return groups * ceil(2 * parts) if parts > 1 else groups


@dataclass(frozen=True)
class Passes:
    """How often a k-means reads its points, beside searches for points to start empty clusters at.

    Attributes:
        batch: Each nested batch.
        whole: All points, after those.
        alone: All points, where no batches come before them.
    """

    batch: int
    whole: int
    alone: int

    @classmethod
    def expected(cls, options: Options) -> Passes:
        """What is usual: 2 to 4 of each batch and 5 to 15 of all; without batches before them some 25."""
        most = options.max_iter + 1
        return cls(min(3, most), min(10, most), min(25, most))

    @classmethod
    def most(cls, options: Options) -> Passes:
        """`max_iter` moves of the centroids want one assignment more."""
        most = options.max_iter + 1
        return cls(most, most, most)


@dataclass(frozen=True)
class Work:
    """Something done to points.

    Attributes:
        rows: Points read, as often as they are.
        steps: Times that partial sums of all tasks are added up.
        shuffled: Bytes that go from executors to executors.
        multiply_adds: On executors; one in float64 counts as two.
        driver_multiply_adds: On the driver.
    """

    rows: float = 0
    steps: float = 0
    shuffled: float = 0
    multiply_adds: float = 0
    driver_multiply_adds: float = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, count: float) -> Work:
        return Work(*(count * value for value in astuple(self)))


def level_work(load: Workload, level: int, passes: Passes) -> Work:
    """Work of a level (1-based), with the pass that at the end gives every point its place in the tree."""
    return (_in_two_steps if load.levels[level - 1].groups else _in_one_step)(load, level, passes)


def _in_one_step(load: Workload, level: int, passes: Passes) -> Work:
    """K-means with its rounds; a search."""
    points, k = load.points(level), load.levels[level - 1].n_clusters
    return _with_rounds(load, level, k, passes) + _pass(load, points, k, load.on_driver(level))


def _in_two_steps(load: Workload, level: int, passes: Passes) -> Work:
    """Pre-clusters and who is in each; points to the workers of their groups, each clustered by itself; a search.

    Groups that are too large are first divided: all points go to the workers of those, and are assigned again.
    """
    spec, points, here = load.levels[level - 1], load.points(level), load.on_driver(level)
    a, n_groups = spec.groups or 1, load.n_groups(level)
    b = spec.n_clusters / n_groups
    work = _with_rounds(load, level, a, passes) + _step(load, points, a, here)
    if n_groups > a:
        work += _scatter(load, points, a, here) + _step(load, points, n_groups, here)
        work += _within(load, a, load.most_in_group, n_groups / a, passes, here)
    work += _scatter(load, points, n_groups, here) + _within(load, n_groups, points / n_groups, b, passes, here)
    return work + _pass(load, points, n_groups + min(n_groups, spec.probe) * b, here)


def _with_rounds(load: Workload, level: int, k: int, passes: Passes) -> Work:
    """K-means, and in each round a search for members and k-means on them."""
    spec, points, here = load.levels[level - 1], load.points(level), load.on_driver(level)
    work = _fit(load, points, k, passes, here)
    if not spec.rounds:
        return work
    members, found = load.members(level), _pass(load, points, k, here)
    if not here:  # executors find the last member of each cluster first, and then the points up to it
        candidates = load.tasks * min(k * spec.size, load.of_task(points))
        found = found * 2 + Work(shuffled=candidates * _CANDIDATE_BYTES)
    return work + (found + _fit(load, members, k, passes, here or load.fits(members))) * spec.rounds


def _fit(load: Workload, points: int, k: int, passes: Passes, here: bool) -> Work:
    """Seeds, which the driver chooses, and steps."""
    seeding = _seeding(load, k, points) * load.d
    steps = (_step(load, size, k, here) * count for size, count in _reads(load, points, k, passes))
    return sum(steps, _product(True, seeding))


def _within(load: Workload, n_groups: int, points: float, k: float, passes: Passes, here: bool) -> Work:
    """K-means in each of so many groups, of so many points and clusters."""
    assigned = sum(size * count for size, count in _reads(load, int(points), ceil(k), passes)) * k
    seeding = _seeding(load, ceil(k), points)
    return _product(here, n_groups * (assigned + seeding) * load.d)


def _reads(load: Workload, points: int, k: int, passes: Passes) -> list[tuple[int, int]]:
    """Sizes of all points and of the nested batches, each with how often it is read."""
    sizes = [points >> batch for batch in range(MOST_CLASS + 1)]
    first = first_batch(np.array(sizes), k) if load.options.algorithm == "minibatch" else 0
    if not first:
        return [(points, passes.alone)]
    return [(points, passes.whole), *((size, passes.batch) for size in sizes[1 : first + 1])]


def _step(load: Workload, points: int, k: int, here: bool) -> Work:
    """A pass, and the sums of all tasks added up."""
    if here:
        return _pass(load, points, k, here)
    sums = load.tasks * load.met_by_task(points, k) * (8 * load.d + _SUM_BYTES)
    return _pass(load, points, k, here) + Work(steps=1, shuffled=sums)


def _scatter(load: Workload, points: int, k: int, here: bool) -> Work:
    """A pass after which all points go to the workers of their groups."""
    return _pass(load, points, k, here) + Work(shuffled=0 if here else points * load.row_bytes)


def _pass(load: Workload, points: int, k: float, here: bool) -> Work:
    return Work(rows=points) + _product(here, points * k * load.d)


def _product(here: bool, multiply_adds: float) -> Work:
    return Work(driver_multiply_adds=multiply_adds) if here else Work(multiply_adds=multiply_adds)


def _seeding(load: Workload, k: int, points: float) -> float:
    """Distances that greedy k-means++ finds; a random choice finds none.

    Twice what it chooses by: those of the first centroids are in float64, and later half its candidates are in vain.
    """
    if not is_greedy(k, load.options.init):
        return 0
    return 2 * k * min(points, sample_size(k, load.d)) * (2 + log(k))
