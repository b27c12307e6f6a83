"""The weights of a float or quantized model in real values, in whatever form they are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quantscope.backends.onnx.constants import Constants
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.float_view import (
    CODES_SUFFIX,
    INTEGER_PRODUCTS,
    OP_SUFFIX,
    WEIGHT_OPERANDS,
    IntegerOp,
    integer_op,
)
from quantscope.backends.onnx.structure import graph_of
from quantscope.qparams import PerBlock, PerChannel, PerTensor, QParams, QuantSpec
from quantscope.quantized import Weight

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
    operands = _Operands(model, constants)
    attributes = {op.name: op.attributes for op in graph_of(model).ops}
    for node in model.proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Constant"):
            continue
        integer = integer_op(node)
        op_type = integer.float_type if integer else INTEGER_PRODUCTS.get(node.op_type, node.op_type)
        if node.op_type in WEIGHT_OPERANDS:
            op_type = "MatMul"
        for position, operand in operands.of(node, integer):
            if math.prod(operand.shape) < 2:
                continue
            axis = channel_axis(op_type, attributes[node.name], len(operand.shape))
            qparams = operand.qparams
            if qparams is not None and qparams.spec.granularity == _OUTPUT_CHANNELS:
                qparams = replace(qparams, spec=replace(qparams.spec, granularity=PerChannel(axis or 0)))
            yield Weight(
                node.name.removesuffix(OP_SUFFIX),
                operand.tensor.removesuffix(CODES_SUFFIX),
                operand.shape,
                partial(operand.read, qparams),
                "bias" if position == 2 and op_type in _BIASED else "weight",
                axis,
                qparams,
            )


# An op on codes has no axis attribute: its scales belong to its output channels, wherever those are.
_OUTPUT_CHANNELS = PerChannel(-1000)


@dataclass(frozen=True, eq=False)
class _Operand:
    """A constant operand: `read` gives its real values from its scale and zero point."""

    tensor: str
    shape: tuple[int, ...]
    read: Callable[[QParams | None], NDArray[Any]]
    qparams: QParams | None = None


class _Operands:
    """Finds the constants behind the operands of ops, through dequantization, transposes and casts."""

    def __init__(self, model: OnnxModel, constants: Constants) -> None:
        self._constants = constants
        self._producers = {name: node for node in model.proto.graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.proto.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def of(self, node: onnx.NodeProto, integer: IntegerOp | None) -> Iterator[tuple[int, _Operand]]:
        """The constant operands of an op with their positions."""
        inputs = [*node.input, "", ""]
        triples: list[tuple[str, str, str]] = []
        if integer is not None:
            triples = [(inputs[c], inputs[s], inputs[z]) for c, s, z in integer.operands]
        elif node.op_type in WEIGHT_OPERANDS:
            codes, scale, zero_point = (inputs[i] for i in WEIGHT_OPERANDS[node.op_type])
            if node.op_type == "MatMulNBits":
                blocked = self._blocked(node, codes, scale, zero_point)
                if blocked is not None:
                    yield 1, blocked
                return
            triples = [("", "", ""), (codes, scale, zero_point)]
        elif node.op_type in INTEGER_PRODUCTS:
            triples = [("", "", ""), (inputs[1], self._scale_behind(node), inputs[3])]
        else:
            for position, name in enumerate(node.input):
                found = self._resolved(name)
                if found is not None:
                    yield position, found
            return
        for position, (codes, scale, zero_point) in enumerate(triples):
            if codes in self._constants and scale in self._constants:
                qparams = self._constants.qparams(scale, zero_point)
                if qparams is not None:
                    spec = qparams.spec
                    if not qparams.per_tensor:
                        spec = replace(spec, granularity=_OUTPUT_CHANNELS)
                    yield position, self._quantized(codes, replace(qparams, spec=spec))

    def _quantized(self, codes: str, qparams: QParams) -> _Operand:
        read = partial(_dequantized, self._constants, codes)
        return _Operand(codes, self._constants.shape(codes), read, qparams)

    def _resolved(self, name: str) -> _Operand | None:
        """The constant that this tensor is computed from; None if it is not one."""
        if name in self._constants:
            plain = _Operand(name, self._constants.shape(name), partial(_plain, self._constants, name))
            return plain if self._constants.is_float(name) else None
        node = self._producers.get(name)
        kind = node.op_type if node is not None else ""
        if node is None or kind not in ("DequantizeLinear", "Identity", "Cast", "Transpose"):
            return None
        if kind == "DequantizeLinear":
            return self._behind_dequantize(node)
        inner = self._resolved(node.input[0])
        if inner is None or kind != "Transpose":
            return inner
        order = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), None)
        return _transposed(inner, order or tuple(range(len(inner.shape)))[::-1])

    def _behind_dequantize(self, node: onnx.NodeProto) -> _Operand | None:
        qparams = self._constants.qparams(node.input[1], node.input[2] if len(node.input) > 2 else "", node)
        if qparams is None:
            return None
        if node.input[0] in self._constants:
            return self._quantized(node.input[0], qparams)
        # Some tools leave the float weight in the file and quantize it at run time.
        before = self._producers.get(node.input[0])
        inner = self._resolved(before.input[0]) if before is not None and before.op_type == "QuantizeLinear" else None
        if inner is None or inner.qparams is not None:
            return None
        return replace(inner, read=partial(_round_trip, inner), qparams=qparams)

    def _scale_behind(self, node: onnx.NodeProto) -> str:
        """The weight's scale of an integer product: it is multiplied with that of the activation further on."""
        waiting = list(node.output)
        for _ in range(3):
            for reader in [r for name in waiting for r in self._readers.get(name, ())]:
                if reader.op_type == "Mul":
                    scales = [
                        n for name in reader.input if name in self._producers for n in self._producers[name].input
                    ]
                    return next((n for n in scales if n in self._constants), "")
                waiting = list(reader.output)
        return ""

    def _blocked(self, node: onnx.NodeProto, codes: str, scale: str, zero_point: str) -> _Operand | None:
        """The weight of a MatMulNBits: (K, N), each column in blocks along K with a scale of its own."""
        attributes = {a.name: a.i for a in node.attribute}
        k, n, bits, size = (attributes[name] for name in ("K", "N", "bits", "block_size"))
        if codes not in self._constants or scale not in self._constants or bits not in (2, 4, 8):
            return None
        blocks = -(-k // size)
        middle = 1 << (bits - 1)
        zeros: NDArray[Any] = np.full((n, blocks), middle)
        if zero_point:
            if zero_point not in self._constants:
                return None
            packed = self._constants.array(zero_point)
            zeros = packed if packed.dtype.kind == "f" else _unpacked(packed.reshape(n, -1), bits)[:, :blocks]
        scales = self._constants.array(scale).reshape(n, blocks)
        spec = QuantSpec(bits, signed=False, symmetric=not zero_point, granularity=PerBlock(0, size))
        qparams = QParams(scales.T, zeros.reshape(n, blocks).T.astype(np.int64), spec)
        return _Operand(codes, (k, n), partial(_blocked_values, self._constants, codes, (k, n), bits), qparams)


def _plain(constants: Constants, name: str, qparams: QParams | None) -> NDArray[Any]:
    return constants.array(name)


def _dequantized(constants: Constants, name: str, qparams: QParams | None) -> NDArray[Any]:
    assert qparams is not None
    return qparams.dequantize(constants.array(name))


def _round_trip(inner: _Operand, qparams: QParams | None) -> NDArray[Any]:
    assert qparams is not None
    return qparams.dequantize(qparams.quantize(inner.read(None)))


def _transposed(inner: _Operand, order: tuple[int, ...]) -> _Operand:
    qparams = inner.qparams
    if qparams is not None and not qparams.per_tensor:
        granularity = qparams.spec.granularity
        assert not isinstance(granularity, PerTensor)
        axis = order.index(granularity.axis % len(order))
        scale, zero_point = qparams.scale, qparams.zero_point
        if isinstance(granularity, PerBlock):
            scale, zero_point = scale.transpose(order), zero_point.transpose(order)
        qparams = QParams(scale, zero_point, replace(qparams.spec, granularity=replace(granularity, axis=axis)))

    def read(_: QParams | None) -> NDArray[Any]:
        return inner.read(inner.qparams).transpose(order)

    return _Operand(inner.tensor, tuple(inner.shape[i] for i in order), read, qparams)


def _unpacked(packed: NDArray[Any], bits: int) -> NDArray[Any]:
    """Codes of less than a byte, the lowest bits of a byte first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1)


def _blocked_values(
    constants: Constants, name: str, shape: tuple[int, int], bits: int, qparams: QParams | None
) -> NDArray[Any]:
    assert qparams is not None
    k, n = shape
    codes = _unpacked(constants.array(name).reshape(n, -1), bits)[:, :k]
    return qparams.dequantize(codes.T)
