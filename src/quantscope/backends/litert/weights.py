"""The weights of a float or integer model in real values, in whatever form they are kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from quantscope.backends.litert import schema
from quantscope.backends.litert.op_types import BIASES, NO_WEIGHT, WEIGHTS
from quantscope.backends.litert.structure import DEQUANTIZE, QUANTIZE, Structure
from quantscope.quantized import Weight


@dataclass(frozen=True)
class Operand:
    """A constant that an op computes with: the op's position and that of the operand, and the constant's number."""

    op: int
    position: int
    constant: int


def operands(structure: Structure) -> Iterator[Operand]:
    """The constants of real values that ops compute with, through a DEQUANTIZE in front of them, scalars left out."""
    for at, (native, op) in enumerate(zip(structure.native, structure.operators, strict=True)):
        if native in (QUANTIZE, DEQUANTIZE):
            continue
        for position, tensor in enumerate(schema.indices(op.inputs)):
            if tensor < 0:
                continue
            constant = structure.root[tensor]
            if constant not in structure.constants or math.prod(structure.shape(constant)) < 2:
                continue
            if structure.dtype(constant).startswith("float") or structure.constants.qparams(constant) is not None:
                yield Operand(at, position, constant)


def weights(structure: Structure) -> list[Weight]:
    """The weights and biases, by the names of the float view."""
    found = []
    for operand in operands(structure):
        native = structure.native[operand.op]
        shape = structure.shape(operand.constant)
        at, axis = WEIGHTS.get(native, (NO_WEIGHT, 0))
        found.append(
            Weight(
                structure.op_names[operand.op],
                structure.names[operand.constant],
                shape,
                partial(structure.constants.real, operand.constant),
                "bias" if BIASES.get(native) == operand.position else "weight",
                axis % len(shape) if at == operand.position and len(shape) > 1 else None,
                structure.constants.qparams(operand.constant),
            )
        )
    return found
