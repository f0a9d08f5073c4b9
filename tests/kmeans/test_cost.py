"""The cost model: small cases solved by hand, what grows with what, and advice that holds when it is taken."""

from __future__ import annotations

import re
from dataclasses import replace
from math import log

import pytest

from lakestrata.kmeans.advice import WORKER_BYTES, findings, readable_bytes, readable_time, split_of
from lakestrata.kmeans.cost import Machines, estimate
from lakestrata.kmeans.lloyd import Options
from lakestrata.kmeans.tree import LevelSpec
from lakestrata.kmeans.work import Work, Workload

MIB, GIB = 1 << 20, 1 << 30
LLOYD = Options("lloyd", max_iter=3)  # 4 passes: 3 moves, and the assignment after the last
ITEMS = Workload(100_000, 8, (LevelSpec(10),), LLOYD, driver_bytes=MIB, tasks=2)  # 3.2 MB: not on the driver
PAPER = Workload(
    743_000_000,
    1024,
    (LevelSpec(10_000_000), LevelSpec(500_000, 10, 10), LevelSpec(50_000, 10, 5), LevelSpec(10_000, 10, 3)),
    driver_bytes=16 * GIB,
    tasks=1000,
)


def with_levels(load, *levels):
    return replace(load, levels=levels)


def arithmetic(work):
    return work.multiply_adds + work.driver_multiply_adds


def split_named(text):
    """The setting that a finding names, as a list."""
    found = re.search(r"cluster\.split: \[([^]]+)\]", text)
    assert found, text
    return [None if entry == "null" else int(entry) for entry in found[1].split(", ")]


def as_advised(load, found):
    """The same tree with all settings that findings name."""
    for finding in found:
        if "cluster.split" in finding.text:
            splits = split_named(finding.text)
            specs = zip(load.levels, splits, strict=True)
            load = with_levels(load, *(replace(s, groups=a, rounds=0) if a else s for s, a in specs))
        elif "cluster.driver_bytes: " in finding.text:
            load = replace(load, driver_bytes=int(re.findall(r"cluster\.driver_bytes: (\d+)", finding.text)[0]))
        elif "cluster.resampling." in finding.text:
            sizes = re.findall(r"cluster\.resampling\.\w+: \[([^]]+)\]", finding.text)[0].split(", ")
            load = with_levels(load, *(replace(s, size=int(r)) for s, r in zip(load.levels, sizes, strict=True)))
    return load


def test_plain_lloyd():
    made = estimate(ITEMS)
    (level,) = made.levels
    assert level.block_bytes == 100_000 * (4 * 8 + 24)
    assert level.centroid_bytes == 4 * 10 * 8
    assert level.passes == (5, 5)  # one more gives all points their place
    assert level.expected.multiply_adds == 5 * 100_000 * 10 * 8
    assert level.expected.driver_multiply_adds == pytest.approx(2 * 10 * 100_000 * 8 * (2 + log(10)))
    assert (level.expected.steps, level.expected.shuffled) == (4, 4 * 2 * 10 * (8 * 8 + 40))
    assert level.worker_bytes == 16 * 10 * 8 + 20 * MIB
    assert level.driver_bytes == 8 * 100_000 * 8  # all are in the sample to seed from
    assert made.driver_bytes == level.driver_bytes + 100 * 10
    assert made.scratch_bytes == 100_000 * (56 + 32)
    assert estimate(replace(ITEMS, metric="cosine")).scratch_bytes == 100_000 * 56


def test_nested_batches_cost_less_than_a_pass_each():
    load = Workload(1 << 20, 8, (LevelSpec(2048),), Options(max_iter=50), driver_bytes=MIB)
    (level,) = estimate(load).levels
    nested = 1 - 1 / 32  # batch 5 is the last with 16 points a cluster: a half, a quarter, ... 1/32 of the points
    assert level.passes == (10 + 3 * nested + 1, 51 + 51 * nested + 1)
    assert (level.expected.steps, level.most.steps) == (10 + 3 * 5, 51 + 51 * 5)


def test_resampling_passes_over_all_points_twice_a_round_and_once_at_its_end():
    plain, resampled = estimate(ITEMS), estimate(with_levels(ITEMS, LevelSpec(10, 2, 3)))
    more = resampled.expected.rows - plain.expected.rows
    assert more == 2 * (2 * 100_000 + 4 * 30) + 100_000  # the 30 members are on the driver
    assert resampled.expected.multiply_adds - plain.expected.multiply_adds == 5 * 100_000 * 10 * 8
    assert resampled.expected.shuffled - plain.expected.shuffled == 2 * 2 * 30 * 32
    assert resampled.expected.steps == plain.expected.steps


