"""Histograms whose bins lie on a grid of powers of two, so that any two can be put on shared edges exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values in bins of width 2**exponent; bin i covers [(first + i)·width, (first + i + 1)·width)."""

    exponent: int
    first: int
    counts: NDArray[np.int64]

    @property
    def width(self) -> float:
        """The width of a bin."""
        return 2.0**self.exponent

    @property
    def edges(self) -> NDArray[np.float64]:
        """The edges of the bins, one more than there are counts."""
        return np.asarray((self.first + np.arange(len(self.counts) + 1)) * self.width, np.float64)

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        return np.asarray((self.first + np.arange(len(self.counts)) + 0.5) * self.width, np.float64)

    def coarsened(self, exponent: int) -> Histogram:
        """The same values in bins of width 2**exponent, which must not be finer than now."""
        if exponent < self.exponent:
            raise ValueError(f"a histogram cannot be refined: 2**{self.exponent} to 2**{exponent}")
        if exponent == self.exponent or not len(self.counts):
            return Histogram(exponent, self.first, self.counts)
        # Shifts beyond 62 bits leave only the sign.
        shift = min(exponent - self.exponent, 62)
        numbers = (self.first + np.arange(len(self.counts))) >> shift
        counts = np.zeros(int(numbers[-1] - numbers[0]) + 1, np.int64)
        np.add.at(counts, numbers - numbers[0], self.counts)
        return Histogram(exponent, int(numbers[0]), counts)

    def within(self, bins: int) -> Histogram:
        """The same values in at most so many bins."""
        result = self
        while len(result.counts) > bins:
            result = result.coarsened(result.exponent + 1)
        return result

    def padded(self, first: int, bins: int) -> NDArray[np.int64]:
        """The counts for the bins first … first + bins − 1, with zeros where there are none."""
        counts = np.zeros(bins, np.int64)
        start = self.first - first
        counts[start : start + len(self.counts)] = self.counts
        return counts


def shared_bins(a: Histogram, b: Histogram, bins: int = 2048) -> tuple[Histogram, Histogram]:
    """The two histograms on the same edges, with at most `bins` bins."""
    filled = [h for h in (a, b) if len(h.counts)]
    if not filled:
        return a, b
    exponent = max(h.exponent for h in filled)
    while True:
        coarse = [h.coarsened(exponent) for h in filled]
        first = min(h.first for h in coarse)
        last = max(h.first + len(h.counts) for h in coarse)
        if last - first <= bins:
            break
        exponent += 1
    empty = Histogram(exponent, first, np.zeros(0, np.int64))
    shared = [(h.coarsened(exponent) if len(h.counts) else empty) for h in (a, b)]
    width = last - first
    return (
        Histogram(exponent, first, shared[0].padded(first, width) if len(a.counts) else np.zeros(width, np.int64)),
        Histogram(exponent, first, shared[1].padded(first, width) if len(b.counts) else np.zeros(width, np.int64)),
    )


def trimmed(exponent: int, first: int, bins: NDArray[Any]) -> Histogram:
    """A histogram without the empty bins at both ends."""
    used = np.flatnonzero(bins)
    if not len(used):
        return Histogram(exponent, first, np.zeros(0, np.int64))
    return Histogram(exponent, first + int(used[0]), bins[used[0] : used[-1] + 1].astype(np.int64))
