"""Makes a float model ready for quantization, and survives the models on which a step fails."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import onnx
from onnx import numpy_helper

from quantscope.backends.onnx import metadata
from quantscope.backends.onnx.external import Place, array, place
from quantscope.backends.onnx.files import OnnxModel, made
from quantscope.backends.onnx.sessions import first_line, optimized
from quantscope.errors import ModelError

# QuantizeLinear has had an axis, which per-channel weights need, since opset 13.
PER_CHANNEL_OPSET = 13
_TARGET_OPSET = 17
# What tells ONNX Runtime's quantizer that types are inferred: it would do it again on a copy with all weights.
_DONE_BEFORE = ("onnx.quant.pre_process", "onnx.infer")
_OPS_WITH_BIAS = frozenset(("Conv", "ConvTranspose", "Gemm"))


def prepare(model: OnnxModel) -> tuple[OnnxModel, tuple[str, ...]]:
    """The model with a recent opset, folded constants and batch normalization, and notes.

    Steps that fail on this model are left out, each with a note.
    """
    model.check_unchanged()
    notes: list[str] = []
    if model.opset < PER_CHANNEL_OPSET:
        model = raised(model, _TARGET_OPSET, notes, ": weights can only be quantized per tensor")
    try:
        # The same level, and the same steps, as onnxruntime.quantization.quant_pre_process, which holds all weights.
        prepared = optimized(model, "ORT_ENABLE_BASIC")
    except ModelError as error:
        notes.append(f"prepared without constant folding: {first_line(error)}")
        prepared = model.copy()
    give_each_op_its_bias(prepared)
    # From here on the model is compared with itself, and not with one whose channels it may have had scaled.
    metadata.forget(prepared.proto)
    said = {entry.key for entry in prepared.proto.metadata_props}
    for key in _DONE_BEFORE:
        if key not in said:
            prepared.proto.metadata_props.add(key=key, value="onnxruntime.quant")
    return prepared, tuple(notes)


def raised(model: OnnxModel, opset: int, notes: list[str], consequence: str) -> OnnxModel:
    """The model in a newer opset; as it is, and a note with the consequence, where that fails."""
    try:
        proto = onnx.version_converter.convert_version(model.proto, opset)
        if _places(proto) == _places(model.proto):
            return OnnxModel(proto, model.folder, model.data_beside)
        # Not every version of onnx keeps references to weights.
        proto = onnx.version_converter.convert_version(model.with_weights(), opset)
        return made(proto, data_beside=model.data_beside)
    except Exception as error:  # The converter raises bare RuntimeErrors and more.
        notes.append(f"opset {model.opset} could not be raised to {opset} ({first_line(error)}){consequence}")
        return model


def _places(proto: onnx.ModelProto) -> dict[str, Place]:
    return {tensor.name: where for tensor in proto.graph.initializer if (where := place(tensor)) is not None}


def give_each_op_its_bias(model: OnnxModel) -> None:
    """Bring biases into the form that ONNX Runtime's quantizer handles: one per op, with one axis.

    It names the copies of a shared bias with a digit, which can be another tensor's name (basic-pitch), and fails per
    channel on a Gemm whose bias has the shape [1, N] (Magika).
    """
    proto = model.proto
    biases = {tensor.name: tensor for tensor in proto.graph.initializer}
    uses = Counter(name for node in proto.graph.node for name in node.input)
    taken = {name for node in proto.graph.node for name in (*node.input, *node.output)} | set(biases)
    for node in proto.graph.node:
        if node.op_type not in _OPS_WITH_BIAS or len(node.input) < 3 or node.input[2] not in biases:
            continue
        bias = biases[node.input[2]]
        values = array(bias, model.folder)
        flat = values.ndim == 2 and values.shape[0] == 1
        if uses[bias.name] == 1 and not flat:
            continue
        name = next(n for n in (f"{bias.name}.{node.op_type}_{i}" for i in count()) if n not in taken)
        taken.add(name)
        proto.graph.initializer.append(numpy_helper.from_array(values.reshape(-1) if flat else values, name))
        node.input[2] = name


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back the log lines of ONNX Runtime's Python code: what matters becomes a note."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
