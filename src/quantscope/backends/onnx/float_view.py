"""Looks at a quantized ONNX model as if nothing had been quantized, and says where each tensor can be observed.

QDQ models put QuantizeLinear and DequantizeLinear around ordinary ops; QOperator models have ops of their own
(QLinearConv) that read and write codes. Both become ordinary ops on ordinary tensor names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx

from quantscope.backends.onnx.constants import Constants
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.sessions import BLOCKED_DOMAIN
from quantscope.backends.onnx.structure import graph_of
from quantscope.graph import Graph, Op, Tensor
from quantscope.qparams import QParams
from quantscope.quantized import EncodedTensor, FloatView


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
INTEGER_PRODUCTS = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}
# Products with float activations and a quantized weight: where the weight's codes, scale and zero point are.
WEIGHT_OPERANDS = {"DynamicQuantizeMatMul": (1, 2, 3), "MatMulIntegerToFloat": (1, 3, 5), "MatMulNBits": (1, 2, 3)}
# ONNX Runtime's quantizer marks the codes of tensor t as "t_quantized" in the QOperator form.
CODES_SUFFIX = "_quantized"
# … and an op on codes as "op_quant".
OP_SUFFIX = "_quant"

_NO_NAMES: Mapping[str, str] = MappingProxyType({})


def integer_op(node: onnx.NodeProto) -> IntegerOp | None:
    """How to read an op on codes; None for any other."""
    if node.op_type == _CONCAT:
        return IntegerOp("Concat", tuple((i, i + 1, i + 2) for i in range(2, len(node.input), 3)), (0, 1))
    return INTEGER_OPS.get(node.op_type)


def float_view(model: OnnxModel, names: Mapping[str, str] = _NO_NAMES) -> FloatView:
    """The model's graph without its quantization, and where each of its tensors is observed.

    Args:
        model: the model as it is written or, to see what really runs, as it was rewritten.
        names: in the latter case the real tensor that each tensor stands for whose own name no longer tells.
    """
    reader = _Reader(model, names)
    ops = reader.ops()
    graph = reader.graph
    tensors = {**graph.tensors}
    for name in reader.encoded:
        known = graph.tensors.get(name) or graph.tensors.get(reader.encoded[name].codes)
        tensors[name] = Tensor(name, "float32", known.shape if known else None)
    outputs = tuple(Tensor(reader.canonical(t.name), t.dtype, t.shape) for t in graph.outputs)
    written = {name: EncodedTensor(real=reader.computed.get(name, name)) for op in ops for name in op.outputs if name}
    encoded = {name: reader.encoded.get(name, plain) for name, plain in written.items()}
    view = Graph(tuple(ops), tensors, graph.inputs, outputs, graph.constants)
    return FloatView(
        view,
        {**{t.name: reader.encoded[t.name] for t in graph.inputs if t.name in reader.encoded}, **encoded},
    )


def real_names(model: OnnxModel) -> dict[str, str]:
    """The real tensor behind each tensor of codes, and behind each dequantized one."""
    reader = _Reader(model, _NO_NAMES)
    reader.ops()
    return reader.names


def computed_names(model: OnnxModel, names: Mapping[str, str] = _NO_NAMES) -> dict[str, str]:
    """The tensor that an op of the model writes for each that the ops of its float view write."""
    reader = _Reader(model, names)
    reader.ops()
    return reader.computed


class _Reader:
    """Walks a quantized graph in order and remembers which real tensor each tensor of codes stands for."""

    def __init__(self, model: OnnxModel, names: Mapping[str, str]) -> None:
        self.graph = graph_of(model)
        self.constants = Constants(model)
        self.names = dict(names)
        self.encoded: dict[str, EncodedTensor] = {}
        self.computed: dict[str, str] = {}
        self._qparams: dict[str, QParams] = {}
        self._scales: set[str] = set()
        self._products: dict[str, Op] = {}
        self._nodes = {node.name: node for node in model.proto.graph.node}
        self._rename_outputs(model.proto)

    def _rename_outputs(self, proto: onnx.ModelProto) -> None:
        """A model output that is dequantized keeps its name; the tensor before its quantization gave it away."""
        outputs = {t.name for t in proto.graph.output}
        quantized = {n.output[0]: n.input[0] for n in proto.graph.node if n.op_type == "QuantizeLinear"}
        for node in proto.graph.node:
            if node.op_type == "DequantizeLinear" and node.output[0] in outputs and node.input[0] in quantized:
                self.names.setdefault(quantized[node.input[0]], node.output[0])

    def canonical(self, name: str) -> str:
        """The real tensor that this one stands for: itself, unless it holds codes or was dequantized."""
        return self.names.get(name, name)

    def ops(self) -> list[Op]:
        """The ops in float terms; once they are read, so is where each tensor is."""
        return [op for written in self.graph.ops if (op := self._read(self._nodes[written.name], written)) is not None]

    def _read(self, node: onnx.NodeProto, written: Op) -> Op | None:
        """The op in float terms: a quantization that clips what has codes already is the activation it took over."""
        return self._clipping(node, written) or self._strip(node, written)

    def _clipping(self, node: onnx.NodeProto, written: Op) -> Op | None:
        """A second quantization as the Clip that it is; None if it only rescales, or is no second one.

        ONNX Runtime removes a Relu or Clip whose work the quantization behind it does.
        """
        real = self.canonical(node.input[0]) if node.op_type == "QuantizeLinear" else ""
        first = self.encoded.get(real, EncodedTensor()).qparams
        if first is None:
            return None
        second = self.constants.qparams(node.input[1], node.input[2] if len(node.input) > 2 else "", node)
        if second is None or not _clips(first, second):
            return None
        clipped = node.output[0]
        self.names[clipped] = clipped
        self._qparams[clipped] = second
        self.encoded[clipped] = EncodedTensor(codes=clipped, qparams=second)
        self.computed[clipped] = node.input[0]
        return Op(written.name, "Clip", (real,), (clipped,), written.scope)

    def _strip(self, node: onnx.NodeProto, op: Op) -> Op | None:
        """The op in float terms; None if it only quantizes, dequantizes or reorders."""
        handler = _STRIPPED.get(node.op_type)
        if handler is not None:
            handler(self, node)
            return None
        if self._is_dynamic(node, op):
            return None
        name, op_type, outputs = op.name.removesuffix(OP_SUFFIX), op.op_type, list(op.outputs)
        inputs = list(node.input)
        integer, product = integer_op(node), self._product(node)
        if product is not None:
            name, op_type, inputs = product.name.removesuffix(OP_SUFFIX), product.op_type, list(product.inputs)
        elif node.op_type in WEIGHT_OPERANDS:
            op_type, inputs = "MatMul", inputs[:2]
        elif integer is not None:
            inputs = [node.input[codes] for codes, _, _ in integer.operands]
            for operand in integer.operands:
                self._read_codes(*(node.input[i] if i < len(node.input) else "" for i in operand))
            if integer.bias is not None and len(node.input) > integer.bias:
                inputs.append(node.input[integer.bias])
            scale, zero_point = (node.input[i] if i < len(node.input) else "" for i in integer.output)
            outputs = [self._codes(node.output[0], self.constants.qparams(scale, zero_point) if scale else None)]
            op_type = integer.float_type
        else:
            # Pooling and reshaping work on codes as they are: what comes out is encoded like what went in.
            inherited = self._qparams.get(node.input[0]) if node.input else None
            outputs = [self._inherited(o, inherited) if inherited is not None else o for o in node.output if o]
            if node.domain == BLOCKED_DOMAIN:
                self.encoded |= {name: EncodedTensor() for name in map(self.canonical, outputs)}
        attributes = product.attributes if product is not None else op.attributes
        outputs = list(map(self.canonical, outputs))
        self.computed |= zip([o for o in outputs if o], [o for o in node.output if o], strict=True)
        return Op(name, op_type, tuple(map(self.canonical, inputs)), tuple(outputs), op.scope, attributes)

    def _is_dynamic(self, node: onnx.NodeProto, op: Op) -> bool:
        """Note a part of a dynamically quantized product: the quantization, its scale, or the integer product."""
        if node.op_type == "DynamicQuantizeLinear":
            self.names[node.output[0]] = self.canonical(node.input[0])
            self._scales.add(node.output[1])
        elif node.op_type in INTEGER_PRODUCTS:
            inputs = tuple(self.canonical(name) for name in node.input[:2])
            self._products[node.output[0]] = Op(
                op.name, INTEGER_PRODUCTS[node.op_type], inputs, (), op.scope, op.attributes
            )
        elif node.op_type == "Cast" and node.input[0] in self._products:
            self._products[node.output[0]] = self._products[node.input[0]]
        elif node.op_type == "Mul" and any(name in self._scales for name in node.input):
            if any(name in self._products for name in node.input):
                return False
            self._scales.add(node.output[0])
        else:
            return False
        return True

    def _product(self, node: onnx.NodeProto) -> Op | None:
        """The product whose integer result this op brings back to real values; None for any other op."""
        if node.op_type != "Mul":
            return None
        return next((self._products[name] for name in node.input if name in self._products), None)

    def _reorder(self, node: onnx.NodeProto) -> None:
        """Into blocks of channels and back: the same tensor, which can be read outside of the blocks alone."""
        real = self.canonical(node.input[0])
        self.names[node.output[0]] = real
        if node.op_type == "ReorderOutput":
            self.encoded[real] = EncodedTensor(real=node.output[0])

    def _inherited(self, name: str, qparams: QParams) -> str:
        """The same for what an op made of codes, which need not be codes: Shape gives int64."""
        return self._codes(name, qparams if self.graph.tensor(name).dtype in ("", qparams.spec.dtype) else None)

    def _codes(self, name: str, qparams: QParams | None) -> str:
        """Note that this tensor holds codes; returns the name of the real tensor."""
        if qparams is None:
            return name
        real = self.names.get(name, name.removesuffix(CODES_SUFFIX))
        self._qparams[name] = qparams
        self.names[name] = real
        self.encoded[real] = EncodedTensor(codes=name, qparams=qparams)
        return real

    def _read_codes(self, name: str, scale: str, zero_point: str) -> None:
        """Note what an op reads as codes that no quantization made: rows that a Gather took from a table of codes."""
        real = self.canonical(name)
        if name in self._qparams or name in self.constants or real in self.encoded:
            return
        qparams = self.constants.qparams(scale, zero_point)
        if qparams is not None:
            self.encoded[real] = EncodedTensor(codes=name, qparams=qparams)

    def _quantize(self, node: onnx.NodeProto) -> None:
        qparams = self.constants.qparams(node.input[1], node.input[2] if len(node.input) > 2 else "", node)
        real = self.canonical(node.input[0])
        self.names[node.output[0]] = real
        if qparams is not None:
            self._qparams[node.output[0]] = qparams
            # Of several quantizations of one tensor the first is its own; later ones rescale it for a consumer.
            self.encoded.setdefault(real, EncodedTensor(codes=node.output[0], real=node.input[0], qparams=qparams))

    def _dequantize(self, node: onnx.NodeProto) -> None:
        real = self.canonical(node.input[0])
        self.names[node.output[0]] = real if node.input[0] in self.names else node.output[0]
        found = self.encoded.get(real)
        if found is not None and found.codes == node.input[0]:
            self.encoded[real] = EncodedTensor(found.codes, node.output[0], found.qparams)


def _clips(first: QParams, second: QParams) -> bool:
    """True if the second quantization cannot represent, by more than a step, what the first one can."""
    if not (first.per_tensor and second.per_tensor):
        return False
    (low, high), (lowest, highest) = (_range(qparams) for qparams in (first, second))
    step = float(second.scale.reshape(()))
    return lowest - low > step or high - highest > step


def _range(qparams: QParams) -> tuple[float, float]:
    low, high = qparams.spec.code_range
    scale, zero_point = float(qparams.scale.reshape(())), int(qparams.zero_point.reshape(()))
    return (low - zero_point) * scale, (high - zero_point) * scale


_STRIPPED: Mapping[str, Callable[[_Reader, onnx.NodeProto], None]] = {
    "QuantizeLinear": _Reader._quantize,
    "DequantizeLinear": _Reader._dequantize,
    "ReorderInput": _Reader._reorder,
    "ReorderOutput": _Reader._reorder,
}
