"""The plan job: what it prints, that what it advises helps, and that it looks at tables only where it must."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from functools import partial

import pytest
import yaml

from lakestrata.jobs import plan, rates
from lakestrata.jobs.levels import fit_options, level_specs, metric_of, told_of_auto
from lakestrata.jobs.recipe import Cluster, load_recipe
from lakestrata.kmeans.tree import LevelSpec
from lakestrata.schemas.errors import ConfigurationError

PUBLISHED = ["paper", "web"]
FLAT = "cluster.split=[null, null, null, null]"


@pytest.fixture(autouse=True)
def _same_machine(monkeypatch):
    """A core and no GPU that are the same in every run."""
    monkeypatch.setattr(plan, "core_rate", lambda k, d: 5e10)
    monkeypatch.setattr(plan, "gpu_rate", lambda k, d: None)


@pytest.fixture
def planned(ended):
    """Runs `plan`."""
    return partial(ended, "plan")


@pytest.fixture
def config(tmp_path):
    """Writes a recipe for brought embeddings and gives its path."""

    def write(**values):
        path = tmp_path / "recipe.yaml"
        made = {"name": "small", "embeddings": {"table": str(tmp_path / "lake")}, "work": str(tmp_path / "work")}
        path.write_text(yaml.safe_dump(made | values))
        return path

    return write


def line_of(lines, name):
    (found,) = [line for line in lines if line.startswith(name + " ")]
    return found


def test_the_papers_plan(planned):
    code, out, err = planned("--config", "paper")
    assert (code, err) == (0, [])
    assert " ".join(out[0].split()) == "level points clusters made on passes multiply-adds shuffled worker driver time"
    rows = [re.split(r"  +", line.strip()) for line in out[1:5]]
    assert [row[:4] for row in rows] == [
        ["1", "743,000,000", "10,000,000", "100,000 x 100"],
        ["2", "10,000,000", "500,000", "10 rounds of 10"],
        ["3", "500,000", "50,000", "10 rounds of 5"],
        ["4", "50,000", "10,000", "10 rounds of 3"],
    ]
    assert all(len(row) == 11 for row in rows)
    assert "743,000,000 vectors of 1,024 floats (as plan.rows and plan.dimension say)" in line_of(out, "recipe")
    assert line_of(out, "blocks").split()[1:3] == ["2.78", "TiB,"]  # 743 M x (4 x 1,024 + 24) bytes
    assert "of cluster.driver_bytes: 4 GiB" in line_of(out, "driver")
    assert "1,024 cores of 5.0e10 multiply-adds a second (measured here" in line_of(out, "machines")
    assert out[-1] == "Everything fits."


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_fit(name):
    made = plan.run(None, load_recipe(name))
    assert made.findings == ()
    assert made.is_possible


def test_no_spark_is_needed_where_the_recipe_says_how_many():
    code = (
        "import sys; sys.modules['pyspark'] = None; from lakestrata.jobs.cli import main; main(['plan', '-c', 'paper'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("Everything fits.\n")


def test_what_will_not_fit_is_told_with_the_setting_that_does(planned):
    code, out, err = planned("--config", "paper", "--set", FLAT, "--set", "cluster.driver_bytes=1073741824")
    assert (code, err) == (2, [])
    split, driver = out[-2:]
    # 38.1 GiB of centroids; sums of them all, 76.3 GiB, twice: so large a task leaves room for few
    assert split.startswith("level 1: 10,000,000 clusters of 1,024 floats take 191 GiB in each worker")
    assert driver.startswith("the driver needs 1.82 GiB")
    named = re.findall(r"set (cluster\.\w+): (\[[^]]+\]|\d+)", f"{split} {driver}")
    assert [key for key, _ in named] == ["cluster.split", "cluster.driver_bytes"]
    settings = [word for key, value in named for word in ("--set", f"{key}={value}")]
    code, out, _ = planned("--config", "paper", *settings)
    assert (code, out[-1]) == (0, "Everything fits.")


def test_a_plan_that_only_takes_long_ends_with_0(planned):
    code, out, _ = planned("--config", "paper", "--cores", 2)
    assert code == 0
    assert "2 cores of" in line_of(out, "machines")
    assert all(" on these machines: " in line for line in out[out.index(line_of(out, "machines")) + 2 :])


def test_machines_are_those_asked_for(planned):
    recipe = load_recipe("paper")
    seconds = {}
    for cores in (1000, 2000):
        made = plan.run(None, recipe, cores=cores)
        level = made.estimate.levels[0]
        seconds[cores] = made.machines.seconds(level, level.expected)
    assert 1.5 < seconds[1000] / seconds[2000] <= 2
    made = plan.run(None, recipe, gpus=8)
    assert made.machines.rate == 8 * 5e13
    assert made.machines_text.startswith("8 GPUs of 5.0e13 (assumed: an A100 in tf32")
    with pytest.raises(ConfigurationError, match=r"cluster.device: cpu leaves 8 GPUs idle"):
        plan.run(None, load_recipe("paper", ["cluster.device=cpu"]), gpus=8)
    assert planned("--config", "paper", "--cores", 0)[0] == 2


def test_a_gpu_at_hand_is_measured(monkeypatch):
    monkeypatch.setattr(plan, "gpu_rate", lambda k, d: 3e13)
    made = plan.run(None, load_recipe("paper", ["plan.gpus=4"]))
    assert made.machines.rate == 4 * 3e13
    assert made.machines_text.startswith("4 GPUs of 3.0e13 (measured here), beside 1,024 cores")


def test_a_core_is_measured():
    assert 1e8 < rates.core_rate(1000, 64) < 1e13


def test_how_many_must_be_known():
    for settings in ([], ["plan.rows=100"], ["plan.dimension=8"]):
        recipe = load_recipe("embeddings", settings)
        assert plan.needs_spark(recipe)
        with pytest.raises(ConfigurationError) as caught:
            plan.run(None, recipe)
        (problem,) = caught.value.problems
        assert problem.endswith("say how many of which length, as in --set plan.rows=1000000 --set plan.dimension=768.")


def test_tables_are_looked_at(spark, planned, config, tmp_path):
    asked = "say how many of which length, as in --set plan.rows=1000000 --set plan.dimension=768."
    code, out, err = planned("-c", config())
    assert (code, out) == (2, [])
    assert err == [
        f"lakestrata: plan: {tmp_path}/lake: there is no Delta table and no Parquet files of this name; {asked}"
    ]
    rows = spark.range(90).selectExpr("id", "array_repeat(CAST(id AS FLOAT), IF(id < 60, 3, 2)) AS embedding")
    rows.write.format("delta").save(f"{tmp_path}/lake")
    cluster = {"levels": [8, 2]}
    code, out, _ = planned("-c", config(cluster=cluster))
    assert code == 0
    assert f"90 vectors of 3 floats (of {tmp_path}/lake)" in line_of(out, "recipe")
    assert out[-1] == "Everything fits."
    few = {"table": f"{tmp_path}/lake", "where": "id >= 50"}
    assert "40 vectors of 2 floats" in line_of(planned("-c", config(cluster=cluster, embeddings=few))[1], "recipe")
    out = planned("-c", config(cluster=cluster), "--set", "plan.rows=5000")[1]
    assert f"5,000 vectors of 3 floats (of {tmp_path}/lake, rows as plan.rows says)" in line_of(out, "recipe")
    few["column"] = "vector"
    assert planned("-c", config(embeddings=few))[2][0].startswith(
        "lakestrata: embeddings.column: the table has no column"
    )
    items = {"table": f"{tmp_path}/lake", "content": "text", "kind": "text", "where": "id < 80"}
    spark.range(90).selectExpr("id", "'x' AS text").write.format("delta").mode("overwrite").option(
        "overwriteSchema", "true"
    ).save(f"{tmp_path}/lake")
    recipe = {"name": "texts", "source": items, "embed": {"encoder": "a/b"}, "embeddings": None, "cluster": cluster}
    code, _, err = planned("-c", config(**recipe))
    assert (code, err) == (2, [f"lakestrata: plan: the items of {tmp_path}/lake are not embedded yet; {asked}"])
    out = planned("-c", config(**recipe), "--set", "plan.dimension=384")[1]
    assert f"80 vectors of 384 floats (rows of {tmp_path}/lake, dimension as plan.dimension says)" in line_of(
        out, "recipe"
    )


def test_the_cluster_job_is_refused_what_no_worker_has_room_for(caplog):
    options = load_recipe("paper", [FLAT, "cluster.driver_bytes=8589934592"]).cluster
    with pytest.raises(ConfigurationError) as caught:
        plan.check(options, 743_000_000, 1024, tasks=100)
    (problem,) = caught.value.problems
    assert problem.startswith("cluster: level 1: 10,000,000 clusters of 1,024 floats")
    assert "set cluster.split: [" in problem
    plan.check(options, 743_000_000, 1024, tasks=2000)  # so few points each has that it meets few clusters
    assert caplog.records == []


def test_the_cluster_job_is_refused_what_the_driver_has_no_room_for(caplog):
    options = load_recipe("paper", ["cluster.driver_bytes=1073741824"]).cluster
    with pytest.raises(ConfigurationError) as caught:
        plan.check(options, 743_000_000, 1024)
    (problem,) = caught.value.problems
    assert problem.startswith("cluster: the driver needs 2.13 GiB")
    assert problem.endswith("set cluster.driver_bytes: 4294967296 (4 GiB).")
    assert caplog.records == []


def test_the_cluster_job_is_warned_of_the_rest(caplog):
    plan.check(load_recipe("paper").cluster, 743_000_000, 1024)
    plan.check(Cluster(levels=[40, 8], driver_bytes=1), 2000, 16)
    assert caplog.records == []
    plan.check(Cluster(levels=[1_000_000], split=100, driver_bytes=1 << 33), 100_000_000, 1024)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "set cluster.split: [" in record.message


def test_levels():
    assert level_specs(Cluster(), 2000) == [LevelSpec(500, 3, 2), LevelSpec(62, 3, 4)]
    assert level_specs(Cluster(), 15) == [LevelSpec(3, 3, 2)]
    assert level_specs(Cluster(), 3) == [LevelSpec(1, 3, 1)]
    assert [spec.n_clusters for spec in level_specs(Cluster(), 10**9)] == [20_000, 2500]
    assert {spec.rounds for spec in level_specs(Cluster(levels=[40, 8]), 2000)} == {10}
    assert {spec.rounds for spec in level_specs(Cluster(resampling={"rounds": 7}), 2000)} == {7}
    inits = [fit_options(made).init for made in (Cluster(), Cluster(levels=[4]), Cluster(init="k-means++"))]
    assert inits == ["random", "k-means++", "k-means++"]
    assert told_of_auto(Cluster(levels=[4]), 9, 64) is None
    assert told_of_auto(Cluster(), 2000, 64).startswith("auto: 500 clusters (4 items each), 62 above, metric cosine; ")
    assert told_of_auto(Cluster(), 10**6, 64).startswith(
        "auto: 20,000 clusters (the most that auto makes of 1,000,000 items), "
    )
    metrics = [metric_of(made, 16) for made in (Cluster(), Cluster(levels=[4]), Cluster(metric="l2"))]
    assert metrics == ["cosine", "l2", "l2"]
    assert metric_of(Cluster(), 15) == "l2"  # places, not directions
    assert metric_of(Cluster(levels=[4], metric="cosine"), 2) == "cosine"
    split = Cluster(levels=[40, 8], split=5, probe=2, resampling={"rounds": 3, "random": [9, 4]})
    assert level_specs(split, 2000) == [LevelSpec(40, 0, 9, "random", 5, 2), LevelSpec(8, 3, 4, "random", None, 2)]
    assert [spec.rounds for spec in level_specs(Cluster(levels=[40, 8], resampling=None), 2000)] == [0, 0]
    (spec,) = level_specs(Cluster(levels=[40], split=5, probe="all"), 2000)
    assert spec.probe > 10**9
    with pytest.raises(ConfigurationError, match=r"n_samples=30 should be >= n_clusters=40"):
        level_specs(split, 30)
    with pytest.raises(ConfigurationError, match=r"cluster.split: split names 3 levels, but there are 2"):
        level_specs(Cluster(split=[5, None, None]), 2000)
    with pytest.raises(ConfigurationError, match=r"cluster.resampling: 1 sizes for 2 levels"):
        level_specs(Cluster(resampling={"closest": 4}), 2000)
