"""The command line: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import pytest
import yaml

from lakestrata import __version__
from lakestrata.jobs.recipe import packaged_recipes


@pytest.fixture
def config(tmp_path):
    """Writes a recipe for brought embeddings and gives its path."""

    def write(**values):
        path = tmp_path / "recipe.yaml"
        made = {
            "name": "cli",
            "embeddings": {"table": str(tmp_path / "lake")},
            "work": str(tmp_path / "work"),
        }
        path.write_text(yaml.safe_dump(made | values))
        return path

    return write


def test_help_lists_the_jobs(ended):
    code, out, _ = ended("--help")
    assert code == 0
    for job in ("embed", "cluster", "sample", "curate", "demo", "recipes", "import-npy"):
        assert any(job in line.split() for line in out)
    code, out, _ = ended("sample", "-h")
    assert code == 0
    assert any("--fresh" in line for line in out)


def test_version_is_that_of_the_package(ended):
    assert ended("--version") == (0, [f"lakestrata {__version__}"], [])


def test_recipes_are_listed_and_printed(ended):
    code, out, _ = ended("recipes")
    assert code == 0
    assert [line.split()[0] for line in out] == list(packaged_recipes())
    assert ended("recipes", "demo") == (0, packaged_recipes()["demo"].splitlines(), [])
    code, out, err = ended("recipes", "none")
    assert (code, out) == (2, [])
    assert err[0].startswith("lakestrata: none: no recipe of that name here (there are: ")


def test_a_wrong_recipe_ends_with_a_line_for_each_mistake(ended, config):
    path = config(sample={"sise": 3})
    code, out, err = ended("curate", "--config", path, "--set", "cluster.levels=[2, 4]")
    assert (code, out) == (2, [])
    assert all(line.startswith(f"lakestrata: {path}: ") for line in err)
    assert [line.removeprefix(f"lakestrata: {path}: ").split(":")[0] for line in err] == [
        "cluster",
        "sample.size",
        "sample.sise",
    ]


def test_unknown_options_and_jobs_end_with_2(ended):
    assert ended("curate")[0] == 2
    assert ended("curat", "--config", "x")[0] == 2
    assert ended("cluster", "--config", "x", "--frehs")[0] == 2


def test_a_file_that_is_no_npy_ends_with_2(spark, ended, tmp_path):
    code, _, err = ended("import-npy", tmp_path / "x.npy", tmp_path / "table")
    assert code == 2
    assert err == [f"lakestrata: {tmp_path / 'x.npy'}: no such file."]


def test_missing_tables_and_columns_end_with_2_and_nothing_written(spark, ended, config, tmp_path):
    code, out, err = ended("cluster", "-q", "-c", config())
    lake = tmp_path / "lake"
    assert (code, out) == (2, [])
    assert len(err) == 1
    assert err[0].startswith(f"lakestrata: embeddings.table: {lake}: there is no Delta table and no Parquet files")
    spark.range(3).selectExpr("id AS key", "'x' AS text").write.parquet(str(lake))
    given = {"table": str(lake), "id": "id", "column": "vector", "keep": ["label"]}
    code, out, err = ended("curate", "-q", "-c", config(embeddings=given, sample={"size": 3}))
    assert (code, out) == (2, [])
    assert [line.split(": ")[1] for line in err] == ["embeddings.id", "embeddings.column", "embeddings.keep"]
    assert all("(it has: key, text)" in line for line in err)
    assert ended("embed", "-q", "-c", config())[2] == [
        "lakestrata: source: missing: this recipe brings embeddings, there is nothing to embed."
    ]
    assert not (tmp_path / "work").exists()


def test_a_mistake_that_shows_late_ends_with_1(spark, ended, config, tmp_path):
    spark.range(3).selectExpr("id", "CAST(NULL AS ARRAY<FLOAT>) AS embedding").write.parquet(str(tmp_path / "lake"))
    code, out, err = ended("cluster", "-q", "-c", config())
    assert (code, out) == (1, [])
    assert err == [f"lakestrata: {tmp_path / 'lake'}: there is no row with an id and an embedding."]