def test_a_split_level():
    load = Workload(1_000_000, 4, (LevelSpec(100, 10, 5, groups=10, probe=3),), LLOYD, driver_bytes=MIB, tasks=2)
    (level,) = estimate(load).levels
    assert level.passes == (4 + 1 + 1 + 1, 4 + 1 + 1 + 1)  # pre-clusters, whose is whose, the shuffle, the end
    within = 4 * 1_000_000 * 10 * 4 + 10 * (2 * 10 * 100_000 * (2 + log(10))) * 4
    probed = 1_000_000 * (10 + 3 * 10) * 4
    assert level.expected.multiply_adds == pytest.approx(5 * 1_000_000 * 10 * 4 + within + probed)
    assert level.expected.shuffled == 1_000_000 * (16 + 24) + 4 * 2 * 10 * (8 * 4 + 40)
    assert level.worker_bytes == 2 * 1_000_000 * 40 + 16 * 10 * 4  # all points in one group, and its centroids
    every = estimate(with_levels(load, replace(load.levels[0], probe=1 << 60)))
    assert every.expected.multiply_adds - level.expected.multiply_adds == 1_000_000 * 7 * 10 * 4


def test_groups_too_large_for_a_worker_are_divided():
    load = Workload(10_000_000, 1024, (LevelSpec(10_000, groups=100),))
    assert load.most_in_group == 65_536
    assert load.n_groups(1) == 100 * 4  # 100,000 points are 1.5 times what a worker takes; parts have half of that
    assert replace(load, n=6_000_000).n_groups(1) == 100


def test_what_fits_the_driver_is_done_there():
    load = Workload(1_000_000, 64, (LevelSpec(20_000), LevelSpec(500, 10, 10)))
    bottom, top = estimate(load).levels
    assert (bottom.on_driver, top.on_driver) == (False, True)
    assert (top.block_bytes, top.worker_bytes) == (0, 0)
    assert (top.expected.shuffled, top.expected.multiply_adds, top.expected.steps) == (0, 0, 0)
    assert top.expected.driver_multiply_adds > 0


def test_work_adds_up():
    work = Work(1, 2, 3, 4, 5)
    assert work + work == work * 2
    made = estimate(PAPER)
    assert made.expected.rows == sum(level.expected.rows for level in made.levels)
    assert made.most.shuffled == sum(level.most.shuffled for level in made.levels)


def test_time_is_shared_by_executors_and_not_by_the_driver():
    (level,) = estimate(ITEMS).levels
    one = Machines(1, 1e6, 1e6)
    assert one.seconds(level, Work(multiply_adds=1e6)) == pytest.approx(1.15)
    assert one.seconds(level, Work(driver_multiply_adds=1e6)) == pytest.approx(1.15)
    ten = Machines(10, 1e7, 1e6)
    assert ten.seconds(level, Work(multiply_adds=1e6)) == pytest.approx(0.115)
    assert ten.seconds(level, Work(driver_multiply_adds=1e6)) == pytest.approx(1.15)
    assert ten.seconds(level, level.expected) < one.seconds(level, level.expected)


@pytest.mark.parametrize("algorithm", ["minibatch", "lloyd"])
@pytest.mark.parametrize(
    "more",
    [
        {"n": 2_000_000},
        {"d": 200},
        {"levels": (LevelSpec(20_000, 2, 10), LevelSpec(200, 2, 5))},
        {"levels": (LevelSpec(10_000, 3, 10), LevelSpec(200, 2, 5))},
        {"levels": (LevelSpec(10_000, 2, 20), LevelSpec(200, 2, 5))},
        {"tasks": 16},
    ],
    ids=str,
)
def test_more_costs_more(algorithm, more):
    levels = LevelSpec(10_000, 2, 10), LevelSpec(200, 2, 5)
    load = Workload(1_000_000, 100, levels, Options(algorithm), driver_bytes=MIB, tasks=8)
    less, greater = estimate(load), estimate(replace(load, **more))
    for before, after in [(less.expected, greater.expected), (less.most, greater.most)]:
        assert arithmetic(before) + before.shuffled < arithmetic(after) + after.shuffled
        assert arithmetic(before) <= arithmetic(after)
        assert before.shuffled <= after.shuffled
    for one, other in zip(less.levels, greater.levels, strict=True):
        assert one.block_bytes <= other.block_bytes
        assert one.centroid_bytes <= other.centroid_bytes
        assert one.driver_bytes <= other.driver_bytes
        for usual, most in zip(vars(one.expected).values(), vars(one.most).values(), strict=True):
            assert usual <= most


def test_the_papers_bottom_level_at_once_does_not_fit_and_the_split_named_does():
    found = findings(estimate(PAPER))
    assert len(found) == 1
    assert found[0].is_fatal
    assert found[0].text.startswith("level 1: 10,000,000 clusters of 1,024 floats take 153 GiB in each worker")
    a, *others = split_named(found[0].text)
    assert others == [None, None, None]
    assert 10_000_000 % a == 0
    assert f"(10,000,000 = {a:,} x {10_000_000 // a:,})" in found[0].text
    better = as_advised(PAPER, found)
    assert findings(estimate(better)) == []
    assert estimate(better).worker_bytes < WORKER_BYTES
    assert estimate(better).expected.multiply_adds < estimate(PAPER).expected.multiply_adds / 10
    assert better.n_groups(1) == a  # none must be divided


