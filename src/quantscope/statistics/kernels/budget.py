"""The error budget of one tensor: the loop behind BudgetAccumulator."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from quantscope.statistics.kernels.blocks import SUMS, Array

# Six arrays and three of a block's own must stay in the first-level cache together.
_BLOCK = 512

# Slots of a budget: the six parts follow SHARES and ENERGIES in the order of budget.PARTS.
COUNTED, LEFT_OUT, TOTAL, ISOLATED, SIGNAL, SHARES = range(6)
PARTS = 6
ENERGIES = SHARES + PARTS
BUDGET_SLOTS = ENERGIES + PARTS


# Not "contract": a fused multiply-add would not round to float32 as QuantizeLinear and DequantizeLinear do.
@numba.njit(cache=True, nogil=True)
def _quantize(x: Array, step: Any, low: Any, high: Any, clipped: Array, rounded: Array) -> None:
    """Clip values to the representable range, and round them to codes and back; low and high are codes − zero point.

    What is not finite comes back as nan, so that no sum hides it.
    """
    lowest, highest = low * step, high * step
    for i in range(x.size):
        v = x[i]
        inside = lowest if v < lowest else v
        clipped[i] = highest if inside > highest else inside
        code = np.rint(np.float32(v) / step)
        code = low if code < low else code
        code = high if code > high else code
        rounded[i] = code * step + (v - v)


@numba.njit(cache=True, nogil=True, fastmath=SUMS)
def _shares(y: Array, a: Array, w: Array, b: Array, c: Array, r: Array, q: Array) -> tuple[float, ...]:
    """Σt·(q − y) for each part t, then Σ(q − y)²."""
    total = inherited = weight = bias = clipping = rounding = residual = 0.0
    for i in range(y.size):
        reference = np.float64(y[i])
        with_weight = np.float64(w[i])
        computed = np.float64(b[i])
        inside = np.float64(c[i])
        e = np.float64(q[i]) - reference
        total += e * e
        inherited += (np.float64(a[i]) - reference) * e
        weight += (with_weight - np.float64(a[i])) * e
        bias += (computed - with_weight) * e
        clipping += (inside - computed) * e
        rounding += (np.float64(r[i]) - inside) * e
        residual += (np.float64(q[i]) - np.float64(r[i])) * e
    return inherited, weight, bias, clipping, rounding, residual, total


@numba.njit(cache=True, nogil=True, fastmath=SUMS)
def _energies(y: Array, a: Array, w: Array, b: Array, c: Array, r: Array, q: Array) -> tuple[float, ...]:
    """Σt² for each part t."""
    inherited = weight = bias = clipping = rounding = residual = 0.0
    for i in range(y.size):
        with_weight = np.float64(w[i])
        computed = np.float64(b[i])
        inside = np.float64(c[i])
        inherited += (np.float64(a[i]) - np.float64(y[i])) ** 2
        weight += (with_weight - np.float64(a[i])) ** 2
        bias += (computed - with_weight) ** 2
        clipping += (inside - computed) ** 2
        rounding += (np.float64(r[i]) - inside) ** 2
        residual += (np.float64(q[i]) - np.float64(r[i])) ** 2
    return inherited, weight, bias, clipping, rounding, residual


@numba.njit(cache=True, nogil=True, fastmath=SUMS)
def _isolated_sums(y: Array, isolated: Array) -> tuple[float, float]:
    """Σ(isolated − y)² and Σy²."""
    squared = signal = 0.0
    for i in range(y.size):
        reference = np.float64(y[i])
        squared += (np.float64(isolated[i]) - reference) ** 2
        signal += reference * reference
    return squared, signal


@numba.njit(cache=True, nogil=True)
def _sum(y: Array, a: Array, w: Array, b: Array, c: Array, r: Array, q: Array, isolated: Array, found: Array) -> None:
    """The sums of one block."""
    found[COUNTED] = y.size
    found[LEFT_OUT] = 0.0
    shares = _shares(y, a, w, b, c, r, q)
    energies = _energies(y, a, w, b, c, r, q)
    found[ISOLATED], found[SIGNAL] = _isolated_sums(y, isolated)
    found[TOTAL] = shares[PARTS]
    for part in range(PARTS):
        found[SHARES + part] = shares[part]
        found[ENERGIES + part] = energies[part]


@numba.njit(cache=True, nogil=True)
def _add(
    y: Array, a: Array, w: Array, b: Array, c: Array, r: Array, q: Array, isolated: Array, found: Array, sums: Array
) -> None:
    """Add one block; each element that is not finite in every array is left out and counted."""
    _sum(y, a, w, b, c, r, q, isolated, found)
    if not np.isfinite(found.sum()):
        good = (
            np.isfinite(y) & np.isfinite(a) & np.isfinite(w) & np.isfinite(b) & np.isfinite(q) & np.isfinite(isolated)
        )
        _sum(y[good], a[good], w[good], b[good], c[good], r[good], q[good], isolated[good], found)
        found[LEFT_OUT] = y.size - found[COUNTED]
    sums += found


@numba.njit(cache=True, nogil=True)
def add_budget(
    y: Array, a: Array, w: Array, b: Array, c: Array, r: Array, q: Array, isolated: Array, sums: Array
) -> None:
    """Add flat arrays of one dtype: see BudgetAccumulator for the letters."""
    found = np.zeros(BUDGET_SLOTS)
    for start in range(0, y.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        _add(y[block], a[block], w[block], b[block], c[block], r[block], q[block], isolated[block], found, sums)


@numba.njit(cache=True, nogil=True)
def add_quantized_budget(
    y: Array, a: Array, w: Array, b: Array, q: Array, i: Array, step: Any, low: Any, high: Any, sums: Array
) -> None:
    """The same where one scale serves the whole tensor: c, r and the isolated output are computed on the way.

    `step` is the scale, low and high are the extreme codes minus the zero point, all of them float32.
    """
    found = np.zeros(BUDGET_SLOTS)
    c, r = np.empty(_BLOCK, y.dtype), np.empty(_BLOCK, y.dtype)
    unused, isolated = np.empty(_BLOCK, y.dtype), np.empty(_BLOCK, y.dtype)
    for start in range(0, y.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        size = y[block].size
        _quantize(b[block], step, low, high, c, r)
        _quantize(i[block], step, low, high, unused, isolated)
        _add(y[block], a[block], w[block], b[block], c[:size], r[:size], q[block], isolated[:size], found, sums)
