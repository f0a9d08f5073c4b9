"""The choice among ways to share a sample: by labels where they tell, else the default."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from lakestrata.kmeans.choice import choose, fold_evenness

# Clusters of three classes: a heavy one of eight clusters, one of three, and a rare one of one.
CLASS = np.repeat([0, 1, 2], [8, 3, 1])
ITEMS = np.array([900, 700, 800, 500, 600, 900, 400, 800, 60, 40, 50, 10], dtype=float)
BY_CLASS = 1 / np.bincount(CLASS)[CLASS]
WAYS = {"by items": ITEMS, "by clusters": np.ones(12), "by class": BY_CLASS}


def separated(m, seed):
    """Labelled vectors and centroids of three classes far apart."""
    rng = np.random.default_rng(seed)
    middles = np.array([[0, 0, 0], [40, 0, 0], [0, 40, 0]])
    y = rng.permutation(np.arange(m) % 3)
    x, centroids = (middles[labels] + rng.normal(0, 1, (len(labels), 3)) for labels in (y, CLASS))
    return x.astype(np.float32), y, centroids.astype(np.float32)


@pytest.mark.parametrize("m", [9, 30, 200])
def test_evenness_by_hand_where_the_classes_are_plain(m):
    found = fold_evenness(*separated(m, seed=m), list(WAYS.values()))
    expected = [entropy(np.bincount(CLASS, shares)) / np.log(3) for shares in WAYS.values()]
    np.testing.assert_allclose(found, np.tile(expected, (5, 1)), atol=1e-12)
    assert expected[2] == pytest.approx(1)


def test_there_are_as_many_folds_as_labels_at_most():
    x, _, centroids = separated(3, seed=0)
    for m in (2, 3):
        assert fold_evenness(x[:m], np.arange(m), centroids, list(WAYS.values())).shape == (m, 3)


@pytest.mark.parametrize("default", [0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_prefers_the_way_that_is_even_by_class(default, seed):
    assert choose(fold_evenness(*separated(60, seed), list(WAYS.values())), default) == 2


def test_a_class_that_no_cluster_is_of_counts_as_empty():
    x, y, centroids = separated(90, seed=0)
    others = CLASS < 2
    found = fold_evenness(x, y, centroids[others], [BY_CLASS[others]])
    np.testing.assert_allclose(found, np.full((5, 1), np.log(2) / np.log(3)))


def test_only_the_shares_and_not_their_scale_count():
    x, y, centroids = separated(60, seed=1)
    found = fold_evenness(x, y, centroids, [ITEMS, 1000 * ITEMS])
    np.testing.assert_allclose(found[:, 0], found[:, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("found", "default", "chosen"),
    [
        ([[0.5, 0.9], [0.6, 0.8]], 0, 1),  # ahead by 0.3 +- 0.1
        ([[0.5, 0.9], [0.8, 0.7]], 0, 0),  # ahead by 0.15 +- 0.25
        ([[0.5, 0.9], [0.8, 0.7]], 1, 1),
        ([[0.5, 0.5], [0.5, 0.5]], 1, 1),  # the same: the default
        ([[0.4, 0.5, 0.7], [0.4, 0.5, 0.7]], 1, 2),
        ([[0.7, 0.5, 0.6], [0.7, 0.5, 0.6]], 1, 0),
    ],
)
def test_choose_by_hand(found, default, chosen):
    assert choose(np.array(found), default) == chosen


def test_random_labels_seldom_move_it():
    stayed, gains = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        centroids, x = (rng.normal(size=(n, 8)).astype(np.float32) for n in (150, 200))
        items = np.ceil(rng.lognormal(4, 0.5, 150))
        y = rng.permutation(np.arange(200) % 4)
        found = fold_evenness(x, y, centroids, [items**t for t in (0.0, 0.25, 0.5, 1.0)])
        chosen = choose(found, 1)
        stayed.append(chosen == 1)
        gains.append(found[:, chosen].mean() - found[:, 1].mean())
    assert np.mean(stayed) > 0.7
    assert 0 <= np.mean(gains) < 0.01  # and where it moves, little depends on it
