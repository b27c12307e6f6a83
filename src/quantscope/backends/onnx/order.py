"""Brings the nodes of a model into an order in which each comes after what it reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import onnx


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Sort the nodes topologically, keeping their order where it is free; a sorted graph stays as it is.

    ONNX asks for it. ONNX Runtime does not: its quantizer appends QuantizeLinear and DequantizeLinear at the end, and
    its sessions load such a model. A graph with a cycle is left as it is: loading it will say so.
    """
    nodes = list(graph.node)
    producers = {name: position for position, node in enumerate(nodes) for name in node.output if name}
    needs = [{producers[name] for name in read_by(node) if name in producers} - {i} for i, node in enumerate(nodes)]
    if all(position < i for i, before in enumerate(needs) for position in before):
        return
    order: list[int] = []
    placed: set[int] = set()
    for position in range(len(nodes)):
        # Depth first, so that a node comes right before the first one that needs it.
        waiting = deque([position])
        seen: set[int] = set()
        while waiting:
            current = waiting[-1]
            missing = sorted(p for p in needs[current] if p not in placed) if current not in placed else []
            if missing and current in seen:
                return
            seen.add(current)
            if missing:
                waiting.extend(reversed(missing))
                continue
            waiting.pop()
            if current not in placed:
                placed.add(current)
                order.append(current)
    copies = [onnx.NodeProto() for _ in nodes]
    for copy, position in zip(copies, order, strict=True):
        copy.CopyFrom(nodes[position])
    del graph.node[:]
    graph.node.extend(copies)


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, and what is read inside its graphs, names of their own among it."""
    yield from node.input
    yield from read_inside(node)


def read_inside(node: onnx.NodeProto) -> Iterator[str]:
    """What is read inside the graphs of a node, names of their own among it."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from read_by(inner)
