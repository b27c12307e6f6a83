"""A graph as it is drawn: in columns, with groups, and with the node of every compared tensor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from quantscope.diagnosis import TensorDiagnosis
from quantscope.graph import Graph, Tensor
from quantscope.grouping import Grouping, Wiring, grouped
from quantscope.runfile import graph_from
from quantscope.serve import api
from quantscope.serve.kept import Kept


class Picture:
    """A graph with what drawing it needs; nodes are known by their place in execution order."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._index = {op.name: i for i, op in enumerate(graph.ops)}
        self._made: dict[str, int] = {}
        self._read: dict[str, list[int]] = {}
        for i, op in enumerate(graph.ops):
            for name in op.outputs:
                self._made[name] = i
            for name in dict.fromkeys(op.inputs):
                self._read.setdefault(name, []).append(i)
        wiring = Wiring.of(graph)
        self._owner = wiring.owner
        self.columns = self._columns(grouped(graph, wiring))

    def producers(self, tensor: str) -> list[int]:
        """The node that computes a tensor, if one does."""
        return [self._made[tensor]] if tensor in self._made else []

    def readers(self, tensor: str) -> list[int]:
        """The nodes that read a tensor."""
        return self._read.get(tensor, [])

    def node_of(self, tensor: TensorDiagnosis, side: api.Side) -> int:
        """The node of a row: its op by name, else what computes its tensor, codes aside; −1 if there is none."""
        if side == "reference":
            return self._index.get(tensor.op, self._made.get(tensor.tensor, -1))
        if tensor.op in self._index:
            return self._index[tensor.op]
        made = self._made.get(tensor.quantized_tensor, self._made.get(tensor.tensor, -1))
        if made >= 0:
            return self._owner[made]
        readers = self._read.get(tensor.quantized_tensor, ()) if tensor.role != "activation" else ()
        return next((self._owner[i] for i in readers if self._owner[i] >= 0), -1)

    def operand(self, name: str, nodes: Sequence[int]) -> dict[str, Any]:
        """A tensor that an op reads or writes."""
        return {**_facts(self.graph.tensor(name)), "constant": name in self.graph.constants, "nodes": list(nodes)}

    def _columns(self, groups: Grouping) -> dict[str, Any]:
        graph = self.graph
        types = sorted({op.op_type for op in graph.ops})
        number = {op_type: i for i, op_type in enumerate(types)}
        edges = [
            (self._made[name], i, name)
            for i, op in enumerate(graph.ops)
            for name in dict.fromkeys(op.inputs)
            if name and name in self._made
        ]
        return {
            "grouping": groups.source,
            "ops": types,
            "nodes": {
                "name": [op.name for op in graph.ops],
                "label": list(groups.labels),
                "op": [number[op.op_type] for op in graph.ops],
                "group": list(groups.group),
            },
            "groups": {"name": list(groups.names), "parent": list(groups.parents)},
            "edges": {
                "src": [edge[0] for edge in edges],
                "dst": [edge[1] for edge in edges],
                "tensor": [edge[2] for edge in edges],
            },
            "inputs": [{**_facts(t), "nodes": self.readers(t.name)} for t in graph.inputs],
            "outputs": [{**_facts(t), "nodes": self.producers(t.name)} for t in graph.outputs],
        }


def _facts(tensor: Tensor) -> dict[str, Any]:
    shape = None if tensor.shape is None else list(tensor.shape)
    return {"tensor": tensor.name, "dtype": tensor.dtype, "shape": shape}


_pictures: Kept[Picture] = Kept(4)


def picture(text: str) -> Picture:
    """The picture of a graph as a run file holds it; the last few are kept."""
    return _pictures.get(text, lambda: Picture(graph_from(json.loads(text))))
