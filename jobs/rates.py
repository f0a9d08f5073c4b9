"""How fast this machine multiplies: a short product of the shape in which nearest centroids are looked for."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from time import perf_counter

import numpy as np

_SECONDS = 0.3  # that a measurement takes
_MOST_CLUSTERS = 1 << 12  # more do not change the rate
_SCORES = 1 << 20  # of one product: what fits a processor's cache
_GPU_ROWS = 1 << 15
_SINGLE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "VECLIB_MAXIMUM_THREADS": "1"}


def core_rate(k: int, d: int) -> float:
    """float32 multiply-adds a second of one core, for k centroids of d coordinates.

    Workers run one thread each. A BLAS heeds such a setting only when it is loaded, so another process measures.
    """
    code = f"import sys; from {__name__} import measure; sys.stdout.write(repr(measure({k}, {d})))"
    environment = {**os.environ, **_SINGLE, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(k: int, d: int) -> float:
    """float32 multiply-adds a second of numpy, in this process."""
    rng = np.random.default_rng(0)
    k = min(k, _MOST_CLUSTERS)
    centroids = rng.standard_normal((k, d), dtype=np.float32).T
    rows = rng.standard_normal((min(_SCORES // k, 8192), d), dtype=np.float32)
    scores = rows @ centroids
    started, products = perf_counter(), 0
    while products == 0 or perf_counter() - started < _SECONDS:
        np.matmul(rows, centroids, out=scores)
        products += 1
    return products * scores.size * d / (perf_counter() - started)


def gpu_rate(k: int, d: int) -> float | None:
    """Multiply-adds a second of one GPU, in TF32 where it has that; None where torch sees no GPU."""
    if not find_spec("torch"):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        rows = torch.randn(_GPU_ROWS, d, device="cuda")
        centroids = torch.randn(d, min(k, _MOST_CLUSTERS), device="cuda")
        scores = rows @ centroids
        torch.cuda.synchronize()
        started, products = perf_counter(), 0
        while products == 0 or perf_counter() - started < _SECONDS:
            torch.matmul(rows, centroids, out=scores)
            torch.cuda.synchronize()
            products += 1
        return products * scores.numel() * d / (perf_counter() - started)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
