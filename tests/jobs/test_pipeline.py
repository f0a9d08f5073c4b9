"""From embeddings that the user brings to the curated table: one run, and what its tables must hold."""

from __future__ import annotations

import json
import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("delta")

from chispa import assert_df_equality
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType, LongType, StringType, StructField, StructType

from lakestrata.jobs import cluster, curate, import_npy, sample
from lakestrata.jobs.recipe import Cluster
from lakestrata.jobs.store import DeltaTable, Store
from lakestrata.schemas import tables
from lakestrata.schemas.errors import ConfigurationError, LakestrataError, ResumeError

BY_VALUE = {"ignore_row_order": True, "ignore_nullable": True, "ignore_metadata": True}
D = 8
SIZES = [200, 100, 50, 25, 15, 10]  # of the mixture: a long tail
N = sum(SIZES)
CLUSTER = {"levels": [20, 5], "resampling": {"rounds": 1, "closest": [6, 2]}, "max_iter": 5}
SAMPLE = {"size": 50}
SOURCE_SCHEMA = StructType(
    [
        StructField("key", LongType()),
        StructField("embedding", ArrayType(FloatType())),
        StructField("label", StringType()),
    ]
)


def good_rows():
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 5, (len(SIZES), D))
    labels = np.repeat(np.arange(len(SIZES)), SIZES)
    x = (centres[labels] + rng.normal(size=(N, D))).astype(np.float32)
    return [(int(key) * 3, vector.tolist(), f"kind {label}") for key, (vector, label) in
            enumerate(zip(x, labels, strict=True))]  # fmt: skip


def bad_rows(good):
    nan = float("nan")
    return [
        (None, good[0][1], "no key"),
        (None, good[1][1], "no key"),
        (good[5][0], [9.0] * D, "twice"),
        (good[6][0], [8.0] * D, "thrice"),
        (good[6][0], [7.0] * D, "thrice"),
        (5000, None, "no vector"),
        (5001, [1.0] * (D - 1), "short"),
        (5002, [nan, *[1.0] * (D - 1)], "not a number"),
        (5003, [nan] * D, "not a number"),
    ]


ASIDE = {"null_id": 2, "duplicate_id": 3, "null_vector": 1, "wrong_dimension": 1, "not_finite": 2}


@pytest.fixture(scope="module")
def lake(spark, tmp_path_factory):
    """The user's table, as Delta, and a copy as Parquet with other files."""
    folder = tmp_path_factory.mktemp("lake")
    rows = good_rows()
    frame = spark.createDataFrame(rows + bad_rows(rows), SOURCE_SCHEMA)
    frame.coalesce(1).write.format("delta").save(f"{folder}/delta")
    return SimpleNamespace(folder=folder, frame=frame, delta=f"{folder}/delta")


@pytest.fixture(scope="module")
def base(spark, lake, recipe_of):
    """The run that most tests look at: what it gave, and where."""
    given = {"table": lake.delta, "id": "key", "keep": ["label"]}
    recipe = recipe_of(lake.delta, lake.folder / "work", embeddings=given, cluster=CLUSTER, sample=SAMPLE)
    clustered, sampled = curate.run(spark, recipe)
    store = Store(spark, recipe.work)
    # Later samples replace the tables' rows; those of this one stay readable at their versions.
    frames = {
        name: store.table(name).read(store.table(name).version())
        for name in ("assignments", "centroids", "curated", "quotas", "quarantine", "runs")
    }
    return SimpleNamespace(
        recipe=recipe,
        store=store,
        clustered=clustered,
        sampled=sampled,
        model=clustered.outputs["model_id"],
        **frames,
    )


def changed(recipe, **sections):
    """The recipe with some keys of its sections set otherwise."""
    values = recipe.model_dump(exclude={"embed"})
    for section, keys in sections.items():
        values[section] = {**values[section], **keys} if isinstance(keys, dict) else keys
    return type(recipe).model_validate(values)


