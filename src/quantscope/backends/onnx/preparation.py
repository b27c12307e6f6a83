"""Makes a float model ready for quantization, and survives the models on which a step fails."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import onnx
from onnx import numpy_helper
from onnxruntime.quantization.shape_inference import quant_pre_process

from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.sessions import first_line
from quantscope.backends.onnx.structure import name_ops

# QuantizeLinear has had an axis, which per-channel weights need, since opset 13.
PER_CHANNEL_OPSET = 13
_TARGET_OPSET = 17
_OPS_WITH_BIAS = frozenset(("Conv", "ConvTranspose", "Gemm"))


def prepare(model: OnnxModel) -> tuple[OnnxModel, tuple[str, ...]]:
    """The model with a recent opset, inferred shapes, folded constants and batch normalization, and notes.

    Steps that fail on this model are left out, each with a note.
    """
    proto = model.with_weights()
    notes = []
    if model.opset < PER_CHANNEL_OPSET:
        try:
            proto = onnx.version_converter.convert_version(proto, _TARGET_OPSET)
        except Exception as error:  # The converter raises bare RuntimeErrors and more.
            notes.append(
                f"opset {model.opset} could not be raised to {_TARGET_OPSET} ({first_line(error)}): "
                "weights can only be quantized per tensor"
            )
    attempts: tuple[tuple[str, dict[str, bool]], ...] = (
        ("", {}),
        ("shape inference", {"skip_onnx_shape": True}),
        ("constant folding", {"skip_optimization": True}),
    )
    reason = ""
    for skipped, options in attempts:
        try:
            prepared = _pre_process(proto, options)
        except Exception as error:  # Each step raises errors of its own making.
            reason = first_line(error)
            continue
        if skipped:
            notes.append(f"prepared without {skipped}: {reason}")
        give_each_op_its_bias(prepared)
        name_ops(prepared)
        return OnnxModel(prepared), tuple(notes)
    notes.append(f"quantized without preparation: {reason}")
    return OnnxModel(proto), tuple(notes)


def _pre_process(proto: onnx.ModelProto, options: dict[str, bool]) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="quantscope-") as folder, quiet():
        source, target = Path(folder) / "model.onnx", Path(folder) / "prepared.onnx"
        onnx.save(proto, str(source))
        # The optimizer writes the types that quantization needs. Symbolic inference would add symbols alone, takes
        # seconds, and leaves its files in the current folder where it fails.
        quant_pre_process(str(source), str(target), skip_symbolic_shape=True, **options)
        prepared = onnx.load(str(target))
    # The optimizer can fail and say so only in the log.
    if not prepared.graph.node:
        raise RuntimeError("the optimizer returned an empty model")
    return prepared


def give_each_op_its_bias(proto: onnx.ModelProto) -> None:
    """Bring biases into the form that ONNX Runtime's quantizer handles: one per op, with one axis.

    It names the copies of a shared bias with a digit, which can be another tensor's name (basic-pitch), and fails per
    channel on a Gemm whose bias has the shape [1, N] (Magika).
    """
    biases = {tensor.name: tensor for tensor in proto.graph.initializer}
    uses = Counter(name for node in proto.graph.node for name in node.input)
    taken = {name for node in proto.graph.node for name in (*node.input, *node.output)} | set(biases)
    for node in proto.graph.node:
        if node.op_type not in _OPS_WITH_BIAS or len(node.input) < 3 or node.input[2] not in biases:
            continue
        bias = biases[node.input[2]]
        values = numpy_helper.to_array(bias)
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
