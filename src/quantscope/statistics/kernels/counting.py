"""Counting: a tensor's histogram, which grows with its range, and how often each code occurs.

Adding to one place again and again waits for the store before it, so values are counted into several narrow tables in
turn, which are emptied into the wide counts before they can overflow.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from quantscope.statistics.kernels.blocks import BLOCK, Array

BINS = 2048

# Slots of a histogram's layout: bin i covers [(first + i)·2**exponent, (first + i + 1)·2**exponent).
EXPONENT, FIRST, IN_USE, LOWEST, HIGHEST = range(5)
LAYOUT_SLOTS = 5
# Below the smallest float64: finer bins would overflow the factor that numbers them.
FINEST_EXPONENT = -1000
# From here to 0 the factor is a float32 too, and no product with it underflows.
FINEST_FLOAT32_EXPONENT = -120

# Tables that are counted into in turn, and how many blocks fit before one of their 16-bit counts could overflow.
TABLES = 4
BLOCKS_PER_FLUSH = 65535 * TABLES // BLOCK - 1

# For blocks that are known to be finite.
_FINITE = {"reassoc", "contract", "nsz", "nnan", "ninf"}


@numba.njit(cache=True, nogil=True)
def _finest_exponent(low: float, high: float) -> int:
    """The smallest bin width 2**k that covers low..high in BINS bins; it depends on the extrema alone."""
    magnitude = max(abs(low), abs(high))
    if magnitude == 0.0:
        return FINEST_EXPONENT
    # Bin numbers must be exact integers in float64 and distinguish float32 values: 24 bits below the magnitude.
    k = int(np.floor(np.log2(magnitude))) - 24
    if high > low:
        k = max(k, int(np.floor(np.log2(high / BINS - low / BINS))) - 1)
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
def count_bins(numbers: Array, tables: Array) -> None:
    """Count bin numbers, four at a time, each into a table of its own."""
    lowest = np.uint64(0xFFFF)
    for v in numbers.view(np.uint64):
        tables[0, v & lowest] += np.uint16(1)
        tables[1, (v >> np.uint64(16)) & lowest] += np.uint16(1)
        tables[2, (v >> np.uint64(32)) & lowest] += np.uint16(1)
        tables[3, v >> np.uint64(48)] += np.uint16(1)


@numba.njit(cache=True, nogil=True)
def flush(tables: Array, counts: Array) -> None:
    for i in range(counts.size):
        counts[i] += np.int64(tables[0, i]) + tables[1, i] + tables[2, i] + tables[3, i]
    tables[:] = 0


@numba.njit(cache=True, nogil=True)
def count_in_bins(x: Array, bins: Array, layout: Array, numbers: Array, tables: Array) -> None:
    """Count the values of a finite block: whole ones in the tables, the last one straight into the bins."""
    # Multiplying by a power of two is exact: the bin of a value never depends on the batch it came in.
    k = layout[EXPONENT]
    first = np.int32(layout[FIRST])
    if FINEST_FLOAT32_EXPONENT <= k <= 0:
        _bin_numbers(x, np.float32(2.0**-k), first, numbers)
    else:
        _bin_numbers(x, 2.0**-k, first, numbers)
    if x.size == BLOCK:
        count_bins(numbers, tables)
    else:
        for i in range(x.size):
            bins[np.uint64(numbers[i])] += 1


@numba.njit(cache=True, nogil=True)
def count_finite_in_bins(x: Array, bins: Array, layout: Array) -> None:
    factor = 2.0 ** -layout[EXPONENT]
    for i in range(x.size):
        v = np.float64(x[i])
        if np.isfinite(v):
            bins[int(np.floor(v * factor) - layout[FIRST])] += 1


@numba.njit(cache=True, nogil=True)
def count_bytes(codes: Array, sign: Any, tables: Array) -> None:
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
def count_codes(codes: Array, lowest_code: int, zero_point: Any, step: Any, code_counts: Array) -> float:
    """Count codes one by one; the sum of the squares of what they stand for."""
    squares = 0.0
    for i in range(codes.size):
        code = np.int64(codes[i])
        code_counts[code - lowest_code] += 1
        y = np.float64(np.float32(code - zero_point) * step)
        squares += y * y
    return squares
