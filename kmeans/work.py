"""How much is to be read, sent and multiplied to make the levels of a tree, from their numbers alone."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from math import ceil, log

import numpy as np

from .hashing import MOST_CLASS
from .lloyd import Options, first_batch
from .seeding import MOST_GREEDY, sample_size
from .split import MOST_GROUP_COORDINATES
from .tree import LevelSpec

_ROW_BYTES = 24  # of a point in a block, beside its coordinates: id, hash, squared norm
_SUM_BYTES = 40  # of a cluster in a partial result, beside its coordinate sums
_CANDIDATE_BYTES = 32  # (cluster, distance, id)
_ITEMS_SHARE, _SHARE = 16, 4  # the items, or others, up to this part of driver_bytes are an array on the driver


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

    def on_driver(self, level: int, points: int) -> bool:
        """Whether so many points of a level are an array on the driver, and not blocks on executors."""
        share = _ITEMS_SHARE if level == 1 and points == self.n else _SHARE
        return 4 * points * self.d <= self.driver_bytes // share

    def candidates(self, level: int) -> int:
        """Members of clusters that one task may put forward in a resampling round."""
        spec = self.levels[level - 1]
        return min(spec.n_clusters * spec.size, ceil(self.points(level) / self.tasks))

    def n_groups(self, level: int) -> int:
        """Groups of a split level, if all were alike: its pre-clusters, or twice the parts that each must have."""
        groups = self.levels[level - 1].groups or 1
        parts = self.points(level) / groups / self.most_in_group
        return groups * ceil(2 * parts) if parts > 1 else groups


@dataclass(frozen=True)
class Passes:
    """How often a k-means reads its points.

    Attributes:
        batch: Each nested batch; 0 where there are none.
        whole: All points, after those.
        group: All points of a group that one worker clusters by itself.
    """

    batch: int
    whole: int
    group: int

    @classmethod
    def expected(cls, options: Options) -> Passes:
        """What is usual: 2 to 4 of each batch and 5 to 15 of all; without batches before them some 25."""
        most = options.max_iter + 1
        if options.algorithm == "minibatch":
            return cls(min(3, most), min(10, most), min(25, most))
        return cls(0, min(25, most), min(25, most))

    @classmethod
    def most(cls, options: Options) -> Passes:
        """`max_iter` moves of the centroids want one assignment more."""
        most = options.max_iter + 1
        return cls(most if options.algorithm == "minibatch" else 0, most, most)


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
    spec, points = load.levels[level - 1], load.points(level)
    k = spec.n_clusters
    once = _pass(load, level, points, k)
    work = _fit(load, level, points, k, passes) + once
    if not spec.rounds:
        return work
    found = 0 if load.on_driver(level, points) else load.tasks * load.candidates(level) * _CANDIDATE_BYTES
    resampled = once * 2 + Work(shuffled=found) + _fit(load, level, min(points, k * spec.size), k, passes)
    return work + resampled * spec.rounds + once


def _in_two_steps(load: Workload, level: int, passes: Passes) -> Work:
    """Pre-clusters, a search for everyone's, a shuffle by group, each group by itself, a search in some groups."""
    spec, points = load.levels[level - 1], load.points(level)
    k, a, n_groups = spec.n_clusters, spec.groups or 1, load.n_groups(level)
    here = load.on_driver(level, points)
    work = _fit(load, level, points, a, passes) + _pass(load, level, points, a)
    if n_groups > a:
        work += _pass(load, level, points, n_groups / a) * (passes.whole + 1)
    work += Work(rows=points, shuffled=0 if here else points * load.row_bytes)
    b = k / n_groups
    seeding = n_groups * _seeding(ceil(b), min(points / n_groups, sample_size(ceil(b), load.d)))
    work += _product(here, (passes.group * points * b + seeding) * load.d)
    return work + _pass(load, level, points, a + min(a, spec.probe) * k / a)


def _fit(load: Workload, level: int, points: int, k: int, passes: Passes) -> Work:
    """Seeds, nested batches, and all points; batches 1 to j have 1 - 2^-j of the points together."""
    nested = np.array([points >> j for j in range(MOST_CLASS + 1)])
    j = first_batch(nested, k) if passes.batch else 0
    n_passes, steps = passes.whole + passes.batch * (1 - 2.0**-j), passes.whole + passes.batch * j
    work = _pass(load, level, points, k) * n_passes
    work += _product(True, _seeding(k, min(points, sample_size(k, load.d))) * load.d)
    if load.on_driver(level, points):
        return work
    return work + Work(steps=steps, shuffled=steps * load.tasks * k * (8 * load.d + _SUM_BYTES))


def _pass(load: Workload, level: int, points: int, k: float) -> Work:
    return Work(rows=points) + _product(load.on_driver(level, points), points * k * load.d)


def _product(here: bool, multiply_adds: float) -> Work:
    return Work(driver_multiply_adds=multiply_adds) if here else Work(multiply_adds=multiply_adds)


def _seeding(k: int, sample: float) -> float:
    """Distances that greedy k-means++ finds, each in float64, which counts twice; a random choice finds none."""
    return 2 * k * sample * (2 + log(k)) if k <= MOST_GREEDY else 0
