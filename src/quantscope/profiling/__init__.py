"""Where the time goes: latency of both models, time per op in the user's names, and why int8 is not faster."""

from quantscope.backends.base import Peak
from quantscope.profiling.document import (
    AddedTiming,
    Latency,
    LatencyComparison,
    ModelFacts,
    OpSide,
    OpTiming,
    Profile,
    Reason,
    Rewritten,
    Sums,
    Tried,
)

__all__ = [
    "AddedTiming",
    "Latency",
    "LatencyComparison",
    "ModelFacts",
    "OpSide",
    "OpTiming",
    "Peak",
    "Profile",
    "Reason",
    "Rewritten",
    "Sums",
    "Tried",
]
