"""Kurtosis and outlier ratio, which come from a histogram, against float64 numpy on all values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantscope.statistics import TensorStatistics

SIZE = 1_000_000


def statistics_of(*parts: NDArray[Any]) -> TensorStatistics:
    result = TensorStatistics()
    for part in parts:
        result.update(part)
    return result


def kurtosis(values: NDArray[Any]) -> float:
    x = values.astype(np.float64)
    d = x - x.mean()
    return float((d**4).mean() / (d * d).mean() ** 2)


def outlier_ratio(values: NDArray[Any]) -> float:
    magnitudes = np.abs(values.astype(np.float64))
    return float(magnitudes.max() / np.quantile(magnitudes, 0.999, method="inverted_cdf"))


def normal() -> NDArray[Any]:
    return np.random.default_rng(0).normal(size=SIZE)


def with_one(values: NDArray[Any], outlier: float) -> NDArray[Any]:
    values = values.copy()
    values[SIZE // 3] = outlier
    return values


DISTRIBUTIONS = {
    "normal": normal(),
    "uniform": np.random.default_rng(1).uniform(-1, 1, SIZE),
    "t with 3 degrees of freedom": np.random.default_rng(2).standard_t(3, SIZE),
    "lognormal": np.random.default_rng(3).lognormal(0, 2, SIZE),
    "rectified": np.maximum(normal(), 0),
    "rectified, one at 10": with_one(np.maximum(normal(), 0), 10),
    "rectified, one at 30": with_one(np.maximum(normal(), 0), 30),
    "rectified, one at 100": with_one(np.maximum(normal(), 0), 100),
    "one at 30": with_one(normal(), 30),
    "one at -1000": with_one(normal(), -1000),
    "around a large mean": 1000 + np.random.default_rng(4).uniform(-1, 1, SIZE),
    "float32's last digits": 1e6 + normal(),
    "quantized": np.rint(normal() * 20) * 0.051,
    "one of two": np.where(normal() > 2, 1.03, -1.0),
    "softmax": 1 / (1 + np.exp(8 * normal())),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_kurtosis_is_right_within_half_a_percent(name: str) -> None:
    x = DISTRIBUTIONS[name].astype(np.float32)
    assert statistics_of(*np.array_split(x, 3)).kurtosis == pytest.approx(kurtosis(x), rel=0.005)


@settings(deadline=None, max_examples=100)
@given(
    values=st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=4, unique=True),
    counts=st.lists(st.integers(1, 10_000), min_size=4, max_size=4),
)
def test_kurtosis_of_a_few_values_is_right_within_two_percent(values: list[float], counts: list[int]) -> None:
    x = np.repeat(np.array(values, np.float32), counts[: len(values)])
    assert statistics_of(x).kurtosis == pytest.approx(kurtosis(x), rel=0.02)
    assert statistics_of(x).kurtosis >= 1


def test_the_worst_case_of_kurtosis_two_values_and_an_outlier() -> None:
    x = with_one(np.where(normal() > 0, 1.03, -1), 30)
    assert statistics_of(x).kurtosis == pytest.approx(kurtosis(x), rel=0.02)


@pytest.mark.parametrize(("deviation", "known"), [(1e6, True), (1.0, False)])
def test_kurtosis_is_not_guessed_where_the_bins_are_wider_than_the_spread(deviation: float, known: bool) -> None:
    x = 1e9 + deviation * normal()
    assert math.isnan(statistics_of(x).kurtosis) != known


@pytest.mark.parametrize("name", [name for name in DISTRIBUTIONS if name != "one at -1000"])
def test_outlier_ratio_is_right_within_six_percent(name: str) -> None:
    x = DISTRIBUTIONS[name].astype(np.float32)
    expected = outlier_ratio(x)
    assert expected < 100
    assert statistics_of(*np.array_split(x, 3)).outlier_ratio == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("outlier", [300.0, -1000.0, 1500.0])
def test_an_outlier_far_away_has_a_ratio_as_large(outlier: float) -> None:
    x = with_one(normal(), outlier)
    assert 91 < outlier_ratio(x) < 500
    assert statistics_of(x).outlier_ratio == pytest.approx(outlier_ratio(x), rel=0.2)


def test_where_nearly_all_values_are_zero_the_ratio_is_large() -> None:
    x = np.zeros(SIZE, np.float32)
    x[:500] = np.linspace(0.1, 1, 500)
    assert statistics_of(x).outlier_ratio > 500


@pytest.mark.parametrize("value", [0.0, 7.5, -3.0, 1e-30])
def test_a_constant_has_no_outlier_and_no_kurtosis(value: float) -> None:
    constant = statistics_of(np.full(1000, value, np.float32), np.full((2, 3), value, np.float32))
    assert constant.outlier_ratio == 1
    assert math.isnan(constant.kurtosis)


@pytest.mark.parametrize("values", [[], [math.nan, math.inf]])
def test_without_any_finite_value_there_is_no_figure(values: list[float]) -> None:
    empty = statistics_of(np.array(values, np.float32))
    assert math.isnan(empty.outlier_ratio)
    assert math.isnan(empty.kurtosis)


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(-1e300, 1e300) | st.just(math.nan) | st.just(math.inf), min_size=1, max_size=50))
def test_any_float_has_figures_in_their_range(values: list[float]) -> None:
    statistics = statistics_of(np.array(values))
    assert math.isnan(statistics.kurtosis) or statistics.kurtosis >= 1
    assert statistics.outlier_ratio >= 1 or not statistics.finite_count
