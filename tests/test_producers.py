"""Models of seven producers: how much of them is paired, and that no pair is wrong, checked on data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import quantscope
from producers.ort import VARIANTS
from quantscope.backends.onnx import BACKEND
from quantscope.confirmation import arranged, correlation, layout
from quantscope.diagnosis import Diagnosis, TensorDiagnosis
from registry import registry_model
from test_real_models import text_lines

DATA = Path(__file__).parent / "producers" / "data"
STORED = sorted(path.stem for path in DATA.glob("*.onnx"))
# What falls short of full coverage, and why.
LEAST = {"neural_compressor_rec_qdq": 0.95}


def reference_of(name: str) -> tuple[Path, NDArray[Any]]:
    return (
        (registry_model("ppocrv4_rec"), text_lines(3))
        if "rec" in name
        else (registry_model("ppocrv2_cls"), text_lines(3, 192))
    )


def values(model: Any, names: list[str], x: NDArray[Any], trace: Any) -> dict[str, NDArray[Any]]:
    loaded = BACKEND.load(model)
    with BACKEND.open(loaded, names, trace=trace, threads=1) as runner:
        return runner.run({loaded.graph.inputs[0].name: x})


def wrong_pairs(diagnosis: Diagnosis, reference: Path, quantized: Path, x: NDArray[Any]) -> list[str]:
    """Rows whose quantized tensor follows another tensor of the reference clearly better than the paired one."""
    graph = BACKEND.load(reference).graph
    floats = [t for op in graph.ops for t in op.outputs if graph.tensor(t).dtype == "float32"]
    ours = values(reference, floats, x, "exact")
    theirs = values(quantized, [t.quantized_tensor for t in diagnosis.activations], x, "deployed")
    wrong = []
    for row in diagnosis.activations:
        a, b = ours[row.tensor], theirs[row.quantized_tensor]
        order = layout(a, b) if a.shape != b.shape else None
        b = np.asarray(arranged(b, order, a.shape)) if order is not None else b
        paired = correlation(a, b) if a.shape == b.shape else 0.0
        others = {t: correlation(o, b) for t, o in ours.items() if o.shape == b.shape and t != row.tensor}
        best = max(others, key=lambda t: -1 if np.isnan(others[t]) else others[t], default=None)
        if best is not None and others[best] > paired + 0.1 and others[best] > 0.9:
            wrong.append(f"{row.op}: {row.tensor} r={paired:.3f}, but {best} r={others[best]:.3f}")
    return wrong


def check(name: str, quantized: Path) -> Diagnosis:
    reference, x = reference_of(name)
    diagnosis = quantscope.diagnose(reference, quantized, data=x)
    assert not wrong_pairs(diagnosis, reference, quantized, x[:1])
    assert diagnosis.coverage >= LEAST.get(name, 0.97), {
        k: v for k, v in diagnosis.skipped.items() if "nothing" not in v
    }
    return diagnosis


@pytest.mark.parametrize("name", STORED)
def test_models_that_other_tools_made(name: str) -> None:
    diagnosis = check(name, DATA / f"{name}.onnx")
    assert diagnosis.measuring_changed is not None
    assert diagnosis.measuring_changed < 1e-3
    rows = weights_by_op(diagnosis)
    assert len(rows) >= 30, "the weights are compared too"
    assert np.median([t.sqnr_db for t in rows.values()]) > 15


def weights_by_op(diagnosis: Diagnosis) -> dict[str, TensorDiagnosis]:
    return {t.op: t for t in diagnosis.weights if t.is_quantized}


@pytest.mark.parametrize("model", ["cls", "rec"])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_form_that_onnxruntime_makes(variant: str, model: str, tmp_path: Path) -> None:
    if variant.startswith("matmul") and model == "cls":
        pytest.skip("this model has no MatMul to speak of")
    reference, x = reference_of(model)
    quantized = tmp_path / "quantized.onnx"
    VARIANTS[variant](reference, [{"x": x[i : i + 1]} for i in range(2)], quantized)
    diagnosis = check(model, quantized)
    if variant != "float16":
        assert weights_by_op(diagnosis)
