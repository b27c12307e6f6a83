"""A frozen graph as a float .tflite model, by TensorFlow's own converter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from quantscope.backends.tensorflow.converter.frozen import Frozen, first_line, with_batch
from quantscope.errors import ModelError, UnsupportedError

# How the converter names what LiteRT cannot run: in a list at the end, or at the op where it stopped.
_LISTED = re.compile(r"^(?:Flex|Custom|TF Select) ops: (.+)$", re.MULTILINE)
_MET = re.compile(r"'(tf\.\w+)' op (?:is neither a custom op nor a flex op|requires element_shape to be)")
_LISTS = "give every tf.TensorArray an element_shape of fixed sizes, and save the model again"
# By op which of its inputs is the shape of a list's elements.
_ELEMENT_SHAPE = {
    "TensorListReserve": 0,
    "EmptyTensorList": 0,
    "TensorListFromTensor": 1,
    "TensorListStack": 1,
    "TensorListGetItem": 2,
}


def notes(frozen: Frozen) -> list[str]:
    """What the converted model has otherwise than the user's."""
    fixed = [port.name for port in frozen.inputs if port.shape and port.shape[0] is None]
    if not fixed:
        return []
    what = f"the first size of {', '.join(fixed)}" if len(fixed) < len(frozen.inputs) else "the batch size"
    return [f"{what} is open in the TensorFlow model, and 1 in the .tflite model made of it"]


def written(frozen: Frozen, source: Path) -> bytes:
    """The .tflite file; its signature has the inputs and outputs of the model.

    Raises:
        UnsupportedError: an op is none of LiteRT's own.
        ModelError: the converter fails in another way.
    """
    graph = _with_fixed_sizes(frozen)
    imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    inputs = [imported.graph.get_tensor_by_name(port.tensor) for port in frozen.inputs]
    pruned = imported.prune(inputs, [imported.graph.get_tensor_by_name(port.tensor) for port in frozen.outputs])

    def signature(*arrays: Any) -> dict[str, Any]:
        found = pruned(*arrays)
        listed = found if isinstance(found, list | tuple) else [found]
        return {port.name: tensor for port, tensor in zip(frozen.outputs, listed, strict=True)}

    specification = [tf.TensorSpec(with_batch(port.shape or ()), port.dtype, port.name) for port in frozen.inputs]
    module = tf.Module()
    module.function = tf.function(signature, input_signature=specification)
    try:
        # Without the module the file would have no signature.
        function = module.function.get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
        content: bytes = converter.convert()
    except Exception as error:  # TensorFlow raises errors of many kinds.
        raise _failed(error, source) from error
    return content


def _with_fixed_sizes(frozen: Frozen) -> Any:
    """The graph with its inputs as they are in the converted model, and no shapes noted that came of other ones."""
    graph = tf.compat.v1.GraphDef()
    graph.CopyFrom(frozen.graph)
    shapes = {port.tensor.partition(":")[0]: with_batch(port.shape or ()) for port in frozen.inputs}
    functions = [node for function in graph.library.function for node in function.node_def]
    for node in [*graph.node, *functions]:
        node.attr.pop("_output_shapes", None)
    for node in graph.node:
        if node.name in shapes:
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(shapes[node.name]).as_proto())
    if any(port.shape and port.shape[0] is None for port in frozen.inputs):
        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            _fix_lists(nodes)
    return graph


def _fix_lists(nodes: Any) -> None:
    """Let lists of tensors, in which recurrent layers keep their steps, hold those of a batch of 1.

    The shape of an element is a constant, in which TensorFlow wrote the open batch size; other ops may read it too.
    """
    constants = {node.name: node for node in nodes if node.op == "Const"}
    for node in list(nodes):
        if node.op not in _ELEMENT_SHAPE:
            continue
        at = _ELEMENT_SHAPE[node.op]
        name, colon, output = node.input[at].partition(":")
        shape = tf.make_ndarray(constants[name].attr["value"].tensor) if name in constants else np.array(0)
        if shape.ndim == 1 and shape.size and shape[0] < 0:
            own = nodes.add()
            own.CopyFrom(constants[name])
            own.name = f"{node.name}/element_shape_of_1"
            own.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([1, *shape[1:]], shape.dtype))
            node.input[at] = own.name + colon + output


def _failed(error: Exception, source: Path) -> UnsupportedError | ModelError:
    text = str(error)
    listed = [name.strip() for names in _LISTED.findall(text) for name in names.split(",")]
    ops = list(dict.fromkeys(name.removeprefix("Flex").removeprefix("tf.") for name in [*listed, *_MET.findall(text)]))
    if ops:
        return UnsupportedError(
            f"{source} has {'an op' if len(ops) == 1 else 'ops'} that LiteRT itself does not have: {', '.join(ops)}",
            accepted="a model of LiteRT's built-in ops (https://ai.google.dev/edge/litert/models/ops_compatibility)",
            next_step=_LISTS
            if all(op.startswith("TensorList") for op in ops)
            else "save the part of the model without it, or another op in its place",
        )
    return ModelError(
        f"TensorFlow {tf.__version__} cannot convert {source}: {first_line(error)}",
        accepted="a .tflite file too, made with tf.lite.TFLiteConverter",
        next_step=f"save the part of the model without the op that is named; if it is of a loop, {_LISTS}",
    )
