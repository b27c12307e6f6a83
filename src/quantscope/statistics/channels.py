"""The statistics of a weight channel by channel, for both models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.statistics import kernels
from quantscope.statistics.histogram import Histogram

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


def channel_statistics(
    reference: NDArray[Any], quantized: NDArray[Any], axis: int, bins: tuple[Histogram, Histogram]
) -> ChannelStatistics:
    """Return the statistics of two weights of the same shape along `axis`.

    `bins` are the histograms of the two weights as a whole on shared edges: channels use the same.
    """
    x, y = (np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1) for w in (reference, quantized))
    signal, squared = np.zeros(len(x)), np.zeros(len(x))
    kernels.compare_rows(x, y, signal, squared)
    with np.errstate(divide="ignore", invalid="ignore"):
        sqnr_db = 10 * np.log10(signal / squared)
    low, high, mean, std, counts = _rows(x, bins[0])
    quantized_low, quantized_high, quantized_mean, quantized_std, quantized_counts = _rows(y, bins[1])
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
        mse=squared / max(x.shape[1], 1),
        sqnr_db=sqnr_db,
        edges=bins[0].edges,
        reference_counts=counts,
        quantized_counts=quantized_counts,
    )


def _rows(values: NDArray[Any], bins: Histogram) -> tuple[NDArray[Any], ...]:
    channels = len(values)
    low, high, mean, std = (np.empty(channels) for _ in range(4))
    counts = np.zeros((channels, len(bins.counts)), np.int64)
    kernels.summarize_rows(values, 1 / bins.width, bins.first, low, high, mean, std, counts)
    return low, high, mean, std, counts
