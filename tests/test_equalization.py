"""Equalized channels: the same function, better codes, and a diagnosis that knows the factors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import quantscope
from conftest import convolutions, images, make_model
from quantscope import Calibration, Recipe
from quantscope.advice import advise
from quantscope.backends.base import Model
from quantscope.backends.onnx import BACKEND, metadata
from quantscope.backends.registry import backend
from quantscope.cli import main
from quantscope.conversions import neural_compressor
from quantscope.conversions import onnxruntime as ort_arguments
from quantscope.diagnosis import TensorDiagnosis
from quantscope.errors import ModelError, RecipeError
from quantscope.qparams import PerTensor, QuantSpec
from quantscope.recipe import per_block
from quantscope.samples import Samples
from quantscope.workflows.quantizer import Quantizer
from registry import registry_model
from tflite import Layer, chain

Array = NDArray[Any]
PER_TENSOR = Recipe(weights=QuantSpec(8, granularity=PerTensor()))
EQUALIZED = replace(PER_TENSOR, equalize=True)
CHANNELS = 16
SPREAD = 2.0 ** np.linspace(-5, 5, CHANNELS)


def normal(seed: int, *shape: int, std: float = 1.0) -> Array:
    return np.random.default_rng(seed).normal(0, std, shape).astype(np.float32)


def wild(act: str = "Relu") -> onnx.ModelProto:
    """Two convolutions: each channel between them is up to a thousand times as wide as another, and is made up for."""
    weights = {
        "w1": normal(0, CHANNELS, 3, 3, 3) * SPREAD.reshape(-1, 1, 1, 1).astype(np.float32),
        "b1": normal(1, CHANNELS, std=0.1) * SPREAD.astype(np.float32),
        "w2": normal(2, 8, CHANNELS, 3, 3) / SPREAD.reshape(1, -1, 1, 1).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node(act, ["c1"], ["r1"], name="act"),
        helper.make_node("Conv", ["r1", "w2"], ["y"], name="second", pads=[1, 1, 1, 1]),
    ]
    return make_model(nodes, {"x": ["N", 3, 12, 12]}, {"y": ["N", 8, 12, 12]}, weights)


def run(model: Model, x: Array, tensors: tuple[str, ...] = ()) -> dict[str, Array]:
    """The outputs of a model op by op, and some of its tensors."""
    inputs = {model.graph.inputs[0].name: x}
    with BACKEND.open(model, tensors, trace="exact", threads=1) as runner:
        return runner.run(inputs)


def prepared(proto: onnx.ModelProto) -> Model:
    return BACKEND.prepare(BACKEND.load(proto))


def factors_of(model: Model) -> dict[str, Array]:
    return dict(BACKEND.float_view(model, "exact").factors)


def sqnr_db(x: Array, y: Array) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    return float(10 * np.log10((x**2).sum() / ((x - y) ** 2).sum()))


def check_same_function(before: Model, after: Model, x: Array, rtol: float = 1e-5) -> None:
    """Float outputs agree up to float32 rounding, and inner tensors up to their factors."""
    factors = factors_of(after)
    assert factors
    ours, theirs = run(before, x, tuple(factors)), run(after, x, tuple(factors))
    for name, values in ours.items():
        expected = values.astype(np.float64) * factors.get(name, np.float32(1))
        close = np.abs(theirs[name] - expected) <= rtol * np.abs(expected).max() + 1e-30
        assert close.all(), name
    for weight, changed in zip(BACKEND.weights(before), BACKEND.weights(after), strict=True):
        np.testing.assert_allclose(changed.read(), weight.read(), rtol=1e-6, atol=0)


# ---- what it brings, against numpy in float64


def convolved(x: Array, w: Array) -> Array:
    """A convolution of 3x3 with a border of zeros, in float64."""
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.asarray(np.einsum("ncijhw,ochw->noij", windows, np.asarray(w, np.float64), optimize=True))


def signed(w: Array) -> Array:
    """Through int8 codes with one symmetric scale, and back."""
    scale = np.abs(w).max() / 127
    return np.asarray(np.clip(np.rint(w / scale), -128, 127) * scale)


def unsigned(x: Array, low: float, high: float) -> Array:
    """Through uint8 codes over this range, and back."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    return np.asarray((np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale)


def in_eight_bits(x: Array, w1: Array, b1: Array, w2: Array) -> Array:
    """What the two convolutions give with int8 per tensor, ranges being the extrema of the same samples."""

    def coded(values: Array) -> Array:
        return unsigned(values, values.min(), values.max())

    hidden = np.maximum(convolved(x, w1) + b1.reshape(1, -1, 1, 1), 0)
    out = convolved(hidden, w2)
    h = np.maximum(convolved(coded(x), signed(w1)) + b1.reshape(1, -1, 1, 1), 0)
    codes = unsigned(h, hidden.min(), hidden.max())
    return unsigned(convolved(codes, signed(w2)), out.min(), out.max())


@pytest.mark.parametrize("format", ["qdq", "qoperator"])
def test_wildly_different_channels_survive_8_bits_per_tensor_only_equalized(format: Any) -> None:
    proto, x = wild(), images(8)
    w1, b1, w2 = (numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer)
    reference = convolved(np.maximum(convolved(x, w1) + b1.reshape(1, -1, 1, 1), 0), w2)
    # Equation 11 of the paper: W1 / s, b1 / s and W2 · s with s = √(r1·r2) / r2.
    r1, r2 = np.abs(w1).max((1, 2, 3)), np.abs(w2).max((0, 2, 3))
    s = np.sqrt(r1 * r2) / r2
    expected = {
        False: sqnr_db(reference, in_eight_bits(x, w1, b1, w2)),
        True: sqnr_db(reference, in_eight_bits(x, w1 / s.reshape(-1, 1, 1, 1), b1 / s, w2 * s.reshape(1, -1, 1, 1))),
    }
    assert expected[False] < 5
    assert expected[True] > 30
    for equalize, level in expected.items():
        # All samples calibrate, as above.
        model = quantscope.quantize(
            proto, x, recipe=replace(EQUALIZED, format=format, equalize=equalize), calibration_samples=7
        )
        with BACKEND.open(model, [], trace="simulated", threads=1) as runner:
            found = sqnr_db(reference, runner.run({"x": x})["y"])
        assert found == pytest.approx(level, abs=1.0)


