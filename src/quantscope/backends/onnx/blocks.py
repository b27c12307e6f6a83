"""Weights with one scale per block, for which ONNX Runtime's quantizer has no setting per tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from quantscope.qparams import PerBlock, QParams, QuantSpec

BLOCK_OPSET = 21
_CODE_SUFFIX = "_quantized"


def block_qparams(values: NDArray[Any], spec: QuantSpec) -> QParams:
    """Return scale and zero point of every block of a weight; the last block may be shorter.

    Source: ONNX operator specification, DequantizeLinear 21. Symmetric codes keep clear of the lowest one, so that
    both signs have the same number of codes.
    """
    assert isinstance(spec.granularity, PerBlock)
    axis, size = spec.granularity.axis, spec.granularity.size
    moved = np.moveaxis(values.astype(np.float64), axis, 0)
    padded = np.pad(moved, [(0, -len(moved) % size), *[(0, 0)] * (moved.ndim - 1)])
    split = padded.reshape(-1, size, *moved.shape[1:])
    low, high = np.minimum(split.min(axis=1), 0), np.maximum(split.max(axis=1), 0)
    lowest, highest = spec.code_range
    if spec.symmetric:
        middle = 0 if spec.signed else (highest + 1) // 2
        scale = np.maximum(-low, high) / (highest - middle)
        zeros = np.full(scale.shape, middle, np.int64)
    else:
        scale = (high - low) / (highest - lowest)
        zeros = np.rint(lowest - low / np.where(scale == 0, 1, scale)).astype(np.int64)
    scale = np.where(scale == 0, 1, scale).astype(values.dtype)
    return QParams(np.moveaxis(scale, 0, axis), np.moveaxis(zeros, 0, axis), spec)


def put_blocks(proto: onnx.ModelProto, name: str, values: NDArray[Any], spec: QuantSpec) -> None:
    """Give a weight that ONNX Runtime's quantizer gave one scale a scale per block."""
    assert isinstance(spec.granularity, PerBlock)
    node = next(n for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == name + _CODE_SUFFIX)
    qparams = block_qparams(values, spec)
    kind = getattr(TensorProto, spec.dtype.upper())
    new = {
        node.input[0]: _codes(node.input[0], kind, spec, qparams.quantize(values)),
        node.input[1]: numpy_helper.from_array(qparams.scale, node.input[1]),
        node.input[2]: _codes(node.input[2], kind, spec, qparams.zero_point),
    }
    for tensor in proto.graph.initializer:
        if tensor.name in new:
            tensor.CopyFrom(new[tensor.name])
    kept = [a for a in node.attribute if a.name not in ("axis", "block_size")]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(helper.make_attribute("axis", spec.granularity.axis))
    node.attribute.append(helper.make_attribute("block_size", spec.granularity.size))


def _codes(name: str, kind: int, spec: QuantSpec, codes: NDArray[np.int64]) -> onnx.TensorProto:
    if spec.bits == 4:
        # Two codes per byte, the first in the low half.
        flat = np.pad(codes.reshape(-1), (0, codes.size % 2)) & 15
        raw = (flat[::2] | flat[1::2] << 4).astype(np.uint8).tobytes()
    else:
        raw = codes.astype(spec.dtype).tobytes()
    return helper.make_tensor(name, kind, codes.shape, raw, raw=True)
