"""Lakes to curate: real embeddings with classes, cut so that some classes have many items and others few."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

EMBEDDINGS = Path(os.environ.get("LAKESTRATA_DATA", Path(__file__).parents[2] / "shared" / "data")) / "embeddings"
IMBALANCES = (1, 10, 50, 200)
MOST_ITEMS = 8_000
MANY_CLASSES = 20  # sets of so many classes have few items in each, and some classes to spare for a background
_TESTED, _TESTED_OF_MANY, _TESTED_SHARE = 100, 10, 3  # held-out items of a class; at most a third of them
LABELLED = 5  # others of a class, for a small labelled table
_BACKGROUND_CLASSES, _BACKGROUND_ITEMS = 0.3, 0.1
_EUROSAT_STEP = 0.0235  # its uint8 in the units of the network
_NO_CLASS = "oos"  # what CLINC150 calls sentences of none of its 150 classes


@dataclass(frozen=True)
class Labelled:
    """Vectors with classes.

    Attributes:
        x: Vectors, float32, shape (n, d).
        y: Classes 0..c-1, shape (n,).
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return int(self.y.max()) + 1


@dataclass(frozen=True)
class Cut:
    """How a lake is cut from a set.

    Attributes:
        imbalance: Items of the largest class over those of the smallest.
        background: Whether some classes become one diffuse class that no test asks for.
    """

    imbalance: int
    background: bool = False

    @property
    def name(self) -> str:
        """As figures and tables call it."""
        return f"{self.imbalance}_background" if self.background else str(self.imbalance)


@dataclass(frozen=True)
class Lake:
    """A lake, and a test set that is even by class.

    Attributes:
        items: Of the lake; a background is its last class.
        n_classes: Classes of the lake, also those that thinning left without items.
        test: Held-out items of all classes but the background.
        known: As `test`, a few a class, for who has labels.
    """

    items: Labelled
    n_classes: int
    test: Labelled
    known: Labelled


def labelled_sets() -> dict[str, Labelled]:
    """The sets by name; none where the embeddings are not at hand."""
    if not EMBEDDINGS.is_dir():
        return {}
    eurosat, clinc = (np.load(EMBEDDINGS / f"{name}.npz") for name in ("eurosat_mobilenet", "clinc150_minilm"))
    known, digits = clinc["label"] != _NO_CLASS, load_digits()
    return {
        "digits": _labelled(digits.data, digits.target),
        "eurosat": _labelled(eurosat["embedding"].astype(np.float32) * np.float32(_EUROSAT_STEP), eurosat["label"]),
        "clinc": _labelled(clinc["embedding"][known], clinc["label"][known]),
    }


def _labelled(x: NDArray[np.float64], labels: NDArray[np.str_]) -> Labelled:
    return Labelled(x.astype(np.float32), np.unique(labels, return_inverse=True)[1].astype(np.int64))


def cuts_of(full: Labelled) -> list[Cut]:
    """All cuts of a set; with a background where there are classes to spare."""
    plain = [Cut(imbalance) for imbalance in IMBALANCES]
    return plain + [Cut(imbalance, True) for imbalance in IMBALANCES] if full.n_classes >= MANY_CLASSES else plain


def cut_lake(full: Labelled, cut: Cut, seed: int) -> Lake:
    """Hold out some, keep the fewer items of a class the later it comes in a random order, and thin the rest."""
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(full.y == label)) for label in rng.permutation(full.n_classes)]
    n_background = int(_BACKGROUND_CLASSES * len(rows)) if cut.background else 0
    background, classes = rows[:n_background], rows[n_background:]
    most_tested = _TESTED_OF_MANY if full.n_classes >= MANY_CLASSES else _TESTED
    n_tested = [min(most_tested, len(own) // _TESTED_SHARE) for own in classes]
    tested = [own[:n] for own, n in zip(classes, n_tested, strict=True)]
    known = [own[n : n + LABELLED] for own, n in zip(classes, n_tested, strict=True)]
    kept = _thin_out([own[n + LABELLED :] for own, n in zip(classes, n_tested, strict=True)], cut.imbalance)
    if background:
        n_items = sum(map(len, kept)) * _BACKGROUND_ITEMS / (1 - _BACKGROUND_ITEMS)
        share = max(1, round(n_items / len(background)))
        kept.append(np.concatenate([own[:share] for own in background]))
    chosen, y = _joined(kept)
    some = rng.permutation(len(chosen))[:MOST_ITEMS]
    held_out = [Labelled(full.x[rows], labels) for rows, labels in map(_joined, (tested, known))]
    return Lake(Labelled(full.x[chosen[some]], y[some]), len(kept), *held_out)


def _thin_out(classes: list[NDArray[np.intp]], imbalance: int) -> list[NDArray[np.intp]]:
    """The first rows of each class: the largest class's number times imbalance^(-r / (C - 1)), or all it has."""
    largest, last = max(map(len, classes)), len(classes) - 1
    return [own[: max(1, round(largest * imbalance ** (-r / last)))] for r, own in enumerate(classes)]


def _joined(classes: list[NDArray[np.intp]]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Rows of all classes, and the class of each."""
    return np.concatenate(classes), np.repeat(np.arange(len(classes)), [len(own) for own in classes])
