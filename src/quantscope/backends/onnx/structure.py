"""The graph of an ONNX model as quantscope's own types."""

from __future__ import annotations

import ast
import math
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import onnx
from onnx import TensorProto, helper

from quantscope.backends.onnx.external import place
from quantscope.backends.onnx.files import OnnxModel
from quantscope.graph import Dimension, Graph, Op, Tensor
from quantscope.scopes import scopes

_SCOPES_KEY = "pkg.torch.onnx.name_scopes"
_SHOWN_ATTRIBUTE_VALUES = 16
_LARGEST_SHAPE_CONSTANT = 64
_GRAPHS: WeakKeyDictionary[OnnxModel, Graph] = WeakKeyDictionary()


def name_ops(model: OnnxModel) -> None:
    """Give every node a name of its own: the type and first output where it has none, '#2' behind a repeated one."""
    _GRAPHS.pop(model, None)
    seen: dict[str, int] = {}
    for node in model.proto.graph.node:
        name = node.name or f"{node.op_type}:{next((o for o in node.output if o), '')}"
        seen[name] = seen.get(name, 0) + 1
        node.name = name if seen[name] == 1 else f"{name}#{seen[name]}"


def infer_types(model: OnnxModel) -> None:
    """Add the types and shapes that ONNX can infer; a model on which inference fails stays as it is."""
    found = inferred(without_weights(model.proto))
    if found is not None:
        _GRAPHS.pop(model, None)
        del model.proto.graph.value_info[:]
        model.proto.graph.value_info.extend(found.graph.value_info)


def inferred(proto: onnx.ModelProto, *, data_prop: bool = False) -> onnx.ModelProto | None:
    """The message with the types and shapes that ONNX can infer, from values of shapes too; None if that fails."""
    try:
        found: onnx.ModelProto = onnx.shape_inference.infer_shapes(proto, data_prop=data_prop)
    except Exception:  # Inference raises errors of many kinds, and what it would add is not needed to run.
        return None
    return found


def without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with inputs in the place of its large constants: inference needs the values of shapes alone."""
    graph = proto.graph
    small = [t for t in graph.initializer if math.prod(t.dims) <= _LARGEST_SHAPE_CONSTANT and place(t) is None]
    kept = {t.name for t in small} | {value.name for value in graph.input}
    large = [
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims))
        for t in graph.initializer
        if t.name not in kept
    ]
    light = onnx.GraphProto(
        name=graph.name, node=graph.node, initializer=small, input=[*graph.input, *large], output=graph.output,
        value_info=graph.value_info,
    )  # fmt: skip
    return onnx.ModelProto(
        ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions, graph=light
    )


@cache
def dtype_name(element_type: int) -> str:
    """numpy's name for an ONNX element type, "" where there is none."""
    if element_type == TensorProto.UNDEFINED:
        return ""
    try:
        return str(helper.tensor_dtype_to_np_dtype(element_type))
    except (KeyError, ValueError):
        return ""


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    shape: tuple[Dimension, ...] | None = None
    if kind.HasField("shape"):
        shape = tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in kind.shape.dim)
    return Tensor(value.name, dtype_name(kind.elem_type), shape)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return f"tensor of shape {list(value.dims)}"
    if isinstance(value, onnx.GraphProto):
        return f"graph of {len(value.node)} ops"
    if isinstance(value, int | float):
        return value
    values = list(value)
    return values if len(values) <= _SHOWN_ATTRIBUTE_VALUES else f"{len(values)} values"


def _declared_scope(node: onnx.NodeProto) -> str:
    """The modules that PyTorch's exporter notes for a node, as 'layers.0/attn'; "" where it noted none.

    The entry is a list of dotted names, each longer by a module, and last the node's own: "['', 'layers.0',
    'layers.0.attn', 'linear']".
    """
    entry = next((p.value for p in node.metadata_props if p.key == _SCOPES_KEY), "")
    try:
        names = ast.literal_eval(entry) if entry else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ""
    parts: list[str] = []
    outer = ""
    for name in names[:-1]:
        if name:
            parts.append(name.removeprefix(f"{outer}."))
            outer = name
    return "/".join(parts)


def graph_of(model: OnnxModel) -> Graph:
    """The graph of a model whose nodes all have names; types and shapes as far as the model tells them.

    It is made once: whatever changes the message of a model that has a graph has to go through this module.
    """
    if model not in _GRAPHS:
        _GRAPHS[model] = _graph(model.proto.graph)
    return _GRAPHS[model]


def _graph(graph: onnx.GraphProto) -> Graph:
    constants = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    tensors = {t.name: Tensor(t.name, dtype_name(t.data_type), tuple(t.dims)) for t in graph.initializer}
    tensors |= {v.name: _tensor(v) for v in (*graph.value_info, *graph.output, *graph.input)}
    nodes = graph.node
    placed = scopes([n.name for n in nodes], [n.op_type for n in nodes], [_declared_scope(n) for n in nodes])
    ops = []
    for node, scope in zip(graph.node, placed, strict=True):
        if node.op_type == "Constant":
            constants.update(node.output)
            continue
        ops.append(
            Op(
                node.name,
                node.op_type,
                tuple(node.input),
                tuple(node.output),
                scope,
                {a.name: _attribute(a) for a in node.attribute},
            )
        )
    return Graph(
        tuple(ops),
        tensors,
        tuple(_tensor(v) for v in graph.input if v.name not in constants),
        tuple(_tensor(v) for v in graph.output),
        frozenset(constants),
    )
