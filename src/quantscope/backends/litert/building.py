"""Makes a small .tflite model op by op: for measurements, and for whoever tests a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.litert import schema

_TYPES = {
    "float32": "FLOAT32",
    "float16": "FLOAT16",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}


class Builder:
    """A model of one graph; tensors go by their names."""

    def __init__(self) -> None:
        made = schema.tables
        self._table: Any = made.ModelT()
        self._graph: Any = made.SubGraphT()
        self._table.version, self._table.description = 3, "quantscope"
        self._table.subgraphs, self._table.operatorCodes, self._table.buffers = [self._graph], [], [made.BufferT()]
        self._graph.name, self._graph.tensors, self._graph.operators = "main", [], []
        self._numbers: dict[str, int] = {}

    def tensor(
        self,
        name: str,
        shape: Sequence[int | None],
        dtype: str = "float32",
        *,
        scale: Sequence[float] = (),
        zero_point: Sequence[int] = (),
        axis: int = 0,
        variable: bool = False,
    ) -> str:
        """A tensor that is computed or fed; a dimension that is None is open. Returns its name.

        A variable one keeps its values from run to run.
        """
        made = schema.tables.TensorT()
        made.name, made.type = name, getattr(schema.tables.TensorType, _TYPES[dtype])
        made.shape = np.array([1 if d is None else d for d in shape], np.int32)
        made.buffer, made.hasRank, made.isVariable = 0, True, variable
        if None in shape:
            made.shapeSignature = np.array([-1 if d is None else d for d in shape], np.int32)
        if len(scale):
            made.quantization = schema.tables.QuantizationParametersT()
            made.quantization.scale = np.asarray(scale, np.float32)
            made.quantization.zeroPoint = np.asarray(zero_point or [0] * len(scale), np.int64)
            made.quantization.quantizedDimension = axis
        self._numbers[name] = len(self._graph.tensors)
        self._graph.tensors.append(made)
        return name

    def constant(self, name: str, values: NDArray[Any], **quantization: Any) -> str:
        """A tensor whose values are stored. Returns its name."""
        self.tensor(name, values.shape, str(values.dtype), **quantization)
        buffer = schema.tables.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._table.buffers.append(buffer)
        self._graph.tensors[-1].buffer = len(self._table.buffers) - 1
        return name

    def op(self, native: str, inputs: Sequence[str], outputs: Sequence[str], options: str = "", **values: Any) -> None:
        """An op by LiteRT's name for it; `options` is the name of its table in the schema, `values` what is in it."""
        number = getattr(schema.tables.BuiltinOperator, native)
        # Later versions are for operands of other types; LiteRT takes the kernel for those that are there.
        code = schema.op_code(self._table, number, 1)
        made = schema.operator(code, [self._numbers[n] for n in inputs], [self._numbers[n] for n in outputs])
        if options:
            made.builtinOptionsType = getattr(schema.tables.BuiltinOptions, options)
            made.builtinOptions = getattr(schema.tables, options + "T")()
            for key, value in values.items():
                setattr(made.builtinOptions, key, value)
        self._graph.operators.append(made)

    def finished(
        self, inputs: Sequence[str], outputs: Sequence[str], signature: Mapping[str, str] | None = None
    ) -> bytes:
        """The content of the file; `signature` gives names under which inputs and outputs are known outside."""
        self._graph.inputs = np.array([self._numbers[name] for name in inputs], np.int32)
        self._graph.outputs = np.array([self._numbers[name] for name in outputs], np.int32)
        if signature is not None:
            made = schema.tables.SignatureDefT()
            made.signatureKey, made.subgraphIndex = "serving_default", 0
            made.inputs = [self._entry(signature, name) for name in inputs]
            made.outputs = [self._entry(signature, name) for name in outputs]
            self._table.signatureDefs = [made]
        return schema.packed(self._table)

    def _entry(self, signature: Mapping[str, str], name: str) -> Any:
        entry = schema.tables.TensorMapT()
        entry.name, entry.tensorIndex = signature.get(name, name), self._numbers[name]
        return entry
