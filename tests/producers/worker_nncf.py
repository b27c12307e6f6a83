"""Quantizes a model with NNCF's ONNX backend; `make.py` runs this in an environment that has it."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import sys

import nncf
import numpy as np
import onnx
import onnxruntime


def main(model: str, samples: str, out: str, variant: str) -> None:
    """Variants: plain, and folded, whose float model first goes through ONNX Runtime's basic optimizations.

    These fold the batch norms into convolutions that thus have biases, which NNCF then corrects, and turn the Constant
    nodes into initializers, which NNCF can store as integers.
    """
    if variant == "folded":
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = "folded.onnx"
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        model = "folded.onnx"
    float_model = onnx.load(model)
    data = [{float_model.graph.input[0].name: sample[None]} for sample in np.load(samples)["x"]]
    onnx.save(nncf.quantize(float_model, nncf.Dataset(data), subset_size=len(data)), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
