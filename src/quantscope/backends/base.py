"""What a framework must offer to be diagnosed. Only the core types and numpy cross this line.

The Protocol exists so that pairing, statistics and diagnosis are written once: whatever runs the model, they see a
graph, tensors by name, and codes with the scale and zero point that give them meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from quantscope.graph import Graph
from quantscope.quantized import FloatView, Weight
from quantscope.recipe import Recipe

Ranges = Mapping[str, tuple[float, float]]
"""Tensor name → the lowest and highest value that its codes shall represent."""

Trace = Literal["optimized", "exact", "deployed"]
"""Which graph runs: the model's, optimized around the tensors that are exposed; the model's, op by op as it is written;
or the one that the framework makes of it for production, exposed only after that optimization."""


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model: its graph, and a handle that its backend alone understands.

    `path` is the file it came from, None for a model that was never a file; `notes` say what loading or quantizing
    it could not do.
    """

    backend: str
    graph: Graph
    handle: Any
    path: Path | None = None
    notes: tuple[str, ...] = ()


class Runner(Protocol):
    """A model ready to run with some of its tensors exposed."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The exposed tensors and the model's outputs by name, for one batch."""
        ...


class Backend(Protocol):
    """A framework. A capability it lacks raises `UnsupportedError`."""

    name: str

    def accepts(self, source: object) -> bool:
        """True if `load` can read this path or object."""
        ...

    def load(self, source: object) -> Model:
        """The model.

        Raises:
            ModelError: the source is missing, damaged or of another kind.
        """
        ...

    def save(self, model: Model, path: Path) -> None:
        """Write the model; the file appears whole or not at all."""
        ...

    def prepare(self, model: Model) -> Model:
        """The float model as quantization will see it: shapes inferred, constants and batch normalization folded."""
        ...

    def tensors_to_calibrate(self, model: Model, recipe: Recipe) -> Sequence[str]:
        """The tensors whose ranges `quantize` needs; `model` is prepared."""
        ...

    def quantize(self, model: Model, recipe: Recipe, ranges: Ranges) -> Model:
        """The quantized model; `model` is prepared."""
        ...

    def float_view(self, model: Model, trace: Trace) -> FloatView:
        """The graph that this trace runs, without its quantization."""
        ...

    def weights(self, model: Model, trace: Trace = "exact") -> Iterable[Weight]:
        """The float constants that ops of this trace's graph compute with, dequantized where they are quantized."""
        ...

    def open(
        self, model: Model, tensors: Sequence[str], *, trace: Trace, threads: int
    ) -> AbstractContextManager[Runner]:
        """A runner that exposes these tensors of this trace's graph; 0 threads means all cores."""
        ...
