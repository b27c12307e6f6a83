"""The score of one quantized model after another, over the same samples and beside the same reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from quantscope import evaluation, memory
from quantscope.backends.base import Backend, Model, Runner
from quantscope.samples import Batch
from quantscope.tracing import Values, outputs_of

# Of the memory that a run may use: the reference's outputs are kept in it if they fit, and computed again if not.
_SHARE = 0.25


class Accuracy:
    """Scores quantized models with one metric; the reference runs once if its outputs fit in memory."""

    def __init__(
        self,
        backend: Backend,
        reference: Model,
        batches: Callable[[], Iterable[Batch]],
        *,
        metric: str | Callable[..., Any] | None,
        threads: int,
    ) -> None:
        """`batches` gives the samples anew at each call."""
        self._backend = backend
        self._reference = reference
        self._batches = batches
        self._chosen = metric
        self._threads = threads
        self._kept: list[Values] = []
        self._room = int(memory.budget() * _SHARE)
        self._complete = False

    def score(self, quantized: Model, progress: Callable[[int], None] = lambda samples: None) -> evaluation.Score:
        """Return the score of both models.

        Raises:
            DataError: the samples do not fit the models or the metric.
        """
        name, metric = "", None
        x: list[float] = []
        y: list[float] = []
        kept: list[Values] = []
        with ExitStack() as stack:
            run_quantized = stack.enter_context(self._open(quantized))
            run_reference = None if self._complete else stack.enter_context(self._open(self._reference))
            for position, batch in enumerate(self._batches()):
                if run_reference is None:
                    reference = self._kept[position]
                else:
                    reference = outputs_of(self._reference, run_reference.run(batch.inputs))
                    kept.append(reference)
                    self._room -= sum(array.nbytes for array in reference.values())
                    if self._room < 0:
                        kept.clear()
                outputs = outputs_of(quantized, run_quantized.run(batch.inputs))
                if metric is None:
                    name, metric = evaluation.chosen(self._chosen, reference, batch.labels)
                x.extend(metric(reference, batch.labels, reference).tolist())
                y.extend(metric(outputs, batch.labels, reference).tolist())
                progress(batch.size)
        if not self._complete and self._room >= 0:
            self._kept, self._complete = kept, True
        return evaluation.score(name, x, y)

    def _open(self, model: Model) -> AbstractContextManager[Runner]:
        return self._backend.open(model, [], trace="optimized", threads=self._threads)
