"""Fits the convolutional encoder to a sample of images: whitened filters, scales, PCA (see `convolution`)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...schemas.errors import LakestrataError
from .convolution import CONTRAST_FLOOR, VERSION, Convolution, Settings, resize

_IMAGES = 4096  # enough for a PCA of some hundred components, and it bounds the driver's memory
_PATCHES = 50_000
_SPREAD_FLOOR = 1e-3  # below it a block of features is noise of the rounding to 8 bits: do not blow it up

_Floats = NDArray[np.float64]


def fit(sample: Sequence[NDArray[np.uint8]], params: Mapping[str, Any], seed: int) -> bytes:
    """Fit the encoder to a sample of images.

    Args:
        sample: Images of shape (h, w) or (h, w, 3), in a canonical order; at most 4,096 of them are used.
        params: See `Settings`.
        seed: Of the draws of images, patches and filters.

    Returns:
        The state: npz bytes, of the same arguments the same bytes on one machine.

    Raises:
        LakestrataError: Bad params or an empty sample.
    """
    settings = Settings.parse(params)
    if len(sample) == 0:
        raise LakestrataError("the convolution encoder has no images to be fitted to: the sample is empty")
    rng = np.random.Generator(np.random.PCG64(seed))
    if len(sample) > _IMAGES:
        sample = [sample[i] for i in np.sort(rng.choice(len(sample), _IMAGES, replace=False))]
    channels = settings.channels or (3 if any(_has_colour(image) for image in sample) else 1)
    pixels = resize(sample, settings.size, channels)
    weights, offsets = _fit_filters(_draw_patches(pixels, settings.patch, rng), settings, rng)
    arrays: dict[str, NDArray[Any]] = {
        "version": np.array(VERSION),
        "layout": np.array([settings.size, channels, settings.patch, settings.grid], np.int64),
        "threshold": np.array(settings.threshold, np.float32),
        "weights": weights.astype(np.float32),
        "offsets": offsets.astype(np.float32),
    }
    features = Convolution(arrays, "cpu", 0).features(pixels).numpy()
    arrays |= _fit_projection(features, 2 * settings.filters * settings.grid**2, settings, rng)
    return _pack(arrays)


def _has_colour(image: NDArray[np.uint8]) -> bool:
    if image.ndim == 2 or image.shape[2] == 1:
        return False
    return bool((image[..., 0] != image[..., 1]).any() or (image[..., 1] != image[..., 2]).any())


def _draw_patches(pixels: NDArray[np.float32], side: int, rng: np.random.Generator) -> _Floats:
    """Draw random patches, flattened: float64, shape (p, channels * side * side)."""
    n, _, height, width = pixels.shape
    count = min(_PATCHES, n * (height - side + 1) * (width - side + 1))
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), axis=(2, 3))
    image = rng.integers(0, n, count)
    top, left = rng.integers(0, height - side + 1, (2, count))
    return windows[image, :, top, left].reshape(count, -1).astype(np.float64)


def _fit_filters(patches: _Floats, settings: Settings, rng: np.random.Generator) -> tuple[_Floats, _Floats]:
    """Make filters of whitened patches, with the whitening folded in.

    A patch p answers filter f with f . Z (c(p) - m): c subtracts the mean and divides by the contrast, m is
    the mean of the c(p), and Z whitens them (ZCA, symmetric). That is w . c(p) + b with w = Z f, b = -w . m.

    Args:
        patches: Shape (p, q).
        settings: Number of filters, and the whitening's damping.
        rng: Draws the patches that become filters.

    Returns:
        w of shape (filters, q) and b of shape (filters,).
    """
    centred = patches - patches.mean(axis=1, keepdims=True)
    centred /= np.sqrt((centred**2).mean(axis=1, keepdims=True) + CONTRAST_FLOOR)
    mean = centred.mean(axis=0)
    centred -= mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    whiten = (vectors / np.sqrt(np.maximum(values, 0.0) + settings.whitening)) @ vectors.T
    white = centred @ whiten
    lengths = np.linalg.norm(white, axis=1)
    usable = rng.permutation(np.flatnonzero(lengths > 1e-3))[: settings.filters]  # no patch of a flat region
    filters = white[usable] / lengths[usable, None]
    if len(filters) < settings.filters:  # few or flat images: directions at random
        extra = rng.standard_normal((settings.filters - len(filters), patches.shape[1]))
        filters = np.vstack([filters, extra / np.linalg.norm(extra, axis=1, keepdims=True)])
    weights = filters @ whiten
    return weights, -(weights @ mean)


def _fit_projection(
    features: NDArray[np.float32], n_texture: int, settings: Settings, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Fit scales and a PCA to the sample's features.

    Each of the two blocks, texture and colour, gets the total variance of its weight squared. Where the
    sample spans fewer directions than `dimension`, orthonormal ones at random complete the basis: they keep
    distances on average (Johnson & Lindenstrauss), so that d never hangs on the size of the sample.

    Returns:
        `centre`, shape (f,), and `projection`, shape (f, d), of the unscaled features.
    """
    x = features.astype(np.float64)
    centre = x.mean(axis=0)
    x -= centre
    scale = np.ones(x.shape[1])
    for block, weight in ((slice(0, n_texture), 1.0), (slice(n_texture, None), settings.colour)):
        spread = np.sqrt((x[:, block] ** 2).sum() / len(x))
        scale[block] = weight / spread if spread > _SPREAD_FLOOR else weight
    x *= scale
    d = min(settings.dimension, x.shape[1])
    basis = _principal_axes(x, d)
    if len(basis) < d:
        noise = rng.standard_normal((x.shape[1], d - len(basis)))
        noise -= basis.T @ (basis @ noise)
        basis = np.vstack([basis, np.linalg.qr(noise)[0].T])
    projection = (basis * scale).T
    return {
        "centre": centre.astype(np.float32),
        "projection": np.ascontiguousarray(projection, dtype=np.float32),
    }


def _principal_axes(x: _Floats, count: int) -> _Floats:
    """The first principal axes of centred data, shape (at most count, f): as many as the data span."""
    if len(x) < x.shape[1]:
        _, lengths, axes = np.linalg.svd(x, full_matrices=False)
    else:  # three times faster for many images, and as good for the first axes
        squares, vectors = np.linalg.eigh(x.T @ x)
        lengths, axes = np.sqrt(np.maximum(squares[::-1], 0.0)), vectors.T[::-1]
    axes = axes[: min(count, int((lengths > 1e-7 * max(1.0, lengths[0])).sum()))]
    # both leave signs open: the largest entry of each axis is made positive
    signs: _Floats = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    oriented: _Floats = axes * signs[:, None]
    return oriented


def _pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
