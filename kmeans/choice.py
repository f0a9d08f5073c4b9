"""The choice among ways to share a sample, by a small labelled table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .metrics import Floats, Labels, evenness_of_shares, fit_probe

_FOLDS = 5


def fold_evenness(
    x: Floats, y: Labels, centroids: Floats, shares: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """How even over the classes each way to share a sample would be, as probes on parts of the labels see it.

    A linear probe, trained without one fold of the labels, tells the class of every cluster; the entropy is that of
    the shares of the classes then. What the folds differ by says how far to trust it.

    Args:
        x: Labelled vectors, shape (m, d), in the units of the centroids.
        y: Their classes 0..c-1, shape (m,).
        centroids: Of the clusters, shape (k, d).
        shares: What each way takes from each cluster, each of shape (k,).

    Returns:
        Shape (folds, ways).
    """
    n_classes = int(y.max()) + 1
    folds = np.arange(len(y)) % min(_FOLDS, len(y))
    found = []
    for fold in np.unique(folds):
        classes = fit_probe(x[folds != fold], y[folds != fold])(centroids)
        found.append(
            [
                evenness_of_shares(np.bincount(classes, weights=s, minlength=n_classes).astype(np.float64))
                for s in shares
            ]
        )
    return np.array(found)


def choose(found: NDArray[np.float64], default: int) -> int:
    """The most even way; the default, unless it is beaten by two standard errors, of the jackknife over the folds.

    Args:
        found: As from `fold_evenness`, shape (folds, ways).
        default: The way to take where labels do not tell.
    """
    best = int(found.mean(axis=0).argmax())
    ahead = found[:, best] - found[:, default]
    return best if ahead.mean() > 2 * np.sqrt(len(found) - 1) * ahead.std() else default
