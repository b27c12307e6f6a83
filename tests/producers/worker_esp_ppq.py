"""Quantizes a model with ESP-PPQ, Espressif's PPQ; `make.py` runs this in an environment that has it."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import sys

import numpy as np
import torch
from esp_ppq import QuantizationSettingFactory, TargetPlatform
from esp_ppq.api import export_ppq_graph, quantize_onnx_model


def main(model: str, samples: str, out: str, variant: str) -> None:
    """Variants: the names of PPQ's platforms in lower case, such as trt_int8."""
    data = torch.from_numpy(np.load(samples)["x"])
    graph = quantize_onnx_model(
        model,
        calib_dataloader=list(data[:, None]),
        calib_steps=len(data),
        input_shape=[1, *data.shape[1:]],
        setting=QuantizationSettingFactory.default_setting(),
        platform=TargetPlatform[variant.upper()],
        device="cpu",
    )
    export_ppq_graph(graph, TargetPlatform.ONNXRUNTIME, graph_save_to=out, config_save_to="encodings.json")


if __name__ == "__main__":
    main(*sys.argv[1:])