def test_the_factors_are_those_of_the_paper() -> None:
    proto = wild()
    w1, b1, w2 = (numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer)
    s = np.sqrt(np.abs(w1).max((1, 2, 3)) / np.abs(w2).max((0, 2, 3)))
    after = BACKEND.equalize(prepared(proto))
    found = factors_of(after)
    assert set(found) == {"c1", "r1"}
    limit = np.median(1 / s) * np.abs(b1).max() / np.abs(b1)
    assert (1 / s < limit).all(), "no bias gets in the way here"
    np.testing.assert_allclose(found["r1"].reshape(-1), 1 / s, rtol=1e-6)
    assert found["r1"].shape == (CHANNELS, 1, 1)
    changed = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in after.handle.model.proto.graph.initializer}
    np.testing.assert_allclose(np.abs(changed["w1"]).max((1, 2, 3)), np.abs(changed["w2"]).max((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(changed["b1"], b1 / s, rtol=1e-6)
    assert after.notes == ("equalized channels: those between 'first' and 'second'",)


def test_a_chain_settles_where_neighbours_have_like_ranges() -> None:
    widths = (6, 10, 8, 12, 9, 5)
    weights, nodes = {}, []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        spread = np.exp(normal(100 + i, 1, outputs, std=1.5))
        weights[f"w{i}"] = normal(i, inputs, outputs) * spread
        nodes.append(helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"m{i}"], name=f"op{i}"))
        nodes.append(helper.make_node("Relu", [f"m{i}"], [f"h{i + 1}"], name=f"relu{i}"))
    last = len(widths) - 1
    proto = make_model(nodes, {"h0": ["N", 6]}, {f"h{last}": ["N", 5]}, weights)
    before = prepared(proto)
    after = BACKEND.equalize(before)
    check_same_function(before, after, normal(7, 20, 6))
    changed = {t.name: np.abs(numpy_helper.to_array(t)) for t in after.handle.model.proto.graph.initializer}
    for i in range(last - 1):
        np.testing.assert_allclose(changed[f"w{i}"].max(0), changed[f"w{i + 1}"].max(1), rtol=0.03)


def test_dead_channels_stay_and_a_constant_one_does_not_take_the_range() -> None:
    def change(w: dict[str, Array]) -> None:
        w["w1"][0] = 0
        w["w2"][:, 1] = 0
        w["w1"][2] = 1e-12
        w["b1"][2] = np.abs(w["b1"]).max()

    proto = wild()
    arrays = {t.name: numpy_helper.to_array(t).copy() for t in proto.graph.initializer}
    change(arrays)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    before = prepared(proto)
    after = BACKEND.equalize(before)
    check_same_function(before, after, images(2))
    factors, bias = factors_of(after)["r1"].reshape(-1), np.abs(arrays["b1"])
    assert factors[0] == factors[1] == 1
    wanted = np.sqrt(np.abs(arrays["w2"]).max((0, 2, 3)) / np.maximum(np.abs(arrays["w1"]).max((1, 2, 3)), 1e-30))[2:]
    middle = np.median(wanted)
    assert wanted[0] > 1e5 * middle, "by the ranges of its weights alone"
    assert factors[2] == pytest.approx(middle, rel=1e-5), "the largest bias stays the largest"
    assert (factors[2:] * bias[2:]).max() <= middle * bias.max() * 1.00001


# ---- the ops


def check(
    nodes: list[Any], shape: list[Any], out: list[Any], weights: dict[str, Array], scaled: set[str], x: Array
) -> None:
    """The model keeps its function, and just these of its tensors are scaled."""
    before = prepared(make_model(nodes, {"x": shape}, {"y": out}, weights))
    after = BACKEND.equalize(before)
    assert set(factors_of(after)) == scaled
    check_same_function(before, after, x)
    for factors in factors_of(after).values():
        assert factors.max() > 1.5 * factors.min()


def op(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=f"{kind}:{output}", **attributes)


def by_channel(seed: int, *shape: int, axis: int) -> Array:
    """Random numbers with another width in each channel."""
    view = [1] * len(shape)
    view[axis] = -1
    return normal(seed, *shape) * np.exp(normal(seed + 50, shape[axis], std=1.5)).reshape(view)


IMAGE = ["N", 4, 8, 8]
PIXELS = normal(3, 2, 4, 8, 8)


@pytest.mark.parametrize("act", ["Relu", "LeakyRelu", "Identity"])
def test_grouped_and_depthwise_convolutions(act: str) -> None:
    nodes = [
        op("Conv", ["x", "w1", "b1"], "c1", group=2),
        op("Relu", ["c1"], "r1"),
        op("Conv", ["r1", "w2", "b2"], "c2", group=8),
        op("Relu", ["c2"], "r2"),
        op("Conv", ["r2", "w3"], "c3", group=4),
        op(act, ["c3"], "r3"),
        op("Conv", ["r3", "w4"], "y"),
    ]
    weights = {
        "w1": by_channel(0, 8, 2, 1, 1, axis=0), "b1": normal(1, 8, std=0.01),
        "w2": by_channel(2, 16, 1, 3, 3, axis=0), "b2": normal(3, 16, std=0.01),
        "w3": by_channel(4, 12, 4, 1, 1, axis=1), "w4": by_channel(5, 5, 12, 1, 1, axis=1),
    }  # fmt: skip
    scaled = {"c1", "r1", "c2", "r2", "c3", *(["r3"] if act != "Identity" else [])}
    check(nodes, IMAGE, ["N", 5, 6, 6], weights, scaled, PIXELS)


def test_transposed_convolutions_and_pooling() -> None:
    nodes = [
        op("ConvTranspose", ["x", "w1", "b1"], "c1", group=2, strides=[2, 2]),
        op("MaxPool", ["c1"], "p1", kernel_shape=[2, 2]),
        op("Pad", ["p1", "pads"], "q1"),
        op("ConvTranspose", ["q1", "w2"], "c2"),
        op("AveragePool", ["c2"], "p2", kernel_shape=[2, 2]),
        op("PRelu", ["p2", "slope"], "r2"),
        op("Conv", ["r2", "w3"], "c3"),
        op("GlobalAveragePool", ["c3"], "g3"),
        op("Flatten", ["g3"], "f3"),
        op("Gemm", ["f3", "w4", "b4"], "y", transB=1),
    ]
    weights = {
        "w1": by_channel(0, 4, 3, 2, 2, axis=1), "b1": normal(1, 6, std=0.01),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "w2": by_channel(2, 6, 5, 2, 2, axis=0),
        "slope": np.full((1, 1, 1), 0.1, np.float32), "w3": by_channel(3, 7, 5, 2, 2, axis=1),
        "w4": by_channel(4, 3, 7, axis=1), "b4": normal(5, 3),
    }  # fmt: skip
    check(nodes, IMAGE, ["N", 3], weights, {"c1", "p1", "q1", "c2", "p2", "r2", "c3", "g3", "f3"}, PIXELS)


def test_products_with_biases_apart_and_normalizations() -> None:
    nodes = [
        op("MatMul", ["x", "w1"], "m1"),
        op("Add", ["b1", "m1"], "a1"),
        op("Relu", ["a1"], "r1"),
        op("MatMul", ["r1", "w2"], "m2"),
        op("LayerNormalization", ["m2", "scale", "shift"], "n", axis=-1),
        op("MatMul", ["n", "w3"], "m3"),
        op("Sigmoid", ["m3"], "s"),
        op("Mul", ["s", "vector"], "v"),
        op("MatMul", ["v", "w4"], "y"),
    ]
    weights = {
        "w1": by_channel(0, 4, 6, axis=1), "b1": normal(1, 6, std=0.01), "w2": by_channel(2, 6, 8, axis=0),
        "scale": by_channel(3, 8, axis=0), "shift": normal(4, 8), "w3": by_channel(5, 8, 7, axis=0),
        "vector": by_channel(6, 7, axis=0), "w4": by_channel(7, 7, 3, axis=0),
    }  # fmt: skip
    # MatMul and Add may have become one Gemm, which writes the sum.
    before = prepared(make_model(nodes, {"x": ["N", 5, 4]}, {"y": ["N", 5, 3]}, weights))
    product = {"m1"} & set(before.graph.producers)
    check(nodes, ["N", 5, 4], ["N", 5, 3], weights, {*product, "a1", "r1", "n", "v"}, normal(8, 2, 5, 4))


def test_normalizations_of_channels_and_means() -> None:
    nodes = [
        op("Relu", ["x"], "r0"),
        op("InstanceNormalization", ["r0", "s1", "b1"], "n1"),
        op("Conv", ["n1", "w1"], "c1"),
        op("Sigmoid", ["c1"], "s"),
        op("BatchNormalization", ["s", "s2", "b2", "mean", "var"], "n2"),
        op("Div", ["n2", "two"], "d2"),
        op("Mul", ["d2", "map"], "k2"),
        op("ReduceMean", ["k2"], "g2", axes=[2, 3], keepdims=0),
        op("Gemm", ["g2", "w2"], "y"),
    ]
    weights = {
        "s1": by_channel(0, 4, axis=0), "b1": normal(1, 4), "w1": by_channel(2, 6, 4, 1, 1, axis=1),
        "s2": by_channel(3, 6, axis=0), "b2": normal(4, 6), "mean": normal(5, 6), "var": np.abs(normal(6, 6)) + 1,
        "two": np.full((), 2, np.float32), "map": np.abs(normal(7, 8, 8)), "w2": by_channel(8, 6, 3, axis=0),
    }  # fmt: skip
    check(nodes, IMAGE, ["N", 3], weights, {"n1", "n2", "d2", "k2", "g2"}, PIXELS)


def between(*nodes: Any, **weights: Array) -> onnx.ModelProto:
    """Two convolutions with these nodes between c1 and z."""
    weights = {"w1": by_channel(0, 6, 4, 1, 1, axis=0), "w2": by_channel(1, 5, 6, 1, 1, axis=1), **weights}
    every = [op("Conv", ["x", "w1"], "c1"), *nodes, op("Conv", ["z", "w2"], "y")]
    return make_model(every, {"x": IMAGE}, {"y": ["N", 5, 8, 8]}, weights)


@pytest.mark.parametrize(
    ("nodes", "weights", "reason"),
    [
        ([op("Clip", ["c1", "low", "high"], "z")], {"low": np.float32(0), "high": np.float32(6)}, "Clip (1)"),
        ([op("Softplus", ["c1"], "z")], {}, "Softplus (1)"),
        ([op("Sigmoid", ["c1"], "s"), op("Mul", ["c1", "s"], "z")], {}, "Sigmoid (1)"),
        ([op("Conv", ["c1", "w3"], "c2"), op("Add", ["c1", "c2"], "z")], {"w3": normal(2, 6, 6, 1, 1)}, "Add (2)"),
        ([op("Concat", ["c1", "c1"], "k", axis=1), op("Conv", ["k", "w3"], "z")], {"w3": normal(2, 6, 12, 1, 1)},
         "Concat (1)"),
        ([op("Add", ["c1", "one"], "z")], {"one": np.full((1, 1, 8, 8), 0.5, np.float32)}, "Add (1)"),
        ([op("Pad", ["c1", "pads", "one"], "z")],
         {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "one": np.float32(1)}, "Pad (1)"),
        ([op("Transpose", ["c1"], "z", perm=[0, 1, 3, 2])], {}, "Transpose (1)"),
        ([op("Softmax", ["c1"], "z", axis=1)], {}, "Softmax (1)"),
    ],
)  # fmt: skip
def test_what_needs_channels_as_they_are_is_left_alone_and_counted(
    nodes: list[Any], weights: dict[str, Array], reason: str
) -> None:
    before = prepared(between(*nodes, **{name: np.asarray(array) for name, array in weights.items()}))
    after = BACKEND.equalize(before)
    assert "c1" not in factors_of(after)
    (note,) = (note for note in after.notes if note.startswith("not equalized"))
    assert note.endswith(f": {reason}")
    y = run(before, PIXELS)["y"]
    np.testing.assert_allclose(run(after, PIXELS)["y"], y, atol=1e-5 * np.abs(y).max())


def test_a_model_without_such_ops_stays_the_same_object_and_says_so() -> None:
    before = prepared(between(op("Sigmoid", ["c1"], "z")))
    after = BACKEND.equalize(before)
    assert after.handle.model is before.handle.model
    assert after.notes[-1] == "equalization found no tensor whose channels can be scaled"


def test_an_output_and_what_an_inner_graph_reads_are_left_alone() -> None:
    proto = between(op("Relu", ["c1"], "z"))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 6, 8, 8]))
    assert not factors_of(BACKEND.equalize(prepared(proto)))
    proto = between(op("Relu", ["c1"], "z"))
    value = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branches = [
        helper.make_graph([helper.make_node(kind, ["z"], ["inner"])], kind, [], [value]) for kind in ("Neg", "Abs")
    ]
    proto.graph.node.append(
        helper.make_node("If", ["yes"], ["w"], name="if", then_branch=branches[0], else_branch=branches[1])
    )
    proto.graph.input.append(helper.make_tensor_value_info("yes", TensorProto.BOOL, []))
    proto.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, None))
    after = BACKEND.equalize(prepared(proto))
    assert not factors_of(after)
    assert "If (1)" in after.notes[-2]


