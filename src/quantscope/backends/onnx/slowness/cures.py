"""What would remove each obstacle, as a change of the quantization around one op, made to time it."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper

from quantscope.backends.onnx.slowness.rewriting import Rewriting
from quantscope.backends.onnx.slowness.written import DEQUANTIZE, PRODUCTS, QUANTIZE

_CODES = 255


def quantize_output(model: Rewriting, op: str) -> None:
    """Quantize what the op writes."""
    node = model.nodes[op]
    model.quantize_output(node, node.output[0])


def quantize_all(model: Rewriting, op: str) -> None:
    """Quantize each operand that is not, and the output."""
    node = model.nodes[op]
    count = {"Conv": 2, "MatMul": 2, "Gemm": 2, "Add": 2, "Mul": 2}.get(node.op_type, 1)
    operands = range(len(node.input)) if node.op_type == "Concat" else range(count)
    for place in (1, 2) if node.op_type == "Where" else operands:
        before = model.producer(node.input[place])
        if before is not None and before.op_type == DEQUANTIZE:
            continue
        values = model.real(node.input[place])
        if place == 1 and values is not None and node.op_type in PRODUCTS:
            model.read(node, place, model.quantized_weight(values, _output_axis(node, values.ndim)))
        else:
            model.read(node, place, model.pair(node.input[place]))
    _unless_quantized(model, node)


def _unless_quantized(model: Rewriting, node: onnx.NodeProto) -> None:
    """Quantize the output of a node if nothing does yet, behind it or behind the activation that reads it."""
    readers = model.readers(node.output[0])
    if any(reader.op_type == QUANTIZE for reader in readers):
        return
    if len(readers) == 1 and any(r.op_type == QUANTIZE for r in model.readers(readers[0].output[0])):
        activation, quantize = readers[0], model.readers(readers[0].output[0])[0]
        if activation.op_type in ("Relu", "Clip"):
            _take_over(model, activation, quantize)
            return
    model.quantize_output(node, node.output[0])


def _output_axis(node: onnx.NodeProto, rank: int) -> int | None:
    """The axis of a weight that has a scale for each output channel; None for a vector."""
    if rank < 2:
        return None
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type in ("Conv", "ConvInteger", "QLinearConv") or transposed else rank - 1


def weight_per_channel(model: Rewriting, op: str) -> None:
    """Give the weight a scale for each output channel."""
    node = model.nodes[op]
    values = model.real(node.input[1])
    if values is not None:
        model.read(node, 1, model.quantized_weight(values, _output_axis(node, values.ndim)))


def float_bias(model: Rewriting, op: str) -> None:
    """Leave the bias in float: ONNX Runtime quantizes it itself."""
    node = model.nodes[op]
    values = model.real(node.input[2])
    if values is not None:
        model.read(node, 2, model.constant(values))


def readers_behind_quantization(model: Rewriting, op: str) -> None:
    """Let everything but one QuantizeLinear read the output behind it."""
    node = model.nodes[op]
    tensor = node.output[0]
    readers = model.readers(tensor)
    quantize = next(reader for reader in readers if reader.op_type == QUANTIZE)
    attributes = {a.name: helper.get_attribute_value(a) for a in quantize.attribute if a.name == "axis"}
    real = model.renamed(node, tensor)
    model.replace(quantize, tensor, real)
    inputs = [quantize.output[0], *quantize.input[1:]]
    model.node(DEQUANTIZE, inputs, tensor, domain=quantize.domain, **attributes)


def range_of_activation(model: Rewriting, op: str) -> None:
    """Let the quantization behind a Relu or Clip begin and end where this does."""
    activation = model.readers(model.nodes[op].output[0])[0]
    quantize = next(r for r in model.readers(activation.output[0]) if r.op_type == QUANTIZE)
    _take_over(model, activation, quantize)


def _take_over(model: Rewriting, activation: onnx.NodeProto, quantize: onnx.NodeProto) -> None:
    low, high = _limits(model, activation)
    qparams = model.uint8_qparams(quantize)
    scale = float(model.constants.array(qparams[0]))
    if math.isfinite(high):
        scale = (high - low) / _CODES
    zero = np.array(np.clip(round(-low / scale), 0, _CODES), np.uint8)
    qparams = [model.constant(np.array(scale, np.float32)), model.constant(zero)]
    model.set_qparams(model.with_codes_of(quantize), qparams)


def _limits(model: Rewriting, activation: onnx.NodeProto) -> tuple[float, float]:
    """The lowest and highest value that a Relu or Clip lets pass."""
    if activation.op_type == "Relu":
        return 0.0, math.inf
    attributes = {a.name: a.f for a in activation.attribute}
    found = [attributes.get("min", 0.0), attributes.get("max", math.inf)]
    for place, name in enumerate(list(activation.input)[1:3]):
        if name in model.constants:
            found[place] = float(model.constants.array(name).reshape(-1)[0])
    return found[0], found[1]


def constant_scale(model: Rewriting, op: str) -> None:
    """Give the activations around the op a constant scale and zero point."""
    for conversion in _around(model, model.nodes[op]):
        if any(name and name not in model.constants for name in conversion.input[1:3]):
            model.set_qparams(model.with_codes_of(conversion), model.uint8_qparams(conversion))


def scale_per_tensor(model: Rewriting, op: str) -> None:
    """Give the activations around the op one scale each."""
    for conversion in _around(model, model.nodes[op]):
        name = conversion.input[1]
        if name in model.constants and math.prod(model.constants.shape(name)) > 1:
            model.set_qparams(model.with_codes_of(conversion), model.uint8_qparams(conversion))


def scale_of_input(model: Rewriting, op: str) -> None:
    """Give the outputs of an op that moves codes the scale and zero point of its input."""
    node = model.nodes[op]
    before = model.producer(node.input[0])
    if before is None:
        return
    for output in node.output:
        for quantize in model.readers(output):
            if quantize.op_type == QUANTIZE:
                model.set_qparams(model.with_codes_of(quantize), before.input[1:3])


def eight_bits(model: Rewriting, op: str) -> None:
    """Give activations uint8 codes and the weight int8 ones."""
    node = model.nodes[op]
    for conversion in _around(model, node):
        if _kind(model, conversion) not in (np.uint8, np.int8):
            model.set_qparams(model.with_codes_of(conversion), model.uint8_qparams(conversion, whole=256))
    before = model.producer(node.input[1]) if len(node.input) > 1 else None
    if before is not None and before.op_type == DEQUANTIZE and before.input[0] in model.constants:
        weight_per_channel(model, op)


def float32_scales(model: Rewriting, op: str) -> None:
    """Give the conversions around the op float32 scales."""
    node = model.nodes[op]
    for place, name in enumerate(node.input):
        before = model.producer(name)
        if before is not None and before.op_type == DEQUANTIZE:
            attributes = {a.name: helper.get_attribute_value(a) for a in before.attribute if a.name == "axis"}
            inputs = [before.input[0], _float32(model, before.input[1]), *before.input[2:]]
            model.read(node, place, model.node(DEQUANTIZE, inputs, domain=before.domain, **attributes))
        elif name in model.constants and model.constants.is_float(name):
            model.read(node, place, _float32(model, name))
    ends = [node.output[0]]
    for tensor in ends:
        for reader in model.readers(tensor):
            if reader.op_type == QUANTIZE:
                model.read(reader, 1, _float32(model, reader.input[1]))
            elif reader.op_type in ("Relu", "Clip", "LeakyRelu", "Sigmoid"):
                ends.append(reader.output[0])


def _float32(model: Rewriting, name: str) -> str:
    return model.constant(model.constants.array(name).astype(np.float32))


def _around(model: Rewriting, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The conversions of activations that a node reads from, or that read from it or from the activation behind it."""
    before = [found for name in node.input if (found := model.producer(name)) is not None]
    found = [n for n in before if n.op_type == DEQUANTIZE and n.input[0] not in model.constants]
    for tensor in node.output:
        for reader in model.readers(tensor):
            behind = [reader] if reader.op_type == QUANTIZE else model.readers((*reader.output, "")[0])
            found += [n for n in behind if n.op_type == QUANTIZE]
    return found


def without_pair(model: Rewriting, quantize: str) -> None:
    """Let everything behind this QuantizeLinear and its DequantizeLinear read what it reads."""
    node = model.nodes[quantize]
    for pair in model.readers(node.output[0]):
        if pair.op_type != DEQUANTIZE:
            continue
        for reader in model.readers(pair.output[0]):
            model.replace(reader, pair.output[0], node.input[0])
        if pair.output[0] in model.outputs():
            output = pair.output[0]
            model.renamed(pair, output)
            model.node("Identity", [node.input[0]], output)


def _kind(model: Rewriting, conversion: onnx.NodeProto) -> object:
    """The type of a conversion's codes, as its zero point has it."""
    zero = conversion.input[2] if len(conversion.input) > 2 else ""
    return model.constants.array(zero).dtype if zero in model.constants else np.uint8
