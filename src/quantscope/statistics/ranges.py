"""Calibration: from a tensor's statistics to the range that its codes shall represent."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quantscope.recipe import Calibration
from quantscope.statistics.tensor import TensorStatistics

_ENTROPY_BINS = 2048
_MOST_MOVES = 32


def calibrated_range(statistics: TensorStatistics, calibration: Calibration, levels: int = 256) -> tuple[float, float]:
    """Return the range (low, high) of a tensor by the chosen method; (0, 0) if no finite value was seen."""
    if not statistics.finite_count:
        return 0.0, 0.0
    if calibration.method == "percentile":
        return percentile_range(statistics, calibration.percentile)
    if calibration.method == "entropy":
        return entropy_range(statistics, levels)
    if calibration.method == "mse":
        return mse_range(statistics, levels)
    return statistics.minimum, statistics.maximum


def percentile_range(statistics: TensorStatistics, percentile: float) -> tuple[float, float]:
    """Return the range that keeps `percentile` percent of the values, half of the rest cut off at each end.

    A quantile is taken inside its histogram bin by linear interpolation: it is exact to one bin, which is at most
    1/1024 of the tensor's range.
    """
    histogram = statistics.histogram
    cumulative = np.concatenate([[0], np.cumsum(histogram.counts)]) / statistics.finite_count
    tail = (1 - percentile / 100) / 2
    low, high = np.interp([tail, 1 - tail], cumulative, histogram.edges)
    return max(float(low), statistics.minimum), min(float(high), statistics.maximum)


def entropy_range(statistics: TensorStatistics, levels: int) -> tuple[float, float]:
    """Return the range, clipped symmetrically around zero, whose quantized distribution loses least information.

    Minimizes the Kullback-Leibler divergence between the histogram, its tails folded into the last bins, and its
    copy with `levels` levels. Source: Migacz, "8-bit Inference with TensorRT", GTC 2017, slides 26 to 37.
    """
    low, high = statistics.minimum, statistics.maximum
    magnitudes = _magnitudes(statistics)
    # A tensor of one sign spends all its levels on one side of zero.
    half = levels if low >= 0 or high <= 0 else levels // 2
    last = len(magnitudes)
    if last <= half:
        return low, high
    candidates = range(half, last + 1, max(1, (last - half) // 128))
    best = min(candidates, key=lambda bins: _divergence(magnitudes, bins, half))
    limit = best / last * max(abs(low), abs(high))
    return max(low, -limit), min(high, limit)


def mse_range(statistics: TensorStatistics, levels: int) -> tuple[float, float]:
    """Return the range whose codes have the smallest expected squared error: rounding inside, clipping outside.

    Squared, a value outside is off by its distance from the range, one within half a step of zero by itself, and any
    other by step/√12 on average. The ends are moved in turn, each to its best bin edge, until neither moves. Source:
    Banner et al., "Post training 4-bit quantization of convolutional networks for rapid-deployment", NeurIPS 2019,
    section 2; there the density is smooth, and nothing is said of values that become zero.
    """
    histogram = statistics.histogram
    low, high = statistics.minimum, statistics.maximum
    counts, centres = histogram.counts.astype(np.float64), np.clip(histogram.centres, low, high)
    edges = histogram.edges[1:-1]
    # Zero is always representable: an end beyond it gains nothing by moving.
    lows = np.concatenate([[low], edges[(edges > low) & (edges <= 0)]])
    highs = np.concatenate([edges[(edges < high) & (edges >= 0)], [high]])
    below = _clipping(counts, centres, lows)
    above = _clipping(counts[::-1], -centres[::-1], -highs)
    by_size = np.argsort(np.abs(centres))
    sizes, sums = np.abs(centres)[by_size], _sums(counts[by_size], centres[by_size])

    def error(i: int | slice, j: int | slice) -> NDArray[np.float64]:
        step = (np.maximum(highs[j], 0) - np.minimum(lows[i], 0)) / (levels - 1)
        zeros, _, squares = sums[:, np.searchsorted(sizes, step / 2)]
        rounded = np.maximum(statistics.finite_count - below[0, i] - above[0, j] - zeros, 0)
        return np.asarray(below[1, i] + above[1, j] + squares + rounded * step**2 / 12)

    i, j = 0, len(highs) - 1
    for _ in range(_MOST_MOVES):
        before = (i, j)
        i = int(error(slice(None), j).argmin())
        j = int(error(i, slice(None)).argmin())
        if (i, j) == before:
            break
    return float(lows[i]), float(highs[j])


def _clipping(
    counts: NDArray[np.float64], centres: NDArray[np.float64], limits: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How many values lie below each limit, and the sum of their squared distances from it."""
    count, total, squares = _sums(counts, centres)[:, np.searchsorted(centres, limits)]
    return np.stack([count, np.maximum(squares - 2 * limits * total + limits**2 * count, 0)])


def _sums(counts: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """The number, the sum and the sum of squares of all values before each bin, and of all."""
    return np.stack([np.concatenate([[0], np.cumsum(counts * centres**power)]) for power in (0, 1, 2)])


def _magnitudes(statistics: TensorStatistics) -> NDArray[np.float64]:
    """The histogram of |x| in equal bins up to the largest magnitude."""
    histogram = statistics.histogram
    largest = max(abs(statistics.minimum), abs(statistics.maximum))
    counts, _ = np.histogram(
        np.minimum(np.abs(histogram.centres), largest),
        _ENTROPY_BINS,
        (0, largest or 1),
        weights=histogram.counts,
    )
    return counts.astype(np.float64)


def _divergence(counts: NDArray[np.float64], bins: int, levels: int) -> float:
    """KL divergence of the first `bins` bins, with the tail folded in, from their copy with `levels` levels."""
    reference = counts[:bins].copy()
    reference[-1] += counts[bins:].sum()
    level = np.arange(bins) * levels // bins
    filled = counts[:bins] > 0
    totals = np.bincount(level, weights=counts[:bins], minlength=levels)
    occupied = np.bincount(level, weights=filled, minlength=levels)
    spread = np.divide(totals, occupied, out=np.zeros(levels), where=occupied > 0)
    quantized = np.where(filled, spread[level], 0.0)
    if not quantized.sum():
        return math.inf
    p, q = reference / reference.sum(), quantized / quantized.sum()
    # A bin that only the folded tail fills has no quantized share: it costs what it holds, on a tiny share.
    q = np.maximum(q, 1e-12)
    used = p > 0
    return float((p[used] * np.log(p[used] / q[used])).sum())