def test_a_constant_that_others_read_too_is_copied() -> None:
    w = by_channel(0, 4, 4, 1, 1, axis=0)
    nodes = [
        op("Conv", ["x", "w", "b"], "c1"), op("Relu", ["c1"], "r1"), op("Conv", ["r1", "w"], "c2"),
        op("Sigmoid", ["c2"], "s"), op("Conv", ["s", "w", "b"], "c3"), op("Add", ["c3", "x"], "y"),
    ]  # fmt: skip
    weights = {"w": w, "b": normal(1, 4, std=0.01)}
    check(nodes, IMAGE, IMAGE, weights, {"c1", "r1"}, PIXELS)
    after = BACKEND.equalize(prepared(make_model(nodes, {"x": IMAGE}, {"y": IMAGE}, weights)))
    kept = next(t for t in after.handle.model.proto.graph.initializer if t.name == "w")
    np.testing.assert_array_equal(numpy_helper.to_array(kept), w)


LAYERS: dict[str, Callable[[int, int, int], tuple[list[str], dict[str, Array], dict[str, Any], int]]] = {
    "Conv": lambda seed, i, o: (["w", "b"], {"w": by_channel(seed, o, i, 3, 3, axis=0), "b": normal(seed, o)},
                                {"pads": [1, 1, 1, 1]}, o),
    "ConvTranspose": lambda seed, i, o: (["w"], {"w": by_channel(seed, i, o, 1, 1, axis=1)}, {}, o),
    "depthwise": lambda seed, i, o: (["w", "b"], {"w": by_channel(seed, i, 1, 3, 3, axis=0), "b": normal(seed, i)},
                                     {"pads": [1, 1, 1, 1], "group": i}, i),
    "BatchNormalization": lambda seed, i, o: (["s", "b", "m", "v"], {
        "s": by_channel(seed, i, axis=0), "b": normal(seed, i), "m": normal(seed + 1, i),
        "v": np.abs(normal(seed + 2, i)) + np.float32(0.5)}, {}, i),
    "Mul": lambda seed, i, o: (["v"], {"v": by_channel(seed, i, 1, 1, axis=0)}, {}, i),
    "Add": lambda seed, i, o: (["v"], {"v": normal(seed, i, 1, 1)}, {}, i),
    "Relu": lambda seed, i, o: ([], {}, {}, i),
    "LeakyRelu": lambda seed, i, o: ([], {}, {}, i),
    "Softplus": lambda seed, i, o: ([], {}, {}, i),
    "MaxPool": lambda seed, i, o: ([], {}, {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}, i),
}  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([*LAYERS, "Conv", "Relu"]), st.integers(1, 7)), min_size=2, max_size=9),
    st.integers(0, 1000),
)
def test_any_chain_keeps_its_function(layers: list[tuple[str, int]], seed: int) -> None:
    nodes, name, channels = [], "x", 4
    weights: dict[str, Array] = {}
    for i, (kind, width) in enumerate([("Conv", 5), *layers, ("Conv", 3)]):
        operands, arrays, attributes, outputs = LAYERS[kind](seed + i, channels, width)
        weights |= {f"{key}{i}": array for key, array in arrays.items()}
        last = i == len(layers) + 1
        nodes.append(
            helper.make_node(
                "Conv" if kind == "depthwise" else kind, [name, *(f"{key}{i}" for key in operands)],
                ["y" if last else f"t{i}"], name=f"op{i}", **attributes,
            )
        )  # fmt: skip
        name, channels = f"t{i}", outputs
    before = prepared(make_model(nodes, {"x": ["N", 4, 6, 6]}, {"y": ["N", 3, None, None]}, weights))
    after = BACKEND.equalize(before)
    if factors_of(after):
        check_same_function(before, after, normal(seed, 2, 4, 6, 6), rtol=1e-4)
    else:
        assert after.handle.model is before.handle.model


