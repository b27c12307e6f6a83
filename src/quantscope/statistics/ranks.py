"""Rank correlation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation, −1 to 1; equal values share their mean rank.

    Args:
        x, y: float arrays, shape (N,).
    Returns:
        nan below three values or where all of one are equal.
    Source: Spearman, "The proof and measurement of association between two things", 1904.
    """
    if len(x) < 3:
        return math.nan
    a, b = (_mean_ranks(values) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else math.nan


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(last - (counts - 1) / 2, np.float64)[inverse]
