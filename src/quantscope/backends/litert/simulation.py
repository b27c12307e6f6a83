"""An integer model with its quantization simulated in float.

Every op computes with real values, and each tensor that has codes is quantized and dequantized behind its op.

The float ops read dequantized weights; where an op has no float form, it goes on reading and writing codes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.litert import schema
from quantscope.backends.litert.files import LiteRTModel
from quantscope.backends.litert.float_view import Place, Reading
from quantscope.backends.litert.op_types import COMPOUND
from quantscope.backends.litert.structure import DEQUANTIZE, QUANTIZE, Structure
from quantscope.backends.litert.weights import operands

_FLOAT32 = schema.tables.TensorType.FLOAT32
_QUANTIZE, _DEQUANTIZE = schema.tables.BuiltinOperator.QUANTIZE, schema.tables.BuiltinOperator.DEQUANTIZE


@dataclass(frozen=True, eq=False)
class Runnable:
    """A model to run op by op, and to cut: its tables, how to read it, and its ops by the names of its float view.

    `constants` gives by op and tensor the place of that operand in the op; `inputs` the numbers of the model's inputs.
    """

    table: Any
    reading: Reading
    inputs: Mapping[str, Place]
    ops: Mapping[str, int]
    constants: Mapping[tuple[str, str], int]


def as_written(structure: Structure, model: LiteRTModel, reading: Reading) -> Runnable:
    """A model whose ops run as they are."""
    places = {
        structure.names[i]: Place(i, structure.constants.qparams(i) if structure.is_codes(i) else None)
        for i in structure.inputs
    }
    return Runnable(model.copied(), reading, places, dict(_positions(structure)), _constant_places(structure))


def _positions(structure: Structure) -> Mapping[str, int]:
    return {name: position for position, name in enumerate(structure.op_names)}


def _constant_places(structure: Structure) -> dict[tuple[str, str], int]:
    return {(structure.op_names[o.op], structure.names[o.constant]): o.position for o in operands(structure)}


def simulated(structure: Structure, model: LiteRTModel, reading: Reading) -> Runnable:
    """The simulation of a model; `reading` is how the model itself is read, and its view is the simulation's too."""
    return _Simulation(structure, model, reading).made()