def test_rows_in_are_rows_out_and_rows_set_aside(base):
    assert base.clustered.rows_in == N + 9
    assert base.clustered.rows_out == N
    assert base.clustered.set_aside == ASIDE
    assert (base.sampled.rows_in, base.sampled.rows_out) == (N, 50)
    assert base.sampled.set_aside == {"not_chosen": N - 50}
    recorded = {row["job"]: row for row in base.runs.collect()}
    assert recorded.keys() == {"cluster", "sample"}
    for result in (base.clustered, base.sampled):
        row = recorded[result.job]
        assert (row["status"], row["rows_in"], row["rows_out"]) == (
            "finished",
            result.rows_in,
            result.rows_out,
        )
        assert (row["set_aside"], row["outputs"]) == (result.set_aside, result.outputs)
        assert row["started"] <= row["finished"]
    assert recorded["cluster"]["inputs"] == {base.recipe.embeddings.table: "version 0"}
    assert recorded["sample"]["inputs"] == {"tree": base.model}
    assert "scratch" not in json.loads(recorded["cluster"]["config"])["cluster"]


def test_what_is_set_aside_says_why(spark, base, lake):
    expected = [
        *[(None, "null_id")] * 2,
        *[(str(key), "duplicate_id") for key in (15, 18, 18)],
        ("5000", "null_vector"),
        ("5001", "wrong_dimension"),
        ("5002", "not_finite"),
        ("5003", "not_finite"),
    ]
    assert_df_equality(
        base.quarantine.select("id", "reason"),
        spark.createDataFrame(expected, "id string, reason string"),
        **BY_VALUE,
    )
    labels = base.quarantine.select("name", "job").distinct().collect()
    assert [tuple(row) for row in labels] == [("test", "cluster")]
    # of duplicates the smallest content hash stays
    hashed = lake.frame.where("key IN (15, 18)").select("key", F.hex(F.xxhash64("embedding")).alias("hash")).collect()
    aside = {row["content_hash"] for row in base.quarantine.where("reason = 'duplicate_id'").collect()}
    for key in (15, 18):
        assert min(row["hash"] for row in hashed if row["key"] == key) not in aside
    assert len(aside) == 3


def test_tables_are_as_declared(base):
    declared = {
        "assignments": tables.assignments("bigint", 2),
        "centroids": tables.CENTROIDS,
        "curated": tables.curated("bigint", 2, [StructField("label", StringType())]),
        "quotas": tables.QUOTAS,
        "quarantine": tables.QUARANTINE,
        "runs": tables.RUNS,
    }
    for name, table in declared.items():
        found = base.store.table(name).read().schema
        assert [(c.name, c.dataType.simpleString()) for c in found.fields] == [
            (c.name, c.dataType.simpleString()) for c in table.schema.fields
        ]
        comments = {c.name: c.metadata["comment"] for c in table.schema.fields}
        assert {c.name: c.metadata.get("comment") for c in found.fields} == comments
    detail = base.store.spark.sql(f"DESCRIBE DETAIL {base.store.table('curated').sql}").collect()[0]
    assert detail["description"] == declared["curated"].comment
    for name, check in declared["curated"].constraints.items():
        assert detail["properties"][f"delta.constraints.{name}"] == check


def test_a_table_refuses_rows_that_break_its_constraints(base):
    row = (base.model, 1, 0, 10, -1, 1.0, "share")
    frame = base.store.spark.createDataFrame([row], tables.QUOTAS.schema)
    with pytest.raises(Exception, match="DELTA_VIOLATE_CONSTRAINT"):
        frame.write.format("delta").mode("append").save(base.store.table("quotas").name)


def test_every_commit_names_its_run(base):
    spark, runs = base.store.spark, {row["job"]: row for row in base.runs.collect()}
    for name, job in (
        ("assignments", "cluster"),
        ("centroids", "cluster"),
        ("curated", "sample"),
        ("quotas", "sample"),
    ):
        history = spark.sql(f"DESCRIBE HISTORY {base.store.table(name).sql}").collect()
        written = [json.loads(row["userMetadata"]) for row in history if row["userMetadata"]]
        assert written[-1] == {
            "run_id": runs[job]["run_id"],
            "step": name,
            "config_hash": runs[job]["config_hash"],
        }
        assert runs[job]["outputs"][base.store.table(name).name] == "version 1"


