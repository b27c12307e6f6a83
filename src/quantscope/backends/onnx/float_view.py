"""Looks at a quantized ONNX model as if nothing had been quantized, and says where each tensor can be observed.

QDQ models put QuantizeLinear and DequantizeLinear around ordinary ops; QOperator models have ops of their own
(QLinearConv) that read and write codes. Both become ordinary ops on ordinary tensor names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.sessions import BLOCKED_DOMAIN
from quantscope.backends.onnx.structure import graph_of
from quantscope.graph import Graph, Op, Tensor
from quantscope.qparams import PerBlock, PerChannel, PerTensor, QParams, QuantSpec
from quantscope.quantized import EncodedTensor, FloatView, Weight

_CODE_BITS = {
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
    TensorProto.UINT16: "uint16",
    TensorProto.INT16: "int16",
    TensorProto.UINT4: "uint4",
    TensorProto.INT4: "int4",
    TensorProto.INT32: "int32",
}


_HALVES = frozenset((TensorProto.FLOAT16, TensorProto.BFLOAT16))
_FLOATS = frozenset((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE))


@dataclass(frozen=True)
class IntegerOp:
    """Where an op on codes keeps things: indices into its inputs.

    `operands` are (codes, scale, zero point) triples; `output` is the (scale, zero point) of what it writes.
    """

    float_type: str
    operands: tuple[tuple[int, int, int], ...]
    output: tuple[int, int]
    bias: int | None = None


_UNARY = ((0, 1, 2),)
_BINARY = ((0, 1, 2), (3, 4, 5))
INTEGER_OPS = {
    "QLinearConv": IntegerOp("Conv", _BINARY, (6, 7), bias=8),
    "QLinearMatMul": IntegerOp("MatMul", _BINARY, (6, 7)),
    "QLinearAdd": IntegerOp("Add", _BINARY, (6, 7)),
    "QLinearMul": IntegerOp("Mul", _BINARY, (6, 7)),
    "QGemm": IntegerOp("Gemm", _BINARY, (7, 8), bias=6),
    "QLinearAveragePool": IntegerOp("AveragePool", _UNARY, (3, 4)),
    "QLinearGlobalAveragePool": IntegerOp("GlobalAveragePool", _UNARY, (3, 4)),
    "QLinearReduceMean": IntegerOp("ReduceMean", _UNARY, (3, 4)),
    "QLinearLeakyRelu": IntegerOp("LeakyRelu", _UNARY, (3, 4)),
    "QLinearSigmoid": IntegerOp("Sigmoid", _UNARY, (3, 4)),
    "QLinearSoftmax": IntegerOp("Softmax", _UNARY, (3, 4)),
    "QLinearWhere": IntegerOp("Where", ((1, 2, 3), (4, 5, 6)), (7, 8)),
}
_CONCAT = "QLinearConcat"
# ONNX Runtime's quantizer marks the codes of tensor t as "t_quantized" in the QOperator form.
_CODES_SUFFIX = "_quantized"
# … and an op on codes as "op_quant".
_OP_SUFFIX = "_quant"


def integer_op(node: onnx.NodeProto) -> IntegerOp | None:
    """How to read an op on codes; None for any other."""
    if node.op_type == _CONCAT:
        return IntegerOp("Concat", tuple((i, i + 1, i + 2) for i in range(2, len(node.input), 3)), (0, 1))
    return INTEGER_OPS.get(node.op_type)


class Constants:
    """The constants of a model by name, read when they are asked for."""

    def __init__(self, model: OnnxModel) -> None:
        self._folder = str(model.folder or "")
        self.tensors = {t.name: t for t in model.proto.graph.initializer}
        for node in model.proto.graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        self.tensors[node.output[0]] = attribute.t

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a constant."""
        return tuple(self.tensors[name].dims)

    def is_float(self, name: str) -> bool:
        """True if a constant's values are real numbers."""
        return self.tensors[name].data_type in _FLOATS

    def array(self, name: str) -> NDArray[Any]:
        """The values of a constant."""
        array: NDArray[Any] = numpy_helper.to_array(self.tensors[name], self._folder)
        return array.astype(np.float32) if self.tensors[name].data_type in _HALVES else array

    def qparams(self, scale: str, zero_point: str, node: onnx.NodeProto | None = None) -> QParams | None:
        """Scale and zero point if both are constant; without a zero point codes are uint8 and it is 0."""
        if scale not in self or (zero_point and zero_point not in self):
            return None
        scales = np.asarray(self.array(scale))
        kind = self.tensors[zero_point].data_type if zero_point else TensorProto.UINT8
        if kind not in _CODE_BITS:
            return None
        zeros = np.asarray(self.array(zero_point)).astype(np.int64) if zero_point else np.zeros(scales.shape, np.int64)
        axis, block = 1, 0
        for attribute in node.attribute if node is not None else ():
            if attribute.name == "axis":
                axis = attribute.i
            elif attribute.name == "block_size":
                block = attribute.i
        granularity: PerTensor | PerChannel | PerBlock = PerTensor()
        if block:
            granularity = PerBlock(axis, block)
        elif scales.size > 1:
            granularity = PerChannel(axis)
        spec = QuantSpec.from_dtype(_CODE_BITS[kind], symmetric=not zeros.any(), granularity=granularity)
        return QParams(scales, np.broadcast_to(zeros, scales.shape), spec)


