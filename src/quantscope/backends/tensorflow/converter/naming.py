"""The names of the user's model, in the .tflite file: on its way there it has been wrapped in functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from quantscope.backends.tensorflow.converter.frozen import Frozen, Port

_IDENTIFIER = b"TFL3"
_PASSING = ("Identity", "IdentityN")
_CALLING = ("PartitionedCall", "StatefulPartitionedCall")
_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")


def renamed(content: bytes, frozen: Frozen) -> bytes:
    """The same file with the names of the graph's ops, and of the signature's inputs, and none of the wrapping.

    Inputs and outputs get the order that they have in the user's model, too.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    signature = next(s for s in model.signatureDefs if not s.subgraphIndex)
    own = {tensor.tensorIndex: _text(tensor.name) for tensor in signature.inputs}
    ends = _ends(frozen)
    own |= {tensor.tensorIndex: ends[_text(tensor.name)] for tensor in signature.outputs}
    taken: set[str] = set()
    # Inputs and outputs first: if names clash, theirs stay.
    for index in [*own, *(i for i in range(len(graph.tensors)) if i not in own)]:
        name = _free(own[index] if index in own else _unwrapped(_text(graph.tensors[index].name)), taken)
        taken.add(name)
        graph.tensors[index].name = name
    signature.inputs, graph.inputs = _ordered(signature.inputs, frozen.inputs)
    signature.outputs, graph.outputs = _ordered(signature.outputs, frozen.outputs)
    builder = flatbuffers.Builder(len(content) + (1 << 20))
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _ordered(tensors: Sequence[Any], ports: Sequence[Port]) -> tuple[list[Any], list[int]]:
    """What the signature says of these ports, in their order, and their tensors."""
    named = {_text(tensor.name): tensor for tensor in tensors}
    ordered = [named[port.name] for port in ports]
    return ordered, [tensor.tensorIndex for tensor in ordered]


def _unwrapped(name: str) -> str:
    """The joined names of fused ops, each once and without the function calls they were in."""
    parts = dict.fromkeys(_CALLS.sub("", part) for part in name.split(";"))
    # A part of digits alone only told the whole from another.
    return ";".join(part for part in parts if part and not part.isdecimal()) or name


def _ends(frozen: Frozen) -> dict[str, str]:
    """By output the op that computes it, which the converter's own name for the tensor hides."""
    graph = {node.name: node for node in frozen.graph.node}
    functions = {function.signature.name: function for function in frozen.graph.library.function}

    def end(port: Port) -> str:
        nodes, tensor = graph, port.tensor
        while True:
            name, _, place = tensor.removeprefix("^").partition(":")
            number = int(place.rpartition(":")[2] or 0)
            node = nodes.get(name)
            if node is None or node.op == "Placeholder":
                # An input of the model or of a function, passed on as it is.
                return port.name
            if node.op in _PASSING:
                tensor = node.input[number]
            elif node.op in _CALLING and node.attr["f"].func.name in functions:
                function = functions[node.attr["f"].func.name]
                nodes = {inner.name: inner for inner in function.node_def}
                tensor = function.ret[function.signature.output_arg[number].name]
            else:
                return name if number == 0 else f"{name}:{number}"

    return {port.name: _unwrapped(end(port)) for port in frozen.outputs}


def _free(name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else value or ""
