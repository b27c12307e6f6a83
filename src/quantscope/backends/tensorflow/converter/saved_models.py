"""SavedModel folders, of TensorFlow 1 and 2 and of every Keras.

They are all opened in a session, as TensorFlow 1 did: that needs the graph alone, while the loader of TensorFlow 2 also
brings the Python objects back, and fails on models of Keras 2 ('_UserObject' object has no attribute 'add_slot').
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

from quantscope.backends.tensorflow.converter.frozen import Frozen, Port, first_line, port
from quantscope.backends.tensorflow.converter.refusal import refuse_code
from quantscope.errors import ModelError

_TAG = "serve"
_SIGNATURE = "serving_default"
# TensorFlow itself writes this one into every SavedModel of version 2.
_INITIALIZER = "__saved_model_init_op"
# Where a checkpoint of version 2 says which object each of its values belongs to.
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
_NEXT_STEP = "save it with model.export(FOLDER), or tf.saved_model.save(model, FOLDER, signatures=...)"


def load(folder: Path) -> Frozen:
    """The model in a SavedModel folder.

    Raises:
        ModelError: it is damaged, or does not say what its inputs and outputs are.
    """
    tags, signature, name = _chosen(folder)
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph)
    with graph.as_default():
        try:
            tf.compat.v1.saved_model.load(session, tags, str(folder))
        except Exception as error:  # TensorFlow raises errors of many kinds.
            raise ModelError(
                f"cannot load the SavedModel {folder}: {first_line(error)}",
                accepted="a complete SavedModel folder",
                next_step="copy or save it again",
            ) from error
        _restore_rest(session, graph, folder)
        inputs, outputs = (
            {key: graph.get_tensor_by_name(info.name) for key, info in sorted(ports.items())}
            for ports in (signature.inputs, signature.outputs)
        )
        if not inputs or not outputs:
            raise ModelError(
                f"the signature {name} of {folder} has no {'outputs' if inputs else 'inputs'}",
                accepted="a signature with inputs and outputs",
                next_step=_NEXT_STEP,
            )
        try:
            frozen = tf.compat.v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), sorted({tensor.op.name for tensor in outputs.values()})
            )
        except Exception as error:
            raise ModelError(
                f"the variables of {folder} cannot be made constants: {first_line(error)}",
                accepted="a model whose variables stay as they are while it runs",
                next_step=_NEXT_STEP,
            ) from error

    def run(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = session.run(list(outputs.values()), dict(zip(inputs.values(), arrays, strict=True)))
        return found

    _drop_unused_functions(frozen)
    return Frozen(frozen, _ports(inputs), _ports(outputs), run)


def _restore_rest(session: Any, graph: Any, folder: Path) -> None:
    """Give variables the values that are saved under their names, where loading has left them without one.

    What tf.saved_model.save writes for a model of Keras 3 restores copies that nothing reads.
    """
    handles = [op for op in graph.get_operations() if op.type == "VarHandleOp"]
    is_set = session.run([tf.raw_ops.VarIsInitializedOp(resource=op.outputs[0]) for op in handles])
    without = [op for op, done in zip(handles, is_set, strict=True) if not done]
    if without:
        saved = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        keys = _checkpoint_keys(saved)
        session.run([
            tf.raw_ops.AssignVariableOp(resource=op.outputs[0], value=saved.get_tensor(keys[op.name]))
            for op in without
            if op.name in keys
        ])  # fmt: skip


def _checkpoint_keys(saved: Any) -> dict[str, str]:
    """By the name of a variable what a checkpoint keeps it under; names that several share are left out."""
    if not saved.has_tensor(_OBJECTS):
        return {}
    message = trackable_object_graph_pb2.TrackableObjectGraph.FromString(saved.get_tensor(_OBJECTS))
    found: dict[str, set[str]] = {}
    for node in message.nodes:
        for attribute in node.attributes:
            found.setdefault(attribute.full_name, set()).add(attribute.checkpoint_key)
    return {name: next(iter(keys)) for name, keys in found.items() if len(keys) == 1}


def _ports(tensors: Mapping[str, Any]) -> tuple[Port, ...]:
    return tuple(port(key, tensor) for key, tensor in tensors.items())


def _drop_unused_functions(graph: Any) -> None:
    """Leave in a graph only the functions that it calls: of the others freezing has kept just a part."""
    functions = {function.signature.name: function for function in graph.library.function}
    waiting = list(_called(graph.node))
    used = set()
    while waiting:
        name = waiting.pop()
        if name in functions and name not in used:
            used.add(name)
            waiting += _called(functions[name].node_def)
    kept = [functions[name] for name in sorted(used)]
    del graph.library.function[:]
    graph.library.function.extend(kept)


def _called(nodes: Iterable[Any]) -> Iterator[str]:
    """The functions that these nodes name."""
    for node in nodes:
        yield node.op
        for value in node.attr.values():
            yield value.func.name
            yield from (function.name for function in value.list.func)


def _chosen(folder: Path) -> tuple[list[str], Any, str]:
    """The tags of the graph to load, and the signature to convert with its name."""
    message = saved_model_pb2.SavedModel()
    try:
        message.ParseFromString((folder / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as error:
        raise ModelError(
            f"{folder}/saved_model.pb cannot be read: {first_line(error)}",
            accepted="a SavedModel folder",
            next_step="copy or save it again",
        ) from error
    graphs = message.meta_graphs
    chosen = next((g for g in graphs if _TAG in g.meta_info_def.tags), graphs[0] if len(graphs) == 1 else None)
    if chosen is None:
        tags = "; ".join(", ".join(g.meta_info_def.tags) for g in graphs) or "none"
        raise ModelError(
            f"no graph of the SavedModel {folder} is tagged {_TAG}: {tags}",
            accepted=f"a SavedModel with a graph that is tagged {_TAG}",
            next_step=_NEXT_STEP,
        )
    functions = [node for function in chosen.graph_def.library.function for node in function.node_def]
    refuse_code([*chosen.graph_def.node, *functions], folder)
    name = _signature_name([key for key in chosen.signature_def if key != _INITIALIZER], folder)
    return list(chosen.meta_info_def.tags), chosen.signature_def[name], name


def _signature_name(names: Iterable[str], folder: Path) -> str:
    found = sorted(names)
    if _SIGNATURE in found:
        return _SIGNATURE
    if len(found) == 1:
        return found[0]
    raise ModelError(
        f"the SavedModel {folder} has {'the signatures ' + ', '.join(found) if found else 'no signature'}",
        accepted=f"a SavedModel with the signature {_SIGNATURE}, or with one alone",
        next_step=_NEXT_STEP,
    )
