"""Values as JSON: compact, with what JSON cannot say replaced as everywhere, and whole numbers packed."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quantscope.report.tables import strict
from quantscope.serve import api

_SIZES: tuple[Literal[1, 2, 4, 8], ...] = (1, 2, 4, 8)


def as_json(values: Any) -> bytes:
    """Return plain values as compact JSON."""
    return json.dumps(strict(values), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(
        errors="backslashreplace"
    )


def packed(counts: NDArray[np.int64]) -> dict[str, Any]:
    """Return counts in as few bytes per number as hold the largest."""
    largest = int(counts.max(initial=0))
    size = next(n for n in _SIZES if largest < 256**n)
    content = zlib.compress(counts.astype(f"<u{size}").tobytes(), 9)
    return api.Counts(
        shape=list(counts.shape), bytes_per_number=size, data=base64.b64encode(content).decode()
    ).model_dump()


def shorter(values: NDArray[np.float64], digits: int = 7) -> list[float]:
    """Return floats in as many digits as a float32 has: half as long in JSON."""
    return [float(f"{value:.{digits}g}") for value in values.tolist()]
