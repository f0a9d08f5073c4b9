"""Figures of a set of picks: how even it is, how well it covers, and what can be learned from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import faiss
import numpy as np
from numpy.typing import NDArray

from .nearest import ranks_of

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def evenness(counts: NDArray[np.int64]) -> float:
    """Entropy of the shares of classes, over its maximum: 1 is even, 0 all in one; of fewer than two classes 1.

    Args:
        counts: Picks of each class, shape (c,); those without picks count as classes too.
    """
    return evenness_of_shares(counts.astype(np.float64))


def evenness_of_shares(shares: NDArray[np.float64]) -> float:
    """The same of shares that need not be whole."""
    if len(shares) < 2 or not shares.sum():
        return 1.0 if shares.sum() else 0.0
    parts = shares[shares > 0] / shares.sum()
    return float(abs((parts * np.log(parts)).sum()) / np.log(len(shares)))


def even_counts(sizes: NDArray[np.int64], target: int) -> NDArray[np.int64]:
    """As even a share of a target as the sizes allow, shape (c,): what one who knows the classes would take."""
    order = np.argsort(sizes, kind="stable")
    counts = np.zeros(len(sizes), dtype=np.int64)
    left = min(target, int(sizes.sum()))
    for place, label in enumerate(order):
        counts[label] = min(int(sizes[label]), left // (len(sizes) - place))
        left -= int(counts[label])
    return counts


def rank_in_class(y: Labels) -> NDArray[np.int64]:
    """How many rows of the same class stand before each, shape (n,)."""
    order = np.argsort(y, kind="stable")
    ranks = np.empty(len(y), dtype=np.int64)
    ranks[order] = ranks_of(y[order])
    return ranks


def fit_probe(x: Floats, y: Labels) -> Callable[[Floats], Labels]:
    """Logistic regression (L2, C = 1, on standardised coordinates): gives what finds the classes of vectors.

    Args:
        x: Vectors to learn from, shape (n, d).
        y: Their classes, shape (n,); of one class it finds that one.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(y)) < 2:
        return lambda asked: np.full(len(asked), y[0] if len(y) else -1)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    with warnings.catch_warnings():  # a probe that stops early is still the same probe for all sets
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes is greater than")  # few labels of many classes
        model.fit(x, y)
    predict: Callable[[Floats], Labels] = model.predict
    return predict


def linear_probe(x: Floats, y: Labels, x_test: Floats, y_test: Labels) -> float:
    """Balanced accuracy of a linear probe.

    Args:
        x: Picks, shape (n, d).
        y: Their classes, shape (n,).
        x_test: Held-out items, shape (m, d).
        y_test: Their classes, shape (m,).
    """
    return balanced_accuracy(y_test, fit_probe(x, y)(x_test))


def knn_probe(x: Floats, y: Labels, x_test: Floats, y_test: Labels, k: int = 5) -> float:
    """Balanced accuracy of the class that most of the k nearest picks have, of several the lowest."""
    if not len(x):
        return 0.0
    _, near = nearest(x_test, x, min(k, len(x)))
    votes = np.zeros((len(x_test), int(y.max()) + 1), dtype=np.int64)
    np.add.at(votes, (np.arange(len(x_test))[:, None], y[near]), 1)
    return balanced_accuracy(y_test, votes.argmax(axis=1))


def balanced_accuracy(truth: Labels, found: Labels) -> float:
    """Mean over the classes of the share that was found."""
    classes, index = np.unique(truth, return_inverse=True)
    right = np.bincount(index, weights=truth == found, minlength=len(classes))
    return float((right / np.bincount(index)).mean())


def nearest(x: Floats, reference: Floats, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances to the k nearest of a reference, and which they are; both of shape (n, k), nearest first."""
    centre = reference.mean(axis=0)  # far from the origin float32 would lose the differences
    squared, rows = faiss.knn(x - centre, reference - centre, k)
    return np.sqrt(np.maximum(squared, 0.0, dtype=np.float64)), rows


def other_neighbour(x: Floats) -> NDArray[np.float64]:
    """Distance of each of n >= 2 rows to the nearest other row, shape (n,)."""
    return nearest(x, x, 2)[0][:, 1]


def near_duplicates(x: Floats, similarity: float) -> float:
    """Share of rows with another row of at least this cosine similarity."""
    return float((other_neighbour(unit_length(x)) ** 2 <= 2 - 2 * similarity).mean())


def unit_length(x: Floats) -> Floats:
    """Rows scaled to unit length; rows of zeros stay."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit: Floats = (x / np.where(norms > 0, norms, 1.0)).astype(np.float32)
    return unit


def coverage_radius(lake: Floats, picks: Floats, share: float) -> float:
    """Distance within which this share of the lake's items has a pick."""
    return float(np.quantile(nearest(lake, picks, 1)[0][:, 0], share))
