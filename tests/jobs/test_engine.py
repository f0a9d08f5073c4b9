"""The engine through its job: wherever blocks are kept, and however often it is broken off, one answer."""

from __future__ import annotations

import logging
import re
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("delta")

from lakestrata.jobs import cluster, publish
from lakestrata.jobs.scratch import Scratch
from lakestrata.jobs.store import Commit, Store
from lakestrata.kmeans import lloyd
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.schemas.errors import ConfigurationError, ResumeError
from lakestrata.schemas.tables import scratch
from lakestrata.udfs.points import DataFramePoints

N, D, NAME = 260, 6, "engine"
# Everything that the engine does: nested batches, resampling, and a level in two steps.
CLUSTER = {
    "levels": [20, 5],
    "resampling": {"rounds": 1, "closest": [6, 2]},
    "split": [None, 2],
    "probe": 1,
    "max_iter": 2,
}
BELOW = {"levels": [20], "resampling": None, "split": 4}
MEMBERS = 119
SOME_DRIVER, NO_DRIVER = 1 << 14, 1  # room for centroids and members but not for all points; room for nothing


class BrokenError(Exception):
    """Ends a run where a test wants it to."""


def vectors():
    """A mixture and, for ties, few distinct values; all on the grid, so that numpy's float64 is exact too."""
    rng = np.random.default_rng(5)
    mixture = rng.normal(rng.integers(-3, 3, (N - 80, 1)), 0.5, (N - 80, D))
    return np.rint(np.concatenate([mixture, rng.integers(-1, 2, (80, D))]) * 1024) / 1024


def items():
    return dict(zip([f"é{i}" for i in np.random.default_rng(6).permutation(N)], vectors(), strict=True))


