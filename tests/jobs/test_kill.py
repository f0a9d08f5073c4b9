"""A job killed halfway and run again ends with the answer of one that was left alone."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

pytest.importorskip("delta")

from chispa import assert_df_equality
from pyspark.sql import functions as F

from lakestrata.jobs import cluster, embed, sample
from lakestrata.jobs.recipe import load_recipe
from lakestrata.jobs.store import Store
from lakestrata.udfs.embed import embed_items
from lakestrata.udfs.encoders import EncoderSpec, load

D, N = 8, 300
CLUSTER = {"levels": [15, 4], "resampling": {"rounds": 1, "closest": [6, 2]}, "max_iter": 5}
PATIENCE = 180  # seconds
QUICK = ("adaptive.enabled=false", "codegen.wholeStage=false", "codegen.factoryMode=NO_CODEGEN")  # to its first rows


@pytest.fixture(scope="module")
def killed_after(tmp_path_factory):
    """Starts a job on the command line and kills it, Java and all, as soon as a table has its first rows."""
    folder = tmp_path_factory.mktemp("killed")

    def run(job, values, table):
        config = folder / f"{job}.yaml"
        config.write_text(yaml.safe_dump(values))
        first_rows = os.path.join(values["work"], table, "_delta_log", f"{1:020}.json")
        log = folder / f"{job}.log"
        with open(log, "w") as written:
            process = subprocess.Popen(
                [sys.executable, "-m", "lakestrata", job, "--config", str(config)],
                cwd=folder,
                env={
                    **os.environ,
                    "PYSPARK_SUBMIT_ARGS": " ".join([*(f"--conf spark.sql.{conf}" for conf in QUICK), "pyspark-shell"]),
                },
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + PATIENCE
            while not os.path.exists(first_rows):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        return load_recipe(str(config))

    return run


@pytest.fixture(scope="module")
def tree(spark, tmp_path_factory):
    """Embeddings, and the tree and sample of a run that was left alone."""
    folder = tmp_path_factory.mktemp("alone")
    x = np.random.default_rng(3).normal(size=(N, D)).astype(np.float32)
    rows = [*enumerate(x.tolist()), (N, None), (0, x[1].tolist())]
    spark.createDataFrame(rows, "id long, embedding array<float>").coalesce(1).write.format("delta").save(
        f"{folder}/lake"
    )
    values = {
        "name": "killed",
        "embeddings": {"table": f"{folder}/lake"},
        "work": f"{folder}/work",
        "cluster": CLUSTER,
        "sample": {"size": 60},
    }
    config = folder / "recipe.yaml"
    config.write_text(yaml.safe_dump(values))
    recipe = load_recipe(str(config))
    clustered = cluster.run(spark, recipe)
    shutil.copytree(folder / "work", folder / "clustered")
    sampled = sample.run(spark, recipe)
    return SimpleNamespace(
        folder=folder, values=values, store=Store(spark, recipe.work), clustered=clustered, sampled=sampled
    )


def runs_of(store, job):
    return store.table("runs").read().where(F.col("job") == job).collect()


def test_a_killed_cluster_job_goes_on_after_its_last_level(spark, tree, killed_after, tmp_path, caplog):
    recipe = killed_after("cluster", {**tree.values, "work": str(tmp_path / "work")}, "checkpoints")
    store = Store(spark, recipe.work)
    begun = runs_of(store, "cluster")
    assert [row["status"] for row in begun] == ["started"]
    with caplog.at_level("INFO", logger="lakestrata"):
        result = cluster.run(spark, recipe)
    assert "resuming after level " in caplog.text
    assert [(row["status"], row["run_id"]) for row in runs_of(store, "cluster")] == [("finished", begun[0]["run_id"])]
    assert (result.rows_in, result.rows_out, result.set_aside) == (
        tree.clustered.rows_in,
        tree.clustered.rows_out,
        tree.clustered.set_aside,
    )
    for name in ("centroids", "assignments"):
        assert_df_equality(store.table(name).read(), tree.store.table(name).read(), ignore_row_order=True)
    assert store.table("quarantine").read().count() == 2
    assert store.table("checkpoints").read().isEmpty()


def test_a_killed_sample_job_gives_the_same_sample(spark, tree, killed_after):
    recipe = killed_after("sample", {**tree.values, "work": str(tree.folder / "clustered")}, "quotas")
    store = Store(spark, recipe.work)
    assert [row["status"] for row in runs_of(store, "sample")] == ["started"]
    result = sample.run(spark, recipe)
    assert (result.rows_out, result.set_aside) == (tree.sampled.rows_out, tree.sampled.set_aside)
    assert [row["status"] for row in runs_of(store, "sample")] == ["finished"]
    for name in ("quotas", "curated"):
        assert_df_equality(store.table(name).read(), tree.store.table(name).read(), ignore_row_order=True)


def test_a_killed_embed_job_keeps_what_it_published(spark, killed_after, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("torch")
    rows = [(9, b"no picture")]
    for i in range(10, 40):
        buffer = io.BytesIO()
        image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 12), dtype=np.uint8)).save(buffer, "PNG")
        rows.append((i, buffer.getvalue()))
    spark.createDataFrame(rows, "id long, image binary").coalesce(1).write.format("delta").save(f"{tmp_path}/lake")
    values = {
        "name": "killed",
        "source": {"table": f"{tmp_path}/lake", "content": "image", "kind": "image"},
        "work": f"{tmp_path}/work",
        "embed": {"params": {"size": 12, "filters": 32, "dimension": 16}, "rows_per_commit": 16},
    }
    recipe = killed_after("embed", values, "embeddings")
    store = Store(spark, recipe.work)
    published = store.table("embeddings").read().count()
    assert 0 < published < 30
    result = embed.run(spark, recipe)
    assert (result.rows_in, result.rows_out, result.set_aside) == (31, 30, {"undecodable": 1})
    assert result.metrics["embedded_now"] <= 31 - published
    encoder = store.table("encoders").read().collect()[0]
    spec = EncoderSpec(encoder["name"], json.loads(encoder["params"]), bytes(encoder["state"]), encoder["revision"])
    pictures = dict(rows[1:])
    expected = embed_items(load(spec, "cpu"), list(pictures.values()), "image", batch_size=64, unit_length=True)
    found = {row["id"]: row["embedding"] for row in store.table("embeddings").read().collect()}
    assert found.keys() == pictures.keys()
    # the last bits may differ with the batch
    np.testing.assert_allclose([found[key] for key in pictures], np.array(expected["embedding"].tolist()), atol=1e-5)
    reasons = [row["reason"] for row in store.table("quarantine").read().collect()]
    assert reasons == ["undecodable"]
