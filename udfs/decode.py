"""From an item as the source table holds it to what an encoder takes: pixels or text.

Runs on Spark workers and on machines without Spark. A broken item is an `ItemError` with a reason code;
a broken service is whatever the service raised, after three tries.
"""

from __future__ import annotations

import errno
import io
import logging
import random
import time
import warnings
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from ..schemas.errors import LakestrataError

if TYPE_CHECKING:
    from PIL.Image import Image

Kind = Literal["image", "text"]
KINDS: tuple[Kind, ...] = ("image", "text")

MAX_BYTES = 1 << 28
"""Files above this many bytes are set aside: no image needs them, and one of them could fell a worker."""

_TRIES = 3
_FIRST_WAIT_S = 0.5
_NO_SUCH_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_STORES_BY_PLUGIN = frozenset({"abfss", "wasb", "wasbs", "oci", "oss", "cos"})
"""Schemes of object stores that fsspec knows only once their package is installed."""
_WHITE = (255, 255, 255, 255)


class ItemError(Exception):
    """A broken item: it goes to the quarantine and never fails a job.

    Attributes:
        reason: `null_content`, `empty`, `undecodable`, `truncated`, `too_large` or `missing`.
        detail: One line for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)  # both, so that the error survives pickling
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@overload
def decode(content: object, kind: Literal["image"]) -> NDArray[np.uint8]: ...
@overload
def decode(content: object, kind: Literal["text"]) -> str: ...
@overload
def decode(content: object, kind: str) -> NDArray[np.uint8] | str: ...


def decode(content: object, kind: str) -> NDArray[np.uint8] | str:
    """Decode one item.

    Args:
        content: For images the bytes of a file, or a path or URI to one; for texts str or UTF-8 bytes.
        kind: `image` or `text`.

    Returns:
        uint8 RGB pixels, shape (h, w, 3), or the text (never blank).

    Raises:
        ItemError: The item is broken.
        LakestrataError: No such kind.
        Exception: What a store raised, if it failed three times.
    """
    if kind not in KINDS:
        raise LakestrataError(f"source.kind is {kind!r}; it should be one of {', '.join(KINDS)}")
    if content is None:
        raise ItemError("null_content", "the content is null")
    if not isinstance(content, (str, bytes, bytearray, memoryview)):
        raise LakestrataError(f"content has type {type(content).__name__}; it should be binary or string")
    if kind == "text":
        return _decode_text(content)
    return _decode_image(read(content) if isinstance(content, str) else bytes(content))


def _decode_text(content: str | bytes | bytearray | memoryview) -> str:
    try:
        if isinstance(content, str):
            content.encode()  # lone surrogates would only fail later, in the tokenizer
            text = content
        else:
            text = bytes(content).decode("utf-8-sig")
    except UnicodeError as error:
        raise ItemError("undecodable", f"not UTF-8: {error}") from None
    if not text.strip():
        raise ItemError("empty", "the text is blank")
    return text


def _decode_image(content: bytes) -> NDArray[np.uint8]:
    """Decode the first frame of an image file, upright, as RGB."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not content:
        raise ItemError("empty", "the content has 0 bytes")
    logger = logging.getLogger("PIL")
    if logger.level == logging.NOTSET:  # PIL logs errors besides raising them
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters in them is checked here; the rest would flood logs
            with Image.open(io.BytesIO(content)) as image:
                _check_pixels(image, Image.MAX_IMAGE_PIXELS)
                image.load()
                try:
                    upright = ImageOps.exif_transpose(image)
                except Exception:  # broken EXIF of many kinds; the pixels are sound, so keep them as they lie
                    upright = image
                return np.asarray(_to_rgb(upright), dtype=np.uint8)
    except (ItemError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ItemError("too_large", _line(error)) from None
    except UnidentifiedImageError:  # its own message holds a memory address, so no two runs would agree
        raise ItemError("undecodable", "not an image of a known format, or its header is broken") from None
    except Exception as error:  # PIL raises nearly every type; on bytes in memory all of them mean the item
        text = _line(error)
        reason = "truncated" if isinstance(error, EOFError) or "truncated" in text.lower() else "undecodable"
        raise ItemError(reason, text) from None


def _check_pixels(image: Image, limit: int | None) -> None:
    width, height = image.size
    if limit is not None and width * height > limit:
        raise ItemError("too_large", f"{width} x {height} pixels, above the limit of {limit}")


def _to_rgb(image: Image) -> Image:
    """Convert any mode to RGB: alpha over white, 16-bit values over their whole range."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bit(np.asarray(image).astype(np.float64), 0.0, 65535.0)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
        low, high = _value_range(image.mode, float(values.min()), float(values.max()))
        return Image.fromarray(_to_8_bit(values, low, high)).convert("RGB")
    if image.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in image.info:
        straight = image.convert("LA") if image.mode == "La" else image
        rgba = straight.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba).convert("RGB")
    return image.convert("RGB")


def _value_range(mode: str, low: float, high: float) -> tuple[float, float]:
    """Guess what is black and white: these modes carry no range of their own."""
    if mode == "F" and low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    if mode == "I" and low >= 0.0 and high <= 65535.0:  # PIL gives 16-bit PGM and some TIFF as I
        return 0.0, 65535.0
    return low, high


def _to_8_bit(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    span = high - low or 1.0
    return np.rint((values - low) * (255.0 / span)).astype(np.uint8)


def read(path: str) -> bytes:
    """Read a whole file through fsspec.

    Args:
        path: A local path or a URI (`file:`, `s3:`, `abfss:`, ...; `dbfs:` by its mount).

    Returns:
        The file's bytes.

    Raises:
        ItemError: `missing`, where no such file can be; `too_large` above `MAX_BYTES`.
        LakestrataError: The store's fsspec package is not installed.
        Exception: What the store raised at the last of three tries.
    """
    if not path.strip():
        raise ItemError("missing", "the path is blank")
    for attempt in range(1, _TRIES + 1):
        try:
            return _read_once(path)
        except (ItemError, LakestrataError):
            raise
        except Exception:
            if attempt == _TRIES:
                raise
            # jitter keeps the tasks of a cluster from knocking again all at once
            time.sleep(_FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
    raise RuntimeError("unreachable")


def _read_once(path: str) -> bytes:
    try:
        file_system, name = _resolve(path)
        with file_system.open(name, "rb") as file:
            content: bytes = file.read(MAX_BYTES + 1)
    except ImportError as error:
        raise LakestrataError(f"cannot read {path}: {_line(error)}") from None
    except ValueError as error:  # no such protocol, or a null byte in the name
        raise ItemError("missing", f"{path[:200]!r}: {_line(error)}") from None
    except OSError as error:
        if isinstance(error, _NO_SUCH_FILE) or error.errno == errno.ENAMETOOLONG:
            raise ItemError("missing", f"{path[:200]}: {error.strerror or _line(error)}") from None
        raise
    if len(content) > MAX_BYTES:
        raise ItemError("too_large", f"{path}: above the limit of {MAX_BYTES} bytes")
    return content


def _resolve(path: str) -> tuple[Any, str]:
    """Split a path or URI into its fsspec file system and the name there."""
    from fsspec.core import url_to_fs

    if path.startswith("dbfs:/") and not path.startswith("dbfs://"):
        # Spark's spelling; workers see both roots as folders
        path = path[5:] if path.startswith("dbfs:/Volumes/") else "/dbfs" + path[5:]
    try:
        file_system, name = url_to_fs(path)
    except ValueError:
        scheme = path.split("://")[0]
        if scheme in _STORES_BY_PLUGIN:  # a missing package must not send the whole table to the quarantine
            raise ImportError(f"install the fsspec package of {scheme}:// on the workers") from None
        raise
    return file_system, str(name)


def _line(error: BaseException) -> str:
    """The error's message as one line of bounded length."""
    return (" ".join(str(error).split()) or type(error).__name__)[:500]
