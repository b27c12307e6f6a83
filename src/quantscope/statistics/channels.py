"""The statistics of a tensor channel by channel, for both models: of a weight, or of an activation over all samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.errors import ShapeError
from quantscope.qparams import QParams
from quantscope.statistics.arrays import flat_floats, real_values
from quantscope.statistics.histogram import Histogram
from quantscope.statistics.kernels import blocks
from quantscope.statistics.kernels.channels import compare_channels, merge_channels
from quantscope.statistics.pair import ErrorStatistics

CHANNEL_BINS = 64


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """One entry per channel of a tensor; histograms of all channels and both models share their edges.

    `reference_counts` and `quantized_counts` have shape (channels, bins), `edges` has one entry more than bins; what
    lies beyond the edges is counted in the outermost bins. All figures are those of the finite values, errors those of
    the pairs that are finite on both sides; a channel without any has nan.
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


class ChannelAccumulator:
    """Statistics of a tensor pair along one axis; `update` adds a batch, `merge` adds another's.

    Any split of the same values into updates and merges gives the same counts and extrema, and the same moments up to
    float64 rounding.
    """

    def __init__(self, axis: int, bins: Histogram, qparams: QParams | None = None) -> None:
        """Begin with nothing seen.

        Args:
            axis: that of the channels; −1 is the last.
            bins: its edges are those of every channel; its counts do not matter.
            qparams: what turns the quantized tensor into real values, where it comes as integer codes.
        """
        self.axis = axis
        self.bins = bins
        self.qparams = qparams
        self._reference = _Side(0, bins)
        self._quantized = _Side(0, bins)
        self._errors = np.zeros((0, blocks.ERROR_SLOTS))

    @property
    def channels(self) -> int:
        """How many channels there are; 0 before the first batch."""
        return len(self._errors)

    def update(self, reference: NDArray[Any], quantized: NDArray[Any]) -> None:
        """Add a batch.

        Args:
            reference: float array of any shape.
            quantized: same shape; real values, or codes of an integer type if there are `qparams`.
        Raises:
            ShapeError: the shapes differ, or there are not as many channels as before.
        """
        shape = reference.shape
        if shape != quantized.shape:
            raise ShapeError(f"shapes differ: reference {shape}, quantized {quantized.shape}")
        if not -len(shape) <= self.axis < len(shape):
            raise ShapeError(f"axis {self.axis} of the channels does not exist in a tensor of shape {shape}")
        self.axis %= len(shape)
        self._have(shape[self.axis])
        if not reference.size:
            return
        view = (int(np.prod(shape[: self.axis])), shape[self.axis], int(np.prod(shape[self.axis + 1 :])))
        x, y = flat_floats(reference, real_values(quantized, self.qparams))
        compare_channels(
            x.reshape(view), y.reshape(view), self.bins.exponent, self.bins.first,
            self._reference.sums, self._quantized.sums, self._reference.counts, self._quantized.counts, self._errors,
        )  # fmt: skip

    def _have(self, channels: int) -> None:
        if not self.channels:
            self._reference, self._quantized = _Side(channels, self.bins), _Side(channels, self.bins)
            self._errors = np.zeros((channels, blocks.ERROR_SLOTS))
        elif channels != self.channels:
            raise ShapeError(f"the tensor had {self.channels} channels before, now {channels}")

    def merge(self, other: ChannelAccumulator) -> None:
        """Add all that another accumulator with the same bins has seen.

        Raises:
            ShapeError: it saw another number of channels, or has other bins.
        """
        if not other.channels:
            return
        if (self.bins.exponent, self.bins.first, len(self.bins.counts)) != (
            other.bins.exponent, other.bins.first, len(other.bins.counts),
        ):  # fmt: skip
            raise ShapeError("the two accumulators count in different bins")
        self._have(other.channels)
        self.axis = other.axis
        self._reference.merge(other._reference)
        self._quantized.merge(other._quantized)
        self._errors += other._errors

    def result(self) -> ChannelStatistics:
        """Return what was seen so far, channel by channel."""
        errors = [ErrorStatistics(sums) for sums in self._errors]
        x, y = self._reference, self._quantized
        return ChannelStatistics(
            self.axis,
            x.minimum, x.maximum, x.mean, x.std,
            y.minimum, y.maximum, y.mean, y.std,
            np.array([error.mse for error in errors], np.float64),
            np.array([error.sqnr_db for error in errors], np.float64),
            self.bins.edges, x.counts.copy(), y.counts.copy(),
        )  # fmt: skip


class _Side:
    """The sums and the histograms of all channels of one tensor."""

    def __init__(self, channels: int, bins: Histogram) -> None:
        self.sums = np.zeros((channels, blocks.TENSOR_SLOTS))
        self.sums[:, blocks.MINIMUM] = np.inf
        self.sums[:, blocks.MAXIMUM] = -np.inf
        self.counts = np.zeros((channels, len(bins.counts)), np.int64)

    def merge(self, other: _Side) -> None:
        merge_channels(self.sums, other.sums)
        self.counts += other.counts

    def _where_seen(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(self.sums[:, blocks.COUNT] > 0, values, np.nan)

    @property
    def minimum(self) -> NDArray[np.float64]:
        return self._where_seen(self.sums[:, blocks.MINIMUM])

    @property
    def maximum(self) -> NDArray[np.float64]:
        return self._where_seen(self.sums[:, blocks.MAXIMUM])

    @property
    def mean(self) -> NDArray[np.float64]:
        return self._where_seen(self.sums[:, blocks.MEAN])

    @property
    def std(self) -> NDArray[np.float64]:
        count = np.maximum(self.sums[:, blocks.COUNT], 1)
        return self._where_seen(np.sqrt(self.sums[:, blocks.SQUARED_DEVIATION] / count))


def channel_statistics(
    reference: NDArray[Any], quantized: NDArray[Any], axis: int, bins: tuple[Histogram, Histogram]
) -> ChannelStatistics:
    """Return the statistics of two weights of the same shape along `axis`.

    `bins` are the histograms of the two weights as a whole on shared edges: channels use the same.
    """
    accumulator = ChannelAccumulator(axis, bins[0])
    accumulator.update(reference, quantized)
    return accumulator.result()
