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
from quantscope.errors import OutputError
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
        """The ONNX model, as a `ModelProto` of its own that holds all weights."""
        return message_of(self._model)

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
        """The model's graph."""
        return self.model.graph

    def nodes(self) -> Any:
        """The graph's nodes."""
        return self.model.graph.node

    def initializer(self) -> Any:
        """The graph's constants."""
        return self.model.graph.initializer

    def input(self) -> list[str]:
        """The names of the model's inputs."""
        return [tensor.name for tensor in self.model.graph.input]

    def output(self) -> list[str]:
        """The names of the model's outputs."""
        return [tensor.name for tensor in self.model.graph.output]


def message_of(model: Model) -> Any:
    """A copy of the model as its framework's own message, with all weights in it."""
    return model.handle.model.with_weights()


@contextmanager
def as_given_to_user(model: Model) -> Iterator[Any]:
    """What an `eval_func` gets: the message, or the path of a file where it is more than a message can hold."""
    portable = backend(model.backend).portable(model)
    if portable.handle.model.external:
        with saved(model) as path:
            yield str(path)
    else:
        shared = portable.handle.model is model.handle.model
        yield message_of(model) if shared else portable.handle.model.proto


@contextmanager
def saved(model: Model) -> Iterator[Path]:
    """A file of the model, for as long as the context lasts."""
    with TemporaryDirectory(prefix="quantscope-") as folder:
        own = backend(model.backend)
        path = Path(folder) / f"model{own.suffix}"
        own.save(model, path)
        yield path
