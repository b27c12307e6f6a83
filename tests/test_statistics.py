"""The numbers, against float64 numpy written here, and the laws: any split gives the same result."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from quantscope.errors import ShapeError
from quantscope.qparams import QParams, QuantSpec
from quantscope.statistics import PairStatistics, TensorStatistics, shared_bins

UINT8 = QuantSpec(8, signed=False, symmetric=False)


def qparams(scale: float, zero_point: int, spec: QuantSpec = UINT8) -> QParams:
    return QParams(np.asarray(scale, np.float32), np.asarray(zero_point), spec)


def activations(size: int = 10_000, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(3, 2, size).astype(np.float32)


def parts(values: NDArray[Any], cuts: list[int]) -> list[NDArray[Any]]:
    return np.split(values, sorted(cut % (len(values) + 1) for cut in cuts))


finite_values = arrays(
    np.float32,
    st.integers(1, 6000),
    elements=st.floats(-1e6, 1e6, width=32),
    fill=st.floats(-2, 2, width=32),
)


@settings(deadline=None, max_examples=60)
@given(values=finite_values, cuts=st.lists(st.integers(0, 10_000), max_size=5))
def test_any_split_merges_to_the_same_statistics(values: NDArray[Any], cuts: list[int]) -> None:
    whole = TensorStatistics()
    whole.update(values)
    updated, merged = TensorStatistics(), TensorStatistics()
    for part in parts(values, cuts):
        updated.update(part)
        single = TensorStatistics()
        single.update(part)
        merged.merge(single)
    x = values.astype(np.float64)
    for statistics in (whole, updated, merged):
        assert statistics.count == len(values)
        assert statistics.minimum == x.min()
        assert statistics.maximum == x.max()
        assert statistics.mean == pytest.approx(x.mean(), rel=1e-9, abs=1e-9)
        assert statistics.variance == pytest.approx(x.var(), rel=1e-9, abs=1e-9 * max(1, x.var()))
        assert statistics.sum_squares == pytest.approx((x * x).sum(), rel=1e-9)
        histogram = statistics.histogram
        assert histogram.exponent == whole.histogram.exponent
        assert histogram.first == whole.histogram.first
        np.testing.assert_array_equal(histogram.counts, whole.histogram.counts)
        np.testing.assert_array_equal(histogram.counts, np.histogram(x, histogram.edges)[0])


@settings(deadline=None, max_examples=30)
@given(
    values=arrays(np.float32, st.integers(1, 300), elements=st.floats(width=32)),
    cuts=st.lists(st.integers(0, 300), max_size=3),
)
def test_any_float_at_all(values: NDArray[Any], cuts: list[int]) -> None:
    statistics = TensorStatistics()
    for part in parts(values, cuts):
        statistics.update(part)
    finite = values[np.isfinite(values)].astype(np.float64)
    assert statistics.count == len(values)
    assert statistics.nan_count == np.isnan(values).sum()
    assert statistics.infinity_count == np.isinf(values).sum()
    assert statistics.histogram.counts.sum() == len(finite)
    if len(finite):
        assert statistics.minimum == finite.min()
        assert statistics.maximum == finite.max()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8])
def test_every_dtype_and_shape(dtype: Any) -> None:
    values = (np.random.default_rng(1).normal(20, 5, (3, 5, 7)) * 2).astype(dtype)
    statistics = TensorStatistics()
    statistics.update(values.transpose(2, 0, 1))
    assert statistics.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-12)
    assert statistics.variance == pytest.approx(values.astype(np.float64).var(), rel=1e-12)


def test_a_small_spread_around_a_large_mean_keeps_its_digits() -> None:
    values = 10_000 + np.random.default_rng(2).normal(0, 1e-4, 5000)
    statistics = TensorStatistics()
    for part in np.split(values, 10):
        statistics.update(part)
    assert statistics.variance == pytest.approx(values.var(), rel=1e-6)


def test_constant_and_empty_tensors() -> None:
    constant, empty = TensorStatistics(), TensorStatistics()
    constant.update(np.full((2, 3), 7.5, np.float32))
    empty.update(np.zeros((0, 3), np.float32))
    assert (constant.minimum, constant.maximum, constant.mean, constant.std) == (7.5, 7.5, 7.5, 0)
    assert constant.histogram.counts.tolist() == [6]
    assert empty.count == 0
    assert math.isnan(empty.minimum)
    assert math.isnan(empty.variance)
    assert len(empty.histogram.counts) == 0


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    scale=st.floats(0.001, 0.1),
    zero_point=st.integers(0, 255),
    cuts=st.lists(st.integers(0, 5000), max_size=4),
    as_codes=st.booleans(),
)
def test_pair_statistics_equal_float64_numpy(
    seed: int, scale: float, zero_point: int, cuts: list[int], as_codes: bool
) -> None:
    x = activations(5000, seed)
    q = qparams(scale, zero_point)
    codes = np.clip(np.rint(x / np.float32(scale)) + zero_point, 0, 255).astype(np.uint8)
    # The quantized model's own tensor: what the codes say, a step off now and then.
    codes = np.clip(codes.astype(int) + (np.arange(5000) % 7 == 0), 0, 255).astype(np.uint8)
    y = (codes.astype(np.int64) - zero_point).astype(np.float32) * np.float32(scale)
    statistics = PairStatistics(q)
    for x_part, y_part in zip(parts(x, cuts), parts(codes if as_codes else y, cuts), strict=True):
        other = PairStatistics(q)
        other.update(x_part, y_part)
        statistics.merge(other)
    statistics = PairStatistics.from_arrays(statistics.arrays(), q)

    a, b = x.astype(np.float64), y.astype(np.float64)
    s = np.float64(np.float32(scale))
    unclipped = np.rint(a / s) + zero_point
    own = (np.clip(unclipped, 0, 255) - zero_point) * s
    assert statistics.error.mse == pytest.approx(((a - b) ** 2).mean(), rel=1e-9)
    assert statistics.error.sqnr_db == pytest.approx(10 * np.log10((a * a).sum() / ((a - b) ** 2).sum()), rel=1e-9)
    assert statistics.error.cosine == pytest.approx((a @ b) / np.sqrt((a @ a) * (b @ b)), rel=1e-9, abs=1e-12)
    assert statistics.rounding.mse == pytest.approx(((a - own) ** 2).mean(), rel=1e-6)
    assert statistics.rounding.clipped_fraction == pytest.approx(((unclipped < 0) | (unclipped > 255)).mean())
    assert statistics.rmse_over_scale == pytest.approx(np.sqrt(((a - b) ** 2).mean()) / s, rel=1e-9)
    assert statistics.effective_bits == pytest.approx(np.log2(np.ptp(a) / (a - b).std()), rel=1e-6)
    assert statistics.levels_used == len(np.unique(codes))
    assert statistics.quantized.mean == pytest.approx(b.mean(), rel=1e-6, abs=1e-9)
    assert statistics.quantized.variance == pytest.approx(b.var(), rel=1e-6, abs=1e-12)
    assert statistics.quantized.minimum == b.min()
    assert statistics.quantized.maximum == b.max()
    shared = shared_bins(statistics.reference.histogram, statistics.quantized.histogram)
    for histogram, values in zip(shared, (a, b), strict=True):
        np.testing.assert_array_equal(histogram.edges, shared[0].edges)
        np.testing.assert_array_equal(histogram.counts, np.histogram(values, histogram.edges)[0])


def test_a_scaled_and_shifted_tensor_has_a_large_mse() -> None:
    # Neural Insights normalizes each tensor by itself first, so that y = 3x+100 scores 1e-14 there.
    x = np.linspace(-1, 1, 1000, dtype=np.float32)
    statistics = PairStatistics()
    statistics.update(x, 3 * x + 100)
    assert statistics.error.mse == pytest.approx(((2 * x.astype(np.float64) + 100) ** 2).mean(), rel=1e-6)
    assert statistics.error.mse > 9_998


def test_one_exact_sample_in_ten_does_not_hide_the_error() -> None:
    # Averaging the SQNR of samples gives 80 dB and more here; the pooled value is what the model suffers.
    rng = np.random.default_rng(3)
    statistics = PairStatistics()
    samples = rng.normal(0, 1, (10, 1000)).astype(np.float32)
    noise = rng.normal(0, 0.3, (10, 1000)).astype(np.float32)
    noise[0] = 0
    for x, e in zip(samples, noise, strict=True):
        statistics.update(x, x + e)
    a, b = samples.astype(np.float64), (samples + noise).astype(np.float64)
    pooled = 10 * np.log10((a * a).sum() / ((a - b) ** 2).sum())
    assert statistics.error.sqnr_db == pytest.approx(pooled, rel=1e-9)
    assert 10 < pooled < 12


def test_a_nan_in_one_sample_is_counted_and_the_rest_still_measured() -> None:
    x, y = activations(100), activations(100, 1)
    y[7], y[8] = np.nan, np.inf
    statistics = PairStatistics()
    statistics.update(x, y)
    statistics.update(x, x)
    assert not statistics.all_finite
    assert (statistics.quantized.nan_count, statistics.quantized.infinity_count) == (1, 1)
    good = np.isfinite(y)
    expected = ((x[good].astype(np.float64) - y[good].astype(np.float64)) ** 2).sum() / 198
    assert statistics.error.mse == pytest.approx(expected)


def test_equal_tensors_have_no_error() -> None:
    statistics = PairStatistics()
    statistics.update(activations(), activations())
    assert statistics.error.mse == 0
    assert statistics.error.sqnr_db == math.inf
    assert statistics.error.cosine == pytest.approx(1)


def test_pure_rounding_has_the_healthy_rmse_over_scale() -> None:
    x = np.random.default_rng(5).uniform(0, 2.55, 200_000).astype(np.float32)
    q = qparams(0.01, 0)
    statistics = PairStatistics(q)
    statistics.update(x, q.quantize(x).astype(np.uint8))
    assert statistics.rmse_over_scale == pytest.approx(1 / math.sqrt(12), rel=0.01)
    assert statistics.effective_bits == pytest.approx(8 + math.log2(math.sqrt(12)), rel=0.01)


def test_unsigned_weights_do_not_wrap_when_dequantized() -> None:
    # onnxruntime's qdq_loss_debug subtracts in uint8 and reports −14 dB for such weights.
    q = qparams(0.02, 128)
    weights = np.random.default_rng(6).uniform(-2.5, 2.5, (16, 8)).astype(np.float32)
    back = q.dequantize(q.quantize(weights).astype(np.uint8))
    statistics = PairStatistics(q)
    statistics.update(weights, back)
    assert statistics.error.sqnr_db > 40


def test_shapes_must_agree() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3\).*\(3, 2\)"):
        PairStatistics().update(np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32))


@settings(deadline=None, max_examples=25)
@given(
    weights=arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=6), elements=st.floats(-4, 4, width=32))
)
def test_per_channel_rounding_equals_a_loop_over_channels(weights: NDArray[Any]) -> None:
    from quantscope.qparams import PerChannel

    axis = weights.ndim - 1
    channels = weights.shape[axis]
    scale = np.linspace(0.01, 0.05, channels).astype(np.float32)
    q = QParams(scale, np.zeros(channels, np.int64), QuantSpec(granularity=PerChannel(axis)))
    statistics = PairStatistics(q)
    statistics.update(weights, q.dequantize(q.quantize(weights)))
    squared = 0.0
    clipped = 0
    for i in range(channels):
        w, s = np.take(weights, i, axis).astype(np.float64), np.float64(scale[i])
        code = np.rint(w / s)
        squared += ((w - np.clip(code, -128, 127) * s) ** 2).sum()
        clipped += int(((code < -128) | (code > 127)).sum())
    assert statistics.rounding.mse == pytest.approx(squared / weights.size, rel=1e-9, abs=1e-15)
    assert statistics.rounding.clipped_fraction == pytest.approx(clipped / weights.size)
