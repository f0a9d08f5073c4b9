"""Learn the network that weighs clusters (kmeans/network.py) from lakes cut from labelled sets.

    python -m benchmarks.learn SETS [--minutes 60] [--without NAME ...]

SETS is a folder of NAME.npz files with vectors `x`, shape (n, d), and classes `y`, shape (n,). Lakes are cut from them
in many ways, clustered as the cluster job does with `levels: auto`, and the network is asked how much of the way from a
random set to an even one the shares go that it gives. Sets that are left out are what it is judged by at the end.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.curation import SEEDS, make_tree
from benchmarks.lakes import Cut, Labelled, Lake, cut_lake, cuts_of
from benchmarks.learner import Case, Learner
from lakestrata.jobs.recipe import Cluster
from lakestrata.kmeans.surroundings import MOST_CLUSTERS, graph_of, merged

LEARNED = Path(__file__).parents[1] / "kmeans" / "learned.npz"
JUDGED = ("eurosat", "clinc", "digits")  # the sets of the benchmark are never learned from
MIXTURES = "mixtures"
_LEAST, _MOST = 400, 14_000  # items of a lake
_IMBALANCES = (3, 300)
_EVEN, _SOME_CLASSES, _BACKGROUND = 0.07, 0.6, 0.4  # how often a lake has no tail; not all classes; those as background
_CLUSTERS = (400, MOST_CLUSTERS)  # that half of the lakes are merged into
_WARPED = 0.4  # how often it is what another encoder might have made of it


@dataclass(frozen=True)
class Source:
    """Where lakes come from.

    Attributes:
        name: Of a set; names that are alike up to a dash are views of the same items.
        full: It; None for mixtures.
    """

    name: str
    full: Labelled | None


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learn", description=__doc__.splitlines()[0])
    parser.add_argument("sets", type=Path, help="folder of NAME.npz files with x and y")
    parser.add_argument("--minutes", type=float, default=60.0, help="to learn for, after lakes are cut")
    parser.add_argument("--lakes", type=int, default=40, help="to cut from each set")
    parser.add_argument("--without", nargs="*", default=[], help="sets to leave out, and be judged by")
    parser.add_argument("--out", type=Path, default=LEARNED)
    options = parser.parse_args()
    sources = read_sources(options.sets)
    kept = [source for source in sources if source.name.split("-")[0] not in {*options.without, *JUDGED}]
    wanted = [(source, seed) for seed in range(options.lakes) for source in kept]
    left_out = [(source, source.full) for source in sources if source not in kept and source.full]
    judged = [(source, cut, seed) for source, full in left_out for cut in cuts_of(full) for seed in range(SEEDS)]
    with get_context("fork").Pool(initializer=threadpool_limits, initargs=(1,)) as pool:
        cases = [case for case in pool.imap(_case_of, wanted) if case]
        judges = list(pool.imap(_judge_of, judged))
    sys.stderr.write(f"{len(cases)} lakes to learn from, {len(judges)} to be judged by\n")
    learner = Learner(cases, seed=0)
    learner.learn(options.minutes * 60, lambda line: sys.stderr.write(line + "\n"))
    np.savez_compressed(options.out, **learner.learned())
    for line in _report(learner, judged, judges):
        sys.stdout.write(line + "\n")


def read_sources(folder: Path) -> list[Source]:
    """All sets of a folder, and mixtures."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as held:
            y = np.unique(held["y"], return_inverse=True)[1].astype(np.int64)
            found.append(Source(path.stem, Labelled(held["x"].astype(np.float32), y)))
    return [*found, Source(MIXTURES, None)]


