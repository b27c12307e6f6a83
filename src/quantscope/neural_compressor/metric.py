"""Metrics as Neural Compressor takes them: an object with update, reset and result, or a built-in one by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quantscope.errors import DataError, UnsupportedError

Predictions = Sequence[NDArray[Any]]
"""The model's outputs for one batch, in their order."""


class Updatable(Protocol):
    """What measures: it is reset, updated with each batch, and gives one number in the end."""

    def reset(self) -> None:
        """Forget all batches."""

    def update(self, preds: Any, labels: Any) -> None:
        """Take the outputs for one batch, as a list, and its labels, as a list."""

    def result(self) -> float:
        """The figure over all batches."""
        ...


class Metric:
    """A metric to be made: a built-in one by its name, or `metric_cls` called with the other arguments."""

    def __init__(self, name: str = "user_metric", metric_cls: Any = None, **kwargs: Any) -> None:
        self.name = name
        self.metric_cls = metric_cls
        self.kwargs = kwargs


def metric_of(given: object) -> Updatable:
    """The metric that `eval_metric` stands for: an object of its own, a `Metric`, or {"topk": {"k": 1}}.

    Raises:
        UnsupportedError: it is a built-in metric, or an option of one, that quantscope lacks, or several at once.
        DataError: it is no metric.
    """
    if isinstance(given, Metric):
        if given.metric_cls is not None:
            made: Updatable = given.metric_cls(**given.kwargs)
            return made
        return _built_in(given.name, given.kwargs)
    if isinstance(given, Mapping):
        if len(given) != 1:
            raise UnsupportedError(
                f"eval_metric with several entries: {', '.join(map(str, given))}",
                accepted='one metric, such as {"topk": {"k": 1}}',
                next_step="weigh them in an eval_func of your own, which returns one number",
            )
        ((name, options),) = given.items()
        return _built_in(str(name), options if isinstance(options, Mapping) else {"k": options})
    missing = [name for name in ("reset", "update", "result") if not callable(getattr(given, name, None))]
    if missing:
        raise DataError(
            f"eval_metric of type {type(given).__name__} has no {', '.join(missing)}",
            accepted="an object with reset, update and result, a Metric, or a dictionary with a metric's name",
        )
    found: Any = given
    measured: Updatable = found
    return measured


def _built_in(name: str, options: Mapping[str, Any]) -> Updatable:
    if name not in _BUILT_IN:
        raise UnsupportedError(
            f"eval_metric {name!r} of Neural Compressor has no equivalent in quantscope",
            accepted=", ".join(_BUILT_IN),
            next_step="pass an object with reset, update and result, or an eval_func",
        )
    accepted = {"k"} if name == "topk" else {"compare_label"} if name in _ERRORS else set()
    odd = sorted(set(options) - accepted)
    if odd or options.get("compare_label") is False:
        raise UnsupportedError(
            f"eval_metric {name!r} with {', '.join(odd) or 'compare_label=False'} has no equivalent in quantscope",
            accepted=", ".join(sorted(accepted)) or "no option",
            next_step="pass an eval_func",
        )
    return _Classified(options.get("k", 1)) if name in ("topk", "Accuracy") else _Error(name)


@dataclass
class _Classified:
    """The share of samples whose label is among the k highest scores."""

    k: int = 1
    right: int = 0
    samples: int = 0

    def reset(self) -> None:
        self.right = self.samples = 0

    def update(self, preds: Predictions, labels: Any) -> None:
        scores = np.asarray(preds[0])
        scores = scores.reshape(len(scores), -1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.k]
        self.right += int((best == _classes(labels, scores)[:, None]).any(1).sum())
        self.samples += len(scores)

    def result(self) -> float:
        return self.right / self.samples if self.samples else 0.0


@dataclass
class _Error:
    """The mean error of the first output against the labels: MSE, RMSE or MAE."""

    name: str
    total: float = 0.0
    count: int = 0

    def reset(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, preds: Predictions, labels: Any) -> None:
        values = np.asarray(preds[0], np.float64)
        wanted = np.asarray(labels, np.float64)
        if values.size != wanted.size:
            raise DataError(
                f"{self.name}: labels of shape {list(wanted.shape)} for outputs of shape {list(values.shape)}",
                accepted="a label for each value of the first output",
            )
        difference = values.reshape(-1) - wanted.reshape(-1)
        self.total += float((np.abs(difference) if self.name == "MAE" else difference**2).sum())
        self.count += difference.size

    def result(self) -> float:
        mean = self.total / self.count if self.count else float("nan")
        return float(np.sqrt(mean)) if self.name == "RMSE" else mean


_ERRORS = ("MSE", "RMSE", "MAE")
_BUILT_IN = ("topk", "Accuracy", *_ERRORS)


def _classes(labels: Any, scores: NDArray[Any]) -> NDArray[Any]:
    """The class of each sample, from class numbers or from a 1 among zeros."""
    given: NDArray[Any] = np.asarray(labels)
    if given.size == len(scores):
        return given.reshape(-1)
    if given.size == scores.size:
        classes: NDArray[Any] = given.reshape(scores.shape).argmax(1)
        return classes
    raise DataError(
        f"labels of shape {list(given.shape)} for {len(scores)} samples of {scores.shape[1]} classes",
        accepted="a class number for each sample",
    )
