"""How far a model's outputs are from the reference's, sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope import evaluation
from quantscope.tracing import Values

_SMALLEST_PROBABILITY = 1e-9


def damage(outputs: Values, reference: Values) -> tuple[str, NDArray[np.float64]]:
    """Return how far outputs are from the reference's, per sample, and what the measure is called.

    For class scores of shape (samples, classes) the Kullback-Leibler divergence from the reference's distribution, in
    nats; else the power of the error over that of the signal.
    """
    first = next(iter(reference.values()))
    if len(reference) == 1 and first.ndim == 2 and first.shape[1] > 1 and first.dtype.kind == "f":
        p, q = _distribution(first), _distribution(next(iter(outputs.values())))
        floor = _SMALLEST_PROBABILITY
        return "KL divergence", (p * (np.log(np.maximum(p, floor)) - np.log(np.maximum(q, floor)))).sum(1)
    x, y = (
        np.concatenate([np.asarray(o, np.float64).reshape(len(o), -1) for o in side.values()], axis=1)
        for side in (reference, outputs)
    )
    noise = np.where(np.isfinite(y), x - y, x)
    return "noise over signal", (noise**2).sum(1) / np.maximum((x**2).sum(1), np.finfo(np.float64).tiny)


def _distribution(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Class scores as probabilities: as they are if they are some, else by softmax."""
    values = np.nan_to_num(np.asarray(scores, np.float64))
    if (values >= 0).all() and np.allclose(values.sum(1), 1, atol=1e-3):
        return values
    shifted = np.exp(values - values.max(1, keepdims=True))
    total: NDArray[np.float64] = shifted / shifted.sum(1, keepdims=True)
    return total


def metric_damage(
    metric: str | Callable[..., Any], outputs: Values, reference: Values, labels: NDArray[Any] | None
) -> tuple[str, NDArray[np.float64]]:
    """Return how much worse than the reference a metric finds outputs, per sample, and what that is called.

    Raises:
        DataError: there is no such metric, or it does not fit the outputs or labels.
    """
    name, scores = evaluation.chosen(metric, reference, labels)
    difference = scores(reference, labels, reference) - scores(outputs, labels, reference)
    return f"drop of {name}", difference * (-1 if name == "mse" else 1)
