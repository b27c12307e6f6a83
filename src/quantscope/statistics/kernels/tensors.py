"""Whole tensors, and pairs of them, block by block: the loops behind TensorStatistics and PairStatistics."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from quantscope.statistics.kernels.blocks import (
    BLOCK,
    COUNT,
    MAXIMUM,
    MINIMUM,
    NOT_FINITE,
    ORDINARY,
    SUM_SQUARES,
    Array,
    add_finite_pairs,
    add_pairs,
    add_sums,
    code_error_sums,
    error_sums,
    moments,
    rounding_sums,
)
from quantscope.statistics.kernels.counting import (
    BINS,
    BLOCKS_PER_FLUSH,
    HIGHEST,
    IN_USE,
    LOWEST,
    TABLES,
    count_bytes,
    count_codes,
    count_finite_in_bins,
    count_in_bins,
    flush,
    grow,
)

# Slots of a rounding accumulator: a tensor against its own quantize-dequantize.
ROUNDED, ROUNDING_SQUARES, ROUNDED_SQUARES, CLIPPED = range(4)
ROUNDING_SLOTS = 4


# Inlined by force, as add_sums is.
@numba.njit(cache=True, nogil=True, forceinline=True)
def _add_block(x: Array, sums: Array, bins: Array, layout: Array, numbers: Array, tables: Array) -> Any:
    """Add one block to a tensor's sums and histogram; False if a value in it is not finite."""
    found = add_sums(x, sums)
    if sums[COUNT] == 0.0:
        return False
    low, high = sums[MINIMUM], sums[MAXIMUM]
    if layout[IN_USE] == 0.0 or low < layout[LOWEST] or high > layout[HIGHEST]:
        flush(tables, bins)
        grow(bins, layout, low, high)
    if found == ORDINARY:
        count_in_bins(x, bins, layout, numbers, tables)
    else:
        count_finite_in_bins(x, bins, layout)
    return found != NOT_FINITE


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
        _add_block(block, sums, bins, layout, numbers, tables)
        if number % BLOCKS_PER_FLUSH == 0:
            flush(tables, bins)
    flush(tables, bins)


@numba.njit(cache=True, nogil=True)
def compare_errors(x: Array, y: Array, error: Array) -> None:
    """Add the error between two flat float arrays of one dtype, and nothing else."""
    for start in range(0, x.size, BLOCK):
        a = x[start : start + BLOCK]
        b = y[start : start + BLOCK]
        _, x_squares = moments(a, 0.0)
        _, y_squares = moments(b, 0.0)
        if np.isfinite(x_squares) and np.isfinite(y_squares):
            add_pairs(a.size, error_sums(a, b), x_squares, y_squares, error)
        else:
            add_finite_pairs(a, b, error)


@numba.njit(cache=True, nogil=True)
def round_trip(x: Array, scale: float, low: float, high: float, rounding: Array) -> None:
    """Add the error of one flat array against its own quantize-dequantize; low and high are codes minus zero point."""
    for start in range(0, x.size, BLOCK):
        block = x[start : start + BLOCK]
        _, x_squares = moments(block, 0.0)
        if np.isfinite(x_squares):
            squares, clipped = rounding_sums(block, 1.0 / scale, scale, low, high)
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
        x_finite = _add_block(a, x_sums, x_bins, x_layout, numbers, x_tables)
        y_finite = _add_block(b, y_sums, y_bins, y_layout, numbers, y_tables)
        if x_finite and y_finite:
            x_squares = x_sums[SUM_SQUARES] - x_before
            add_pairs(a.size, error_sums(a, b), x_squares, y_sums[SUM_SQUARES] - y_before, error)
        else:
            add_finite_pairs(a, b, error)
        if number % BLOCKS_PER_FLUSH == 0:
            flush(x_tables, x_bins)
            flush(y_tables, y_bins)
    flush(x_tables, x_bins)
    flush(y_tables, y_bins)


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
        before = sums[SUM_SQUARES]
        if _add_block(a, sums, bins, layout, numbers, tables):
            pairs += a.size
            x_squares += sums[SUM_SQUARES] - before
            squared += code_error_sums(a, c, zero_point, step)
            rounded, clipped = rounding_sums(a, 1.0 / scale, scale, low, high)
            _add_rounding(a.size, rounded, sums[SUM_SQUARES] - before, clipped, rounding)
            if whole_bytes and c.size == BLOCK:
                count_bytes(c, sign, code_tables)
            else:
                y_squares += count_codes(c, lowest_code, zero_point, step, code_counts)
        else:
            count_codes(c, lowest_code, zero_point, step, code_counts)
            add_finite_pairs(a, (c.astype(np.int64) - zero_point).astype(np.float32) * step, error)
            _add_finite_rounding(a, scale, low, high, rounding)
        if number % BLOCKS_PER_FLUSH == 0:
            flush(tables, bins)
    flush(tables, bins)
    if whole_bytes:
        for i in range(256):
            y = np.float64(np.float32(lowest_code + i - zero_point) * step)
            count = np.int64(code_tables[0, i]) + code_tables[1, i] + code_tables[2, i] + code_tables[3, i]
            y_squares += y * y * count
        flush(code_tables, code_counts)
    add_pairs(pairs, squared, x_squares, y_squares, error)
