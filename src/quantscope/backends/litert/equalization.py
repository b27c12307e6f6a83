"""A LiteRT model as equalization sees it: how its operands lie, and its constants to be scaled."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.litert import metadata, schema
from quantscope.backends.litert.files import LiteRTModel, checked
from quantscope.backends.litert.structure import Structure, graph_of
from quantscope.equalization import Product, Use, equalize
from quantscope.graph import Op

# By op type of LiteRT: where its weight has the channels that go in and those that come out, its data and its bias.
_PRODUCTS = {
    "CONV_2D": (3, 0, 0, 2), "DEPTHWISE_CONV_2D": (3, 3, 0, 2), "FULLY_CONNECTED": (1, 0, 0, 2),
    "TRANSPOSE_CONV": (3, 0, 2, 3),
}  # fmt: skip
_WEIGHT = 1


def equalized(model: LiteRTModel, structure: Structure) -> tuple[LiteRTModel, tuple[str, ...]]:
    """The model with its channels equalized and the factors in its metadata, and notes; itself if there are none."""
    made, notes = equalize(_Layout(structure), lambda: _Draft(model, structure))
    return model if made is None else made.finished(), notes


class _Layout:
    """See `quantscope.equalization.Layout`."""

    # A graph within the graph reads nothing but what it is given.
    fixed: Mapping[str, str] = {}

    def __init__(self, structure: Structure) -> None:
        self.graph = graph_of(structure)
        self._constants = structure.constants
        self._numbers = {name: i for i, name in enumerate(structure.names)}

    def standard(self, op: Op) -> bool:
        return op.native_type == op.native_type.upper()

    def scalable(self, tensor: str) -> tuple[int, ...] | None:
        found = self.graph.tensor(tensor)
        if tensor not in self.graph.constants or found.dtype != "float32" or found.shape is None:
            return None
        return tuple(int(size) for size in found.shape if isinstance(size, int))

    def values(self, tensor: str) -> NDArray[Any] | None:
        return self._constants.array(self._numbers[tensor]) if tensor in self.graph.constants else None

    def product(self, op: Op) -> Product | None:
        if op.native_type not in _PRODUCTS:
            return None
        goes_in, comes_out, data, bias = _PRODUCTS[op.native_type]
        weight, shape = self.scalable(op.inputs[_WEIGHT]), self.graph.tensor(op.inputs[data]).shape
        if weight is None or not shape or not isinstance(shape[-1], int):
            return None
        # A grouped convolution's weight has the channels of one group, a depthwise one's several for each.
        read = (weight[goes_in] if op.native_type == "FULLY_CONNECTED" else shape[-1], goes_in)
        return Product(read, (weight[comes_out], comes_out), data=data, weight=_WEIGHT, bias=bias)


class _Draft:
    """See `quantscope.equalization.equalize.Draft`."""

    def __init__(self, model: LiteRTModel, structure: Structure) -> None:
        self._table = model.copied()
        self._structure = structure
        self._numbers: dict[str, int] = {}

    def own(self, uses: Sequence[Use]) -> dict[Use, str]:
        graph, structure = self._table.subgraphs[0], self._structure
        readers = Counter(i for op in graph.operators for i in schema.indices(op.inputs))
        positions = {name: at for at, name in enumerate(structure.op_names)}
        numbers = {}
        for use in uses:
            op, slot = graph.operators[positions[use[0]]], use[1]
            inputs = schema.indices(op.inputs)
            number = inputs[slot]
            if use not in numbers and readers[number] > 1:
                readers[number] -= 1
                # Under the same name, by which the op may be called.
                graph.tensors.append(copy.copy(graph.tensors[number]))
                inputs[slot] = number = len(graph.tensors) - 1
                op.inputs = np.array(inputs, np.int32)
            numbers[use] = number
        names = Structure(self.finished()).names
        self._numbers = {names[number]: number for number in numbers.values()}
        return {use: names[number] for use, number in numbers.items()}

    def read(self, constant: str) -> NDArray[Any]:
        tensor = self._table.subgraphs[0].tensors[self._numbers[constant]]
        data = np.asarray(self._table.buffers[int(tensor.buffer)].data, np.uint8)
        return np.frombuffer(data.tobytes(), np.float32).reshape(schema.shape(tensor.shape))

    def write(self, constant: str, values: NDArray[Any]) -> None:
        tensor = self._table.subgraphs[0].tensors[self._numbers[constant]]
        users = sum(int(t.buffer) == int(tensor.buffer) for graph in self._table.subgraphs for t in graph.tensors)
        if users > 1:
            # A converter keeps constants of the same values once.
            tensor.buffer = len(self._table.buffers)
            self._table.buffers.append(schema.tables.BufferT())
        data = np.ascontiguousarray(values, np.float32)
        self._table.buffers[int(tensor.buffer)].data = np.frombuffer(data.tobytes(), np.uint8)

    def remember(self, record: str) -> None:
        metadata.remember(self._table, record)

    def finished(self) -> LiteRTModel:
        """The model as it is by now."""
        return checked(schema.packed(self._table), "the equalized model")
