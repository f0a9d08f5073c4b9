"""The tree: what holds of every one, and that nothing but data and seed decides its bits."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from lakestrata.kmeans import lloyd
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.quotas import tree_sizes
from lakestrata.kmeans.tree import LevelSpec, build, fit_level, paths

SPECS = [LevelSpec(60, 2, 5), LevelSpec(15, 2, 2, "random"), LevelSpec(4)]


def mixture(seed=0, n=1500, d=6, metric="l2", ids=None):
    rng = np.random.default_rng(seed)
    weights = np.geomspace(1, 0.01, 10)
    blob = rng.choice(10, n, p=weights / weights.sum())
    x = rng.normal(size=(10, d))[blob] * 4 + rng.normal(size=(n, d))
    grid = Grid.covering(float(np.abs(x).max()), d, metric)
    return ArrayPoints(grid.quantize(x), np.arange(n) if ids is None else ids, grid)


def tree_of(points, specs=SPECS, seed=0):
    return list(build(points, specs, seed=seed))


def parents(points, levels):
    """Each cluster's parent: the nearest centroid of the level above."""
    return [points.lift(below).locate(above)[0] for below, above in itertools.pairwise(levels)]


def assert_same_levels(a, b):
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        assert left.dtype == right.dtype == np.float32
        assert left.tobytes() == right.tobytes()


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("seed", range(3))
def test_every_point_has_one_path_and_no_cluster_is_empty(metric, seed):
    points = mixture(seed, metric=metric)
    levels = tree_of(points, seed=seed)
    labels, _ = points.locate(levels[0])
    path = paths(parents(points, levels), labels)
    assert [len(level) for level in levels] == [60, 15, 4]
    assert path.shape == (3, points.n)
    for level, row in zip(levels, path, strict=True):
        assert np.bincount(row, minlength=len(level)).min() > 0
        assert row.max() < len(level)
    for below, above in itertools.pairwise(path):  # a cluster's points stay together
        assert len(np.unique(np.stack([below, above]), axis=1).T) == len(np.unique(below))


def test_sizes_add_up_at_every_level():
    points = mixture(1)
    levels = tree_of(points)
    above = parents(points, levels)
    labels, _ = points.locate(levels[0])
    path = paths(above, labels)
    sizes = tree_sizes(above, np.bincount(labels, minlength=len(levels[0])))
    for row, size in zip(path, sizes, strict=True):
        assert size.sum() == points.n
        np.testing.assert_array_equal(size, np.bincount(row, minlength=len(size)))


def test_a_parent_is_the_nearest_centroid_above():
    points = mixture(2)
    levels = tree_of(points)
    for below, above, parent in zip(levels, levels[1:], parents(points, levels), strict=False):
        squared = ((below[:, None].astype(np.int64) - above[None].astype(np.int64)) ** 2).sum(axis=2)
        np.testing.assert_array_equal(parent, squared.argmin(axis=1))


def test_a_level_ends_with_all_points_assigned():
    points = mixture(3)
    step = points.step(fit_level(points, LevelSpec(20, 3, 4), 1, seed=0))
    assert step.counts.sum() == points.n
    assert step.counts.min() > 0


def test_resampling_forgets_the_masses_of_clusters():
    points = mixture(4)
    plain, resampled = (
        points.step(fit_level(points, spec, 1, seed=0)) for spec in (LevelSpec(30), LevelSpec(30, 5, 3))
    )
    assert resampled.counts.std() > plain.counts.std()
    assert resampled.cost > plain.cost


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("first_points", [100, 1 << 15])
def test_shuffled_rows_give_the_same_bits(monkeypatch, metric, first_points):
    monkeypatch.setattr(lloyd, "_FIRST_POINTS", first_points)
    monkeypatch.setattr(lloyd, "_FIRST_PER_CLUSTER", 1)
    ids = np.array([f"item {n:05}" for n in range(1500)], dtype=object)
    points = mixture(6, metric=metric, ids=ids)
    order = np.random.default_rng(0).permutation(points.n)
    shuffled = ArrayPoints(points.x[order], points.ids[order], points.grid)
    assert_same_levels(tree_of(points), tree_of(shuffled))


def test_the_seed_decides_every_level():
    points = mixture(7)
    first, again, other = (tree_of(points, seed=seed) for seed in (1, 1, 2))
    assert_same_levels(first, again)
    assert all(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_fewer_distinct_points_than_clusters_narrow_the_tree():
    points = ArrayPoints(np.repeat(np.arange(8.0, dtype=np.float32)[:, None], 10, axis=0), np.arange(80), Grid(0, 20))
    levels = tree_of(points, [LevelSpec(20, 1, 2), LevelSpec(8), LevelSpec(3)])
    assert [len(level) for level in levels] == [8, 8, 3]


DIGEST = """
import hashlib
import numpy as np
from threadpoolctl import threadpool_info
from lakestrata.kmeans import lloyd, plusplus
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.tree import LevelSpec, build, fit_level

lloyd._FIRST_POINTS, plusplus._ONE_BY_ONE = 500, 20
rng = np.random.default_rng(0)
x = rng.integers(-3000, 3000, (12, 48))[rng.integers(0, 12, 4000)] + rng.integers(-2000, 2000, (4000, 48))
for metric in ("l2", "cosine"):
    grid = Grid.covering(float(np.abs(x).max()), 48, metric)
    points = ArrayPoints(grid.quantize(x.astype(np.float32)), np.arange(4000), grid)
    levels = list(build(points, [LevelSpec(150, 2, 8), LevelSpec(40, 2, 2), LevelSpec(9)], seed=0))
    in_groups = fit_level(points, LevelSpec(90, groups=8, probe=3), 1, seed=0)
    digest = hashlib.sha256(b"".join(level.tobytes() for level in [*levels, in_groups.flat()]))
    for centroids in (levels[0], in_groups):
        for part in points.locate(centroids):
            digest.update(part.tobytes())
    product = hashlib.sha256((points.x @ levels[0].T).tobytes()).hexdigest()
    (blas,) = {i["architecture"] for i in threadpool_info() if "numpy.libs" in i["filepath"]} or {"unknown"}
    print(digest.hexdigest(), product, blas)
"""
MACHINES = {
    "as it is": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2"},
    **{
        core: {"OPENBLAS_CORETYPE": core, "OMP_NUM_THREADS": "1"}
        for core in ("Haswell", "Sandybridge", "Nehalem", "Prescott")
    },
}


def digests(environment):
    """Of each metric: the digest of a tree, that of a plain product, and the kernel that made them."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OPENBLAS", "OMP_"))}
    ran = subprocess.run(
        [sys.executable, "-c", DIGEST],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [line.split() for line in ran.stdout.splitlines()]


def test_every_kernel_and_number_of_threads_gives_the_same_bits():
    for of_metric in zip(*map(digests, MACHINES.values()), strict=True):
        trees, products, cores = zip(*of_metric, strict=True)
        assert len(set(trees)) == 1
        if platform.machine() == "x86_64" and "unknown" not in cores:
            # The kernels did differ, and so did what they make of a plain product.
            assert len(set(cores)) > 1
            assert len(set(products)) > 1
