"""Other codes, or real values, for integer kernels that are slow with what they are given; made to time them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from quantscope.backends.onnx.float_view import integer_op
from quantscope.backends.onnx.slowness.cures import weight_per_channel
from quantscope.backends.onnx.slowness.rewriting import Rewriting
from quantscope.backends.onnx.slowness.written import DEQUANTIZE, PRODUCTS, QUANTIZE

CHANNELS_AT_ONCE = 4
"""ONNX Runtime's direct integer kernel for a convolution takes so many input channels at once."""

_FLIP = 128
_WEIGHT_PLACES = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3, "ConvInteger": 1, "MatMulInteger": 1}
_BIAS_PLACE = 8
_WEIGHT_ZERO_PLACES = {"QLinearConv": 5, "QLinearMatMul": 5, "QGemm": 5, "ConvInteger": 3, "MatMulInteger": 3}
# Scales that differ by less than what a code is worth, and yet are not the same.
_NEARLY = np.float32(1.0001)


def weight_place(op_type: str) -> int | None:
    """Where an integer product has its weight among its inputs."""
    return _WEIGHT_PLACES.get(op_type)


def uint8_activations(model: Rewriting, _: str) -> None:
    """Turn all int8 activations of the model into uint8 ones: each code and zero point is 128 more."""
    flipped: dict[str, str] = {}
    for node in list(model.nodes.values()):
        places = _activation_places(model, node)
        for place in places:
            name = node.input[place] if place < len(node.input) else ""
            if name in model.constants and model.constants.array(name).dtype == np.int8:
                if name not in flipped:
                    flipped[name] = model.constant(_unsigned(model, name))
                model.read(node, place, flipped[name])


def _unsigned(model: Rewriting, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return (model.constants.array(name).astype(np.int16) + _FLIP).astype(np.uint8)


def _activation_places(model: Rewriting, node: onnx.NodeProto) -> Sequence[int]:
    """Where a node has constants that are codes or zero points of activations."""
    if node.op_type == QUANTIZE:
        return (2,)
    if node.op_type == DEQUANTIZE:
        readers = model.readers(node.output[0])
        of_weight = any(reader.op_type in PRODUCTS or "Normalization" in reader.op_type for reader in readers)
        return () if node.input[0] in model.constants and of_weight else (0, 2)
    integer = integer_op(node)
    if integer is None:
        return ()
    weight = _WEIGHT_PLACES.get(node.op_type)
    places = [integer.output[1]]
    for codes, _, zero_point in integer.operands:
        if codes != weight or node.input[codes] not in model.constants:
            places += [codes, zero_point]
    return places


def int8_weight(model: Rewriting, op: str) -> None:
    """Turn the uint8 weight of a product into an int8 one: each code and zero point is 128 less."""
    node = model.nodes[op]
    place = _WEIGHT_PLACES.get(node.op_type)
    if place is None:
        weight_per_channel(model, op)
        return
    zero = _WEIGHT_ZERO_PLACES[node.op_type]
    for position in (place, zero):
        name = node.input[position] if position < len(node.input) else ""
        if name in model.constants and model.constants.array(name).dtype == np.uint8:
            values = model.constants.array(name).astype(np.int16) - _FLIP
            model.read(node, position, model.constant(values.astype(np.int8)))


def static(model: Rewriting, op: str) -> None:
    """Turn a dynamically quantized product into a static one: quantized input, weight and output."""
    node = model.nodes[op]
    before, weight = model.producer(node.input[0]), model.constants.tensors.get(node.input[1])
    cast = model.readers(node.output[0])
    scaled = model.readers(cast[0].output[0]) if len(cast) == 1 and cast[0].op_type == "Cast" else []
    if before is None or before.op_type != "DynamicQuantizeLinear" or weight is None or len(scaled) != 1:
        return
    codes = np.asarray(model.constants.array(node.input[1]), np.float32)
    if codes.min() >= 0:
        codes = codes - _FLIP
    convolution = node.op_type == "ConvInteger"
    real = [model.pair(before.input[0]), model.quantized_weight(codes / _FLIP, 0 if convolution else codes.ndim - 1)]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    product = model.node("Conv" if convolution else "MatMul", real, **attributes)
    tensor = scaled[0].output[0]
    model.renamed(scaled[0], tensor)
    model.pair(product, output=tensor)


def real_input(model: Rewriting, op: str) -> None:
    """Let an op read the real values that were quantized for it, and give its output in float where it can."""
    node = _real(model, model.nodes[op])
    before = model.producer(node.input[0])
    quantize = model.producer(before.input[0]) if before is not None and before.op_type == DEQUANTIZE else None
    if quantize is not None and quantize.op_type == QUANTIZE:
        model.read(node, 0, quantize.input[0])


def move_real_values(model: Rewriting, op: str) -> None:
    """Keep an op that moves codes from doing so: nearly the same scale behind it is not the same."""
    node = model.nodes[op]
    before = model.producer(node.input[0])
    for quantize in model.readers(node.output[0]):
        if quantize.op_type == QUANTIZE and before is not None and before.op_type == DEQUANTIZE:
            nearly = np.asarray(model.constants.array(before.input[1]) * _NEARLY, np.float32)
            qparams = [model.constant(nearly), *list(before.input)[2:3]]
            model.set_qparams(model.with_codes_of(quantize), qparams)
            return
    if before is None or before.op_type != DEQUANTIZE:
        # The op moves codes in the file itself.
        tensor = node.output[0]
        zero = model.constant(np.array(0, np.uint8))
        scales = [model.constant(np.array(value, np.float32)) for value in (1, _NEARLY)]
        model.read(node, 0, model.node(DEQUANTIZE, [node.input[0], scales[0], zero]))
        model.node(QUANTIZE, [model.renamed(node, tensor), scales[1], zero], tensor)


def real_product(model: Rewriting, op: str) -> None:
    """Let a product compute with real values: its weight becomes a float constant."""
    node = _real(model, model.nodes[op])
    values = model.real(node.input[1])
    if values is None:
        return
    model.read(node, 1, model.constant(values))
    if len(node.input) < 3:
        # ONNX Runtime would quantize the weight again, but for a bias that is an int32 already.
        bias = np.zeros(values.shape[0], np.int32)
        inputs = [model.constant(part) for part in (bias, np.array(1, np.float32), np.array(0, np.int32))]
        model.read(node, 2, model.node(DEQUANTIZE, inputs))


def padded_channels(model: Rewriting, op: str) -> None:
    """Pad the codes that a convolution reads, and its weight, with channels of zeros: every value stays the same."""
    node = _real(model, model.nodes[op])
    before, weight = (model.producer(name) for name in node.input[:2])
    if before is None or weight is None or weight.input[0] not in model.constants:
        return
    codes, scale, zero = _unsigned_codes(model, before)
    values = model.constants.array(weight.input[0])
    missing = -values.shape[1] % CHANNELS_AT_ONCE
    pads = [0] * (2 * values.ndim)
    pads[values.ndim + 1] = missing
    wide = model.node("Pad", [codes, model.constant(np.array(pads, np.int64)), zero])
    model.read(node, 0, model.node(DEQUANTIZE, [wide, scale, zero], domain=before.domain))
    zeros = np.zeros((values.shape[0], missing, *values.shape[2:]), values.dtype)
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in weight.attribute}
    inputs = [model.constant(np.concatenate([values, zeros], 1)), *weight.input[1:]]
    model.read(node, 1, model.node(DEQUANTIZE, inputs, domain=weight.domain, **attributes))


