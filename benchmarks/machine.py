"""What the benchmarks run on, and what they take."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, sleep
from typing import Any

from threadpoolctl import threadpool_info

MIB = 1 << 20


def describe() -> str:
    """Processor, memory, kernel of numpy's BLAS, and versions, in one paragraph."""
    import numpy as np

    np.ones((2, 2)) @ np.ones((2, 2))
    kernels = {i["architecture"] for i in threadpool_info() if "numpy" in i["filepath"]}
    fixed = {name: os.environ[name] for name in ("OPENBLAS_CORETYPE",) if name in os.environ}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    packages = ("numpy", "faiss-cpu", "scikit-learn", "pyspark", "delta-spark")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, {platform.system()}; numpy's OpenBLAS runs its "
        f"{', '.join(sorted(kernels)) or 'unknown'} kernels{' (' + str(fixed) + ')' if fixed else ''}; "
        f"Python {platform.python_version()}, {versions}."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


class Clock:
    """Seconds of what it surrounds."""

    seconds = 0.0

    def __enter__(self) -> Clock:
        self._started = perf_counter()
        return self

    def __exit__(self, *_: Any) -> None:
        self.seconds = perf_counter() - self._started


def resident(pid: int | str = "self") -> int:
    """Bytes of memory that a process shares out fairly with others (PSS), 0 if it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """The most memory that this process and its descendants take together meanwhile, in bytes, as the last element."""
    peak, done = [0], Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], sum(map(resident, family(os.getpid()))))
            sleep(0.25)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
