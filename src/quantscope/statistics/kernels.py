"""The hot loops, compiled by numba: each reads its arrays once, block by block, and allocates nothing per element.

A block stays in the first-level cache while its sums, its error and its histogram are taken. The sums of a block are
plain loops over a slice, which the compiler turns into vector instructions (docs/decisions/0003-kernels.md has the
figures); a value that is not finite shows up in the block's sum of squares, and only such a block takes the slow path
that looks at each value.

All sums are float64. Means and squared deviations are taken relative to a first value of the array, then merged
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
BINS = 2048

# Slots of a tensor's accumulator.
COUNT, NAN, POSITIVE_INFINITY, NEGATIVE_INFINITY, MINIMUM, MAXIMUM, MEAN, SQUARED_DEVIATION, SUM_SQUARES = range(9)
TENSOR_SLOTS = 9
# Slots of an error accumulator: a pair of tensors.
PAIRS, SQUARED_ERROR, PRODUCT, REFERENCE_SQUARES, QUANTIZED_SQUARES = range(5)
ERROR_SLOTS = 5
# Slots of a rounding accumulator: a tensor against its own quantize-dequantize.
ROUNDED, ROUNDING_SQUARES, ROUNDED_SQUARES, CLIPPED = range(4)
ROUNDING_SLOTS = 4

# Slots of a histogram's layout: bin i covers [(first + i)·2**exponent, (first + i + 1)·2**exponent).
EXPONENT, FIRST, IN_USE, LOWEST, HIGHEST = range(5)
LAYOUT_SLOTS = 5
# Below the smallest float64: finer bins would overflow the factor that numbers them.
FINEST_EXPONENT = -1000

# Reassociation lets the compiler use vector registers for sums; NaN and infinity keep their meaning.
_SUMS = {"reassoc", "contract", "nsz"}


@numba.njit(cache=True, nogil=True)
def _merge_moments(sums: Array, count: float, mean: float, deviation: float) -> None:
    total = sums[COUNT] + count
    delta = mean - sums[MEAN]
    sums[MEAN] += delta * count / total
    sums[SQUARED_DEVIATION] += deviation + delta * delta * sums[COUNT] * count / total
    sums[COUNT] = total


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def _sums(x: Array, pivot: float) -> tuple[float, float, float]:
    total = 0.0
    deviation = 0.0
    squares = 0.0
    for i in range(x.size):
        v = np.float64(x[i])
        d = v - pivot
        total += d
        deviation += d * d
        squares += v * v
    return total, deviation, squares


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def _error_sums(x: Array, y: Array) -> tuple[float, float, float]:
    squared = 0.0
    product = 0.0
    y_squares = 0.0
    for i in range(x.size):
        a = np.float64(x[i])
        b = np.float64(y[i])
        d = a - b
        squared += d * d
        product += a * b
        y_squares += b * b
    return squared, product, y_squares


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def _rounding_sums(x: Array, scale: float, low: float, high: float) -> tuple[float, float]:
    squares = 0.0
    clipped = 0.0
    inverse = 1.0 / scale
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
def _extrema(bits: Array, lower_bits: Any, sign_shift: Any) -> tuple[Any, Any]:
    """Bits of the lowest and highest value of a finite block.

    `bits` are the floats read as integers: with the lower bits of negative numbers flipped they sort like the floats,
    and integer extrema become vector instructions where float ones, which must respect NaN, do not.
    """
    first = bits[0] ^ ((bits[0] >> sign_shift) & lower_bits)
    low = first
    high = first
    for i in range(bits.size):
        v = bits[i] ^ ((bits[i] >> sign_shift) & lower_bits)
        low = v if v < low else low
        high = v if v > high else high
    return low ^ ((low >> sign_shift) & lower_bits), high ^ ((high >> sign_shift) & lower_bits)


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


@numba.njit(cache=True, nogil=True)
def _finest_exponent(low: float, high: float) -> int:
    """The smallest bin width 2**k that covers low..high in BINS bins; it depends on the extrema alone."""
    magnitude = max(abs(low), abs(high))
    if magnitude == 0.0:
        return FINEST_EXPONENT
    # Bin numbers must be exact integers in float64 and distinguish float32 values: 24 bits below the magnitude.
    k = int(np.floor(np.log2(magnitude))) - 24
    if high > low:
        k = max(k, int(np.floor(np.log2((high - low) / BINS))) - 1)
    k = max(k, FINEST_EXPONENT)
    while np.floor(high * 2.0**-k) - np.floor(low * 2.0**-k) >= BINS:
        k += 1
    return k


@numba.njit(cache=True, nogil=True)
def grow(bins: Array, layout: Array, low: float, high: float) -> None:
    """Make the histogram cover low..high: coarsen by joining pairs of bins, then shift.

    The result depends on the extrema alone, so that any split of the data into batches gives the same histogram.
    """
    if layout[IN_USE] == 1.0:
        low = min(low, layout[LOWEST])
        high = max(high, layout[HIGHEST])
    k = _finest_exponent(low, high)
    first = np.floor(low * 2.0**-k)
    if layout[IN_USE] == 1.0:
        old_k = int(layout[EXPONENT])
        old_first = int(layout[FIRST])
        k = max(k, old_k)
        first = np.floor(low * 2.0**-k)
        shift = k - old_k
        if shift > 0 or first != old_first:
            moved = np.zeros(bins.shape[0], bins.dtype)
            for i in range(bins.shape[0]):
                if bins[i] != 0:
                    number = old_first + i
                    number = number >> shift if shift < 63 else (-1 if number < 0 else 0)
                    moved[number - int(first)] += bins[i]
            bins[:] = moved
    layout[EXPONENT] = k
    layout[FIRST] = first
    layout[IN_USE] = 1.0
    layout[LOWEST] = low
    layout[HIGHEST] = high


@numba.njit(cache=True, nogil=True)
def _count_in_bins(x: Array, bins: Array, layout: Array, finite: bool) -> None:
    # Multiplying by a power of two is exact: the bin of a value never depends on the batch it came in.
    factor = 2.0 ** -layout[EXPONENT]
    first = layout[FIRST]
    if finite:
        for i in range(x.size):
            bins[int(np.floor(np.float64(x[i]) * factor) - first)] += 1
    else:
        for i in range(x.size):
            v = np.float64(x[i])
            if np.isfinite(v):
                bins[int(np.floor(v * factor) - first)] += 1


@numba.njit(cache=True, nogil=True)
def _summarize_block(
    x: Array,
    bits: Array,
    lower_bits: Any,
    sign_shift: Any,
    scratch: Array,
    pivot: float,
    sums: Array,
    bins: Array,
    layout: Array,
) -> Any:
    """Add one block to a tensor's sums and histogram; False if a value in it is not finite."""
    total, deviation, squares = _sums(x, pivot)
    finite = np.isfinite(squares) and np.isfinite(deviation)
    if finite:
        scratch[0], scratch[1] = _extrema(bits, lower_bits, sign_shift)
        extrema = scratch.view(x.dtype)
        low = np.float64(extrema[0])
        high = np.float64(extrema[1])
        mean = total / x.size
        _merge_moments(sums, x.size, pivot + mean, max(deviation - total * mean, 0.0))
    else:
        before = sums[NAN] + sums[POSITIVE_INFINITY] + sums[NEGATIVE_INFINITY]
        count, mean, deviation, squares, low, high = _finite_sums(x, sums)
        # Squares of finite float64 values can overflow too: then nothing here was infinite.
        finite = before == sums[NAN] + sums[POSITIVE_INFINITY] + sums[NEGATIVE_INFINITY]
        if count == 0:
            return finite
        _merge_moments(sums, count, mean, deviation)
    sums[SUM_SQUARES] += squares
    sums[MINIMUM] = min(sums[MINIMUM], low)
    sums[MAXIMUM] = max(sums[MAXIMUM], high)
    if layout[IN_USE] == 0.0 or low < layout[LOWEST] or high > layout[HIGHEST]:
        grow(bins, layout, low, high)
    _count_in_bins(x, bins, layout, finite)
    return finite


