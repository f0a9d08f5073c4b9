"""An image encoder without trained weights: one convolution whose filters are whitened patches of a sample.

Coates & Ng, "Learning Feature Representations with K-means" (2012), and MOSAIKS (Rolf et al. 2021, Nature
Communications 12:4392) show how far such features carry. Per image: resize; contrast-normalise each patch;
whiten it; project it on the filters; two-sided soft threshold; average over the cells of a grid; PCA.

Here are its settings and the encoder itself, in torch; `convolution_fit` makes its state.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...schemas.errors import LakestrataError

if TYPE_CHECKING:
    import torch

VERSION = 1
"""Of the arithmetic: it is part of the state, so a change of it changes the encoder's id."""

CONTRAST_FLOOR = 1e-3
"""Added to a patch's variance (pixels in [0, 1]), so that flat patches stay flat."""

_CHUNK = {"cpu": 4, "cuda": 256}  # images at once: on a CPU the responses should stay in the cache
_MAX_FEATURES = 1 << 14  # before the PCA
_DECODED = 512  # images resized before the first of them is convolved; bounds memory


@dataclass(frozen=True)
class Settings:
    """Params of the convolutional encoder.

    Attributes:
        size: Images are resized to size x size pixels.
        patch: Side of the square filters, in pixels of the resized image.
        filters: Number of filters.
        grid: Responses are averaged over grid x grid cells.
        dimension: d of the embedding; at most what filters and grid give.
        threshold: Of the two-sided soft threshold, in units of a filter's response.
        whitening: Added to the eigenvalues of the patches' covariance: more of it damps fine detail.
        colour: Weight of each cell's mean and spread of colour, where the texture has 1; needs 3 channels.
        channels: 1 for grey, 3 for RGB; 0 looks whether the sample has any colour.
        batch_size: Images at once on the device, 0 for a good number; operational.
        device: `auto`, `cpu` or `cuda`; operational.
    """

    size: int = 24
    patch: int = 6
    filters: int = 256
    grid: int = 2
    dimension: int = 128
    threshold: float = 0.25
    whitening: float = 0.01
    colour: float = 1.0
    channels: int = 0
    batch_size: int = 0
    device: str = "auto"

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> Settings:
        """Check params and fill in the defaults.

        Raises:
            LakestrataError: An unknown param, or a value out of range.
        """
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(params) - set(known)):
            raise LakestrataError(
                f"the convolution encoder has no param {', '.join(unknown)}; known: {', '.join(known)}"
            )
        settings = cls(**params)
        for name, low, high in _RANGES:
            _check_range(name, getattr(settings, name), low, high)
        if settings.channels == 2:
            raise LakestrataError("embed.params.channels is 2; it should be 1, 3, or 0 to look at the sample")
        cells = settings.size - settings.patch + 1
        if cells < settings.grid:
            raise LakestrataError(
                f"embed.params: size={settings.size} and patch={settings.patch} leave {cells} positions "
                f"a side; grid={settings.grid} needs as many at least"
            )
        if (width := 2 * settings.filters * settings.grid**2) > _MAX_FEATURES:
            raise LakestrataError(
                f"embed.params: filters={settings.filters} and grid={settings.grid} make {width} features; "
                f"at most {_MAX_FEATURES} fit the driver's memory"
            )
        return settings


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("size", 4, 512), ("patch", 2, 64), ("filters", 1, 8192), ("grid", 1, 16), ("dimension", 1, 8192),
    ("threshold", 0.0, 100.0), ("whitening", 1e-6, 1e3), ("colour", 0.0, 1e3), ("channels", 0, 3),
    ("batch_size", 0, 1 << 20),
)  # fmt: skip


def _check_range(name: str, value: object, low: float, high: float) -> None:
    wanted = (int, float) if isinstance(low, float) else (int,)
    if isinstance(value, bool) or not isinstance(value, wanted) or not low <= value <= high:
        kind = "a number" if isinstance(low, float) else "an integer"
        raise LakestrataError(f"embed.params.{name} is {value!r}; it should be {kind} from {low:g} to {high:g}")


def resize(images: Sequence[NDArray[np.uint8]], size: int, channels: int) -> NDArray[np.float32]:
    """Resize images to one square size (bicubic, with antialiasing; the aspect ratio is not kept).

    Args:
        images: n uint8 arrays of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4).
        size: Pixels a side.
        channels: 1 or 3.

    Returns:
        float32 in [0, 1], shape (n, channels, size, size).
    """
    from PIL import Image

    out = np.empty((len(images), size, size, channels), np.uint8)
    mode = "L" if channels == 1 else "RGB"
    for i, image in enumerate(images):
        flat = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
        small = Image.fromarray(flat).convert(mode).resize((size, size), Image.Resampling.BICUBIC)
        out[i] = np.asarray(small).reshape(size, size, channels)
    return np.ascontiguousarray(out.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)