def _unsigned_codes(model: Rewriting, dequantize: onnx.NodeProto) -> tuple[str, str, str]:
    """uint8 codes for what is dequantized, their scale and their zero point.

    int8 codes are quantized anew: ONNX Runtime turns them into uint8 ones only with nothing between the conversions.
    """
    codes, scale = dequantize.input[:2]
    zero = (*dequantize.input, "")[2] or model.constant(np.array(0, np.uint8))
    quantize = model.producer(codes)
    if quantize is not None and quantize.op_type == QUANTIZE and model.constants.array(zero).dtype == np.int8:
        zero = model.constant(_unsigned(model, zero))
        codes = model.node(QUANTIZE, [quantize.input[0], scale, zero], domain=quantize.domain)
    return codes, scale, zero


def depthwise_for_average(model: Rewriting, op: str) -> None:
    """Put a depthwise Conv of equal weights in the place of an average."""
    node = _real(model, model.nodes[op])
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    channels = model.channels(node.input[0])
    size = attributes.get("kernel_shape")
    if channels is None or size is None or attributes.get("ceil_mode", 0):
        return
    kept = {name: attributes[name] for name in ("strides", "pads", "auto_pad", "dilations") if name in attributes}
    weight = np.full((channels, 1, *size), 1 / math.prod(size), np.float32)
    tensor = node.output[0]
    model.renamed(node, tensor)
    model.node("Conv", [node.input[0], model.quantized_weight(weight, 0)], tensor, group=channels, **kept)


def _real(model: Rewriting, node: onnx.NodeProto) -> onnx.NodeProto:
    """The op with real operands and result that a QLinear op stands for; the op itself if it is one already."""
    integer = integer_op(node)
    if integer is None:
        return node
    operands = []
    for codes, scale, zero in integer.operands:
        parts = [node.input[place] for place in (codes, scale, zero)]
        along: dict[str, Any] = (
            {"axis": 0} if integer.float_type == "Conv" and codes == _WEIGHT_PLACES["QLinearConv"] else {}
        )
        operands.append(model.node(DEQUANTIZE, [part for part in parts if part], **along))
    if node.op_type == "QLinearConv" and len(node.input) > _BIAS_PLACE and node.input[_BIAS_PLACE]:
        scales = [model.constants.array(node.input[scale]) for _, scale, _ in integer.operands]
        of_bias = model.constant(np.asarray(scales[0] * scales[1], np.float32))
        operands.append(model.node(DEQUANTIZE, [node.input[_BIAS_PLACE], of_bias], axis=0))
    tensor = node.output[0]
    kept = {
        a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if a.name not in ("channels_last", "opset")
    }
    model.renamed(node, tensor)
    real = model.node(integer.float_type, operands, **kept)
    model.node(QUANTIZE, [real, *(node.input[place] for place in integer.output)], tensor)
    made = model.producer(real)
    assert made is not None
    return made
