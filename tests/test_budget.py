"""The error budget against float64 numpy, its law that the shares sum to the error, and each part on its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantscope.errors import ShapeError
from quantscope.qparams import PerBlock, PerChannel, QParams, QuantSpec
from quantscope.statistics import BudgetAccumulator, ErrorBudget, ErrorStatistics, PairStatistics
from quantscope.statistics.budget import PARTS

UINT8 = QuantSpec(8, signed=False, symmetric=False)
PER_TENSOR = QParams(np.asarray(0.05, np.float32), np.asarray(60), UINT8)
INT8 = QParams(np.asarray(0.07, np.float32), np.asarray(0), QuantSpec(8))
INT4 = QParams(np.asarray(1.1, np.float32), np.asarray(2), QuantSpec(4))
PER_CHANNEL = QParams(
    np.linspace(0.01, 0.1, 6, dtype=np.float32),
    np.arange(40, 46),
    QuantSpec(8, signed=False, granularity=PerChannel(1)),
)
PER_BLOCK = QParams(
    np.linspace(0.01, 0.1, 12, dtype=np.float32).reshape(6, 2)[None].repeat(50, 0).reshape(50, 6, 2),
    np.zeros((50, 6, 2), np.int64),
    QuantSpec(8, granularity=PerBlock(2, 5)),
)
QPARAMS = {
    "uint8": PER_TENSOR,
    "int8": INT8,
    "int4": INT4,
    "per channel": PER_CHANNEL,
    "per block": PER_BLOCK,
    "float": None,
}

Arrays = tuple[NDArray[Any], ...]


def round_trip(x: NDArray[Any], q: QParams | None) -> NDArray[Any]:
    """As QuantizeLinear and DequantizeLinear do it, in float32."""
    return x if q is None else q.dequantize(q.quantize(x.astype(np.float32)))


def arrays(q: QParams | None, seed: int = 0, dtype: Any = np.float32) -> Arrays:
    """y, a, w, b, q, i of an op whose every part of the error is there, some of it beyond the range of the codes."""
    rng = np.random.default_rng(seed)
    y = rng.normal(3, 4, (50, 6, 10))
    a = y + rng.normal(0, 0.05, y.shape)
    w = a * 1.01 + rng.normal(0, 0.02, y.shape)
    b = w + np.linspace(-0.03, 0.02, 6)[:, None]
    quantized = round_trip(b.astype(np.float32), q) + (rng.random(y.shape) < 0.1) * 0.05
    i = y + (w - a) + rng.normal(0, 0.01, y.shape)
    return tuple(values.astype(dtype) for values in (y, a, w, b, quantized, i))


def expected(given_arrays: Arrays, qparams: QParams | None, kept: Any = slice(None)) -> dict[str, Any]:
    """The definitions, in float64, over the elements that are kept."""
    y, a, w, b, q, i = (values.astype(np.float64) for values in given_arrays)
    if qparams is None:
        c, r, isolated = b, b, i
    else:
        scale, zero_point = qparams.aligned(y.shape)
        low, high = ((limit - zero_point).astype(np.float32) * scale for limit in qparams.spec.code_range)
        c = np.minimum(np.maximum(b, low), high)
        r, isolated = (round_trip(values, qparams).astype(np.float64) for values in (given_arrays[3], given_arrays[5]))
    y, a, w, b, c, r, q, isolated = (values.reshape(-1)[kept] for values in (y, a, w, b, c, r, q, isolated))
    e = q - y
    differences = dict(zip(PARTS, (a - y, w - a, b - w, c - b, r - c, q - r), strict=True))
    squared = ((isolated - y) ** 2).mean()
    return {
        "mse": (e * e).mean(),
        "shares": {part: (t * e).mean() for part, t in differences.items()},
        "energies": {part: (t * t).mean() for part, t in differences.items()},
        "isolated_mse": squared,
        "isolated_sqnr_db": 10 * np.log10((y * y).mean() / squared) if squared else math.inf,
    }


def check(found: ErrorBudget, wanted: dict[str, Any]) -> None:
    assert found.mse == pytest.approx(wanted["mse"], rel=1e-12)
    assert dict(found.shares) == pytest.approx(wanted["shares"], rel=1e-9, abs=1e-12 * wanted["mse"])
    assert dict(found.energies) == pytest.approx(wanted["energies"], rel=1e-9, abs=1e-12 * wanted["mse"])
    assert list(found.shares) == list(found.energies) == list(PARTS)
    assert found.isolated_mse == pytest.approx(wanted["isolated_mse"], rel=1e-12)
    assert found.isolated_sqnr_db == pytest.approx(wanted["isolated_sqnr_db"], rel=1e-12)
    assert sum(found.shares.values()) == pytest.approx(found.mse, rel=1e-12)


def budget(qparams: QParams | None, *batches: Arrays) -> ErrorBudget:
    accumulator = BudgetAccumulator(qparams)
    for batch in batches:
        accumulator.update(*batch)
    return accumulator.result()


@pytest.mark.parametrize("name", QPARAMS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_definitions_in_float64(name: str, dtype: Any) -> None:
    given_arrays = arrays(QPARAMS[name], dtype=dtype)
    found = budget(QPARAMS[name], given_arrays)
    check(found, expected(given_arrays, QPARAMS[name]))
    assert (found.count, found.left_out) == (3000, 0)
    if QPARAMS[name] is not None:
        assert all(found.energies.values()), "every part is in the data"


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    scale=st.floats(1e-3, 1),
    zero_point=st.integers(0, 255),
    cuts=st.lists(st.integers(0, 50), max_size=4),
)
def test_any_split_gives_the_same_budget(seed: int, scale: float, zero_point: int, cuts: list[int]) -> None:
    q = QParams(np.asarray(scale, np.float32), np.asarray(zero_point), UINT8)
    whole = arrays(q, seed)
    batches = list(zip(*(np.split(values, sorted(cuts)) for values in whole), strict=True))
    merged = BudgetAccumulator(q)
    for batch in batches:
        single = BudgetAccumulator(q)
        single.update(*batch)
        merged.merge(single)
    for found in (budget(q, *batches), merged.result()):
        check(found, expected(whole, q))
        assert found.count == 3000


def values(low: float = -2.9, high: float = 9.7) -> NDArray[Any]:
    """Within PER_TENSOR's range of −3 to 9.75 unless told otherwise."""
    return np.random.default_rng(1).uniform(low, high, 4000).astype(np.float32)


