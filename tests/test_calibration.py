"""Ranges: by every method, whatever the batches, and in memory that does not grow."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import convolutions, images
from quantscope import Calibration, Recipe, Samples
from quantscope.backends.onnx import BACKEND
from quantscope.calibration import calibrate
from quantscope.statistics import TensorStatistics
from quantscope.statistics.ranges import calibrated_range


def statistics_of(values: NDArray[Any]) -> TensorStatistics:
    statistics = TensorStatistics()
    statistics.update(values)
    return statistics


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 100), percentile=st.floats(90, 100))
def test_percentiles_agree_with_numpy_to_a_bin(seed: int, percentile: float) -> None:
    values = np.random.default_rng(seed).standard_t(3, 5000).astype(np.float32)
    statistics = statistics_of(values)
    low, high = calibrated_range(statistics, Calibration("percentile", percentile))
    tail = (100 - percentile) / 2
    expected = np.percentile(values.astype(np.float64), [tail, 100 - tail])
    # Between two neighbouring values of a sparse tail a quantile can lie anywhere.
    ranks = np.searchsorted(np.sort(values), [low - statistics.histogram.width, high + statistics.histogram.width])
    assert ranks[0] <= np.searchsorted(np.sort(values), expected[0], "right")
    assert ranks[1] >= np.searchsorted(np.sort(values), expected[1], "left")
    assert values.min() <= low <= expected[0] + 2 * statistics.histogram.width
    assert expected[1] - 2 * statistics.histogram.width - np.ptp(values) * 0.1 <= high <= values.max()


def test_minmax_is_the_range_of_the_finite_values() -> None:
    values = np.array([1, -3, np.nan, 8, np.inf], np.float32)
    assert calibrated_range(statistics_of(values), Calibration()) == (-3, 8)


def test_entropy_cuts_off_outliers_and_keeps_a_plain_distribution() -> None:
    rng = np.random.default_rng(0)
    plain = rng.uniform(-1, 1, 100_000).astype(np.float32)
    low, high = calibrated_range(statistics_of(plain), Calibration("entropy"))
    assert high > 0.95
    assert low < -0.95
    outliers = np.concatenate([rng.normal(0, 1, 100_000), [500.0, -200.0]]).astype(np.float32)
    low, high = calibrated_range(statistics_of(outliers), Calibration("entropy"))
    assert 3 < high < 100
    assert -100 < low < -3


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_constant_zero_and_one_sided_tensors_have_a_range(method: Any) -> None:
    for values, expected in (([0.0, 0.0], (0, 0)), ([2.5, 2.5], (2.5, 2.5))):
        found = calibrated_range(statistics_of(np.array(values, np.float32)), Calibration(method))
        assert found == pytest.approx(expected, abs=1e-6)
    positive = np.abs(np.random.default_rng(0).normal(size=10_000)).astype(np.float32)
    low, high = calibrated_range(statistics_of(positive), Calibration(method))
    assert 0 <= low < high <= positive.max()


def test_ranges_do_not_depend_on_the_batch_size() -> None:
    # onnxruntime's calibrator with CalibMaxIntermediateOutputs loses batches: ±33 becomes ±3.5.
    x = images(33)
    x[5] *= 33
    model = BACKEND.prepare(BACKEND.load(convolutions()))
    samples = Samples.of(x).for_inputs(model.graph.inputs)
    found = [calibrate(BACKEND, model, Recipe(), partial(samples.batches, size))[0] for size in (1, 4, 33)]
    assert found[0].keys() == found[1].keys() == found[2].keys()
    assert {"x", "c1", "r1", "c2", "g", "f", "logits"} <= found[0].keys()
    assert found[0]["x"] == (float(x.min()), float(x.max()))
    for name in found[0]:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found[0][name], found[2][name], rtol=1e-5, atol=1e-5)


def test_values_that_are_not_finite_are_noted() -> None:
    x = images(4)
    x[2, 0, 0, 0] = np.inf
    model = BACKEND.prepare(BACKEND.load(convolutions()))
    samples = Samples.of(x).for_inputs(model.graph.inputs)
    _, notes = calibrate(BACKEND, model, Recipe(), partial(samples.batches, 1))
    assert "not finite" in notes[0]
    assert "'x'" in notes[0]


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_range_of_an_input_is_that_of_the_samples_however_they_lie_in_memory(order: Any) -> None:
    x = np.asarray(images(12), order=order)
    model = BACKEND.load(convolutions())
    samples = Samples.of({"x": x}).for_inputs(model.graph.inputs)
    for _ in range(5):
        ranges, notes = calibrate(BACKEND, model, Recipe(), partial(samples.batches, 3))
        assert ranges["x"] == (x.min(), x.max())
        assert not notes


def test_ranges_and_progress_are_the_same_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = BACKEND.prepare(BACKEND.load(convolutions()))
    batches = partial(Samples.of(images(7)).for_inputs(model.graph.inputs).batches, 2)
    opened: list[int] = []
    real = type(BACKEND).open

    def counted(self: Any, model: Any, tensors: Any, **options: Any) -> Any:
        opened.append(len(tensors))
        return real(self, model, tensors, **options)

    monkeypatch.setattr(type(BACKEND), "open", counted)
    told: list[int] = []
    whole = calibrate(BACKEND, model, Recipe(), batches, progress=told.append)
    assert (len(opened), sum(told)) == (1, 7)
    told.clear()
    assert calibrate(BACKEND, model, Recipe(), batches, memory_bytes=1, progress=told.append) == whole
    assert opened[1:] == [1] * opened[0]
    assert sum(told) == 7
