"""How many items each cluster of a tree gives: water-filling with a lottery that nests.

Among the children of a node with sizes s_i, weights w_i = s_i^temperature and lots u_i in [0, 1),

    quota_i(x) = min(multiplier * s_i, floor(x * w_i + u_i)),  with the smallest x that adds up to the target.

Child i gains its j-th item at x_ij = (j - u_i) / w_i, so a quota is its number of steps among the first
`target` steps of all the children, taken in order of (x, child). That is the definition used below; it makes
the sum exact where several children step at once, and samples nest, since a larger target takes more steps.
The steps are ordered by `(j - u) / w` in IEEE float64 and by nothing else, on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from .expectation import expected_level
from .hashing import mix64
from .law import Law
from .waterfill import MAX_CAPACITY, fill_level, power_weights, real_level


@dataclass(frozen=True)
class Quotas:
    """The shares of the clusters of one level.

    Attributes:
        sizes: Items below each cluster, int64 (k,).
        quota: Items drawn from each cluster, repeats counted, int64 (k,).
        expected: Mean of `quota` over all seeds, float64 (k,).
    """

    sizes: NDArray[np.int64]
    quota: NDArray[np.int64]
    expected: NDArray[np.float64]


def water_fill(
    sizes: NDArray[np.int64],
    target: int,
    *,
    multiplier: int = 1,
    temperature: float = 0.0,
    u: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Share a target among the children of one node.

    Args:
        sizes: Items below each child, int64 (c,), each >= 0.
        target: Items wanted; above `multiplier * sizes.sum()` all there is is given.
        multiplier: How often an item may repeat, >= 1.
        temperature: 0 shares evenly, 1 in proportion to the sizes.
        u: Lots of the children, float64 (c,), in [0, 1).

    Returns:
        Quotas, int64 (c,), with sum min(target, multiplier * sizes.sum()).

    Raises:
        ValueError: An argument is out of range, or shapes differ.
    """
    sizes = _checked_sizes(sizes)
    _check_rule(target, multiplier, temperature, int(sizes.sum()))
    lots = np.asarray(u, dtype=np.float64)
    if lots.shape != sizes.shape:
        raise ValueError(f"u has shape {lots.shape}; expected that of sizes, {sizes.shape}")
    if not np.all((lots >= 0) & (lots < 1)):
        raise ValueError(f"u must lie in [0, 1), got {lots.min()} to {lots.max()}")
    owner = np.zeros(len(sizes), dtype=np.int64)
    targets = np.array([min(target, multiplier * int(sizes.sum()))], dtype=np.int64)
    return fill_level(owner, sizes, power_weights(sizes, temperature), targets, multiplier, lots)


def expected_water_fill(
    sizes: NDArray[np.int64], target: float, *, multiplier: int = 1, temperature: float = 0.0
) -> NDArray[np.float64]:
    """Share a target over the reals: min(multiplier * s_i, x * s_i^temperature).

    At temperature 0 this is the mean of `water_fill` over the lots; at others it is near it
    (`tree_quotas` gives that mean itself).

    Args:
        sizes: Items below each child, int64 (c,), each >= 0.
        target: Items wanted, >= 0; need not be whole.
        multiplier: How often an item may repeat, >= 1.
        temperature: 0 shares evenly, 1 in proportion to the sizes.

    Returns:
        Shares, float64 (c,), with sum min(target, multiplier * sizes.sum()).

    Raises:
        ValueError: An argument is out of range.
    """
    sizes = _checked_sizes(sizes)
    if not 0 <= target < float("inf"):
        raise ValueError(f"target={target} must be finite and >= 0")
    _check_rule(0, multiplier, temperature, int(sizes.sum()))
    owner = np.zeros(len(sizes), dtype=np.int64)
    weights, caps = power_weights(sizes, temperature), (multiplier * sizes).astype(np.float64)
    return real_level(owner, weights, caps, np.array([target], dtype=np.float64))


def lots_of_level(n_clusters: int, level: int, seed: int) -> NDArray[np.float64]:
    """Draw the lots of a level's clusters by their ids: float64 (n_clusters,), multiples of 2**-53."""
    words = mix64(np.arange(n_clusters, dtype=np.uint64), seed, level)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def tree_quotas(
    parents: Sequence[NDArray[np.int64]],
    leaf_sizes: NDArray[np.int64],
    target: int,
    *,
    multiplier: int = 1,
    temperature: float = 0.0,
    weights: Sequence[NDArray[np.float64]] | None = None,
    seed: int = 0,
) -> list[Quotas]:
    """Share a target among all clusters of a tree, from the root down.

    Args:
        parents: For levels 1..T-1, the id in the level above of each cluster: int64 (k_t,). The clusters of
            level T are the children of the root.
        leaf_sizes: Items of each cluster of level 1, int64 (k_1,), each >= 0.
        target: Items wanted; above the capacity of the tree all there is is given.
        multiplier: How often an item may repeat, >= 1.
        temperature: 0 shares evenly, 1 in proportion to the sizes.
        weights: Shares in proportion to these in place of the sizes' powers: float64 (k_t,) a level, > 0 where there
            are items.
        seed: Names the lottery. With one seed the quotas of a smaller target are nowhere larger.

    Returns:
        One `Quotas` a level; that of level t has index t - 1.

    Raises:
        ValueError: An argument is out of range, or `parents` is no tree over `leaf_sizes`.
    """
    sizes = tree_sizes(parents, leaf_sizes)
    total = int(sizes[0].sum())
    _check_rule(target, multiplier, temperature, total)
    quota = np.array([min(target, multiplier * total)], dtype=np.int64)
    share = Quotas(sizes[-1].sum(keepdims=True), quota, quota.astype(np.float64))
    law = Law.certain(quota)
    levels: list[Quotas] = []
    for t in range(len(sizes), 0, -1):
        owner = parents[t - 1] if t < len(sizes) else np.zeros(len(sizes[-1]), dtype=np.int64)
        lots = lots_of_level(len(owner), t, seed)
        given = power_weights(sizes[t - 1], temperature) if weights is None else weights[t - 1]
        is_even = weights is None and temperature == 0
        share, law = _share_level(owner, sizes[t - 1], given, share, law, multiplier, is_even, lots)
        levels.append(share)
    return levels[::-1]


