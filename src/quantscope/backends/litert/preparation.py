"""The float model as LiteRT's quantizer shall see it: ops that it has no form for, written as others that it knows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.litert import schema
from quantscope.backends.litert.files import LiteRTModel, checked
from quantscope.backends.litert.structure import DEQUANTIZE, Structure

# They give another shape to the same values.
_RESHAPING = frozenset(("EXPAND_DIMS", "SQUEEZE"))
# What they compute is a product, bit by bit: of x and −1, or of x and x.
_PRODUCTS = frozenset(("NEG", "SQUARE"))


def prepared(model: LiteRTModel, structure: Structure) -> LiteRTModel:
    """The model with weights in float32, and with ops that can work on codes for some that cannot.

    RESHAPE stands for EXPAND_DIMS and SQUEEZE, MUL for NEG and SQUARE.
    """
    unpacking = [
        at
        for at, native in enumerate(structure.native)
        if native == DEQUANTIZE and int(structure.operators[at].inputs[0]) in structure.constants
    ]
    targets = {
        at: target
        for at, native in enumerate(structure.native)
        if native in _RESHAPING and (target := _target(structure, at)) is not None
    }
    products = [
        at
        for at, native in enumerate(structure.native)
        if native in _PRODUCTS and structure.dtype(int(structure.operators[at].outputs[0])) == "float32"
    ]
    if not (targets or products or unpacking):
        return model
    table = model.copied()
    operators = table.subgraphs[0].operators
    reshape = schema.op_code(table, schema.tables.BuiltinOperator.RESHAPE)
    for at, target in targets.items():
        read, written = int(operators[at].inputs[0]), schema.indices(operators[at].outputs)
        shape = _constant(table, structure, at, "new_shape", np.array(target, np.int32))
        made = schema.operator(reshape, [read, shape], written)
        made.builtinOptionsType = schema.tables.BuiltinOptions.ReshapeOptions
        made.builtinOptions = schema.tables.ReshapeOptionsT()
        made.builtinOptions.newShape = target
        operators[at] = made
    multiply = schema.op_code(table, schema.tables.BuiltinOperator.MUL) if products else 0
    for at in products:
        read, written = int(operators[at].inputs[0]), schema.indices(operators[at].outputs)
        other = read
        if structure.native[at] == "NEG":
            other = _constant(table, structure, at, "minus_one", np.array(-1, np.float32))
        operators[at] = schema.operator(multiply, [read, other], written)
        operators[at].builtinOptionsType = schema.tables.BuiltinOptions.MulOptions
        operators[at].builtinOptions = schema.tables.MulOptionsT()
    for at in unpacking:
        stored, tensors = int(operators[at].inputs[0]), table.subgraphs[0].tensors
        written = tensors[int(operators[at].outputs[0])]
        written.buffer = _buffer(table, structure.constants.real(stored).astype(np.float32))
        # The weight keeps its name, by which an op may be called.
        written.name, tensors[stored].name = tensors[stored].name, written.name
    table.subgraphs[0].operators = [op for at, op in enumerate(operators) if at not in set(unpacking)]
    return checked(schema.packed(table), "the prepared model")


def _target(structure: Structure, at: int) -> list[int] | None:
    """The shape that an op gives, −1 for a dimension that is open; None if it is not known, or does not hold values."""
    op = structure.operators[at]
    read, written = int(op.inputs[0]), int(op.outputs[0])
    if structure.dtype(written) != "float32" or read in structure.constants:
        return None
    tensor = structure.tensors[written]
    is_open = any(structure.tensors[i].shapeSignature is not None for i in structure.inputs)
    if is_open and tensor.shapeSignature is None:
        # The batch that it states need not be that of the samples.
        return None
    shape = list(schema.shape(tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature))
    return shape if shape and sum(size < 0 for size in shape) <= 1 else None


def _constant(table: Any, structure: Structure, at: int, what: str, values: NDArray[Any]) -> int:
    """The number of a new operand for the op at this position."""
    made = schema.tables.TensorT()
    made.name = f"{schema.text(structure.tensors[int(structure.operators[at].outputs[0])].name)}/{what}"
    made.type = getattr(schema.tables.TensorType, str(values.dtype).upper())
    made.shape, made.buffer, made.hasRank = np.array(values.shape, np.int32), _buffer(table, values), True
    tensors = table.subgraphs[0].tensors
    tensors.append(made)
    return len(tensors) - 1


def _buffer(table: Any, values: NDArray[Any]) -> int:
    """The number of a new buffer with these values."""
    made = schema.tables.BufferT()
    made.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    table.buffers.append(made)
    return len(table.buffers) - 1
