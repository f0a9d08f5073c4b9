"""The convolutional encoder: good enough to cluster by, the same every time, and content with little."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lakestrata.schemas.errors import LakestrataError
from lakestrata.udfs import encoders
from lakestrata.udfs.decode import decode
from lakestrata.udfs.encoders import EncoderSpec

Images = list[NDArray[np.uint8]]
SMALL = {"filters": 16, "dimension": 8}


@pytest.fixture(scope="module")
def digits() -> tuple[Images, NDArray[np.int64]]:
    """1,797 scans of digits, through PNG bytes as they would come from a table."""
    data = load_digits()
    images: Images = []
    for scan in data.images:
        buffer = io.BytesIO()
        Image.fromarray(np.rint(scan * (255 / 16)).astype(np.uint8)).save(buffer, "PNG")
        images.append(decode(buffer.getvalue(), "image"))
    return images, data.target


@pytest.fixture(scope="module")
def embedded(digits: tuple[Images, NDArray[np.int64]]) -> NDArray[np.float32]:
    images, _ = digits
    order = np.random.default_rng(0).permutation(len(images))[:600]
    return encoders.load(encoders.fit("convolution", {}, [images[i] for i in order], seed=0), "cpu").encode(images)


@pytest.fixture
def photos() -> Images:
    """Coloured noise of mixed sizes, smooth enough to have some structure."""
    rng = np.random.default_rng(1)
    grains = [rng.integers(0, 256, (6, 7, 3), dtype=np.uint8) for _ in range(12)]
    sizes = [(40 + 3 * i, 30 + 5 * i) for i in range(12)]
    return [np.asarray(Image.fromarray(g).resize(size)) for g, size in zip(grains, sizes, strict=True)]


def test_a_linear_probe_reads_the_digits(
    digits: tuple[Images, NDArray[np.int64]], embedded: NDArray[np.float32]
) -> None:
    train, test, known, wanted = train_test_split(
        embedded, digits[1], test_size=0.5, stratify=digits[1], random_state=0
    )
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, known)
    assert probe.score(test, wanted) >= 0.98


def test_clusters_of_digits_are_pure(digits: tuple[Images, NDArray[np.int64]], embedded: NDArray[np.float32]) -> None:
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    for vectors in (embedded, unit):
        clusters = KMeans(60, n_init=1, random_state=0).fit_predict(vectors)
        purity = sum(np.bincount(digits[1][clusters == c]).max() for c in range(60)) / len(unit)
        assert purity >= 0.94


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(photos: Images) -> None:
    first, again, other = (encoders.fit("convolution", SMALL, photos, seed).state for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_the_state_round_trips_without_pickle(photos: Images) -> None:
    spec = encoders.fit("convolution", SMALL, photos, 0)
    assert spec.state is not None
    with np.load(io.BytesIO(spec.state), allow_pickle=False) as state:
        assert {state[name].dtype.kind for name in state.files} == {"i", "f"}
    before = encoders.load(spec, "cpu").encode(photos)
    encoders.clear_cache()
    stored = EncoderSpec(spec.name, dict(spec.params), bytes(bytearray(spec.state)), spec.revision)
    assert stored.encoder_id == spec.encoder_id
    np.testing.assert_array_equal(encoders.load(stored, "cpu").encode(photos), before)


def test_embeddings_hardly_depend_on_the_batch(photos: Images) -> None:
    encoder = encoders.load(encoders.fit("convolution", SMALL, photos, 0), "cpu")
    whole = encoder.encode(photos)
    assert whole.shape == (12, encoder.dimension) == (12, 8)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.vstack([encoder.encode([p]) for p in photos]), whole, atol=1e-5)
    assert encoder.encode([]).shape == (0, 8)


def test_the_id_hangs_on_what_changes_vectors_and_on_nothing_else(photos: Images) -> None:
    spec = encoders.fit("convolution", SMALL, photos, 0)
    assert spec.state is not None
    assert spec.kind == "image"
    assert len(spec.encoder_id) == 32
    others = [
        replace(spec, state=spec.state + b"\0"),
        replace(spec, state=None),
        replace(spec, name="x"),
        replace(spec, params={**SMALL, "patch": 5}),
        replace(spec, revision="1"),
    ]
    assert len({spec.encoder_id, *(other.encoder_id for other in others)}) == 6
    assert replace(spec, params={"dimension": 8, "filters": 16}).encoder_id == spec.encoder_id
    assert replace(spec, params={**SMALL, "device": "cpu", "batch_size": 7}).encoder_id == spec.encoder_id


def test_a_process_loads_a_model_once(photos: Images) -> None:
    encoders.clear_cache()
    spec = encoders.fit("convolution", SMALL, photos, 0)
    first = encoders.load(spec, "cpu")
    assert encoders.load(EncoderSpec(spec.name, spec.params, spec.state), "cpu") is first
    assert encoders.load(encoders.fit("convolution", SMALL, photos, 1), "cpu") is not first


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_images_still_give_d_floats(photos: Images, count: int) -> None:
    encoder = encoders.load(encoders.fit("convolution", {}, photos[:count], 0), "cpu")
    vectors = encoder.encode(photos)
    assert vectors.shape == (12, 128) == (12, encoder.dimension)
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors.round(4), axis=0)) == 12


def test_images_smaller_than_a_patch_and_without_any_contrast() -> None:
    flat = [np.full((2, 3, 3), level, np.uint8) for level in (0, 128, 255)]
    encoder = encoders.load(encoders.fit("convolution", SMALL, flat, 0), "cpu")
    assert np.isfinite(encoder.encode([*flat, np.zeros((1, 1), np.uint8)])).all()


def test_grey_of_either_shape_is_the_same(photos: Images) -> None:
    grey = [photo[..., 0] for photo in photos]
    tripled = [np.stack([g] * 3, axis=-1) for g in grey]
    plain, threefold = (encoders.fit("convolution", SMALL, images, 0) for images in (grey, tripled))
    assert plain.state == threefold.state
    encoder = encoders.load(plain, "cpu")
    np.testing.assert_array_equal(encoder.encode(grey), encoder.encode(tripled))
    np.testing.assert_array_equal(encoder.encode([g[..., None] for g in grey]), encoder.encode(tripled))


def test_colour_tells_images_of_the_same_texture_apart(photos: Images) -> None:
    tints = [np.full((8, 8, 3), colour, np.uint8) for colour in ((200, 30, 30), (30, 30, 200))]
    encoder = encoders.load(encoders.fit("convolution", {}, photos + tints, 0), "cpu")
    red, blue = encoder.encode(tints)
    assert np.linalg.norm(red - blue) > 0.5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"filter": 3}, "no param filter; known: size, patch"),
        ({"filters": 0}, "filters is 0; it should be an integer from 1"),
        ({"patch": True}, "patch is True"),
        ({"threshold": "high"}, "threshold is 'high'; it should be a number"),
        ({"size": 8, "patch": 8}, "leave 1 positions a side"),
        ({"channels": 2}, "channels is 2"),
        ({"filters": 8000, "grid": 4}, "make 256000 features"),
    ],
)
def test_bad_params_are_told_in_one_line(params: dict[str, object], message: str, photos: Images) -> None:
    with pytest.raises(LakestrataError, match=message) as caught:
        encoders.fit("convolution", params, photos, 0)
    assert "\n" not in caught.value.message


def test_what_cannot_be_loaded_is_told_in_one_line(photos: Images) -> None:
    spec = encoders.fit("convolution", SMALL, photos, 0)
    with pytest.raises(LakestrataError, match="the sample is empty"):
        encoders.fit("convolution", SMALL, [], 0)
    with pytest.raises(LakestrataError, match="fit it before loading"):
        encoders.load(replace(spec, state=None), "cpu")
    with pytest.raises(LakestrataError, match="cannot be read"):
        encoders.load(replace(spec, state=b"PK rubbish"), "cpu")
    with pytest.raises(LakestrataError, match="auto, cpu or cuda"):
        encoders.load(spec, "tpu")


def test_cuda_gives_the_same_but_for_the_last_bits(photos: Images) -> None:
    torch = pytest.importorskip("torch")
    spec = encoders.fit("convolution", SMALL, photos, 0)
    if not torch.cuda.is_available():
        with pytest.raises(LakestrataError, match="no CUDA device"):
            encoders.load(spec, "cuda")
        return
    on_gpu = encoders.load(spec, "cuda").encode(photos)
    np.testing.assert_allclose(on_gpu, encoders.load(spec, "cpu").encode(photos), atol=1e-4)


def test_the_driver_imports_neither_torch_nor_spark() -> None:
    code = (
        "import sys, lakestrata.udfs.encoders, lakestrata.udfs.decode\n"
        "heavy = {'torch', 'PIL', 'pyspark', 'pyarrow', 'sentence_transformers'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
