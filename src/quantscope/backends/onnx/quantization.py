"""Rewrites the graph by ONNX Runtime's quantizer, with ranges that quantscope calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode

from quantscope.backends.base import Ranges
from quantscope.backends.onnx.assignment import KNOWN_TYPES, Assignment, assign, check_defaults, quant_type
from quantscope.backends.onnx.blocks import BLOCK_OPSET, put_blocks
from quantscope.backends.onnx.external import array
from quantscope.backends.onnx.fallback import keep_in_float
from quantscope.backends.onnx.files import OnnxModel, made
from quantscope.backends.onnx.preparation import PER_CHANNEL_OPSET, quiet, raised
from quantscope.backends.onnx.sessions import first_line
from quantscope.errors import ModelError, RecipeError
from quantscope.graph import Graph
from quantscope.qparams import PerTensor
from quantscope.recipe import Recipe

# Models hold 4-bit codes since this version of ONNX's file format.
_FOUR_BIT_IR_VERSION = 10


def quantizable_types(recipe: Recipe) -> tuple[str, ...]:
    """The op types that the recipe's defaults quantize.

    Raises:
        RecipeError: the quantizer does not know one of those it names.
    """
    known = sorted(KNOWN_TYPES)
    unknown = [op_type for op_type in recipe.op_types or () if op_type not in KNOWN_TYPES]
    if unknown:
        raise RecipeError(f"ONNX Runtime does not quantize {', '.join(unknown)}", accepted=", ".join(known))
    return recipe.op_types or tuple(known)


def tensors_to_calibrate(graph: Graph, recipe: Recipe) -> list[str]:
    """The float tensors that the recipe's ops read and write.

    Raises:
        RecipeError: no op at all could get what the defaults ask for.
    """
    quantizable_types(recipe)
    check_defaults(recipe)
    specs = recipe.without_unmatched(graph)[0].specs_for(graph)
    wanted = dict.fromkeys(
        name
        for op in graph.ops
        if op.op_type in KNOWN_TYPES and specs[op.name] is not None
        for name in (*op.inputs, *op.outputs)
        if name and name not in graph.constants
    )
    return [name for name in wanted if graph.tensor(name).dtype in ("", "float32", "float16")]


def planned(graph: Graph, recipe: Recipe) -> Assignment:
    """What each tensor would get, with what ONNX Runtime cannot do, if the model can have opset 21.

    Raises:
        RecipeError: no op at all could get what the defaults ask for.
    """
    quantizable_types(recipe)
    check_defaults(recipe)
    return assign(graph, recipe.without_unmatched(graph)[0])


def quantize(model: OnnxModel, graph: Graph, recipe: Recipe, ranges: Ranges) -> tuple[OnnxModel, tuple[str, ...]]:
    """The quantized model, and notes on what the quantizer could not do."""
    quantizable_types(recipe)
    check_defaults(recipe)
    recipe, lost = recipe.without_unmatched(graph)
    notes = [f"{selector} matches no op of the prepared model, in which ops are folded" for selector in lost]
    per_channel = model.opset >= PER_CHANNEL_OPSET
    if recipe.per_channel and not per_channel:
        notes.append(f"weights are quantized per tensor: opset {model.opset} has no per-channel form")
    assignment = assign(graph, recipe, per_channel=per_channel)
    if assignment.blocks and model.opset < BLOCK_OPSET:
        model = raised(model, BLOCK_OPSET, notes, "")
        if model.opset < BLOCK_OPSET:
            assignment = assign(graph, recipe, per_channel=per_channel, blocks=False)
    proto = model.with_weights()
    notes += summary(assignment.unsupported)
    _copy_constants(proto, assignment.copies)
    if assignment.uses_bits(4):
        proto.ir_version = max(proto.ir_version, _FOUR_BIT_IR_VERSION)
    if OnnxModel(proto).opset >= BLOCK_OPSET and assignment.float_ops and assignment.uses_int8():
        notes.append(
            f"int8 activations at opset {BLOCK_OPSET} beside ops in float: should ONNX Runtime refuse the model "
            "(onnxruntime issue 25526), use uint8"
        )
    proto = _rewritten(proto, recipe, assignment, ranges, per_channel)
    keep_in_float(proto)
    untouched = sum(t.data_type == TensorProto.FLOAT and len(t.dims) > 1 for t in proto.graph.initializer)
    weights = {t.name: t for t in model.proto.graph.initializer}
    sources = {own: name for (_, name), own in assignment.copies.items()}
    for name, spec in assignment.blocks.items():
        put_blocks(proto, name, array(weights[sources.get(name, name)], model.folder), spec)
    if untouched and not assignment.float_ops:
        notes.append(f"{untouched} weights stay in float: ONNX Runtime's quantizer has no form for their ops")
    return made(proto, data_beside=model.data_beside), tuple(notes)


def summary(unsupported: Mapping[str, str]) -> list[str]:
    """A note per reason, with the ops it holds for."""
    by_reason: dict[str, list[str]] = {}
    for op, reason in unsupported.items():
        by_reason.setdefault(reason, []).append(op)
    return [
        f"not as the recipe asks: {ops[0]!r}{f' and {len(ops) - 1} more' if len(ops) > 1 else ''}: {reason}"
        for reason, ops in by_reason.items()
    ]


def _rewritten(
    proto: onnx.ModelProto, recipe: Recipe, assignment: Assignment, ranges: Ranges, per_channel: bool
) -> onnx.ModelProto:
    """The model as ONNX Runtime's quantizer leaves it."""
    data = TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(low).reshape(()), highest=np.float32(high).reshape(()))
            for name, (low, high) in ranges.items()
        },
    )
    reduce_range = recipe.reduce_range and recipe.weights.bits == 8
    weights = QuantType[quant_type(replace(recipe.weights, granularity=PerTensor()))]
    arguments: tuple[Any, ...] = (
        weights,
        QuantType[quant_type(recipe.activations)],
        data,
        [],
        assignment.float_ops,
        sorted(KNOWN_TYPES),
        _options(OnnxModel(proto).opset, recipe, assignment),
    )
    per_channel = per_channel and recipe.per_channel
    with quiet():
        try:
            if recipe.format == "qdq":
                quantizer: Any = QDQQuantizer(proto, per_channel, reduce_range, *arguments)
            else:
                mode = QuantizationMode.QLinearOps
                quantizer = ONNXQuantizer(proto, per_channel, reduce_range, mode, True, *arguments)
            quantizer.quantize_model()
        except Exception as error:  # The quantizer raises errors of many kinds on models it does not foresee.
            raise ModelError(
                f"ONNX Runtime's quantizer fails on this model: {first_line(error)}",
                accepted="leaving the op it fails on in float",
                next_step="try --fallback-type for the op's type, --per-tensor, or the other --format",
            ) from error
    rewritten: onnx.ModelProto = quantizer.model.model
    return rewritten


