"""Rewrites ops on integer codes as the float ops they stand for, between QuantizeLinear and DequantizeLinear.

Each integer op says itself what its codes mean. Ops that take codes as they are (MaxPool, Reshape) stay, and so do the
names of ops and of tensors of codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import count
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from quantscope.backends.onnx.constants import Constants
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.float_view import IntegerOp, integer_op, real_names
from quantscope.backends.onnx.preparation import PER_CHANNEL_OPSET
from quantscope.backends.onnx.structure import infer_types
from quantscope.errors import UnsupportedError

MICROSOFT = "com.microsoft"
_AXES_ARE_AN_INPUT = 18
# Until this opset Softmax took all axes from the given one on as one.
_SOFTMAX_OF_ONE_AXIS = 13
# ONNX Runtime's names for ops on codes: those without a float form here could not be run op by op.
_ON_CODES = ("QLinear", "QOrdered")


@dataclass(frozen=True, eq=False)
class Simulation:
    """A model without ops that compute with codes; `names` says for tensors named anew which real tensor they are."""

    model: OnnxModel
    names: Mapping[str, str] = field(default_factory=dict)


class FreshNames:
    """Gives out names that nothing in a graph, or in the graphs inside it, has."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._taken = set(_names(graph))

    def __call__(self, wanted: str) -> str:
        """This name, with a number behind it if it is taken; it is taken from now on."""
        name = next(n for i in count(1) if (n := wanted if i == 1 else f"{wanted}/{i}") not in self._taken)
        self._taken.add(name)
        return name


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for part in (graph.input, graph.output, graph.initializer):
        yield from (value.name for value in part)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        yield node.name
        yield from (*node.input, *node.output)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _names(inner)


def simulated(model: OnnxModel) -> Simulation:
    """The model with every op on codes in its float form; the same object where there is no such op.

    Raises:
        UnsupportedError: an op on codes has no float form.
    """
    if not any(integer_op(node) or node.op_type.startswith(_ON_CODES) for node in model.proto.graph.node):
        return Simulation(model)
    writer = _Writer(model)
    for node in model.proto.graph.node:
        writer.write(node)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.node[:]
    proto.graph.node.extend(writer.nodes)
    proto.graph.initializer.extend(writer.initializers)
    know_domain(proto, quantization_domain(model))
    result = OnnxModel(proto, model.folder)
    infer_types(result)
    return Simulation(result, writer.names)


def quantization_domain(model: OnnxModel) -> str:
    """The domain whose QuantizeLinear and DequantizeLinear have an axis: ONNX Runtime's in models of old opsets."""
    return "" if model.opset >= PER_CHANNEL_OPSET else MICROSOFT


def know_domain(proto: onnx.ModelProto, domain: str, version: int = 1) -> None:
    """Let the model use the ops of this domain, unless it is the standard one or known already."""
    if domain not in ("", "ai.onnx", *(entry.domain for entry in proto.opset_import)):
        proto.opset_import.append(helper.make_opsetid(domain, version))


