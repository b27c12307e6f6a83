"""Neural Compressor 2's diagnosis of a pair that it quantized itself: no other pair has the names that it goes by.

    PYTHON benchmarks/neural_compressor_diagnosis.py MODEL SAMPLES FOLDER LAYOUT

quantizes MODEL and leaves the pair in FOLDER: float.onnx, int8.onnx, and state.pkl with what the diagnosis needs from
the quantization. LAYOUT is QDQ or QOperator. PYTHON is that of an environment with neural-compressor 2.
"""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cases import each_sample

IMPORTS = ("onnxruntime", "neural_compressor.strategy.strategy", "neural_compressor.adaptor.onnxrt")
LAYOUTS = {"QDQ": "onnxrt_qdq", "QOperator": "onnxrt_qlinearops"}


class Loader:
    """The samples of a file one at a time with a label that nothing reads, anew for each pass: it takes pairs only."""

    batch_size = 1

    def __init__(self, data: str, only_input: str) -> None:
        self.data, self.only_input = data, only_input

    def __iter__(self) -> Iterator[tuple[dict[str, Any], int]]:
        return ((sample, 0) for sample in each_sample(self.data, self.only_input))


def diagnose(reference: str, quantized: str, data: str) -> None:
    """What `PostTrainingQuantConfig(diagnosis=True)` runs after quantizing: a sample's tensors to disk, both tables."""
    import onnx
    from neural_compressor import set_workspace
    from neural_compressor.adaptor import FRAMEWORKS
    from neural_compressor.model import Model
    from neural_compressor.strategy.strategy import TuneStrategy

    state = pickle.loads(Path(reference).with_name("state.pkl").read_bytes())
    models = [onnx.load(path) for path in (reference, quantized)]
    with tempfile.TemporaryDirectory() as folder:
        set_workspace(folder)
        about = {"device": "cpu", "approach": "post_training_static_quant", "backend": "default"}
        adaptor = FRAMEWORKS[state["framework"]]({**about, "format": state["layout"], "workspace_path": folder})
        adaptor.min_max = state["min_max"]
        strategy = SimpleNamespace(
            adaptor=adaptor,
            model=Model(models[0], backend="default"),
            last_qmodel=Model(models[1], backend="default"),
            calib_dataloader=Loader(data, models[0].graph.input[0].name),
            _eval_baseline=lambda: None,
        )
        TuneStrategy._diagnosis(strategy, state["tune_cfg"])
        assert (Path(folder) / "weights_table.csv").exists()


def quantize(model: str, samples: str, folder: str, layout: str) -> None:
    """Quantizes the model, calibrated with all samples, and leaves the pair in the folder in place of diagnosing it."""
    import onnx
    from neural_compressor import PostTrainingQuantConfig, quantization
    from neural_compressor.strategy.strategy import TuneStrategy
    from onnx import version_converter

    source = onnx.load(model)
    if next(opset.version for opset in source.opset_import if not opset.domain) < 13:
        # Scales per channel have no axis before.
        source = version_converter.convert_version(source, 17)
        source.ir_version = 8
    loader = Loader(samples, source.graph.input[0].name)

    def keep(strategy: TuneStrategy, tune_cfg: dict[str, Any]) -> None:
        onnx.save(strategy.model.model, f"{folder}/float.onnx")
        onnx.save(strategy.last_qmodel.model, f"{folder}/int8.onnx")
        state = {"framework": LAYOUTS[layout], "layout": layout, "min_max": strategy.adaptor.min_max}
        Path(folder, "state.pkl").write_bytes(pickle.dumps({**state, "tune_cfg": tune_cfg}))
        strategy.diagnosis_done = True
        strategy._eval_baseline()

    TuneStrategy._diagnosis = keep
    config = PostTrainingQuantConfig(
        quant_format={"QDQ": "QDQ", "QOperator": "default"}[layout],
        calibration_sampling_size=[sum(1 for _ in loader)],
        diagnosis=True,
    )
    # Without a function that evaluates, it quantizes its float model in place and then compares that with itself.
    quantization.fit(source, config, calib_dataloader=loader, eval_func=lambda _: 1.0)
    if not Path(folder, "state.pkl").exists():
        sys.exit("it quantized nothing")


if __name__ == "__main__":
    quantize(*sys.argv[1:])
