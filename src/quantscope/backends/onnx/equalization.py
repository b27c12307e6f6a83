"""An ONNX model as equalization sees it: how its operands lie, and its constants to be scaled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from onnx import TensorProto

from quantscope.backends.onnx import metadata
from quantscope.backends.onnx.external import array, place, put
from quantscope.backends.onnx.files import OnnxModel, own
from quantscope.backends.onnx.order import read_by, read_inside
from quantscope.backends.onnx.simulation import FreshNames
from quantscope.backends.onnx.structure import graph_of
from quantscope.equalization import Product, Use, equalize
from quantscope.graph import Op

_CONVOLUTIONS = frozenset(("Conv", "ConvTranspose"))
# A float16 activation that grows may become infinite.
_SCALED_TYPES = frozenset((TensorProto.FLOAT, TensorProto.DOUBLE))


def equalized(model: OnnxModel) -> tuple[OnnxModel, tuple[str, ...]]:
    """The model with its channels equalized and the factors in its metadata, and notes; itself if there are none."""
    made, notes = equalize(_Layout(model), lambda: _Draft(model))
    return model if made is None else made.model, notes


class _Layout:
    """See `quantscope.equalization.Layout`."""

    def __init__(self, model: OnnxModel) -> None:
        graph = model.proto.graph
        self.graph = graph_of(model)
        self.fixed: Mapping[str, str] = {name: node.op_type for node in graph.node for name in read_inside(node)}
        self._constants = {t.name: t for t in graph.initializer}
        self._standard = {node.name for node in graph.node if node.domain in ("", "ai.onnx")}

    def standard(self, op: Op) -> bool:
        return op.name in self._standard

    def scalable(self, tensor: str) -> tuple[int, ...] | None:
        found = self._constants.get(tensor)
        return tuple(found.dims) if found is not None and found.data_type in _SCALED_TYPES else None

    def values(self, tensor: str) -> NDArray[Any] | None:
        found = self._constants.get(tensor)
        return array(found, None) if found is not None and place(found) is None else None

    def product(self, op: Op) -> Product | None:
        weight = self.scalable(op.inputs[1]) if len(op.inputs) > 1 else None
        if weight is None or len(weight) < 2:
            return None
        rank = len(weight)
        axes = {
            "Conv": (1, 0),
            "ConvTranspose": (0, 1),
            "Gemm": (1, 0) if op.attributes.get("transB", 0) else (0, 1),
            "MatMul": (rank - 2, rank - 1),
        }.get(op.op_type)
        if axes is None:
            return None
        convolution = op.op_type in _CONVOLUTIONS
        groups = op.attributes.get("group", 1) if convolution else 1
        # Axis 1 of a grouped convolution's weight has the channels of one group.
        read, written = ((weight[axis] * (groups if axis == 1 else 1), axis) for axis in axes)
        return Product(None if op.attributes.get("transA", 0) else read, written, rank - 2 if convolution else 0)


class _Draft:
    """See `quantscope.equalization.equalize.Draft`."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model.copy()
        self._tensors: dict[str, TensorProto] = {}

    def own(self, uses: Sequence[Use]) -> dict[Use, str]:
        graph = self.model.proto.graph
        constants = {tensor.name: tensor for tensor in graph.initializer}
        readers = Counter(name for node in graph.node for name in read_by(node))
        readers.update(value.name for value in graph.output)
        fresh = FreshNames(graph)
        nodes = {node.name: node for node in graph.node}
        names = {}
        for use in uses:
            node, slot = nodes[use[0]], use[1]
            name = node.input[slot]
            if use not in names and readers[name] > 1:
                copy = graph.initializer.add()
                copy.CopyFrom(constants[name])
                copy.name = fresh(f"{name}/{node.name}")
                readers[name] -= 1
                node.input[slot] = name = copy.name
            names[use] = name
        # Now that each constant is there, each gets values of its own, be they in a file.
        self.model = own(self.model)
        self._tensors = {tensor.name: tensor for tensor in self.model.proto.graph.initializer}
        return names

    def read(self, constant: str) -> NDArray[Any]:
        return array(self._tensors[constant], self.model.folder)

    def write(self, constant: str, values: NDArray[Any]) -> None:
        put(self._tensors[constant], values, self.model.folder)

    def remember(self, record: str) -> None:
        metadata.remember(self.model.proto, record)
