"""The embedding pandas UDF: decode, encode, normalise, per partition; broken items get a reason, not an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import Column
from pyspark.sql.pandas.functions import pandas_udf

from .decode import ItemError, decode
from .encoders import Encoder, EncoderSpec, load

OUTPUT_DDL = "embedding array<float>, reason string, detail string"


def embed_column(
    spec: EncoderSpec, kind: str, *, device: str = "auto", batch_size: int = 128, unit_length: bool = True
) -> Callable[[Column], Column]:
    """Make the UDF that embeds a column of contents.

    Args:
        spec: The encoder; a worker loads it once.
        kind: "image" or "text".
        device: "auto", "cpu" or "cuda".
        batch_size: Items encoded at once.
        unit_length: Whether to scale vectors to unit L2 length.

    Returns:
        From a content column to struct<embedding: array<float>, reason: string, detail: string>: either the
        embedding, or a short reason code and what was wrong.
    """

    def embed(contents: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        encoder = load(spec, device)
        for series in contents:
            yield embed_items(encoder, list(series), kind, batch_size=batch_size, unit_length=unit_length)

    # Given apart: the annotations above are strings, which Spark would resolve in a scope that lacks them.
    embed.__annotations__ = {"contents": Iterator[pd.Series], "return": Iterator[pd.DataFrame]}
    udf: Callable[[Column], Column] = pandas_udf(embed, OUTPUT_DDL)  # type: ignore[call-overload] # has no iterator of structs
    return udf


def embed_items(
    encoder: Encoder, contents: list[Any], kind: str, *, batch_size: int, unit_length: bool
) -> pd.DataFrame:
    """Embed contents, and say of each that cannot be what is wrong with it.

    Args:
        encoder: The loaded encoder, of dimension d.
        contents: Raw contents, n of them.
        kind: "image" or "text".
        batch_size: Items encoded at once.
        unit_length: Whether to scale vectors to unit L2 length.

    Returns:
        n rows: embedding (float32 of shape (d,), or None), reason and detail (None where embedded).
    """
    rows: list[tuple[NDArray[np.float32] | None, str | None, str | None]] = []
    for start in range(0, len(contents), batch_size):
        rows += _embed_batch(encoder, contents[start : start + batch_size], kind, unit_length)
    return pd.DataFrame(rows, columns=["embedding", "reason", "detail"], dtype=object)


def _embed_batch(
    encoder: Encoder, contents: list[Any], kind: str, unit_length: bool
) -> list[tuple[NDArray[np.float32] | None, str | None, str | None]]:
    rows: list[tuple[NDArray[np.float32] | None, str | None, str | None]] = [(None, None, None)] * len(contents)
    places, items = [], []
    for place, content in enumerate(contents):
        try:
            items.append(decode(content, kind))
            places.append(place)
        except ItemError as error:
            rows[place] = (None, error.reason, error.detail)
    if not items:
        return rows
    vectors = encoder.encode(items)
    for place, vector in zip(places, unit(vectors) if unit_length else vectors, strict=True):
        if not np.isfinite(vector).all():
            rows[place] = (None, "not_finite", "the encoder gave numbers that are not finite")
        else:
            rows[place] = (vector, None, None)
    return rows


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors, shape (n, d), to unit L2 length; zero vectors stay zero."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    lengths[lengths == 0] = 1.0
    scaled: NDArray[np.float32] = (vectors / lengths).astype(np.float32)
    return scaled
