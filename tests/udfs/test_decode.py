"""Decoding: what good files become, and how broken items and broken services are told apart."""

from __future__ import annotations

import io
import pickle
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lakestrata.schemas.errors import LakestrataError
from lakestrata.udfs import decode as module
from lakestrata.udfs.decode import ItemError, decode, read

BROKEN = Path(__file__).parents[2] / "../shared/data/broken"
PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def reason_of(content: object, kind: str) -> str:
    with pytest.raises(ItemError) as caught:
        decode(content, kind)
    assert caught.value.detail
    assert "\n" not in caught.value.detail
    return caught.value.reason


def test_png_keeps_every_pixel() -> None:
    image = decode(encoded(Image.fromarray(PIXELS)), "image")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, PIXELS)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_every_type_that_spark_gives_for_binary(wrap: Any) -> None:
    np.testing.assert_array_equal(decode(wrap(encoded(Image.fromarray(PIXELS))), "image"), PIXELS)


def test_grey_becomes_three_equal_channels() -> None:
    grey = PIXELS[..., 0]
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(grey)), "image"), np.stack([grey] * 3, axis=-1))


def test_16_bit_spans_the_whole_range() -> None:
    deep = np.array([[0, 257, 32896, 65535]], np.uint16)
    image = decode(encoded(Image.fromarray(deep)), "image")
    np.testing.assert_array_equal(image[0, :, 0], [0, 1, 128, 255])


def test_floats_are_stretched_and_not_finite_ones_are_black() -> None:
    values = np.array([[0.0, 0.5, 1.0, np.nan]], np.float32)
    image = decode(encoded(Image.fromarray(values), "TIFF"), "image")
    np.testing.assert_array_equal(image[0, :, 0], [0, 128, 255, 0])
    image = decode(encoded(Image.fromarray(np.array([[-10.0, 0.0, 10.0]], np.float32)), "TIFF"), "image")
    np.testing.assert_array_equal(image[0, :, 0], [0, 128, 255])


def test_alpha_is_laid_on_white() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = [0, 128, 255]
    image = decode(encoded(Image.fromarray(rgba)), "image")
    np.testing.assert_array_equal(image[0, :, 0], [255, 127, 0])


