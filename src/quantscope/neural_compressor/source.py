"""The float model with the samples that calibrate it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from quantscope import workflows
from quantscope.backends.base import Backend, Model, Ranges
from quantscope.backends.registry import backend_for
from quantscope.calibration import calibrate
from quantscope.neural_compressor import loaders
from quantscope.neural_compressor.model import saved
from quantscope.recipe import Recipe
from quantscope.samples import Samples

_RANKING_SAMPLES = 8


@dataclass
class Source:
    """Quantizes its model by any recipe, with one pass over the samples for each method of calibration.

    `given` is what the user gave, `reference` the same as it was loaded, `prepared` what is quantized.
    """

    backend: Backend
    given: object
    reference: Model
    prepared: Model
    loader: Any
    calibration_samples: int
    ranges: dict[tuple[Any, ...], tuple[Ranges, tuple[str, ...]]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: object, loader: Any, calibration_samples: int) -> Source:
        """The source for a model that some backend reads.

        Raises:
            ModelError: none does.
        """
        backend = backend_for(model)
        reference = backend.load(model)
        return cls(backend, model, reference, backend.prepare(reference), loader, calibration_samples)

    def samples(self, start: int, stop: int) -> Samples:
        """The samples of the loader from number `start` up to `stop`."""
        return loaders.samples_of(self.loader, self.reference.graph.inputs, start=start, stop=stop)

    def quantize(self, recipe: Recipe) -> Model:
        """The model quantized by this recipe."""
        key = (recipe.calibration, recipe.activations.bits)
        if key not in self.ranges:
            # Of all tensors, so that a recipe with other ops in float needs no pass of its own.
            everywhere = replace(recipe, rules=(), op_types=None)
            batches = self.samples(0, self.calibration_samples).batches(self._batch_size())
            self.ranges[key] = calibrate(self.backend, self.prepared, everywhere, batches)
        ranges, notes = self.ranges[key]
        quantized = self.backend.quantize(self.prepared, recipe, ranges)
        return replace(quantized, notes=(*quantized.notes, *notes))

    def ranked(self, quantized: Model, recipe: Recipe) -> list[str]:
        """The ops that have codes, those with the largest isolated error first, then those that were not compared."""
        with saved(quantized) as path:
            diagnosis = workflows.diagnose(
                self.given, path, data=self.samples(0, _RANKING_SAMPLES), budget_samples=_RANKING_SAMPLES
            )
        errors: dict[str, float] = {}
        for row in diagnosis.activations:
            if row.is_quantized:
                known = [db for db in (row.isolated_sqnr_db, row.local_sqnr_db) if not np.isnan(db)]
                errors[row.op] = min(errors.get(row.op, np.inf), *known[:1] or [-np.inf])
        prepared = self.prepared.graph
        in_float = self.backend.check(self.prepared, recipe.without_unmatched(prepared)[0]).in_float
        # A recipe names ops of the user's model; preparation has folded some of them.
        ops = [op.name for op in self.reference.graph.ops if op.name in prepared.by_name and op.name not in in_float]
        return sorted(ops, key=lambda op: errors.get(op, np.inf))

    def _batch_size(self) -> int:
        """What the model's inputs fix, else what the loader says, else 1."""
        first = [tensor.shape[0] for tensor in self.reference.graph.inputs if tensor.shape]
        fixed = [size for size in first if isinstance(size, int) and size > 0]
        own = getattr(self.loader, "batch_size", None)
        return min(fixed) if fixed else own if isinstance(own, int) and own > 0 else 1