def float_view(model: OnnxModel, written: OnnxModel | None = None) -> FloatView:
    """The model's graph without its quantization, and where each of its tensors is observed.

    Args:
        model: the model as it is written or, to see what really runs, as ONNX Runtime optimized it.
        written: in the latter case the model as it is written: it knows which real tensor each tensor of codes is.
    """
    reader = _Reader(model, _real_names(written) if written is not None else {})
    graph = graph_of(model.proto)
    by_name = {node.name: node for node in model.proto.graph.node}
    ops = []
    for op in graph.ops:
        node = by_name[op.name]
        stripped = reader.strip(node, op)
        if stripped is not None:
            ops.append(stripped)
    tensors = {**graph.tensors}
    for name in reader.encoded:
        known = graph.tensors.get(name) or graph.tensors.get(reader.encoded[name].codes)
        tensors[name] = Tensor(name, "float32", known.shape if known else None)
    outputs = tuple(Tensor(reader.canonical(t.name), t.dtype, t.shape) for t in graph.outputs)
    encoded = {name: reader.encoded.get(name, EncodedTensor(real=name)) for op in ops for name in op.outputs if name}
    view = Graph(tuple(ops), tensors, graph.inputs, outputs, graph.constants)
    return FloatView(
        view,
        {**{t.name: reader.encoded[t.name] for t in graph.inputs if t.name in reader.encoded}, **encoded},
    )


def _real_names(model: OnnxModel) -> dict[str, str]:
    """The real tensor behind each tensor of codes, and behind each dequantized one."""
    reader = _Reader(model, {})
    by_name = {node.name: node for node in model.proto.graph.node}
    for op in graph_of(model.proto).ops:
        reader.strip(by_name[op.name], op)
    return reader.names


class _Reader:
    """Walks a quantized graph in order and remembers which real tensor each tensor of codes stands for."""

    def __init__(self, model: OnnxModel, names: Mapping[str, str]) -> None:
        self.constants = Constants(model)
        self.names = dict(names)
        self.encoded: dict[str, EncodedTensor] = {}
        self._qparams: dict[str, QParams] = {}
        self._rename_outputs(model.proto)

    def _rename_outputs(self, proto: onnx.ModelProto) -> None:
        """A model output that is dequantized keeps its name; the tensor before its quantization gave it away."""
        outputs = {t.name for t in proto.graph.output}
        quantized = {n.output[0]: n.input[0] for n in proto.graph.node if n.op_type == "QuantizeLinear"}
        for node in proto.graph.node:
            if node.op_type == "DequantizeLinear" and node.output[0] in outputs and node.input[0] in quantized:
                self.names[quantized[node.input[0]]] = node.output[0]

    def canonical(self, name: str) -> str:
        """The real tensor that this one stands for: itself, unless it holds codes or was dequantized."""
        return self.names.get(name, name)

    def strip(self, node: onnx.NodeProto, op: Op) -> Op | None:
        """The op in float terms; None if it only quantizes or dequantizes."""
        if node.op_type == "QuantizeLinear":
            self._quantize(node)
            return None
        if node.op_type == "DequantizeLinear":
            self._dequantize(node)
            return None
        if node.op_type in ("ReorderInput", "ReorderOutput"):
            self._reorder(node)
            return None
        integer = integer_op(node)
        if integer is not None:
            inputs = [node.input[codes] for codes, _, _ in integer.operands]
            if integer.bias is not None and len(node.input) > integer.bias:
                inputs.append(node.input[integer.bias])
            scale, zero_point = (node.input[i] if i < len(node.input) else "" for i in integer.output)
            outputs = [self._codes(node.output[0], self.constants.qparams(scale, zero_point) if scale else None)]
            op_type, name = integer.float_type, op.name.removesuffix(_OP_SUFFIX)
        else:
            # Pooling and reshaping work on codes as they are: what comes out is encoded like what went in.
            inherited = self._qparams.get(node.input[0]) if node.input else None
            inputs, op_type, name = list(node.input), op.op_type, op.name
            outputs = [self._codes(o, inherited) if inherited is not None else o for o in node.output if o]
            if node.domain == BLOCKED_DOMAIN:
                self.encoded |= {name: EncodedTensor() for name in map(self.canonical, outputs)}
        return Op(
            name, op_type, tuple(map(self.canonical, inputs)), tuple(map(self.canonical, outputs)), op.scope,
            op.attributes,
        )  # fmt: skip

    def _reorder(self, node: onnx.NodeProto) -> None:
        """Into blocks of channels and back: the same tensor, which can be read outside of the blocks alone."""
        real = self.canonical(node.input[0])
        self.names[node.output[0]] = real
        if node.op_type == "ReorderOutput":
            self.encoded[real] = EncodedTensor(real=node.output[0])

    def _codes(self, name: str, qparams: QParams | None) -> str:
        """Note that this tensor holds codes; returns the name of the real tensor."""
        if qparams is None:
            return name
        real = self.names.get(name, name.removesuffix(_CODES_SUFFIX))
        self._qparams[name] = qparams
        self.names[name] = real
        self.encoded[real] = EncodedTensor(codes=name, qparams=qparams)
        return real

    def _quantize(self, node: onnx.NodeProto) -> None:
        qparams = self.constants.qparams(node.input[1], node.input[2] if len(node.input) > 2 else "", node)
        real = self.canonical(node.input[0])
        self.names[node.output[0]] = real
        if qparams is not None:
            self._qparams[node.output[0]] = qparams
            # Of several quantizations of one tensor the first is its own; later ones rescale it for a consumer.
            self.encoded.setdefault(real, EncodedTensor(codes=node.output[0], real=real, qparams=qparams))

    def _dequantize(self, node: onnx.NodeProto) -> None:
        real = self.canonical(node.input[0])
        self.names[node.output[0]] = real if node.input[0] in self.names else node.output[0]
        found = self.encoded.get(real)
        if found is not None and found.codes == node.input[0]:
            self.encoded[real] = EncodedTensor(found.codes, node.output[0], found.qparams)