def cut_somehow(full: Labelled, rng: np.random.Generator) -> Labelled:
    """A lake of some or all classes with a tail of some shape, and now and then others as a diffuse background."""
    order = rng.permutation(full.n_classes)
    kept = int(rng.integers(max(4, len(order) // 4), len(order) + 1)) if rng.random() < _SOME_CLASSES else len(order)
    rows = [rng.permutation(np.flatnonzero(full.y == label)) for label in order]
    background, rows = rows[kept:], rows[:kept]
    imbalance = 1.0 if rng.random() < _EVEN else exp(rng.uniform(*map(log, _IMBALANCES)))
    largest = max(map(len, rows))
    rows = [own[: max(1, round(largest * imbalance**-rank))] for own, rank in zip(rows, _tail(kept, rng), strict=True)]
    if len(background) >= 8 and rng.random() < _BACKGROUND:
        each = max(1, round(sum(map(len, rows)) / 9 / len(background)))
        rows.append(np.concatenate([own[:each] for own in background]))
    y = np.repeat(np.arange(len(rows)), [len(own) for own in rows])
    some = rng.permutation(len(y))[: int(exp(rng.uniform(log(_LEAST), log(_MOST))))]
    return Labelled(full.x[np.concatenate(rows)[some]], y[some])


def warped(x: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """As another encoder might have it: its principal directions longer or shorter, some gone, maybe of length one."""
    x = x.astype(np.float64) - x.mean(axis=0)
    lengths, directions = np.linalg.svd(x[rng.permutation(len(x))[:3_000]], full_matrices=False)[1:]
    kept = rng.random(len(lengths)) < (1.0 if rng.random() < 0.5 else rng.uniform(0.3, 1.0))
    kept[rng.integers(len(lengths))] = True
    kept &= lengths > 1e-6 * lengths[0]
    power = rng.uniform(0.6, 1.5) if rng.random() < 0.7 else 1.0
    found = x @ directions[kept].T * lengths[kept] ** (power - 1)
    if rng.random() < 0.3:
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    return (found / np.abs(found).max()).astype(np.float32)


def _tail(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How far down the tail each class lies, 0 to 1: evenly, somewhere, or as Zipf has it."""
    shape, ranks = rng.random(), np.arange(n)
    if shape < 0.7:
        return ranks / max(1, n - 1)
    return rng.random(n) if shape < 0.85 else np.log1p(ranks) / np.log1p(max(1, n - 1))


def mixture(rng: np.random.Generator) -> Labelled:
    """Gaussian clouds of some dimensions each, near to or far from each other, at times with noise around them."""
    d, n = int(rng.choice([4, 8, 16, 32, 64])), int(exp(rng.uniform(log(4), log(100))))
    weights = exp(rng.uniform(0, log(_IMBALANCES[1]))) ** -_tail(n, rng)
    sizes = np.maximum(1, np.rint(weights / weights.sum() * rng.integers(2_000, _MOST))).astype(int)
    apart = rng.uniform(0.8, 4) * np.sqrt(2.0) / d**0.25
    widths = np.exp(rng.normal(0, rng.uniform(0, 0.5), n))
    parents = rng.normal(size=(max(2, n // 5), d)) * apart * rng.uniform(0, 1.5)
    clouds = []
    for one, size in enumerate(sizes):
        rank = int(rng.integers(max(1, d // 4), d + 1))
        axes = rng.normal(size=(rank, d)) * np.exp(rng.normal(0, 0.4, (rank, 1))) / np.sqrt(rank)
        centre = rng.normal(size=d) * apart + parents[one % len(parents)]
        clouds.append(centre + widths[one] * rng.normal(size=(size, rank)) @ axes + 0.1 * rng.normal(size=(size, d)))
    if rng.random() < 0.3:
        every = np.concatenate(clouds)
        noise = rng.normal(size=(int(len(every) * rng.uniform(0.02, 0.15)), d))
        clouds.append(every.mean(axis=0) + noise * every.std(axis=0) * 1.2)
    y = np.repeat(np.arange(len(clouds)), [len(cloud) for cloud in clouds])
    return Labelled(np.concatenate(clouds).astype(np.float32), y)


def case_of(lake: Labelled, seed: int, most: int = MOST_CLUSTERS) -> Case:
    """What the network sees of a lake, and the classes in each cluster, which it does not see."""
    tree = make_tree(Lake(lake, lake.n_classes, lake, Labelled(lake.x[:1], lake.y[:1])), Cluster(), seed)
    filled = np.flatnonzero(tree.items)
    few, items, into = merged(tree.leaves[filled], tree.items[filled], most)
    cluster = np.zeros(len(tree.leaves), dtype=np.int64)
    cluster[filled] = into
    classes = np.zeros((len(few), lake.n_classes), dtype=np.int64)
    np.add.at(classes, (cluster[tree.labels], lake.y), 1)
    return Case(graph_of(few, items), classes)


def _case_of(wanted: tuple[Source, int]) -> tuple[str, Case] | None:
    source, seed = wanted
    rng = np.random.default_rng([*source.name.encode(), seed])
    lake = mixture(rng) if source.full is None else cut_somehow(source.full, rng)
    if len(lake.y) < _LEAST:
        return None
    if source.full is not None and rng.random() < _WARPED:
        lake = Labelled(warped(lake.x, rng), lake.y)
    return source.name, case_of(lake, seed, int(rng.integers(*_CLUSTERS)) if rng.random() < 0.5 else MOST_CLUSTERS)


def _judge_of(judged: tuple[Source, Cut, int]) -> Case:
    source, cut, seed = judged
    assert source.full is not None
    return case_of(cut_lake(source.full, cut, seed).items, seed)


def _report(learner: Learner, judged: list[tuple[Source, Cut, int]], judges: list[Case]) -> Iterator[str]:
    """Entropy gained on sets not learned from, as a share of the way from random to even."""
    found = defaultdict(list)
    for (source, cut, _), case in zip(judged, judges, strict=True):
        found[source.name, cut.name].append(learner.gain(case))
    for (name, cut), gains in found.items():
        yield f"{name} {cut}: {np.mean(gains):.3f}"


if __name__ == "__main__":
    main()
