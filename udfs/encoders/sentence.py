"""Trained text encoders: any sentence-transformers model, by hub name or folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...schemas.errors import LakestrataError
from .base import FOLDER_PREFIX, is_folder_revision


@dataclass(frozen=True)
class Settings:
    """Params of a text encoder.

    Attributes:
        revision: Branch, tag or commit of a hub model; `fit` pins the commit.
        prompt: Text put in front of each item, as some models want it (`query: `).
        max_seq_length: Tokens read of each text; None leaves it to the model.
        batch_size: Texts at once; operational.
        device: `auto`, `cpu` or `cuda`; operational.
    """

    revision: str | None = None
    prompt: str | None = None
    max_seq_length: int | None = None
    batch_size: int = 32
    device: str = "auto"

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> Settings:
        """Check params and fill in the defaults.

        Raises:
            LakestrataError: An unknown param, or a value out of range.
        """
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(params) - set(known)):
            raise LakestrataError(f"text encoders have no param {', '.join(unknown)}; known: {', '.join(known)}")
        settings = cls(**params)
        for name in ("batch_size", "max_seq_length"):
            value = getattr(settings, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise LakestrataError(f"embed.params.{name} is {value!r}; it should be an integer >= 1")
        return settings


def resolve(name: str, params: Mapping[str, Any]) -> str:
    """Find out which weights a name stands for now.

    Args:
        name: A folder that holds a model, or a hub name.
        params: See `Settings`.

    Returns:
        For a folder `blake2b:` and the hash of its files; for a hub name the commit.

    Raises:
        LakestrataError: No such model, or no way to reach it.
    """
    settings = Settings.parse(params)
    if _is_folder(name):
        return hash_folder(Path(name))
    return _hub_commit(_hub_name(name), settings.revision)


def _is_folder(name: str) -> bool:
    """Tell folders from hub names; a name that can only be a folder must be one."""
    if Path(name).is_dir():
        return True
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name:
        raise LakestrataError(
            f"embed.encoder is {name!r}, and there is no such folder here; give a folder that "
            "all workers see, or the hub name of a sentence-transformers model"
        )
    return False


def hash_folder(folder: Path) -> str:
    """Hash the names and bytes of all files below a folder, hidden ones apart; its own name counts not."""
    digest = blake2b(digest_size=16)
    names = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    for name in sorted(names):
        if any(part.startswith((".", "__pycache__")) for part in name.split("/")):
            continue  # caches and version control come and go without touching the model
        part = blake2b(digest_size=32)
        with names[name].open("rb") as file:
            while chunk := file.read(1 << 20):
                part.update(chunk)
        digest.update(name.encode() + b"\0" + part.digest())
    return FOLDER_PREFIX + digest.hexdigest()


def _hub_name(name: str) -> str:
    return name if "/" in name else f"sentence-transformers/{name}"


def _hub_commit(name: str, revision: str | None) -> str:
    """Ask the hub for the commit of a revision; without a network take what the cache holds."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        commit = HfApi().model_info(name, revision=revision, timeout=10).sha
        if commit:
            return str(commit)
    except HFValidationError as error:
        raise LakestrataError(f"embed.encoder is {name!r}, which no hub model can be called: {_line(error)}") from None
    except HfHubHTTPError as error:
        if 400 <= getattr(error.response, "status_code", 0) < 500:
            raise LakestrataError(f"the hub gives no model {name!r}: {_line(error)}") from None
    except Exception:  # offline mode or no network, in many guises; the cache may still know
        pass
    try:
        # one small file: with it the snapshot's folder is there, and its name is the commit
        folder = snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=["modules.json"])
    except Exception:
        raise LakestrataError(
            f"embed.encoder is {name!r}, which is neither a folder nor in the hub's cache, and the hub "
            "cannot be reached from here; download it first, and give its folder"
        ) from None
    return Path(folder).name


class SentenceEncoder:
    """A loaded sentence-transformers model.

    Attributes:
        dimension: d, floats per text.
    """

    def __init__(self, name: str, params: Mapping[str, Any], revision: str | None, device: str) -> None:
        """Load the model.

        Args:
            name: A folder or a hub name.
            params: See `Settings`.
            revision: From `resolve`; None takes what is there.
            device: `cpu` or `cuda`.

        Raises:
            LakestrataError: No such model here, or its weights are not those of the revision.
        """
        self._settings = Settings.parse(params)
        self._model = _open(name, revision, device)
        if self._settings.max_seq_length is not None:
            self._model.max_seq_length = self._settings.max_seq_length
        # models report their dimension in several ways, or not at all: ask one
        self.dimension = 0
        self.dimension = int(self.encode(["a"]).shape[1])

    def encode(self, items: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            items: n texts.

        Returns:
            float32, shape (n, d), not normalised unless the model itself does so.
        """
        if not items:
            return np.zeros((0, self.dimension), np.float32)
        vectors = self._model.encode(
            list(items),
            prompt=self._settings.prompt,
            batch_size=self._settings.batch_size,
            normalize_embeddings=False,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.ascontiguousarray(vectors, dtype=np.float32)


def _open(name: str, revision: str | None, device: str) -> Any:
    """Load a model of exactly this revision."""
    source, commit = name, None
    if is_folder_revision(revision):
        if not Path(name).is_dir():
            raise LakestrataError(f"the encoder's folder {name!r} is not on this machine; all workers must see it")
        if hash_folder(Path(name)) != revision:
            raise LakestrataError(
                f"the files in {name!r} are not those the encoder was made from; restore them, or embed anew"
            )
    elif not _is_folder(name):
        source, commit = _hub_name(name), revision
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise LakestrataError(f"text encoders need sentence-transformers on all workers: {_line(error)}") from None
    try:
        with _no_progress_bars():
            return SentenceTransformer(source, device=device, revision=commit)
    except Exception as error:  # each layer below has its own types for a missing or broken model
        raise LakestrataError(f"cannot load the encoder {name!r}: {_line(error)}") from None


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing bars into the logs of workers."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging  # its functions carry no types
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _line(error: BaseException) -> str:
    """The error's message as one line of bounded length."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
