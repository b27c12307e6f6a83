"""How fast a recipe's model is, and what could make it faster: all that the search knows of time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from quantscope.recipe import Recipe


@dataclass(frozen=True)
class Speed:
    """The float model's time over the quantized one's, run in turn: above 1 the quantized one is faster.

    `low` and `high` bound `speedup` with 95 % confidence; `reference_us` is the float model's median time meanwhile.
    """

    speedup: float
    low: float
    high: float
    reference_us: float

    def like(self, other: Speed) -> bool:
        """True if the difference is within the measurement's noise.

        Whether the 95 % interval of the ratio of both holds 1: the half widths of independent figures add as squares.
        """
        half = math.hypot(self._half_width, other._half_width)
        return abs(math.log(self.speedup / other.speedup)) <= half

    @property
    def _half_width(self) -> float:
        """Of the interval of the logarithm."""
        return math.log(self.high / self.low) / 2


class Timing(Protocol):
    """Times the models of recipes."""

    def speed(self, recipe: Recipe) -> Speed:
        """The recipe's model against the float model."""
        ...

    def candidates(self, recipe: Recipe) -> Mapping[str, Sequence[str]]:
        """Sets of quantized ops that may be faster in float, by the name of the change."""
        ...
