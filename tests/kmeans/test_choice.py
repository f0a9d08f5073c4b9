"""The choice among ways to share a sample: by labels where they tell, else the default."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from lakestrata.kmeans.choice import choose, cross_evenness, ways_by_classes
from lakestrata.kmeans.grid import Grid

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


def made(*ways):
    """Ways that are the same whatever the labels."""
    return lambda x, y: list(ways)


@pytest.mark.parametrize("m", [18, 30, 200])
def test_evenness_by_hand_where_the_classes_are_plain(m):
    found = cross_evenness(*separated(m, seed=m), made(*WAYS.values()))
    expected = [entropy(np.bincount(CLASS, shares)) / np.log(3) for shares in WAYS.values()]
    np.testing.assert_allclose(found, np.tile(expected, (10, 1)), atol=1e-12)
    assert expected[2] == pytest.approx(1)


@pytest.mark.parametrize("sizes", [(1, 2), (7, 4, 1), (30, 30)])
def test_one_half_of_every_class_makes_the_ways_and_the_other_judges(sizes):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = np.column_stack([np.arange(len(y)), 9 * y]).astype(np.float32)
    seen = []

    def shares_of(mine, classes):
        assert np.array_equal(classes, y[mine[:, 0].astype(int)])
        seen.append(set(mine[:, 0].astype(int)))
        return [np.ones(3)]

    cross_evenness(x, y, np.ones((3, 2), np.float32), shares_of)
    assert len(seen) == 10
    for one, other in zip(seen[::2], seen[1::2], strict=True):
        assert one | other == set(range(len(y))) and not one & other
        counts = np.bincount(y[sorted(one)], minlength=len(sizes)), np.bincount(y[sorted(other)], minlength=len(sizes))
        assert np.all(counts[1] - counts[0] <= 1) and np.all(counts[0] <= counts[1])
    if max(sizes) > 3:
        assert len({frozenset(one) for one in seen}) == 10  # every draw is another


@pytest.mark.parametrize("default", [0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_prefers_the_way_that_is_even_by_class(default, seed):
    assert choose(cross_evenness(*separated(60, seed), made(*WAYS.values())), default) == 2


def test_a_class_that_no_cluster_is_of_counts_as_empty():
    x, y, centroids = separated(90, seed=0)
    others = CLASS < 2
    found = cross_evenness(x, y, centroids[others], made(BY_CLASS[others]))
    np.testing.assert_allclose(found, np.full((10, 1), np.log(2) / np.log(3)))


def test_only_the_shares_and_not_their_scale_count():
    x, y, centroids = separated(60, seed=1)
    found = cross_evenness(x, y, centroids, made(ITEMS, 1000 * ITEMS))
    np.testing.assert_allclose(found[:, 0], found[:, 1], atol=1e-12)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_cells_of_classes_by_hand(metric):
    # Two classes: means at (10, 1) and (1, 10). The first cell has 60 items in two clusters, the second 30 in one.
    grid = Grid.covering(20, 2, metric)
    x = grid.quantize(np.array([[9, 1], [11, 1], [1, 10]], np.float32))
    centroids = grid.quantize(np.array([[12, 2], [8, 1], [2, 9]], np.float32))
    ways = ways_by_classes(x, np.array([0, 0, 3]), centroids, np.array([40, 20, 30]), grid)
    assert list(ways) == [f"cells of classes, flattened by {f}" for f in ("1", "0.75", "0.5")]
    for flattening, weights in zip((1, 0.75, 0.5), ways.values(), strict=True):
        np.testing.assert_allclose(weights, np.array([40, 20, 30]) / np.array([60, 60, 30]) ** flattening, rtol=1e-12)


def test_cells_of_classes_do_not_depend_on_the_order_of_the_labels():
    rng = np.random.default_rng(0)
    grid = Grid.covering(100, 16, "cosine")
    x, centroids = (grid.quantize(rng.normal(size=(n, 16)).astype(np.float32)) for n in (200, 90))
    y, items = rng.integers(0, 7, 200), rng.integers(0, 50, 90)
    order = rng.permutation(200)
    first, again = (
        ways_by_classes(x, y, centroids, items, grid),
        ways_by_classes(x[order], y[order], centroids, items, grid),
    )
    assert all(first[way].tobytes() == again[way].tobytes() for way in first)
    assert all(np.array_equal(weights > 0, items > 0) for weights in first.values())


def test_labels_that_tell_choose_the_cells_of_their_classes():
    """Ten labels a class, classes that touch: the cells are ahead of the items' shares, and of an even split."""
    rng = np.random.default_rng(2)
    grid = Grid.covering(10, 8)
    middles = np.eye(4, 8) * 4
    of = np.repeat(np.arange(4), [200, 60, 25, 15])
    y = np.repeat(np.arange(4), 10)
    x, centroids = (grid.quantize((middles[c] + rng.normal(size=(len(c), 8))).astype(np.float32)) for c in (y, of))
    items = np.full(300, 5)

    def shares_of(mine, classes):
        return [items.astype(float), *ways_by_classes(mine, classes, centroids, items, grid).values()]

    found = cross_evenness(x, y, centroids, shares_of)
    chosen = choose(found, 0)
    assert chosen == 1
    shares = np.bincount(of, weights=shares_of(x, y)[chosen])
    assert entropy(shares) / np.log(4) > 0.97 > 0.75 > entropy(np.bincount(of)) / np.log(4)


@pytest.mark.parametrize(
    ("found", "default", "chosen"),
    [
        ([[0.5, 0.9], [0.6, 0.8]], 0, 1),  # ahead by 0.3 +- 0.1
        ([[0.5, 0.9], [0.8, 0.7]], 0, 1),  # ahead by 0.15 +- 0.25
        ([[0.5, 0.9], [0.8, 0.6]], 0, 0),  # ahead by 0.1 +- 0.3
        ([[0.5, 0.9], [0.8, 0.6]], 1, 1),
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
        found = cross_evenness(x, y, centroids, made(*[items**t for t in (0.0, 0.25, 0.5, 1.0)]))
        chosen = choose(found, 1)
        stayed.append(chosen == 1)
        gains.append(found[:, chosen].mean() - found[:, 1].mean())
    assert np.mean(stayed) > 0.7
    assert 0 <= np.mean(gains) < 0.01  # and where it moves, little depends on it
