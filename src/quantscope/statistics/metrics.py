"""Metrics as functions of pooled sums: never averages of the metrics of batches.

x is the reference, y the quantized model's tensor, dequantized; n counts the values compared.
"""

from __future__ import annotations

import math


def mse(squared_error: float, count: float) -> float:
    """Return the mean squared error Σ(x−y)² / n; nan where nothing was compared."""
    return squared_error / count if count else math.nan


def sqnr_db(signal: float, squared_error: float) -> float:
    """Return the signal-to-quantization-noise ratio in dB; higher is better.

    10·log10(Σx² / Σ(x−y)²), pooled over all samples.

    Args:
        signal: Σx².
        squared_error: Σ(x−y)².
    Returns:
        +inf if there is no error; −inf if there is error but no signal.
    """
    if squared_error == 0:
        return math.inf
    if signal == 0:
        return -math.inf
    return 10 * (math.log10(signal) - math.log10(squared_error))


def cosine(product: float, reference_squares: float, quantized_squares: float) -> float:
    """Return the cosine similarity Σxy / √(Σx²·Σy²); 1 where both are zero, 0 where one is."""
    if reference_squares == 0 and quantized_squares == 0:
        return 1.0
    if reference_squares == 0 or quantized_squares == 0:
        return 0.0
    return product / (math.sqrt(reference_squares) * math.sqrt(quantized_squares))


def effective_bits(low: float, high: float, error_std: float) -> float:
    """Return log2(range / std of the error); +inf without error, nan without range."""
    if not high > low:
        return math.nan
    return math.log2((high - low) / error_std) if error_std > 0 else math.inf
