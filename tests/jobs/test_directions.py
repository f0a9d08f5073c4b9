"""Embeddings whose lengths say nothing: `auto` compares them by angle, and labelled ones with them."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("delta")

from lakestrata.jobs import cluster, evaluate, sample
from lakestrata.jobs.store import DeltaTable

D, SIZES, SIZE = 16, {"common": 240, "some": 40, "rare": 12}, 24
N = sum(SIZES.values())


def directions(rng, sizes):
    """Items of each kind around a direction, of any length."""
    for axis, (kind, n) in enumerate(sizes.items()):
        x = 6 * np.eye(D)[axis] + rng.normal(size=(n, D))
        yield from ((kind, (row * scale).tolist()) for row, scale in zip(x, rng.lognormal(0, 2, n), strict=True))


@pytest.fixture(scope="module")
def lake(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("directions")
    rows = [(key, kind, x) for key, (kind, x) in enumerate(directions(np.random.default_rng(0), SIZES))]
    rows.append((N, None, [0.0] * D))
    frame = spark.createDataFrame(rows, "id bigint, kind string, embedding array<double>")
    frame.repartition(3).write.format("delta").save(f"{folder}/lake")
    labelled = list(directions(np.random.default_rng(1), dict.fromkeys(SIZES, 20)))
    unit = [(kind, (np.array(x) / np.linalg.norm(x)).tolist()) for kind, x in labelled]  # the same directions
    for name, shown in {"labelled": labelled, "unit": unit}.items():
        spark.createDataFrame(shown, "label string, embedding array<double>").write.format("delta").save(
            f"{folder}/{name}"
        )
    return folder


@pytest.fixture(scope="module")
def recipe(lake, recipe_of):
    def make(**sections):
        given = {"table": f"{lake}/lake", "id": "id", "keep": ["kind"]}
        return recipe_of("", lake / "work", embeddings=given, sample={"size": SIZE}, **sections)

    return make


@pytest.fixture(scope="module")
def tree(spark, recipe):
    return cluster.run(spark, recipe())


def table(spark, lake, name):
    return DeltaTable(spark, f"{lake}/work/{name}").read().toArrow().to_pylist()


def test_centroids_are_directions_and_a_vector_without_one_is_set_aside(spark, lake, tree):
    assert (tree.rows_out, tree.set_aside) == (N, {"zero_vector": 1})
    (aside,) = table(spark, lake, "quarantine")
    assert (aside["id"], aside["detail"]) == (str(N), f"a usable vector has {D} finite numbers, not all zero")
    lengths = [np.linalg.norm(row["centroid"]) for row in table(spark, lake, "centroids")]
    np.testing.assert_allclose(lengths, 1, atol=1e-4)


def test_the_lengths_of_labelled_vectors_do_not_matter(spark, lake, recipe, tree):
    chosen, seen = [], []
    for name in ("labelled", "unit"):
        made = recipe(labels={"table": f"{lake}/{name}"})
        sample.run(spark, made, fresh=True)
        chosen.append(sorted((row["id"], row["weight"]) for row in table(spark, lake, "curated")))
        seen.append(evaluate.run(spark, made))
    assert chosen[0] == chosen[1]
    for found in seen:  # of each class ten rows teach, ten others test
        assert int(re.search(r"(\d+)% right on the other half", found.notes[0])[1]) >= 80
        assert found.figures[0].outcome == "better"


def test_a_few_labels_make_the_sample_even(spark, lake, recipe, tree):
    sample.run(spark, recipe(labels={"table": f"{lake}/labelled"}), fresh=True)
    kinds = [row["kind"] for row in table(spark, lake, "curated")]
    assert len(kinds) == SIZE
    assert all(SIZE / 3 - 3 <= kinds.count(kind) <= SIZE / 3 + 3 for kind in SIZES)


def test_samples_chosen_by_labels_nest(spark, lake, recipe, tree):
    found = []
    for size in (SIZE, 3 * SIZE):
        made = recipe(labels={"table": f"{lake}/labelled"})
        made = made.model_copy(update={"sample": made.sample.model_copy(update={"size": size})})
        sample.run(spark, made, fresh=True)
        found.append({row["id"] for row in table(spark, lake, "curated")})
    assert found[0] < found[1]
