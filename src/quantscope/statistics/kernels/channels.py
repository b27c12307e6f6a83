"""A pair of tensors channel by channel: the loop behind ChannelAccumulator."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from quantscope.statistics.kernels.blocks import (
    BLOCK,
    NOT_FINITE,
    ORDINARY,
    SUM_SQUARES,
    Array,
    add_finite_pairs,
    add_pairs,
    add_sums,
    error_sums,
    merge_sums,
)
from quantscope.statistics.kernels.counting import FINEST_FLOAT32_EXPONENT, TABLES, count_bins, flush

# From this length a channel's values are read where they lie; shorter runs are gathered into a block first.
_LONG = 512
# Values of a channel that are gathered at a time, and channels at a time where theirs lie side by side: more would
# push each other out of the first-level cache.
_GATHERED = 1024
_SIDE_BY_SIDE = 8
# Up to here float32 holds every integer.
_LARGEST_FLOAT32_INTEGER = 1 << 24


# Neither no-NaN nor no-infinity: a value far outside of the bins may become infinite when it is scaled.
@numba.njit(cache=True, nogil=True)
def _clamped_bin_numbers(x: Array, factor: Any, first: Any, last: Any, numbers: Array) -> None:
    for i in range(x.size):
        v = np.floor(x[i] * factor)
        v = first if v < first else v
        v = last if v > last else v
        numbers[i] = np.uint16(np.int32(v) - np.int32(first))


@numba.njit(cache=True, nogil=True)
def _count(x: Array, ordinary: bool, exponent: int, first: int, counts: Array, numbers: Array, tables: Array) -> None:
    """Count the finite values of a block in bins whose edges are given; beyond them the outermost bins serve."""
    last = first + counts.size - 1
    if last < first:
        return
    if not ordinary:
        for v in x:
            if np.isfinite(v):
                number = np.floor(np.float64(v) * 2.0**-exponent)
                counts[np.int64(min(max(number, np.float64(first)), np.float64(last))) - first] += 1
        return
    if FINEST_FLOAT32_EXPONENT <= exponent <= 0 and max(abs(first), abs(last)) < _LARGEST_FLOAT32_INTEGER:
        _clamped_bin_numbers(x, np.float32(2.0**-exponent), np.float32(first), np.float32(last), numbers)
    else:
        _clamped_bin_numbers(x, 2.0**-exponent, np.float64(first), np.float64(last), numbers)
    packed = x.size // TABLES * TABLES
    if packed < counts.size:
        # Emptying the tables would cost more than they save.
        packed = 0
    else:
        count_bins(numbers[:packed], tables)
        flush(tables, counts)
    for i in range(packed, x.size):
        counts[numbers[i]] += 1


@numba.njit(cache=True, nogil=True)
def _add(
    x: Array,
    y: Array,
    exponent: int,
    first: int,
    x_sums: Array,
    y_sums: Array,
    x_counts: Array,
    y_counts: Array,
    error: Array,
    numbers: Array,
    tables: Array,
) -> None:
    """Add one block of one channel."""
    x_before, y_before = x_sums[SUM_SQUARES], y_sums[SUM_SQUARES]
    x_found = add_sums(x, x_sums)
    y_found = add_sums(y, y_sums)
    if max(x_found, y_found) < NOT_FINITE:
        x_squares = x_sums[SUM_SQUARES] - x_before
        add_pairs(x.size, error_sums(x, y), x_squares, y_sums[SUM_SQUARES] - y_before, error)
    else:
        add_finite_pairs(x, y, error)
    _count(x, x_found == ORDINARY, exponent, first, x_counts, numbers, tables)
    _count(y, y_found == ORDINARY, exponent, first, y_counts, numbers, tables)


# Indices are unsigned: numba asks of every signed one whether it counts from the end.
@numba.njit(cache=True, nogil=True)
def _gather(x: Array, channels: int, start: int, stop: int, top: int, bottom: int, gathered: Array) -> None:
    """Copy each channel's values of a part of a tensor, seen as a matrix, into a row of its own."""
    one_by_one = x.shape[1] == channels
    behind = np.uint64(x.shape[1] // channels)
    for i in range(np.uint64(bottom - top)):
        row = x[np.uint64(top) + i]
        if one_by_one:
            for c in range(np.uint64(stop - start)):
                gathered[c, i] = row[np.uint64(start) + c]
        else:
            for c in range(np.uint64(stop - start)):
                source = (np.uint64(start) + c) * behind
                for k in range(behind):
                    gathered[c, i * behind + k] = row[source + k]


@numba.njit(cache=True, nogil=True)
def compare_channels(
    x: Array,
    y: Array,
    exponent: int,
    first: int,
    x_sums: Array,
    y_sums: Array,
    x_counts: Array,
    y_counts: Array,
    errors: Array,
) -> None:
    """Add a pair of contiguous float arrays of shape (before, channels, behind) and of one dtype.

    The sums, counts and errors have a row per channel; bins are `first` and those behind it, of width 2**exponent.
    """
    before, channels, behind = x.shape
    numbers = np.empty(BLOCK, np.uint16)
    tables = np.zeros((TABLES, x_counts.shape[1]), np.uint32)
    if behind >= _LONG or before == 1:
        for c in range(channels):
            for i in range(before):
                for start in range(0, behind, BLOCK):
                    _add(
                        x[i, c, start : start + BLOCK], y[i, c, start : start + BLOCK], exponent, first,
                        x_sums[c], y_sums[c], x_counts[c], y_counts[c], errors[c], numbers, tables,
                    )  # fmt: skip
        return
    x_rows = x.reshape(before, channels * behind)
    y_rows = y.reshape(before, channels * behind)
    together = max(1, _SIDE_BY_SIDE // behind)
    runs = _GATHERED // behind
    # Rows of a power of two would compete for the same places of the cache.
    a = np.empty((together, _GATHERED + 16), x.dtype)
    b = np.empty((together, _GATHERED + 16), y.dtype)
    for start in range(0, channels, together):
        stop = min(start + together, channels)
        for top in range(0, before, runs):
            bottom = min(top + runs, before)
            _gather(x_rows, channels, start, stop, top, bottom, a)
            _gather(y_rows, channels, start, stop, top, bottom, b)
            size = (bottom - top) * behind
            for c in range(start, stop):
                _add(
                    a[c - start, :size], b[c - start, :size], exponent, first,
                    x_sums[c], y_sums[c], x_counts[c], y_counts[c], errors[c], numbers, tables,
                )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def decode(codes: Array, zero_point: Any, step: Any, values: Array) -> None:
    """Turn flat codes into float32 values: (code − zero point)·step, as DequantizeLinear computes it."""
    for i in range(codes.size):
        values[i] = np.float32(np.int32(codes[i]) - zero_point) * step


@numba.njit(cache=True, nogil=True)
def merge_channels(sums: Array, added: Array) -> None:
    """Add the sums of each channel of another accumulator."""
    for c in range(sums.shape[0]):
        merge_sums(sums[c], added[c])
