"""The planner's advice: what is said not to fit, and that taking the advice helps."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lakestrata.kmeans.advice import WORKER_BYTES, findings, readable_bytes, readable_time, split_of
from lakestrata.kmeans.cost import Machines, estimate
from lakestrata.kmeans.tree import LevelSpec
from lakestrata.kmeans.work import Workload

MIB, GIB = 1 << 20, 1 << 30
PAPER = Workload(
    743_000_000,
    1024,
    (LevelSpec(10_000_000), LevelSpec(500_000, 10, 10), LevelSpec(50_000, 10, 5), LevelSpec(10_000, 10, 3)),
    driver_bytes=4 * GIB,
    tasks=100,
)


def with_levels(load, *levels):
    return replace(load, levels=levels)


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


def test_the_papers_bottom_level_at_once_does_not_fit_and_the_split_named_does():
    found = findings(estimate(PAPER))
    assert len(found) == 1
    assert found[0].is_fatal
    # 38.1 GiB of centroids; sums of 7.43 million clusters, 56.7 GiB, twice
    assert found[0].text.startswith("level 1: 10,000,000 clusters of 1,024 floats take 152 GiB in each worker")
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
    load = Workload(17_000_000_000, 1024, levels, tasks=50)
    found = findings(estimate(load))
    assert [finding.text.split(":")[0].split(" needs")[0] for finding in found] == ["level 1", "level 2", "the driver"]
    assert findings(estimate(as_advised(load, found))) == []


def test_a_driver_without_room_is_fatal_and_the_value_named_is_enough():
    load = Workload(50_000_000, 1024, (LevelSpec(400_000, groups=100_000), LevelSpec(1000)), tasks=100)
    (finding,) = findings(estimate(load))
    assert finding.is_fatal
    assert finding.text.startswith(
        "the driver needs 1.18 GiB (level 1 takes 1.14 GiB, the clusters of all levels 38.2 MiB)"
    )
    assert finding.text.endswith("and may use 1 GiB: set cluster.driver_bytes: 2147483648 (2 GiB).")
    assert findings(estimate(as_advised(load, [finding]))) == []


def test_a_driver_always_has_room_for_a_little():
    assert findings(estimate(Workload(100_000, 8, (LevelSpec(10),), driver_bytes=1))) == []


def test_members_that_one_worker_cannot_hold():
    load = Workload(1 << 30, 16, (LevelSpec(1000, 10, 1 << 20),), tasks=1)
    (finding,) = findings(estimate(load), worker_bytes=4 * GIB)
    assert finding.is_fatal
    assert "cluster.resampling.closest: [" in finding.text
    better = as_advised(load, [finding])
    assert findings(estimate(better), worker_bytes=4 * GIB) == []
    assert 25_000 < better.levels[0].size < 26_844  # 4 GiB hold 53.7 million candidates of 80 bytes, half to be kept
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
