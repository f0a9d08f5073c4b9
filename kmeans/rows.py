"""Rows as the kernels want them: laid out once, so that no pass copies them or measures their lengths again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """Points in grid steps, with what a search needs besides.

    Attributes:
        a: Vectors and a last column of -1, float32, shape (n, d + 1): the product with centroids that carry half
            their squared norms there gives x.c - |c|**2 / 2 at once.
        norms: Exact squared norms in squared steps, float64, shape (n,).
    """

    a: NDArray[np.float32]
    norms: NDArray[np.float64]

    @classmethod
    def of(cls, x: NDArray[np.float32]) -> Rows:
        """Lay out vectors in grid steps, shape (n, d)."""
        a = np.empty((len(x), x.shape[1] + 1), dtype=np.float32)
        a[:, :-1], a[:, -1] = x, -1.0
        return cls(a, np.einsum("ij,ij->i", x, x, dtype=np.float64))

    @classmethod
    def concatenate(cls, parts: Sequence[Rows]) -> Rows:
        """Join parts, at least one."""
        return cls(np.concatenate([part.a for part in parts]), np.concatenate([part.norms for part in parts]))

    @property
    def x(self) -> NDArray[np.float32]:
        """The vectors alone, shape (n, d); a view."""
        return self.a[:, :-1]

    def __len__(self) -> int:
        return len(self.a)

    def __getitem__(self, rows: slice | NDArray[np.intp] | NDArray[np.bool_]) -> Rows:
        return Rows(self.a[rows], self.norms[rows])

    def chunks(self, size: int) -> Iterator[Rows]:
        """Views of `size` rows each; the last may have fewer."""
        for start in range(0, len(self), size):
            yield self[start : start + size]
