"""Integer divisions computed in float, for samples on which LiteRT's integer DIV fails since a divisor is zero."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from quantscope.backends.litert import schema

_DIV = schema.tables.BuiltinOperator.DIV
_CODES = frozenset(getattr(schema.tables.TensorType, name) for name in ("INT8", "UINT8", "INT16"))


def in_float(content: bytes) -> bytes:
    """The model with its integer divisions between DEQUANTIZE and QUANTIZE; the content itself if it has none.

    Tensors and graphs keep their numbers. A division by constants none of which is zero stays as it is.
    """
    if not _divides(content):
        return content
    table = schema.unpacked(content)
    found = False
    for graph in table.subgraphs:
        operators: list[Any] = []
        for op in graph.operators:
            fails = can_fail(table, graph, op)
            operators += _rewritten(table, graph, op) if fails else [op]
            found = found or fails
        graph.operators = operators
    return schema.packed(table) if found else content


def _divides(content: bytes) -> bool:
    """True if the model has divisions, be they of integers or not."""
    model = schema.tables.Model.GetRootAs(content, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    return any(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) == _DIV for code in codes)


def can_fail(table: Any, graph: Any, op: Any) -> bool:
    """True for a division of codes whose divisor may be zero."""
    if schema.builtin(table.operatorCodes[op.opcodeIndex]) != _DIV:
        return False
    divisor = graph.tensors[int(op.inputs[1])]
    parameters, data = divisor.quantization, table.buffers[int(divisor.buffer)].data
    if int(divisor.type) not in _CODES or parameters is None or parameters.scale is None:
        return False
    if data is None or not len(data):
        return True
    zero = 0 if parameters.zeroPoint is None else int(parameters.zeroPoint[0])
    codes = np.frombuffer(bytes(data), schema.dtype_name(int(divisor.type)))
    return bool((codes == zero).any())


def _rewritten(table: Any, graph: Any, op: Any) -> Iterator[Any]:
    """The ops in the place of a division."""
    quantize, dequantize = (
        schema.op_code(table, number, 2)
        for number in (schema.tables.BuiltinOperator.QUANTIZE, schema.tables.BuiltinOperator.DEQUANTIZE)
    )
    read, written = schema.indices(op.inputs), int(op.outputs[0])
    real = [_real(graph, i) for i in (*read, written)]
    for codes, values in zip(read, real, strict=False):
        yield schema.operator(dequantize, [codes], [values])
    made = copy.copy(op)
    made.inputs, made.outputs = np.array(real[:-1], np.int32), np.array(real[-1:], np.int32)
    yield made
    yield schema.operator(quantize, [real[-1]], [written])


def _real(graph: Any, tensor: int) -> int:
    """The number of a new tensor for the real values that the codes of another stand for."""
    made = copy.copy(graph.tensors[tensor])
    made.name, made.buffer = f"{schema.text(made.name)}/real", 0
    made.type, made.quantization = schema.tables.TensorType.FLOAT32, None
    graph.tensors.append(made)
    return len(graph.tensors) - 1
