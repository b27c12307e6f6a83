"""How numbers and names are written where people read them."""

from __future__ import annotations

import math

from quantscope.evaluation import Score


def number(value: float | None, digits: int = 4) -> str:
    """A number in at most so many significant digits; "–" where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 10**6 or magnitude < 10**-3:
        return f"{value:.{max(digits - 2, 1)}e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.{digits}g}" if magnitude < 10**digits else f"{value:.0f}"


def decibel(value: float | None) -> str:
    """An SQNR with one digit behind the point."""
    return number(value) if value is None or not math.isfinite(value) else f"{value:.1f}"


def share(value: float) -> str:
    """A share as a percentage; a small one is not rounded to nothing."""
    if math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    return f"{value:.2%}" if value >= 0.0001 else "<0.01%"


def metric_value(name: str, value: float) -> str:
    """A metric's value: shares in percent, others as numbers."""
    return f"{value:.2%}" if name in ("top1", "top5", "agreement") and math.isfinite(value) else number(value, 6)


def difference(score: Score) -> tuple[str, str, str]:
    """The absolute difference, the relative one, and the interval of the absolute one."""
    if score.metric in ("top1", "top5", "agreement"):
        low, high = (f"{v * 100:+.2f}" if math.isfinite(v) else "–" for v in (score.low, score.high))
        absolute = f"{score.difference * 100:+.2f} points"
    else:
        low, high = (f"{v:+.4g}" if math.isfinite(v) else "–" for v in (score.low, score.high))
        absolute = f"{score.difference:+.4g}"
    relative = "–" if math.isnan(score.relative_difference) else f"{score.relative_difference:+.2%}"
    return absolute, relative, f"{low} … {high}"


def shortened(name: str, width: int) -> str:
    """A name in at most so many characters; the end, which tells ops apart, is kept."""
    return name if len(name) <= width else "…" + name[-(width - 1) :]
