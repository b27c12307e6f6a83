"""The sums of one block, and how they join an accumulator.

All sums are float64. Means and squared deviations are taken relative to the first value of a block, then merged
by Chan's formula, so that a small spread around a large mean keeps its digits.
Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979,
eq. 2.1.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCK = 2048

# Slots of a tensor's accumulator.
COUNT, NAN, POSITIVE_INFINITY, NEGATIVE_INFINITY, MINIMUM, MAXIMUM, MEAN, SQUARED_DEVIATION, SUM_SQUARES = range(9)
TENSOR_SLOTS = 9
# Slots of an error accumulator: a pair of tensors.
PAIRS, SQUARED_ERROR, PRODUCT, REFERENCE_SQUARES, QUANTIZED_SQUARES = range(5)
ERROR_SLOTS = 5

# What add_sums found in a block: only finite values, finite ones whose squares overflow, some that are not finite.
ORDINARY, LARGE, NOT_FINITE = range(3)

# Reassociation lets the compiler use vector registers for sums; NaN and infinity keep their meaning.
SUMS = {"reassoc", "contract", "nsz"}


@numba.njit(cache=True, nogil=True)
def merge_moments(sums: Array, count: float, mean: float, deviation: float) -> None:
    total = sums[COUNT] + count
    delta = mean - sums[MEAN]
    sums[MEAN] += delta * count / total
    sums[SQUARED_DEVIATION] += deviation + delta * delta * sums[COUNT] * count / total
    sums[COUNT] = total


@numba.njit(cache=True, nogil=True, fastmath=SUMS)
def moments(x: Array, pivot: float) -> tuple[float, float]:
    total = 0.0
    deviation = 0.0
    for i in range(x.size):
        d = np.float64(x[i]) - pivot
        total += d
        deviation += d * d
    return total, deviation


@numba.njit(cache=True, nogil=True, fastmath=SUMS)
def error_sums(x: Array, y: Array) -> float:
    squared = 0.0
    for i in range(x.size):
        d = np.float64(x[i]) - np.float64(y[i])
        squared += d * d
    return squared


# Not "contract": a fused multiply-add would not round y to float32.
@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"})
def code_error_sums(x: Array, codes: Array, zero_point: Any, step: Any) -> float:
    """Σ(x−y)² with y = (code − zero point)·step in float32, as DequantizeLinear computes it."""
    squared = 0.0
    for i in range(x.size):
        d = np.float64(x[i]) - np.float64(np.float32(np.int32(codes[i]) - zero_point) * step)
        squared += d * d
    return squared


@numba.njit(cache=True, nogil=True, fastmath=SUMS)
def rounding_sums(x: Array, inverse: float, scale: float, low: float, high: float) -> tuple[float, float]:
    squares = 0.0
    clipped = 0.0
    for i in range(x.size):
        v = np.float64(x[i])
        code = np.rint(v * inverse)
        inside = low if code < low else code
        inside = high if inside > high else inside
        clipped += 1.0 if inside != code else 0.0
        d = v - inside * scale
        squares += d * d
    return squares, clipped


@numba.njit(cache=True, nogil=True)
def _any_outside(x: Array, low: float, high: float) -> Any:
    outside = np.int64(0)
    for i in range(x.size):
        v = np.float64(x[i])
        outside += np.int64(v < low) | np.int64(v > high)
    return outside > 0


@numba.njit(cache=True, nogil=True)
def _extrema(x: Array) -> tuple[float, float]:
    low = x[0]
    high = x[0]
    for i in range(x.size):
        low = x[i] if x[i] < low else low
        high = x[i] if x[i] > high else high
    return np.float64(low), np.float64(high)


@numba.njit(cache=True, nogil=True)
def _finite_sums(x: Array, sums: Array) -> tuple[Any, ...]:
    """The slow path: counts what is not finite and sums the rest (count, mean, deviation, squares, low, high)."""
    count = 0
    mean = 0.0
    deviation = 0.0
    squares = 0.0
    low = np.inf
    high = -np.inf
    for i in range(x.size):
        v = np.float64(x[i])
        if np.isnan(v):
            sums[NAN] += 1
        elif v == np.inf:
            sums[POSITIVE_INFINITY] += 1
        elif v == -np.inf:
            sums[NEGATIVE_INFINITY] += 1
        else:
            count += 1
            delta = v - mean
            mean += delta / count
            deviation += delta * (v - mean)
            squares += v * v
            low = min(low, v)
            high = max(high, v)
    return count, mean, deviation, squares, low, high


# Inlined by force: a call per block costs a hundredth of compare_codes.
@numba.njit(cache=True, nogil=True, forceinline=True)
def add_sums(x: Array, sums: Array) -> Any:
    """Add the count, extrema and moments of one block to a tensor's sums; says what kind of values are in it."""
    pivot = np.float64(x[0])
    total, deviation = moments(x, pivot)
    if np.isfinite(deviation):
        found = ORDINARY
        low, high = sums[MINIMUM], sums[MAXIMUM]
        # Soon no value lies outside of the extrema so far, which costs less to see than to find the block's own.
        if _any_outside(x, low, high):
            low, high = _extrema(x)
        mean = total / x.size
        squares = deviation + pivot * (2 * total + pivot * x.size)
        merge_moments(sums, x.size, pivot + mean, max(deviation - total * mean, 0.0))
    else:
        before = sums[NAN] + sums[POSITIVE_INFINITY] + sums[NEGATIVE_INFINITY]
        count, mean, deviation, squares, low, high = _finite_sums(x, sums)
        after = sums[NAN] + sums[POSITIVE_INFINITY] + sums[NEGATIVE_INFINITY]
        # Squares of finite float64 values can overflow too: then nothing here was infinite.
        found = LARGE if before == after else NOT_FINITE
        if count == 0:
            return found
        merge_moments(sums, count, mean, deviation)
    sums[SUM_SQUARES] += max(squares, 0.0)
    sums[MINIMUM] = min(sums[MINIMUM], low)
    sums[MAXIMUM] = max(sums[MAXIMUM], high)
    return found


