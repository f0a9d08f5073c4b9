"""Leverage: how far a cluster lies along directions that few items share.

Common concepts fill their directions, a rare one is alone in its own. So a vector's length tells how rare it is if each
direction is measured by what lies along it. Density takes compact concepts for common ones; this does not, for it asks
for directions and not for distances. (As in regression; with a ridge: Alaoui & Mahoney 2015, arXiv 1411.0306.)

It takes concepts that have directions of their own. Where a lake spreads over many, what is far out is mostly noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .grid import to_bits

_RIDGE = 32  # one part of the variance in so many: directions that hold less hardly count
_STEPS = 9  # of Newton: the error begins at .94, and each squares it
_FARTHEST = 4  # times the mean: what is farther out is no rarer, it is an outlier
_COORDINATE_BITS, _WEIGHT_BITS, _BITS = 11, 26, 22  # of matrices; so few that float64 holds every sum in whole numbers
_BLOCK_BYTES = 1 << 25  # of coordinates at a time

Matrix = NDArray[np.float64]


class Directions:
    """What directions the items of a lake lie along: their covariance, each taken to lie at its cluster's centroid.

    The same bits everywhere: sums are of whole numbers.

    Attributes:
        covariance: Over its trace, shape (d, d); of all zeros where all items lie at one place.
        dimensions: That the lake spreads over: the squared sum of the eigenvalues of the covariance over the sum of
            their squares; 1 where all items lie at one place.
    """

    def __init__(self, centroids: NDArray[np.float32], items: NDArray[np.int64]) -> None:
        """Take the covariance.

        Args:
            centroids: In grid steps, float32, shape (k, d), d at most 8,192.
            items: Of each cluster, shape (k,), not all 0.
        """
        self._weights = whole_weights(items, _WEIGHT_BITS)
        self._centred = _Centred(centroids, self._weights)
        self.covariance = self._centred.covariance(self._weights)
        self._variance = math.fsum(self.covariance.diagonal()) or 1.0  # without any, the covariance is all zeros
        self.covariance /= self._variance
        self.dimensions = 1 / (math.fsum((self.covariance**2).ravel()) or 1.0)

    def centred(self) -> Iterator[Matrix]:
        """The centroids less their mean over the items, a few at a time: whole numbers of some bits."""
        return (part for _, part in self._centred.parts())

    def leverage(self) -> NDArray[np.float64]:
        """One, and the squared length of each centroid as the covariance, with a ridge, measures it.

        It takes some d^3 operations.

        Returns:
            At most four times the mean over the items; the centre of all has 1; float64, shape (k,).
        """
        inverse = np.ldexp(_inverse(self.covariance + np.eye(len(self.covariance)) / _RIDGE), _BITS)
        lengths = np.concatenate([_lengths(part, inverse) for part in self.centred()])
        total = self._weights.sum()
        squared = 1 + lengths * (total / self._variance)
        capped: Matrix = np.minimum(squared, _FARTHEST * math.fsum(squared * self._weights) / total)
        return capped


class _Centred:
    """Coordinates less their means, whole numbers of few bits, in blocks of float64 that are never all there."""

    def __init__(self, centroids: NDArray[np.float32], weights: Matrix) -> None:
        self.centroids, self.rows = centroids, max(1, _BLOCK_BYTES // (8 * centroids.shape[1]))
        self.shift = _COORDINATE_BITS - np.frexp(np.abs(centroids).max())[1]
        self.centre = np.zeros(centroids.shape[1])
        total = np.zeros_like(self.centre)
        for rows, part in self.parts():
            total += weights[rows] @ part
        self.centre = np.rint(total / weights.sum())

    def parts(self) -> Iterator[tuple[slice, Matrix]]:
        for start in range(0, len(self.centroids), self.rows):
            rows = slice(start, start + self.rows)
            yield rows, np.rint(np.ldexp(self.centroids[rows].astype(np.float64), self.shift)) - self.centre

    def covariance(self, weights: Matrix) -> Matrix:
        """Times the sum of the weights."""
        covariance = np.zeros((len(self.centre), len(self.centre)))
        for rows, part in self.parts():
            covariance += (part * weights[rows, None]).T @ part
        return covariance


def whole_weights(items: NDArray[np.int64], bits: int) -> Matrix:
    """Whole weights in proportion to the items, whose sum is at most 2**bits."""
    total = int(items.sum())
    return (items if total <= 1 << bits else items * 2.0**bits // total).astype(np.float64)


def _lengths(part: Matrix, inverse: Matrix) -> Matrix:
    """Squared lengths as an inverse covariance in steps of 2**-_BITS measures them."""
    measured = np.rint(np.ldexp(part @ inverse, -_COORDINATE_BITS))
    lengths: Matrix = np.ldexp(np.einsum("ij,ij->i", measured, part), _COORDINATE_BITS - _BITS)
    return lengths


def _inverse(matrix: Matrix) -> Matrix:
    """Inverse to `_BITS` bits of a symmetric matrix with eigenvalues from a ridge to one and a ridge, by Newton."""
    one = np.eye(len(matrix))
    matrix, inverse = to_bits(matrix, _BITS), one * (2 * _RIDGE / (_RIDGE + 2))
    for _ in range(_STEPS):
        inverse = to_bits(inverse @ to_bits(2 * one - to_bits(matrix @ inverse, _BITS), _BITS), _BITS)
    return inverse
