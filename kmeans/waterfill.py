"""Water-filling of many nodes at once: in whole items by lot, and over the reals.

Children lie side by side, sorted by their node (`owner`) and within it by their id.

The steps of the lottery are ordered by `(j - u) / w` in IEEE float64 and by nothing else. Only + - * / sqrt
and floor in a fixed order are used, no libm, so that the last bit is the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Up to here j - u and x * w are off by less than half a step, so that one correction finds the true count.
MAX_CAPACITY = 2**50


def power_weights(sizes: Ints | Floats, temperature: float) -> Floats:
    """Raise sizes to the temperature by square roots and products alone, which IEEE fixes to the last bit.

    The binary digits of the temperature say which of s^(1/2), s^(1/4), ... to multiply. Equal sizes have
    equal weights, larger ones never smaller. Relative error below 1e-14.

    Args:
        sizes: Any shape, 0 or at least 1.
        temperature: In [0, 1].

    Returns:
        float64 of that shape.
    """
    root = sizes.astype(np.float64)
    if temperature == 1:
        return root
    weights, rest = np.ones_like(root), temperature
    while rest > 0 and np.any(root > 1):
        root, rest = np.sqrt(root), 2 * rest
        if rest >= 1:
            weights, rest = weights * root, rest - 1
    return np.where((sizes > 0) | (temperature == 0), weights, 0.0)


def real_level(owner: Ints, weights: Floats, caps: Floats, targets: Floats) -> Floats:
    """Water-fill many nodes over the reals.

    Args:
        owner: Node of each child, int64 (c,), ascending.
        weights: float64 (c,), >= 0.
        caps: What each child can give, float64 (c,), >= 0.
        targets: What each node gives, float64 (n,).

    Returns:
        Shares of the children, float64 (c,).
    """
    capacity = np.bincount(owner, weights=caps, minlength=len(targets))
    x = solve_level(owner, weights, caps, targets)
    return np.where((targets >= capacity)[owner], caps, np.minimum(caps, x[owner] * weights))


def solve_level(owner: Ints, weights: Floats, caps: Floats, targets: Floats) -> Floats:
    """Find each node's x at which min(caps, x * weights) adds up to its target, or all children are full."""
    n = len(targets)
    x = np.zeros(n)
    n_capped = -1
    while True:  # x only grows, so children only become full: it ends
        capped = caps <= x[owner] * weights
        if (found := int(np.count_nonzero(capped))) == n_capped:
            break
        n_capped = found
        rate = np.bincount(owner, weights=np.where(capped, 0.0, weights), minlength=n)
        given = np.bincount(owner, weights=np.where(capped, caps, 0.0), minlength=n)
        x = np.maximum(x, np.divide(targets - given, rate, out=np.zeros(n), where=rate > 0))
    brim = np.zeros(n)
    np.maximum.at(brim, owner, np.divide(caps, weights, out=np.zeros(len(caps)), where=weights > 0))
    return np.minimum(x, brim)


def fill_level(owner: Ints, sizes: Ints, weights: Floats, targets: Ints, multiplier: int, u: Floats) -> Ints:
    """Share each node's target among its children; children sorted by (owner, id), `targets` by node.

    Weights are > 0 where sizes are.
    """
    caps = multiplier * sizes
    capacity = np.zeros(len(targets), dtype=np.int64)
    np.add.at(capacity, owner, caps)
    quotas = np.where((targets >= capacity)[owner], caps, 0)
    open_nodes = (targets > 0) & (targets < capacity)
    chosen = np.flatnonzero(open_nodes[owner] & (sizes > 0))
    if len(chosen):
        node = (np.cumsum(open_nodes) - 1)[owner[chosen]]
        steps = _Steps(node, weights[chosen], caps[chosen].astype(np.float64), u[chosen])
        quotas[chosen] = _first_steps(steps, targets[open_nodes])
    return quotas


@dataclass(frozen=True)
class _Steps:
    """The steps of many nodes' children: child i takes step j = 1..caps[i] at x = (j - u[i]) / weights[i].

    Children are sorted by node, and every node 0..m-1 has some. Counts are whole numbers in float64.
    """

    node: Ints
    weights: Floats
    caps: Floats
    u: Floats

    def at(self, j: Floats) -> Floats:
        return (j - self.u) / self.weights

    def until(self, x: Floats) -> Floats:
        """Count each child's steps at or before its node's x."""
        limit = x[self.node]
        count = np.minimum(np.floor(limit * self.weights + self.u), self.caps)
        # The product may have rounded past a step: the steps' own places decide.
        count -= self.at(count) > limit
        count += (count < self.caps) & (self.at(count + 1) <= limit)
        return count


def _first_steps(steps: _Steps, targets: Ints) -> Ints:
    """Count each child's steps among the first `targets[node]` of its node; 0 < target < all steps."""
    low, high = _bracket(steps, targets)
    extra = (high - low).astype(np.int64)
    child = np.repeat(np.arange(len(extra)), extra)
    nth = np.arange(len(child)) - np.repeat(np.cumsum(extra) - extra, extra)
    x = (low[child] + 1 + nth - steps.u[child]) / steps.weights[child]
    order = np.lexsort((x, steps.node[child]))  # stable: equal x stay in order of the child
    node = steps.node[child]  # sorted, so position - first position is the rank in the node
    first = np.searchsorted(node, np.arange(len(targets)))
    taken = np.bincount(steps.node, weights=low).astype(np.int64)
    wins = np.arange(len(node)) - first[node] < (targets - taken)[node]
    return low.astype(np.int64) + np.bincount(child[order[wins]], minlength=len(low))


def _bracket(steps: _Steps, targets: Ints) -> tuple[Floats, Floats]:
    """Close in on each node's x until no more steps lie between the bounds than the node has children.

    A node with more steps than that between two bounds has a child with two of them, so the bounds are not
    yet adjacent floats and bisection goes on: the loop ends.

    Returns:
        Steps of each child at or before the lower and the upper bound.
    """
    n = len(targets)
    children = np.bincount(steps.node, minlength=n)
    x_low, x_high = np.zeros(n), np.zeros(n)
    np.maximum.at(x_high, steps.node, steps.at(steps.caps))
    low, high = np.zeros(len(steps.node)), steps.caps
    n_low, n_high = np.zeros(n), np.bincount(steps.node, weights=high, minlength=n)
    rounds = 0
    while np.any(n_high - n_low > children):
        # Aim a quarter of the children below and above the target by turns; bisect each third time.
        aim = (targets + (-0.25, 0.25, 0.0)[rounds % 3] * children - n_low) / (n_high - n_low)
        share = np.full(n, 0.5) if rounds % 3 == 2 else np.clip(aim, 0.0, 1.0)
        x = x_low + (x_high - x_low) * share
        count = steps.until(x)
        n_x = np.bincount(steps.node, weights=count, minlength=n)
        short = n_x < targets
        x_low, x_high = np.where(short, x, x_low), np.where(short, x_high, x)
        n_low, n_high = np.where(short, n_x, n_low), np.where(short, n_high, n_x)
        below = short[steps.node]
        low, high = np.where(below, count, low), np.where(below, high, count)
        rounds += 1
    return low, high
