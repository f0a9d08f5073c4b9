"""Points in a DataFrame give the bits of points in an array, however the rows are laid out."""

from __future__ import annotations

from collections import Counter
from itertools import count, pairwise

import numpy as np
import pytest

pytest.importorskip("pyspark")

from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType, LongType, StringType, StructField, StructType

from lakestrata.kmeans import lloyd, split
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.hashing import batch_class, hash_ids
from lakestrata.kmeans.lloyd import Options
from lakestrata.kmeans.nearest import Centroids
from lakestrata.kmeans.rows import Rows
from lakestrata.kmeans.tree import LevelSpec, build, paths
from lakestrata.udfs import points
from lakestrata.udfs.blocks import block_rows, pack, quantize, stored_blocks
from lakestrata.udfs.centroids import StoredCentroids, fetch, ready
from lakestrata.udfs.kept import FileBlocks, FrameBlocks
from lakestrata.udfs.points import DataFramePoints, Engine

N, D = 240, 6
ALL_DRIVER, NO_DRIVER = 1 << 30, 1
ID_TYPES = {"bigint": LongType(), "string": StringType()}


def vectors():
    """A third each of a mixture, of few distinct values (many ties), and of one repeated vector's neighbours."""
    rng = np.random.default_rng(7)
    mixture = rng.normal(rng.integers(-3, 3, (N // 3, 1)), 0.2, (N // 3, D))
    ties = rng.integers(-1, 1, (N // 3, D), endpoint=True)
    crowd = 2 + rng.integers(0, 2, (N // 3, D)) / 64
    return np.concatenate([mixture, ties, crowd]).astype(np.float32)


def ids_of(id_type):
    numbers = np.random.default_rng(1).permutation(N).astype(np.int64) * 37 - 400
    return numbers if id_type == "bigint" else np.array([f"é{i}" for i in numbers], dtype=object)


def frame_of(spark, ids, embeddings, id_type):
    schema = StructType([StructField("id", ID_TYPES[id_type]), StructField("embedding", ArrayType(FloatType()))])
    rows = [(i, None if x is None else list(map(float, x))) for i, x in zip(ids.tolist(), embeddings, strict=True)]
    return spark.createDataFrame(rows, schema)


@pytest.fixture(scope="module")
def both(spark, tmp_path_factory):
    """Makes the same points as an array and as a DataFrame of so many partitions, in shuffled order."""
    made = {}
    folder = tmp_path_factory.mktemp("scratch")
    numbers = count()

    def make(id_type, n_partitions, driver_bytes=ALL_DRIVER, scratch="cache"):
        def keep(blocks, name):
            if scratch == "files":
                return FileBlocks.write(blocks, str(folder / f"{name}-{next(numbers)}"))
            return FrameBlocks(blocks.persist())

        x, ids = vectors(), ids_of(id_type)
        grid = Grid.covering(float(np.abs(x).max()), D, "l2")
        array = ArrayPoints(grid.quantize(x), ids, grid)
        if (id_type, n_partitions, scratch) not in made:
            order = np.random.default_rng(n_partitions).permutation(N)
            rows = frame_of(spark, ids[order], x[order], id_type).repartition(n_partitions)
            blocks = quantize(pack(rows, D, id_type, zero_is_bad=False), grid, D, id_type)
            made[id_type, n_partitions, scratch] = keep(blocks, "blocks")
        engine = Engine(spark, keep, str(folder / "centroids"), driver_bytes)
        return array, DataFramePoints(made[id_type, n_partitions, scratch], D, id_type, grid, engine)

    yield make
    spark.catalog.clearCache()


def assert_same_step(one, other):
    for name in ("counts", "high", "low", "shift"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert fetch(one.moved).tobytes() == fetch(other.moved).tobytes()


def assert_same_points(one, other):
    assert one.ids.tolist() == other.ids.tolist()
    assert one.x.tobytes() == other.x.tobytes()


LAYOUTS = [("bigint", 1, "cache"), ("bigint", 2, "files"), ("bigint", 64, "cache"), ("string", 7, "files")]


@pytest.mark.parametrize(("id_type", "n_partitions", "scratch"), LAYOUTS)
def test_a_step_and_a_draw_give_the_bits_of_the_array(both, id_type, n_partitions, scratch):
    array, frame = both(id_type, n_partitions, scratch=scratch)
    assert frame.batches.tolist() == array.batches.tolist()
    centroids = array.sample(9, 3).x.copy()
    for batch in (0, 2):
        assert_same_step(array.step(centroids, batch), frame.step(centroids, batch))
    if n_partitions < 64:  # more partitions than most have rows: one pass of them is enough
        assert_same_points(array.sample(50, 5), frame.sample(50, 5))


@pytest.mark.parametrize(("id_type", "n_partitions", "scratch"), [("bigint", 2, "files"), ("string", 7, "cache")])
def test_members_and_reseeds_have_the_bits_of_the_array(both, id_type, n_partitions, scratch):
    array, frame = both(id_type, n_partitions, scratch=scratch)
    centroids = array.sample(9, 3).x.copy()
    for strategy in ("closest", "random"):
        found = frame.members(centroids, 4, strategy, 11)
        assert isinstance(found, ArrayPoints)
        assert_same_points(array.members(centroids, 4, strategy, 11), found)
    sizes = np.array([0, 3, 1, 200, 0, 0, 2, 1, 1])
    expected = array.reseeds(centroids, sizes, 7)
    assert len(expected) > 8
    assert frame.reseeds(centroids, sizes, 7).tobytes() == expected.tobytes()


def test_points_on_their_centroids_start_no_cluster(both):
    array, frame = both("bigint", 2, scratch="files")
    distinct = np.unique(array.x, axis=0)
    assert frame.reseeds(distinct, np.full(len(distinct), 5), 0).shape == (0, D)
    most = distinct[:-3]
    found = frame.reseeds(most, np.full(len(most), 9), 0)
    assert sorted(found.tolist()) == sorted(distinct[-3:].tolist())


def test_members_above_driver_bytes_stay_where_they_are(both):
    array, frame = both("string", 7, NO_DRIVER)
    centroids = array.sample(9, 3).x.copy()
    expected = array.members(centroids, 5, "closest", 0)
    found = frame.members(centroids, 5, "closest", 0)
    assert isinstance(found, DataFramePoints)
    assert found.n == expected.n
    assert_same_step(expected.step(centroids), found.step(centroids))
    assert_same_points(expected.sample(N, 0), found.sample(N, 0))


@pytest.mark.parametrize(
    ("id_type", "n_partitions", "strategy", "scratch"),
    [("bigint", 7, "closest", "cache"), ("string", 2, "random", "files")],
)
def test_a_tree_grown_on_executors_is_that_of_the_array(both, monkeypatch, id_type, n_partitions, strategy, scratch):
    monkeypatch.setattr(lloyd, "_FIRST_POINTS", 60)  # so that it starts on nested batches
    monkeypatch.setattr(lloyd, "_FIRST_PER_CLUSTER", 3)
    array, frame = both(id_type, n_partitions, NO_DRIVER, scratch)
    specs = [LevelSpec(14, 1, 5, strategy), LevelSpec(4, 1, 2, strategy)]
    options = Options(max_iter=3)
    expected = list(build(array, specs, seed=2, options=options))
    found = list(build(frame, specs, seed=2, options=options))
    assert all(isinstance(level, StoredCentroids) for level in found)  # none of them came to the driver
    assert [fetch(level).shape for level in found] == [(14, D), (4, D)]
    assert [fetch(level).tobytes() for level in found] == [level.tobytes() for level in expected]


@pytest.mark.parametrize("driver_bytes", [ALL_DRIVER, NO_DRIVER])
def test_a_level_in_two_steps_is_that_of_the_array(both, monkeypatch, driver_bytes):
    monkeypatch.setattr(split, "MOST_GROUP_COORDINATES", 60 * D)  # so that a group has to be divided
    array, frame = both("string", 7, driver_bytes, "files")
    specs = [LevelSpec(20, groups=3, probe=2), LevelSpec(4)]
    expected, top = build(array, specs, seed=1, options=Options(max_iter=5))
    found, found_top = build(frame, specs, seed=1, options=Options(max_iter=5))
    assert len(expected.groups) > 3
    assert fetch(found).tobytes() == expected.flat().tobytes()
    assert found.places[:, 2].tolist() == [len(part) for part in expected.parts]
    assert fetch(found_top).tobytes() == top.tobytes()
    for one, other in zip(array.locate(expected), ready(found).nearest(array.rows), strict=True):
        np.testing.assert_array_equal(one[np.argsort(np.argsort(array.ids))], other)
    inputs = frame.lift(found)
    for one, other in zip(array.lift(expected).locate(top), inputs.locate(found_top), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("bucket", [1 << 16, 16])
def test_starting_centroids_beyond_the_driver_are_drawn_where_the_points_are(both, monkeypatch, bucket):
    monkeypatch.setattr(points, "_BUCKET_ROWS", bucket)
    array, frame = both("string", 2, NO_DRIVER, "files")
    for size in (30, 10_000):
        found = frame.draw(size, 4)
        assert isinstance(found, StoredCentroids)
        assert fetch(found).tobytes() == array.draw(size, 4).tobytes()


def test_centroids_in_files_are_replaced_and_picked_like_those_of_an_array(both):
    array, frame = both("string", 2, NO_DRIVER, "files")
    stored = frame.draw(40, 1)
    plain = fetch(stored)
    ids, given = np.array([3, 39, 4]), array.x[:3].copy()
    changed = frame.put(stored, ids, given)
    assert fetch(changed).tobytes() == array.put(plain, ids, given).tobytes()
    order = np.r_[5:20, 30, 0, 0]
    assert fetch(frame.pick(changed, order)).tobytes() == fetch(changed)[order].tobytes()
    assert fetch(stored).tobytes() == plain.tobytes()


def test_items_are_assigned_at_every_level(both):
    array, frame = both("string", 7)
    levels = [array.sample(12, 1).x.copy(), array.sample(5, 2).x.copy(), array.sample(2, 3).x.copy()]
    above = [Centroids(up).nearest(Rows.of(down))[0] for down, up in pairwise(levels)]
    assigned = {row["id"]: row for row in frame.assign(levels[0], above).collect()}
    squared = ((array.x[:, None].astype(np.float64) - levels[0][None]) ** 2).sum(axis=2)
    expected = paths(above, squared.argmin(axis=1))
    assert len(assigned) == N
    for place, key in enumerate(array.ids.tolist()):
        row = assigned[key]
        assert [row["level_1"], row["level_2"], row["level_3"]] == expected[:, place].tolist()
        assert row["distance"] == pytest.approx(array.grid.step * squared[place].min() ** 0.5, rel=1e-12)
    assert frame.assign(levels[0], above).schema.simpleString() == (
        "struct<id:string,level_1:bigint,level_2:bigint,level_3:bigint,distance:double>"
    )


@pytest.mark.parametrize("zero_is_bad", [False, True])
def test_unusable_vectors_are_named_with_their_reason(spark, zero_is_bad):
    given = [
        [1, 2], [3, 4], [0, 0], None, [1], [1, 2, 3], [], [float("nan"), 1], [1, float("inf")], [1, -float("inf")],
    ]  # fmt: skip
    reasons = [
        "",
        "",
        "zero_vector" if zero_is_bad else "",
        "null_vector",
        *["wrong_dimension"] * 3,
        *["not_finite"] * 3,
    ]
    rows = frame_of(spark, np.arange(len(given)), given, "bigint")
    # a null coordinate, and a double beyond float32
    more = spark.sql("SELECT 10L AS id, array(1D, NULL) AS embedding UNION ALL SELECT 11L, array(1D, 1e300)")
    for frame, first, expected in ((rows, 0, reasons), (more, 10, ["not_finite"] * 2)):
        packed = pack(frame, 2, "bigint", zero_is_bad=zero_is_bad)
        found = packed.select(F.explode("ids").alias("id"), F.coalesce("reason", F.lit("")).alias("reason")).collect()
        assert {row["id"]: row["reason"] for row in found} == dict(enumerate(expected, start=first))


def test_blocks_are_full_of_one_class_and_hold_every_row_once(spark):
    n = 2 * block_rows(1) + 100
    rows = spark.range(0, n, 1, 1).select("id", F.array((F.col("id") % 97).cast("float")).alias("embedding"))
    grid = Grid.covering(96.0, 1, "l2")
    raw = pack(rows, 1, "bigint", zero_is_bad=False)
    assert Counter(row["n"] for row in raw.select("n").collect()) == {block_rows(1): 2, 100: 1}
    frame = quantize(raw, grid, 1, "bigint")
    classes = [row["class"] for row in frame.select("class").collect()]
    blocks = list(stored_blocks(frame.toArrow().to_batches()))
    ids = np.concatenate([block.ids for block in blocks])
    assert sorted(ids.tolist()) == list(range(n))
    for number, block in zip(classes, blocks, strict=True):
        assert block.n == len(block.ids) <= block_rows(1)
        np.testing.assert_array_equal(block.hashes, hash_ids(block.ids))
        assert batch_class(block.hashes).tolist() == [number] * block.n
        np.testing.assert_array_equal(block.rows.x, grid.quantize((block.ids % 97).astype(np.float32)[:, None]))
        np.testing.assert_array_equal(block.rows.norms, (block.rows.x.astype(np.float64) ** 2).sum(axis=1))
    not_full = Counter(number for number, block in zip(classes, blocks, strict=True) if block.n < block_rows(1))
    assert max(not_full.values()) == 1
