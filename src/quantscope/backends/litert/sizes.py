"""How large the tensors of a model are for given inputs, and how many products its ops make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.litert import division, interpreters, schema
from quantscope.backends.litert.handle import Handle
from quantscope.graph import Graph


def shapes(handle: Handle, inputs: Mapping[str, NDArray[Any]]) -> list[tuple[int, ...]]:
    """The shape of each tensor by its number, for these inputs.

    LiteRT finds them when it makes room for the tensors; what depends on values is known after a run.
    """
    made = interpreters.interpreter(division.in_float(handle.model.content), threads=1, plain=True)
    places = handle.written.inputs
    given = list(inputs.values()) if not set(places) <= set(inputs) else [inputs[name] for name in places]
    for place, array in zip(places.values(), given, strict=True):
        made.resize_tensor_input(place.tensor, array.shape, strict=False)
    made.allocate_tensors()
    details = {d["index"]: d for d in made.get_tensor_details()}
    if any(_is_open(handle, i, details[i]["shape"]) for i in range(len(handle.structure.tensors)) if i in details):
        runner = interpreters.InterpreterRunner(made, places, {})
        runner.run(inputs)
        details = {d["index"]: d for d in made.get_tensor_details()}
    return [tuple(details[i]["shape"].tolist()) if i in details else () for i in range(len(handle.structure.tensors))]


def _is_open(handle: Handle, tensor: int, shape: NDArray[np.int32]) -> bool:
    """True for a tensor that an op writes and that has no size yet."""
    return (not shape.size and tensor in handle.reading.written.values()) or bool((shape < 0).any())


def element_counts(handle: Handle, tensors: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """The number of elements of each of these tensors for these inputs.

    Raises:
        DataError: the model fails on these inputs.
    """
    found = shapes(handle, inputs)
    counts = {}
    for name in dict.fromkeys(tensors):
        place = handle.reading.place(name)
        counts[name] = math.prod(found[place.tensor]) if place is not None else 0
    return counts


def multiply_adds(handle: Handle, graph: Graph, inputs: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """How many multiply-adds each op makes for these inputs; 0 where products are not what it is about."""
    found = shapes(handle, inputs)
    structure = handle.structure
    result = {}
    for name, native, op in zip(structure.op_names, structure.native, structure.operators, strict=True):
        read = [found[i] if i >= 0 else () for i in schema.indices(op.inputs)]
        written = [found[i] for i in schema.indices(op.outputs)]
        result[name] = _multiply_adds(native, read, written, graph.by_name[name].attributes)
    return result


def _multiply_adds(  # noqa: PLR0911 - a line for each kind of op
    native: str, read: Sequence[tuple[int, ...]], written: Sequence[tuple[int, ...]], attributes: Mapping[str, Any]
) -> int:
    match native:
        case "CONV_2D":
            return math.prod(written[0]) * math.prod(read[1][1:])
        case "DEPTHWISE_CONV_2D":
            return math.prod(written[0]) * math.prod(read[1][1:3])
        case "CONV_3D":
            return math.prod(written[0]) * math.prod(read[1][:4])
        case "TRANSPOSE_CONV":
            return math.prod(read[2]) * math.prod(read[1][:3])
        case "FULLY_CONNECTED":
            return math.prod(written[0]) * read[1][-1]
        case "BATCH_MATMUL":
            return math.prod(written[0]) * read[0][-2 if attributes.get("adjX") else -1]
        case "UNIDIRECTIONAL_SEQUENCE_LSTM":
            matrices = sum(math.prod(shape) for shape in read[1:9])
            return math.prod(read[0][:2]) * matrices
    return 0
