"""Isolated errors and error budgets, against the same computed in float64 from what stands in the quantized file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import quantscope
from conftest import images, make_model
from quantscope.diagnosis import TensorDiagnosis
from quantscope.qparams import PerTensor, QuantSpec
from quantscope.statistics.budget import PARTS
from registry import registry_model

Array = NDArray[Any]
PER_TENSOR = QuantSpec(8, granularity=PerTensor())


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    """Two fully connected layers with biases, a ReLU between them that quantization absorbs."""
    rng = np.random.default_rng(3)
    weights = {
        "w1": rng.normal(0, 0.3, (16, 24)).astype(np.float32),
        "b1": rng.normal(0, 0.5, 24).astype(np.float32),
        "w2": rng.normal(0, 0.3, (24, 10)).astype(np.float32),
        "b2": rng.normal(0, 0.5, 10).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], name="second"),
    ]
    path = tmp_path / "layers.onnx"
    onnx.save(make_model(nodes, {"x": ["N", 16]}, {"y": ["N", 10]}, weights), str(path))
    return path


def samples(count: int) -> Array:
    return np.random.default_rng(4).normal(0, 1, (count, 16)).astype(np.float32)


class Written:
    """What stands in a QDQ file: scales, zero points, and weights as their codes say."""

    def __init__(self, path: Path) -> None:
        self.proto = onnx.load(str(path))
        self.arrays = {t.name: numpy_helper.to_array(t) for t in self.proto.graph.initializer}

    def __getitem__(self, name: str) -> Array:
        """A constant, dequantized, in float64."""
        for node in self.proto.graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0].startswith(name) and node.input[0] in self.arrays:
                codes, scale = self.arrays[node.input[0]].astype(np.float64), self.arrays[node.input[1]]
                zero = self.arrays[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(scale.shape)
                axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
                if scale.ndim and codes.ndim > 1:
                    shape = [1] * codes.ndim
                    shape[axis] = -1
                    scale, zero = scale.reshape(shape), zero.reshape(shape)
                return np.asarray((codes - zero) * scale.astype(np.float64))
        raise KeyError(name)

    def clipped(self, name: str, x: Array) -> Array:
        """Values in the range that the codes of an activation can represent."""
        scale, zero = self._scale(name)
        return np.clip(x, (0 - zero) * scale, (255 - zero) * scale)

    def rounded(self, name: str, x: Array) -> Array:
        """Values through the codes of an activation and back."""
        scale, zero = self._scale(name)
        return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale

    def _scale(self, name: str) -> tuple[float, float]:
        """By the tensor that is quantized; a model's output keeps its name behind the dequantization."""
        nodes = self.proto.graph.node
        codes = {node.input[0] for node in nodes if node.op_type == "DequantizeLinear" and node.output[0] == name}
        for node in nodes:
            if node.op_type == "QuantizeLinear" and (node.input[0] == name or node.output[0] in codes):
                return float(self.arrays[node.input[1]]), float(self.arrays[node.input[2]])
        raise KeyError(name)


def rows(diagnosis: quantscope.Diagnosis) -> dict[str, TensorDiagnosis]:
    return {t.tensor: t for t in diagnosis.tensors if t.role == "activation"}