@numba.njit(cache=True, nogil=True)
def _pivot(x: Array) -> float:
    """A first finite value, near the data, to take deviations from."""
    for i in range(x.size):
        if np.isfinite(x[i]):
            return np.float64(x[i])
    return 0.0


@numba.njit(cache=True, nogil=True)
def _finite_error_sums(x: Array, y: Array, error: Array) -> None:
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
def _compare_block(x: Array, y: Array, x_squares: float, finite: bool, error: Array) -> None:
    if not finite:
        _finite_error_sums(x, y, error)
        return
    squared, product, y_squares = _error_sums(x, y)
    error[PAIRS] += x.size
    error[SQUARED_ERROR] += squared
    error[PRODUCT] += product
    error[REFERENCE_SQUARES] += x_squares
    error[QUANTIZED_SQUARES] += y_squares


@numba.njit(cache=True, nogil=True)
def _finite_rounding_sums(x: Array, scale: float, low: float, high: float, rounding: Array) -> None:
    for i in range(x.size):
        v = np.float64(x[i])
        if np.isfinite(v):
            code = np.rint(v / scale)
            inside = min(max(code, low), high)
            if inside != code:
                rounding[CLIPPED] += 1
            rounding[ROUNDED] += 1
            rounding[ROUNDING_SQUARES] += (v - inside * scale) ** 2
            rounding[ROUNDED_SQUARES] += v * v


