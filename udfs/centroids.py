"""How centroids come to the workers: in the closure while they are small, else as files, mapped into memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import fsspec
import numpy as np
from numpy.typing import NDArray

from ..kmeans.nearest import Centroids, augment
from ..kmeans.partial import CentroidSet
from ..kmeans.points import as_array
from ..kmeans.routed import GroupedCentroids, RoutedCentroids
from ..kmeans.torch_kernel import make_centroids
from .shared_files import local_path, new_path

ENDING = ".f32"  # of files of augmented centroids
CLOSURE_BYTES = 1 << 25  # under Connect 64 MB were seen to pass and 120 MB to fail


@dataclass(frozen=True)
class StoredCentroids:
    """Centroids in files that all workers can read.

    Attributes:
        paths: Files of augmented centroids in grid steps: float32, row after row of d + 1.
        places: For each run of cluster ids: file, first row in it, rows; int64, shape (r, 3). Ids go through the runs.
        d: Coordinates of each.
        groups: Of a level made in two steps: centroids of its groups, each of which is one run.
        probe: Groups that a point looks into.
    """

    paths: tuple[str, ...]
    places: NDArray[np.int64] = field(repr=False)
    d: int
    groups: CentroidSet | None = field(default=None, repr=False)
    probe: int = 1

    def __len__(self) -> int:
        return int(self.places[:, 2].sum())

    def parts(self) -> list[NDArray[np.float32]]:
        """The runs, mapped into memory, augmented, each of shape (k_i, d + 1)."""
        files = [_map(path, self.d) for path in self.paths]
        return [files[file][first : first + rows] for file, first, rows in self.places.tolist()]

    def run(self, number: int) -> NDArray[np.float32]:
        """One of the runs, in grid steps, float32, shape (k_i, d)."""
        file, first, rows = self.places[number].tolist()
        return _map(self.paths[file], self.d)[first : first + rows, :-1]


def files_of(*several: CentroidSet | None) -> set[str]:
    """The files of all these centroids."""
    found: set[str] = set()
    for centroids in several:
        if isinstance(centroids, StoredCentroids):
            found |= {*centroids.paths} | files_of(centroids.groups)
    return found


def _map(path: str, d: int) -> NDArray[np.float32]:
    local = local_path(path)
    if not os.path.getsize(local):
        return np.empty((0, d + 1), dtype=np.float32)
    return np.memmap(local, dtype=np.float32, mode="r").reshape(-1, d + 1)


def store(vectors: NDArray[np.float32], folder: str) -> StoredCentroids:
    """Write centroids in grid steps, shape (k, d), to a file in a folder or at a URI."""
    path = save_rows(augment(vectors), folder)
    return StoredCentroids((path,), np.array([[0, 0, len(vectors)]]), vectors.shape[1])


def save_rows(augmented: NDArray[np.float32], folder: str) -> str:
    """Write augmented centroids to a new file in a folder or at a URI; gives its path."""
    path = new_path(folder, ENDING)
    with fsspec.open(path, "wb", auto_mkdir=True) as file:
        file.write(augmented.tobytes())
    return path


def join_ranges(found: Sequence[NDArray[np.float32] | str], d: int, folder: str | None) -> CentroidSet:
    """Centroids of consecutive ranges: arrays of shape (k_i, d), or paths of files; in files if any are."""
    if folder is None or all(isinstance(part, np.ndarray) for part in found):
        return np.concatenate([part for part in found if isinstance(part, np.ndarray)])
    paths = tuple(part if isinstance(part, str) else save_rows(augment(part), folder) for part in found)
    return StoredCentroids(paths, np.array([[file, 0, len(_map(path, d))] for file, path in enumerate(paths)]), d)


def some_of(centroids: CentroidSet, part: slice) -> NDArray[np.float32]:
    """The centroids of a range of ids, shape (k_i, d)."""
    if not isinstance(centroids, StoredCentroids):
        return as_array(centroids)[part]
    return Centroids(parts=centroids.parts()).vectors(np.arange(part.start, part.stop))


def fetch(centroids: CentroidSet) -> NDArray[np.float32]:
    """All centroids as an array in grid steps, shape (k, d)."""
    if isinstance(centroids, StoredCentroids):
        return np.concatenate([part[:, :-1] for part in centroids.parts()])
    return centroids.flat() if isinstance(centroids, GroupedCentroids) else as_array(centroids)


def put(centroids: CentroidSet, ids: NDArray[np.intp], vectors: NDArray[np.float32], folder: str | None) -> CentroidSet:
    """The centroids with some replaced; of those in files the runs that have them are written anew."""
    if not isinstance(centroids, StoredCentroids) or folder is None:
        array = as_array(centroids).copy()
        array[ids] = vectors
        return array
    paths, places = list(centroids.paths), centroids.places.copy()
    starts = np.r_[0, np.cumsum(places[:, 2])]
    owner = np.searchsorted(starts, ids, side="right") - 1
    for number in np.unique(owner).tolist():
        mine = owner == number
        changed = centroids.run(number).copy()
        changed[ids[mine] - starts[number]] = vectors[mine]
        places[number] = len(paths), 0, len(changed)
        paths.append(save_rows(augment(changed), folder))
    return replace(centroids, paths=tuple(paths), places=places)


def pick(centroids: CentroidSet, ids: NDArray[np.intp]) -> CentroidSet:
    """The centroids of these ids alone, in their order."""
    if not isinstance(centroids, StoredCentroids):
        return as_array(centroids)[ids]
    starts = np.r_[0, np.cumsum(centroids.places[:, 2])]
    owner = np.searchsorted(starts, ids, side="right") - 1
    begins = np.flatnonzero(np.r_[True, (np.diff(ids) != 1) | (np.diff(owner) != 0)])
    rows = np.diff(np.r_[begins, len(ids)])
    files, firsts = centroids.places[owner[begins], :2].T
    places = np.column_stack([files, firsts + ids[begins] - starts[owner[begins]], rows])
    return replace(centroids, places=places)


def ready(centroids: CentroidSet, device: str = "cpu") -> Centroids | RoutedCentroids:
    """Centroids ready for a search; those in files are kept ready between the tasks of a worker."""
    if isinstance(centroids, StoredCentroids):
        return _ready_from_files(centroids.paths, centroids.places.tobytes(), _Unhashed(centroids), device)
    if isinstance(centroids, GroupedCentroids):
        return centroids.ready()
    return make_centroids([augment(np.asarray(centroids))], device)


class _Unhashed:
    """Carries a value past a cache that other arguments are the key of."""

    def __init__(self, value: StoredCentroids) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Unhashed)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=2)
def _ready_from_files(
    paths: tuple[str, ...], places: bytes, carried: _Unhashed, device: str
) -> Centroids | RoutedCentroids:
    stored = carried.value
    if stored.groups is None:
        return make_centroids(stored.parts(), device)
    groups = ready(stored.groups, device)
    if isinstance(groups, RoutedCentroids):
        raise TypeError("groups should not be in groups themselves.")
    return RoutedCentroids(groups, stored.parts(), stored.probe)
