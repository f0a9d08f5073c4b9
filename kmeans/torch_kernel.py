"""The same search, ranked on a GPU (in TF32 where it has that) and decided exactly: it gives the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .nearest import Centroids
from .rows import Rows

_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, and either's under WSL
_TF32_ROUNDOFF = 2.0**-10  # of each factor of a product: ten bits after the leading one, the rest cut off
_SCORES = 1 << 28  # of one product, 1 GiB of float32


def make_centroids(parts: Sequence[NDArray[np.float32]], device: str) -> Centroids:
    """Centroids ready for a search on "cpu", "cuda", or "auto": a GPU where this process sees one.

    Args:
        parts: As `Centroids` takes them.
        device: Where to rank.
    """
    if device == "cpu" or (device == "auto" and not _sees_gpu()):
        return Centroids(parts=parts)
    return TorchCentroids(parts, "cuda")


def _sees_gpu() -> bool:
    if not any(Path(device).exists() for device in _GPU_DEVICES):  # importing torch takes seconds and 500 MB
        return False
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


class TorchCentroids(Centroids):
    """Centroids on a torch device; see `Centroids`.

    Args:
        parts: As `Centroids` takes them.
        device: "cuda", or "cpu" to try it out.
    """

    def __init__(self, parts: Sequence[NDArray[np.float32]], device: str) -> None:
        super().__init__(parts=parts)
        import torch

        self._torch = torch
        self._tf32 = device != "cpu"
        self._on_device = [torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in self.parts]
        self._device = device

    @property
    def chunk_rows(self) -> int:
        """Rows of points to rank at a time."""
        return int(np.clip(_SCORES // len(self), 1024, 1 << 16))

    def bound(self, rows: Rows) -> NDArray[np.float64]:
        """How far a score may be from the exact one: that of float32 sums, and the rounding of TF32 factors."""
        exact_factors = super().bound(rows)
        if not self._tf32:
            return exact_factors
        rounding = 2 * _TF32_ROUNDOFF + _TF32_ROUNDOFF**2
        # Tensor cores may truncate where they add: twice the bound of rounding to nearest.
        return 2 * exact_factors + rounding * (np.sqrt(rows.norms) * self.longest + self.half_max)

    def _rank(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        torch = self._torch
        best = torch.full((len(rows), 2), -torch.inf, device=self._device)
        labels = torch.zeros(len(rows), dtype=torch.int64, device=self._device)
        for start, scores in self._scores_on_device(rows):
            values, ids = scores.topk(min(2, scores.shape[1]), dim=1)
            labels = torch.where(values[:, 0] > best[:, 0], ids[:, 0] + start, labels)
            best = torch.cat([best, values], dim=1).topk(2, dim=1).values
        first, second = best.double().cpu().numpy().T
        return labels.cpu().numpy(), first, second

    def _near(self, rows: Rows, least: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        torch = self._torch
        bounds = torch.from_numpy(least).to(self._device)[:, None]
        found = [(torch.nonzero(scores >= bounds), start) for start, scores in self._scores_on_device(rows)]
        pairs = torch.cat([pair + torch.tensor([0, start], device=self._device) for pair, start in found])
        places, ids = pairs.cpu().numpy().T
        return places, ids

    def _scores_on_device(self, rows: Rows) -> Iterator[tuple[int, Any]]:
        torch = self._torch
        allowed = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = self._tf32
        try:
            a = torch.from_numpy(np.array(rows.a)).to(self._device)
            for start, part in zip(self.starts.tolist(), self._on_device, strict=False):
                if len(part):
                    yield start, a @ part.T
        finally:
            torch.backends.cuda.matmul.allow_tf32 = allowed
