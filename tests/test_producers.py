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
from quantscope.confirmation import arranged, layout
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
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, array in ours.items():
        by_shape.setdefault(array.shape, []).append(name)
    units = {shape: np.array([unit(ours[name]) for name in names]) for shape, names in by_shape.items()}
    wrong = []
    for row in diagnosis.activations:
        a, b = ours[row.tensor], theirs[row.quantized_tensor]
        order = layout(a, b) if a.shape != b.shape else None
        arrangements = [np.asarray(arranged(b, order, a.shape))] if order is not None else [b]
        if order is None and a.shape != b.shape and b.ndim == 4:
            # Of a wrong pair nothing tells the layout.
            arrangements.append(b.transpose(0, 3, 1, 2))
        found = {
            name: r
            for each in arrangements
            if each.shape in units
            for name, r in zip(by_shape[each.shape], units[each.shape] @ unit(each), strict=True)
        }
        if not found:
            continue
        paired = found.get(row.tensor, 0.0)
        best = max(found, key=lambda name: found[name])
        if found[best] > paired + 0.1 and found[best] > 0.9:
            wrong.append(f"{row.op}: {row.tensor} r={paired:.3f}, but {best} r={found[best]:.3f}")
    return wrong


def unit(array: NDArray[Any]) -> NDArray[np.float32]:
    """The values about their mean, of length 1, so that a product of two is their correlation; zeros of a constant."""
    values = array.reshape(-1).astype(np.float64)
    values -= values.mean()
    length = np.linalg.norm(values)
    return (values / length if length > 1e-12 * values.size else values * 0).astype(np.float32)


def check(name: str, quantized: Path) -> Diagnosis:
    reference, x = reference_of(name)
    diagnosis = quantscope.diagnose(reference, quantized, data=x, budget_samples=0)
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
