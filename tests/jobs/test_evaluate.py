"""Levels auto on a long-tailed lake, what evaluate says of it, outliers, and the say of a labelled table."""

from __future__ import annotations

import logging
import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import entropy

pytest.importorskip("delta")

from rich.console import Console

from lakestrata.jobs import curate, evaluate, sample
from lakestrata.jobs.shares import temperature_of
from lakestrata.jobs.store import DeltaTable
from lakestrata.schemas.errors import ConfigurationError, LakestrataError

SIZES = {"common": 300, "some": 60, "rare": 20}
NOISE, D, SIZE = 6, 8, 60
N = sum(SIZES.values()) + NOISE


def rows():
    """Three kinds of items, apart from each other, and a few far from all, of no kind."""
    rng = np.random.default_rng(3)
    centres = np.eye(3, D) * 12
    kinds = [
        (kind, x) for c, (kind, n) in zip(centres, SIZES.items(), strict=True) for x in c + rng.normal(size=(n, D))
    ]
    noise = [(None, x) for x in rng.normal(0, 90, (NOISE, D))]
    return [(key, x.tolist(), kind, "one") for key, (kind, x) in enumerate(kinds + noise)]


@pytest.fixture(scope="module")
def lake(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    schema = "key bigint, embedding array<double>, kind string, one string"
    spark.createDataFrame(rows(), schema).repartition(3).write.format("delta").save(f"{folder}/lake")
    rng = np.random.default_rng(4)
    labelled = [(kind, (c + rng.normal(size=D)).tolist()) for c, kind in zip(np.eye(3, D) * 12, SIZES, strict=True)
                for _ in range(12)]  # fmt: skip
    frame = spark.createDataFrame(labelled, "class string, vector array<float>")
    frame.write.format("delta").save(f"{folder}/labelled")
    return folder


@pytest.fixture(scope="module")
def recipe(lake, recipe_of):
    """Makes recipes under one name and in one folder: the tree is made once."""

    def make(size=SIZE, *, keep=(), sections=None, **options):
        given = {"table": f"{lake}/lake", "id": "key", "keep": list(keep)}
        return recipe_of("", lake / "work", embeddings=given, sample={"size": size, **options}, **(sections or {}))

    return make


@pytest.fixture(scope="module")
def base(spark, lake, recipe):
    """The curated set that most tests look at."""
    results = curate.run(spark, recipe(keep=["kind"]))
    table = DeltaTable(spark, f"{lake}/work/curated").read().toArrow().to_pylist()
    return SimpleNamespace(results=results, curated=table)


def judged(spark, recipe, **settings):
    return evaluate.run(spark, recipe(keep=["kind"], sections={"evaluate": {"label": "kind", **settings}}))


def test_levels_auto_make_a_lake_more_even(base):
    assert base.results[0].metrics["clusters_level_1"] == N // 4
    assert base.results[0].metrics["clusters_level_2"] == N // 4 // 8
    counts = Counter(row["kind"] for row in base.curated)
    assert sum(counts.values()) == SIZE
    for kind in ("some", "rare"):
        assert counts[kind] > 1.5 * SIZE * SIZES[kind] / N
    assert all(row["inclusion_probability"] <= 1 for row in base.curated)


def test_samples_by_density_nest(spark, lake, recipe, base):
    other = recipe(2 * SIZE, sections={"name": "test"})
    sample.run(spark, other, fresh=True)
    larger = {row["id"] for row in DeltaTable(spark, f"{lake}/work/curated").read().collect()}
    assert {row["id"] for row in base.curated} < larger
    sample.run(spark, recipe(keep=["kind"]), fresh=True)


def test_evaluate_tells_by_how_much_curation_helped(spark, lake, recipe, base):
    found = judged(spark, recipe)
    figures = {figure.name: figure for figure in found.figures}
    counts = Counter(row["kind"] for row in base.curated if row["kind"])
    by_class = figures["entropy of classes"]
    assert by_class.curated == pytest.approx(entropy(list(counts.values()), base=3))
    assert by_class.mean == pytest.approx(entropy(list(SIZES.values()), base=3), abs=0.05)
    assert by_class.oracle == pytest.approx(1, abs=1e-3)
    assert by_class.outcome == "better"
    assert 0.2 < by_class.gain <= 1
    assert figures["classes covered"].oracle == 3
    assert figures["linear probe"].oracle > 0.95  # the kinds are apart
    assert len(by_class.random) == 10
    console = Console(width=140, record=True)
    found.print_to(console)
    printed = console.export_text()
    assert re.search(r"entropy of classes +0\.\d{3} +0\.\d{3} ± 0\.\d{3} +1\.000 +\+\d+% +better", printed)
    assert "Curation helped: entropy of classes" in printed
    assert f"{NOISE} items have no class." in printed
    stored = {row["figure"]: row for row in DeltaTable(spark, f"{lake}/work/evaluation").read().collect()}
    assert stored.keys() == figures.keys()
    for name, figure in figures.items():
        row = stored[name]
        assert (row["curated"], row["oracle"], row["gain"]) == (figure.curated, figure.oracle, figure.gain)
    assert judged(spark, recipe).figures == found.figures  # the same again, in place of the rows before


def test_evaluate_looks_at_samples_where_the_lake_is_large(spark, recipe, base):
    found = judged(spark, recipe, items=100)
    assert found.notes[0] == f"On samples: 100 of {N} items, 20 of {SIZE} picks."
    by_class = found.figures[0]
    counts = Counter(row["kind"] for row in base.curated if row["kind"])
    assert by_class.curated == pytest.approx(entropy(list(counts.values()), base=3))  # counted in full


def test_evaluate_without_classes_tells_of_the_shape(spark, recipe, base):
    found = evaluate.run(spark, recipe(keep=["kind"]))
    names = [figure.name for figure in found.figures]
    assert len(names) == 5
    assert names[0] == "evenness of a reference clustering"
    assert all(figure.oracle is None and figure.gain is None for figure in found.figures)


def test_evaluate_by_a_labelled_table(spark, lake, recipe_of, base):
    """The probe on half of it knows the kinds, so the figures are near those by the column."""
    labels = {"table": f"{lake}/labelled", "column": "vector", "label": "class"}
    given = {"table": f"{lake}/lake", "id": "key", "keep": ["kind"]}
    found = evaluate.run(spark, recipe_of("", lake / "work", embeddings=given, sample={"size": SIZE}, labels=labels))
    assert re.fullmatch(
        r"Classes are those .* finds: 100% right on the other half, which is the test set\.", found.notes[0]
    )
    assert found.figures[0].outcome == "better"
    assert found.figures[0].oracle == pytest.approx(1, abs=1e-3)


def test_evaluate_writes_anew_when_the_labels_change(spark, lake, recipe_of, base):
    labels = {"table": f"{lake}/changing", "column": "vector", "label": "class"}
    given = {"table": f"{lake}/lake", "id": "key", "keep": ["kind"]}
    made = recipe_of("", lake / "work", embeddings=given, sample={"size": SIZE}, labels=labels)
    labelled = spark.read.format("delta").load(f"{lake}/labelled")
    for rows in (labelled, labelled.where("class <> 'rare'")):
        rows.write.format("delta").mode("overwrite").save(f"{lake}/changing")
        found = evaluate.run(spark, made).figures
        stored = {row["figure"]: row for row in DeltaTable(spark, f"{lake}/work/evaluation").read().collect()}
        assert {name: row["curated"] for name, row in stored.items()} == {f.name: f.curated for f in found}
        assert stored["classes covered"]["oracle"] == len(set(rows.toArrow()["class"].to_pylist()))


def test_outliers_are_left_out_and_counted(spark, lake, recipe, base):
    result = sample.run(spark, recipe(outliers=NOISE / N + 1e-9, keep=["kind"]), fresh=True)
    chosen = DeltaTable(spark, f"{lake}/work/curated").read().collect()
    left_out = DeltaTable(spark, f"{lake}/work/quotas").read().where("reason = 'outlier'").collect()
    assert 0 < result.set_aside["outlier"] == sum(row["items"] for row in left_out) <= NOISE
    assert {row["quota"] for row in left_out} == {0}
    assert result.rows_in == result.rows_out + sum(result.set_aside.values()) == N
    assert sum(row["kind"] is None for row in chosen) <= NOISE - result.set_aside["outlier"]
    sample.run(spark, recipe(keep=["kind"]), fresh=True)


def test_a_labelled_table_has_its_say(spark, lake, recipe_of, base, caplog):
    labels = {"table": f"{lake}/labelled", "column": "vector", "label": "class"}
    given = {"table": f"{lake}/lake", "id": "key", "keep": ["kind"]}
    made = recipe_of("", lake / "work", embeddings=given, sample={"size": SIZE}, labels=labels)
    with caplog.at_level(logging.INFO, logger="lakestrata"):
        sample.run(spark, made, fresh=True)
    (line,) = [record.getMessage() for record in caplog.records if "by 36 labels" in record.getMessage()]
    ways = [way.rsplit(" ", 1) for way in line.split("evenness: ")[1].removesuffix(")").split("; ")]
    evenness = {name: float(value) for name, value in ways}
    assert len(evenness) == 10  # communities that lie apart, five by what is around, the tree, three by classes
    chosen = re.search(r"temperature auto: (.*), by 36 labels", line)[1]
    assert chosen in evenness
    assert evenness[chosen] >= max(evenness.values()) - 0.05
    sample.run(spark, recipe_of("", lake / "work", embeddings=given, sample={"size": SIZE}), fresh=True)


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"evaluate": {"label": "sort"}}, r"evaluate\.label: the table has no column 'sort' \(it has: key, .*\)\."),
        ({"evaluate": {"label": "one"}}, r"evaluate\.label: column 'one' has 1 classes: .*\."),
        ({"labels": {"table": "/nowhere"}}, r"labels\.table: /nowhere: there is no Delta table .*\."),
        ({"labels": {"table": "{lake}/labelled", "label": "class"}}, r"labels\.column: .* no column 'embedding' .*\."),
        ({"labels": {"table": "{lake}/lake", "column": "kind", "label": "kind"}}, r"labels\.column: .* string; .*"),
    ],
)  # fmt: skip
def test_mistakes_in_what_to_judge_by_are_told_in_one_line(spark, lake, recipe_of, base, sections, told):
    given = {"table": f"{lake}/lake", "id": "key"}
    sections = {
        section: {key: value.format(lake=lake) if isinstance(value, str) else value for key, value in options.items()}
        for section, options in sections.items()
    }
    with pytest.raises(ConfigurationError) as caught:
        evaluate.run(spark, recipe_of("", lake / "work", embeddings=given, sample={"size": 9}, **sections))
    (problem,) = caught.value.problems
    assert re.fullmatch(told, problem)


def test_there_must_be_a_curated_set(spark, lake, recipe_of):
    given = {"table": f"{lake}/lake", "id": "key"}
    with pytest.raises(LakestrataError, match=r"there is no curated set of 'test': run sample first, or curate\."):
        evaluate.run(spark, recipe_of("", lake / "empty", embeddings=given, sample={"size": 9}))


def test_levels_of_ones_own_are_shared_evenly(recipe, recipe_of):
    def meant(**sections):
        made = recipe_of("lake", "work", sample={"size": 9} | sections.pop("sample", {}), **sections)
        return temperature_of(made, made.sample)

    assert meant() == "auto"
    assert meant(cluster={"levels": [6]}) == 0
    assert meant(cluster={"levels": [6]}, sample={"temperature": 0.25}) == 0.25
    assert meant(sample={"temperature": 0.0}) == 0
    assert meant(cluster={"levels": [6]}, labels={"table": "few"}) == "auto"  # they choose
