"""The hot loops, compiled by numba: each reads its arrays once, block by block, and allocates nothing per element.

A block stays in the first-level cache while its sums, its error and its histogram are taken. The sums of a block are
plain loops over a slice, which the compiler turns into vector instructions; what cannot be vectorized, counting, goes
into several narrow tables in turn, because adding to one place again and again waits for the store before it
(docs/decisions/0003-kernels.md has the figures). A value that is not finite shows up in the block's sums, and only
such a block takes the slow path that looks at each value.

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
# From here to 0 the factor is a float32 too, and no product with it underflows.
_FINEST_FLOAT32_EXPONENT = -120

# Tables that are counted into in turn, and how many blocks fit before one of their 16-bit counts could overflow.
TABLES = 4
_BLOCKS_PER_FLUSH = 65535 * TABLES // BLOCK - 1

# Reassociation lets the compiler use vector registers for sums; NaN and infinity keep their meaning.
_SUMS = {"reassoc", "contract", "nsz"}
# For blocks that are known to be finite.
_FINITE = {"reassoc", "contract", "nsz", "nnan", "ninf"}


@numba.njit(cache=True, nogil=True)
def _merge_moments(sums: Array, count: float, mean: float, deviation: float) -> None:
    total = sums[COUNT] + count
    delta = mean - sums[MEAN]
    sums[MEAN] += delta * count / total
    sums[SQUARED_DEVIATION] += deviation + delta * delta * sums[COUNT] * count / total
    sums[COUNT] = total


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def _moments(x: Array, pivot: float) -> tuple[float, float]:
    total = 0.0
    deviation = 0.0
    for i in range(x.size):
        d = np.float64(x[i]) - pivot
        total += d
        deviation += d * d
    return total, deviation


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def _error_sums(x: Array, y: Array) -> float:
    squared = 0.0
    for i in range(x.size):
        d = np.float64(x[i]) - np.float64(y[i])
        squared += d * d
    return squared


# Not "contract": a fused multiply-add would not round y to float32.
@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"})
def _code_error_sums(x: Array, codes: Array, zero_point: Any, step: Any) -> float:
    """Σ(x−y)² with y = (code − zero point)·step in float32, as DequantizeLinear computes it."""
    squared = 0.0
    for i in range(x.size):
        d = np.float64(x[i]) - np.float64(np.float32(np.int32(codes[i]) - zero_point) * step)
        squared += d * d
    return squared


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def _rounding_sums(x: Array, inverse: float, scale: float, low: float, high: float) -> tuple[float, float]:
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


@numba.njit(cache=True, nogil=True, fastmath=_FINITE)
def _bin_numbers(x: Array, factor: Any, first: Any, numbers: Array) -> None:
    for i in range(x.size):
        numbers[i] = np.uint16(np.int32(np.floor(x[i] * factor)) - first)


@numba.njit(cache=True, nogil=True)
def _count_bins(numbers: Array, tables: Array) -> None:
    """Count bin numbers, four at a time, each into a table of its own."""
    lowest = np.uint64(0xFFFF)
    for v in numbers.view(np.uint64):
        tables[0, v & lowest] += np.uint16(1)
        tables[1, (v >> np.uint64(16)) & lowest] += np.uint16(1)
        tables[2, (v >> np.uint64(32)) & lowest] += np.uint16(1)
        tables[3, v >> np.uint64(48)] += np.uint16(1)


@numba.njit(cache=True, nogil=True)
def _flush(tables: Array, counts: Array) -> None:
    for i in range(counts.size):
        counts[i] += np.int64(tables[0, i]) + tables[1, i] + tables[2, i] + tables[3, i]
    tables[:] = 0


@numba.njit(cache=True, nogil=True)
def _count_in_bins(x: Array, bins: Array, layout: Array, numbers: Array, tables: Array) -> None:
    """Count the values of a finite block: whole ones in the tables, the last one straight into the bins."""
    # Multiplying by a power of two is exact: the bin of a value never depends on the batch it came in.
    k = layout[EXPONENT]
    first = np.int32(layout[FIRST])
    if _FINEST_FLOAT32_EXPONENT <= k <= 0:
        _bin_numbers(x, np.float32(2.0**-k), first, numbers)
    else:
        _bin_numbers(x, 2.0**-k, first, numbers)
    if x.size == BLOCK:
        _count_bins(numbers, tables)
    else:
        for i in range(x.size):
            bins[np.uint64(numbers[i])] += 1


@numba.njit(cache=True, nogil=True)
def _count_finite_in_bins(x: Array, bins: Array, layout: Array) -> None:
    factor = 2.0 ** -layout[EXPONENT]
    for i in range(x.size):
        v = np.float64(x[i])
        if np.isfinite(v):
            bins[int(np.floor(v * factor) - layout[FIRST])] += 1


@numba.njit(cache=True, nogil=True)
def _add_block(
    x: Array,
    pivot: float,
    total: float,
    deviation: float,
    sums: Array,
    bins: Array,
    layout: Array,
    numbers: Array,
    tables: Array,
) -> Any:
    """Add one block to a tensor's sums and histogram; False if a value in it is not finite.

    total and deviation are Σ(x − pivot) and Σ(x − pivot)².
    """
    fast = np.isfinite(deviation)
    if fast:
        finite = True
        low, high = sums[MINIMUM], sums[MAXIMUM]
        if _any_outside(x, low, high):
            low, high = _extrema(x)
        mean = total / x.size
        squares = deviation + pivot * (2 * total + pivot * x.size)
        _merge_moments(sums, x.size, pivot + mean, max(deviation - total * mean, 0.0))
    else:
        before = sums[NAN] + sums[POSITIVE_INFINITY] + sums[NEGATIVE_INFINITY]
        count, mean, deviation, squares, low, high = _finite_sums(x, sums)
        # Squares of finite float64 values can overflow too: then nothing here was infinite.
        finite = before == sums[NAN] + sums[POSITIVE_INFINITY] + sums[NEGATIVE_INFINITY]
        if count == 0:
            return finite
        _merge_moments(sums, count, mean, deviation)
    sums[SUM_SQUARES] += max(squares, 0.0)
    sums[MINIMUM] = min(sums[MINIMUM], low)
    sums[MAXIMUM] = max(sums[MAXIMUM], high)
    if layout[IN_USE] == 0.0 or low < layout[LOWEST] or high > layout[HIGHEST]:
        _flush(tables, bins)
        grow(bins, layout, low, high)
    if fast:
        _count_in_bins(x, bins, layout, numbers, tables)
    else:
        _count_finite_in_bins(x, bins, layout)
    return finite


@numba.njit(cache=True, nogil=True)
def _add_finite_pairs(x: Array, y: Array, error: Array) -> None:
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
def _add_pairs(count: int, squared: float, x_squares: float, y_squares: float, error: Array) -> None:
    error[PAIRS] += count
    error[SQUARED_ERROR] += squared
    # Σ(x−y)² = Σx² + Σy² − 2Σxy
    error[PRODUCT] += (x_squares + y_squares - squared) / 2
    error[REFERENCE_SQUARES] += x_squares
    error[QUANTIZED_SQUARES] += y_squares


@numba.njit(cache=True, nogil=True)
def _add_finite_rounding(x: Array, scale: float, low: float, high: float, rounding: Array) -> None:
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
def _add_rounding(count: int, squared: float, x_squares: float, clipped: float, rounding: Array) -> None:
    rounding[ROUNDED] += count
    rounding[ROUNDING_SQUARES] += squared
    rounding[ROUNDED_SQUARES] += x_squares
    rounding[CLIPPED] += clipped


@numba.njit(cache=True, nogil=True)
def summarize(x: Array, sums: Array, bins: Array, layout: Array) -> None:
    """Add one flat array to a tensor's sums and histogram."""
    numbers = np.empty(BLOCK, np.uint16)
    tables = np.zeros((TABLES, BINS), np.uint16)
    for number, start in enumerate(range(0, x.size, BLOCK)):
        block = x[start : start + BLOCK]
        pivot = np.float64(block[0])
        total, deviation = _moments(block, pivot)
        _add_block(block, pivot, total, deviation, sums, bins, layout, numbers, tables)
        if number % _BLOCKS_PER_FLUSH == 0:
            _flush(tables, bins)
    _flush(tables, bins)


