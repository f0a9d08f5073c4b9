"""Files that the driver and all workers see: written once, then mapped into memory where they are, or from a copy."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

import fsspec
import numpy as np
from numpy.typing import NDArray

_UNUSED_SECONDS = 3600  # after which a node forgets its copy of an object; one that is asked for again is fetched again


def is_uri(path: str) -> bool:
    """Whether a file or folder is at a URI, and so has to be fetched before it can be mapped."""
    return ":/" in path


def new_path(folder: str, ending: str) -> str:
    """A path in a folder or at a URI for a new file."""
    return f"{folder.rstrip('/')}/{uuid4().hex}{ending}"


def save_array(array: NDArray[Any], folder: str) -> str:
    """Write an array to a new .npy file in a folder or at a URI; gives its path."""
    path = new_path(folder, ".npy")
    with fsspec.open(path, "wb", auto_mkdir=True) as file:
        np.save(file, array)
    return path


def open_array(shipped: NDArray[Any] | str) -> NDArray[Any]:
    """An array that came in the closure, or the path of its file."""
    return np.load(local_path(shipped), mmap_mode="r") if isinstance(shipped, str) else shipped


def local_path(path: str) -> str:
    """The path itself, or that of a copy of an object at a URI, fetched once a node."""
    if not is_uri(path):
        return path
    folder = Path(tempfile.gettempdir(), f"lakestrata-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    copy = folder / sha256(path.encode()).hexdigest()
    with open(f"{copy}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if copy.exists():
            os.utime(copy)
        else:
            _forget_unused(folder)
            partial = folder / f"{uuid4().hex}.part"
            filesystem, remote = fsspec.core.url_to_fs(path)
            filesystem.get_file(remote, str(partial))
            partial.rename(copy)
    return str(copy)


def _forget_unused(folder: Path) -> None:
    """Remove copies that were not asked for in a while; who has one mapped keeps it."""
    for file in folder.iterdir():
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < time() - _UNUSED_SECONDS:
                file.unlink()


def remove(paths: Iterable[str]) -> None:
    """Remove files; those that are gone are no fault."""
    for path in paths:
        filesystem, remote = fsspec.core.url_to_fs(path)
        with suppress(FileNotFoundError):
            filesystem.rm_file(remote)


def remove_folder(folder: str) -> None:
    """Remove a folder, or all objects under a URI, if there is anything."""
    filesystem, remote = fsspec.core.url_to_fs(folder)
    with suppress(FileNotFoundError):
        filesystem.rm(remote, recursive=True)