@pytest.fixture(scope="module")
def lake(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    rows = [(key, x.tolist()) for key, x in items().items()]
    frame = spark.createDataFrame(rows, "key string, embedding array<double>").repartition(5)
    frame.write.format("delta").save(f"{folder}/lake")
    return folder


def files_below(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


@contextmanager
def watched(stop_at):
    """Records the steps of a run, its log, and its scratch as it was before it was removed."""
    seen = SimpleNamespace(steps=[], log=[], kind=None, files=[], result=None)
    close, logger, handler = Scratch.close, logging.getLogger("lakestrata"), logging.Handler()
    handler.emit = lambda record: seen.log.append(record.getMessage())

    def watch(original):
        def step(self, centroids, batch=0):
            if len(seen.steps) == stop_at:
                raise BrokenError
            found = original(self, centroids, batch)
            seen.steps.append((self.n, batch))
            return found

        return step

    def look_and_close(self):
        seen.kind, seen.files = self.kind, files_below(self.root.removeprefix("file://"))
        close(self)

    with pytest.MonkeyPatch.context() as patch:
        for kind in (ArrayPoints, DataFramePoints):
            patch.setattr(kind, "step", watch(kind.step))
        patch.setattr(Scratch, "close", look_and_close)
        patch.setattr(lloyd, "_FIRST_POINTS", 100)  # no group, which a worker clusters without this, has so many
        patch.setattr(lloyd, "_FIRST_PER_CLUSTER", 2)
        patch.setattr(logger, "level", logging.INFO)
        logger.addHandler(handler)
        try:
            yield seen
        finally:
            logger.removeHandler(handler)


@pytest.fixture(scope="module")
def clustered(spark, lake, recipe_of):
    """Runs the job in a folder of its own, up to a step or to its end, and tells what was seen."""

    def run(folder, *, stop_at=None, fresh=False, **options):
        recipe = recipe_of(lake / "lake", lake / folder, name=NAME, cluster=CLUSTER | options)
        with watched(stop_at) as seen:
            try:
                seen.result = cluster.run(spark, recipe, fresh=fresh)
            except BrokenError:
                seen.log.append("broken")
        seen.store = Store(spark, recipe.work)
        return seen

    return run


@pytest.fixture(scope="module")
def base(clustered):
    """The run that others are compared with: nothing set that says where to work."""
    return clustered("auto")


def tables_of(seen):
    if not hasattr(seen, "tables"):
        centroids, assigned = (seen.store.table(name).read() for name in ("centroids", "assignments"))
        seen.tables = centroids.orderBy("level", "cluster_id").toArrow(), assigned.orderBy("id").toArrow()
    return seen.tables


def assert_same_tables(one, other):
    for first, second in zip(tables_of(one), tables_of(other), strict=True):
        assert first.equals(second)


def tree_of(seen):
    """The tree as numpy takes it, a list entry a level: nodes, coordinates, and inputs with the parent of each."""
    nodes, assigned = (table.to_pylist() for table in tables_of(seen))
    levels = [[row for row in nodes if row["level"] == level] for level in sorted({row["level"] for row in nodes})]
    centroids = [np.array([row["centroid"] for row in level], dtype=np.float64) for level in levels]
    known = items()
    parents = [[row["level_1"] for row in assigned], *([row["parent_id"] for row in below] for below in levels[:-1])]
    inputs = [np.array([known[row["id"]] for row in assigned]), *centroids[:-1]]
    return SimpleNamespace(
        assigned=assigned, levels=levels, centroids=centroids, inputs=inputs, parents=list(map(np.array, parents))
    )


def squared_distances(tree, level):
    """Of each input of a level to all of its centroids, shape (n, k)."""
    return ((tree.inputs[level][:, None] - tree.centroids[level]) ** 2).sum(axis=2)


def assert_adds_up(tree, n_clusters):
    assert [[row["cluster_id"] for row in level] for level in tree.levels] == [[*range(k)] for k in n_clusters]
    assert sorted(items()) == [row["id"] for row in tree.assigned]
    for number, (level, parents) in enumerate(zip(tree.levels, tree.parents, strict=True), start=1):
        assert Counter({row["cluster_id"]: row["children"] for row in level}) == Counter(parents.tolist())
        below = Counter(row[f"level_{number}"] for row in tree.assigned)
        assert Counter({row["cluster_id"]: row["items"] for row in level}) == below
    if len(tree.levels) > 1:
        assert all(row["level_2"] == tree.parents[1][row["level_1"]] for row in tree.assigned)


def assert_recall_is_told(seen, tree, level, groups):
    squared, found = squared_distances(tree, level), tree.parents[level]
    recall = (squared[np.arange(len(found)), found] == squared.min(axis=1)).mean()
    told = f"level {level + 1}: {groups} groups probed: recall {recall:.4f} on {len(found)}"
    assert [line for line in seen.log if "probed" in line] == [told]


def test_blocks_in_files_are_chosen_on_one_machine_and_leave_nothing(base, lake):
    assert base.kind == "files"
    assert {path.suffix for path in base.files} == {".arrow"}
    assert not files_below(lake / "auto" / "scratch_files")
    assert not (lake / "auto" / "scratch_files" / f"run-{NAME}").exists()
    assert base.steps[:2] == [(N, 1), (N, 1)]  # a nested batch
    assert {n for n, _ in base.steps} >= {N, MEMBERS, 20}


def test_a_driver_without_room_and_another_scratch_path_give_the_same_tables(base, clustered, lake):
    tight = clustered("tight", scratch="files", scratch_path=f"{lake}/elsewhere/", driver_bytes=NO_DRIVER)
    assert tight.kind == "files"
    assert tight.steps == base.steps[: len(tight.steps)]  # those of groups are made by workers
    assert {path.suffix for path in tight.files} == {".arrow", ".f32"}
    assert all(path.is_relative_to(lake / "elsewhere") for path in tight.files)
    assert not files_below(lake / "elsewhere")
    assert not (lake / "tight" / "scratch_files").exists()
    assert_same_tables(tight, base)


def test_centroids_at_a_uri_give_the_same_tables_and_leave_nothing(base, clustered, lake):
    remote = clustered("remote", scratch_path=f"file://{lake}/uri", driver_bytes=NO_DRIVER)
    assert remote.kind != "files"  # what has to be fetched is no disk
    assert {path.suffix for path in remote.files} == {".f32"}
    assert not files_below(lake / "uri")
    assert_same_tables(remote, base)


def test_centroids_that_are_needed_no_more_go_at_once(clustered):
    long = clustered("long", **BELOW | {"split": None, "max_iter": 20, "tol": 0.0}, driver_bytes=NO_DRIVER)
    stored = [path for path in long.files if path.suffix == ".f32"]
    assert 0 < len(stored) <= 5 < len(long.steps) - 2


@pytest.mark.parametrize("path", ["unknown://bucket", "dbfs:/Volumes/lake/files", "dbfs:/files"])
def test_a_scratch_path_that_python_cannot_open_is_refused_in_one_line(spark, lake, recipe_of, path):
    recipe = recipe_of(lake / "lake", lake / "refused", cluster={"scratch_path": path})
    with pytest.raises(ConfigurationError) as caught:
        cluster.run(spark, recipe)
    (problem,) = caught.value.problems
    assert re.fullmatch(r"cluster\.scratch_path: no files can be made at \S+: .+[^.]\.", problem)
    assert not (lake / "refused").exists()


@pytest.mark.parametrize("work", ["lake.curation", "s3://bucket/work"])
def test_files_without_a_place_are_refused_in_one_line(spark, lake, recipe_of, work):
    recipe = recipe_of(lake / "lake", work, cluster={"scratch": "files"})
    with pytest.raises(ConfigurationError) as caught:
        cluster.run(spark, recipe)  # before anything is looked for under `work`
    (problem,) = caught.value.problems
    assert re.fullmatch(r"cluster\.scratch: files need a folder .* cluster\.scratch_path\.", problem)


def leave_scratch(spark, folder, owners):
    """What runs of these names leave when their machine dies."""
    table, declared = Store(spark, str(folder)).table("scratch_string"), scratch("string")
    table.create(declared)
    rows = [(owner, "blocks", ["a"], b"", b"", b"", 0, 1, 0.0, None) for owner in owners]
    table.append(spark.createDataFrame(rows, declared.schema), Commit("crashed", "scratch-1", ""))
    for owner in owners:
        below = folder / "scratch_files" / f"run-{owner}" / "crashed"
        below.mkdir(parents=True)
        (below / "left.arrow").write_bytes(b"left")


def test_a_run_broken_off_again_and_again_ends_with_the_same_tables(spark, base, clustered, lake, monkeypatch):
    """Each attempt goes on at the very step that the one before did not end, with other settings of how to work."""
    nested, members = 1, base.steps.index((MEMBERS, 0)) + 1

    def attempt(kind, stop_at=None, **options):
        seen = clustered("broken", stop_at=stop_at, checkpoint_seconds=0, scratch=kind, **options)
        assert seen.kind == kind
        assert ("broken" in seen.log) == (seen.result is None)
        assert any(line.startswith("resuming after level") for line in seen.log) != options.get("fresh", False)
        return seen

    def stop(*args):
        raise BrokenError

    with monkeypatch.context() as patch:
        patch.setattr(publish, "_nodes", stop)  # assignments are written by then
        clustered("broken", seed=4, max_iter=3)
    with pytest.raises(ResumeError, match=r"cluster.max_iter was 3, is now 2; cluster.seed was 4, is now 0"):
        clustered("broken")
    leave_scratch(spark, lake / "broken", [NAME, "other"])
    first = attempt("files", nested, driver_bytes=NO_DRIVER, fresh=True)
    assert first.files
    second = attempt("cache", members - nested, driver_bytes=SOME_DRIVER)
    with monkeypatch.context() as patch:
        patch.setattr(DataFramePoints, "split", stop)
        third = attempt("table", driver_bytes=NO_DRIVER)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "_nodes", stop)
        fourth = attempt("files", device="cpu")
    last = attempt("cache", driver_bytes=NO_DRIVER)
    done = first.steps + second.steps + third.steps
    assert done == base.steps[: len(done)]  # none was made twice
    assert fourth.steps == base.steps[len(done) - 1 :]  # but the one that shares out the clusters of a split
    assert last.steps == []
    assert_same_tables(last, base)
    assert last.store.table("checkpoints").read().isEmpty()
    assert [path.parts[-3] for path in files_below(lake / "broken" / "scratch_files")] == ["run-other"]
    left = [last.store.table(f"scratch_{kind}").read().collect() for kind in ("string", "bigint")]
    assert [[row["owner"] for row in rows] for rows in left] == [["other"], []]
    leave_scratch(spark, lake / "broken", [NAME])  # as one does that dies when all else is done
    assert clustered("broken").result.unchanged
    left = [last.store.table(f"scratch_{kind}").read().collect() for kind in ("string", "bigint")]
    assert [[row["owner"] for row in rows] for rows in left] == [["other"], []]


def test_split_levels_add_up(base, clustered):
    tree = tree_of(base)
    assert_adds_up(tree, [20, 5])
    assert_recall_is_told(base, tree, 1, "1 of 2")
    below = clustered("two", probe=2, **BELOW)
    tree = tree_of(below)
    assert_adds_up(tree, [20])
    assert_recall_is_told(below, tree, 0, "2 of 4")


def test_all_groups_give_the_nearest_centroid_of_all(clustered):
    every = clustered("all", probe="all", **BELOW)
    tree = tree_of(every)
    np.testing.assert_array_equal(tree.parents[0], squared_distances(tree, 0).argmin(axis=1))  # of equal ones the first
    assert not [line for line in every.log if "probed" in line]


def test_costs_and_radii_are_those_that_numpy_finds(base):
    tree = tree_of(base)
    for level, labels in enumerate(tree.parents):
        squared = squared_distances(tree, level)[np.arange(len(labels)), labels]
        assert base.result.metrics[f"cost_level_{level + 1}"] == pytest.approx(squared.mean(), rel=1e-6)
        radii = np.sqrt(np.bincount(labels, squared) / np.bincount(labels))
        np.testing.assert_allclose([row["radius"] for row in tree.levels[level]], radii, rtol=1e-6)