@numba.njit(cache=True, nogil=True)
def round_trip(x: Array, scale: float, low: float, high: float, rounding: Array) -> None:
    """Add the error of one flat array against its own quantize-dequantize; low and high are codes minus zero point."""
    for start in range(0, x.size, BLOCK):
        block = x[start : start + BLOCK]
        _, x_squares = _moments(block, 0.0)
        if np.isfinite(x_squares):
            squares, clipped = _rounding_sums(block, 1.0 / scale, scale, low, high)
            _add_rounding(block.size, squares, x_squares, clipped, rounding)
        else:
            _add_finite_rounding(block, scale, low, high, rounding)


@numba.njit(cache=True, nogil=True)
def compare(
    x: Array,
    y: Array,
    x_sums: Array,
    x_bins: Array,
    x_layout: Array,
    y_sums: Array,
    y_bins: Array,
    y_layout: Array,
    error: Array,
) -> None:
    """Add one pair of flat float arrays of one dtype: both summaries and their error, in one pass."""
    numbers = np.empty(BLOCK, np.uint16)
    x_tables = np.zeros((TABLES, BINS), np.uint16)
    y_tables = np.zeros((TABLES, BINS), np.uint16)
    for number, start in enumerate(range(0, x.size, BLOCK)):
        a = x[start : start + BLOCK]
        b = y[start : start + BLOCK]
        x_before = x_sums[SUM_SQUARES]
        y_before = y_sums[SUM_SQUARES]
        pivot = np.float64(a[0])
        total, deviation = _moments(a, pivot)
        x_finite = _add_block(a, pivot, total, deviation, x_sums, x_bins, x_layout, numbers, x_tables)
        pivot = np.float64(b[0])
        total, deviation = _moments(b, pivot)
        y_finite = _add_block(b, pivot, total, deviation, y_sums, y_bins, y_layout, numbers, y_tables)
        if x_finite and y_finite:
            x_squares = x_sums[SUM_SQUARES] - x_before
            _add_pairs(a.size, _error_sums(a, b), x_squares, y_sums[SUM_SQUARES] - y_before, error)
        else:
            _add_finite_pairs(a, b, error)
        if number % _BLOCKS_PER_FLUSH == 0:
            _flush(x_tables, x_bins)
            _flush(y_tables, y_bins)
    _flush(x_tables, x_bins)
    _flush(y_tables, y_bins)


