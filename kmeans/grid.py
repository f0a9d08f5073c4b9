"""The grid on which all arithmetic is exact.

Vectors and centroids are integers times a power of two. With b bits a coordinate, b at most
(53 - ceil(log2 d)) / 2 - 1, every dot product and squared distance of d terms is an integer below 2**53, which
float64 holds exactly; with b at most 20, so are sums of up to 2**33 rows. Exact sums have no order: any kernel,
any partitioning and any BLAS gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, frexp, log2

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32] | NDArray[np.float64]
MAX_BITS = 20  # float32 holds 24; the four to spare are what sums of 2**33 rows need
METRICS = ("l2", "cosine")


def bits_for(dimension: int) -> int:
    """Bits a coordinate (without its sign) for exact arithmetic in `dimension` terms."""
    return min(MAX_BITS, (53 - ceil(log2(dimension))) // 2 - 1)


@dataclass(frozen=True)
class Grid:
    """Multiples of 2**exponent, from -2**bits to 2**bits steps.

    Attributes:
        exponent: The step is 2**exponent.
        bits: b; the largest coordinate is 2**bits steps.
        metric: "l2", or "cosine": vectors and centroids are scaled to unit length first.
    """

    exponent: int
    bits: int
    metric: str = "l2"

    @classmethod
    def covering(cls, largest: float, dimension: int, metric: str = "l2") -> Grid:
        """The finest exact grid for vectors of `dimension` coordinates with max |x| <= `largest`."""
        if metric not in METRICS:
            raise ValueError(f"metric={metric!r} should be one of {', '.join(METRICS)}.")
        bits = bits_for(dimension)
        if metric == "cosine" or largest == 0:
            return cls(exponent=-bits, bits=bits, metric=metric)
        mantissa, exponent = frexp(largest)
        if mantissa == 0.5:  # a power of two covers itself
            exponent -= 1
        return cls(exponent=exponent - bits, bits=bits, metric=metric)

    @property
    def step(self) -> float:
        """Length of one step, in the units of the data."""
        return 2.0**self.exponent

    def quantize(self, x: FloatArray) -> NDArray[np.float32]:
        """Round vectors to the grid.

        Args:
            x: Vectors, shape (n, d), finite, max |x| within the grid (for cosine: any, but not all zero).

        Returns:
            Whole numbers of steps as float32, shape (n, d).
        """
        if self.metric == "cosine":
            return self.unit(x)
        return _whole(np.ldexp(x.astype(np.float64), -self.exponent))

    def unit(self, x: FloatArray) -> NDArray[np.float32]:
        """Scale vectors to unit length, on the grid; zero vectors stay zero.

        A row is first rounded to `bits` bits below its own largest coordinate, so that its squared length is an
        exact integer; root, quotient and rounding are then correctly rounded, the same on every machine.

        Args:
            x: Vectors of any finite scale, shape (n, d).

        Returns:
            Whole numbers of 2**-bits steps as float32, shape (n, d).
        """
        x = x.astype(np.float64)
        _, exponents = np.frexp(np.abs(x).max(axis=1, initial=0.0, keepdims=True))
        rows = np.rint(np.ldexp(x, self.bits - exponents))
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
        lengths[lengths == 0] = 1.0
        return _whole(np.ldexp(rows / lengths, self.bits))

    def mean(self, sums: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float32]:
        """Centroids from exact sums, rounded to the grid (for cosine: the mean direction).

        Args:
            sums: Coordinate sums of each cluster's points in steps, shape (k, d).
            counts: Points of each cluster, all positive, shape (k,).

        Returns:
            Centroids in steps, float32, shape (k, d).
        """
        if self.metric == "cosine":
            return self.unit(sums)
        return _whole(sums / counts[:, None])

    def to_float(self, steps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Steps back to the units of the data; exact, since float32 holds 24 bits."""
        return np.ldexp(steps, self.exponent).astype(np.float32)

    def distance(self, squared_steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distances in the units of the data from squared distances in steps."""
        return np.ldexp(np.sqrt(squared_steps), self.exponent)


def to_bits(x: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Round to multiples of 2**-bits, so that float64 holds sums of products exactly."""
    found: NDArray[np.float64] = np.ldexp(np.rint(np.ldexp(x, bits)), -bits)
    return found


def _whole(steps: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round to whole steps; + 0.0 turns -0.0 into 0.0, so that equal vectors have equal bytes."""
    return (np.rint(steps) + 0.0).astype(np.float32)
