"""The main graph of a .tflite model as quantscope's own types, with the user's names."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from quantscope.backends.litert import schema
from quantscope.backends.litert.constants import Constants
from quantscope.backends.litert.files import LiteRTModel
from quantscope.backends.litert.names import is_given, op_name, unique
from quantscope.backends.litert.op_types import NO_WEIGHT, WEIGHTS, op_type
from quantscope.graph import Dimension, Graph, Op, Tensor
from quantscope.scopes import scopes

QUANTIZE, DEQUANTIZE = "QUANTIZE", "DEQUANTIZE"
_SHOWN_VALUES = 16
# What LiteRT's quantizers add to the name of a tensor that they bring back to real values.
_DEQUANTIZED = "_dequant"
# What options say of how codes are kept, and what stands in the graph anyway.
_LEFT_OUT = frozenset(("asymmetricQuantizeInputs", "quantizedBiasType", "weightsFormat", "outType", "inDataType"))
_ACTIVATIONS = {
    value: name.capitalize()
    for name, value in vars(schema.tables.ActivationFunctionType).items()
    if isinstance(value, int) and name != "NONE"
}


class Structure:
    """The tensors and ops of a model's main graph, with their names.

    `root` says by the number of a tensor which one it stands for: codes and what was dequantized stand for the tensor
    that an op computed. `names` are unique, of the tensors as they are; the model's own inputs and outputs go by the
    names of its signature. `native` says by position what LiteRT calls an op, `op_types` what quantscope does.
    """

    def __init__(self, model: LiteRTModel) -> None:
        self.table = model.table
        graph = self.table.subgraphs[0]
        self.tensors = list(graph.tensors or ())
        self.operators = list(graph.operators or ())
        self.constants = Constants(self.table)
        self.native = [schema.native_type(self.table.operatorCodes[op.opcodeIndex]) for op in self.operators]
        self.op_types = [op_type(self._kind(at)) for at in range(len(self.operators))]
        self.inputs = [i for i in schema.indices(graph.inputs) if i not in self.constants]
        self.outputs = schema.indices(graph.outputs)
        self.root = list(range(len(self.tensors)))
        for native, op in zip(self.native, self.operators, strict=True):
            if native in (QUANTIZE, DEQUANTIZE):
                self.root[int(op.outputs[0])] = self.root[int(op.inputs[0])]
        self._name()

    def _kind(self, position: int) -> str:
        """What LiteRT calls an op that computes this: a product with −1 is NEG, and one of a tensor with itself SQUARE.

        As such ops are written where a MUL can work on codes and they cannot.
        """
        native, read = self.native[position], schema.indices(self.operators[position].inputs)
        if native != "MUL" or len(read) != 2:
            return native
        if read[0] == read[1]:
            return "SQUARE"
        factor = next((i for i in read if i in self.constants and math.prod(self.shape(i)) == 1), None)
        return "NEG" if factor is not None and np.isclose(self.constants.real(factor), -1).all() else native

    def _name(self) -> None:
        raw = [schema.text(tensor.name) for tensor in self.tensors]
        names = [name or f"tensor {i}" for i, name in enumerate(raw)]
        labels = list(raw)
        signed = self._signature()
        first: dict[int, None] = {}
        called: list[str] = []
        for i in self.inputs:
            names[i] = signed.get(i, names[i])
            first[i] = None
        for i in self.outputs:
            root = self.root[i]
            if root in first or root in self.constants:
                continue
            # What was dequantized for the outside has the name; the codes before it gave it away.
            own = raw[root] if raw[i] == raw[root] + _DEQUANTIZED else raw[i] or names[root]
            names[i] = signed.get(i, own)
            labels[root] = names[i] if is_given(own) else own
            first[i] = None
        order = [*first, *(i for i in range(len(names)) if i not in first)]
        for i, name in zip(order, unique(names[i] for i in order), strict=True):
            names[i] = name
        self.names = names
        self._real = list(names)
        for i in reversed(self.outputs):
            if self.root[i] not in self.inputs and self.root[i] not in self.constants:
                self._real[self.root[i]] = names[i]
        for native, op in zip(self.native, self.operators, strict=True):
            written = schema.indices(op.outputs)[:1]
            if native in (QUANTIZE, DEQUANTIZE):
                called.append(f"{names[written[0]]}:{op_type(native)}")
                continue
            label = labels[written[0]] if written else ""
            if written and is_given(raw[written[0]]):
                label = self._weight_name(native, op) or label
            called.append(op_name(label, native) or op_type(native))
        self.op_names = unique(called)

    def _weight_name(self, native: str, op: Any) -> str:
        """The name of an op's weight, which is the op's own where its output was given another; "" without one."""
        at = WEIGHTS.get(native, (NO_WEIGHT, 0))[0]
        inputs = schema.indices(op.inputs)
        if at not in range(len(inputs)) or self.root[inputs[at]] not in self.constants:
            return ""
        name = schema.text(self.tensors[self.root[inputs[at]]].name)
        return "" if is_given(name) else name

    def _signature(self) -> dict[int, str]:
        """What the signature of the main graph calls its inputs and outputs."""
        for signature in self.table.signatureDefs or ():
            if int(signature.subgraphIndex) == 0:
                entries = [*(signature.inputs or ()), *(signature.outputs or ())]
                return {int(entry.tensorIndex): schema.text(entry.name) for entry in entries}
        return {}

    def real_name(self, tensor: int) -> str:
        """The name of the tensor of real values that this one stands for; "" for an operand that is left out."""
        return self._real[self.root[tensor]] if tensor >= 0 else ""

    def dtype(self, tensor: int) -> str:
        """numpy's name for the type of a tensor."""
        return schema.dtype_name(int(self.tensors[tensor].type))

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape that the file states, which may be that of another batch."""
        return schema.shape(self.tensors[tensor].shape)

    def is_codes(self, tensor: int) -> bool:
        """True for a tensor of codes that ops compute with, which constants and wide sums are not."""
        wide = self.dtype(tensor) in ("int32", "int64")
        return tensor >= 0 and not wide and tensor not in self.constants and self.constants.qparams(tensor) is not None

    def described(self, tensor: int, *, real: bool) -> Tensor:
        """A tensor of the graph; with `real` one that holds codes is shown as the real values they stand for."""
        found = self.tensors[tensor]
        signature = found.shapeSignature if found.shapeSignature is not None else found.shape
        shape: tuple[Dimension, ...] | None = tuple(d if d >= 0 else None for d in schema.shape(signature))
        # A tensor whose size is found when the model runs is written as a scalar.
        if not shape and not found.hasRank and tensor not in self.constants:
            shape = None
        kind = "float32" if real and self.is_codes(tensor) else self.dtype(tensor)
        name = self.real_name(tensor) if real else self.names[tensor]
        return Tensor(name, kind, shape)

    def attributes(self, position: int) -> dict[str, Any]:
        """What an op states beside its operands, as plain values."""
        op, native = self.operators[position], self.native[position]
        found: dict[str, Any] = {}
        for key, value in vars(op.builtinOptions).items() if op.builtinOptions is not None else ():
            if key == "fusedActivationFunction":
                if int(value) in _ACTIVATIONS:
                    found["activation"] = _ACTIVATIONS[int(value)]
            elif isinstance(value, bool | int | float | np.generic) and key not in _LEFT_OUT:
                found[key] = value.item() if isinstance(value, np.generic) else value
        inputs = schema.indices(op.inputs)
        if native == "TRANSPOSE" and inputs[1] in self.constants:
            found["perm"] = self.constants.array(inputs[1]).tolist()
        return {k: v for k, v in found.items() if not isinstance(v, list) or len(v) <= _SHOWN_VALUES}


def graph_of(structure: Structure) -> Graph:
    """The graph as it is written; inputs and outputs that are codes are shown as the real values they stand for."""
    placed = _scopes(structure)
    ops = []
    for position, op in enumerate(structure.operators):
        native = structure.native[position]
        names = [
            tuple(structure.names[i] if i >= 0 else "" for i in schema.indices(values))
            for values in (op.inputs, op.outputs)
        ]
        ops.append(
            Op(
                structure.op_names[position],
                structure.op_types[position],
                names[0],
                names[1],
                placed[position],
                structure.attributes(position),
                native,
            )
        )
    ends = {*structure.inputs, *structure.outputs}
    tensors = [structure.described(i, real=False) for i in range(len(structure.tensors))]
    for i in ends:
        if structure.is_codes(i):
            tensors[i] = Tensor(tensors[i].name, "float32", tensors[i].shape)
    return Graph(
        tuple(ops),
        {tensor.name: tensor for tensor in tensors},
        tuple(tensors[i] for i in structure.inputs),
        tuple(tensors[i] for i in structure.outputs),
        frozenset(structure.names[i] for i in range(len(tensors)) if i in structure.constants),
        channels_last=True,
    )


def _scopes(structure: Structure) -> list[str]:
    return scopes(structure.op_names, structure.native)
