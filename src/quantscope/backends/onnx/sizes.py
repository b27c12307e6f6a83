"""How large the tensors of a model are for given inputs, without holding any of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper

from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.sessions import SessionRunner, session, session_options
from quantscope.backends.onnx.structure import inferred, without_weights

_PREFIX = "shape of "


def element_counts(
    model: OnnxModel, tensors: Sequence[str], inputs: Mapping[str, NDArray[Any]], *, threads: int = 0
) -> dict[str, int]:
    """The number of elements of each of these tensors for these inputs.

    What the shapes of the inputs do not tell, one run of the model does, which gives shapes instead of tensors.

    Raises:
        DataError: the model fails on these inputs.
    """
    graph = model.proto.graph
    known = {t.name: math.prod(t.dims) for t in graph.initializer}
    # Sequences and maps, as some classifiers give them, are no tensors.
    kinds = {value.name: value.type.WhichOneof("value") for value in (*graph.value_info, *graph.output)}
    known |= {name: 0 for name, kind in kinds.items() if kind not in (None, "tensor_type")}
    known |= _by_inference(model, inputs)
    known |= {name: int(array.size) for name, array in inputs.items()}
    wanted = dict.fromkeys(tensors)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        known |= _by_running(model, unknown, inputs, threads)
    return {name: known[name] for name in wanted}


def _by_inference(model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    proto = without_weights(model.proto)
    # Shapes that the model states may be those of another batch.
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in proto.graph.input:
        if value.name in inputs:
            shape = helper.make_tensor_value_info("", 0, inputs[value.name].shape).type.tensor_type.shape
            value.type.tensor_type.shape.CopyFrom(shape)
    found = inferred(proto, data_prop=True)
    if found is None:
        return {}
    return dict(_known((*found.graph.value_info, *found.graph.output)))


def _known(values: Iterable[onnx.ValueInfoProto]) -> Iterable[tuple[str, int]]:
    for value in values:
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            yield value.name, math.prod(d.dim_value for d in kind.shape.dim)


def _by_running(
    model: OnnxModel, tensors: Collection[str], inputs: Mapping[str, NDArray[Any]], threads: int
) -> dict[str, int]:
    counting = model.copy()
    graph = counting.proto.graph
    del graph.output[:]
    for name in tensors:
        # Not Size, which ONNX Runtime has for some types only.
        graph.node.append(helper.make_node("Shape", [name], [_PREFIX + name]))
        graph.output.append(helper.make_tensor_value_info(_PREFIX + name, onnx.TensorProto.INT64, [None]))
    shapes = SessionRunner(session(counting, session_options(threads))).run(inputs)
    return {name.removeprefix(_PREFIX): math.prod(shape.tolist()) for name, shape in shapes.items()}