def test_palette_with_a_transparent_colour() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    np.testing.assert_array_equal(decode(encoded(palette), "image")[0], [[255, 0, 0], [0, 0, 255]])
    image = decode(encoded(palette, transparency=1), "image")
    np.testing.assert_array_equal(image[0], [[255, 0, 0], [255, 255, 255]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new(mode, (3, 2))
    file_format = "JPEG" if mode == "YCbCr" else "TIFF"
    assert decode(encoded(image, file_format), "image").shape == (2, 3, 3)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = decode(encoded(Image.fromarray(PIXELS), exif=exif), "image")
    np.testing.assert_array_equal(turned, np.rot90(PIXELS, -1))


def test_broken_exif_leaves_the_pixels() -> None:
    content = encoded(Image.fromarray(PIXELS), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff rubbish")
    np.testing.assert_array_equal(decode(content, "image"), PIXELS)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP", "PPM"])
def test_half_a_file_is_truncated(file_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), file_format)
    assert reason_of(content[: len(content) // 2], "image") == "truncated"


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_no_damage_raises_anything_but_an_item_error(file_format: str, capfd: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), file_format)
    codes = set()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(300):
            damaged = bytearray(content)
            for _ in range(3):
                damaged[draw.randrange(min(len(damaged), 150))] = draw.randrange(256)
            try:
                decode(bytes(damaged), "image")
            except ItemError as error:
                codes.add(error.reason)
                assert " at 0x" not in error.detail  # an address would differ from run to run
    assert codes <= {"undecodable", "truncated", "too_large"}
    assert not told
    assert capfd.readouterr().out == ""


def test_too_many_pixels_are_an_error_not_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    content = encoded(Image.new("RGB", (10, 11)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason_of(content, "image") == "too_large"
        assert reason_of(encoded(Image.new("RGB", (100, 100))), "image") == "too_large"
        assert decode(encoded(Image.new("RGB", (10, 10))), "image").shape == (10, 10, 3)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_null_and_empty(kind: str) -> None:
    assert reason_of(None, kind) == "null_content"
    assert reason_of(b"", kind) == "empty"


def test_what_is_no_image_is_undecodable() -> None:
    assert reason_of(b"once upon a time", "image") == "undecodable"


def test_text_from_str_and_bytes() -> None:
    assert decode("héllo", "text") == "héllo"
    assert decode("héllo".encode(), "text") == "héllo"
    assert decode(b"\xef\xbb\xbfhello", "text") == "hello"
    assert reason_of(" \n\t", "text") == "empty"
    assert reason_of(b"\xff\xfe\x00", "text") == "undecodable"
    assert reason_of("\ud800", "text") == "undecodable"


def test_a_wrong_kind_or_column_is_the_users_mistake() -> None:
    with pytest.raises(LakestrataError, match="image, text"):
        decode(b"x", "video")
    with pytest.raises(LakestrataError, match="type int"):
        decode(3, "image")


def test_an_item_error_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(ItemError("missing", "no such file")))
    assert (error.reason, error.detail, str(error)) == ("missing", "no such file", "missing: no such file")


@pytest.mark.parametrize("prefix", ["", "file:", "file://"])
def test_paths_and_uris(tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "a picture.png"
    file.write_bytes(encoded(Image.fromarray(PIXELS)))
    np.testing.assert_array_equal(decode(f"{prefix}{file}", "image"), PIXELS)
    assert reason_of(f"{prefix}{file}.no", "image") == "missing"
    assert reason_of(f"{prefix}{tmp_path}", "image") == "missing"
    file.write_bytes(b"")
    assert reason_of(f"{prefix}{file}", "image") == "empty"


@pytest.mark.parametrize("path", ["", "  ", "a\0b", "x" * 5000, "nosuch://a/b", "/etc/passwd/x"])
def test_paths_that_cannot_be(path: str) -> None:
    assert reason_of(path, "image") == "missing"


def test_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    (tmp_path / "big").write_bytes(b"0" * 11)
    (tmp_path / "fits").write_bytes(b"0" * 10)
    assert reason_of(str(tmp_path / "big"), "image") == "too_large"
    assert read(str(tmp_path / "fits")) == b"0" * 10


def test_a_store_without_its_package_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(LakestrataError, match="s3"):
        read("s3://bucket/key")
    with pytest.raises(LakestrataError, match="abfss"):
        read("abfss://container@account/key")


class Store:
    """A store that fails some times before it answers."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def open(self, name: str, mode: str) -> io.BytesIO:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return io.BytesIO(b"content")


SERVICE_ERRORS = [
    PermissionError(13, "denied"),
    OSError("503 Slow Down"),
    TimeoutError(),
    RuntimeError("reset"),
]


@pytest.mark.parametrize("error", SERVICE_ERRORS, ids=lambda error: type(error).__name__)
def test_a_broken_service_is_retried_and_then_raised_as_it_is(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    for failures, calls in ((2, 3), (9, 3)):
        store = Store(failures, error)
        monkeypatch.setattr(module, "_resolve", lambda path, store=store: (store, path))
        if failures < calls:
            assert read("store/key") == b"content"
        else:
            with pytest.raises(type(error)) as caught:
                decode("store/key", "image")
            assert caught.value is error
        assert store.calls == calls
    assert len(waits) == 4
    assert all(0 < wait < 3 for wait in waits)


def test_a_missing_file_is_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(9, FileNotFoundError(2, "No such key"))
    monkeypatch.setattr(module, "_resolve", lambda path: (store, path))
    assert reason_of("store/key", "image") == "missing"
    assert store.calls == 1


@pytest.mark.skipif(not BROKEN.is_dir(), reason="the broken files are not here")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.jpg", "truncated"),
        ("empty.jpg", "empty"),
        ("text_named.png", "undecodable"),
        ("alexa_126.flac", "undecodable"),
        ("header_only.wav", "undecodable"),
    ],
)
def test_broken_files_from_the_wild(name: str, reason: str) -> None:
    assert reason_of(str(BROKEN / name), "image") == reason
    assert reason_of((BROKEN / name).read_bytes(), "image") == reason
