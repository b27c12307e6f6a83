"""The accuracy of a model, by the user's function, or by a metric on the batches of a loader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantscope.backends.base import Model
from quantscope.binding import chunk_of, fitted
from quantscope.errors import DataError, UnsupportedError
from quantscope.neural_compressor import loaders
from quantscope.neural_compressor.metric import metric_of
from quantscope.neural_compressor.model import as_given_to_user
from quantscope.neural_compressor.source import Source

Evaluate = Callable[[Model], float]


def evaluation(source: Source, eval_func: Any, loader: Any, metric: Any) -> Evaluate | None:
    """Return the function that evaluates a model; None if there is nothing to evaluate with.

    Raises:
        DataError: there is a loader without a metric, or a metric without a loader.
        UnsupportedError: the metric has no equivalent.
    """
    if eval_func is not None:

        def evaluate(model: Model) -> float:
            with as_given_to_user(model) as given:
                return _number(eval_func(given), "eval_func")

        return evaluate
    if (loader is None) != (metric is None):
        there, missing = ("eval_metric", "eval_dataloader") if loader is None else ("eval_dataloader", "eval_metric")
        raise DataError(f"{there} is given without {missing}", accepted="both, or an eval_func, or none of the three")
    if loader is None:
        return None
    loaders.checked(loader, "eval_dataloader")
    measured = metric_of(metric)

    def evaluate_by_metric(model: Model) -> float:
        measured.reset()
        inputs = source.reference.graph.inputs
        with source.backend.open(model, (), trace="optimized", threads=0) as runner:
            for item in loader:
                if not isinstance(item, tuple | list) or len(item) != 2:
                    raise DataError(f"eval_dataloader gave a {type(item).__name__}", accepted="(inputs, labels)")
                batch = fitted(chunk_of(loaders.inputs_of(item, inputs), inputs, 0), inputs)
                outputs = list(runner.run(batch.arrays).values())
                measured.update(outputs, item[1] if isinstance(item[1], list) else [item[1]])
        return _number(measured.result(), "eval_metric")

    return evaluate_by_metric


def _number(value: Any, name: str) -> float:
    """The accuracy as a number.

    Raises:
        UnsupportedError: it is a list of several.
        DataError: it is no number.
    """
    if isinstance(value, list | tuple):
        raise UnsupportedError(
            f"{name} returned {len(value)} figures", accepted="one number", next_step="weigh them in the eval_func"
        )
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"{name} returned {value!r:.80}", accepted="a number, the accuracy") from None
