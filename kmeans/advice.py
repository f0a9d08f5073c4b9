"""What of a planned tree will not fit its machines, and the setting that does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, isqrt, log

from .cost import Estimate, LevelCost, Machines, estimate, level_cost
from .tree import LevelSpec
from .work import Workload

WORKER_BYTES = 64 << 30  # what a task can have that has a large machine to itself
_ANY_DRIVER = 1 << 28  # so much is there, however small driver_bytes is set
_LONG = 30 * 24 * 3600.0  # seconds; nobody waits longer for a level
_DIGIT = 0.2  # a round number may lie so much farther off, in logarithms


@dataclass(frozen=True)
class Finding:
    """Something that will not fit.

    Attributes:
        is_fatal: Whether it would end the run, so that it makes no sense to begin.
        text: One line: what will not fit, where, and the setting that does.
    """

    is_fatal: bool
    text: str


Advice = tuple[Finding, LevelSpec]


def findings(made: Estimate, worker_bytes: int = WORKER_BYTES, machines: Machines | None = None) -> list[Finding]:
    """All that will not fit, from the bottom level up, the driver last; each as if the settings before it were made.

    Args:
        made: The tree as planned.
        worker_bytes: Most memory that one Python worker can have.
        machines: To judge the time by; without them it is not judged.
    """
    load, found = made.load, []
    for level in range(1, len(load.levels) + 1):
        for advise in (_group_advice, _memory_advice, _time_advice):
            advice = advise(load, level, worker_bytes, machines)
            if advice:
                found.append(advice[0])
                load = _with_level(load, level, advice[1])
    return found + _driver_advice(load)


def split_of(n_clusters: int, least: float = 1, fits: Callable[[int], bool] = lambda groups: True) -> int | None:
    """Pre-clusters a of k = a x b.

    A pass over the points costs least where a is the root of k, unless its groups are too large for one worker then.

    Args:
        n_clusters: k.
        least: Of a, to leave no group too large.
        fits: Whether an a is possible.

    Returns:
        A divisor that fits, near the root or `least`, with few digits before its zeros and those of b. Where k has
        none, the root or `least` to one digit, or None if that does not fit either.
    """
    near = max(n_clusters**0.5, least)
    possible = [a for a in _divisors(n_clusters) if max(least, near / 10) <= a <= near * 10 and 1 < a < n_clusters]
    fitting = [a for a in possible if fits(a)]
    if fitting:
        return min(fitting, key=lambda a: (_oddness(a, n_clusters // a, near), -a))
    ten = 10 ** (len(str(int(near))) - 1)
    rounded = ceil(near / ten) * ten
    return rounded if 1 < rounded < n_clusters and fits(rounded) else None


def _group_advice(load: Workload, level: int, worker_bytes: int, machines: Machines | None) -> Advice | None:
    """Whether the groups of a split level are what one worker takes."""
    spec, points = load.levels[level - 1], load.points(level)
    if spec.groups is None or load.n_groups(level) == spec.groups:
        return None
    each = f"{_where(load, level)}: {spec.groups:,} pre-clusters have some {points // spec.groups:,} points each, "
    why = f"and a worker takes {load.most_in_group:,}"
    if load.n_groups(level) > spec.n_clusters:
        whole = replace(spec, groups=None)
        return Finding(True, f"{each}{why}; parts of that size are more than the clusters: leave split out."), whole
    split = _split_that_fits(load, level, worker_bytes)
    if split is None or split.groups is None or split.groups <= spec.groups:
        return None
    return Finding(False, f"{each}{why}, so that each is divided anew: set {_setting(load, level, split)}."), split


def _memory_advice(load: Workload, level: int, worker_bytes: int, machines: Machines | None) -> Advice | None:
    """Whether a worker has room for the level; one that has not is killed, as often as it is tried."""
    spec, cost = load.levels[level - 1], level_cost(load, level)
    if cost.worker_bytes <= worker_bytes:
        return None
    needs, has = readable_bytes(cost.worker_bytes), readable_bytes(worker_bytes)
    takes = f"{_where(load, level)} take {needs} in each worker, which has {has} at most"
    fewer = _fewer_members(load, level, worker_bytes)
    if fewer:
        other = replace(spec, size=fewer)
        sizes = ", ".join(str(each.size) for each in _with_level(load, level, other).levels)
        return Finding(True, f"{takes}: set cluster.resampling.{spec.strategy}: [{sizes}]."), other
    split = _split_that_fits(load, level, worker_bytes)
    if not split:
        return Finding(True, f"{takes}: ask for fewer clusters."), spec
    needs = readable_bytes(level_cost(_with_level(load, level, split), level).worker_bytes)
    return Finding(True, f"{takes}: set {_setting(load, level, split)}, which takes {needs}."), split


def _time_advice(load: Workload, level: int, worker_bytes: int, machines: Machines | None) -> Advice | None:
    """Whether anybody would wait for the level."""
    if machines is None:
        return None
    spec, cost = load.levels[level - 1], level_cost(load, level)
    seconds = machines.seconds(cost, cost.expected)
    if seconds <= _LONG:
        return None
    takes = f"{_where(load, level)} take some {readable_time(seconds)} on these machines"
    split = None if spec.groups else _split_that_fits(load, level, worker_bytes)
    if split:
        other = level_cost(_with_level(load, level, split), level)
        quicker = machines.seconds(other, other.expected)
        if quicker < seconds / 2:
            setting = _setting(load, level, split)
            return Finding(False, f"{takes}: set {setting}, which takes some {readable_time(quicker)}."), split
    more = ceil(seconds / _LONG)
    return Finding(False, f"{takes}: {more:,} times as many would take {readable_time(seconds / more)}."), spec


def _driver_advice(load: Workload) -> list[Finding]:
    made = estimate(load)
    if made.driver_bytes <= _room(load):
        return []
    enough = load.driver_bytes
    while estimate(replace(load, driver_bytes=enough)).driver_bytes > enough:
        enough = 1 << enough.bit_length()  # what may be an array there grows with it
    largest = max(range(len(made.levels)), key=lambda t: made.levels[t].driver_bytes)
    level, clusters = readable_bytes(made.levels[largest].driver_bytes), readable_bytes(made.cluster_bytes)
    text = (
        f"the driver needs {readable_bytes(made.driver_bytes)} (level {largest + 1} takes {level}, the clusters of all "
        f"levels {clusters}) and may use {readable_bytes(load.driver_bytes)}: set cluster.driver_bytes: {enough} "
        f"({readable_bytes(enough)})."
    )
    return [Finding(True, text)]


def _room(load: Workload) -> int:
    return max(load.driver_bytes, _ANY_DRIVER)


def _fewer_members(load: Workload, level: int, worker_bytes: int) -> int:
    """Members that a resampling round can keep; 0 if it is not they that take too much."""
    spec = load.levels[level - 1]
    low, high = 0, spec.size if spec.rounds and spec.groups is None else 1
    while high - low > 1:
        middle = (low + high) // 2
        fits = level_cost(_with_level(load, level, replace(spec, size=middle)), level).worker_bytes <= worker_bytes
        low, high = (middle, high) if fits else (low, middle)
    return low


def _split_that_fits(load: Workload, level: int, worker_bytes: int) -> LevelSpec | None:
    """The level in two steps that workers have room for; if there is a choice, in groups that need not be divided."""
    spec = load.levels[level - 1]

    def cost_of(groups: int) -> LevelCost:
        return level_cost(_with_level(load, level, replace(spec, groups=groups, rounds=0)), level)

    def fits_workers(groups: int) -> bool:
        return cost_of(groups).worker_bytes <= worker_bytes

    def fits_all(groups: int) -> bool:
        return fits_workers(groups) and cost_of(groups).driver_bytes <= _room(load)

    k, undivided = spec.n_clusters, 2 * load.points(level) / load.most_in_group  # most are below twice the mean
    groups = split_of(k, undivided, fits_all) or split_of(k, undivided, fits_workers) or split_of(k, 1, fits_workers)
    return replace(spec, groups=groups, rounds=0) if groups else None


def _with_level(load: Workload, level: int, spec: LevelSpec) -> Workload:
    return replace(load, levels=(*load.levels[: level - 1], spec, *load.levels[level:]))


def _where(load: Workload, level: int) -> str:
    return f"level {level}: {load.levels[level - 1].n_clusters:,} clusters of {load.d:,} floats"


def _setting(load: Workload, level: int, spec: LevelSpec) -> str:
    levels = _with_level(load, level, spec).levels
    listed = ", ".join("null" if each.groups is None else str(each.groups) for each in levels)
    k, a = spec.n_clusters, spec.groups or 1
    return f"cluster.split: [{listed}] ({k:,} {'=' if k % a == 0 else 'is about'} {a:,} x {k // a:,})"


def _oddness(a: int, b: int, near: float) -> float:
    """How far a is from a number, and how many digits it and b have; rounded, so that equally far is equal."""
    return round(abs(log(a / near)) + _DIGIT * (_digits(a) + _digits(b)), 9)


def _divisors(number: int) -> list[int]:
    small = [a for a in range(1, isqrt(number) + 1) if number % a == 0]
    return small + [number // a for a in small]


def _digits(number: int) -> int:
    return len(str(number).rstrip("0"))


def readable_bytes(count: float) -> str:
    """Bytes in the unit that suits."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:,.0f} {units[0]}" if count >= 100 or units[0] == "bytes" else f"{count:.3g} {units[0]}"


def readable_time(seconds: float) -> str:
    """Seconds in the unit that suits."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 36_000 else f"{round(seconds / 3600):,} h"
