"""The float model with the samples that calibrate it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quantscope.backends.base import Backend, Model
from quantscope.backends.registry import backend_for
from quantscope.neural_compressor import loaders
from quantscope.recipe import Recipe
from quantscope.samples import Samples
from quantscope.workflows.quantizer import Quantizer


@dataclass(frozen=True)
class Source:
    """`given` is what the user gave, `reference` the same as it was loaded; `quantizer` makes int8 models of it."""

    backend: Backend
    given: object
    reference: Model
    loader: Any
    calibration_samples: int
    quantizer: Quantizer

    @classmethod
    def of(cls, model: object, loader: Any, calibration_samples: int) -> Source:
        """The source for a model that some backend reads.

        Raises:
            ModelError: none does.
        """
        backend = backend_for(model)
        reference = backend.load(model)
        samples = loaders.samples_of(loader, reference.graph.inputs, stop=calibration_samples)
        size = _batch_size(reference, loader)
        quantizer = Quantizer(backend, reference, samples, range(calibration_samples), batch_size=size)
        return cls(backend, model, reference, loader, calibration_samples, quantizer)

    def samples(self, start: int, stop: int) -> Samples:
        """The samples of the loader from number `start` up to `stop`."""
        return loaders.samples_of(self.loader, self.reference.graph.inputs, start=start, stop=stop)

    def ranked(self, recipe: Recipe) -> list[str]:
        """The ops that a recipe quantizes, in the order of their effect on the output for the calibration samples."""
        found = self.quantizer.sensitivities(recipe, range(self.calibration_samples))
        return self.quantizer.ranking(recipe, found)


def _batch_size(model: Model, loader: Any) -> int:
    """What the model's inputs fix, else what the loader says, else 1."""
    first = [tensor.shape[0] for tensor in model.graph.inputs if tensor.shape]
    fixed = [size for size in first if isinstance(size, int) and size > 0]
    own = getattr(loader, "batch_size", None)
    return min(fixed) if fixed else own if isinstance(own, int) and own > 0 else 1
