"""How a profile is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """How to time: batch sizes, numbers of threads, with and without the framework's own optimization; the first of
    each are those of the times per op.

    `seconds` bounds the latency at one setting; `tries` is how many reasons to try, `try_seconds` the time for each.
    `output` is where a faster quantized model with the same outputs is written, None for none.
    """

    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (0,)
    optimized: tuple[bool, ...] = (True,)
    seconds: float = 20.0
    tries: int = 0
    try_seconds: float = 8.0
    output: Path | None = None
