"""The planner's memory of a worker beside that of a process which does a worker's part of a pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("pyspark")

from lakestrata.kmeans.cost import estimate
from lakestrata.kmeans.hashing import hash_ids
from lakestrata.kmeans.rows import Rows
from lakestrata.kmeans.tree import LevelSpec
from lakestrata.kmeans.work import Workload
from lakestrata.udfs.blocks import Block, block_rows, write_blocks
from lakestrata.udfs.centroids import store

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux")

# Arguments: a pass, blocks, centroids, coordinates of each, members to keep. Prints the KiB by which its peak grows.
WORKER = """
import os, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from lakestrata.udfs import passes
from lakestrata.udfs.centroids import StoredCentroids

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

name, blocks, centroids, d, size = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
k = os.path.getsize(centroids) // (4 * (d + 1))
search = passes.Search(StoredCentroids((centroids,), np.array([[0, 0, k]]), d), "cpu", d)
before = peak()
batches = pa.ipc.open_stream(pa.OSFile(blocks))
if name == "sums":
    found = passes.partial_sums(batches, search, (1 << 24) // (8 * (d + 3)))
else:
    found = passes.candidates(batches, passes.Ranking(search, size, "closest", 0), "bigint")
for part in found:
    pass
sys.stdout.write(str(peak() - before))
"""


def grown(folder, name, x, centroids, size=1):
    """Bytes by which a process grows that makes a pass over blocks of these vectors."""
    n, d = x.shape
    rows = block_rows(d)
    parts = (np.arange(start, min(start + rows, n)) for start in range(0, n, rows))
    batches = list(write_blocks((Block(ids, hash_ids(ids), Rows.of(x[ids])) for ids in parts), d, "bigint"))
    blocks = str(folder / "blocks.arrow")
    with pa.ipc.new_stream(blocks, batches[0].schema) as file:
        for batch in batches:
            file.write_batch(batch)
    (path,) = store(centroids, str(folder)).paths
    command = [sys.executable, "-c", WORKER, name, blocks, path, str(d), str(size)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout) << 10


def test_a_worker_takes_what_is_planned_for_sums(tmp_path):
    k, d = 2400, 4096
    centroids = np.random.default_rng(0).integers(-1000, 1000, (k, d)).astype(np.float32)
    planned = estimate(Workload(k, d, (LevelSpec(k),), driver_bytes=1)).worker_bytes
    assert planned > 290e6  # 39 MB of centroids; it meets all, whose sums are 79 MB, twice
    assert planned / 1.5 < grown(tmp_path, "sums", centroids, centroids) < planned * 1.5


def test_a_worker_takes_what_is_planned_for_candidates(tmp_path):
    n, d, k = 1_800_000, 2, 4
    x = np.random.default_rng(0).integers(-1000, 1000, (n, d)).astype(np.float32)
    planned = estimate(Workload(n, d, (LevelSpec(k, 1, n),), driver_bytes=1)).worker_bytes
    assert planned > 240e6  # all are kept: 144 MB
    assert planned / 1.5 < grown(tmp_path, "candidates", x, x[:k], n) < planned * 1.5