def _share_level(
    parent: NDArray[np.int64],
    sizes: NDArray[np.int64],
    weights: NDArray[np.float64],
    above: Quotas,
    law: Law,
    multiplier: int,
    is_even: bool,
    lots: NDArray[np.float64],
) -> tuple[Quotas, Law]:
    """Share what the clusters of the level above give, with laws of it, among those of one level."""
    order = np.argsort(parent, kind="stable")  # siblings side by side, in order of their ids
    back = np.argsort(order)
    owner, sorted_sizes, weights = parent[order], sizes[order], weights[order]
    quota = fill_level(owner, sorted_sizes, weights, above.quota, multiplier, lots[order])
    caps = (multiplier * sorted_sizes).astype(np.float64)
    if is_even:  # the recursion over the reals is the mean there: it needs no laws
        return Quotas(sizes, quota[back], real_level(owner, weights, caps, above.expected)[back]), law
    expected, law = expected_level(owner, weights, caps, above.expected, law)
    return Quotas(sizes, quota[back], expected[back]), law.take(back)


def tree_sizes(parents: Sequence[NDArray[np.int64]], leaf_sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Count the items below each cluster, level by level.

    Args:
        parents: As in `tree_quotas`. The number of clusters of level t + 1 is the length of
            `parents[t]`; that of level T is 1 + the largest parent.
        leaf_sizes: Items of each cluster of level 1, int64 (k_1,).

    Returns:
        int64 (k_t,) a level; that of level t has index t - 1.

    Raises:
        ValueError: Lengths do not fit or an id is out of range.
    """
    sizes = [_checked_sizes(leaf_sizes)]
    for t, parent in enumerate(parents, start=1):
        if parent.shape != sizes[-1].shape:
            raise ValueError(f"parents of level {t} have shape {parent.shape}; the level has {len(sizes[-1])} clusters")
        above = len(parents[t]) if t < len(parents) else int(parent.max(initial=-1)) + 1
        if len(parent) and not (parent.min() >= 0 and parent.max() < above):
            raise ValueError(f"parents of level {t} must lie in [0, {above}), got {parent.min()} to {parent.max()}")
        sums = np.zeros(above, dtype=np.int64)
        np.add.at(sums, parent, sizes[-1])
        sizes.append(sums)
    return sizes


def tree_weights(
    parents: Sequence[NDArray[np.int64]], weights: NDArray[np.float64], level: int, n_leaves: int
) -> list[NDArray[np.float64]]:
    """Weights of all clusters of a tree from those of one level: sums above it, and equal shares below it.

    Args:
        parents: As in `tree_quotas`.
        weights: Of the clusters of that level, float64 (k_level,).
        level: 1-based.
        n_leaves: Clusters of level 1.

    Returns:
        float64 (k_t,) a level; that of level t has index t - 1.
    """
    counts = [n_leaves, *(len(parent) for parent in parents[1:])]
    found = [np.ones(k) for k in counts[: level - 1]]
    found.append(weights)
    for t, parent in enumerate(parents[level - 1 :], start=level):
        sums = np.zeros(len(parents[t]) if t < len(parents) else int(parent.max(initial=-1)) + 1)
        np.add.at(sums, parent, found[-1])
        found.append(sums)
    return found


def _checked_sizes(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    sizes = np.asarray(sizes)
    if sizes.ndim != 1 or not (np.issubdtype(sizes.dtype, np.integer) or sizes.size == 0):
        raise ValueError(f"sizes must be integers of one dimension, got {sizes.dtype} of shape {sizes.shape}")
    if sizes.size and sizes.min() < 0:
        raise ValueError(f"sizes must be >= 0, got {sizes.min()}")
    if (total := sizes.sum(dtype=np.float64)) > MAX_CAPACITY:  # int64 sums could wrap around
        raise ValueError(f"sizes add up to {total:.3g} items, above the limit of {MAX_CAPACITY}")
    return sizes.astype(np.int64)


def _check_rule(target: int, multiplier: int, temperature: float, total: int) -> None:
    if not isinstance(target, Integral) or target < 0:
        raise ValueError(f"target={target} must be an integer >= 0")
    if not isinstance(multiplier, Integral) or multiplier < 1:
        raise ValueError(f"multiplier={multiplier} must be an integer >= 1")
    if not 0 <= temperature <= 1:
        raise ValueError(f"temperature={temperature} must lie in [0, 1]")
    if multiplier * total > MAX_CAPACITY:
        raise ValueError(f"multiplier={multiplier} times {total} items is above the limit of {MAX_CAPACITY}")