# The operand that is a weight, and the axis of its output channels, by float op type.
_CHANNEL_AXES = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gather": 0}


def channel_axis(op_type: str, attributes: Any, rank: int) -> int | None:
    """The axis of a weight's output channels; None where the notion does not apply."""
    if rank < 2:
        return None
    if op_type == "Gemm":
        return 0 if attributes.get("transB", 0) else 1
    axis = _CHANNEL_AXES.get(op_type)
    return None if axis is None else axis % rank


# Ops whose third operand is added, once per channel, to what the others gave.
_BIASED = frozenset(("Conv", "ConvTranspose", "Gemm", "LayerNormalization", "InstanceNormalization"))


def weights(model: OnnxModel) -> Iterator[Weight]:
    """The float constants that ops compute with, dequantized where they are quantized; scalars are left out."""
    constants = Constants(model)
    dequantized = {node.output[0]: node for node in model.proto.graph.node if node.op_type == "DequantizeLinear"}
    attributes = {op.name: op.attributes for op in graph_of(model.proto).ops}
    for node in model.proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Constant"):
            continue
        integer = integer_op(node)
        op_type = integer.float_type if integer else node.op_type
        operands = (
            [(node.input[c], node.input[s], node.input[z], None) for c, s, z in integer.operands]
            if integer
            else [_dequantized_operand(name, dequantized) for name in node.input]
        )
        for position, (codes, scale, zero_point, dequantize) in enumerate(operands):
            if codes not in constants:
                continue
            shape, is_float = constants.shape(codes), constants.is_float(codes)
            if math.prod(shape) < 2 or not (scale or is_float):
                continue
            axis = channel_axis(op_type, attributes[node.name], len(shape))
            qparams = constants.qparams(scale, zero_point, dequantize) if scale else None
            if scale and qparams is None:
                continue
            if qparams is not None and dequantize is None and not qparams.per_tensor:
                # An op on codes has no axis attribute: its scales belong to its output channels.
                qparams = replace(qparams, spec=replace(qparams.spec, granularity=PerChannel(axis or 0)))
            yield Weight(
                node.name.removesuffix(_OP_SUFFIX) if integer else node.name,
                codes.removesuffix(_CODES_SUFFIX),
                shape,
                partial(_real_values, constants, codes, qparams),
                "bias" if position == 2 and op_type in _BIASED else "weight",
                axis,
                qparams,
            )


def _real_values(constants: Constants, name: str, qparams: QParams | None) -> NDArray[Any]:
    values = constants.array(name)
    return values if qparams is None else qparams.dequantize(values)


def _dequantized_operand(
    name: str, dequantized: dict[str, onnx.NodeProto]
) -> tuple[str, str, str, onnx.NodeProto | None]:
    node = dequantized.get(name)
    if node is None:
        return name, "", "", None
    return node.input[0], node.input[1], node.input[2] if len(node.input) > 2 else "", node