@pytest.mark.parametrize("trace", ["deployed", "simulated"])
@pytest.mark.parametrize("format", ["qdq", "qoperator"])
def test_every_part_equals_a_float64_computation(layers: Path, tmp_path: Path, trace: Any, format: Any) -> None:
    recipe = quantscope.Recipe(format="qdq", weights=PER_TENSOR)
    x = samples(40)
    quantscope.quantize(layers, x, tmp_path / "qdq.onnx", recipe=recipe)
    file = Written(tmp_path / "qdq.onnx")
    quantized = tmp_path / f"{format}.onnx"
    quantscope.quantize(layers, x, quantized, recipe=quantscope.Recipe(format=format, weights=PER_TENSOR))
    found = rows(quantscope.diagnose(layers, quantized, data=x, trace=trace, budget_samples=32))

    w1, b1, w2, b2 = (numpy_helper.to_array(t).astype(np.float64) for t in onnx.load(str(layers)).graph.initializer)
    v1, c1, v2, c2 = file["w1"], file["b1"], file["w2"], file["b2"]
    x64 = x[:32].astype(np.float64)

    def parts(y: Array, a: Array, w: Array, b: Array, name: str) -> tuple[dict[str, float], Array]:
        c, r = file.clipped(name, b), file.rounded(name, b)
        e = r - y
        steps = {"inherited": a - y, "weight": w - a, "bias": b - w, "clipping": c - b, "rounding": r - c}
        return {part: float((t * e).mean()) for part, t in steps.items()} | {"residual": 0.0}, r

    def relu(z: Array) -> Array:
        return np.maximum(z, 0)

    q = file.rounded("x", x64)
    r = relu(x64 @ w1 + b1)
    steps = (relu(q @ w1 + b1), relu(q @ v1 + b1), relu(q @ v1 + c1))
    first, h = parts(r, *steps, _output(file))
    second, _ = parts(r @ w2 + b2, h @ w2 + b2, h @ v2 + b2, h @ v2 + c2, "y")
    isolated = {
        "r": file.rounded(_output(file), relu(q @ v1 + c1)) - r,
        "y": file.rounded("y", file.rounded(_output(file), r) @ v2 + c2) - (r @ w2 + b2),
    }
    for tensor, expected in (("r", first), ("y", second)):
        budget = found[tensor].budget
        assert budget is not None
        mse = budget.mse
        for part in PARTS:
            # The kernels of QOperator round a value that lies between two codes to either.
            assert getattr(budget, part) == pytest.approx(expected[part], abs=mse * (0.01 if format == "qdq" else 0.05))
        assert sum(budget.shares.values()) == pytest.approx(mse, rel=1e-9)
        assert found[tensor].isolated_mse == pytest.approx(float((isolated[tensor] ** 2).mean()), rel=0.02)
        assert budget.count == 32 * found[tensor].reference.count // 40


def _quantizes(file: Written, name: str) -> bool:
    return any(node.op_type == "QuantizeLinear" and node.input[0] == name for node in file.proto.graph.node)


def _output(file: Written) -> str:
    """What the first layer's output is called in the quantized file: the absorbed ReLU's output, or its input."""
    return "r" if _quantizes(file, "r") else "h"


def test_a_bad_weight_is_told_from_a_bad_input(layers: Path, tmp_path: Path) -> None:
    """The weight of the second layer alone is quantized, to a grid far too coarse."""
    proto = onnx.load(str(layers))
    w2 = numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == "w2"))
    scale = np.float32(0.4)
    proto.graph.initializer.extend(
        [
            numpy_helper.from_array(np.clip(np.rint(w2 / scale), -128, 127).astype(np.int8), "w2_codes"),
            numpy_helper.from_array(scale.reshape(()), "w2_scale"),
            numpy_helper.from_array(np.zeros((), np.int8), "w2_zero"),
        ]
    )
    proto.graph.node.insert(
        2, helper.make_node("DequantizeLinear", ["w2_codes", "w2_scale", "w2_zero"], ["w2_real"], name="weight")
    )
    proto.graph.node[3].input[1] = "w2_real"
    onnx.save(proto, str(tmp_path / "bad.onnx"))
    found = rows(quantscope.diagnose(layers, tmp_path / "bad.onnx", data=samples(20)))
    budget = found["y"].budget
    assert budget is not None
    assert budget.weight == pytest.approx(budget.mse, rel=0.01)
    assert found["y"].isolated_sqnr_db == pytest.approx(found["y"].sqnr_db, abs=1)
    clean = found["r"].budget
    assert clean is not None
    assert clean.mse == pytest.approx(0, abs=1e-10)


