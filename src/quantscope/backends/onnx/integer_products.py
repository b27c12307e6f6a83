"""The products that ONNX Runtime computes from codes, read from the graph that really runs."""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx
from onnx import TensorProto

from quantscope.backends.base import IntegerProduct
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.float_view import OP_SUFFIX
from quantscope.graph import Graph

# By op type: the operand with the zero point of the activations, and the one with the weight's codes. The former tells
# the type of the activations' codes; what quantizes at run time gives uint8 (ONNX: DynamicQuantizeLinear).
_STATIC: Mapping[str, tuple[int, int]] = {"QLinearConv": (2, 3), "QLinearMatMul": (2, 3), "QGemm": (2, 3)}
_DYNAMIC: Mapping[str, int] = {
    "MatMulInteger": 1, "ConvInteger": 1, "MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1,
}  # fmt: skip
# Added to the name of an op whose layout ONNX Runtime changed.
_TOKEN = re.compile(r"_token_\d+$")


def integer_products(deployed: OnnxModel, simulated: Graph) -> list[IntegerProduct]:
    """The products of this graph with constant weights, by the names of their ops in the simulated float view.

    One that has no op there keeps the name it runs under.
    """
    kinds = {tensor.name: tensor.data_type for tensor in deployed.proto.graph.initializer}
    found = []
    for node in deployed.proto.graph.node:
        dynamic = node.op_type in _DYNAMIC
        if not dynamic and node.op_type not in _STATIC:
            continue
        zero_point, weight = (None, _DYNAMIC[node.op_type]) if dynamic else _STATIC[node.op_type]
        activations = TensorProto.UINT8 if zero_point is None else kinds.get(node.input[zero_point], 0)
        name = next((n for n in _names(node) if n in simulated.by_name), node.name)
        if node.input[weight] in kinds:
            found.append(IntegerProduct(name, _dtype(activations), _dtype(kinds[node.input[weight]]), dynamic))
    return found


def _dtype(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()


def _names(node: onnx.NodeProto) -> tuple[str, str]:
    name = node.name.removesuffix(OP_SUFFIX)
    return name, _TOKEN.sub("", node.name).removesuffix(OP_SUFFIX)
