"""Factors that give the weights before and behind each region like ranges, channel by channel.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1;
docs/decisions/0010-equalization.md says what differs and what it brings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.equalization.channels import along, largest
from quantscope.equalization.regions import Region, Use

# A change of 1 % moves no code of 8 bits by more than one step.
_SETTLED = 0.01
# A chain of 34 regions settled in 14 passes.
_MOST_PASSES = 30
# Beyond, a channel is dead, and a factor that tells nothing could make another value infinite.
_WIDEST = 1000.0
# Half of the range of what a normalization makes of a scale of 1, in the paper cited above (section 5: n = 6).
_DEVIATIONS = 6.0

Factors = NDArray[np.float64]


def equalizing(
    regions: Sequence[Region], names: Mapping[Use, str], read: Callable[[str], NDArray[Any]]
) -> list[Factors]:
    """Return by region the factors of its channels.

    Args:
        regions: in execution order.
        names: the constant that stands at each operand of theirs, which nothing else reads.
        read: the values of a constant.
    """
    return _Ranges(regions, names, read).factors()


class _Ranges:
    """The ranges of channels in the constants of all regions, read one constant at a time."""

    def __init__(
        self, regions: Sequence[Region], names: Mapping[Use, str], read: Callable[[str], NDArray[Any]]
    ) -> None:
        self._read = read
        self._regions = regions
        self._names = names
        self._factors: list[Factors] = [np.ones(region.channels) for region in regions]
        self._known: dict[Use, Factors] = {}
        # The regions that scale a constant: by its outputs, and by its inputs.
        self._scaled: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for number, region in enumerate(regions):
            for axes, power in ((region.written, 1), (region.read, -1)):
                for use, axis in axes.items():
                    self._scaled[names[use]].append((number, axis, power))

    def factors(self) -> list[Factors]:
        """Factors that make the ranges on both sides of each region equal, channel by channel."""
        for _ in range(_MOST_PASSES):
            if max([self._equalize(number) for number in range(len(self._regions))]) < _SETTLED:
                break
        return self._factors

    def _equalize(self, number: int) -> float:
        """Improve the factors of a region, given those of all others; returns the largest relative change."""
        region, before = self._regions[number], self._factors[number]
        written = self._range(region.weight, region.written[region.weight], number)
        if region.offset is not None:
            written = _DEVIATIONS * written + self._range(region.offset, region.written[region.offset], number)
        read = _widest(self._range(use, axis, number) for use, axis in region.read.items())
        alive = (written > 0) & (read > 0)
        if not alive.any():
            return 0.0
        # Equation 11 in the paper cited above, of weights that have the factors of before.
        wanted = before[alive] * np.sqrt(read[alive] / written[alive])
        middle = np.median(wanted)
        highest = np.full(wanted.shape, _WIDEST * middle)
        biases = [use for use in region.written if use not in (region.weight, region.offset)]
        bias = sum((self._range(use, region.written[use], number) for use in biases), np.zeros_like(before)) / before
        if bias.any():
            # No bias shall be wider, beside the others, than the widest was: it would take the tensor's range.
            with np.errstate(divide="ignore"):
                highest = np.minimum(highest, middle * bias.max() / bias[alive])
        after = before.copy()
        after[alive] = np.clip(wanted, middle / _WIDEST, highest)
        self._factors[number] = after
        return float(np.abs(after / before - 1).max())

    def _range(self, use: Use, axis: int, number: int) -> Factors:
        """The largest magnitude in each channel of a constant as it is by now."""
        name, channels = self._names[use], self._regions[number].channels
        scaled = self._scaled[name]
        own = [power for other, where, power in scaled if (other, where) == (number, axis)]
        if len(scaled) > len(own):
            values = self._magnitudes(name)
            for other, where, power in scaled:
                values *= along((self._factors[other] ** power).astype(values.dtype), values.shape, where)
            return largest(values, axis, channels)
        if use not in self._known:
            self._known[use] = largest(self._magnitudes(name), axis, channels)
        return self._known[use] * self._factors[number] ** own[0]

    def _magnitudes(self, name: str) -> NDArray[np.floating]:
        return np.asarray(np.abs(self._read(name)))


def _widest(ranges: Iterable[Factors]) -> Factors:
    found: Factors = np.maximum.reduce(list(ranges))
    return found