@numba.njit(cache=True, nogil=True)
def _count_bytes(codes: Array, sign: Any, tables: Array) -> None:
    """Count the codes of one whole block, eight at a time, in four tables; sign turns int8 into uint8 order."""
    lowest = np.uint64(0xFF)
    one = np.uint32(1)
    for packed in codes.view(np.uint64):
        v = packed ^ sign
        tables[0, v & lowest] += one
        tables[1, (v >> np.uint64(8)) & lowest] += one
        tables[2, (v >> np.uint64(16)) & lowest] += one
        tables[3, (v >> np.uint64(24)) & lowest] += one
        tables[0, (v >> np.uint64(32)) & lowest] += one
        tables[1, (v >> np.uint64(40)) & lowest] += one
        tables[2, (v >> np.uint64(48)) & lowest] += one
        tables[3, v >> np.uint64(56)] += one


@numba.njit(cache=True, nogil=True)
def _count_codes(codes: Array, lowest_code: int, zero_point: Any, step: Any, code_counts: Array) -> float:
    """Count codes one by one; the sum of the squares of what they stand for."""
    squares = 0.0
    for i in range(codes.size):
        code = np.int64(codes[i])
        code_counts[code - lowest_code] += 1
        y = np.float64(np.float32(code - zero_point) * step)
        squares += y * y
    return squares


