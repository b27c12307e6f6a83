"""Metrics of the whole model, one score per sample, and the paired uncertainty of the difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.errors import DataError

Outputs = Mapping[str, NDArray[Any]]
Metric = Callable[[Outputs, NDArray[Any] | None, Outputs], NDArray[np.float64]]
"""Scores per sample from a model's outputs, the labels, and the reference's outputs on the same samples."""

BUILT_IN = ("top1", "top5", "agreement", "cosine", "mse")
_LESS_IS_BETTER = ("mse",)
_CONFIDENCE = 0.95


def metric(name: str) -> Metric:
    """The metric of this name: a built-in one, or the user's "package.module:function".

    A user's function gets (outputs, labels), outputs by name with the samples on the leading axis, and returns one
    score per sample.

    Raises:
        DataError: there is no such metric.
    """
    if name in _METRICS:
        return _METRICS[name]
    if ":" not in name:
        raise DataError(
            f"unknown metric {name!r}",
            accepted=", ".join(BUILT_IN) + ", or package.module:function",
        )
    from quantscope.samples import imported

    return from_function(imported(name), name)


def chosen(
    metric_or_name: str | Callable[..., Any] | None, outputs: Outputs, labels: NDArray[Any] | None
) -> tuple[str, Metric]:
    """The metric that was asked for, with its name; without one, that which fits the outputs and labels."""
    if metric_or_name is None or isinstance(metric_or_name, str):
        name = metric_or_name or default_metric(outputs, labels)
        return name, metric(name)
    name = getattr(metric_or_name, "__name__", "metric")
    return name, from_function(metric_or_name, name)


def from_function(function: Callable[..., Any], name: str) -> Metric:
    """A metric from a user's function of (outputs, labels) that returns one score per sample."""

    def scores(outputs: Outputs, labels: NDArray[Any] | None, reference: Outputs) -> NDArray[np.float64]:
        count = len(next(iter(outputs.values())))
        values = np.asarray(function(dict(outputs), labels), np.float64)
        if values.shape != (count,):
            raise DataError(
                f"metric {name} returned shape {values.shape} for {count} samples",
                accepted=f"one score per sample: shape ({count},)",
                next_step="return an array such as (outputs['logits'].argmax(1) == labels)",
            )
        return values

    return scores


def default_metric(outputs: Outputs, labels: NDArray[Any] | None) -> str:
    """top1 where there are class labels, agreement for other classifiers, cosine similarity for the rest."""
    first = _first(outputs)
    classifier = first.ndim == 2 and first.shape[1] > 1 and first.dtype.kind == "f"
    if classifier and labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu":
        return "top1"
    return "agreement" if classifier else "cosine"


def metrics_beside(name: str, outputs: Outputs) -> tuple[str, ...]:
    """The metrics that cost nothing more and help to read this one."""
    classes = _first(outputs).shape[-1] if _first(outputs).ndim == 2 else 0
    if name == "top1":
        return ("top5", "agreement") if classes > 5 else ("agreement",)
    return ()


def _first(outputs: Outputs) -> NDArray[Any]:
    if not outputs:
        raise DataError("the model has no tensor among its outputs", accepted="a model with a float output")
    return next(iter(outputs.values()))


def _classes(outputs: Outputs, name: str) -> NDArray[Any]:
    scores = _first(outputs)
    if scores.ndim != 2:
        raise DataError(
            f"metric {name} needs class scores of shape (samples, classes), the first output has {scores.shape}",
            accepted="cosine, mse, or your own package.module:function",
            next_step="choose another metric with --metric",
        )
    return scores


def _labels(labels: NDArray[Any] | None, scores: NDArray[Any], name: str) -> NDArray[Any]:
    if labels is None:
        raise DataError(
            f"metric {name} needs labels and the samples have none",
            accepted="--labels FILE, or a metric without labels: agreement, cosine, mse",
        )
    if labels.shape != (len(scores),) or labels.dtype.kind not in "iu":
        raise DataError(
            f"labels do not match: {labels.dtype} of shape {labels.shape} for {len(scores)} samples",
            accepted="one class number per sample",
        )
    classes = scores.shape[1]
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise DataError(
            f"labels do not match: classes {labels.min()} to {labels.max()}, the model has {classes}",
            accepted=f"class numbers 0 to {classes - 1}",
            next_step="check the label file: is it numbered from 1?",
        )
    return labels


def _top1(outputs: Outputs, labels: NDArray[Any] | None, reference: Outputs) -> NDArray[np.float64]:
    scores = _classes(outputs, "top1")
    right: NDArray[Any] = scores.argmax(1) == _labels(labels, scores, "top1")
    return right.astype(np.float64)