def on_codes(x: NDArray[Any]) -> NDArray[Any]:
    return round_trip(x, PER_TENSOR)


def shifted(x: NDArray[Any]) -> NDArray[Any]:
    """Other codes."""
    return on_codes(x + np.float32(0.05) * np.random.default_rng(2).integers(-3, 4, x.shape).astype(np.float32))


exact = on_codes(values(-2.5, 9.5))
wide = values(-20, 30)
clipped = np.clip(wide, np.float32(-3), np.float32(195) * np.float32(0.05))
# Of these only one difference is not zero.
ALONE: dict[str, Arrays] = {
    "inherited": (exact, *[shifted(exact)] * 5),
    "weight": (exact, exact, *[shifted(exact)] * 4),
    "bias": (exact, exact, exact, *[shifted(exact)] * 3),
    "rounding": (*[values()] * 4, on_codes(values()), values()),
    "residual": (*[exact] * 4, shifted(exact), exact),
}


@pytest.mark.parametrize("part", ALONE)
def test_a_part_that_is_alone_is_the_whole_error(part: str) -> None:
    found = budget(PER_TENSOR, ALONE[part])
    assert found.mse > 0
    assert found.shares[part] == pytest.approx(found.mse, rel=1e-12)
    assert {other for other in PARTS if found.energies[other]} == {part}
    assert found.energies[part] == pytest.approx(found.mse, rel=1e-12)