@numba.njit(cache=True, nogil=True)
def compare_codes(
    x: Array,
    codes: Array,
    zero_point: Any,
    step: Any,
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

    What there is to say of the quantized tensor alone follows from how often each code occurs, so the codes are only
    counted here. `step` is the scale as float32, with which codes become real values; low and high are codes minus
    zero point.
    """
    numbers = np.empty(BLOCK, np.uint16)
    tables = np.zeros((TABLES, BINS), np.uint16)
    code_tables = np.zeros((TABLES, 256), np.uint32)
    whole_bytes = codes.itemsize == 1 and code_counts.size == 256
    sign = np.uint64(0) if lowest_code == 0 else np.uint64(0x8080808080808080)
    pairs = 0
    squared = 0.0
    x_squares = 0.0
    y_squares = 0.0
    for number, start in enumerate(range(0, x.size, BLOCK)):
        a = x[start : start + BLOCK]
        c = codes[start : start + BLOCK]
        pivot = np.float64(a[0])
        total, deviation = _moments(a, pivot)
        before = sums[SUM_SQUARES]
        if _add_block(a, pivot, total, deviation, sums, bins, layout, numbers, tables):
            pairs += a.size
            x_squares += sums[SUM_SQUARES] - before
            squared += _code_error_sums(a, c, zero_point, step)
            rounded, clipped = _rounding_sums(a, 1.0 / scale, scale, low, high)
            _add_rounding(a.size, rounded, sums[SUM_SQUARES] - before, clipped, rounding)
            if whole_bytes and c.size == BLOCK:
                _count_bytes(c, sign, code_tables)
            else:
                y_squares += _count_codes(c, lowest_code, zero_point, step, code_counts)
        else:
            _count_codes(c, lowest_code, zero_point, step, code_counts)
            _add_finite_pairs(a, (c.astype(np.int64) - zero_point).astype(np.float32) * step, error)
            _add_finite_rounding(a, scale, low, high, rounding)
        if number % _BLOCKS_PER_FLUSH == 0:
            _flush(tables, bins)
    _flush(tables, bins)
    if whole_bytes:
        for i in range(256):
            y = np.float64(np.float32(lowest_code + i - zero_point) * step)
            count = np.int64(code_tables[0, i]) + code_tables[1, i] + code_tables[2, i] + code_tables[3, i]
            y_squares += y * y * count
        _flush(code_tables, code_counts)
    _add_pairs(pairs, squared, x_squares, y_squares, error)


@numba.njit(cache=True, nogil=True)
def summarize_rows(
    values: Array, factor: float, first: int, low: Array, high: Array, mean: Array, std: Array, counts: Array
) -> None:
    """Extrema, moments and a histogram of each row of a matrix, over its finite values; nan where it has none."""
    for row in range(values.shape[0]):
        n = 0
        average = 0.0
        deviation = 0.0
        lowest = np.inf
        highest = -np.inf
        for i in range(values.shape[1]):
            v = np.float64(values[row, i])
            if np.isfinite(v):
                n += 1
                delta = v - average
                average += delta / n
                deviation += delta * (v - average)
                lowest = min(lowest, v)
                highest = max(highest, v)
                counts[row, int(np.floor(v * factor)) - first] += 1
        low[row] = lowest if n else np.nan
        high[row] = highest if n else np.nan
        mean[row] = average if n else np.nan
        std[row] = np.sqrt(deviation / n) if n else np.nan


@numba.njit(cache=True, nogil=True)
def compare_rows(x: Array, y: Array, signal: Array, squared: Array) -> None:
    """Σx² and Σ(x−y)² of each row of two matrices, over the values that are finite in both."""
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            a = np.float64(x[row, i])
            b = np.float64(y[row, i])
            if np.isfinite(a) and np.isfinite(b):
                signal[row] += a * a
                squared[row] += (a - b) * (a - b)