def _top5(outputs: Outputs, labels: NDArray[Any] | None, reference: Outputs) -> NDArray[np.float64]:
    scores = _classes(outputs, "top5")
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    right: NDArray[Any] = (best == _labels(labels, scores, "top5")[:, None]).any(1)
    return right.astype(np.float64)


def _agreement(outputs: Outputs, labels: NDArray[Any] | None, reference: Outputs) -> NDArray[np.float64]:
    same: NDArray[Any] = _classes(outputs, "agreement").argmax(1) == _classes(reference, "agreement").argmax(1)
    return same.astype(np.float64)


def _flat(outputs: Outputs) -> NDArray[np.float64]:
    return np.concatenate([o.reshape(len(o), -1).astype(np.float64) for o in outputs.values()], axis=1)


def _cosine(outputs: Outputs, labels: NDArray[Any] | None, reference: Outputs) -> NDArray[np.float64]:
    x, y = _flat(reference), _flat(outputs)
    norms = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    both_zero = ~x.any(1) & ~y.any(1)
    similarity: NDArray[np.float64] = np.where(both_zero, 1.0, (x * y).sum(1) / np.where(norms > 0, norms, 1))
    return similarity


def _mse(outputs: Outputs, labels: NDArray[Any] | None, reference: Outputs) -> NDArray[np.float64]:
    errors: NDArray[np.float64] = ((_flat(reference) - _flat(outputs)) ** 2).mean(1)
    return errors


_METRICS: Mapping[str, Metric] = {
    "top1": _top1,
    "top5": _top5,
    "agreement": _agreement,
    "cosine": _cosine,
    "mse": _mse,
}


@dataclass(frozen=True)
class Score:
    """One metric of both models over the same samples.

    `difference` is quantized minus reference, with its 95 % interval over the samples; `relative_difference` is the
    share of the reference's value, nan where that is 0. Where all that is known is one figure for each model, `samples`
    is None and the interval is nan.
    """

    metric: str
    samples: int | None
    reference: float
    quantized: float
    low: float = math.nan
    high: float = math.nan
    higher_is_better: bool = True

    @property
    def difference(self) -> float:
        """Quantized minus reference."""
        return self.quantized - self.reference

    @property
    def gain(self) -> float:
        """How much better the quantized model is than the reference; negative where it is worse."""
        return self.difference if self.higher_is_better else -self.difference

    @property
    def relative_difference(self) -> float:
        """The difference as a share of the reference's value; nan where that is 0."""
        return self.difference / abs(self.reference) if self.reference else math.nan


def score(metric: str, reference: Sequence[float], quantized: Sequence[float]) -> Score:
    """Return the score of both models from their scores per sample, in the same order."""
    x, y = np.asarray(reference, np.float64), np.asarray(quantized, np.float64)
    low, high = paired_interval(x, y)
    return Score(
        metric,
        len(x),
        float(x.mean()) if len(x) else math.nan,
        float(y.mean()) if len(y) else math.nan,
        low,
        high,
        metric not in _LESS_IS_BETTER,
    )


def paired_interval(reference: NDArray[np.float64], quantized: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of quantized − reference, pair by pair.

    For scores of 0 and 1: the interval of Bonett and Price for the difference of paired proportions, which does not
    collapse when no sample changed. Source: Bonett, Price, "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data", 2012, eq. 3. For others: Student's t.
    """
    difference = quantized - reference
    n = len(difference)
    if n < 2:
        return -math.inf, math.inf
    if np.isin(reference, (0, 1)).all() and np.isin(quantized, (0, 1)).all():
        gained = (float((difference > 0).sum()) + 1) / (n + 2)
        lost = (float((difference < 0).sum()) + 1) / (n + 2)
        half = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2) * math.sqrt((gained + lost - (gained - lost) ** 2) / (n + 2))
        return max(-1.0, gained - lost - half), min(1.0, gained - lost + half)
    half = _student_t(n - 1) * float(difference.std(ddof=1)) / math.sqrt(n)
    mean = float(difference.mean())
    return mean - half, mean + half


def _student_t(degrees: int) -> float:
    """The two-sided 95 % quantile of Student's t: a table where the expansion below is not yet exact to 0.1 %.

    Source: Abramowitz, Stegun, "Handbook of Mathematical Functions", 26.7.5.
    """
    table = (12.706, 4.3027, 3.1824, 2.7764, 2.5706)
    if degrees <= len(table):
        return table[degrees - 1]
    z = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / degrees ** (i + 1) for i, term in enumerate(terms)))