def _options(opset: int, recipe: Recipe, assignment: Assignment) -> dict[str, Any]:
    overrides = assignment.overrides(recipe.reduce_range)
    for (entry,) in overrides.values():
        entry["quant_type"] = QuantType[entry["quant_type"]]
        if "convert" in entry:
            entry["convert"]["quant_type"] = QuantType[entry["convert"]["quant_type"]]
            entry["convert"]["recv_nodes"] = set(entry["convert"]["recv_nodes"])
    return {
        "ActivationSymmetric": recipe.activations.symmetric,
        "WeightSymmetric": recipe.weights.symmetric,
        "TensorQuantOverrides": overrides,
        # Q and DQ of the standard know these widths since opset 21. ONNX Runtime (1.32) would see to it by itself, but
        # looks at the first override alone.
        "UseQDQContribOps": opset < BLOCK_OPSET and assignment.uses_bits(4, 16),
        "QDQKeepRemovableActivations": assignment.keep_absorbed,
    }


def _copy_constants(proto: onnx.ModelProto, copies: Mapping[tuple[str, str], str]) -> None:
    """Give ops that want different codes of one constant their own copies of it.

    The quantizer has one specification per constant, and ops that stay in float would read it rounded.
    """
    tensors = {t.name: t for t in proto.graph.initializer}
    made: set[str] = set()
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            own = copies.get((node.name, name))
            if own is None or name not in tensors:
                continue
            node.input[i] = own
            if own not in made:
                made.add(own)
                copy = proto.graph.initializer.add()
                copy.CopyFrom(tensors[name])
                copy.name = own
