"""The products that LiteRT computes from codes."""

from __future__ import annotations

from quantscope.backends.base import IntegerProduct
from quantscope.backends.litert import schema
from quantscope.backends.litert.op_types import WEIGHTS
from quantscope.backends.litert.structure import Structure


def integer_products(structure: Structure) -> list[IntegerProduct]:
    """The products with constant weights, in execution order; with float activations these get codes at run time."""
    found = []
    for name, native, op in zip(structure.op_names, structure.native, structure.operators, strict=True):
        if native not in WEIGHTS or native in ("GATHER", "EMBEDDING_LOOKUP"):
            continue
        inputs = schema.indices(op.inputs)
        weight, data = inputs[1], inputs[2 if native == "TRANSPOSE_CONV" else 0]
        if weight not in structure.constants or structure.constants.qparams(weight) is None:
            continue
        dynamic = structure.dtype(data) == "float32"
        found.append(
            IntegerProduct(name, "int8" if dynamic else structure.dtype(data), structure.dtype(weight), dynamic)
        )
    return found
