"""A model quantized by one recipe after another, and its ops ranked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from quantscope.backends.base import Backend, Model
from quantscope.calibration import observe, ranges
from quantscope.fallback.groups import By
from quantscope.fallback.measurement import Measured, Task
from quantscope.fallback.sensitivity import MOST_OPS, MOST_SAMPLES, Sensitivities, most_damaged, sensitivities
from quantscope.progress import Progress, Silent
from quantscope.recipe import Recipe
from quantscope.samples import Samples
from quantscope.statistics import TensorStatistics
from quantscope.tracing import whole_batches
from quantscope.workflows.diagnosis import paired
from quantscope.workflows.runs import batch_size_for


class Quantizer:
    """Quantizes a model by one recipe after another; the model is prepared once, and its samples observed once.

    `prepared` is the model as it is quantized. Equalized it is another one, with ranges of its own.
    """

    def __init__(
        self,
        backend: Backend,
        model: Model,
        samples: Samples,
        calibration: range,
        *,
        batch_size: int,
        threads: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """`calibration` says which of the samples calibrate."""
        self._backend = backend
        self._model = model
        self._samples = samples
        self._calibration = calibration
        self._size = batch_size
        self._threads = threads
        self._progress = progress or Silent()
        self._progress.stage("prepare", None)
        self.prepared = backend.prepare(model)
        self._statistics: dict[bool, dict[str, TensorStatistics]] = {False: {}, True: {}}
        self._notes: dict[bool, tuple[str, ...]] = {False: (), True: ()}
        self._last: tuple[Recipe, Model] | None = None

    @cached_property
    def _equalized(self) -> Model:
        return self._backend.equalize(self.prepared)

    @property
    def can_equalize(self) -> bool:
        """True if the model has tensors whose channels can be scaled."""
        return self._equalized.handle is not self.prepared.handle

    def quantized(self, recipe: Recipe) -> Model:
        """The model quantized by this recipe, with notes on what was odd; the last one is kept."""
        if self._last is not None and self._last[0] == recipe:
            return self._last[1]
        prepared = self._equalized if recipe.equalize else self.prepared
        statistics = self._statistics[recipe.equalize]
        wanted = self._backend.tensors_to_calibrate(prepared, recipe)
        if any(name not in statistics for name in wanted):
            self._progress.stage("calibrate", len(self._calibration))
            found, self._notes[recipe.equalize] = observe(
                self._backend, prepared, recipe,
                partial(self._samples.batches, self._size, start=self._calibration.start, stop=self._calibration.stop),
                threads=self._threads, progress=self._progress.advance,
            )  # fmt: skip
            statistics |= found
        quantized = self._backend.quantize(prepared, recipe, ranges(statistics, recipe))
        quantized = replace(quantized, notes=(*quantized.notes, *self._notes[recipe.equalize]))
        self._last = recipe, quantized
        return quantized

    def _ops(self, recipe: Recipe) -> list[str]:
        """The ops of the prepared model that the recipe quantizes, in execution order."""
        in_float = self._backend.check(self.prepared, recipe).in_float
        return [op.name for op in self.prepared.graph.ops if op.name not in in_float]

    def named_ops(self, recipe: Recipe) -> list[str]:
        """The ops that the recipe quantizes and that one can leave in float by name, in execution order."""
        # A recipe names ops of the user's model, of which preparation folds some.
        return [name for name in self._ops(recipe) if name in self._model.graph.by_name]

    def share(self, recipe: Recipe) -> float:
        """Of the ops that the quantizer knows, the share that the recipe leaves quantized."""
        everything = self._ops(replace(recipe, rules=()))
        kept = set(self._ops(recipe))
        return sum(name in kept for name in everything) / len(everything) if everything else 0.0

    def sensitivities(
        self,
        recipe: Recipe,
        window: range,
        *,
        most_ops: int = MOST_OPS,
        by: By = "op",
        metric: str | Callable[..., Any] | None = None,
        workers: int = 1,
        known: Mapping[str, Measured] | None = None,
        note: Callable[[str, Measured], None] = lambda name, measured: None,
    ) -> Sensitivities:
        """How much each op matters at the output of the model that this recipe gives, on the worst of these samples.

        The other arguments are those of `quantscope.fallback.sensitivity.sensitivities`.
        """
        quantized = self.quantized(recipe)
        self._progress.stage("compare", min(len(window), 128))
        # As few at once as the model allows: all tensors of a batch are held.
        size = batch_size_for(self._model, None)
        batches = whole_batches(self._samples, self._model, size, window.start, window.stop, self._progress)
        worst = most_damaged(
            self._backend, self._model, quantized, batches, max(1, MOST_SAMPLES // size),
            threads=self._threads, progress=self._progress.advance,
        )  # fmt: skip
        pairs = paired(self._backend, self._model, quantized, "simulated").pairs
        weighted = frozenset(w.op for w in self._backend.weights(quantized, "simulated") if w.qparams is not None)
        task = Task(self._model, quantized, tuple(pairs), tuple(worst), weighted, by, metric, self._threads)
        return sensitivities(
            task, most_ops=most_ops, workers=workers, known=known, note=note, progress=self._progress
        )  # fmt: skip

    def ranking(self, recipe: Recipe, found: Sensitivities) -> list[str]:
        """All ops that can be left in float, those that matter most first, those that were not compared last."""
        named = self.named_ops(recipe)
        possible = set(named)
        return [name for name in dict.fromkeys([*found.ranking, *named]) if name in possible]