# ---- the record


def quantized(proto: Any, x: Array, path: Path, recipe: Recipe) -> Model:
    quantscope.quantize(proto, x, path, recipe=recipe)
    return BACKEND.load(path)


@pytest.mark.parametrize(
    "recipe",
    [
        EQUALIZED,
        Recipe("qoperator", equalize=True),
        Recipe(equalize=True, activations=QuantSpec(16, signed=False)),
        Recipe(equalize=True, weights=QuantSpec(4, granularity=per_block(4))),
    ],
)
def test_the_factors_survive_quantization_and_the_file(recipe: Recipe, tmp_path: Path) -> None:
    nodes = [op("MatMul", ["x", "w1"], "m"), op("Relu", ["m"], "r"), op("MatMul", ["r", "w2"], "y")]
    weights = {"w1": by_channel(0, 8, 8, axis=1), "w2": by_channel(1, 8, 4, axis=0)}
    proto = make_model(nodes, {"x": ["N", 8]}, {"y": ["N", 4]}, weights)
    x = normal(2, 20, 8)
    expected = factors_of(BACKEND.equalize(prepared(proto)))
    model = quantized(proto, x, tmp_path / "q.onnx", recipe)
    for trace in ("exact", "simulated", "deployed"):
        found = BACKEND.float_view(model, trace).factors
        assert found.keys() == expected.keys() == {"m", "r"}
        for name in found:
            np.testing.assert_array_equal(found[name], expected[name])
    for weight in BACKEND.weights(model):
        bits = 4 if weight.qparams is not None and weight.qparams.spec.bits == 4 else 8
        assert sqnr_db(weights[weight.tensor], weight.read()) > (10 if bits == 4 else 30)
    assert not metadata.record(BACKEND.prepare(model).handle.model.proto)


@pytest.mark.parametrize(
    "value",
    ["", "[]", "{}", '{"version": 2, "regions": []}', '{"version": 1, "regions": [{"factors": "?"}]}',
     '{"version": 1, "regions": [{"factors": "AAAAAA==", "tensors": {}, "times": {}, "over": {}}]}'],
)  # fmt: skip
def test_a_damaged_record_is_refused_with_the_way_out(value: str) -> None:
    proto = convolutions()
    proto.metadata_props.add(key="quantscope.equalization", value=value)
    with pytest.raises(ModelError, match=r"quantscope.equalization.*means nothing") as caught:
        quantscope.diagnose(convolutions(), proto, data=images(4))
    assert caught.value.next_step == "quantize the model again"


