"""An op that a recipe leaves in float is one in the graph that runs: ONNX Runtime does not quantize it by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

import quantscope
from conftest import make_model
from quantscope import OpRule, Recipe
from quantscope.recipe import Format

SHAPES = {"Conv": (8, 8, 3, 3), "ConvTranspose": (8, 4, 3, 3), "Gemm": (8, 6)}


def chain(op_type: str, bias: bool) -> onnx.ModelProto:
    """An op between two that are quantized, its weight with one outlier that ruins it per tensor."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.1, SHAPES[op_type]).astype(np.float32)
    weight[(0,) * weight.ndim] = 100.0
    width = {"Conv": 8, "ConvTranspose": 4, "Gemm": 6}[op_type]
    weights: dict[str, NDArray[Any]] = {"w": weight, "b": rng.normal(0, 1, width).astype(np.float32)}
    flat = op_type == "Gemm"
    before, after = ((8, 8), (width, 5)) if flat else ((8, 8, 1, 1), (5, width, 1, 1))
    weights |= {
        "w0": rng.normal(0, 0.3, before).astype(np.float32), "w2": rng.normal(0, 0.3, after).astype(np.float32),
    }  # fmt: skip
    kind = "MatMul" if flat else "Conv"
    nodes = [
        helper.make_node(kind, ["x", "w0"], ["h0"], name="before"),
        helper.make_node(op_type, ["h0", "w", *(["b"] if bias else [])], ["h1"], name="kept"),
        helper.make_node(kind, ["h1", "w2"], ["y"], name="after"),
    ]
    shape: list[Any] = ["N", 8] if flat else ["N", 8, 10, 10]
    out: list[Any] = ["N", 5] if flat else ["N", 5, *([12, 12] if op_type == "ConvTranspose" else [8, 8])]
    return make_model(nodes, {"x": shape}, {"y": out}, weights)


def deployed(model: onnx.ModelProto, folder: Any) -> list[onnx.NodeProto]:
    """The nodes that run."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "deployed.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return list(onnx.load(str(folder / "deployed.onnx")).graph.node)


@pytest.mark.parametrize("format", ["qdq", "qoperator"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("op_type", list(SHAPES))
def test_an_op_left_in_float_runs_in_float(op_type: str, bias: bool, format: Format, tmp_path: Any) -> None:
    model = chain(op_type, bias)
    x = np.random.default_rng(1).normal(0, 1, (8, 8) if op_type == "Gemm" else (8, 8, 10, 10))
    recipe = Recipe(format=format, rules=(OpRule("kept"),))
    made = quantscope.quantize(model, {"x": x.astype(np.float32)}, tmp_path / "int8.onnx", recipe=recipe)
    quantized = made.handle.model.proto
    kernels = [
        node for node in deployed(quantized, tmp_path) if node.name.startswith("kept") and "bias" not in node.name
    ]
    assert kernels
    assert all(not node.op_type.startswith(("QLinear", "QGemm", "Quantize")) for node in kernels)
    found = quantscope.diagnose(model, tmp_path / "int8.onnx", data={"x": x.astype(np.float32)}, budget_samples=4)
    (row,) = [t for t in found.activations if t.op == "kept"]
    assert row.budget is not None
    assert row.budget.weight < 1e-6, "nothing of its error comes from its weight"
    weights = [t for t in found.tensors if t.op == "kept" and t.role != "activation"]
    assert all(t.sqnr_db > 130 for t in weights), "the bias is as exact as a float32 is"


def test_onnx_runtime_alone_would_quantize_it(tmp_path: Any) -> None:
    """The defect that `keep_in_float` is there for; should it be gone, so can the module."""
    model = chain("Conv", True)
    x = np.random.default_rng(1).normal(0, 1, (4, 8, 10, 10)).astype(np.float32)
    made = quantscope.quantize(model, {"x": x}, recipe=Recipe(rules=(OpRule("kept"),)))
    proto = made.handle.model.proto
    kept = next(node for node in proto.graph.node if node.name == "kept")
    bias = next(t for t in model.graph.initializer if t.name == "b")
    proto.graph.initializer.append(bias)
    kept.input[2] = "b"
    assert any(node.op_type == "QLinearConv" and node.name.startswith("kept") for node in deployed(proto, tmp_path))
