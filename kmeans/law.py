"""Laws of whole random numbers, many at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .waterfill import Floats, Ints

_SURE = 1e-9  # what is as unlikely as this is taken never to happen


@dataclass(frozen=True)
class Law:
    """The laws of many whole random numbers N, as tails.

    Attributes:
        low: The smallest value of each, whole float64 (n,).
        start: Where its tails begin, int64 (n,).
        width: Largest value less the smallest, int64 (n,).
        tails: `tails[start + r]` is P(N >= low + r), for r = 0 .. width + 1.
    """

    low: Floats
    start: Ints
    width: Ints
    tails: Floats

    @classmethod
    def certain(cls, values: Ints | Floats) -> Law:
        """Numbers that are not random."""
        n = len(values)
        return cls(np.asarray(values, np.float64), np.zeros(n, np.int64), np.zeros(n, np.int64), np.array([1.0, 0.0]))

    @classmethod
    def between(cls, low: Floats, high: Floats) -> Law:
        """Room for laws from `low` to `high` (whole), to be filled in."""
        width = (high - low).astype(np.int64)
        start = np.cumsum(width + 2) - width - 2
        tails = np.zeros(int((width + 2).sum()))
        tails[start] = 1.0
        return cls(low, start, width, tails)

    def take(self, index: Ints) -> Law:
        """Select or reorder the numbers."""
        return Law(self.low[index], self.start[index], self.width[index], self.tails)

    def put(self, index: Ints, other: Law) -> Law:
        """Replace the numbers at `index` by those of `other`."""
        low, start, width = self.low.copy(), self.start.copy(), self.width.copy()
        low[index], width[index], start[index] = other.low, other.width, other.start + len(self.tails)
        return Law(low, start, width, np.concatenate([self.tails, other.tails]))

    def steps(self) -> tuple[Ints, Ints]:
        """List all (number, r) with 1 <= r <= width."""
        number = np.repeat(np.arange(len(self.low)), self.width)
        return number, np.arange(len(number)) - np.repeat(np.cumsum(self.width) - self.width, self.width) + 1

    def moments(self) -> tuple[Floats, Floats]:
        """Compute means and variances, each (n,)."""
        number, r = self.steps()
        tail, n = self.tails[self.start[number] + r], len(self.low)
        first = np.bincount(number, weights=tail, minlength=n)
        second = np.bincount(number, weights=(2 * r - 1) * tail, minlength=n)
        return self.low + first, np.maximum(second - first * first, 0.0)

    def support(self) -> tuple[Floats, Floats]:
        """Find the range of each number outside which it hardly ever falls."""
        number, r = self.steps()
        tail, n = self.tails[self.start[number] + r], len(self.low)
        sure = np.bincount(number, weights=tail >= 1 - _SURE, minlength=n)
        possible = np.bincount(number, weights=tail > _SURE, minlength=n)
        return self.low + sure, self.low + possible
