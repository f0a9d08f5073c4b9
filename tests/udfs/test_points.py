"""Points in a DataFrame give the bits of points in an array, however the rows are laid out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("pyspark")

from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType, LongType, StringType, StructField, StructType

from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.hashing import hash_ids
from lakestrata.kmeans.points import ArrayPoints
from lakestrata.kmeans.tree import LevelSpec, build, parents, paths
from lakestrata.udfs.blocks import block_rows, pack, quantize, read_blocks
from lakestrata.udfs.points import DataFramePoints

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
def both(spark):
    """Makes the same points as an array and as a DataFrame of so many partitions, in shuffled order."""
    made = {}

    def make(id_type, n_partitions, driver_bytes=ALL_DRIVER):
        x, ids = vectors(), ids_of(id_type)
        grid = Grid.covering(float(np.abs(x).max()), D, "l2")
        array = ArrayPoints(grid.quantize(x), ids, grid)
        if (id_type, n_partitions) not in made:
            order = np.random.default_rng(n_partitions).permutation(N)
            rows = frame_of(spark, ids[order], x[order], id_type).repartition(n_partitions)
            blocks = quantize(pack(rows, D, id_type, zero_is_bad=False), grid, D, id_type)
            made[id_type, n_partitions] = blocks.persist()
        blocks = made[id_type, n_partitions]
        frame = DataFramePoints(blocks, N, D, id_type, grid, driver_bytes, lambda kept, name: kept.persist())
        return array, frame

    yield make
    for blocks in made.values():
        blocks.unpersist()


def assert_same_partial(one, other):
    for name in ("counts", "sums", "high", "low"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def assert_same_points(one, other):
    assert one.ids.tolist() == other.ids.tolist()
    assert one.x.tobytes() == other.x.tobytes()


@pytest.mark.parametrize(("id_type", "n_partitions"), [("bigint", 1), ("bigint", 2), ("bigint", 64), ("string", 7)])
def test_a_step_and_a_draw_give_the_bits_of_the_array(both, id_type, n_partitions):
    array, frame = both(id_type, n_partitions)
    centroids = array.sample(9, 3).x
    assert_same_partial(array.step(centroids), frame.step(centroids))
    if n_partitions < 64:  # more partitions than most have rows: one pass of them is enough
        assert_same_points(array.sample(50, 5), frame.sample(50, 5))


@pytest.mark.parametrize(("id_type", "n_partitions"), [("bigint", 2), ("string", 7)])
def test_members_and_far_points_have_the_bits_of_the_array(both, id_type, n_partitions):
    array, frame = both(id_type, n_partitions)
    centroids = array.sample(9, 3).x
    for strategy in ("closest", "random"):
        found = frame.members(centroids, 4, strategy, 11)
        assert isinstance(found, ArrayPoints)
        assert_same_points(array.members(centroids, 4, strategy, 11), found)
    assert array.farthest(centroids, 20).tobytes() == frame.farthest(centroids, 20).tobytes()


def test_members_above_driver_bytes_stay_where_they_are(both):
    array, frame = both("string", 2, NO_DRIVER)
    centroids = array.sample(9, 3).x
    expected = array.members(centroids, 5, "closest", 0)
    found = frame.members(centroids, 5, "closest", 0)
    assert isinstance(found, DataFramePoints)
    assert found.n == expected.n
    assert_same_partial(expected.step(centroids), found.step(centroids))
    assert_same_points(expected.sample(N, 0), found.sample(N, 0))


def test_points_on_their_centroids_are_never_far(both):
    array, frame = both("bigint", 2)
    centroids = np.unique(array.x, axis=0)
    assert frame.farthest(centroids, 5).shape == (0, D)
    most = np.unique(array.x, axis=0)[:-3]
    assert sorted(frame.farthest(most, 9).tolist()) == sorted(np.unique(array.x, axis=0)[-3:].tolist())


@pytest.mark.parametrize(("id_type", "n_partitions", "strategy"), [("bigint", 7, "closest"), ("string", 2, "random")])
def test_a_tree_grown_on_executors_is_that_of_the_array(both, id_type, n_partitions, strategy):
    array, frame = both(id_type, n_partitions, NO_DRIVER)
    specs = [LevelSpec(14, 1, 5, strategy), LevelSpec(4, 2, 2, strategy)]
    expected = list(build(array, specs, seed=2, max_iter=4))
    found = list(build(frame, specs, seed=2, max_iter=4))
    assert [level.shape for level in found] == [(14, D), (4, D)]
    assert [level.tobytes() for level in found] == [level.tobytes() for level in expected]


def test_items_are_assigned_at_every_level(both):
    array, frame = both("string", 7)
    levels = [array.sample(12, 1).x, array.sample(5, 2).x, array.sample(2, 3).x]
    above = parents(levels)
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


def test_blocks_are_full_and_hold_every_row_once(spark):
    n = 2 * block_rows(1) + 100
    rows = spark.range(0, n, 1, 1).select("id", F.array((F.col("id") % 97).cast("float")).alias("embedding"))
    grid = Grid.covering(96.0, 1, "l2")
    batches = quantize(pack(rows, 1, "bigint", zero_is_bad=False), grid, 1, "bigint").toArrow().to_batches()
    blocks = list(read_blocks(iter(batches), 1))
    assert Counter(len(block.ids) for block in blocks) == {block_rows(1): 2, 100: 1}
    ids = np.concatenate([block.ids for block in blocks])
    assert sorted(ids.tolist()) == list(range(n))
    np.testing.assert_array_equal(np.concatenate([block.hashes for block in blocks]), hash_ids(ids))
    np.testing.assert_array_equal(
        np.concatenate([block.x for block in blocks]), grid.quantize((ids % 97).astype(np.float32)[:, None])
    )