def test_clipping_alone() -> None:
    # Values on codes or beyond the range: rounding takes nothing more away.
    x = np.where((wide < -3) | (wide > 9.75), wide, on_codes(wide)).astype(np.float32)
    found = budget(PER_TENSOR, (x, x, x, x, on_codes(x), x))
    assert found.mse > 10
    assert found.clipping == pytest.approx(found.mse, rel=1e-6)
    assert found.energies["rounding"] < 1e-9
    assert found.isolated_mse == found.mse


def test_a_part_that_cancels_another_has_a_negative_share() -> None:
    y = values()
    found = budget(None, (y, y + 1, y + np.float32(0.25), *[y + np.float32(0.25)] * 3))
    assert found.inherited == pytest.approx(0.25, rel=1e-5)
    assert found.weight == pytest.approx(-0.1875, rel=1e-5)
    assert found.mse == pytest.approx(0.0625, rel=1e-5)
    assert (found.energies["inherited"], found.energies["weight"]) == pytest.approx((1, 0.5625), rel=1e-5)


def test_the_isolated_error_is_that_of_the_op_on_the_references_inputs() -> None:
    y = values()
    # All that was inherited is gone: what is left is the rounding.
    found = budget(PER_TENSOR, (y, y + 1, y + 1, y + 1, on_codes(y + 1), y))
    assert found.mse > 0.5
    assert found.isolated_mse == pytest.approx(0.05**2 / 12, rel=0.05)
    squares = np.square(y.astype(np.float64)).mean()
    assert found.isolated_sqnr_db == pytest.approx(10 * math.log10(squares / found.isolated_mse), rel=1e-12)


@pytest.mark.parametrize("qparams", [PER_TENSOR, None, PER_CHANNEL])
@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_elements_that_are_not_finite_are_left_out_and_counted(qparams: Any, which: int, bad: float) -> None:
    good = arrays(qparams)
    spoiled = tuple(part.copy() for part in good)
    spoiled[which].flat[[7, 1500, 2999]] = bad
    found = budget(qparams, spoiled)
    assert (found.count, found.left_out) == (2997, 3)
    check(found, expected(good, qparams, np.delete(np.arange(3000), [7, 1500, 2999])))


def test_codes_stand_for_real_values_and_one_array_may_serve_twice() -> None:
    y, a, w, b, quantized, i = arrays(PER_TENSOR)
    codes = PER_TENSOR.quantize(quantized)
    # Without a bias the same array is given for both.
    found = budget(PER_TENSOR, (y, a, b, b, codes.astype(np.uint8), i))
    check(found, expected((y, a, b, b, PER_TENSOR.dequantize(codes), i), PER_TENSOR))
    assert found.bias == found.energies["bias"] == 0
    assert w is not b


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_error_alone_is_the_one_of_a_pair(dtype: Any) -> None:
    y, *_, quantized, _ = arrays(PER_TENSOR, dtype=dtype)
    y.flat[5], quantized.flat[2000] = np.nan, np.inf
    error, whole = ErrorStatistics(), PairStatistics()
    error.update(y[:20], quantized[:20])
    error.update(y[20:], quantized[20:])
    whole.update(y, quantized)
    assert error.count == whole.error.count == 2998
    for metric in ("mse", "sqnr_db", "cosine"):
        assert getattr(error, metric) == pytest.approx(getattr(whole.error, metric), rel=1e-12)
    with pytest.raises(ShapeError):
        error.update(y, quantized[1:])


def test_nothing_seen_is_nan_and_other_shapes_are_refused() -> None:
    empty = budget(PER_TENSOR, tuple(np.zeros((0, 3), np.float32) for _ in range(6)))
    assert empty.count == empty.left_out == 0
    assert all(map(math.isnan, (empty.mse, empty.weight, empty.energies["bias"], empty.isolated_sqnr_db)))
    with pytest.raises(ShapeError, match=r"\(4000,\).*\(2000,\)"):
        budget(None, (*[values()] * 5, values()[::2]))
