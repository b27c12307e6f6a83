"""Ops without an integer kernel, and what computes the same with one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from quantscope.backends.onnx.slowness.obstacles import Cure
from quantscope.backends.onnx.slowness.rewriting import Rewriting
from quantscope.backends.onnx.slowness.written import DEQUANTIZE, QUANTIZE


@dataclass(frozen=True)
class Substitute:
    """What to use instead of an op; the cure puts it there, where that can be tried."""

    change: str
    cure: Cure | None = None


def _multiply(model: Rewriting, op: str) -> None:
    """Multiply by the reciprocal of a constant divisor."""
    _with_constant(model, model.nodes[op], "Mul", lambda values: 1 / values)


def _add(model: Rewriting, op: str) -> None:
    """Add the negative of a constant subtrahend."""
    _with_constant(model, model.nodes[op], "Add", lambda values: -values)


def _with_constant(
    model: Rewriting, node: onnx.NodeProto, op_type: str, function: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    values = model.real(node.input[1])
    if values is not None and np.isfinite(found := function(values)).all():
        node.op_type = op_type
        scale = max(float(np.abs(found).max()) / 127, 1e-8)
        model.read(node, 1, model.pair(model.constant(found.astype(np.float32)), scale=scale))


def _read_codes(model: Rewriting, op: str) -> None:
    """Let the op read the codes."""
    node = model.nodes[op]
    before = model.producer(node.input[0])
    if before is not None and before.op_type == DEQUANTIZE:
        model.read(node, 0, before.input[0])


def _pad_inside(model: Rewriting, op: str) -> None:
    """Give the padding to the Conv or pooling behind, and let that read what the Pad reads."""
    node = model.nodes[op]
    pads = model.real(node.input[1]) if len(node.input) > 1 else None
    readers = model.readers(node.output[0])
    if len(readers) == 1 and readers[0].op_type == QUANTIZE:
        readers = model.readers(readers[0].output[0])
    if len(readers) == 1 and readers[0].op_type == DEQUANTIZE:
        readers = model.readers(readers[0].output[0])
    if pads is None or len(readers) != 1 or readers[0].op_type not in ("Conv", "MaxPool", "AveragePool"):
        return
    behind, axes = readers[0], len(pads) // 2
    attributes = {a.name: helper.get_attribute_value(a) for a in behind.attribute}
    already = attributes.get("pads", [0] * (2 * (axes - 2)))
    added = [int(value) for half in (pads[2:axes], pads[axes + 2 :]) for value in half]
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or len(added) != len(already):
        return
    for attribute in [a for a in behind.attribute if a.name in ("pads", "auto_pad")]:
        behind.attribute.remove(attribute)
    behind.attribute.append(helper.make_attribute("pads", [a + b for a, b in zip(already, added, strict=True)]))
    model.read(behind, 0, node.input[0])


SUBSTITUTES: Mapping[str, Substitute] = {
    "Clip": Substitute("give the op before it a range that ends where Clip does, so that its quantization does this"),
    "Div": Substitute("multiply by the reciprocal: Mul has an integer kernel", _multiply),
    "HardSigmoid": Substitute("train with Sigmoid or LeakyRelu, which have integer kernels"),
    "HardSwish": Substitute("train with Relu, or with x·Sigmoid(x), whose ops have integer kernels"),
    "MaxPool": Substitute("convert the model to opset 12 or later"),
    "Pad": Substitute("give the padding to the Conv or pooling behind it", _pad_inside),
    "PRelu": Substitute("train with LeakyRelu, which has an integer kernel"),
    "ReduceMean": Substitute("average over all positions with GlobalAveragePool, which has an integer kernel"),
    "Relu": Substitute("let the quantization before it begin at 0, so that it does the work of Relu"),
    "Resize": Substitute('resize with mode "nearest", which moves codes as they are'),
    "Shape": Substitute("let it read the codes, whose shape is the same", _read_codes),
    "SpaceToDepth": Substitute("write it as Reshape, Transpose and Reshape, which move codes as they are"),
    "Sub": Substitute("add the negative: Add has an integer kernel", _add),
}
