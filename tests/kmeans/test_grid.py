"""The grid: how many bits it allows, that its arithmetic is exact, and what rounding to it costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakestrata.kmeans.grid import MAX_BITS, Grid, bits_for

DIMENSIONS = [1, 2, 3, 384, 1024, 2048, 2049, 4096, 8192, 8193, 65536]


def exact_dot(a, b):
    return sum(int(p) * int(q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("dimension", "bits"),
    [(1, 20), (2, 20), (768, 20), (2048, 20), (2049, 19), (8192, 19), (8193, 18), (32768, 18), (32769, 17)],
)
def test_bits_for_a_dimension(dimension, bits):
    assert bits_for(dimension) == bits


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_no_sum_of_squares_passes_what_float64_holds(dimension):
    most = 2 ** bits_for(dimension)
    assert dimension * (2 * most) ** 2 <= 2**53
    assert 2 * most < 2**24  # differences fit float32


def test_a_sum_of_two_to_the_33_rows_fits_float64():
    assert 2**33 * 2**MAX_BITS <= 2**53


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("extreme", ["opposite corners", "mixed signs", "odd"])
def test_dots_and_distances_are_exact_at_the_extremes(dimension, extreme):
    most = 2 ** bits_for(dimension)
    rng = np.random.default_rng(dimension)
    a, b = np.full(dimension, most), np.full(dimension, -most)
    if extreme == "mixed signs":
        a, b = rng.choice([-most, most - 1], dimension), rng.choice([1 - most, most], dimension)
    elif extreme == "odd":
        a, b = np.full(dimension, most - 1), np.full(dimension, 3 - most)
    x, y = a.astype(np.float32).astype(np.float64), b.astype(np.float32).astype(np.float64)
    assert int(x @ y) == exact_dot(a, b)
    assert int(np.einsum("i,i->", x - y, x - y)) == exact_dot(a - b, a - b)
    assert int(x @ x - 2 * (x @ y) + y @ y) == exact_dot(a - b, a - b)


def test_sums_are_exact_in_any_order():
    values = np.random.default_rng(0).integers(-(2**20), 2**20, 100_000, endpoint=True)
    x = values.astype(np.float32).astype(np.float64)
    total = sum(values.tolist())
    assert [int(x.sum()), int(x[::-1].cumsum()[-1]), int(np.sort(x).sum())] == [total] * 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.floats(1e-20, 1e20), st.integers(0, 2**32))
def test_rounding_moves_no_coordinate_by_more_than_half_a_step(dtype, dimension, scale, seed):
    x = (np.random.default_rng(seed).uniform(-scale, scale, (5, dimension))).astype(dtype)
    grid = Grid.covering(float(np.abs(x).max()), dimension)
    steps = grid.quantize(x)
    back = grid.to_float(steps)
    assert steps.dtype == back.dtype == np.float32
    assert np.abs(steps).max() <= 2**grid.bits
    assert np.abs(back - x.astype(np.float64)).max() <= grid.step / 2
    np.testing.assert_array_equal(grid.quantize(back), steps)


@pytest.mark.parametrize("largest", [2.0**-40, 0.25, 0.5, 1.0, 2.0, 1024.0, 2.0**60])
def test_a_power_of_two_covers_itself(largest):
    grid = Grid.covering(largest, 8)
    assert grid.step == largest / 2**20
    assert grid.quantize(np.array([[largest, -largest]])).tolist() == [[2**20, -(2**20)]]


@given(st.floats(1e-200, 1e200))
def test_the_grid_is_the_finest_that_covers(largest):
    grid = Grid.covering(largest, 8)
    assert grid.step * 2**19 < largest <= grid.step * 2**20


def test_data_of_zeros_has_a_grid():
    assert Grid.covering(0.0, 3).quantize(np.zeros((2, 3))).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_no_zero_is_negative(metric):
    # Equal vectors must have equal bytes: they are told apart and grouped by them.
    grid = Grid.covering(1.0, 2, metric)
    tiny = np.array([[-1e-9, 1.0], [-0.0, 1.0]])
    for steps in (grid.quantize(tiny), grid.mean(tiny * [1, 4], np.array([3, 3]))):
        assert not np.signbit(steps).any()


def test_an_unknown_metric_is_named():
    with pytest.raises(ValueError, match="metric='manhattan' should be one of l2, cosine"):
        Grid.covering(1.0, 2, "manhattan")


def test_distances_come_back_in_the_units_of_the_data():
    grid = Grid.covering(5.0, 2)
    a, b = grid.quantize(np.array([[3.0, 0.0], [0.0, 4.0]])).astype(np.float64)
    assert grid.distance(np.array([((a - b) ** 2).sum()])).tolist() == [5.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dimension", [1, 2, 48, 2048, 5000])
def test_cosine_gives_unit_vectors(dtype, dimension):
    x = np.random.default_rng(dimension).normal(size=(20, dimension)).astype(dtype)
    grid = Grid.covering(float(np.abs(x).max()), dimension, "cosine")
    unit = grid.to_float(grid.quantize(x)).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=grid.step * np.sqrt(dimension))
    expected = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    assert np.abs(unit - expected).max() <= 2 * grid.step


@pytest.mark.parametrize("power", [-120, -1, 1, 100])
def test_cosine_takes_no_notice_of_powers_of_two(power):
    x = np.random.default_rng(1).normal(size=(20, 7))
    grid = Grid.covering(1.0, 7, "cosine")
    np.testing.assert_array_equal(grid.quantize(np.ldexp(x, power)), grid.quantize(x))


def test_cosine_takes_no_notice_of_other_scales_but_for_the_last_bits():
    x = np.random.default_rng(2).normal(size=(20, 7))
    grid = Grid.covering(1.0, 7, "cosine")
    scaled = grid.quantize(x * np.geomspace(1e-30, 3e30, 20)[:, None])
    assert np.abs(scaled - grid.quantize(x)).max() <= 2


def test_cosine_leaves_zero_rows_zero():
    grid = Grid.covering(1.0, 3, "cosine")
    steps = grid.quantize(np.array([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0]]))
    np.testing.assert_allclose(grid.to_float(steps), [[0, 0, 0], [0, 0.6, 0.8]], atol=grid.step)


def test_means_round_to_the_nearest_step():
    grid = Grid.covering(1.0, 2)
    sums, counts = np.array([[7.0, -8.0], [2.0**53, 0.0]]), np.array([3, 2**33])
    assert grid.mean(sums, counts).tolist() == [[2.0, -3.0], [2.0**20, 0.0]]


def test_the_cosine_mean_is_the_mean_direction():
    grid = Grid.covering(1.0, 2, "cosine")
    x = grid.quantize(np.array([[1.0, 0.0], [0.0, 1.0]]))
    mean = grid.to_float(grid.mean(x.sum(axis=0, dtype=np.float64)[None], np.array([2])))
    np.testing.assert_allclose(mean, [[np.sqrt(0.5)] * 2], atol=grid.step)
