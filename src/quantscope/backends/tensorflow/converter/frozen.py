"""A model without variables, whatever format it came in, and the framework's own way to run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Shape = tuple[int | None, ...]
Run = Callable[[Sequence[NDArray[Any]]], list[NDArray[Any]]]

# What TensorFlow writes above the reason.
_HEADING = "Graph execution error:"


@dataclass(frozen=True)
class Port:
    """An input or output: its name in the signature, the tensor in the graph, type and shape.

    Of a shape that is not known even in its length, `shape` is None.
    """

    name: str
    tensor: str
    dtype: Any
    shape: Shape | None


@dataclass(frozen=True, eq=False)
class Frozen:
    """The graph with its constants. `run` computes the outputs for inputs, in this order, with the model as it was
    loaded, before it was frozen."""

    graph: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    run: Run


def first_line(error: BaseException | str) -> str:
    """What went wrong, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() not in ("", _HEADING)]
    return lines[0][:300] if lines else type(error).__name__


def with_batch(shape: Shape) -> Shape:
    """An input's shape in the converted model: an open batch size is 1.

    With it open LiteRT would compute shapes at run time, and leave the ops behind that to its slow kernels; and lists
    of tensors, which recurrent layers are made of, cannot be converted.
    """
    return tuple(1 if axis == 0 and size is None else size for axis, size in enumerate(shape))


def port(name: str, tensor: Any) -> Port:
    """A tensor of a graph as an input or output of the model."""
    shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
    return Port(name, tensor.name, tensor.dtype, shape)
