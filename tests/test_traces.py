"""Three traces: the reference, the simulated quantization, and the kernels that really run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantscope
from conftest import images
from quantscope.backends.base import Model, Trace
from quantscope.backends.onnx import BACKEND
from quantscope.errors import DataError
from quantscope.pairing import TensorPair
from quantscope.workflows.diagnosis import paired
from registry import registry_model
from test_runs import begin, finish


def test_both_traces_hold_what_each_gives_alone(model: Path, tmp_path: Path) -> None:
    x = images(20)
    quantscope.quantize(model, x, tmp_path / "int8.onnx")
    deployed, simulated, both = (
        {t.tensor: t for t in found.activations}
        for found in (
            quantscope.diagnose(model, tmp_path / "int8.onnx", data=x, trace=trace)
            for trace in ("deployed", "simulated", "both")
        )
    )
    assert deployed.keys() == simulated.keys() == both.keys()
    for name, row in both.items():
        assert row.mse == deployed[name].mse
        assert row.simulated_sqnr_db == pytest.approx(simulated[name].sqnr_db, rel=1e-9)
        assert math.isnan(deployed[name].kernels_sqnr_db)


@pytest.mark.parametrize("format", ["qdq", "qoperator"])
def test_where_kernels_differ_is_named_with_how_much(format: str, tmp_path: Path) -> None:
    """On a real model, against the arrays of both traces in float64."""
    model, quantized = registry_model("ppocrv2_cls"), tmp_path / "int8.onnx"
    x = np.random.default_rng(0).normal(0, 1, (3, 3, 48, 192)).astype(np.float32)
    recipe = quantscope.Recipe(format=format)  # type: ignore[arg-type]
    quantscope.quantize(model, x, quantized, recipe=recipe)
    found = quantscope.diagnose(model, quantized, data=x, trace="both", budget_samples=0)
    assert found.measuring_changed == 0
    assert found.trace == "both"
    reference, loaded = BACKEND.load(model), BACKEND.load(quantized)
    traces: tuple[Trace, Trace] = ("simulated", "deployed")
    pairs = {
        trace: {pair.reference_name: pair for pair in paired(BACKEND, reference, loaded, trace).pairs}
        for trace in traces
    }
    compared = 0
    for row in found.kernel_differences[:40]:
        signal = noise = 0.0
        for i in range(len(x)):
            simulated, deployed = (traced(loaded, pairs[trace][row.tensor], trace, x[i : i + 1]) for trace in traces)
            if simulated.shape != deployed.shape:
                break  # Kept in another layout by the optimizer.
            signal += float((simulated**2).sum())
            noise += float(((simulated - deployed) ** 2).sum())
        else:
            compared += 1
            assert row.kernels_sqnr_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-3)
    assert compared
    levels = [t.kernels_sqnr_db for t in found.kernel_differences]
    assert levels == sorted(levels)


def traced(model: Model, pair: TensorPair, trace: Trace, x: Any) -> Any:
    with BACKEND.open(model, [pair.quantized_name], trace=trace, threads=1) as runner:
        return pair.real(runner.run({"x": x})[pair.quantized_name]).astype(np.float64)


def test_the_terminal_says_which_trace_was_looked_at(model: Path, data: Path) -> None:
    shown = {}
    for trace in ("deployed", "simulated", "both"):
        arguments = ("diagnose", model.name, "--data", data.name, "--trace", trace, "--run", f"{trace}.qscope")
        shown[trace] = finish(begin(model.parent, *arguments))[0]
        document = json.loads(finish(begin(model.parent, "show", f"{trace}.qscope", "--json"))[0])
        assert document["trace"] == trace
    assert "equal bit for bit to plain inference" in shown["deployed"]
    assert "the simulated model's outputs differ by up to" in shown["simulated"]
    assert "deployed and simulated" in shown["both"]
    assert "kernels" in shown["both"]
    assert "kernels" not in shown["deployed"]


def test_an_unknown_trace_is_refused(model: Path, data: Path) -> None:
    with pytest.raises(DataError, match="trace 'fast'"):
        quantscope.diagnose(model, data=data, trace="fast")  # type: ignore[arg-type]


def test_one_op_is_shown_with_all_that_is_known(model: Path, data: Path) -> None:
    folder = model.parent
    finish(begin(folder, "diagnose", model.name, "--data", data.name, "--run", "run.qscope"))
    shown = finish(begin(folder, "show", "run.qscope", "--op", "/body/conv/Conv"))[0]
    for text in (
        "/body/conv/Conv", "reads", "isolated", "error budget", "inherited", "rounding", "kurtosis",
        "channels on axis 1", "weight w2", "int8 per channel",
    ):  # fmt: skip
        assert text in shown
    _, message = finish(begin(folder, "show", "run.qscope", "--op", "/body/conv/Con"), 2)
    assert "no op '/body/conv/Con'" in message
    assert "/body/conv/Conv" in message
    _, message = finish(begin(folder, "show", "run.qscope", "--op", "/head/Flatten"), 2)
    assert "only rearranges" in message
