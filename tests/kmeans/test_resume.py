"""Levels and trees that were broken off: from every saved progress they end with the bits of an undisturbed run."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from lakestrata.kmeans import lloyd
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.grid import Grid
from lakestrata.kmeans.lloyd import Options
from lakestrata.kmeans.tree import LevelSpec, Progress, build, fit_level, seed_of

SPECS = [LevelSpec(40, 2, 5), LevelSpec(12, 1, 2, "random"), LevelSpec(4)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(lloyd, "_FIRST_POINTS", 200)
    monkeypatch.setattr(lloyd, "_FIRST_PER_CLUSTER", 4)


def mixture(seed=0, n=1500, d=6, metric="l2"):
    rng = np.random.default_rng(seed)
    weights = np.geomspace(1, 0.01, 10)
    blob = rng.choice(10, n, p=weights / weights.sum())
    x = rng.normal(size=(10, d))[blob] * 4 + rng.normal(size=(n, d))
    grid = Grid.covering(float(np.abs(x).max()), d, metric)
    return ArrayPoints(grid.quantize(x), np.arange(n), grid)


def few_vectors():
    """Fewer distinct points than clusters are asked for."""
    x = np.random.default_rng(0).geometric(0.2, 900)[:, None]
    return ArrayPoints(x.astype(np.float32), np.arange(900), Grid(0, 20))


def bits(level):
    """What a level is, whether in one step or two."""
    return level.tobytes() if isinstance(level, np.ndarray) else (level.groups.tobytes(), level.flat().tobytes())


def outline(progress):
    """A progress without its arrays' identity."""
    state, before = progress.state, progress.before
    return (
        progress.round,
        None if before is None else before.tobytes(),
        state and (state.batch, state.n_iter, state.cost, state.centroids.tobytes()),
    )


CASES = {
    "rounds": (mixture, LevelSpec(30, 3, 5), Options()),
    "random members, tolerance": (mixture, LevelSpec(30, 2, 10, "random"), Options(tol=1e-2)),
    "cosine": (lambda: mixture(metric="cosine"), LevelSpec(25, 2, 4), Options(max_iter=3)),
    "no rounds": (mixture, LevelSpec(50), Options()),
    "too few distinct": (few_vectors, LevelSpec(40, 2, 3), Options()),
    "two steps": (mixture, LevelSpec(90, groups=8, probe=2), Options(tol=1e-2)),
    "two steps, groups resampled": (mixture, LevelSpec(90, 1, 5, groups=8, probe=2), Options(tol=1e-2)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_level_goes_on_from_every_progress_it_saved(case):
    make, spec, options = CASES[case]
    points, saved = make(), []
    whole = bits(fit_level(points, spec, 1, seed=5, options=options, save=saved.append))
    assert [progress.round for progress in saved] == sorted(progress.round for progress in saved)
    assert {progress.round for progress in saved} == set(range(spec.rounds + 2))
    assert saved[0].before is None
    assert saved[0].state.batch > 0
    for number, progress in enumerate(saved):
        rest = []
        again = fit_level(points, spec, 1, seed=5, options=options, progress=progress, save=rest.append)
        assert bits(again) == whole
        assert list(map(outline, rest)) == list(map(outline, saved[number + 1 :]))


def test_the_progress_of_a_round_has_the_centroids_of_the_one_before():
    saved = []
    last = fit_level(mixture(), LevelSpec(30, 3, 5), 1, seed=5, save=saved.append)
    ends = [progress for progress in saved if progress.state is None]
    assert [progress.round for progress in ends] == [1, 2, 3, 4]
    assert ends[-1].before.tobytes() == last.tobytes()
    for progress, after in pairwise(saved):
        if after.state:
            assert after.before is progress.before


def test_a_progress_past_the_last_round_needs_centroids():
    with pytest.raises(ValueError, match=r"progress\.round=4 should be at most rounds=3"):
        fit_level(mixture(), LevelSpec(30, 3, 5), 1, seed=5, progress=Progress(4))


def assert_same_levels(a, b):
    assert [bits(level) for level in a] == [bits(level) for level in b]


@pytest.mark.parametrize("n_done", [1, 2, 3])
def test_a_tree_goes_on_from_the_levels_that_are_done(n_done):
    points = mixture(5)
    whole = list(build(points, SPECS, seed=0))
    rest = list(build(points, SPECS, seed=0, done=whole[n_done - 1], first=n_done + 1))
    assert_same_levels(rest, whole[n_done:])


@pytest.mark.parametrize(
    "specs", [SPECS, [LevelSpec(90, groups=6, probe=2), LevelSpec(20, 1, 2), LevelSpec(5)]], ids=["rounds", "two steps"]
)
def test_a_tree_goes_on_from_every_progress_it_saved(specs):
    points, saved, whole = mixture(6), [], []
    for level in build(points, specs, seed=0, options=Options(tol=1e-2), save=lambda *args: saved.append(args)):
        whole.append(level)
    assert {level for level, _ in saved} == {1, 2, 3}
    for level, progress in saved:
        done = whole[level - 2] if level > 1 else None
        options = Options(tol=1e-2)
        rest = list(build(points, specs, seed=0, options=options, done=done, first=level, progress=progress))
        assert_same_levels(rest, whole[level - 1 :])


def test_every_level_and_round_draws_anew():
    points = mixture(7)
    one, two = (fit_level(points, LevelSpec(30), level, seed=0) for level in (1, 2))
    assert one.tobytes() != two.tobytes()
    other = fit_level(points, LevelSpec(30), 1, seed=1)
    assert one.tobytes() != other.tobytes()
    numbers = [*range(30), 2**20, 2**20 + 500_000]
    seeds = {seed_of(seed, level, number) for seed in range(4) for level in range(1, 6) for number in numbers}
    assert len(seeds) == 4 * 5 * len(numbers)