def test_an_op_behind_a_bad_one_inherits(layers: Path, tmp_path: Path) -> None:
    """The first layer's weight is ruined: the second does well by itself, and its error is inherited."""
    quantscope.quantize(layers, samples(20), tmp_path / "int8.onnx", recipe=quantscope.Recipe(weights=PER_TENSOR))
    proto = onnx.load(str(tmp_path / "int8.onnx"))
    codes = next(t for t in proto.graph.initializer if t.name.startswith("w1") and len(t.dims) == 2)
    rng = np.random.default_rng(0)
    codes.CopyFrom(
        numpy_helper.from_array(rng.permutation(numpy_helper.to_array(codes).ravel()).reshape(codes.dims), codes.name)
    )
    onnx.save(proto, str(tmp_path / "bad.onnx"))
    diagnosis = quantscope.diagnose(layers, tmp_path / "bad.onnx", data=samples(20))
    found = rows(diagnosis)
    first, second = found["r"].budget, found["y"].budget
    assert first is not None
    assert second is not None
    assert first.weight > 0.9 * first.mse
    assert second.inherited > 0.95 * second.mse
    assert found["r"].isolated_sqnr_db < 10 < found["y"].isolated_sqnr_db - 15
    assert [source.row.op for source in diagnosis.failure_sources] == ["first"]


def test_channels_of_activations_are_those_of_the_reference_layout(model: Path, tmp_path: Path) -> None:
    x = images(6)
    quantscope.quantize(model, x, tmp_path / "int8.onnx")
    found = rows(quantscope.diagnose(model, tmp_path / "int8.onnx", data=x))
    proto = onnx.load(str(model))
    proto.graph.output.append(onnx.ValueInfoProto(name="c2"))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    c2 = session.run(["c2"], {"x": x})[0].astype(np.float64)
    channels = found["c2"].channels
    assert channels is not None
    assert channels.axis == 1
    np.testing.assert_allclose(channels.minimum, c2.min((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(channels.maximum, c2.max((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(channels.std, c2.std((0, 2, 3)), rtol=1e-4)
    assert channels.reference_counts.sum(1).tolist() == [c2[:, 0].size] * 16


def test_no_budget_samples_no_budget(layers: Path, tmp_path: Path) -> None:
    found = quantscope.diagnose(layers, data=samples(20), budget_samples=0)
    assert all(t.budget is None and np.isnan(t.isolated_mse) for t in found.tensors)
    assert "attribute" not in [stage["name"] for stage in found.stages]


def test_budgets_survive_the_run_file(layers: Path, tmp_path: Path) -> None:
    found = quantscope.diagnose(layers, data=samples(20), run=tmp_path / "run.qscope")
    again = quantscope.open(tmp_path / "run.qscope")
    assert any(t.budget is not None for t in found.tensors)
    assert [t.budget for t in again.tensors] == [t.budget for t in found.tensors]


def test_on_a_real_model_nearly_every_op_has_its_budget() -> None:
    model = registry_model("ppocrv2_cls")
    x = np.random.default_rng(0).normal(0, 1, (6, 3, 48, 192)).astype(np.float32)
    found = quantscope.diagnose(model, data=x, budget_samples=2)
    activations = [t for t in found.tensors if t.role == "activation"]
    with_budget = [t for t in activations if t.budget is not None]
    assert len(with_budget) > 0.95 * len(activations)
    for t in with_budget:
        assert t.budget is not None
        assert sum(t.budget.shares.values()) == pytest.approx(t.budget.mse, rel=1e-6, abs=1e-12)
        # What the integer kernels do otherwise is a small part; if it is not, a cut was made in the wrong place.
        assert abs(t.budget.residual) <= 0.2 * t.budget.mse + 1e-9, t.op


@pytest.mark.parametrize(
    ("before", "isolated", "after", "expected"),
    [
        (12.0, 4.0, 2.5, ["second"]),  # Bad inputs, and an op that is worse by itself.
        (12.0, 20.0, 2.5, []),  # It only passes on what came in.
        (30.0, 20.0, 2.5, ["second"]),  # Far worse out than in, whatever it does by itself.
        (8.0, 4.0, 2.5, ["first"]),  # Broken before.
        (30.0, 4.0, 12.0, []),  # Not broken.
    ],
)
def test_a_failure_source_breaks_what_was_not_broken(
    layers: Path, before: float, isolated: float, after: float, expected: list[str]
) -> None:
    found = quantscope.diagnose(layers, data=samples(20))
    levels = {"r": (before, 50.0), "y": (after, isolated)}
    tensors = tuple(
        replace(t, sqnr_db=levels[t.tensor][0], isolated_sqnr_db=levels[t.tensor][1])
        for t in found.tensors
        if t.tensor in levels
    )
    assert [s.row.op for s in replace(found, tensors=tensors).failure_sources] == expected
