"""Frozen graphs: a GraphDef in a .pb file, whose variables are constants by now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from quantscope.backends.tensorflow import formats
from quantscope.backends.tensorflow.converter.frozen import Frozen, first_line, port
from quantscope.backends.tensorflow.converter.refusal import refuse_code
from quantscope.errors import ModelError, UnsupportedError

_PLACEHOLDER = "Placeholder"
_VARIABLES = frozenset(("VariableV2", "Variable", "VarHandleOp"))
_NO_OUTPUTS = frozenset((_PLACEHOLDER, "Const", "NoOp", "Assert"))


def load(path: Path) -> Frozen:
    """The model in a .pb file: its inputs are the placeholders, its outputs what comes of them and nothing uses.

    Raises:
        ModelError: it is no graph, or has variables.
        UnsupportedError: it has an op that TensorFlow does not have.
    """
    message = _message(path)
    variable = next((node for node in message.node if _is_variable(node)), None)
    if variable is not None:
        raise ModelError(
            f"the graph {path} is not frozen: {variable.name} is a variable, whose value is not in the file",
            accepted="a graph whose variables are constants",
            next_step="save a SavedModel, which holds the variables: tf.saved_model.save(model, FOLDER)",
        )
    functions = [node for function in message.library.function for node in function.node_def]
    refuse_code([*message.node, *functions], path)
    graph = tf.Graph()
    with graph.as_default():
        try:
            tf.graph_util.import_graph_def(message, name="")
        except Exception as error:  # TensorFlow raises errors of many kinds.
            raise _not_imported(path, first_line(error)) from error
    fed = _fed(message)
    placeholders = [node.name for node in message.node if node.op == _PLACEHOLDER]
    used = {_node_of(tensor) for node in message.node for tensor in node.input}
    ends = [node.name for node in message.node if node.name in fed - used and node.op not in _NO_OUTPUTS]
    outputs = [tensor for name in ends for tensor in graph.get_operation_by_name(name).outputs]
    inputs = [graph.get_tensor_by_name(f"{name}:0") for name in placeholders if name in used]
    if not inputs or not outputs:
        raise ModelError(
            f"the graph {path} has no {'output that depends on an input' if inputs else 'placeholder to feed'}",
            accepted="a graph with placeholders as inputs, and what is computed from them as outputs",
            next_step="freeze it again, with its outputs named",
        )
    session = tf.compat.v1.Session(graph=graph)

    def run(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = session.run(outputs, dict(zip(inputs, arrays, strict=True)))
        return found

    return Frozen(
        message,
        tuple(port(tensor.op.name, tensor) for tensor in inputs),
        tuple(port(tensor.name.removesuffix(":0").replace(":", "_"), tensor) for tensor in outputs),
        run,
    )


def _is_variable(node: Any) -> bool:
    """True also for what a function gets in the place of a variable."""
    passed_in = node.op == _PLACEHOLDER and node.attr["dtype"].type == tf.resource.as_datatype_enum
    return passed_in or node.op in _VARIABLES


def _message(path: Path) -> Any:
    message = tf.compat.v1.GraphDef()
    try:
        message.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise _no_graph(path) from error
    if not message.node or not all(node.op and node.name for node in message.node):
        raise _no_graph(path)
    return message


def _fed(message: Any) -> set[str]:
    """The nodes whose values depend on a placeholder."""
    readers: dict[str, list[str]] = {}
    for node in message.node:
        for tensor in node.input:
            readers.setdefault(_node_of(tensor), []).append(node.name)
    waiting = [node.name for node in message.node if node.op == _PLACEHOLDER]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += readers.get(name, ())
    return found


def _node_of(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def _no_graph(path: Path) -> ModelError:
    return ModelError(
        f"{path} holds no graph",
        accepted=formats.ACCEPTED,
        next_step="give the folder, if this is part of a SavedModel; write the graph as bytes, if it is text",
    )


def _not_imported(path: Path, why: str) -> ModelError | UnsupportedError:
    if "not registered" in why:
        return UnsupportedError(
            f"{path} has an op that TensorFlow {tf.__version__} does not have: {why}",
            accepted="a model of TensorFlow's own ops",
        )
    return ModelError(f"the graph {path} is damaged: {why}", accepted=formats.ACCEPTED, next_step="freeze it again")