def test_weights_in_a_data_file_are_scaled_in_a_copy(tmp_path: Path) -> None:
    width = 128
    weights = {f"w{i}": by_channel(i, width, width, axis=i % 2) for i in range(3)}
    nodes = []
    for i in range(3):
        nodes += [op("MatMul", [f"h{i}" if i else "x", f"w{i}"], f"m{i}"), op("Relu", [f"m{i}"], f"h{i + 1}")]
    proto = make_model(nodes, {"x": ["N", width]}, {"h3": ["N", width]}, weights)
    path = tmp_path / "model.onnx"
    onnx.save(proto, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    content = (tmp_path / "weights.bin").read_bytes()
    before = BACKEND.load(path)
    assert before.handle.model.external
    after = BACKEND.equalize(before)
    assert after.handle.model.external
    assert set(factors_of(after)) == {"m0", "h1", "m1", "h2"}
    check_same_function(before, after, normal(5, 4, width))
    BACKEND.save(after, tmp_path / "equalized.onnx")
    again = BACKEND.load(tmp_path / "equalized.onnx")
    check_same_function(before, again, normal(5, 4, width))
    assert (tmp_path / "weights.bin").read_bytes() == content


# ---- the diagnosis


def activations(diagnosis: quantscope.Diagnosis) -> dict[str, TensorDiagnosis]:
    return {t.tensor: t for t in diagnosis.tensors if t.role == "activation"}


def scale_of(path: Path, tensor: str) -> tuple[float, int]:
    """Scale and zero point of an activation as they stand in a QDQ file."""
    proto = onnx.load(str(path))
    arrays = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    node = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == tensor)
    return float(arrays[node.input[1]]), int(arrays[node.input[2]])


@pytest.mark.parametrize("trace", ["deployed", "simulated", "both"])
def test_the_local_error_of_an_equalized_tensor_is_that_of_rounding_alone(trace: Any, tmp_path: Path) -> None:
    proto, x = wild(), images(12)
    onnx.save(proto, str(tmp_path / "float.onnx"))
    path = tmp_path / "q.onnx"
    quantscope.quantize(proto, x, path, recipe=EQUALIZED)
    w1, b1, w2 = (numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer)
    hidden = np.maximum(convolved(x, w1) + b1.reshape(1, -1, 1, 1), 0)
    factors = np.sqrt(np.abs(w2).max((0, 2, 3)) / np.abs(w1).max((1, 2, 3))).reshape(-1, 1, 1)
    names = {n.input[0] for n in onnx.load(str(path)).graph.node if n.op_type == "QuantizeLinear"}
    scale, zero = scale_of(path, "r1" if "r1" in names else "c1")
    codes = np.clip(np.rint(hidden * factors / scale) + zero, 0, 255)
    local = (((codes - zero) * scale / factors - hidden) ** 2).mean()

    row = activations(quantscope.diagnose(tmp_path / "float.onnx", path, data=x, trace=trace))["r1"]
    assert row.local_mse == pytest.approx(local, rel=0.01)
    assert row.local_sqnr_db > 35
    assert row.sqnr_db > 30, "each channel in its own unit: nothing else may differ much"
    assert (row.granularity, row.dtype) == ("per tensor", "uint8")
    assert row.budget is not None
    assert abs(row.budget.residual) < 0.02 * row.budget.mse
    assert sum(row.budget.shares.values()) == pytest.approx(row.budget.mse, rel=1e-6)
    assert row.isolated_sqnr_db > 30
    if trace == "both":
        assert row.simulated_sqnr_db == pytest.approx(row.sqnr_db, abs=0.5)
        assert row.kernels_sqnr_db > 40


@pytest.mark.parametrize("format", ["qdq", "qoperator"])
def test_channel_by_channel_the_figures_are_those_of_a_comparison_in_the_equalized_unit(
    format: Any, tmp_path: Path
) -> None:
    """A factor changes no ratio within a channel: as without the record, beside the equalized float model."""
    proto, x = wild(), images(12)
    path, other = tmp_path / "q.onnx", tmp_path / "other.onnx"
    quantscope.quantize(proto, x, path, recipe=replace(EQUALIZED, format=format))
    equalized, bare = BACKEND.equalize(prepared(proto)).handle.model.with_weights(), onnx.load(str(path))
    for each in (equalized, bare):
        metadata.forget(each)
    onnx.save(bare, str(other))
    ours = activations(quantscope.diagnose(proto, path, data=x, budget_samples=12))
    theirs = activations(quantscope.diagnose(equalized, other, data=x, budget_samples=12))
    assert ours.keys() == theirs.keys()
    for name in ("r1", "y"):
        a, b = ours[name].channels, theirs[name].channels
        assert a is not None
        assert b is not None
        np.testing.assert_allclose(a.sqnr_db, b.sqnr_db, atol=0.01)
    blind = activations(quantscope.diagnose(proto, other, data=x))["r1"]
    assert blind.sqnr_db < 10 < ours["r1"].sqnr_db - 20, "what a diagnosis would say that does not know the factors"


@pytest.mark.parametrize("recipe", [EQUALIZED, Recipe(equalize=True), Recipe("qoperator", equalize=True)])
def test_weights_are_compared_in_the_reference_unit(recipe: Recipe, tmp_path: Path) -> None:
    proto, x = wild(), images(8)
    model = quantized(proto, x, tmp_path / "q.onnx", recipe)
    weights = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer}
    raw = {t.name: numpy_helper.to_array(t) for t in model.handle.model.with_weights().graph.initializer}
    factors = factors_of(model)["r1"].astype(np.float64).reshape(-1)
    expected = {}
    for name, view in (("w1", (1 / factors).reshape(-1, 1, 1, 1)), ("w2", factors.reshape(1, -1, 1, 1))):
        scale = raw[f"{name}_scale"].astype(np.float64).reshape(-1, 1, 1, 1)
        expected[name] = raw[f"{name}_quantized"].astype(np.float64) * scale * view
    diagnosis = quantscope.diagnose(proto, tmp_path / "q.onnx", data=x)
    rows = {t.tensor: t for t in diagnosis.weights}
    assert set(rows) == {"w1", "w2"}
    for name, row in rows.items():
        assert row.sqnr_db == pytest.approx(sqnr_db(weights[name], expected[name]), abs=0.01)
        assert row.local_sqnr_db == pytest.approx(row.sqnr_db, abs=0.01)
        assert row.reference.max == pytest.approx(weights[name].max(), rel=1e-6)


