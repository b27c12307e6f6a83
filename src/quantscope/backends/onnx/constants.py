"""The constants of a model, read when they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from quantscope.backends.onnx import external
from quantscope.backends.onnx.files import OnnxModel
from quantscope.qparams import PerBlock, PerChannel, PerTensor, QParams, QuantSpec

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


class Constants:
    """The constants of a model by name, read when they are asked for."""

    def __init__(self, model: OnnxModel) -> None:
        self._folder = model.folder
        self._qparams: dict[tuple[str, str, int, int], QParams | None] = {}
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
        if self._folder is not None and external.place(self.tensors[name]) is not None:
            self._folder.check_unchanged()
        array = external.array(self.tensors[name], self._folder)
        return array.astype(np.float32) if self.tensors[name].data_type in _HALVES else array

    def qparams(self, scale: str, zero_point: str, node: onnx.NodeProto | None = None) -> QParams | None:
        """Scale and zero point if both are constant; without a zero point codes are uint8 and it is 0."""
        axis, block = 1, 0
        for attribute in node.attribute if node is not None else ():
            if attribute.name == "axis":
                axis = attribute.i
            elif attribute.name == "block_size":
                block = attribute.i
        key = (scale, zero_point, axis, block)
        # What one op quantizes with, the next one dequantizes with.
        if key not in self._qparams:
            self._qparams[key] = self._read_qparams(*key)
        return self._qparams[key]

    def _read_qparams(self, scale: str, zero_point: str, axis: int, block: int) -> QParams | None:
        if scale not in self or (zero_point and zero_point not in self):
            return None
        scales = np.asarray(self.array(scale))
        kind = self.tensors[zero_point].data_type if zero_point else TensorProto.UINT8
        if kind not in _CODE_BITS:
            return None
        zeros = np.asarray(self.array(zero_point)).astype(np.int64) if zero_point else np.zeros(scales.shape, np.int64)
        granularity: PerTensor | PerChannel | PerBlock = PerTensor()
        if block:
            granularity = PerBlock(axis, block)
        elif scales.size > 1:
            granularity = PerChannel(axis)
        spec = QuantSpec.from_dtype(_CODE_BITS[kind], symmetric=not zeros.any(), granularity=granularity)
        return QParams(scales, np.broadcast_to(zeros, scales.shape), spec)
