"""Quantizes a model with AIMET-ONNX; `make.py` runs this in an environment that has it."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import sys

import numpy as np
import onnx
from aimet_onnx import QuantizationSimModel
from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight


def main(model: str, samples: str, out: str, variant: str) -> None:
    """Variants: w8a8, with int32 biases, and w4a16, which AIMET can only write with float biases."""
    data = np.load(samples)["x"]
    float_model = onnx.load(model)
    entry = float_model.graph.input[0]
    # AIMET runs the model on an input of its own making, whose open dimensions are all 1.
    for dimension, size in zip(entry.type.tensor_type.shape.dim, ["N", *data.shape[1:]], strict=True):
        if isinstance(size, str):
            dimension.dim_param = size
        else:
            dimension.dim_value = size
    fold_all_batch_norms_to_weight(float_model)
    weights, activations = {"w8a8": ("int8", "int8"), "w4a16": ("int4", "int16")}[variant]
    simulation = QuantizationSimModel(float_model, param_type=weights, activation_type=activations)
    simulation.compute_encodings([{entry.name: sample[None]} for sample in data])
    onnx.save(simulation.to_onnx_qdq(prequantize_constants=True, export_int32_bias=variant == "w8a8"), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
