"""The cost model: small cases solved by hand, and what grows with what."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest

from lakestrata.kmeans.cost import Machines, estimate
from lakestrata.kmeans.lloyd import Options
from lakestrata.kmeans.seeding import sample_size
from lakestrata.kmeans.tree import LevelSpec
from lakestrata.kmeans.work import Work, Workload

MIB, GIB = 1 << 20, 1 << 30
LLOYD = Options("lloyd", max_iter=3)  # 4 passes: 3 moves, and the assignment after the last
ITEMS = Workload(100_000, 8, (LevelSpec(10),), LLOYD, driver_bytes=MIB, tasks=2)  # 3.2 MB: not on the driver
CHUNK = 96 * MIB  # what a worker takes for blocks and scores


def with_levels(load, *levels):
    return replace(load, levels=levels)


def arithmetic(work):
    return work.multiply_adds + work.driver_multiply_adds


def test_plain_lloyd():
    made = estimate(ITEMS)
    (level,) = made.levels
    assert level.block_bytes == 100_000 * (4 * 8 + 24)
    assert level.centroid_bytes == 4 * 10 * 8
    assert level.passes == (5, 5)  # one more gives all points their place
    assert level.expected.multiply_adds == 5 * 100_000 * 10 * 8
    assert level.expected.driver_multiply_adds == pytest.approx(2 * 10 * 100_000 * 8 * (2 + log(10)))
    assert (level.expected.steps, level.expected.shuffled) == (4, 4 * 2 * 10 * (8 * 8 + 40))
    assert level.worker_bytes == 4 * 10 * 8 + 16 * 10 * 8 + CHUNK
    assert level.driver_bytes == 3 * 4 * 100_000 * 8  # all are in the sample to seed from
    assert made.driver_bytes == level.driver_bytes + 100 * 10
    assert made.scratch_bytes == 100_000 * (56 + 32)
    assert estimate(replace(ITEMS, metric="cosine")).scratch_bytes == 100_000 * 56


def test_nested_batches_cost_less_than_a_pass_each():
    load = Workload(1 << 20, 8, (LevelSpec(2048),), Options(max_iter=50), driver_bytes=MIB)
    (level,) = estimate(load).levels
    nested = 1 - 1 / 32  # batch 5 is the last with 16 points a cluster: a half, a quarter, ... 1/32 of the points
    assert level.passes == (10 + 3 * nested + 1, 51 + 51 * nested + 1)
    assert (level.expected.steps, level.most.steps) == (10 + 3 * 5, 51 + 51 * 5)
    (few,) = estimate(replace(load, n=60_000)).levels  # half of which are not 2**15
    assert few.passes == (25 + 1, 51 + 1)


def test_a_task_sends_the_sums_of_clusters_that_its_points_meet():
    load = Workload(1 << 20, 8, (LevelSpec(2048),), driver_bytes=MIB)
    (level,) = estimate(load).levels
    assert level.expected.shuffled == (10 + 3 * 5) * 2048 * (8 * 8 + 40)
    (level,) = estimate(replace(load, tasks=1024)).levels  # 1024 points each, 512 of the first batch, ...
    assert level.expected.shuffled == 1024 * (10 * 1024 + 3 * (512 + 256 + 128 + 64 + 32)) * (8 * 8 + 40)
    assert level.worker_bytes == (4 * 2048 + 16 * 1024) * 8 + CHUNK


def test_resampling_passes_over_all_points_twice_a_round():
    plain, resampled = estimate(ITEMS), estimate(with_levels(ITEMS, LevelSpec(10, 2, 3)))
    more = resampled.expected.rows - plain.expected.rows
    assert more == 2 * (2 * 100_000 + 4 * 30)  # the 30 members are on the driver
    assert resampled.expected.multiply_adds - plain.expected.multiply_adds == 4 * 100_000 * 10 * 8
    assert resampled.expected.shuffled - plain.expected.shuffled == 2 * 2 * 30 * 32
    assert resampled.expected.steps == plain.expected.steps


def test_an_array_finds_its_members_in_one_pass():
    load = replace(ITEMS, driver_bytes=GIB)
    plain, resampled = estimate(load), estimate(with_levels(load, LevelSpec(10, 2, 3)))
    assert resampled.expected.rows - plain.expected.rows == 2 * (100_000 + 4 * 30)
    assert resampled.expected.shuffled == 0


def test_candidates_wait_in_workers_until_there_are_twice_as_many_as_are_kept():
    load = with_levels(ITEMS, LevelSpec(10, 2, 4000))
    assert estimate(load).worker_bytes == 4 * 10 * 8 + 80 * 50_000 + CHUNK  # all that a task has
    load = with_levels(ITEMS, LevelSpec(10, 2, 2000))
    assert estimate(load).worker_bytes == 4 * 10 * 8 + 80 * 2 * 20_000 + CHUNK


def test_a_split_level():
    load = Workload(1_000_000, 4, (LevelSpec(100, groups=10, probe=3),), LLOYD, driver_bytes=MIB, tasks=2)
    (level,) = estimate(load).levels
    assert level.passes == (4 + 1 + 1 + 1, 4 + 1 + 1 + 1)  # pre-clusters, how many are in each, the shuffle, the end
    within = 4 * 1_000_000 * 10 * 4 + 10 * (2 * 10 * 100_000 * (2 + log(10))) * 4
    probed = 1_000_000 * (10 + 3 * 10) * 4
    assert level.expected.multiply_adds == pytest.approx(6 * 1_000_000 * 10 * 4 + within + probed)
    assert level.expected.shuffled == 1_000_000 * (16 + 24) + 5 * 2 * 10 * (8 * 4 + 40)
    assert level.worker_bytes == 4 * 4 * 1_000_000 * 4 + CHUNK  # all points in one group, four times
    every = estimate(with_levels(load, replace(load.levels[0], probe=1 << 60)))
    assert every.expected.multiply_adds - level.expected.multiply_adds == 1_000_000 * 7 * 10 * 4
    resampled = estimate(with_levels(load, replace(load.levels[0], rounds=2, size=3)))  # the pre-clusters are
    assert resampled.expected.rows - level.expected.rows == 2 * (2 * 1_000_000 + 4 * 30)


def test_groups_too_large_for_a_worker_are_divided():
    load = Workload(10_000_000, 1024, (LevelSpec(10_000, groups=100, probe=1),), LLOYD)
    assert load.most_in_group == 65_536
    assert load.n_groups(1) == 100 * 4  # 100,000 points are 1.5 times what a worker takes; parts have half of that
    (level,) = estimate(load).levels
    assert level.passes == (4 + 1 + 2 + 1 + 1, 4 + 1 + 2 + 1 + 1)  # one shuffle more, and how many are in each then
    assert level.expected.shuffled == 2 * 10_000_000 * (4096 + 24) + (5 * 100 + 400) * (8 * 1024 + 40)
    assigned = 10_000_000 * (6 * 100 + 2 * 400 + (400 + 25))
    within = 4 * (100 * 65_536 * 4 + 10_000_000 * 25)  # each into 4 of its points that a worker takes; those into 25
    seeds = 2 * (100 * 4 * sample_size(4, 1024) * (2 + log(4)) + 400 * 25 * sample_size(25, 1024) * (2 + log(25)))
    assert level.expected.multiply_adds == pytest.approx((assigned + within + seeds) * 1024)
    assert level.worker_bytes == 4 * 4 * 2 * 65_536 * 1024 + CHUNK  # of a larger group so many come before some go
    assert replace(load, n=6_000_000).n_groups(1) == 100


def test_what_fits_the_driver_is_done_there():
    load = Workload(1_000_000, 64, (LevelSpec(20_000), LevelSpec(500, 10, 10)))
    bottom, top = estimate(load).levels
    assert (bottom.on_driver, top.on_driver) == (False, True)
    assert (top.block_bytes, top.worker_bytes) == (0, 0)
    assert (top.expected.shuffled, top.expected.multiply_adds, top.expected.steps) == (0, 0, 0)
    assert top.expected.driver_multiply_adds > 0
    assert top.driver_bytes == 4 * 4 * 20_000 * 64  # twice, and twice more while it is seeded
    top = estimate(with_levels(load, LevelSpec(20_000), LevelSpec(5000))).levels[1]
    assert top.driver_bytes == (2 * 20_000 + 12 * 5000) * 4 * 64  # and what it takes to move the centroids


@pytest.mark.parametrize(("k", "on_driver"), [(1 << 17, True), ((1 << 17) + 1, False)])
def test_more_points_than_the_driver_is_quick_with_stay_on_executors(k, on_driver):
    load = Workload(10_000_000, 64, (LevelSpec(k), LevelSpec(500)))
    assert estimate(load).levels[1].on_driver == on_driver
    items = replace(load, n=200_000)  # 51 MB, a sixteenth of driver_bytes at most: what is above is there, too
    assert [level.on_driver for level in estimate(items).levels] == [True, True]


def test_a_quarter_of_the_driver_is_what_comes_to_it():
    load = Workload(10_000_000, 1024, (LevelSpec(60_000), LevelSpec(500)))
    assert estimate(load).levels[1].on_driver  # 246 of 268 MB
    assert not estimate(replace(load, d=1200)).levels[1].on_driver


@pytest.mark.parametrize(
    ("spec", "in_bytes"),
    [
        (LevelSpec(20_000), 3 * 4 * sample_size(20_000, 16) * 16),  # to seed from
        (LevelSpec(60_000), 3 * 4 * 120_000 * 16),  # two for each: fewer than 2**17
        (LevelSpec(100_000), 3 * 4 * 100_000 * 16),  # these are drawn into files, the centroids come
        (LevelSpec(200_000), 0),  # neither
        (LevelSpec(200_000, 10, 5), 700 * 200_000),  # the last member of each cluster
        (LevelSpec(400_000, groups=200_000), 3 * 4 * 200_000 * 16),  # the groups' always come
    ],
    ids=str,
)
def test_what_the_driver_holds(spec, in_bytes):
    (level,) = estimate(Workload(10_000_000, 16, (spec,))).levels
    assert not level.on_driver
    assert level.driver_bytes == in_bytes


def test_work_adds_up():
    work = Work(1, 2, 3, 4, 5)
    assert work + work == work * 2
    made = estimate(Workload(1_000_000, 64, (LevelSpec(20_000), LevelSpec(500, 10, 10))))
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
