"""Sees to it that ops which a recipe leaves in float stay in float when ONNX Runtime runs them.

Where an op's input is dequantized, ONNX Runtime rounds the float weight of a Conv, ConvTranspose or Gemm to int8
itself, per tensor, and runs the op on codes (its optimizer WeightBiasQuantization, seen in 1.32): the very error that a
fallback is to avoid. It does so only if the bias is a float constant, or there is none. So the bias is written as
32-bit codes with a scale so fine that a float32 cannot tell the difference.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# An axis of the weight for each output channel, and where the bias stands.
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1}
_BIAS = 2
# Codes go up to here, which leaves room for rounding.
_HIGHEST_CODE = 2**30


def keep_in_float(proto: onnx.ModelProto) -> None:
    """Write the biases of ops with a float weight and a dequantized input as codes."""
    constants = {t.name: t for t in proto.graph.initializer}
    dequantized = {node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    nodes: list[onnx.NodeProto] = []
    replaced: set[str] = set()
    for node in proto.graph.node:
        weight = constants.get(node.input[1]) if node.op_type in _CHANNEL_AXIS else None
        if weight is not None and weight.data_type == TensorProto.FLOAT and node.input[0] in dequantized:
            bias = _bias(node, weight, constants)
            if bias is not None:
                replaced.update(node.input[_BIAS:])
                nodes.append(_encoded(proto, node, bias))
        nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    _drop(proto.graph, replaced)


def _bias(
    node: onnx.NodeProto, weight: onnx.TensorProto, constants: Mapping[str, onnx.TensorProto]
) -> NDArray[np.float64] | None:
    """The values of the bias, zeros where there is none; None for one that ONNX Runtime leaves alone anyway."""
    if len(node.input) > _BIAS and node.input[_BIAS]:
        found = constants.get(node.input[_BIAS])
        if found is None or found.data_type != TensorProto.FLOAT or len(found.dims) != 1:
            return None
        values: NDArray[np.float64] = numpy_helper.to_array(found).astype(np.float64)
        return values
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    axis = 0 if attributes.get("transB") else _CHANNEL_AXIS[node.op_type]
    groups = attributes.get("group", 1) if node.op_type == "ConvTranspose" else 1
    return np.zeros(weight.dims[axis] * groups)


def _encoded(proto: onnx.ModelProto, node: onnx.NodeProto, bias: NDArray[np.float64]) -> onnx.NodeProto:
    """Let the op read its bias from codes; returns the node that dequantizes them."""
    scale = np.float32(np.abs(bias).max(initial=0) / _HIGHEST_CODE) or np.float32(1)
    codes = np.rint(bias / np.float64(scale)).astype(np.int32)
    name = f"{node.name}_bias"
    constants = {"quantized": codes, "scale": np.array(scale, np.float32), "zero_point": np.array(0, np.int32)}
    proto.graph.initializer.extend(
        numpy_helper.from_array(values, f"{name}_{key}") for key, values in constants.items()
    )
    while len(node.input) <= _BIAS:
        node.input.append("")
    node.input[_BIAS] = f"{name}_DequantizeLinear_Output"
    return helper.make_node(
        "DequantizeLinear", [f"{name}_{key}" for key in constants], [node.input[_BIAS]], f"{name}_DequantizeLinear"
    )


def _drop(graph: onnx.GraphProto, names: set[str]) -> None:
    """Remove those of the constants that nothing reads any more."""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for tensor in [t for t in graph.initializer if t.name in names - read]:
        graph.initializer.remove(tensor)