@numba.njit(cache=True, nogil=True)
def add_finite_pairs(x: Array, y: Array, error: Array) -> None:
    for i in range(x.size):
        a = np.float64(x[i])
        b = np.float64(y[i])
        if np.isfinite(a) and np.isfinite(b):
            error[PAIRS] += 1
            error[SQUARED_ERROR] += (a - b) * (a - b)
            error[PRODUCT] += a * b
            error[REFERENCE_SQUARES] += a * a
            error[QUANTIZED_SQUARES] += b * b


@numba.njit(cache=True, nogil=True)
def add_pairs(count: int, squared: float, x_squares: float, y_squares: float, error: Array) -> None:
    error[PAIRS] += count
    error[SQUARED_ERROR] += squared
    # Σ(x−y)² = Σx² + Σy² − 2Σxy
    error[PRODUCT] += (x_squares + y_squares - squared) / 2
    error[REFERENCE_SQUARES] += x_squares
    error[QUANTIZED_SQUARES] += y_squares


@numba.njit(cache=True, nogil=True)
def merge_sums(sums: Array, added: Array) -> None:
    """Add the sums of one tensor's accumulator to another's."""
    for slot in (NAN, POSITIVE_INFINITY, NEGATIVE_INFINITY, SUM_SQUARES):
        sums[slot] += added[slot]
    if added[COUNT] > 0.0:
        merge_moments(sums, added[COUNT], added[MEAN], added[SQUARED_DEVIATION])
        sums[MINIMUM] = min(sums[MINIMUM], added[MINIMUM])
        sums[MAXIMUM] = max(sums[MAXIMUM], added[MAXIMUM])
