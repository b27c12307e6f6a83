"""A LiteRT model as if nothing had been quantized, and which of its tensors says what values a tensor has.

Integer models have ordinary ops that read and write codes; QUANTIZE and DEQUANTIZE stand where codes begin and end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quantscope.backends.litert import schema
from quantscope.backends.litert.structure import DEQUANTIZE, QUANTIZE, Structure, graph_of
from quantscope.graph import Graph, Op, Tensor
from quantscope.qparams import QParams
from quantscope.quantized import EncodedTensor, FloatView

CODES_SUFFIX = "/codes"
"""Behind the name of a tensor: its codes as they are, not what they stand for."""


@dataclass(frozen=True)
class Place:
    """Where values are in an interpreter: the number of a tensor, and how its codes become real; None if it is real."""

    tensor: int
    qparams: QParams | None = None


@dataclass(frozen=True, eq=False)
class Reading:
    """A float view, and where to find what its names stand for in the model that runs.

    `written` says by the name of a tensor in the view which tensor its op writes.
    """

    view: FloatView
    places: Mapping[str, Place]
    written: Mapping[str, int] = field(default_factory=dict)

    def place(self, name: str) -> Place | None:
        """Where a tensor is read: as real values, or as codes if the name says so; None if it is nowhere."""
        found = self.places.get(name)
        if found is None and name.endswith(CODES_SUFFIX):
            real = self.places.get(name.removesuffix(CODES_SUFFIX))
            return None if real is None else Place(real.tensor)
        return found


def reading(structure: Structure) -> Reading:
    """How to read a model as it is written."""
    codes: dict[str, int] = {}
    written: dict[str, int] = {}
    for native, op in zip(structure.native, structure.operators, strict=True):
        for i in schema.indices(op.outputs):
            name = structure.real_name(i)
            if structure.is_codes(i):
                # Of several quantizations of one tensor the first is its own; later ones rescale it for a consumer.
                codes.setdefault(name, i)
            if native not in (QUANTIZE, DEQUANTIZE):
                written[name] = i
    codes |= {structure.real_name(i): i for i in structure.inputs if structure.is_codes(i)}
    encoded = {
        name: EncodedTensor(name + CODES_SUFFIX, name, structure.constants.qparams(codes[name]))
        if name in codes
        else EncodedTensor(real=name)
        for name in (*written, *(n for n in map(structure.real_name, structure.inputs) if n in codes))
    }
    places = {structure.real_name(i): Place(i) for i in (*structure.inputs, *structure.outputs)}
    places |= {name: Place(i) for name, i in written.items()}
    places |= {name: Place(i, structure.constants.qparams(i)) for name, i in codes.items()}
    return Reading(FloatView(_float_graph(structure), encoded), places, written)


def _float_graph(structure: Structure) -> Graph:
    """The graph without QUANTIZE and DEQUANTIZE, whose tensors are all real."""
    whole = graph_of(structure)
    tensors: dict[str, Tensor] = {}
    for i in range(len(structure.tensors)):
        found = structure.described(i, real=True)
        if found.name not in tensors or structure.root[i] == i:
            tensors[found.name] = found

    def real(values: Any) -> tuple[str, ...]:
        return tuple(map(structure.real_name, schema.indices(values)))

    ops = [
        Op(op.name, op.op_type, real(raw.inputs), real(raw.outputs), op.scope, op.attributes, native)
        for op, native, raw in zip(whole.ops, structure.native, structure.operators, strict=True)
        if native not in (QUANTIZE, DEQUANTIZE)
    ]
    return Graph(
        tuple(ops),
        tensors,
        tuple(tensors[structure.real_name(i)] for i in structure.inputs),
        tuple(tensors[structure.real_name(i)] for i in structure.outputs),
        frozenset(structure.real_name(i) for i in range(len(structure.tensors)) if i in structure.constants),
        channels_last=True,
    )
