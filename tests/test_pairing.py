"""Pairs of any two files: never a wrong one, and the coverage that each producer's models reach."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import quantscope
from conftest import convolutions, images, make_model
from quantscope import Recipe
from quantscope.backends.onnx import BACKEND
from quantscope.confirmation import arranged, correlation, layout
from quantscope.pairing import Pairing, coverage, pair
from quantscope.quantized import by_op
from quantscope.recipe import Format
from registry import registry_model
from test_real_models import sounds, text_lines


def paired(reference: object, quantized: object) -> Pairing:
    """The pairing of two models, before any data is seen."""
    x, y = BACKEND.load(reference), BACKEND.load(quantized)
    view = BACKEND.float_view(y, "deployed")
    return pair(x.graph, view, by_op(BACKEND.weights(x)), by_op(BACKEND.weights(y, "deployed")))


def renamed(proto: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """The same model with every op and every tensor but its inputs and outputs under another name."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    names = sorted({n for node in graph.node for n in (*node.input, *node.output)} - kept - {""})
    numbers = list(range(len(names)))
    random.Random(seed).shuffle(numbers)
    new = {name: f"t{number}" for name, number in zip(names, numbers, strict=True)}
    for i, node in enumerate(graph.node):
        node.name = f"n{i}"
        for field in (node.input, node.output):
            for k, name in enumerate(field):
                field[k] = new.get(name, name)
    for tensor in graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    del graph.value_info[:]
    return result


def proto_of(model: Any) -> onnx.ModelProto:
    proto: onnx.ModelProto = model.handle.model.proto
    return proto


CASES: dict[str, tuple[Any, Any]] = {
    "convolutions": (convolutions, lambda: images(8)),
    "ppocrv2_cls": (lambda: registry_model("ppocrv2_cls"), lambda: text_lines(3, 192)),
    "ppocrv4_rec": (lambda: registry_model("ppocrv4_rec"), lambda: text_lines(3)),
    "basic_pitch": (lambda: registry_model("basic_pitch"), lambda: sounds(3)),
}


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("name", list(CASES))
def test_renaming_everything_changes_no_pair(name: str, form: Any) -> None:
    """With names gone only weights and structure are left: what is paired then must be what names had said."""
    reference, samples = CASES[name][0](), CASES[name][1]()
    quantized = quantscope.quantize(reference, samples, recipe=Recipe(form), calibration_samples=2)
    by_names = paired(reference, proto_of(quantized))
    by_structure = paired(reference, renamed(proto_of(quantized)))
    values = {}
    for pairing, model in ((by_names, proto_of(quantized)), (by_structure, renamed(proto_of(quantized)))):
        loaded = BACKEND.load(model)
        names = [p.quantized_name for p in pairing.pairs]
        inputs = {BACKEND.load(reference).graph.inputs[0].name: samples[:1]}
        with BACKEND.open(loaded, names, trace="deployed", threads=1) as runner:
            outputs = runner.run(inputs)
        values[id(pairing)] = {p.reference_name: outputs[p.quantized_name] for p in pairing.pairs}
    known, found = values[id(by_names)], values[id(by_structure)]
    wrong = [t for t in found if t in known and not np.array_equal(found[t], known[t])]
    assert not wrong, "no wrong pair"
    # basic-pitch uses one weight in nine places: most of what stands between them cannot be told apart.
    assert len(found) >= (0.5 if name == "basic_pitch" else 0.9) * len(known)


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize(("name", "least"), [("convolutions", 1.0), ("ppocrv2_cls", 1.0), ("ppocrv4_rec", 0.95)])
def test_coverage_of_models_made_by_onnxruntime(name: str, least: float, form: Any) -> None:
    reference, samples = CASES[name][0](), CASES[name][1]()
    diagnosis = quantscope.diagnose(reference, data=samples, recipe=Recipe(form), calibration_samples=2)
    assert diagnosis.coverage >= least
    assert all(reason for reason in diagnosis.skipped.values())


def test_folded_batch_normalization_and_fused_layer_normalization_are_said_to_be_folded() -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        **{name: rng.uniform(0.5, 2, 8).astype(np.float32) for name in ("gamma", "beta", "mean", "var")},
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["b"], name="norm"),
        helper.make_node("Relu", ["b"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["y"], name="pool"),
    ]
    proto = make_model(nodes, {"x": ["N", 3, 12, 12]}, {"y": ["N", 8, 1, 1]}, weights)
    diagnosis = quantscope.diagnose(proto, data=images(12))
    row = next(t for t in diagnosis.activations if t.op == "conv")
    assert (row.tensor, row.absorbed) == ("r", "Relu")
    assert diagnosis.skipped["norm"] == "nothing to compare: folded into conv"
    assert diagnosis.coverage == 1
    assert next(t for t in diagnosis.weights if t.op == "conv").sqnr_db > 30, "with the folded float weight"


