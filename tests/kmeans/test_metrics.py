"""Figures of picks against scikit-learn, SciPy and NumPy, and cases solved by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, pairwise_distances
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lakestrata.kmeans.metrics import (
    balanced_accuracy,
    coverage_radius,
    even_counts,
    evenness,
    evenness_of_shares,
    fit_probe,
    knn_probe,
    linear_probe,
    near_duplicates,
    nearest,
    other_neighbour,
)


def mixture(n, n_classes, seed, d=6, apart=2.0):
    """Overlapping blobs: a probe is neither always right nor a guess."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    middles = np.random.default_rng(99).normal(0, apart, (n_classes, d))
    return (middles[y] + rng.normal(0, 1.5, (n, d))).astype(np.float32), y


def vectors(n, seed, d=5):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=30).filter(any))
def test_evenness_is_the_entropy_over_that_of_even_shares(counts):
    found = evenness(np.array(counts))
    assert found == pytest.approx(entropy(counts) / np.log(len(counts)), abs=1e-12)
    assert evenness_of_shares(np.array(counts) / 7) == pytest.approx(found, abs=1e-12)


def test_evenness_by_hand():
    assert evenness(np.array([5, 5, 5])) == pytest.approx(1)
    assert str(evenness(np.array([5, 0, 0]))) == "0.0"  # and not -0.0
    assert evenness(np.array([5, 5, 0, 0])) == pytest.approx(0.5)
    assert evenness(np.array([7])) == 1
    assert evenness(np.array([0, 0, 0])) == 0
    assert evenness_of_shares(np.array([0.25, 0.25])) == pytest.approx(1)


@settings(max_examples=150, deadline=None)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4), target=st.integers(0, 22))
def test_even_counts_are_the_most_even_of_all(sizes, target):
    counts = even_counts(np.array(sizes), target)
    possible = [c for c in product(*(range(s + 1) for s in sizes)) if sum(c) == min(target, sum(sizes))]
    assert tuple(counts.tolist()) in possible
    # The fewest squares are the most even, and the smallest class is as large as it can be.
    assert (counts**2).sum() == min(sum(v * v for v in c) for c in possible)
    assert counts.min() == max(min(c) for c in possible)


def test_even_counts_by_hand():
    assert even_counts(np.array([9, 1, 9]), 11).tolist() == [5, 1, 5]
    assert sorted(even_counts(np.array([5, 5, 5]), 7).tolist()) == [2, 2, 3]
    assert even_counts(np.array([3, 0, 2]), 99).tolist() == [3, 0, 2]
    assert even_counts(np.array([4, 4]), 0).tolist() == [0, 0]


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 6)), min_size=1, max_size=50))
def test_balanced_accuracy_is_that_of_scikit_learn(pairs):
    truth, found = np.array(pairs).T
    assert balanced_accuracy(truth, found) == pytest.approx(balanced_accuracy_score(truth, found), abs=1e-12)


def test_balanced_accuracy_by_hand():
    truth = np.array([0, 0, 0, 0, 9])
    assert balanced_accuracy(truth, np.array([0, 0, 0, 1, 9])) == pytest.approx((3 / 4 + 1) / 2)
    assert balanced_accuracy(truth, np.full(5, 9)) == pytest.approx(1 / 2)
    assert balanced_accuracy(truth, np.full(5, -1)) == 0
    assert balanced_accuracy(truth, truth) == 1


@pytest.mark.parametrize("n_classes", [2, 5])
def test_linear_probe_is_standardised_logistic_regression(n_classes):
    (x, y), (x_test, y_test) = mixture(400, n_classes, 0), mixture(500, n_classes, 1)
    scaled, scaled_test = 100 * x + 3, 100 * x_test + 3
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=200)).fit(scaled, y)
    np.testing.assert_array_equal(fit_probe(scaled, y)(scaled_test), model.predict(scaled_test))
    expected = balanced_accuracy_score(y_test, model.predict(scaled_test))
    assert linear_probe(scaled, y, scaled_test, y_test) == pytest.approx(expected)
    assert 0.5 < expected < 1


@pytest.mark.parametrize("k", [1, 5, 12])
def test_knn_probe_is_that_of_scikit_learn(k):
    (x, y), (x_test, y_test) = mixture(300, 6, 2), mixture(400, 6, 3)
    model = KNeighborsClassifier(k).fit(x, y)
    expected = balanced_accuracy_score(y_test, model.predict(x_test))
    assert knn_probe(x, y, x_test, y_test, k) == pytest.approx(expected)
    assert 0.5 < expected < 1


