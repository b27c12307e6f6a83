"""How figures and names are written in titles and evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from quantscope.report import figures

NAME_LENGTH = 40


def percent(share: float) -> str:
    """A share in percent; a small one keeps a digit behind the point."""
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"


def db(value: float) -> str:
    """An SQNR with its unit."""
    return f"{figures.decibel(value)} dB"


def times(factor: float) -> str:
    """A factor: "12 times"."""
    return f"{factor:.1f} times" if factor < 10 else f"{factor:.0f} times"


def short(name: str) -> str:
    """An op's name in so many characters that a line has room for more; the end, which tells ops apart, is kept."""
    return figures.shortened(name, NAME_LENGTH)


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names in a row; how many more there are, beyond the first ones."""
    shown = ", ".join(map(short, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def counted(number: int, noun: str) -> str:
    """A number of things: "1 op", "3 ops"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def span(low: float, high: float) -> str:
    """A range of values."""
    return f"{figures.number(low, 3)} … {figures.number(high, 3)}"


def figure(value: float) -> str:
    """A number in three digits."""
    return "unknown" if math.isnan(value) else figures.number(value, 3)