class _Writer:
    """Writes the nodes of a simulation in order."""

    def __init__(self, model: OnnxModel) -> None:
        graph = model.proto.graph
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.names: dict[str, str] = {}
        self._opset = model.opset
        self._domain = quantization_domain(model)
        self._constants = Constants(model)
        self._fresh = FreshNames(graph)
        self._real = real_names(model)
        self._dequantized: dict[tuple[str, str, str, int | None], str] = {}
        self._ranks = {t.name: len(t.dims) for t in graph.initializer}
        self._kinds = {t.name: t.data_type for t in graph.initializer}
        for value in (*graph.input, *graph.value_info):
            kind = value.type.tensor_type
            self._kinds.setdefault(value.name, kind.elem_type)
            if kind.HasField("shape"):
                self._ranks.setdefault(value.name, len(kind.shape.dim))

    def write(self, node: onnx.NodeProto) -> None:
        """The node as it is or, of an op on codes, its float form."""
        integer = integer_op(node)
        if integer is not None:
            self._float_form(node, integer)
            return
        if node.op_type.startswith(_ON_CODES):
            raise _no_float_form(node, "quantscope does not know it")
        if node.op_type == "QuantizeLinear":
            self._kinds[node.output[0]] = self._kinds.get(_input(node, 2), TensorProto.UINT8)
        elif node.input and node.input[0] in self._real:
            self._kinds |= {name: self._kinds.get(node.input[0], 0) for name in node.output if name not in self._kinds}
        self.nodes.append(node)

    def _float_form(self, node: onnx.NodeProto, integer: IntegerOp) -> None:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        operands = []
        for position, triple in enumerate(integer.operands):
            axis = _channel_axis(integer.float_type, attributes) if position == 1 else None
            codes, scale, zero_point = (_input(node, i) for i in triple)
            operands.append(self._dequantize(node, codes, scale, zero_point, axis))
        if integer.bias is not None and _input(node, integer.bias):
            scales = [_input(node, scale) for _, scale, _ in integer.operands]
            if attributes.get("alpha", 1.0) != 1:
                scales.append(self._constant(f"{node.name}/alpha", np.float32(attributes["alpha"])))
            bias = _input(node, integer.bias)
            axis = self._ranks.get(bias, 1) - 1
            operands.append(self._dequantize(node, bias, self._product(f"{bias}_scale", scales), "", axis))
        scale, zero_point = (_input(node, i) for i in integer.output)
        if not scale:
            self._float_op(node, integer, operands, node.output[0], attributes)
            return
        codes = node.output[0]
        real = self._real.get(codes, codes)
        computed = self._fresh(real)
        self.names[computed] = real
        self._float_op(node, integer, operands, computed, attributes)
        kind = self._kinds.get(zero_point) if zero_point else self._kinds.get(_input(node, integer.operands[0][0]))
        if not zero_point and kind not in (None, 0, TensorProto.UINT8):
            # Without a zero point QuantizeLinear writes uint8.
            zero = np.zeros((), helper.tensor_dtype_to_np_dtype(kind))
            zero_point = self._constant(f"{codes}_zero_point", zero)
        self._kinds[codes] = kind or TensorProto.UINT8
        parameters = [scale, zero_point] if zero_point else [scale]
        self._node("QuantizeLinear", [computed, *parameters], codes, domain=self._domain)

    def _float_op(
        self, node: onnx.NodeProto, integer: IntegerOp, inputs: list[str], output: str, attributes: dict[str, Any]
    ) -> None:
        channels_last, opset = attributes.pop("channels_last", 0), attributes.pop("opset", self._opset)
        if integer.float_type == "Softmax":
            attributes.setdefault("axis", -1)
        if channels_last:
            rank = self._rank(node, attributes)
            first = [0, rank - 1, *range(1, rank - 1)]
            inputs = [
                self._node("Transpose", inputs[:1], self._fresh(f"{inputs[0]}/first"), perm=first),
                *inputs[1:],
            ]
        target = self._fresh(f"{output}/first") if channels_last else output
        if integer.float_type == "ReduceMean" and self._opset >= _AXES_ARE_AN_INPUT and "axes" in attributes:
            axes = np.array(attributes.pop("axes"), np.int64)
            inputs = [*inputs, self._constant(f"{node.name}/axes", axes)]
        elif self._takes_axes_as_one(node, attributes.get("axis", -1), opset):
            shape = self._node("Shape", inputs, self._fresh(f"{output}/shape"))
            flat = self._node("Flatten", inputs, self._fresh(f"{inputs[0]}/flat"), axis=attributes["axis"])
            inputs, target, attributes = [flat], self._fresh(f"{output}/flat"), {"axis": -1}
        elif integer.float_type == "Where":
            inputs = [_input(node, 0), *inputs]
        self.nodes.append(helper.make_node(integer.float_type, inputs, [target], node.name, **attributes))
        if channels_last:
            self._node("Transpose", [target], output, perm=[0, *range(2, rank), 1])
        elif target != output:
            self._node("Reshape", [target, shape], output)

    def _rank(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> int:
        """The number of axes of an op's input whose channels are last."""
        if attributes.get("kernel_shape"):
            return len(attributes["kernel_shape"]) + 2
        rank = self._ranks.get(node.input[3] if node.op_type == "QLinearConv" else node.input[0])
        if rank is None:
            raise _no_float_form(node, "its channels are last, and nothing says how many axes there are")
        return rank

    def _takes_axes_as_one(self, node: onnx.NodeProto, axis: int, opset: int) -> bool:
        """True if a Softmax of this opset takes several axes as one, and the model's opset has none that does."""
        if node.op_type != "QLinearSoftmax":
            return False
        of_one_axis = opset >= _SOFTMAX_OF_ONE_AXIS
        rank = self._ranks.get(node.input[0])
        if of_one_axis == (self._opset >= _SOFTMAX_OF_ONE_AXIS) or axis == -1 or (rank and axis == rank - 1):
            return False
        if of_one_axis:
            raise _no_float_form(node, f"opset {self._opset} has no Softmax along axis {axis} alone")
        return True

    def _dequantize(self, node: onnx.NodeProto, codes: str, scale: str, zero_point: str, axis: int | None) -> str:
        """The real values of an operand; its codes keep the name that the model has for them."""
        key = (codes, scale, zero_point, axis)
        if key not in self._dequantized:
            if codes not in self._real:
                self.names[codes] = codes
            scale, zero_point = self._parameters(node, scale, zero_point)
            if scale in self._constants and self._constants.array(scale).size == 1:
                axis = None
            inputs = [codes, scale, zero_point] if zero_point else [codes, scale]
            output = self._fresh(f"{codes}/dequantized")
            attributes = {} if axis is None else {"axis": axis}
            self._dequantized[key] = self._node("DequantizeLinear", inputs, output, domain=self._domain, **attributes)
        return self._dequantized[key]

    def _parameters(self, node: onnx.NodeProto, scale: str, zero_point: str) -> tuple[str, str]:
        """Scale and zero point in one shape, as DequantizeLinear wants them: ops on codes allow several."""
        if scale not in self._constants or not zero_point or zero_point not in self._constants:
            return scale, zero_point
        scales, zeros = self._constants.array(scale), self._constants.array(zero_point)
        if scales.ndim < 2 and scales.size == zeros.size:
            return scale, zero_point
        if scales.ndim > 1 and scales.size != scales.shape[-1]:
            raise _no_float_form(node, f"its scale {scale!r} has the shape {list(scales.shape)}")
        size = max(scales.size, zeros.size)
        return (
            self._constant(scale, np.broadcast_to(scales.reshape(-1), size)),
            self._constant(zero_point, np.broadcast_to(zeros.reshape(-1), size)),
        )

    def _product(self, wanted: str, factors: Sequence[str]) -> str:
        if all(name in self._constants for name in factors):
            values = [self._constants.array(name).reshape(-1) for name in factors]
            product = reduce(np.multiply, values)
            return self._constant(wanted, product if product.size > 1 else product.reshape(()))
        return reduce(lambda a, b: self._node("Mul", [a, b], self._fresh(wanted)), factors)

    def _constant(self, wanted: str, values: Any) -> str:
        array: NDArray[Any] = np.ascontiguousarray(values)
        tensor = numpy_helper.from_array(array.reshape(np.shape(values)), self._fresh(wanted))
        self.initializers.append(tensor)
        self._constants.tensors[tensor.name] = tensor
        return str(tensor.name)

    def _node(self, op_type: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        name = self._fresh(f"{output}:{op_type}")
        self.nodes.append(helper.make_node(op_type, inputs, [output], name, domain=domain, **attributes))
        return output


def _channel_axis(float_type: str, attributes: Mapping[str, Any]) -> int | None:
    """The axis of a second operand that an op on codes may have a scale for each index of; None if it has one scale."""
    if float_type == "Gemm":
        return 0 if attributes.get("transB", 0) else 1
    return {"Conv": 0, "MatMul": -1}.get(float_type)


def _input(node: onnx.NodeProto, index: int) -> str:
    """The name at this place, "" where the op has none."""
    return str(node.input[index]) if index < len(node.input) else ""


def _no_float_form(node: onnx.NodeProto, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"the op {node.name!r} ({node.op_type}) has no float form: {reason}",
        next_step="trace the model as it is deployed",
    )