def test_all_that_a_larger_tree_needs_is_said_at_once():
    levels = (LevelSpec(200_000_000, 10, 40), LevelSpec(8_000_000, 10, 10), LevelSpec(100_000, 10, 40))
    load = Workload(17_000_000_000, 1024, levels, tasks=1000)
    found = findings(estimate(load))
    assert [finding.text.split(":")[0].split(" needs")[0] for finding in found] == ["level 1", "level 2", "the driver"]
    assert findings(estimate(as_advised(load, found))) == []


def test_a_driver_without_room_is_fatal_and_the_value_named_is_enough():
    load = Workload(50_000_000, 1024, (LevelSpec(400_000), LevelSpec(1000)), tasks=100)
    (finding,) = findings(estimate(load))
    assert finding.is_fatal
    assert finding.text.startswith(
        "the driver needs 6.14 GiB (level 1 takes 6.1 GiB, the clusters of all levels 38.2 MiB)"
    )
    assert finding.text.endswith("and may use 1 GiB: set cluster.driver_bytes: 8589934592 (8 GiB).")
    assert findings(estimate(as_advised(load, [finding]))) == []


def test_a_driver_always_has_room_for_a_little():
    assert findings(estimate(replace(ITEMS, driver_bytes=1))) == []


def test_members_that_one_worker_cannot_hold():
    load = Workload(1 << 30, 16, (LevelSpec(1000, 10, 1 << 20),), tasks=1)
    (finding,) = findings(estimate(load), worker_bytes=4 * GIB)
    assert not finding.is_fatal
    assert "cluster.resampling.closest: [" in finding.text
    better = as_advised(load, [finding])
    assert findings(estimate(better), worker_bytes=4 * GIB) == []
    assert better.levels[0].size > 60_000  # 4 GiB hold 67 million candidates of 64 bytes
    assert findings(estimate(replace(load, tasks=100)), worker_bytes=4 * GIB) == []


def test_what_takes_too_long_is_split_or_wants_more_machines():
    load = Workload(1_000_000_000, 256, (LevelSpec(1_000_000),), driver_bytes=8 * GIB, tasks=16)
    slow = Machines(16, 16 * 5e10, 16 * 5e10)
    (finding,) = findings(estimate(load), machines=slow)
    assert not finding.is_fatal
    assert "on these machines: set cluster.split: [" in finding.text
    better = as_advised(load, [finding])
    assert findings(estimate(better), machines=slow) == []
    (finding,) = findings(estimate(better), machines=Machines(1, 1e8, 1e8))
    assert re.search(r": [\d,]+ times as many would take 7\d\d h\.$", finding.text)
    assert findings(estimate(load), machines=Machines(10_000, 1e15, 1e12)) == []


def test_pre_clusters_that_must_be_divided():
    load = Workload(100_000_000, 1024, (LevelSpec(1_000_000, groups=100),), driver_bytes=8 * GIB)
    (finding,) = findings(estimate(load))
    assert not finding.is_fatal
    assert "100 pre-clusters have some 1,000,000 points each, and a worker takes 65,536" in finding.text
    assert findings(estimate(as_advised(load, [finding]))) == []
    (finding,) = findings(estimate(with_levels(load, LevelSpec(500, groups=100))))
    assert finding.is_fatal
    assert finding.text.endswith("leave split out.")


@pytest.mark.parametrize(
    ("k", "least", "a"),
    [
        (1_000_000, 1, 1000),
        (200_000_000, 1, 20_000),  # nearer to the root than 10,000 or 40,000, rounder than 16,000 x 12,500
        (10_000_000, 50_000, 50_000),
        (7919, 1, 90),  # a prime
        (3, 1, 2),
        (2, 1, None),
        (100, 200, None),
    ],
)
def test_splits_are_round_and_near_the_root_or_what_the_groups_want(k, least, a):
    assert split_of(k, least) == a


def test_only_what_fits_is_a_split():
    assert split_of(1_000_000, fits=lambda groups: groups <= 700) in (500, 625)
    assert split_of(1_000_000, fits=lambda groups: False) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1 KiB"), (1536 * MIB, "1.5 GiB"), (200 * GIB, "200 GiB")],
)
def test_bytes_for_people(count, text):
    assert readable_bytes(count) == text
    assert readable_bytes(2**60) == "1,024 PiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1, "1 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h"), (3.6e6, "1,000 h")],
)
def test_times_for_people(seconds, text):
    assert readable_time(seconds) == text
