"""What is stored in a .tflite file: constants as arrays, and the scale and zero point of any tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.litert import schema
from quantscope.errors import ModelError
from quantscope.qparams import Granularity, PerBlock, PerChannel, PerTensor, QParams, QuantSpec

_CODES = frozenset(("int2", "int4", "int8", "uint4", "uint8", "int16", "uint16", "int32", "int64"))
_PACKED_BITS = {"int2": 2, "int4": 4, "uint4": 4}


class Constants:
    """The constants of a model's main graph, by the numbers of their tensors."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._tensors = table.subgraphs[0].tensors

    def __contains__(self, tensor: int) -> bool:
        return self._data(tensor) is not None

    def _data(self, tensor: int) -> Any:
        if tensor < 0 or self._tensors[tensor].isVariable:
            return None
        buffer = self._table.buffers[int(self._tensors[tensor].buffer)]
        return buffer.data if buffer.data is not None and len(buffer.data) else None

    def array(self, tensor: int) -> NDArray[Any]:
        """The values of a constant as they are stored, int8 where codes have fewer bits."""
        found = self._tensors[tensor]
        kind, shape = schema.dtype_name(int(found.type)), schema.shape(found.shape)
        data = np.frombuffer(np.ascontiguousarray(self._data(tensor), np.uint8).tobytes(), np.uint8)
        try:
            if kind in _PACKED_BITS:
                return _unpacked(data, _PACKED_BITS[kind], kind.startswith("u"), int(np.prod(shape))).reshape(shape)
            return data.view(kind).reshape(shape)
        except (ValueError, TypeError) as error:
            name = schema.text(found.name)
            raise ModelError(
                f"the constant {name!r} has {len(data)} bytes, not those of {kind or 'a type'}{list(shape)}",
                accepted="a complete .tflite file",
                next_step="copy or convert it again",
            ) from error

    def qparams(self, tensor: int) -> QParams | None:
        """Scale and zero point of a tensor, be it constant or not; None for one that is not quantized."""
        found = self._tensors[tensor]
        dtype, parameters = schema.dtype_name(int(found.type)), found.quantization
        if parameters is None or dtype not in _CODES:
            return None
        if int(parameters.detailsType) == schema.tables.QuantizationDetails.BlockwiseQuantization:
            return self._blockwise(tensor, parameters, dtype)
        if parameters.scale is None or not len(parameters.scale):
            return None
        scale = np.asarray(parameters.scale, np.float32)
        zero_point = np.zeros(scale.shape, np.int64)
        if parameters.zeroPoint is not None and len(parameters.zeroPoint):
            zero_point = np.broadcast_to(np.asarray(parameters.zeroPoint, np.int64), scale.shape).copy()
        granularity: Granularity = PerChannel(int(parameters.quantizedDimension)) if scale.size > 1 else PerTensor()
        spec = QuantSpec.from_dtype(dtype, symmetric=not zero_point.any(), granularity=granularity)
        if scale.size == 1:
            return QParams(scale.reshape(()), zero_point.reshape(()), spec)
        return QParams(scale, zero_point, spec)

    def _blockwise(self, tensor: int, parameters: Any, dtype: str) -> QParams | None:
        """Scales in a tensor of their own, one for each block along the last axis."""
        scales = int(parameters.details.scales)
        if scales not in self:
            return None
        scale = self.array(scales).astype(np.float32)
        rank = len(schema.shape(self._tensors[tensor].shape))
        granularity = PerBlock(rank - 1, int(parameters.details.blockSize))
        spec = QuantSpec.from_dtype(dtype, symmetric=True, granularity=granularity)
        shape = schema.shape(self._tensors[tensor].shape)
        scale = scale.reshape(*shape[:-1], -1)
        return QParams(scale, np.zeros(scale.shape, np.int64), spec)

    def real(self, tensor: int) -> NDArray[Any]:
        """The values of a constant, dequantized if it is quantized, float32 if it is stored in float16."""
        values, qparams = self.array(tensor), self.qparams(tensor)
        if qparams is not None:
            return qparams.dequantize(values)
        return values.astype(np.float32) if values.dtype == np.float16 else values


def _unpacked(data: NDArray[np.uint8], bits: int, unsigned: bool, count: int) -> NDArray[Any]:
    """Codes of less than a byte, the lowest bits of a byte first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = ((data[:, None] >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1)[:count]
    if unsigned:
        return codes
    return (codes.astype(np.int8) << (8 - bits)).astype(np.int8) >> (8 - bits)