def test_knn_probe_by_hand():
    x = np.array([[0], [1], [2], [10], [11]], dtype=np.float32)
    y = np.array([3, 3, 1, 1, 0])
    asked = np.array([[0], [11]], dtype=np.float32)
    assert knn_probe(x, y, asked, np.array([3, 0]), k=1) == 1
    assert knn_probe(x, y, asked, np.array([3, 1]), k=3) == 1
    assert knn_probe(x, y, asked, np.array([3, 0]), k=2) == 1  # near 11 are a 0 and a 1: the lowest
    assert knn_probe(x, y, asked, np.array([3, 1]), k=2) == 0.5
    assert knn_probe(x, y, asked, np.array([1, 1]), k=5) == 1  # two of 1 and of 3 among all five
    assert knn_probe(x, y, asked, np.array([1, 1]), k=99) == 1


def test_probes_of_too_little_to_learn_from():
    x_test, y_test = mixture(90, 3, 4)
    some, one, none = vectors(8, 0, 6), vectors(1, 1, 6), vectors(0, 2, 6)
    for probe in (linear_probe, knn_probe):
        assert probe(some, np.full(8, 2), x_test, y_test) == pytest.approx(1 / 3)  # one class: always that one
        assert probe(one, np.array([1]), x_test, y_test) == pytest.approx(1 / 3)
        assert probe(none, np.empty(0, dtype=int), x_test, y_test) == 0


def test_classes_that_the_picks_lack_are_not_found():
    x, y = mixture(300, 5, 5, apart=50.0)
    x_test, y_test = mixture(300, 5, 6, apart=50.0)
    for probe in (linear_probe, knn_probe):
        assert probe(x, y, x_test, y_test) == 1
        assert probe(x[y < 4], y[y < 4], x_test, y_test) == pytest.approx(4 / 5)
        assert probe(x[y > 2], y[y > 2], x_test, y_test) == pytest.approx(2 / 5)


@pytest.mark.parametrize(("n", "m", "d"), [(5, 30, 3), (200, 150, 5), (60, 50, 64)])
def test_nearest_are_those_of_all_pairs(n, m, d):
    x, reference = vectors(n, 0, d), vectors(m, 1, d)
    pairs = pairwise_distances(x.astype(float), reference.astype(float))
    distances, rows = nearest(x, reference, 4)
    np.testing.assert_array_equal(rows, np.argsort(pairs, axis=1)[:, :4])
    np.testing.assert_allclose(distances, np.sort(pairs, axis=1)[:, :4], rtol=1e-5)


def test_other_neighbour_is_another_row():
    x = vectors(120, 2)
    pairs = pairwise_distances(x.astype(float))
    np.fill_diagonal(pairs, np.inf)
    np.testing.assert_allclose(other_neighbour(x), pairs.min(axis=1), rtol=1e-5)
    line = np.array([[0], [3], [3], [7]], dtype=np.float32)
    assert other_neighbour(line).tolist() == [3, 0, 0, 4]


@pytest.mark.parametrize("similarity", [0.3, 0.7, 0.95])
def test_near_duplicates_are_those_of_the_cosine(similarity):
    x = vectors(150, 3) * np.random.default_rng(0).uniform(0.1, 50, (150, 1)).astype(np.float32)
    cosine = 1 - pairwise_distances(x.astype(float), metric="cosine")
    np.fill_diagonal(cosine, -1)
    expected = (cosine.max(axis=1) >= similarity).mean()
    assert near_duplicates(x, similarity) == pytest.approx(expected, abs=1e-12)
    assert expected > 0


def test_near_duplicates_by_hand():
    x = np.array([[1, 0], [5, 0], [0, 1], [-1, 0]], dtype=np.float32)
    assert near_duplicates(x, 0.95) == 0.5  # the first two; the opposite one is none
    assert near_duplicates(np.repeat(x, 2, axis=0), 0.95) == 1
    zero = np.array([[0, 0], [1, 0], [0, 1]], dtype=np.float32)
    assert near_duplicates(zero, 0.95) == 0  # no direction is like no other
    assert near_duplicates(x[:1], 0.95) == 0


@pytest.mark.parametrize("share", [0.5, 0.99, 1.0])
def test_coverage_radius_is_a_quantile_of_distances_to_the_picks(share):
    lake, picks = vectors(300, 4), vectors(20, 5)
    expected = np.quantile(pairwise_distances(lake.astype(float), picks.astype(float)).min(axis=1), share)
    assert coverage_radius(lake, picks, share) == pytest.approx(expected, rel=1e-5)


def test_coverage_radius_by_hand():
    lake = np.arange(11, dtype=np.float32)[:, None]
    assert coverage_radius(lake, lake, 1.0) == 0
    assert coverage_radius(lake, lake[:1], 1.0) == 10
    assert coverage_radius(lake, lake[:1], 0.5) == 5
    assert coverage_radius(lake, lake[[0, 10]], 1.0) == 5
