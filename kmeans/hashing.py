"""Hashes that rank and draw: the same 64 bits on every machine.

Hashes only rank. Where two ids share a hash, the ids themselves decide.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

MOST_CLASS = 15  # the smallest nested batch is one point in 2**15
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


def mix64(keys: NDArray[np.uint64], *salts: int) -> NDArray[np.uint64]:
    """Mix 64-bit keys with salts (a seed, a purpose) into uniform 64-bit values.

    For fixed salts this is a bijection of the keys: a chain of splitmix64 finalisers
    (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").

    Args:
        keys: uint64, any shape.
        *salts: Integers; only their lowest 64 bits count.

    Returns:
        uint64 of the shape of `keys`.
    """
    mixed = np.array(keys, dtype=np.uint64)  # a copy: the steps below work in place
    with np.errstate(over="ignore"):
        _finalise(mixed)
        for salt in salts:
            mixed ^= np.uint64(((salt & _MASK) * _GOLDEN + 1) & _MASK)
            _finalise(mixed)
    return mixed


def _finalise(z: NDArray[np.uint64]) -> None:
    z += np.uint64(_GOLDEN)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)


def hash_ids(ids: NDArray[np.int64] | NDArray[np.object_]) -> NDArray[np.uint64]:
    """Hash item ids to 64 bits.

    Args:
        ids: int64 or strings (object), shape (n,).

    Returns:
        uint64, shape (n,): mixed integers, or the first 8 bytes of BLAKE2b of the UTF-8 text.
    """
    if ids.dtype == np.int64:
        return mix64(ids.view(np.uint64))
    digests = b"".join(blake2b(str(i).encode(), digest_size=8).digest() for i in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def draw_below(total: int, *salts: int) -> int:
    """Draw an integer uniformly from [0, total) with the salts as its seed (total <= 2**63)."""
    word = int(mix64(np.zeros(1, np.uint64), *salts)[0])
    return (word * total) >> 64


def batch_class(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Leading zeros of id hashes, at most `MOST_CLASS`: the points of class >= j are nested batch j, 1 in 2**j.

    Args:
        hashes: As from `hash_ids`, shape (n,).

    Returns:
        int64, shape (n,).
    """
    _, exponents = np.frexp((hashes >> np.uint64(11)).astype(np.float64))  # 53 bits, which float64 holds
    classes: NDArray[np.int64] = np.minimum(53 - exponents, MOST_CLASS).astype(np.int64)
    return classes