@numba.njit(cache=True, nogil=True)
def _round_block(
    x: Array, x_squares: float, finite: bool, scale: float, low: float, high: float, rounding: Array
) -> None:
    if not finite:
        _finite_rounding_sums(x, scale, low, high, rounding)
        return
    squares, clipped = _rounding_sums(x, scale, low, high)
    rounding[ROUNDED] += x.size
    rounding[ROUNDING_SQUARES] += squares
    rounding[ROUNDED_SQUARES] += x_squares
    rounding[CLIPPED] += clipped


@numba.njit(cache=True, nogil=True)
def summarize(x: Array, bits: Array, lower_bits: Any, sign_shift: Any, sums: Array, bins: Array, layout: Array) -> None:
    """Add one flat array to a tensor's sums and histogram; `bits` is the array read as integers."""
    scratch = np.empty(2, bits.dtype)
    pivot = _pivot(x)
    for start in range(0, x.size, BLOCK):
        block = slice(start, start + BLOCK)
        _summarize_block(x[block], bits[block], lower_bits, sign_shift, scratch, pivot, sums, bins, layout)


@numba.njit(cache=True, nogil=True)
def round_trip(x: Array, scale: float, low: float, high: float, rounding: Array) -> None:
    """Add the error of one flat array against its own quantize-dequantize; low and high are codes minus zero point."""
    for start in range(0, x.size, BLOCK):
        block = x[start : start + BLOCK]
        _, _, squares = _sums(block, 0.0)
        _round_block(block, squares, np.isfinite(squares), scale, low, high, rounding)


@numba.njit(cache=True, nogil=True)
def compare(
    x: Array,
    x_bits: Array,
    y: Array,
    y_bits: Array,
    lower_bits: Any,
    sign_shift: Any,
    x_sums: Array,
    x_bins: Array,
    x_layout: Array,
    y_sums: Array,
    y_bins: Array,
    y_layout: Array,
    error: Array,
) -> None:
    """Add one pair of flat float arrays of one dtype: both summaries and their error, in one pass."""
    scratch = np.empty(2, x_bits.dtype)
    x_pivot = _pivot(x)
    y_pivot = _pivot(y)
    for start in range(0, x.size, BLOCK):
        block = slice(start, start + BLOCK)
        before = x_sums[SUM_SQUARES]
        x_finite = _summarize_block(
            x[block], x_bits[block], lower_bits, sign_shift, scratch, x_pivot, x_sums, x_bins, x_layout
        )
        y_finite = _summarize_block(
            y[block], y_bits[block], lower_bits, sign_shift, scratch, y_pivot, y_sums, y_bins, y_layout
        )
        _compare_block(x[block], y[block], x_sums[SUM_SQUARES] - before, x_finite and y_finite, error)


@numba.njit(cache=True, nogil=True)
def compare_codes(
    x: Array,
    bits: Array,
    lower_bits: Any,
    sign_shift: Any,
    codes: Array,
    values: Array,
    lowest_code: int,
    scale: float,
    low: float,
    high: float,
    sums: Array,
    bins: Array,
    layout: Array,
    code_counts: Array,
    error: Array,
    rounding: Array,
) -> None:
    """Add one flat float array and the integer codes that stand for it in the quantized model.

    values[code − lowest_code] is the real value of a code. What there is to say of the quantized tensor alone follows
    from how often each code occurs, so the codes are only counted here. low and high are codes minus zero point.
    """
    scratch = np.empty(2, bits.dtype)
    pivot = _pivot(x)
    y = np.empty(BLOCK, values.dtype)
    for start in range(0, x.size, BLOCK):
        block = slice(start, start + BLOCK)
        size = min(BLOCK, x.size - start)
        for i in range(size):
            index = np.int64(codes[start + i]) - lowest_code
            y[i] = values[index]
            code_counts[index] += 1
        before = sums[SUM_SQUARES]
        finite = _summarize_block(x[block], bits[block], lower_bits, sign_shift, scratch, pivot, sums, bins, layout)
        squares = sums[SUM_SQUARES] - before
        _compare_block(x[block], y[:size], squares, finite, error)
        _round_block(x[block], squares, finite, scale, low, high, rounding)
