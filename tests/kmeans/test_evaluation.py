"""What the evaluation says of sets that are known to help, to harm, or to be random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import entropy
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lakestrata.kmeans.evaluation import (
    Figure,
    Sets,
    class_figures,
    probe_figures,
    shape_figures,
    verdict,
    with_labels,
)
from lakestrata.kmeans.metrics import even_counts, evenness

TAIL = np.array([1400, 300, 100, 40, 20, 12, 8, 6, 5, 5])
MIDDLES = np.random.default_rng(0).normal(0, 10, (10, 8))


def blobs(y, seed):
    return (MIDDLES[y] + np.random.default_rng(seed).normal(0, 1, (len(y), 8))).astype(np.float32)


def long_tailed(wanted, seed=0):
    """Well separated classes of a long-tailed lake, and a curated set of the first so many items of each."""
    y = np.repeat(np.arange(10), TAIL)
    copies = np.concatenate([np.arange(size) < want for size, want in zip(TAIL, wanted, strict=True)]).astype(np.int64)
    return Sets(blobs(y, seed), y, copies, np.ones(len(y), dtype=bool))


def even_set(seed=0):
    return long_tailed(even_counts(TAIL, 100), seed)


def heaviest_set(seed=0):
    return long_tailed([100] + [0] * 9, seed)


def rng(seed=0):
    return np.random.default_rng(seed)


def by_name(figures):
    return {figure.name: figure for figure in figures}


def test_gain_and_outcome_by_hand():
    figure = Figure("f", 0.9, (0.4, 0.6), oracle=1.0)
    assert figure.mean == 0.5
    assert figure.sd == pytest.approx(np.sqrt(0.02))
    assert figure.gain == pytest.approx(0.8)
    assert figure.outcome == "better"  # ahead by 0.4, and two deviations are 0.28
    assert Figure("f", 0.75, (0.4, 0.6)).outcome == "as random"
    assert Figure("f", 0.1, (0.4, 0.6)).outcome == "worse"
    assert Figure("f", 0.1, (0.4, 0.6), oracle=1.0).gain == pytest.approx(-0.8)


def test_figures_where_less_is_better_or_nothing_is():
    less = Figure("f", 2.0, (4.0, 4.1), oracle=1.0, better=-1)
    assert less.outcome == "better"
    assert less.gain == pytest.approx(2.05 / 3.05)
    assert Figure("f", 9.0, (4.0, 4.1), better=-1).outcome == "worse"
    assert Figure("f", 9.0, (4.0, 4.1), better=0).outcome == "as random"
    assert Figure("f", 9.0, (4.0, 4.1), oracle=12.0, better=0).gain is None


def test_no_gain_where_there_is_no_way_to_go():
    assert Figure("f", 0.9, (0.4, 0.6)).gain is None
    assert Figure("f", 1.0, (1.0, 1.0), oracle=1.0).gain is None
    assert Figure("f", 0.9, (0.8, 0.8), oracle=0.7).gain is None
    assert Figure("f", 0.9, (0.1, 0.1), oracle=0.05, better=-1).gain == pytest.approx(-16)


def test_one_random_set_has_no_deviation():
    assert Figure("f", 0.5, (0.5,)).sd == 0
    assert Figure("f", 0.5 + 1e-12, (0.5,)).outcome == "as random"
    assert Figure("f", 0.51, (0.5,)).outcome == "better"


def test_class_figures_are_those_of_drawn_sets():
    lake, curated = np.array([500, 80, 15, 4, 1]), np.array([20, 20, 10, 0, 0])
    shares, covered = class_figures(lake, curated, 400, rng())
    items = np.repeat(np.arange(5), lake)
    draws = [np.bincount(rng(seed).permutation(items)[:50], minlength=5) for seed in range(400)]
    for figure, of in ((shares, lambda c: entropy(c) / np.log(5)), (covered, lambda c: (c > 0).sum())):
        drawn = np.array([of(counts) for counts in draws])
        assert len(figure.random) == 400
        assert abs(figure.mean - drawn.mean()) < 5 * np.sqrt(2 / 400) * drawn.std()
        assert figure.sd == pytest.approx(drawn.std(), rel=0.2)
        assert figure.curated == pytest.approx(of(curated))
    assert shares.oracle == pytest.approx(entropy([15, 15, 15, 4, 1]) / np.log(5))
    assert (covered.curated, covered.oracle) == (3, 5)
    assert shares.outcome == "better"


def test_class_figures_of_repeats_and_of_very_many_items():
    shares, covered = class_figures(np.array([6, 2]), np.array([40, 40]), 5, rng())
    assert shares.random == (evenness(np.array([6, 2])),) * 5  # no more than there is
    assert shares.curated == pytest.approx(1)
    assert covered.outcome == "as random"
    shares, _ = class_figures(np.array([3 * 10**10, 10**10]), np.array([5000, 5000]), 20, rng())
    assert shares.mean == pytest.approx(entropy([3, 1]) / np.log(2), abs=0.01)
    assert 0 < shares.sd < 0.02


@st.composite
def many_sets(draw):
    classes = draw(st.lists(st.integers(0, 160), min_size=1, max_size=5).filter(any))
    unknown = draw(st.integers(0, 5))
    generator = rng(draw(st.integers(0, 2**32)))
    y = generator.permutation(np.repeat(np.arange(-1, len(classes)), [unknown, *classes]))
    copies = generator.integers(0, 3, len(y)) * (generator.random(len(y)) < 0.3)
    x = np.arange(len(y), dtype=np.float32)[:, None]
    return Sets(x, y, copies.astype(np.int64), generator.random(len(y)) < 0.8)


@settings(max_examples=150, deadline=None)
@given(sets=many_sets(), seed=st.integers(0, 2**32))
def test_sets_are_made_as_they_say(sets, seed):
    k = int(sets.y.max()) + 1
    sizes = np.bincount(sets.y[sets.y >= 0], minlength=k)
    np.testing.assert_array_equal(np.bincount(sets.curated(), minlength=len(sets.y)), sets.copies)
    random = sets.random(rng(seed))
    assert len(set(random.tolist())) == len(random) == min(sets.size, sets.lake.sum())
    assert sets.lake[random].all()
    even = sets.even(rng(seed))
    assert len(set(even.tolist())) == len(even)
    np.testing.assert_array_equal(np.bincount(sets.y[even], minlength=k), even_counts(sizes, sets.size))
    out = sets.held_out(rng(seed))
    assert len(set(out.tolist())) == len(out)
    tested = np.bincount(sets.y[out], minlength=k)
    assert np.all(tested <= 25)
    assert np.all(tested <= np.maximum(sizes / 5, 1))
    assert np.all((tested >= 1) == (sizes >= 2))
    assert np.all(tested[sizes >= 125] == 25)
    lake, curated = sets.counts()
    for label in range(k):
        assert lake[label] == np.sum(sets.lake & (sets.y == label))
        assert curated[label] == sets.copies[sets.y == label].sum()


def test_random_and_even_sets_and_tests_differ_from_draw_to_draw():
    sets = even_set()
    for draw in (sets.random, sets.even, sets.held_out):
        np.testing.assert_array_equal(np.sort(draw(rng(1))), np.sort(draw(rng(1))))
        assert set(draw(rng(1)).tolist()) != set(draw(rng(2)).tolist())
    often = np.mean([np.isin(np.arange(len(sets.y)), sets.random(rng(seed))) for seed in range(300)], axis=0)
    p = sets.size / len(sets.y)
    assert np.abs(often - p).max() < 5 * np.sqrt(p / 300)  # each item alike


def test_probes_find_what_is_known_to_help():
    for figure in probe_figures(even_set(), 6, rng()):
        assert figure.outcome == "better"
        assert figure.curated > 0.95
        assert figure.oracle > 0.95
        assert figure.gain > 0.8
        assert len(figure.random) == 6


def test_probes_find_what_is_known_to_harm():
    for figure in probe_figures(heaviest_set(), 6, rng()):
        assert figure.outcome == "worse"
        assert figure.curated == pytest.approx(1 / 10)
        assert figure.gain < -0.2


def test_what_is_tested_was_not_learned():
    # Classes at random: a set of all items five times tells the class of any item that is in it, and of no other.
    x = rng().normal(size=(600, 4)).astype(np.float32)
    sets = Sets(x, rng(1).integers(0, 2, 600), np.full(600, 5), np.ones(600, dtype=bool))
    neighbours = by_name(probe_figures(sets, 3, rng()))["nearest neighbours"]
    assert neighbours.curated < 0.75
    assert max(neighbours.random) < 0.75
    # With a test set of one's own nothing is held out.
    neighbours = by_name(probe_figures(sets, 3, rng(), (x, sets.y)))["nearest neighbours"]
    assert neighbours.curated == 1


def test_items_without_a_class_teach_nothing():
    sets = even_set()
    y = np.where(sets.copies > 0, -1, sets.y)
    for figure in probe_figures(Sets(sets.x, y, sets.copies, sets.lake), 2, rng()):
        assert figure.curated == 0
        assert figure.oracle > 0.8


def test_classes_of_one_item_each_leave_nothing_to_probe():
    y = np.arange(30)
    sets = Sets(rng().normal(size=(30, 4)).astype(np.float32), y, (y < 9).astype(np.int64), np.ones(30, dtype=bool))
    assert len(sets.held_out(rng())) == 0
    assert probe_figures(sets, 2, rng()) == []


def test_shape_figures_are_what_they_say():
    sets = even_set()
    figures = shape_figures(sets, 1, rng(), seed=3)
    assert [figure.better for figure in figures] == [1, 0, -1, -1, -1]
    assert {figure.oracle for figure in figures} == {None}
    x = sets.x[sets.copies > 0].astype(float)
    lake, pairs = cdist(sets.x, sets.x), cdist(x, x)
    np.fill_diagonal(pairs, np.inf)
    apart, radius, near, outliers = (figure.curated for figure in figures[1:])
    assert apart == pytest.approx(pairs.min(axis=1).mean(), rel=1e-4)
    assert radius == pytest.approx(np.quantile(cdist(sets.x, x).min(axis=1), 0.99), rel=1e-4)
    cosine = 1 - cdist(x, x, "cosine")
    np.fill_diagonal(cosine, -1)
    assert near == pytest.approx((cosine.max(axis=1) >= 0.95).mean())
    tenth = np.sort(lake, axis=1)[:, 10]
    assert outliers == pytest.approx((tenth > np.quantile(tenth, 0.99))[sets.copies > 0].mean())


@pytest.mark.parametrize(("size", "expected"), [(1, 1.0), (10, 1.0), (11, 0.0)])
def test_outliers_have_a_far_tenth_neighbour(size, expected):
    far = np.arange(2000) < size
    x = (rng().normal(0, np.where(far, 0.01, 1)[:, None], (2000, 3)) + 50 * far[:, None]).astype(np.float32)
    sets = Sets(x, np.full(2000, -1), np.where(far, 2, 0), np.ones(2000, dtype=bool))
    figure = by_name(shape_figures(sets, 2, rng(), seed=0))["outliers (the lake has 1%)"]
    assert figure.curated == expected


def test_shape_figures_find_what_helps_and_what_harms():
    # A heap of 1,400 items that are almost the same, and 500 far from each other.
    heap = np.arange(1900) < 1400
    x = rng().normal(0, np.where(heap, 0.01, 10.0)[:, None], (1900, 8)) + 20 * heap[:, None]
    for picks, outcome in ((np.r_[:5, 1400:1495], "better"), (np.r_[:100], "worse")):
        copies = np.isin(np.arange(1900), picks).astype(np.int64)
        sets = Sets(x.astype(np.float32), np.full(1900, -1), copies, np.ones(1900, dtype=bool))
        figures = shape_figures(sets, 6, rng(), seed=3)
        assert [figures[i].outcome for i in (0, 2, 3)] == [outcome] * 3
        assert (figures[1].curated > figures[1].mean) == (outcome == "better")
        told = "Curation helped: evenness" if outcome == "better" else "Curation harmed: evenness"
        assert verdict(figures).startswith(told)


def test_shape_figures_of_the_lake_itself_and_of_copies():
    sets = long_tailed(TAIL)
    whole = by_name(shape_figures(sets, 2, rng(), seed=0))
    assert all(figure.outcome == "as random" for figure in whole.values())
    assert whole["coverage radius (99% of the lake)"].curated == 0
    assert whole["outliers (the lake has 1%)"].curated == pytest.approx(0.01, abs=1 / len(sets.y))
    twice = Sets(sets.x, sets.y, 2 * even_set().copies, sets.lake)
    figures = by_name(shape_figures(twice, 6, rng(), seed=0))
    assert figures["near-duplicates (cosine 0.95 and more)"].curated == 1
    assert figures["distance to the nearest other pick"].curated < 1e-3


def test_shape_figures_need_no_classes():
    sets = even_set()
    unknown = Sets(sets.x, np.full(len(sets.y), -1), sets.copies, sets.lake)
    assert shape_figures(unknown, 2, rng(), seed=0) == shape_figures(sets, 2, rng(), seed=0)


def a_figure(name, curated, oracle=None):
    return Figure(name, curated, (0.5, 0.5), oracle)


@pytest.mark.parametrize(
    ("classes", "probe", "expected"),
    [
        (0.9, 0.5, "Curation helped: "),
        (0.9, 0.7, "Curation helped: "),
        (0.5, 0.5, "Curation made no clear difference: "),
        (0.5, 0.3, "Curation harmed: "),
        (0.3, 0.2, "Curation harmed: "),
        (0.9, 0.2, "Curation helped one figure and harmed another: "),
    ],
)
def test_verdicts_by_classes(classes, probe, expected):
    figures = [
        a_figure("entropy of classes", classes, 1.0),
        a_figure("classes covered", 0.0),
        a_figure("linear probe", probe),
        a_figure("evenness of a reference clustering", 0.0),
    ]
    told = (
        f"entropy of classes {classes:.3f}, random sets 0.500 ± 0.000, {2 * classes - 1:+.0%} of the way to an even "
        f"set, linear probe {probe:.3f}, random sets 0.500 ± 0.000."
    )
    assert verdict(figures) == expected + told


def test_verdicts_without_classes_go_by_the_reference():
    name = "evenness of a reference clustering"
    other = a_figure("coverage radius (99% of the lake)", 9.0)
    told = {value: verdict([a_figure(name, value), other]) for value in (0.7, 0.5, 0.3)}
    assert told[0.7] == f"Curation helped: {name} 0.700, random sets 0.500 ± 0.000."
    assert told[0.5].startswith("Curation made no clear difference: ")
    assert told[0.3].startswith("Curation harmed: ")


def test_verdicts_of_sets_that_are_known():
    def told(sets):
        return verdict([*class_figures(*sets.counts(), 6, rng()), *probe_figures(sets, 6, rng())])

    assert told(even_set()).startswith("Curation helped: entropy of classes ")
    assert told(heaviest_set()).startswith("Curation harmed: entropy of classes 0.000, ")


def test_with_labels_gives_classes_by_a_probe_on_half_of_the_table():
    sets = even_set()
    y = rng(5).permutation(np.repeat(np.arange(10), [7, 2, 9, 20, 4, 5, 6, 1, 8, 10]))
    x = (blobs(y, 6) + rng(7).normal(0, 9, (len(y), 8))).astype(np.float32)
    found, (x_test, y_test), accuracy = with_labels(sets, x, y)
    tests = (cdist(x, x_test) == 0).any(axis=1)
    np.testing.assert_array_equal(np.bincount(y_test, minlength=10), np.bincount(y) // 2)
    assert tests.sum() == len(x_test)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(x[~tests], y[~tests])
    np.testing.assert_array_equal(found.y, model.predict(sets.x))
    assert accuracy == pytest.approx(balanced_accuracy_score(y_test, model.predict(x_test)))
    assert 0.2 < accuracy < 0.95
    for name in ("x", "copies", "lake"):
        np.testing.assert_array_equal(getattr(found, name), getattr(sets, name))


def test_what_teaches_is_not_tested():
    # Of random classes in many dimensions a probe learns every item by heart, and nothing else.
    x, y = rng().normal(size=(200, 300)).astype(np.float32), rng(1).permutation(np.arange(200) % 2)
    _, _, accuracy = with_labels(Sets(x[:1], y[:1], y[:1], y[:1] > 0), x, y)
    assert abs(accuracy - 0.5) < 5 * np.sqrt(0.25 / 100)


def test_sets_judged_by_a_table_of_labels():
    y = np.repeat(np.arange(10), 8)
    for sets, outcome in ((even_set(), "better"), (heaviest_set(), "worse")):
        found, test, accuracy = with_labels(sets, blobs(y, 9), y)
        assert accuracy > 0.95
        assert np.mean(found.y == sets.y) > 0.95
        figures = [*class_figures(*found.counts(), 6, rng()), *probe_figures(found, 6, rng(), test)]
        assert {figure.outcome for figure in figures} == {outcome}
