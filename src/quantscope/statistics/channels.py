"""The statistics of a weight channel by channel, for both models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.statistics.histogram import shared_bins
from quantscope.statistics.tensor import TensorStatistics

CHANNEL_BINS = 64


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """One entry per output channel of a weight; histograms of all channels and both models share their edges.

    `reference_counts` and `quantized_counts` have shape (channels, bins), `edges` has one entry more than bins. All
    figures are those of the finite values; a channel without any has nan.
    """

    axis: int
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    quantized_minimum: NDArray[np.float64]
    quantized_maximum: NDArray[np.float64]
    quantized_mean: NDArray[np.float64]
    quantized_std: NDArray[np.float64]
    mse: NDArray[np.float64]
    sqnr_db: NDArray[np.float64]
    edges: NDArray[np.float64]
    reference_counts: NDArray[np.int64]
    quantized_counts: NDArray[np.int64]


def channel_statistics(reference: NDArray[Any], quantized: NDArray[Any], axis: int) -> ChannelStatistics:
    """Return the statistics of two weights of the same shape along `axis`."""
    x, y = (np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1).astype(np.float64) for w in (reference, quantized))
    whole = []
    for values in (x, y):
        statistics = TensorStatistics()
        statistics.update(values)
        whole.append(statistics.histogram)
    edges = shared_bins(whole[0], whole[1], CHANNEL_BINS)[0].edges
    # A channel without a finite value has no extrema: the masked results stay nan.
    with np.errstate(divide="ignore", invalid="ignore"):
        squared, signal = np.nansum((x - y) ** 2, 1), np.nansum(x * x, 1)
        sqnr_db = 10 * np.log10(signal / squared)
    low, high, mean, std = _moments(x)
    quantized_low, quantized_high, quantized_mean, quantized_std = _moments(y)
    return ChannelStatistics(
        axis=axis,
        minimum=low,
        maximum=high,
        mean=mean,
        std=std,
        quantized_minimum=quantized_low,
        quantized_maximum=quantized_high,
        quantized_mean=quantized_mean,
        quantized_std=quantized_std,
        mse=squared / x.shape[1],
        sqnr_db=sqnr_db,
        edges=edges,
        reference_counts=_counts(x, edges),
        quantized_counts=_counts(y, edges),
    )


def _moments(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    finite = np.ma.masked_invalid(values)
    moments = (finite.min(1), finite.max(1), finite.mean(1), finite.std(1))
    return tuple(np.ma.filled(m.astype(np.float64), np.nan) for m in moments)


def _counts(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Histograms of all rows in one pass: edges lie on a grid, so a bin is found by division."""
    channels, bins = len(values), len(edges) - 1
    if bins < 1:
        return np.zeros((channels, 0), np.int64)
    finite = np.isfinite(values)
    number = np.floor((np.where(finite, values, edges[0]) - edges[0]) / (edges[1] - edges[0])).astype(np.int64)
    flat = (np.clip(number, 0, bins - 1) + np.arange(channels)[:, None] * bins)[finite]
    return np.bincount(flat, minlength=channels * bins).reshape(channels, bins)
