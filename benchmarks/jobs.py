"""The jobs that are measured: each gets the paths of a float model, of its quantized model, and of the samples.

This module is imported in the rivals' environments too: it needs nothing but numpy until a job runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import neural_compressor_diagnosis
from cases import each_sample


@dataclass(frozen=True)
class Job:
    """A job, and the modules whose import is not counted. A rival may take only so long."""

    run: Callable[[str, str, str], None]
    imports: tuple[str, ...]
    rival: bool = False


def floor(reference: str, quantized: str, data: str) -> None:
    """Plain inference of both models, one sample at a time, with ONNX Runtime's defaults."""
    import onnxruntime

    for model in (reference, quantized):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # As in quantscope: idle threads that spin would be counted as work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for sample in each_sample(data, session.get_inputs()[0].name):
            session.run(None, sample)


def quantscope_diagnose(**options: Any) -> Job:
    """All statistics and histograms of every paired tensor, weights, accuracy, and the run file."""

    def run(reference: str, quantized: str, data: str) -> None:
        import quantscope

        with tempfile.TemporaryDirectory() as folder:
            quantscope.diagnose(reference, quantized, data=data, run=Path(folder) / "run.qscope", **options)

    return Job(run, ("onnxruntime", "quantscope.workflows", "quantscope.backends.onnx"))


def debugger(reference: str, quantized: str, data: str) -> None:
    """onnxruntime.quantization.qdq_loss_debug: all activations of both models, matched, and both tables."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, qdq_loss_debug

    only_input = onnx.load(reference).graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.samples = each_sample(data, only_input)

        def get_next(self) -> Any:
            return next(self.samples, None)

    with tempfile.TemporaryDirectory() as folder:
        activations = []
        for index, model in enumerate((reference, quantized)):
            exposed = f"{folder}/{index}.onnx"
            qdq_loss_debug.modify_model_output_intermediate_tensors(model, exposed)
            activations.append(qdq_loss_debug.collect_activations(exposed, Reader()))
        matching = qdq_loss_debug.create_activation_matching(activations[1], activations[0])
        qdq_loss_debug.compute_activation_error(matching)
        qdq_loss_debug.compute_weight_error(qdq_loss_debug.create_weight_matching(reference, quantized))


# A line for each; the first is what the others are compared with. Neural Compressor runs in an environment of its own.
NEURAL_COMPRESSOR = "Neural Compressor"
JOBS = {
    "floor": Job(floor, ("onnxruntime",)),
    "quantscope": quantscope_diagnose(),
    "quantscope --budget-samples 0": quantscope_diagnose(budget_samples=0),
    "qdq_loss_debug": Job(debugger, ("onnxruntime.quantization.qdq_loss_debug",), rival=True),
    NEURAL_COMPRESSOR: Job(neural_compressor_diagnosis.diagnose, neural_compressor_diagnosis.IMPORTS, rival=True),
}
