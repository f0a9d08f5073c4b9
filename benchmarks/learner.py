"""The network of kmeans/network.py in torch, to learn its numbers."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, log, pi

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lakestrata.kmeans.network import EPSILON, FARTHEST, WEIGHT_BITS, Graph, Network

WIDTH, LAYERS = 64, 4
_AT_ONCE, _RATE, _WARM = 3, 1.5e-3, 50  # lakes a step; the rate of learning; steps until it is reached
_FORGOTTEN, _NOISE = 0.05, 0.03  # of what it sees of clusters, so that it trusts no figure
_FORGOTTEN_OF_LAKE, _NOISE_OF_LAKE = 0.3, 0.2  # there are far fewer lakes than clusters
_DROPPED = 0.1
_LEAST_WAY = 0.1  # from random to even: lakes that are more even than that count less


@dataclass(frozen=True)
class Case:
    """A lake to learn from.

    Attributes:
        graph: What the network sees.
        classes: Items of each class in each cluster, shape (k, c).
    """

    graph: Graph
    classes: NDArray[np.int64]


class Learner:
    """Learns by gradient descent.

    Args:
        cases: By the name of the set that they were cut from; sets count alike.
        seed: Of all that is random.
    """

    def __init__(self, cases: list[tuple[str, Case]], seed: int) -> None:
        torch.manual_seed(seed)
        self._rng = np.random.default_rng(seed)
        sets = defaultdict(list)
        for name, case in cases:
            sets[name].append(_Seen(case))
        self._sets = list(sets.values())
        graph, lakes = cases[0][1].graph, np.array([case.graph.lake for _, case in cases])
        self._range = {"lake.least": torch.tensor(lakes.min(axis=0)), "lake.most": torch.tensor(lakes.max(axis=0))}
        self._net = _Net(graph.nodes.shape[1] + len(graph.lake), graph.edges.shape[2])

    def learn(self, seconds: float, told: Callable[[str], object]) -> None:
        """Learn for so long, ever more slowly."""
        optimizer = torch.optim.AdamW(self._net.parameters(), _RATE, weight_decay=0.01)
        self._net.train()
        start, step, gained = time.monotonic(), 0, []
        while (passed := (time.monotonic() - start) / seconds) < 1:
            for group in optimizer.param_groups:
                group["lr"] = _RATE * min(1.0, (step + 1) / _WARM) * (1 + cos(pi * passed)) / 2
            optimizer.zero_grad()
            loss = sum((self._loss() for _ in range(_AT_ONCE)), torch.zeros(())) / _AT_ONCE
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self._net.parameters(), 1.0)
            optimizer.step()
            gained.append(-float(loss.detach()))
            step += 1
            if step % 500 == 0:
                told(f"{step} steps, {passed:.0%} of the time: {np.mean(gained[-500:]):.3f}")
        self._net.eval()

    def learned(self) -> dict[str, NDArray[np.int16]]:
        """What `Network` takes."""
        found = {}
        for name, values in (self._net.state_dict() | self._range).items():
            steps = np.rint(np.ldexp(values.numpy().astype(np.float64), WEIGHT_BITS))
            found[name] = np.clip(steps.T, -(1 << 15), (1 << 15) - 1).astype(np.int16)
        return found

    def gain(self, case: Case) -> float:
        """Share of the way from random to even that the learned shares go, in entropy over all classes."""
        weights = torch.tensor(Network(self.learned())(case.graph))
        return float(-_harm(weights, _Seen(case), least_way=0.0))

    def _loss(self) -> Tensor:
        own = self._sets[self._rng.integers(len(self._sets))]
        seen = own[self._rng.integers(len(own))]
        nodes = _blurred(seen.nodes, _FORGOTTEN, _NOISE)
        lake = _blurred(seen.lake, _FORGOTTEN_OF_LAKE, _NOISE_OF_LAKE)
        return _harm(self._net(nodes, lake, seen), seen, _LEAST_WAY)


class _Seen:
    """A case as tensors."""

    def __init__(self, case: Case) -> None:
        self.nodes, self.lake, self.edges, self.weights = (
            torch.tensor(one, dtype=torch.float32)
            for one in (case.graph.nodes, case.graph.lake, case.graph.edges, case.graph.weights)
        )
        self.weights /= self.weights.sum()
        self.near = torch.tensor(case.graph.near)
        clusters, classes = np.nonzero(case.classes)
        self.clusters, self.classes = torch.tensor(clusters), torch.tensor(classes)
        self.counts = torch.tensor(case.classes[clusters, classes], dtype=torch.float32)
        self.sizes = torch.tensor(case.classes.sum(axis=0), dtype=torch.float32)


def _blurred(figures: Tensor, forgotten: float, noise: float) -> Tensor:
    return figures * (torch.rand(figures.shape[-1]) > forgotten) + noise * torch.randn_like(figures)


def _harm(rarity: Tensor, seen: _Seen, least_way: float) -> Tensor:
    """Entropy lost by shares of items * 2^rarity, over the way from random to even."""
    shares = torch.exp2(rarity - rarity.max())
    mass = torch.zeros(len(seen.sizes), dtype=shares.dtype)
    mass = mass.index_add(0, seen.classes, shares[seen.clusters] * seen.counts)
    before = _entropy(seen.sizes)
    return (before - _entropy(mass)) / max(1 - float(before), least_way)


def _entropy(mass: Tensor) -> Tensor:
    shares = mass / mass.sum()
    return -(shares * (shares + 1e-12).log()).sum() / log(len(mass))


class _Two(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int, dropped: float = _DROPPED) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        self.dropout = nn.Dropout(dropped)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(self.dropout(torch.relu(self.first(x))))
        return found


class _Layer(_Two):
    def __init__(self, edges: int) -> None:
        super().__init__(4 * WIDTH, 2 * WIDTH, WIDTH)
        self.mine = nn.Linear(WIDTH, WIDTH)
        self.theirs, self.between = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(edges, WIDTH, bias=False)

    def hear(self, state: Tensor, seen: _Seen) -> Tensor:
        messages = torch.relu(self.mine(state)[:, None] + self.theirs(state)[seen.near] + self.between(seen.edges))
        every = (seen.weights @ state).expand_as(state)
        return self(torch.cat([state, messages.mean(1), messages.max(1).values, every], 1))


class _Net(nn.Module):
    def __init__(self, inputs: int, edges: int) -> None:
        super().__init__()
        self.add_module("in", _Two(inputs, 2 * WIDTH, WIDTH))
        self.layer = nn.ModuleList([_Layer(edges) for _ in range(LAYERS)])
        self.out = _Two(WIDTH, WIDTH, 1, dropped=0.0)
        nn.init.zeros_(self.out.second.weight)

    def forward(self, nodes: Tensor, lake: Tensor, seen: _Seen) -> Tensor:
        state = self.get_submodule("in")(torch.cat([nodes, lake.expand(len(nodes), -1)], 1))
        for layer in self.layer:
            state = state + layer.hear(nn.functional.layer_norm(state, (WIDTH,), eps=EPSILON), seen)
        out = self.out(nn.functional.layer_norm(state, (WIDTH,), eps=EPSILON))[:, 0]
        found: Tensor = out / torch.sqrt(1 + (out / FARTHEST) ** 2)
        return found
