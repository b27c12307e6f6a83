"""What `quantization.fit` returns, and models in the form in which Neural Compressor hands them to the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from quantscope.backends.base import Model
from quantscope.backends.registry import backend
from quantscope.errors import OutputError, UnsupportedError
from quantscope.recipe import Recipe

if TYPE_CHECKING:
    from quantscope.diagnosis import Diagnosis
    from quantscope.fallback.search import Search


class QuantizedModel:
    """A quantized model with how it came about.

    `recipe` says what each op got; `diagnosis` is there if the configuration asked for one. Where the model was
    evaluated, `tuning` has the accuracy of both models and all trials.
    """

    def __init__(
        self, model: Model, recipe: Recipe, *, tuning: Search | None = None, diagnosis: Diagnosis | None = None
    ) -> None:
        self._model = model
        self.recipe = recipe
        self.tuning = tuning
        self.diagnosis = diagnosis

    @cached_property
    def model(self) -> Any:
        """The model with all its weights: a `ModelProto` of its own, or the bytes of a .tflite file."""
        return backend(self._model.backend).memory_form(self._model)

    def save(self, root: str | Path) -> None:
        """Write the model to this file; it appears whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        path = Path(root)
        if path.is_dir():
            raise OutputError(f"{path} is a folder", accepted="the name of a file, such as int8.onnx")
        if not path.parent.is_dir():
            raise OutputError(f"no such folder: {path.parent}", next_step="create it first")
        writer = backend(self._model.backend)
        # What the user changed in the message is part of the model, as in Neural Compressor.
        writer.save(writer.load(self.model) if "model" in self.__dict__ else self._model, path)

    def graph(self) -> Any:
        """An ONNX model's graph.

        Raises:
            UnsupportedError: it is no ONNX model.
        """
        if not hasattr(self.model, "graph"):
            raise UnsupportedError(
                "a .tflite model has no graph to be changed",
                accepted="graph(), nodes() and initializer() of an ONNX model",
                next_step="run it: q_model.model is what Interpreter(model_content=...) takes",
            )
        return self.model.graph

    def nodes(self) -> Any:
        """The graph's nodes."""
        return self.graph().node

    def initializer(self) -> Any:
        """The graph's constants."""
        return self.graph().initializer

    def input(self) -> list[str]:
        """The names of the model's inputs."""
        tensors = self.model.graph.input if hasattr(self.model, "graph") else self._model.graph.inputs
        return [tensor.name for tensor in tensors]

    def output(self) -> list[str]:
        """The names of the model's outputs."""
        tensors = self.model.graph.output if hasattr(self.model, "graph") else self._model.graph.outputs
        return [tensor.name for tensor in tensors]


@contextmanager
def as_given_to_user(model: Model) -> Iterator[Any]:
    """What an `eval_func` gets: the model in memory, or the path of a file where that could not be run."""
    own = backend(model.backend)
    if own.fits_in_memory_form(model):
        yield own.memory_form(model)
        return
    with saved(model) as path:
        yield str(path)


@contextmanager
def saved(model: Model) -> Iterator[Path]:
    """A file of the model, for as long as the context lasts."""
    with TemporaryDirectory(prefix="quantscope-") as folder:
        own = backend(model.backend)
        path = Path(folder) / f"model{own.suffix}"
        own.save(model, path)
        yield path