def test_two_branches_that_look_the_same_are_told_apart_by_their_weights() -> None:
    rng = np.random.default_rng(1)
    weights = {n: rng.normal(0, 0.3, (4, 3, 1, 1)).astype(np.float32) for n in ("w1", "w2")}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="left"),
        helper.make_node("Conv", ["x", "w2"], ["b"], name="right"),
        helper.make_node("Concat", ["a", "b"], ["y"], name="both", axis=1),
    ]
    proto = make_model(nodes, {"x": ["N", 3, 12, 12]}, {"y": ["N", 8, 12, 12]}, weights)
    quantized = renamed(proto_of(quantscope.quantize(proto, images(8))), seed=3)
    diagnosis = quantscope.diagnose(proto, quantized, data=images(8))
    assert {t.op for t in diagnosis.activations} == {"left", "right", "both"}
    assert all(t.sqnr_db > 25 for t in diagnosis.activations)


def test_what_cannot_be_told_apart_is_left_out_and_said() -> None:
    rng = np.random.default_rng(1)
    w = rng.normal(0, 0.3, (4, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="left"),
        helper.make_node("Conv", ["x", "w2"], ["b"], name="right"),
        helper.make_node("Tanh", ["a"], ["ta"], name="left tanh"),
        helper.make_node("Tanh", ["b"], ["tb"], name="right tanh"),
        helper.make_node("Add", ["ta", "tb"], ["y"], name="sum"),
    ]
    proto = make_model(nodes, {"x": ["N", 3, 12, 12]}, {"y": ["N", 4, 12, 12]}, {"w1": w, "w2": w})
    quantized = renamed(proto_of(quantscope.quantize(proto, images(8))), seed=3)
    pairing = paired(proto, quantized)
    assert {p.op.name for p in pairing.pairs} == {"sum"}
    assert "no single Conv of the quantized model" in pairing.skipped["left"]
    assert coverage(pairing.skipped, pairing.compute_ops) == pytest.approx(1 / 5)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 100), order=st.permutations(range(4)))
def test_a_transposed_tensor_is_recognized_by_its_values(seed: int, order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    x: NDArray[Any] = rng.normal(0, 1, (2, 5, 5, 3)).astype(np.float32)
    y = np.ascontiguousarray(x.transpose(order)) + rng.normal(0, 0.1, tuple(x.shape[i] for i in order))
    found = layout(x, y)
    assert found is not None
    assert correlation(x, np.asarray(arranged(y, found, x.shape))) > 0.98
    noise = rng.normal(0, 1, y.shape)
    assert layout(x, noise) in (None, (0, 1, 2, 3), (0, 3, 1, 2)), "what follows nothing is read as it usually lies"


def test_layouts_of_another_size_are_refused() -> None:
    x = np.zeros((2, 3), np.float32)
    assert layout(x, np.zeros((2, 4))) is None
    assert np.isnan(correlation(x, x))


def test_a_model_of_the_same_names_but_other_contents_gives_no_wrong_pair(tmp_path: Path) -> None:
    """A pair by structure whose values have nothing to do with each other is dropped and named."""
    proto = convolutions()
    other = renamed(proto_of(quantscope.quantize(proto, images(8))), seed=1)
    for tensor in other.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.int8 and array.ndim > 1:
            shuffled = np.random.default_rng(0).permutation(array.reshape(-1)).reshape(array.shape)
            tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
    diagnosis = quantscope.diagnose(proto, other, data=images(20))
    for row in diagnosis.activations:
        assert row.tensor in ("r1", "c2", "g", "logits")
        assert row.cosine > 0.1 or row.tensor == "logits"


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_an_activation_that_a_second_quantization_took_over_has_its_own_row(form: Format, activation: str) -> None:
    """Where convolutions alone are quantized ONNX Runtime rounds twice, and removes the ReLU in between."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.3, (8, 8, 3, 3)).astype(np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(3, np.float32),
    }
    ends = ["low", "high"] if activation == "Clip" else []
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="first"),
        helper.make_node(activation, ["c1", *ends], ["r1"], name="activation"),
        helper.make_node("Conv", ["r1", "w2"], ["y"], name="second"),
    ]
    model = make_model(nodes, {"x": ["N", 3, 12, 12]}, {"y": ["N", 8, 8, 8]}, weights)
    found = quantscope.diagnose(model, data=images(20), recipe=Recipe(form, op_types=("Conv",)), budget_samples=4)
    rows = {row.tensor: row for row in found.activations}
    assert set(rows) == {"c1", "r1", "y"}
    assert all(row.sqnr_db > 30 for row in rows.values()), "none is compared with the other one's codes"
    assert (rows["c1"].op, rows["r1"].op, rows["y"].op) == ("first", "activation", "second")
    assert rows["c1"].reference.min < -1
    assert rows["r1"].quantized.min == 0
    assert not rows["c1"].absorbed
