"""What an encoder is, how it is named, and where it is fitted and loaded."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ...schemas.errors import LakestrataError

CONVOLUTION = "convolution"
OPERATIONAL = frozenset({"device", "batch_size"})
"""Params that say how to compute, not what: they are no part of the encoder's id."""

FOLDER_PREFIX = "blake2b:"
"""What the revision of a model folder begins with; the hash of its files follows."""

_MAX_LOADED = 2  # an old and a new encoder; more would fill a GPU
_loaded: dict[tuple[str, str], Encoder] = {}
_lock = threading.Lock()


class Encoder(Protocol):
    """A loaded model.

    Attributes:
        dimension: d, floats per item.
    """

    dimension: int

    def encode(self, items: Sequence[Any]) -> NDArray[np.float32]:
        """Embed items.

        Args:
            items: uint8 images of shape (h, w) or (h, w, 3), sizes may differ; or texts (str).

        Returns:
            float32, shape (n, d), not normalised.
        """
        ...


@dataclass(frozen=True)
class EncoderSpec:
    """All that is needed to load an encoder, on any machine.

    Attributes:
        name: `convolution`, or a sentence-transformers model by its hub name or folder.
        params: What the recipe set; JSON values.
        state: Fitted arrays as npz bytes; None where nothing is fitted.
        revision: Tells versions of the weights apart: a hub commit, or `blake2b:` and the hash of a folder.
    """

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    state: bytes | None = None
    revision: str | None = None

    @property
    def kind(self) -> Literal["image", "text"]:
        """What it takes: `image` or `text`."""
        return encoder_kind(self.name)

    @property
    def encoder_id(self) -> str:
        """32 hex digits: BLAKE2b of name, semantic params, revision and state.

        A folder's name is left out: its revision is the hash of its files, and moving it changes no vector.
        """
        params = {key: value for key, value in self.params.items() if key not in OPERATIONAL}
        name = None if is_folder_revision(self.revision) else self.name
        head = json.dumps([name, params, self.revision], sort_keys=True, separators=(",", ":"))
        digest = blake2b(digest_size=16)
        for part in (head.encode(), self.state):
            # the length in front keeps two different splits of the same bytes apart, and None from b""
            digest.update(b"-" if part is None else str(len(part)).encode() + b":" + part)
        return digest.hexdigest()


def is_folder_revision(revision: str | None) -> bool:
    """Tell the hash of a folder's files from a hub commit."""
    return revision is not None and revision.startswith(FOLDER_PREFIX)


def encoder_kind(name: str) -> Literal["image", "text"]:
    """The kind of item an encoder of this name takes."""
    return "image" if name == CONVOLUTION else "text"


def fit(name: str, params: Mapping[str, Any], sample: Sequence[Any], seed: int) -> EncoderSpec:
    """Fit an encoder, or pin the version of a trained one.

    Args:
        name: As in `EncoderSpec`.
        params: The encoder's settings; see `convolution.Settings` and `sentence.Settings`.
        sample: Decoded items in a canonical order; only `convolution` looks at them.
        seed: Of the draws; only for `convolution`.

    Returns:
        The spec; with the same arguments, the same bytes on one machine.

    Raises:
        LakestrataError: Params that do not work, an empty sample, or a model that cannot be found.
    """
    if name == CONVOLUTION:
        from . import convolution_fit

        return EncoderSpec(name, dict(params), convolution_fit.fit(sample, params, seed))
    from . import sentence

    revision = sentence.resolve(name, params)
    # workers run in folders of their own, where a relative name would mean nothing
    place = str(Path(name).resolve()) if is_folder_revision(revision) else name
    return EncoderSpec(place, dict(params), None, revision)


def load(spec: EncoderSpec, device: str = "auto") -> Encoder:
    """Load an encoder; a second call in the same process gives the same object.

    Args:
        spec: From `fit`, or read back from the encoders table.
        device: `auto` (CUDA where there is one), `cpu` or `cuda`; overrides the param of that name.

    Returns:
        The encoder, on the device.

    Raises:
        LakestrataError: The model or the device is not there, or the weights are not those of the spec.
    """
    wanted = device if device != "auto" else str(spec.params.get("device", "auto"))
    key = (spec.encoder_id, wanted)
    with _lock:
        if key not in _loaded:
            while len(_loaded) >= _MAX_LOADED:
                _loaded.pop(next(iter(_loaded)))
            _loaded[key] = _open(spec, pick_device(wanted))
        return _loaded[key]


def _open(spec: EncoderSpec, device: str) -> Encoder:
    if spec.name == CONVOLUTION:
        from .convolution import ConvolutionEncoder

        if spec.state is None:
            raise LakestrataError("the convolution encoder has no state; fit it before loading it")
        return ConvolutionEncoder(spec.state, device, int(spec.params.get("batch_size", 0)))
    from .sentence import SentenceEncoder

    return SentenceEncoder(spec.name, spec.params, spec.revision, device)


def clear_cache() -> None:
    """Forget the loaded encoders, and give their memory back."""
    with _lock:
        _loaded.clear()


def pick_device(wanted: str) -> str:
    """Turn `auto`, `cpu` or `cuda` into the device to use.

    Raises:
        LakestrataError: Another name, or CUDA where there is none.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise LakestrataError(f"embed.device is {wanted!r}; it should be auto, cpu or cuda")
    if wanted == "cpu":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise LakestrataError("embed.device is cuda, but torch sees no CUDA device here; use auto or cpu")
    return "cpu"
