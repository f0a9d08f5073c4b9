"""The planner's figures beside what small runs do."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from lakestrata.kmeans import lloyd
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.cost import estimate
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.lloyd import Options
from lakestrata.kmeans.tree import LevelSpec, build
from lakestrata.kmeans.work import Workload

N, D = 6000, 12
PLAIN = LevelSpec(150), LevelSpec(20)
RESAMPLED = LevelSpec(150, 3, 8), LevelSpec(20, 2, 3)
SPLIT = LevelSpec(300, groups=60, probe=3), LevelSpec(20)


def mixture(seed):
    rng = np.random.default_rng(seed)
    weights = np.geomspace(1, 0.01, 40)
    blob = rng.choice(40, N, p=weights / weights.sum())
    x = rng.normal(size=(40, D))[blob] * 3 + rng.normal(size=(N, D))
    grid = Grid.covering(float(np.abs(x).max()), D)
    return ArrayPoints(grid.quantize(x), np.arange(N), grid)


@pytest.fixture
def rows_read(monkeypatch):
    """Counts the points that are read; of groups that are clustered by themselves once."""
    read = []
    depth = 0

    def count(name):
        plain = getattr(ArrayPoints, name)

        def counting(points, centroids, *args, **kwargs):
            nonlocal depth
            if not depth:
                batch = args[0] if name == "step" and args else 0
                read.append(int(points.batches[batch]))
            depth += 1
            try:
                return plain(points, centroids, *args, **kwargs)
            finally:
                depth -= 1

        monkeypatch.setattr(ArrayPoints, name, counting)

    for name in ("step", "members", "reseeds", "split", "locate"):
        count(name)
    return read


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("specs", [PLAIN, RESAMPLED, SPLIT], ids=["plain", "resampled", "split"])
@pytest.mark.parametrize("algorithm", ["minibatch", "lloyd"])
def test_so_many_points_are_read(monkeypatch, rows_read, algorithm, specs, seed):
    monkeypatch.setattr(lloyd, "_FIRST_POINTS", 500)
    options = Options(algorithm, tol=1e-4)
    points = mixture(seed)
    levels = list(build(points, specs, seed=seed, options=options))
    for below, above in pairwise([None, *levels]):  # at the end every point gets its place in the tree
        (points if below is None else points.lift(below)).locate(above)
    made = estimate(Workload(N, D, specs, options))
    assert all(level.on_driver for level in made.levels)
    assert sum(rows_read) <= made.most.rows
    assert made.expected.rows / 2.5 <= sum(rows_read) <= made.expected.rows * 2.5