def test_axes_of_one_length_are_not_exchanged_because_channels_are_scaled(tmp_path: Path) -> None:
    """With as many channels as rows and columns only the values tell how a tensor lies."""
    nodes = [
        op("Conv", ["x", "w1"], "c1"), op("Relu", ["c1"], "r1"), op("Conv", ["r1", "w2"], "c2"),
        op("Relu", ["c2"], "r2"), op("Conv", ["r2", "w3"], "y"),
    ]  # fmt: skip
    weights = {
        "w1": normal(0, 8, 4, 1, 1) * 10.0 ** np.linspace(-1.5, 1.5, 8).reshape(-1, 1, 1, 1),
        "w2": normal(1, 8, 8, 1, 1) * 10.0 ** np.linspace(1.5, -1.5, 8).reshape(1, -1, 1, 1),
        "w3": by_channel(2, 3, 8, 1, 1, axis=1),
    }
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    proto = make_model(nodes, {"x": IMAGE}, {"y": ["N", 3, 8, 8]}, weights)
    x = normal(4, 10, 4, 8, 8)
    quantscope.quantize(proto, x, tmp_path / "q.onnx", recipe=EQUALIZED)
    for trace in ("deployed", "simulated"):
        rows = activations(quantscope.diagnose(proto, tmp_path / "q.onnx", data=x, trace=trace))
        assert {"r1", "r2", "y"} <= rows.keys()
        for row in rows.values():
            assert row.local_sqnr_db > 25
            assert row.sqnr_db > 20
            assert row.budget is not None


def test_ops_in_float_of_an_equalized_model_show_no_error(tmp_path: Path) -> None:
    proto, x = wild(), images(6)
    quantscope.quantize(proto, x, tmp_path / "q.onnx", recipe=EQUALIZED.with_fallback(["first", "act", "second"]))
    for trace in ("deployed", "simulated"):
        diagnosis = quantscope.diagnose(proto, tmp_path / "q.onnx", data=x, trace=trace)
        rows = activations(diagnosis)
        assert "r1" in rows
        for row in rows.values():
            assert row.dtype == "float"
            assert row.sqnr_db > 110
            assert row.isolated_sqnr_db > 110
        assert diagnosis.scores[0].quantized > 0.999