def test_the_tree_adds_up(base):
    nodes = base.centroids.where(F.col("model_id") == base.model).collect()
    paths = base.assignments.where(F.col("model_id") == base.model).collect()
    assert sorted(row["id"] for row in paths) == [key for key, _, _ in good_rows()]
    by_level = {t: {row["cluster_id"]: row for row in nodes if row["level"] == t} for t in (1, 2)}
    assert [sorted(level) for level in by_level.values()] == [list(range(20)), list(range(5))]
    for t, level in by_level.items():
        assert sum(row["items"] for row in level.values()) == N
        assert {c: row["items"] for c, row in level.items()} == Counter(row[f"level_{t}"] for row in paths)
    assert {c: row["children"] for c, row in by_level[1].items()} == Counter(row["level_1"] for row in paths)
    parents = {c: row["parent_id"] for c, row in by_level[1].items()}
    assert {c: row["children"] for c, row in by_level[2].items()} == Counter(parents.values())
    assert all(row["parent_id"] is None for row in by_level[2].values())
    assert all(row["level_2"] == parents[row["level_1"]] for row in paths)
    assert all(len(row["centroid"]) == D for row in nodes)


def test_items_lie_with_their_nearest_centroid(base, lake):
    leaves = np.array([row["centroid"] for row in base.centroids.where("level = 1").orderBy("cluster_id").collect()])
    vectors = {key: np.array(x) for key, x, _ in good_rows()}
    rows = base.assignments.collect()
    for row in rows:
        if row["id"] not in (15, 18):  # of those another row may have won
            distances = np.linalg.norm(leaves - vectors[row["id"]], axis=1)
            assert distances[row["level_1"]] == pytest.approx(distances.min(), rel=1e-4)
            assert row["distance"] == pytest.approx(distances.min(), abs=1e-3)
    squared = base.assignments.groupBy("level_1").agg(F.avg(F.col("distance") ** 2).alias("squared"))
    found = squared.select("level_1", F.sqrt("squared").alias("radius"))
    stored = base.centroids.where("level = 1").select(F.col("cluster_id").alias("level_1"), "radius")
    rounded = [frame.withColumn("radius", F.round("radius", 9)) for frame in (found, stored)]
    assert_df_equality(*rounded, **BY_VALUE)


def test_quotas_add_up_at_every_level(spark, base):
    totals = base.quotas.groupBy("level").agg(
        F.sum("quota").alias("quota"),
        F.sum("items").alias("items"),
        F.round(F.sum("expected_quota"), 6).alias("mean"),
    )
    expected = spark.createDataFrame(
        [(1, 50, N, 50.0), (2, 50, N, 50.0)], "level int, quota long, items long, mean double"
    )
    assert_df_equality(totals, expected, **BY_VALUE)
    parents = base.centroids.where("level = 1").select("cluster_id", "parent_id")
    below = base.quotas.where("level = 1").join(parents, "cluster_id").groupBy("parent_id").agg(F.sum("quota"))
    above = base.quotas.where("level = 2").select("cluster_id", "quota")
    assert sorted(map(tuple, below.collect())) == sorted(map(tuple, above.collect()))
    taken = base.curated.groupBy(F.col("level_1").alias("cluster_id")).agg(F.sum("copies").alias("quota"))
    given = base.quotas.where("level = 1 AND quota > 0").select("cluster_id", "quota")
    assert_df_equality(taken, given, **BY_VALUE)
    for row in base.quotas.collect():
        assert row["reason"] == ("all" if row["quota"] == row["items"] else "share")
        assert abs(row["quota"] - row["expected_quota"]) < 2


def test_curated_rows_carry_what_their_users_need(base, lake):
    shares = base.quotas.where("level = 1").withColumn("level_1", F.col("cluster_id"))
    rows = base.curated.join(shares.select("level_1", "items", "expected_quota"), "level_1").collect()
    assert len(rows) == 50 == len({row["id"] for row in rows})
    for row in rows:
        assert row["copies"] == 1
        assert row["inclusion_probability"] == pytest.approx(min(1.0, row["expected_quota"] / row["items"]))
        assert row["weight"] == pytest.approx(1 / row["inclusion_probability"])
    paths = ["id", "level_1", "level_2"]
    known = base.assignments.select(paths)
    assert_df_equality(
        base.curated.select(paths),
        known.join(base.curated.select("id"), "id", "left_semi").select(paths),
        **BY_VALUE,
    )
    labels = {key: label for key, _, label in good_rows()}
    assert all(row["label"] == labels[row["id"]] for row in rows if row["id"] not in (15, 18))
    kinds = Counter(row["label"] for row in rows)
    assert kinds["kind 0"] < 25  # half of the lake
    assert len(kinds.keys() & set(labels.values())) == len(SIZES)


