"""Rewrites the graph by ONNX Runtime's quantizer, with ranges that quantscope calibrated."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from quantscope.backends.base import Ranges
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.preparation import PER_CHANNEL_OPSET, quiet
from quantscope.backends.onnx.sessions import first_line
from quantscope.errors import ModelError, RecipeError
from quantscope.graph import Graph
from quantscope.recipe import Recipe

_QUANT_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


def quantizable_types(recipe: Recipe) -> tuple[str, ...]:
    """The op types that the recipe quantizes.

    Raises:
        RecipeError: the quantizer does not know one of those it names.
    """
    known = sorted(set(QLinearOpsRegistry) | set(QDQRegistry))
    unknown = [op_type for op_type in recipe.op_types or () if op_type not in known]
    if unknown:
        raise RecipeError(f"ONNX Runtime does not quantize {', '.join(unknown)}", accepted=", ".join(known))
    return recipe.op_types or tuple(known)


def tensors_to_calibrate(graph: Graph, recipe: Recipe) -> list[str]:
    """The float tensors that the recipe's ops read and write."""
    types, kept = set(quantizable_types(recipe)), recipe.fallback_ops(graph)
    wanted = dict.fromkeys(
        name
        for op in graph.ops
        if op.op_type in types and op.name not in kept
        for name in (*op.inputs, *op.outputs)
        if name and name not in graph.constants
    )
    return [name for name in wanted if graph.tensor(name).dtype in ("", "float32", "float16")]


def quantize(model: OnnxModel, graph: Graph, recipe: Recipe, ranges: Ranges) -> tuple[OnnxModel, tuple[str, ...]]:
    """The quantized model, and notes on what the quantizer could not do."""
    kept = sorted(recipe.fallback_ops(graph))
    types = list(quantizable_types(recipe))
    notes = []
    per_channel = recipe.per_channel
    if per_channel and model.opset < PER_CHANNEL_OPSET:
        per_channel = False
        notes.append(f"weights are quantized per tensor: opset {model.opset} has no per-channel form")
    data = TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(low).reshape(()), highest=np.float32(high).reshape(()))
            for name, (low, high) in ranges.items()
        },
    )

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    options: dict[str, Any] = {
        "ActivationSymmetric": recipe.activations.symmetric,
        "WeightSymmetric": recipe.weights.symmetric,
    }
    shared: tuple[Any, ...] = (
        _QUANT_TYPES[recipe.weights.dtype],
        _QUANT_TYPES[recipe.activations.dtype],
        data,
        [],
        kept,
        types,
        options,
    )
    with quiet():
        try:
            if recipe.format == "qdq":
                quantizer: Any = QDQQuantizer(proto, per_channel, recipe.reduce_range, *shared)
            else:
                mode = QuantizationMode.QLinearOps
                quantizer = ONNXQuantizer(proto, per_channel, recipe.reduce_range, mode, True, *shared)
            quantizer.quantize_model()
        except Exception as error:  # The quantizer raises errors of many kinds on models it does not foresee.
            raise ModelError(
                f"ONNX Runtime's quantizer fails on this model: {first_line(error)}",
                accepted="leaving the op it fails on in float",
                next_step="try --fallback-type for the op's type, --per-tensor, or the other --format",
            ) from error
    proto = quantizer.model.model
    quantized = OnnxModel(proto)
    untouched = sum(t.data_type == TensorProto.FLOAT and len(t.dims) > 1 for t in proto.graph.initializer)
    if untouched and not kept and recipe.op_types is None:
        notes.append(f"{untouched} weights stay in float: ONNX Runtime's quantizer has no form for their ops")
    return quantized, tuple(notes)
