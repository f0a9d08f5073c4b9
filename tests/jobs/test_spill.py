"""Blocks in Spark's cache that its memory does not hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("delta")

# A session of its own, with 14 MB for the blocks of 46 MB of vectors.
RUN = """
import sys
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lakestrata.jobs import session
from lakestrata.jobs.recipe import Cluster
from lakestrata.jobs.scratch import Scratch
from lakestrata.jobs.store import Store
from lakestrata.jobs.vectors import Keyed, pack_vectors
from lakestrata.kmeans.array_points import ArrayPoints
from lakestrata.kmeans.lloyd import Options
from lakestrata.kmeans.tree import LevelSpec, build
from lakestrata.udfs.points import Engine

folder, n, d = sys.argv[1], 30_000, 384
x = np.random.default_rng(0).integers(-9, 9, (n, d)).astype(np.float32)
vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), d).cast(pa.list_(pa.float32()))
pq.write_table(pa.table({"id": np.arange(n), "embedding": vectors}), f"{folder}/lake.parquet")
tight = {"spark.driver.memory": "1g", "spark.memory.fraction": "0.02"}
spark = session._local_session(session._LOCAL_CONFS | session._SMALL_CONFS | tight)
rows = spark.read.parquet(f"{folder}/lake.parquet")
scratch = Scratch(Store(spark, f"{folder}/work"), Cluster(scratch="cache"), "spill", "run", "bigint")
engine = Engine(spark, scratch.keep, scratch.folder, 1 << 20)
points = pack_vectors(Keyed(rows, rows.limit(0), 0), "spill", "bigint", Cluster(metric="l2"), engine).points
scratch.let_go("raw")
specs, options = [LevelSpec(8, rounds=1, size=50)], Options(max_iter=2)
(found,) = build(points, specs, seed=0, options=options)
cached = spark.sparkContext._jsc.sc().getRDDStorageInfo()
(expected,) = build(ArrayPoints(points.grid.quantize(x), np.arange(n), points.grid), specs, seed=0, options=options)
on_disk = sum(each.diskSize() for each in cached)
print("points", points.n, "on disk", on_disk, "same", found.tobytes() == expected.tobytes())
scratch.close()
print("left", len(spark.sparkContext._jsc.sc().getRDDStorageInfo()))
"""


@pytest.mark.skipif("SPARK_REMOTE" in os.environ, reason="Spark Connect does not tell where blocks are")
def test_a_cache_larger_than_memory_goes_to_disk(tmp_path):
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.search(r"points 30000 on disk (\d+) same True\nleft 0\n", done.stdout)
    assert found, done.stdout
    assert int(found[1]) > 30_000 * 384 * 4 / 2  # most of the vectors