def test_a_run_again_does_nothing_and_says_so(spark, base):
    names = ("assignments", "centroids", "curated", "quotas", "quarantine", "runs")
    before = {name: base.store.table(name).version() for name in names}
    for again, first in zip(curate.run(spark, base.recipe), (base.clustered, base.sampled), strict=True):
        assert again.unchanged
        assert "nothing to do" in str(again)
        assert (again.rows_out, again.outputs) == (first.rows_out, first.outputs)
    assert {name: base.store.table(name).version() for name in names} == before


def test_another_recipe_is_refused_with_old_and_new(spark, base):
    with pytest.raises(ResumeError) as caught:
        cluster.run(spark, changed(base.recipe, cluster={"levels": [20, 4], "seed": 7}))
    message = caught.value.message
    assert "\n" not in message
    assert "cluster.levels was [20, 5], is now [20, 4]" in message
    assert "cluster.seed was 0, is now 7" in message
    assert "--fresh" in message
    with pytest.raises(ResumeError, match=r"sample.size was 50, is now 51"):
        sample.run(spark, changed(base.recipe, sample={"size": 51}))


def test_neither_files_nor_operational_keys_change_a_bit(spark, base, lake, tmp_path):
    """The same rows in other files, every pass over Spark, and blocks in a table instead of the cache."""
    tight = {"scratch": "table", "driver_bytes": 1}
    assert cluster.run(spark, changed(base.recipe, cluster=tight)).unchanged
    lake.frame.repartition(3, "label").write.parquet(f"{tmp_path}/parquet")
    given = {"table": f"{tmp_path}/parquet", "where": "key >= 0 OR key IS NULL"}
    other = changed(base.recipe, embeddings=given, cluster=tight, work=str(tmp_path / "work"))
    results = curate.run(spark, other)
    assert [result.set_aside for result in results] == [base.clustered.set_aside, base.sampled.set_aside]
    store = Store(spark, other.work)
    for name in ("centroids", "assignments", "curated", "quotas"):
        found, expected = store.table(name).read(), getattr(base, name)
        assert_df_equality(found.drop("model_id"), expected.drop("model_id"), ignore_row_order=True)
    assert store.table("scratch_bigint").read().isEmpty()
    assert store.table("checkpoints").read().isEmpty()
    recorded = store.table("runs").read().where("job = 'cluster'").collect()[0]["inputs"]
    assert re.fullmatch(r"digest 409-\S+", recorded[given["table"]])
    more = spark.createDataFrame([(90001, [0.0] * D, "new")], SOURCE_SCHEMA)
    more.write.mode("append").parquet(given["table"])
    with pytest.raises(ResumeError, match=r"input \S+parquet was digest 409-\S+, is now digest 410-"):
        cluster.run(spark, other)


def resampled(spark, base, **options):
    recipe = changed(base.recipe, sample=options)
    result = sample.run(spark, recipe, fresh=True)
    return result, base.store.table("curated").read()


def test_samples_nest(spark, base):
    result, larger = resampled(spark, base, size=120)
    assert result.rows_out == 120
    paths = ["id", "level_1", "level_2", "label"]
    smaller = base.curated.select(paths)
    assert_df_equality(
        larger.select(paths).join(smaller.select("id"), "id", "left_semi").select(paths),
        smaller,
        **BY_VALUE,
    )


def test_a_target_above_all_there_is_gives_all(spark, base, caplog):
    with caplog.at_level("WARNING", logger="lakestrata"):
        result, everything = resampled(spark, base, size=2 * N + 1, multiplier=2)
    assert f"sample.size={2 * N + 1}, but the tree can give only {2 * N}" in caplog.text
    assert (result.rows_out, result.set_aside, result.metrics["copies"]) == (N, {}, 2 * N)
    rows = everything.select("copies", "inclusion_probability", "weight").distinct().collect()
    assert [tuple(row) for row in rows] == [(2, 1.0, 0.5)]


