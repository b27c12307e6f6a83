"""The calls of Neural Compressor 2.x, for ONNX and TensorFlow models: change the import line, and a script goes on.

`quantization.fit` quantizes, tunes and diagnoses by a `PostTrainingQuantConfig`. What quantscope does not have is said
by name: an error where leaving it out would change the model, a warning where it is about tuning alone.
"""

from __future__ import annotations

from typing import Any

from quantscope.conversions.neural_compressor import FP32
from quantscope.errors import UnsupportedError
from quantscope.neural_compressor import benchmark, quantization
from quantscope.neural_compressor.config import (
    AccuracyCriterion,
    BenchmarkConfig,
    CompatibilityWarning,
    PostTrainingQuantConfig,
    TuningCriterion,
    options,
    set_workspace,
)
from quantscope.neural_compressor.metric import Metric
from quantscope.neural_compressor.model import QuantizedModel
from quantscope.neural_compressor.quantization import AccuracyWarning

__all__ = [
    "FP32",
    "AccuracyCriterion",
    "AccuracyWarning",
    "BenchmarkConfig",
    "CompatibilityWarning",
    "Metric",
    "PostTrainingQuantConfig",
    "QuantizedModel",
    "TuningCriterion",
    "benchmark",
    "options",
    "quantization",
    "set_workspace",
]

_WITHOUT_EQUIVALENT = frozenset(
    (
        "DistillationConfig", "HPOConfig", "MixedPrecisionConfig", "NASConfig", "QuantizationAwareTrainingConfig",
        "WeightPruningConfig", "ExportConfig", "ONNXQlinear2QDQConfig", "TF2ONNXConfig", "Torch2ONNXConfig",
        "METRICS", "BaseMetric", "metric_registry", "Model", "data", "mix_precision", "objective", "strategy",
        "training", "set_random_seed", "set_resume_from", "set_tensorboard",
    )
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _WITHOUT_EQUIVALENT:
        raise UnsupportedError(
            f"neural_compressor.{name} has no equivalent in quantscope",
            accepted=", ".join(__all__),
            next_step="docs/neural-compressor.md says what to use instead",
        )
    raise AttributeError(f"module 'quantscope.neural_compressor' has no attribute {name!r}")