class _Simulation:
    """A model on its way to being simulated."""

    def __init__(self, structure: Structure, model: LiteRTModel, reading: Reading) -> None:
        self._structure = structure
        self._reading = reading
        self._table = model.copied()
        self._graph = self._table.subgraphs[0]
        self._tensors = self._graph.tensors
        self._ops: list[Any] = []
        self._real: dict[int, int] = {}
        self._float_constants: dict[int, int] = {}
        self._places: dict[str, Place] = {}
        self._written: dict[str, int] = {}
        self._at: dict[str, int] = {}
        self._quantize = schema.op_code(self._table, _QUANTIZE, 2)
        self._dequantize = schema.op_code(self._table, _DEQUANTIZE, 2)

    def made(self) -> Runnable:
        s = self._structure
        inputs: dict[str, Place] = {}
        numbers = []
        for i in s.inputs:
            fed = i
            if s.is_codes(i):
                fed = self._float_copy(i, "/fed")
                self._encode(fed, i, s.real_name(i))
            else:
                self._places[s.real_name(i)] = Place(i)
            inputs[s.names[i]] = Place(fed)
            numbers.append(fed)
        for position, op in enumerate(self._graph.operators):
            self._rewrite(position, op)
        self._graph.operators = self._ops
        self._graph.inputs = np.array(numbers, np.int32)
        self._graph.outputs = np.array([self._real.get(i, i) for i in s.outputs], np.int32)
        for i in s.outputs:
            name = s.real_name(i)
            self._places.setdefault(name, Place(self._real.get(i, i)))
        codes = {
            encoded.codes: Place(self._code_places[name])
            for name, encoded in self._reading.view.tensors.items()
            if encoded.codes and name in self._code_places
        }
        reading = Reading(self._reading.view, {**self._places, **codes}, self._written)
        return Runnable(self._table, reading, inputs, self._at, _constant_places(s))

    @property
    def _code_places(self) -> dict[str, int]:
        return {name: place.tensor for name, place in self._reading.places.items() if place.qparams is not None}

    def _rewrite(self, position: int, op: Any) -> None:
        s, native = self._structure, self._structure.native[position]
        inputs, outputs = schema.indices(op.inputs), schema.indices(op.outputs)
        if native == QUANTIZE:
            source = self._real.get(inputs[0], inputs[0])
            self._encode(source, outputs[0], s.real_name(outputs[0]))
            return
        if native == DEQUANTIZE:
            self._ops.append(op)
            if s.root[inputs[0]] not in s.constants:
                self._places[s.real_name(outputs[0])] = Place(outputs[0])
            return
        on_codes = any(s.is_codes(i) for i in (*inputs, *outputs) if i >= 0)
        in_float = on_codes and native not in COMPOUND and native == native.upper()
        if in_float:
            op = copy.copy(op)
            op.inputs = np.array([self._float_operand(i) for i in inputs], np.int32)
        written = list(outputs)
        behind: list[tuple[int, int, bool]] = []
        for number, i in enumerate(outputs):
            name = s.real_name(i)
            if not s.is_codes(i):
                self._written[name] = i
                self._places[name] = Place(i)
                continue
            real = self._float_copy(i, "/computed")
            self._written[name] = real
            written[number] = real if in_float else self._copy(i, "/integer")
            behind.append((i, written[number], in_float))
        if written != outputs:
            op = copy.copy(op)
            op.outputs = np.array(written, np.int32)
        self._at[s.op_names[position]] = len(self._ops)
        self._ops.append(op)
        for i, source, is_float in behind:
            real = self._written[s.real_name(i)]
            if not is_float:
                self._ops.append(schema.operator(self._dequantize, [source], [real]))
            self._encode(real, i, s.real_name(i))

    def _encode(self, source: int, codes: int, name: str) -> None:
        """Quantize the tensor `source` to `codes`, and let whatever reads them read what they stand for."""
        real = self._float_copy(codes, "/real")
        self._ops += [
            schema.operator(self._quantize, [source], [codes]),
            schema.operator(self._dequantize, [codes], [real]),
        ]
        self._real[codes] = real
        if self._code_places.get(name) == codes:
            # Not from what is dequantized: codes take a quarter of the memory.
            self._places[name] = Place(codes, self._structure.constants.qparams(codes))

    def _float_operand(self, tensor: int) -> int:
        s = self._structure
        if tensor < 0:
            return tensor
        if tensor in self._real:
            return self._real[tensor]
        if tensor in s.constants and s.constants.qparams(tensor) is not None:
            if tensor not in self._float_constants:
                self._float_constants[tensor] = add_constant(
                    self._table, s.names[tensor], s.constants.real(tensor).astype(np.float32)
                )
            return self._float_constants[tensor]
        return tensor

    def _float_copy(self, tensor: int, suffix: str) -> int:
        number = self._copy(tensor, suffix)
        self._tensors[number].type, self._tensors[number].quantization = _FLOAT32, None
        return number

    def _copy(self, tensor: int, suffix: str) -> int:
        """A tensor of the same shape with a name of its own."""
        made = copy.copy(self._tensors[tensor])
        made.name = self._structure.names[tensor] + suffix
        made.buffer = 0
        self._tensors.append(made)
        return len(self._tensors) - 1


def add_constant(table: Any, name: str, values: NDArray[Any]) -> int:
    """The number of a new float constant in a model's main graph."""
    buffer = schema.tables.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)
    table.buffers.append(buffer)
    made = schema.tables.TensorT()
    made.name, made.type, made.shape = name, _FLOAT32, np.array(values.shape, np.int32)
    made.buffer, made.hasRank = len(table.buffers) - 1, True
    tensors = table.subgraphs[0].tensors
    tensors.append(made)
    return len(tensors) - 1
