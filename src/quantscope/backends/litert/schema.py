"""The .tflite format: a flatbuffer as objects that can be read, changed and written again.

The classes come out of LiteRT's own wheel, generated from its schema; names of plain objects end in T.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated

tables: Any = schema_py_generated
"""The classes of the schema."""
IDENTIFIER = b"TFL3"
NO_TENSOR = -1
_DTYPES = {
    "FLOAT32": "float32", "FLOAT16": "float16", "FLOAT64": "float64", "BFLOAT16": "bfloat16", "INT2": "int2",
    "INT4": "int4", "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "UINT4": "uint4",
    "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "BOOL": "bool", "STRING": "object",
    "COMPLEX64": "complex64", "COMPLEX128": "complex128",
}  # fmt: skip
_TYPE_NAMES = {
    value: _DTYPES.get(name, "") for name, value in vars(tables.TensorType).items() if isinstance(value, int)
}
_BUILTINS: dict[int, str] = {
    value: name for name, value in vars(tables.BuiltinOperator).items() if isinstance(value, int)
}
FLOATS = frozenset((tables.TensorType.FLOAT32, tables.TensorType.FLOAT16))


def unpacked(content: bytes) -> Any:
    """The model in a file's content; the arrays of its weights are views of it.

    Raises:
        Exception: of many kinds, if it is damaged.
    """
    model = tables.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers or ():
        # Large weights may lie behind the flatbuffer, which cannot be more than 2 GiB.
        if int(buffer.offset) > 1:
            start, stop = int(buffer.offset), int(buffer.offset) + int(buffer.size)
            if stop > len(content):
                raise ValueError(f"weights end at byte {stop} of {len(content)}")
            buffer.data = np.frombuffer(content, np.uint8)[start:stop]
            buffer.offset = buffer.size = 0
    return model


def packed(model: Any) -> bytes:
    """The content of a file that holds this model."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def dtype_name(tensor_type: int) -> str:
    """numpy's name for an element type, "int4" and the like among them; "" where there is none."""
    return _TYPE_NAMES.get(tensor_type, "")


def builtin(code: Any) -> int:
    """The number of an operator code; old files have it in a byte, new ones beside that."""
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


def native_type(code: Any) -> str:
    """What LiteRT calls an op: CONV_2D, or a custom op's own name."""
    number = builtin(code)
    if number == tables.BuiltinOperator.CUSTOM and code.customCode:
        return text(code.customCode)
    return _BUILTINS.get(number, f"OP_{number}")


def text(value: bytes | str | None) -> str:
    """A string of the file."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def indices(values: Any) -> list[int]:
    """A list of tensor numbers; none where the file has no list."""
    return [] if values is None else [int(value) for value in values]


def shape(values: Any) -> tuple[int, ...]:
    """A shape of the file; () where it has none, which is how a scalar is written."""
    return () if values is None else tuple(int(value) for value in values)


def op_code(model: Any, number: int, version: int = 1) -> int:
    """The position of the operator code of this builtin number, in this version at least; added if it is not there."""
    for position, code in enumerate(model.operatorCodes):
        if builtin(code) == number and int(code.version) >= version:
            return position
    code = tables.OperatorCodeT()
    code.builtinCode, code.version = number, version
    code.deprecatedBuiltinCode = min(number, 127)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def operator(code: int, inputs: list[int], outputs: list[int]) -> Any:
    """An op without options."""
    made = tables.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = code, inputs, outputs
    return made