def renamed(proto: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """The same model with other names for some of its tensors."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    for node in result.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return result


@pytest.mark.parametrize("names", [{"c1": "a", "r1": "b"}, {"c1": "a", "r1": "b", "c2": "r1"}])
@pytest.mark.parametrize("trace", ["deployed", "simulated"])
def test_a_reference_that_names_tensors_otherwise_gets_no_row_rather_than_a_wrong_one(
    names: dict[str, str], trace: Any, tmp_path: Path
) -> None:
    nodes = [
        op("Conv", ["x", "w1"], "c1"), op("Relu", ["c1"], "r1"), op("Conv", ["r1", "w2"], "c2"),
        op("Sigmoid", ["c2"], "s"), op("Conv", ["s", "w3"], "y"),
    ]  # fmt: skip
    weights = {
        "w1": by_channel(0, 6, 4, 1, 1, axis=0), "w2": by_channel(1, 6, 6, 1, 1, axis=1), "w3": normal(2, 3, 6, 1, 1),
    }  # fmt: skip
    proto = make_model(nodes, {"x": IMAGE}, {"y": ["N", 3, 8, 8]}, weights)
    x = normal(3, 10, 4, 8, 8)
    quantscope.quantize(proto, x, tmp_path / "q.onnx", recipe=EQUALIZED)
    plain = activations(quantscope.diagnose(proto, tmp_path / "q.onnx", data=x, trace=trace))
    assert {"r1", "c2", "s", "y"} <= plain.keys()
    found = quantscope.diagnose(renamed(proto, names), tmp_path / "q.onnx", data=x, trace=trace)
    rows = activations(found)
    assert "y" in rows
    for name, row in plain.items():
        other = rows.get(names.get(name, name))
        if other is not None:
            assert other.local_sqnr_db == pytest.approx(row.local_sqnr_db, abs=1e-6)
            assert other.sqnr_db == pytest.approx(row.sqnr_db, abs=1e-6)
    assert names["r1"] not in rows
    assert any("equalized" in reason for reason in found.skipped.values())


def test_real_convolutions_keep_coverage_budgets_and_float_outputs(tmp_path: Path) -> None:
    path = registry_model("ppocrv2_cls")
    x = np.random.default_rng(0).normal(0, 1, (6, 3, 48, 192)).astype(np.float32)
    before = BACKEND.prepare(BACKEND.load(path))
    after = BACKEND.equalize(before)
    check_same_function(before, after, x[:2])
    plain = quantscope.diagnose(path, data=x, budget_samples=2)
    quantscope.quantize(path, x, tmp_path / "q.onnx", recipe=Recipe(equalize=True))
    found = quantscope.diagnose(path, tmp_path / "q.onnx", data=x[3:], budget_samples=2)
    assert found.coverage == plain.coverage
    rows = activations(found)
    assert rows.keys() == activations(plain).keys()
    scaled = [row for name, row in rows.items() if name in factors_of(after)]
    assert len(scaled) >= 10
    for row in scaled:
        assert row.local_sqnr_db > 20
        assert row.budget is not None
        assert sum(row.budget.shares.values()) == pytest.approx(row.budget.mse, rel=1e-6, abs=1e-12)
        assert abs(row.budget.residual) <= 0.2 * row.budget.mse + 1e-9, row.op


# ---- the recipe, the search and the command


def test_a_recipe_says_whether_to_equalize(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    Recipe(equalize=True).save(file)
    assert "equalize = true" in file.read_text()
    assert Recipe.load(file) == Recipe(equalize=True)
    assert Recipe.from_dict(Recipe(equalize=True).to_dict()).equalize
    old = Recipe(calibration=Calibration("entropy")).to_dict()
    del old["equalize"]
    assert Recipe.from_dict(old) == Recipe(calibration=Calibration("entropy"))
    file.write_text('equalize = "yes"\n')
    with pytest.raises(RecipeError, match='equalize is "yes"') as caught:
        Recipe.load(file)
    assert caught.value.accepted == "true or false"


def test_other_tools_have_no_equivalent_and_it_is_said() -> None:
    graph = BACKEND.load(convolutions()).graph
    for recipe, said in ((Recipe(equalize=True), True), (Recipe(), False)):
        *_, ours = neural_compressor.to_op_dicts(recipe, graph)
        _, theirs = ort_arguments.to_arguments(recipe, graph)
        assert any("equalize" in note for note in ours) is said
        assert any("equalize" in note for note in theirs) is said


def test_recipes_with_and_without_take_turns_each_with_its_own_ranges() -> None:
    proto, x = wild(), images(12)
    model = BACKEND.load(proto)
    samples = Samples.of(x).for_inputs(model.graph.inputs)
    quantizer = Quantizer(BACKEND, model, samples, range(6), batch_size=1)
    for recipe in (PER_TENSOR, EQUALIZED, PER_TENSOR):
        expected = quantscope.quantize(proto, x, recipe=recipe, calibration_samples=6)
        found = quantizer.quantized(recipe)
        assert found.handle.model.with_weights() == expected.handle.model.with_weights()
        assert quantizer.share(recipe) == 1


def test_the_command_equalizes_and_says_where(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(wild(), str(tmp_path / "model.onnx"))
    np.save(tmp_path / "x.npy", images(8))
    arguments = ["quantscope", "quantize", str(tmp_path / "model.onnx"), str(tmp_path / "q.onnx"), "--data",
                 str(tmp_path / "x.npy"), "--per-tensor", "--equalize", "--json"]  # fmt: skip
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code in (0, None)
    assert "equalized channels: those between 'first' and 'second'" in json.loads(capfd.readouterr().out)["notes"]
    session = onnxruntime.InferenceSession(str(tmp_path / "q.onnx"), providers=["CPUExecutionProvider"])
    y = session.run(None, {"x": images(8)})[0]
    w1, b1, w2 = (numpy_helper.to_array(t).astype(np.float64) for t in wild().graph.initializer)
    reference = convolved(np.maximum(convolved(images(8), w1) + b1.reshape(1, -1, 1, 1), 0), w2)
    assert sqnr_db(reference, y) > 25
    Recipe().save(tmp_path / "recipe.toml")
    monkeypatch.setattr("sys.argv", [*arguments, "--recipe", str(tmp_path / "recipe.toml")])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "--recipe and --per-channel/--per-tensor, --equalize are given" in " ".join(capfd.readouterr().err.split())


# ---- LiteRT: the same with channels on the last axis, and activations that are part of an op

LITERT = backend("litert")
needs_litert = pytest.mark.skipif(bool(LITERT.missing()), reason=f"LiteRT is not installed: {LITERT.missing()}")
BORDER = np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)
PICTURES = np.ascontiguousarray(images(12).transpose(0, 2, 3, 1))


def conv(name: str, weight: Array, bias: Array | None = None, activation: str = "NONE") -> Layer:
    """A convolution with a weight as ONNX has it, (out, in, height, width)."""
    constants = [weight.transpose(0, 2, 3, 1), np.zeros(len(weight), np.float32) if bias is None else bias]
    return Layer("CONV_2D", name, constants, activation)


def wild_pair(path: Path, activation: str = "RELU") -> Path:
    """The two convolutions of `wild`, with the activation in the first one, whose values are 1/200 of those there."""
    w1, b1, w2 = (numpy_helper.to_array(t) for t in wild().graph.initializer)
    layers = [conv("net/first/Conv2D", w1 / 200, b1 / 200, activation), conv("net/second/Conv2D", w2)]
    return chain(path, PICTURES, layers)


def outputs(model: Model, x: Array, tensors: tuple[str, ...] = ()) -> dict[str, Array]:
    """The outputs of a model, sample by sample, and some of its tensors."""
    with LITERT.open(model, tensors, trace="exact", threads=1) as runner:
        found = [runner.run({model.graph.inputs[0].name: x[i : i + 1]}) for i in range(len(x))]
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def check_same_in_litert(path: Path, x: Array, rtol: float = 1e-5) -> Model:
    """The model equalized, which computes the same up to float32 rounding, and inner tensors up to their factors."""
    before = LITERT.prepare(LITERT.load(path))
    after = LITERT.equalize(before)
    factors = LITERT.float_view(after, "exact").factors
    ours, theirs = outputs(before, x, tuple(factors)), outputs(after, x, tuple(factors))
    for name, values in ours.items():
        back = theirs[name] / factors.get(name, 1)
        assert np.abs(back - values).max() <= rtol * np.abs(values).max(), name
    for weight, changed in zip(LITERT.weights(before), LITERT.weights(after), strict=True):
        np.testing.assert_allclose(changed.read(), weight.read(), rtol=1e-6, atol=0)
    return after


@needs_litert
def test_litert_gets_the_factors_of_onnx_and_survives_8_bits_per_tensor(tmp_path: Path) -> None:
    path = wild_pair(tmp_path / "wild.tflite")
    after = check_same_in_litert(path, PICTURES[:2])
    (found,) = LITERT.float_view(after, "exact").factors.values()
    expected = factors_of(BACKEND.equalize(prepared(wild())))["r1"]
    np.testing.assert_allclose(found, expected.reshape(-1) * np.sqrt(200), rtol=1e-5)
    assert after.notes == ("equalized channels: those between 'net/first/Conv2D' and 'net/second/Conv2D'",)
    reference = outputs(LITERT.load(path), PICTURES)["net/second/Conv2D"]
    for recipe, low, high in ((PER_TENSOR, -10, 5), (EQUALIZED, 30, 60)):
        quantized = quantscope.quantize(path, PICTURES, recipe=recipe)
        assert low < sqnr_db(reference, outputs(quantized, PICTURES)["net/second/Conv2D"]) < high


@needs_litert
def test_litert_passes_factors_through_every_layout_of_weights(tmp_path: Path) -> None:
    vector = by_channel(3, 1, 1, 1, 6, axis=3)
    layers = [
        Layer("CONV_2D", "c1", [by_channel(0, 6, 3, 3, 3, axis=0), normal(1, 6, std=0.01)], "RELU"),
        Layer("DEPTHWISE_CONV_2D", "d1", [by_channel(2, 1, 3, 3, 12, axis=3), normal(3, 12, std=0.01)], "RELU"),
        Layer("CONV_2D", "g1", [by_channel(4, 6, 1, 1, 4, axis=3), normal(5, 6, std=0.01)]),
        Layer("MUL", "m1", [vector]),
        Layer("ADD", "a1", [normal(6, 1, 1, 1, 6, std=0.01)], "RELU"),
        Layer("PAD", "p1", [BORDER]),
        Layer("MAX_POOL_2D", "x1", []),
        Layer("TRANSPOSE_CONV", "t1", [by_channel(7, 5, 2, 2, 6, axis=3), normal(8, 5, std=0.01)], "RELU"),
        Layer("AVERAGE_POOL_2D", "v1", []),
        Layer("CONV_2D", "c2", [by_channel(9, 7, 1, 1, 5, axis=3), normal(10, 7)], "RELU6"),
        Layer("CONV_2D", "c3", [by_channel(11, 8, 1, 1, 7, axis=0), normal(12, 8, std=0.01)]),
        Layer("MEAN", "e1", [np.array([1, 2], np.int32)]),
        Layer("RESHAPE", "s1", [np.array([1, 8], np.int32)]),
        Layer("FULLY_CONNECTED", "f1", [by_channel(13, 9, 8, axis=1), normal(14, 9, std=0.01)], "RELU"),
        Layer("FULLY_CONNECTED", "f2", [by_channel(15, 4, 9, axis=0), normal(16, 4)]),
    ]
    after = check_same_in_litert(chain(tmp_path / "layers.tflite", PICTURES, layers), PICTURES[:2], rtol=1e-4)
    factors = LITERT.float_view(after, "exact").factors
    assert set(factors) == {layer.name for layer in layers} - {"c2", "f2"}
    assert all(values.max() > 1.5 * values.min() for values in factors.values())
    assert after.notes[-1].endswith("as they are: Relu6 (1)")


@needs_litert
@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Layer("RELU6", "z", []), "Clip (1)"),
        (Layer("ADD", "z", [np.full((1, 1, 1, 1), 0.5, np.float32)]), "Add (1)"),
        (Layer("MIRROR_PAD", "z", [BORDER]), "Pad (1)"),
        (Layer("PADV2", "z", [BORDER, np.ones((), np.float32)]), "Pad (1)"),
        (Layer("PAD", "z", [np.array([[0, 0], [0, 0], [0, 0], [0, 2]], np.int32)]), "Pad (1)"),
        (Layer("LOGISTIC", "z", []), "Sigmoid (1)"),
        (Layer("MAX_POOL_2D", "z", [], "RELU_N1_TO_1"), "Relu_n1_to_1 (1)"),
    ],
)  # fmt: skip
def test_litert_leaves_alone_what_needs_channels_as_they_are(layer: Layer, reason: str, tmp_path: Path) -> None:
    width = 6 + (2 if layer.native == "PAD" else 0)
    layers = [conv("a", by_channel(0, 6, 3, 1, 1, axis=0)), layer, conv("b", normal(1, 4, width, 1, 1))]
    before = LITERT.load(chain(tmp_path / "between.tflite", PICTURES, layers))
    after = LITERT.equalize(before)
    assert after.handle is before.handle
    assert after.notes == (
        f"not equalized, since something needs channels as they are: {reason}",
        "equalization found no tensor whose channels can be scaled",
    )


@needs_litert
def test_litert_copies_constants_and_buffers_that_others_read_too(tmp_path: Path) -> None:
    weight = by_channel(0, 3, 3, 1, 1, axis=0)
    layers = [conv("a", weight, activation="RELU"), conv("b", weight), Layer("LOGISTIC", "s", []), conv("c", weight)]
    for shared in ("tensors", "buffers"):
        path = chain(tmp_path / f"{shared}.tflite", PICTURES, layers, shared=shared)
        after = check_same_in_litert(path, PICTURES[:2])
        (factors,) = LITERT.float_view(after, "exact").factors.values()
        assert factors.max() > 1.5 * factors.min()
        assert [op.name for op in after.graph.ops] == ["a", "b", "s", "c"]


@needs_litert
def test_litert_remembers_the_factors_in_the_file_and_compares_in_the_former_unit(tmp_path: Path) -> None:
    from quantscope.backends.litert import metadata

    path, file = wild_pair(tmp_path / "wild.tflite"), tmp_path / "q.tflite"
    quantscope.quantize(path, PICTURES, file, recipe=EQUALIZED)
    ours = quantscope.diagnose(path, file, data=PICTURES, trace="both", budget_samples=12)
    row = activations(ours)["net/first/Conv2D"]
    assert row.local_sqnr_db > 30
    assert row.sqnr_db > 30
    assert row.simulated_sqnr_db == pytest.approx(row.sqnr_db, abs=0.5)
    assert row.budget is not None
    assert abs(row.budget.residual) < 0.02 * row.budget.mse
    assert sum(row.budget.shares.values()) == pytest.approx(row.budget.mse, rel=1e-6)
    assert row.isolated_sqnr_db > 30
    assert min(weight.sqnr_db for weight in ours.weights) > 30
    # A factor changes no ratio within a channel: as without the record, beside the equalized float model.
    equalized = LITERT.equalize(LITERT.prepare(LITERT.load(path)))
    bare, other = (metadata.forgotten(m.handle.model).content for m in (equalized, LITERT.load(file)))
    theirs = activations(quantscope.diagnose(bare, other, data=PICTURES))["net/first/Conv2D"]
    assert row.channels is not None
    assert theirs.channels is not None
    np.testing.assert_allclose(row.channels.sqnr_db, theirs.channels.sqnr_db, atol=0.01)
    blind = activations(quantscope.diagnose(path, other, data=PICTURES))["net/first/Conv2D"]
    assert blind.sqnr_db < 10, "what a diagnosis would say that does not know the factors"
    table = LITERT.load(file).handle.model.copied()
    metadata.remember(table, '{"version": 2}')
    with pytest.raises(ModelError, match="means nothing") as caught:
        LITERT.float_view(LITERT.load(packed(table)), "exact")
    assert caught.value.next_step == "quantize the model again"


def packed(table: Any) -> bytes:
    from quantscope.backends.litert import schema

    return schema.packed(table)


@needs_litert
def test_ops_in_float_of_an_equalized_litert_model_show_no_error(tmp_path: Path) -> None:
    path, file = wild_pair(tmp_path / "wild.tflite"), tmp_path / "q.tflite"
    quantscope.quantize(path, PICTURES, file, recipe=EQUALIZED.with_fallback(["net/first/Conv2D"]))
    for trace in ("deployed", "simulated"):
        rows = activations(quantscope.diagnose(path, file, data=PICTURES, trace=trace))
        weights = {w.op: w for w in quantscope.diagnose(path, file, data=PICTURES, trace=trace).weights}
        assert weights["net/first/Conv2D"].sqnr_db > 110
        assert rows["net/first/Conv2D"].local_sqnr_db > 30
        assert rows["net/second/Conv2D"].sqnr_db > 30


@needs_litert
@pytest.mark.parametrize("activation", ["RELU", "RELU6"])
def test_advice_equalizes_litert_channels_where_an_activation_in_the_op_allows_it(
    activation: str, tmp_path: Path
) -> None:
    diagnosis = quantscope.diagnose(wild_pair(tmp_path / "wild.tflite", activation), data=PICTURES, recipe=Recipe())
    assert any(suggestion.patch.equalize for suggestion in advise(diagnosis)) is (activation == "RELU")


@needs_litert
def test_sensitivity_of_an_equalized_litert_model(tmp_path: Path) -> None:
    path = wild_pair(tmp_path / "wild.tflite")
    equalized, plain = (quantscope.sensitivity(path, data=PICTURES, recipe=r) for r in (EQUALIZED, PER_TENSOR))
    assert set(equalized.ranking) == set(plain.ranking) == {"net/first/Conv2D", "net/second/Conv2D"}
    assert equalized.damage_name == plain.damage_name
    assert 0 < max(row.alone for row in equalized.ops) < 0.1 * max(row.alone for row in plain.ops)
    assert equalized.damage < 0.1 * plain.damage