class Convolution:
    """The part before the projection: pixels to pooled responses. Its arrays lie on the device.

    It is a matrix product over unfolded patches: as fast as torch's convolution at these sizes, and in full
    float32 on GPUs too, where convolutions may be rounded to TF32.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], device: str, batch_size: int) -> None:
        """Take over the filters.

        Args:
            arrays: `layout` (size, channels, patch, grid), `weights` (k, q), `offsets` (k,) and `threshold`.
            device: `cpu` or `cuda`.
            batch_size: Images at once; 0 for a good number.
        """
        import torch

        self.size, self.channels, self._patch, self._grid = (int(v) for v in arrays["layout"])
        self._weights = torch.from_numpy(arrays["weights"]).to(device)
        self._offsets = torch.from_numpy(arrays["offsets"]).to(device)[:, None]
        self._threshold = float(arrays["threshold"])
        self._device = device
        self._batch = batch_size or _CHUNK[device]

    def features(self, pixels: NDArray[np.float32]) -> torch.Tensor:
        """Pooled responses, and for colour images the mean and spread of colour by cell.

        Args:
            pixels: In [0, 1], shape (n, channels, size, size).

        Returns:
            float32 on the device, shape (n, 2 * filters * grid**2 [+ 6 * grid**2]).
        """
        import torch

        with torch.inference_mode():
            whole = torch.from_numpy(pixels)
            batches = [whole[i : i + self._batch] for i in range(0, len(whole), self._batch)]
            return torch.cat([self._batch_features(batch.to(self._device)) for batch in batches])

    def _batch_features(self, x: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn import functional

        patches = functional.unfold(x, self._patch)  # (n, q, positions)
        patches -= patches.mean(dim=1, keepdim=True)
        patches *= torch.rsqrt(patches.square().mean(dim=1, keepdim=True) + CONTRAST_FLOOR)
        z = torch.matmul(self._weights, patches).add_(self._offsets)
        side = self.size - self._patch + 1
        z = z.view(len(x), -1, side, side)
        parts = [
            self._pool((z - self._threshold).relu_()),
            self._pool(z.neg_().sub_(self._threshold).relu_()),
        ]
        if self.channels == 3:
            mean = self._pool(x)
            variance = self._pool(x.square()) - mean.square()
            parts += [mean, variance.clamp_min_(0.0).sqrt_()]
        return torch.cat(parts, dim=1)

    def _pool(self, maps: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        return functional.adaptive_avg_pool2d(maps, self._grid).flatten(1)


class ConvolutionEncoder:
    """A fitted convolutional encoder on a device.

    Attributes:
        dimension: d, floats per image.
    """

    def __init__(self, state: bytes, device: str, batch_size: int = 0) -> None:
        """Unpack the state.

        Args:
            state: From `convolution_fit.fit`.
            device: `cpu` or `cuda`.
            batch_size: Images at once; 0 for a good number.

        Raises:
            LakestrataError: The state cannot be read, or another version of Lakestrata wrote it.
        """
        import torch

        arrays = _unpack(state)
        self._convolution = Convolution(arrays, device, batch_size)
        self._centre = torch.from_numpy(arrays["centre"]).to(device)
        self._projection = torch.from_numpy(arrays["projection"]).to(device)
        self.dimension = int(self._projection.shape[1])

    def encode(self, items: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed images.

        Args:
            items: n uint8 arrays of shape (h, w) or (h, w, 3), of any sizes.

        Returns:
            float32, shape (n, d), not normalised; the zero vector for an image like the sample's mean.
        """
        import torch

        out = np.zeros((len(items), self.dimension), np.float32)
        for start in range(0, len(items), _DECODED):
            pixels = resize(items[start : start + _DECODED], self._convolution.size, self._convolution.channels)
            with torch.inference_mode():
                vectors = (self._convolution.features(pixels) - self._centre) @ self._projection
            out[start : start + len(pixels)] = vectors.cpu().numpy()
        return out


def _unpack(state: bytes) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(state), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
            version = int(arrays["version"])
    except Exception as error:  # zip, npy and missing names fail in many types; all mean the same
        raise LakestrataError(f"the convolution encoder's state cannot be read ({error}); fit it again") from None
    if version != VERSION:
        raise LakestrataError(f"the encoder's state has version {version}, this package reads {VERSION}; fit it again")
    return arrays
