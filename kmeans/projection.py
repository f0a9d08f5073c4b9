"""Centroids along the directions in which items differ most, found in whole numbers.

The centroid of few items lies off its concept by chance, in all directions alike. Few directions hold most of the
variance, and what lies along them is mostly not chance: distances there tell better what is near what.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .grid import bits_for, to_bits
from .hashing import mix64
from .leverage import Directions

DIRECTIONS = 96
_ROUNDS = 8  # of power iteration
_ROUNDING = 2.0**-13  # the length of a vector, beside the longest, that may be all rounding
_BITS, _COVARIANCE_BITS = 20, 26  # of vectors of length one, of a covariance of trace one: float64 sums them exactly

Matrix = NDArray[np.float64]


def projected(centroids: NDArray[np.float32], items: NDArray[np.int64]) -> NDArray[np.float32]:
    """Project centroids on the first principal directions of the items, each taken to lie at its cluster's centroid.

    Args:
        centroids: In grid steps, float32, shape (k, d).
        items: Of each cluster, shape (k,), not all 0.

    Returns:
        Whole numbers for exact arithmetic, float32, shape (k, DIRECTIONS); the centroids where d is no more. The same
        bits everywhere.
    """
    if centroids.shape[1] <= DIRECTIONS:
        return centroids
    directions = Directions(centroids, items)
    basis = _principal(directions.covariance)
    along = np.concatenate([part @ basis for part in directions.centred()])
    largest = np.frexp(np.abs(along).max() or 1.0)[1]
    found: NDArray[np.float32] = np.rint(np.ldexp(along, bits_for(DIRECTIONS) - largest)).astype(np.float32)
    return found


def _principal(covariance: Matrix) -> Matrix:
    """The first eigenvectors, nearly, shape (d, DIRECTIONS).

    By randomized subspace iteration (Halko, Martinsson & Tropp 2011, arXiv 0909.4061), which starts anywhere.
    """
    d = len(covariance)
    signs = mix64(np.arange(d * DIRECTIONS, dtype=np.uint64), 0).reshape(d, DIRECTIONS) & np.uint64(1)
    basis = _orthonormal(2 * signs.astype(np.float64) - 1)
    covariance = to_bits(covariance, _COVARIANCE_BITS)
    for _ in range(_ROUNDS):
        basis = _orthonormal(covariance @ basis)
    return basis


def _orthonormal(vectors: Matrix) -> Matrix:
    """Modified Gram-Schmidt, shape (d, n); what only rounding tells from those before it becomes zero."""
    vectors = to_bits(vectors / (np.abs(vectors).max() or 1.0), _BITS)
    for column in range(vectors.shape[1]):
        one = vectors[:, column]
        length = float(np.sqrt(one @ one))
        one = vectors[:, column] = to_bits(one / length, _BITS) if length > _ROUNDING else np.zeros(len(one))
        rest = vectors[:, column + 1 :]
        rest[:] = to_bits(rest - np.outer(one, to_bits(one @ rest, _BITS)), _BITS)
    return vectors
