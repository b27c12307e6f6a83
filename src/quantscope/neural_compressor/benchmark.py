"""`benchmark.fit` of Neural Compressor 2.x, which says that quantscope does not profile yet."""

from __future__ import annotations

from typing import Any, NoReturn

from quantscope.errors import UnsupportedError
from quantscope.neural_compressor.config import BenchmarkConfig


def fit(model: object, conf: BenchmarkConfig, b_dataloader: object = None, b_func: Any = None) -> NoReturn:
    """Return nothing: quantscope measures no times yet.

    Raises:
        UnsupportedError: always, with what measures them.
    """
    raise UnsupportedError(
        "benchmark.fit has no equivalent in quantscope yet: it does not profile",
        accepted="quantization.fit",
        next_step="measure with onnxruntime_perf_test -I MODEL.onnx, or as examples/resnet50_imagenet/main.py "
        "--benchmark does",
    )