def test_closest_takes_the_nearest_and_a_multiplier_repeats_them(spark, base):
    result, nearest = resampled(spark, base, size=300, strategy="closest", multiplier=2)
    shares = {row["cluster_id"]: row for row in base.store.table("quotas").read().where("level = 1").collect()}
    copies = {row["id"]: row["copies"] for row in nearest.collect()}
    assert sum(copies.values()) == 300 == result.metrics["copies"]
    assert set(copies.values()) == {1, 2}
    within = {leaf: [] for leaf in shares}
    for row in base.assignments.collect():
        within[row["level_1"]].append((row["distance"], row["id"]))
    for leaf, members in within.items():
        whole, rest = divmod(shares[leaf]["quota"], shares[leaf]["items"])
        taken = [copies.get(key, 0) for _, key in sorted(members)]
        assert taken == [whole + 1] * rest + [whole] * (len(members) - rest)
    known = nearest.select("inclusion_probability", "weight").distinct().collect()
    assert [tuple(row) for row in known] == [(None, None)]


def test_another_version_of_the_input_is_refused(spark, base, lake):
    more = spark.createDataFrame([(90001, [0.0] * D, "new")], SOURCE_SCHEMA)
    more.write.format("delta").mode("append").save(lake.delta)
    with pytest.raises(ResumeError, match=r"input \S+delta was version 0, is now version 1"):
        cluster.run(spark, base.recipe)


def test_mistakes_in_the_input_are_told_at_once(spark, lake, recipe_of, tmp_path):
    given = {"table": lake.delta, "id": "kee", "column": "label", "keep": ["labl"], "where": "nothing ="}
    with pytest.raises(ConfigurationError) as caught:
        curate.run(spark, recipe_of(lake.delta, tmp_path / "work", embeddings=given, sample=SAMPLE))
    told = caught.value.problems
    assert told[0] == "embeddings.id: the table has no column 'kee' (it has: key, embedding, label)."
    assert told[1] == "embeddings.column: column 'label' is string; it should be array<float> or array<double>."
    assert told[2].startswith("embeddings.keep: the table has no column 'labl'")
    assert told[3].startswith("embeddings.where: not a condition on this table: ")
    assert len(told) == 4
    assert not (tmp_path / "work").exists()
    with pytest.raises(ConfigurationError, match="no Delta table and no Parquet files of this name"):
        cluster.run(spark, recipe_of(tmp_path / "none", tmp_path / "work"))
    with pytest.raises(LakestrataError, match="run cluster first"):
        sample.run(spark, recipe_of(lake.delta, tmp_path / "work", sample=SAMPLE))
    with pytest.raises(ConfigurationError, match="say how many items to take"):
        curate.run(spark, recipe_of(lake.delta, tmp_path / "work"))


def test_more_clusters_than_rows_are_refused():
    with pytest.raises(ConfigurationError, match=r"n_samples=400 should be >= n_clusters=5000"):
        cluster.level_specs(Cluster(levels=[5000]), N)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (None, "no such file"),
        (b"not an array", "not a .npy array"),
        (np.zeros(4), r"shape \(4,\) of float64"),
        (np.zeros((4, 2), dtype=np.int64), r"shape \(4, 2\) of int64"),
    ],
)
def test_files_that_are_no_vectors_are_refused(tmp_path, array, message):
    path = tmp_path / "x.npy"
    if isinstance(array, bytes):
        path.write_bytes(array)
    elif array is not None:
        np.save(path, array)
    with pytest.raises(ConfigurationError, match=message):
        import_npy.run(None, str(path), str(tmp_path / "table"))  # told before a session is needed


def test_a_npy_file_comes_through_whole(spark, tmp_path):
    x = np.random.default_rng(0).normal(size=(70_000, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    table = str(tmp_path / "imported")
    assert import_npy.run(spark, str(tmp_path / "x.npy"), table) == len(x)
    found = DeltaTable(spark, table).read()
    assert [(c.name, c.dataType) for c in found.schema.fields] == [
        (c.name, c.dataType) for c in tables.IMPORTED.schema.fields
    ]
    ordered = found.orderBy("id").toArrow()
    np.testing.assert_array_equal(ordered["id"].to_numpy(), np.arange(len(x)))
    vectors = ordered["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, 2)
    np.testing.assert_array_equal(vectors, x)
    with pytest.raises(ConfigurationError, match="is there already"):
        import_npy.run(spark, str(tmp_path / "x.npy"), table)
