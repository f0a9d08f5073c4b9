"""The search that ranks with torch: the bits of the numpy kernel, in float32 and where TF32 has rounded the factors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans import torch_kernel
from lakestrata.kmeans.nearest import Centroids, augment
from lakestrata.kmeans.routed import RoutedCentroids
from lakestrata.kmeans.rows import Rows
from lakestrata.kmeans.torch_kernel import TorchCentroids, make_centroids

torch = pytest.importorskip("torch")

MOST = 2**20
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ten_bits(a, cut):
    """The factors that TF32 multiplies: ten bits after the leading one, rounded to nearest even or cut off."""
    bits = np.array(a, dtype=np.float32).view(np.uint32)
    if not cut:
        bits += 0xFFF + ((bits >> 13) & 1)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


class Tf32(TorchCentroids):
    """Ranks on the CPU as a GPU would: TF32 factors, sums in float32."""

    cut = False

    def __init__(self, parts):
        super().__init__(parts, "cpu")
        self._tf32 = True
        self._on_device = [torch.from_numpy(ten_bits(part, self.cut)) for part in self.parts]

    def _scores_on_device(self, rows):
        a = torch.from_numpy(ten_bits(rows.a, self.cut))
        for start, part in zip(self.starts.tolist(), self._on_device, strict=False):
            if len(part):
                yield start, a @ part.T


class Tf32Cut(Tf32):
    cut = True


MAKERS = {"cpu": lambda parts: TorchCentroids(parts, "cpu"), "tf32": Tf32, "tf32, cut off": Tf32Cut}


def exact_squared(x, c):
    return np.stack([((x.astype(np.int64) - row) ** 2).sum(axis=1) for row in c.astype(np.int64)], axis=1)


def parts_of(c, n_parts=1):
    return [augment(part.astype(np.float32)) for part in np.array_split(c, n_parts)]


def rows_of(x):
    return Rows.of(np.asarray(x, dtype=np.float32))


def check_exact(x, c, centroids):
    labels, squared = centroids.nearest(rows_of(x))
    exact = exact_squared(x, c)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, exact.argmin(axis=1))
    np.testing.assert_array_equal(squared.astype(np.int64), exact.min(axis=1))
    for found, of_numpy in zip((labels, squared), Centroids(c.astype(np.float32)).nearest(rows_of(x)), strict=True):
        np.testing.assert_array_equal(found, of_numpy)


@st.composite
def points_and_centroids(draw):
    n, k, d = draw(st.integers(1, 30)), draw(st.integers(1, 30)), draw(st.integers(1, 64))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([1, 2, 30, 2**10, MOST]))
    offset = draw(st.sampled_from([0, 0, MOST - spread]))
    x, c = (offset + rng.integers(-spread, spread, (rows, d), endpoint=True) for rows in (n, k))
    arrangement = draw(st.sampled_from(["any", "duplicates", "near ties", "rounded most"]))
    if arrangement == "duplicates":
        c = c[rng.integers(0, max(1, k // 3), k)]
    elif arrangement == "near ties":  # all centroids within a step or two of each other, far from the points
        c = c[0] + rng.integers(-1, 1, (k, d), endpoint=True)
    elif arrangement == "rounded most":  # what ten bits change most: a power of two and all that they leave out
        x, c = (np.sign(a) * (2**18 + rng.choice([0, 127, 128, 129, 255], a.shape)) for a in (x, c))
    return np.clip(x, -MOST, MOST), np.clip(c, -MOST, MOST)


@pytest.mark.parametrize("maker", MAKERS)
@settings(max_examples=100, deadline=None)
@given(case=points_and_centroids(), n_parts=st.integers(1, 4))
def test_labels_and_distances_are_exact(maker, case, n_parts):
    x, c = case
    check_exact(x, c, MAKERS[maker](parts_of(c, n_parts)))


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("d", [1, 2, 48, 768])
@pytest.mark.parametrize("k", [2, 300])
def test_exact_where_centroids_differ_by_one_step_at_the_edge_of_the_grid(maker, d, k):
    rng = np.random.default_rng(d + k)
    c = np.full((k, d), MOST)
    c[np.arange(k), rng.integers(0, d, k)] -= rng.integers(0, 2, k)
    x = rng.choice([-MOST, MOST, MOST - 1], (50, d))
    check_exact(x, c, MAKERS[maker](parts_of(c, 2)))


def ranked_alone(centroids, rows):
    return centroids._rank(rows)[0]


@pytest.mark.parametrize("maker", ["tf32", "tf32, cut off"])
def test_exact_where_the_ranking_by_itself_is_wrong(maker):
    rng = np.random.default_rng(0)
    c = rng.integers(-MOST, MOST, (400, 2))
    x = rng.integers(-MOST, MOST, (2000, 2))
    centroids = MAKERS[maker](parts_of(c, 3))
    wrong = ranked_alone(centroids, rows_of(x)) != exact_squared(x, c).argmin(axis=1)
    assert wrong.sum() > 20
    check_exact(x, c, centroids)


def test_a_bound_for_float32_would_not_do_for_tf32(monkeypatch):
    rng = np.random.default_rng(0)
    x, c = rng.integers(-MOST, MOST, (2000, 2)), rng.integers(-MOST, MOST, (400, 2))
    monkeypatch.setattr(Tf32, "bound", Centroids.bound)
    assert (Tf32(parts_of(c)).labels(rows_of(x)) != exact_squared(x, c).argmin(axis=1)).any()


@settings(max_examples=100, deadline=None)
@given(points_and_centroids())
def test_no_tf32_score_is_farther_from_the_exact_one_than_the_bound(case):
    x, c = case
    centroids, rows = Tf32(parts_of(c)), rows_of(x)
    ((_, scores),) = centroids._scores_on_device(rows)
    doubled = 2 * x.astype(np.int64) @ c.T.astype(np.int64) - (c.astype(np.int64) ** 2).sum(axis=1)
    assert (abs(2 * scores.double().numpy() - doubled) <= 2 * centroids.bound(rows)[:, None]).all()


@pytest.mark.parametrize("maker", MAKERS)
def test_exact_over_many_chunks_and_parts(monkeypatch, maker):
    monkeypatch.setattr(torch_kernel, "_SCORES", 1)
    rng = np.random.default_rng(3)
    x, c = rng.integers(-3, 4, (2500, 3)), rng.integers(-3, 4, (60, 3))
    centroids = MAKERS[maker](parts_of(c, 7))
    assert len(x) > 2 * centroids.chunk_rows
    check_exact(x, c, centroids)


@pytest.mark.parametrize("maker", MAKERS)
def test_parts_without_centroids_change_nothing(maker):
    c = np.array([[9], [4], [-4], [4]])
    empty = np.empty((0, 1))
    parts = [augment(part.astype(np.float32)) for part in (empty, c[:1], empty, c[1:], empty)]
    check_exact(np.array([[0], [5], [50]]), c, MAKERS[maker](parts))


def test_one_centroid_takes_all_and_no_points_give_no_labels():
    check_exact(np.arange(-5, 5)[:, None], np.array([[MOST]]), TorchCentroids(parts_of(np.array([[MOST]])), "cpu"))
    labels, squared = TorchCentroids(parts_of(np.ones((3, 2))), "cpu").nearest(rows_of(np.empty((0, 2))))
    assert len(labels) == len(squared) == 0


@pytest.mark.parametrize("maker", MAKERS)
def test_groups_may_be_searched_with_it(maker):
    rng = np.random.default_rng(6)
    x, groups = rng.integers(-99, 99, (300, 4)), rng.integers(-99, 99, (7, 4))
    parts = [augment(rng.integers(-99, 99, (5, 4)).astype(np.float32)) for _ in range(7)]
    ours, plain = (
        RoutedCentroids(nearest, parts, 3).nearest(rows_of(x))
        for nearest in (MAKERS[maker](parts_of(groups)), Centroids(groups.astype(np.float32)))
    )
    np.testing.assert_array_equal(ours[0], plain[0])
    np.testing.assert_array_equal(ours[1], plain[1])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("d", [1, 64, 384])
def test_a_device_gives_the_same_bits(device, d):
    rng = np.random.default_rng(d)
    for spread in (2, 1000, MOST):
        x, c = (rng.integers(-spread, spread, (n, d), endpoint=True) for n in (600, 100))
        check_exact(x, c, TorchCentroids(parts_of(c, 3), device))
        c = MOST - rng.integers(0, 2, (100, d))
        check_exact(x, c, TorchCentroids(parts_of(c, 3), device))


@pytest.mark.parametrize("device", DEVICES)
def test_torch_is_left_as_it_was(device):
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for allowed in (False, True):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            TorchCentroids(parts_of(np.arange(9).reshape(3, 3)), device).nearest(rows_of(np.ones((5, 3))))
            assert torch.backends.cuda.matmul.allow_tf32 is allowed
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_the_device_decides_the_kernel(monkeypatch, tmp_path):
    parts = parts_of(np.arange(9).reshape(3, 3))
    monkeypatch.setattr(torch_kernel, "_GPU_DEVICES", (str(tmp_path),))  # as if the machine had one
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert type(make_centroids(parts, "cpu")) is type(make_centroids(parts, "auto")) is Centroids
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch_kernel, "TorchCentroids", lambda parts, device: device)
    assert make_centroids(parts, "auto") == make_centroids(parts, "cuda") == "cuda"
    assert type(make_centroids(parts, "cpu")) is Centroids


WITHOUT_A_GPU = """
import sys
import numpy as np
from lakestrata.kmeans import torch_kernel
torch_kernel._GPU_DEVICES = ("/dev/no such device",)
torch_kernel.make_centroids([np.ones((3, 2), np.float32)], "auto")
print("torch" in sys.modules)
"""


def test_torch_is_not_imported_where_there_is_no_gpu():
    ran = subprocess.run([sys.executable, "-c", WITHOUT_A_GPU], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout.split() == ["False"]
