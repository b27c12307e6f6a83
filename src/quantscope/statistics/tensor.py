"""What there is to say of one tensor over all samples: counts, extrema, moments and a histogram."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.statistics import kernels
from quantscope.statistics.histogram import Histogram, trimmed

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def flat_floats(values: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
    """The values as a flat contiguous float32 or float64 array, without a copy where they are one already."""
    if dtype is None:
        dtype = (
            values.dtype
            if values.dtype in _FLOATS
            else (np.float32 if values.dtype.itemsize <= 2 or values.dtype.kind == "b" else np.float64)
        )
    return np.ascontiguousarray(values, dtype).reshape(-1)


class TensorStatistics:
    """Counts, extrema, moments and a histogram of one tensor; `update` adds a batch, `merge` adds another's.

    Any split of the same values into updates and merges gives the same counts, extrema and histogram, and the
    same moments up to float64 rounding. Minimum, maximum, mean and variance are those of the finite values;
    what is not finite is counted beside them.
    """

    def __init__(self) -> None:
        self.sums = np.zeros(kernels.TENSOR_SLOTS)
        self.sums[kernels.MINIMUM] = math.inf
        self.sums[kernels.MAXIMUM] = -math.inf
        self.bins = np.zeros(kernels.BINS, np.int64)
        self.layout = np.zeros(kernels.LAYOUT_SLOTS)

    def update(self, values: NDArray[Any]) -> None:
        """Add a batch of any shape."""
        flat = flat_floats(values)
        if flat.size:
            kernels.summarize(flat, self.sums, self.bins, self.layout)

    def merge(self, other: TensorStatistics) -> None:
        """Add all that another accumulator has seen."""
        sums, added = self.sums, other.sums
        for slot in (kernels.NAN, kernels.POSITIVE_INFINITY, kernels.NEGATIVE_INFINITY):
            sums[slot] += added[slot]
        if not added[kernels.COUNT]:
            return
        total = sums[kernels.COUNT] + added[kernels.COUNT]
        delta = added[kernels.MEAN] - sums[kernels.MEAN]
        sums[kernels.SQUARED_DEVIATION] += (
            added[kernels.SQUARED_DEVIATION] + delta * delta * sums[kernels.COUNT] * added[kernels.COUNT] / total
        )
        sums[kernels.MEAN] += delta * added[kernels.COUNT] / total
        sums[kernels.COUNT] = total
        sums[kernels.SUM_SQUARES] += added[kernels.SUM_SQUARES]
        sums[kernels.MINIMUM] = min(sums[kernels.MINIMUM], added[kernels.MINIMUM])
        sums[kernels.MAXIMUM] = max(sums[kernels.MAXIMUM], added[kernels.MAXIMUM])
        low, high = sums[kernels.MINIMUM], sums[kernels.MAXIMUM]
        kernels.grow(self.bins, self.layout, low, high)
        bins, layout = other.bins.copy(), other.layout.copy()
        # The layout follows from the extrema alone: grown to the same extrema, both are on the same bins.
        kernels.grow(bins, layout, low, high)
        self.bins += bins

    @classmethod
    def from_counts(cls, values: NDArray[Any], counts: NDArray[Any]) -> TensorStatistics:
        """The statistics of a tensor in which each of `values` occurs `counts` times."""
        result = cls()
        used = counts > 0
        if not used.any():
            return result
        v, n = values[used].astype(np.float64), counts[used].astype(np.float64)
        sums = result.sums
        sums[kernels.COUNT] = n.sum()
        sums[kernels.MEAN] = mean = (v * n).sum() / n.sum()
        sums[kernels.SQUARED_DEVIATION] = ((v - mean) ** 2 * n).sum()
        sums[kernels.SUM_SQUARES] = (v * v * n).sum()
        sums[kernels.MINIMUM], sums[kernels.MAXIMUM] = v.min(), v.max()
        kernels.grow(result.bins, result.layout, v.min(), v.max())
        number = np.floor(v * 2.0 ** -result.layout[kernels.EXPONENT]) - result.layout[kernels.FIRST]
        np.add.at(result.bins, number.astype(np.int64), counts[used])
        return result

    @property
    def count(self) -> int:
        """How many values were seen, finite or not."""
        return int(self.sums[: kernels.MINIMUM].sum())

    @property
    def finite_count(self) -> int:
        """How many finite values were seen."""
        return int(self.sums[kernels.COUNT])

    @property
    def nan_count(self) -> int:
        """How many values were not a number."""
        return int(self.sums[kernels.NAN])

    @property
    def infinity_count(self) -> int:
        """How many values were +inf or −inf."""
        return int(self.sums[kernels.POSITIVE_INFINITY] + self.sums[kernels.NEGATIVE_INFINITY])

    @property
    def minimum(self) -> float:
        """The lowest finite value; nan if there was none."""
        return float(self.sums[kernels.MINIMUM]) if self.finite_count else math.nan

    @property
    def maximum(self) -> float:
        """The highest finite value; nan if there was none."""
        return float(self.sums[kernels.MAXIMUM]) if self.finite_count else math.nan

    @property
    def mean(self) -> float:
        """The mean of the finite values; nan if there was none."""
        return float(self.sums[kernels.MEAN]) if self.finite_count else math.nan

    @property
    def variance(self) -> float:
        """The population variance of the finite values; nan if there was none."""
        if not self.finite_count:
            return math.nan
        return float(self.sums[kernels.SQUARED_DEVIATION] / self.sums[kernels.COUNT])

    @property
    def std(self) -> float:
        """The population standard deviation: the root of the variance."""
        return math.sqrt(self.variance)

    @property
    def sum_squares(self) -> float:
        """Σx² over the finite values."""
        return float(self.sums[kernels.SUM_SQUARES])

    @property
    def histogram(self) -> Histogram:
        """How often the finite values fall into each bin."""
        return trimmed(int(self.layout[kernels.EXPONENT]), int(self.layout[kernels.FIRST]), self.bins)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state, for a run file."""
        return {"sums": self.sums, "bins": self.bins, "layout": self.layout}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> TensorStatistics:
        """The accumulator whose state `arrays` gave."""
        result = cls()
        result.sums, result.bins, result.layout = (arrays[key].copy() for key in ("sums", "bins", "layout"))
        return result
