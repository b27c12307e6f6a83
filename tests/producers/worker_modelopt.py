"""Quantizes a model with NVIDIA Model Optimizer; `make.py` runs this in an environment that has it."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import sys

import numpy as np
import onnx
from modelopt.onnx.quantization import quantize


def main(model: str, samples: str, out: str, variant: str) -> None:
    """Variants: int8_fp16 and int8_fp32, after the two types of the model."""
    mode, precision = variant.split("_")
    name = onnx.load(model).graph.input[0].name
    quantize(
        model,
        quantize_mode=mode,
        calibration_data={name: np.load(samples)["x"]},
        calibration_method="entropy",
        calibration_eps=["cpu"],
        high_precision_dtype=precision,
        output_path=out,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
