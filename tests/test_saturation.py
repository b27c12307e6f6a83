"""Sums of two 8-bit products that do not fit in 16 bits: which, how many, and what becomes of the model.

The reference adds whole integers here, pair by pair; and what ONNX Runtime's kernels really give without VNNI lies
beside `saturated_products.py`.
"""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from conftest import convolutions, images, make_model
from quantscope import Recipe, workflows
from quantscope.backends.base import Model
from quantscope.backends.registry import backend
from quantscope.errors import DataError, ModelError
from quantscope.graph import Op
from quantscope.qparams import PerChannel, QuantSpec
from quantscope.saturation.pairs import Convolution, Loss, MatrixProduct
from quantscope.saturation.products import Product, products_of
from quantscope.saturation.propagation import Propagation
from quantscope.workflows.saturation import count_saturation
from saturated_products import CASES, RESULTS, Case

ONNX = backend("onnx")


def loss_of(op: Op, x: NDArray[Any], w: NDArray[Any], zero_point: int = 0) -> Loss:
    product = Convolution(op, w) if op.op_type == "Conv" else MatrixProduct(op, w)
    with ThreadPoolExecutor(2) as pool:
        return product.loss(x, zero_point, pool, 2)


def windows(x: NDArray[Any], w: NDArray[Any], attributes: dict[str, Any], zero_point: int) -> NDArray[np.int64]:
    """Of a convolution, what each output multiplies: (batch, group, *positions, products), channels varying fastest."""
    axes = x.ndim - 2
    group = attributes.get("group", 1)
    pads = attributes.get("pads", [0] * 2 * axes)
    strides, dilations = attributes.get("strides", [1] * axes), attributes.get("dilations", [1] * axes)
    border = [(0, 0), (0, 0), *((pads[axis], pads[axes + axis]) for axis in range(axes))]
    padded = np.pad(x.astype(np.int64), border, constant_values=zero_point)
    taps = []
    for offsets in itertools.product(*map(range, w.shape[2:])):
        places: list[slice] = []
        for axis, offset in enumerate(offsets):
            reach = dilations[axis] * (w.shape[2 + axis] - 1)
            begin = offset * dilations[axis]
            places.append(slice(begin, padded.shape[2 + axis] - reach + begin, strides[axis]))
        taps.append(padded[:, :, *places])
    stacked = np.stack(taps, axis=-1)  # (batch, channels, *positions, taps)
    grouped = stacked.reshape(len(x), group, w.shape[1], *stacked.shape[2:])
    moved = np.moveaxis(grouped, 2, -1)
    return moved.reshape(*moved.shape[:-2], -1)


def sums(rows: NDArray[Any], matrix: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """The exact products of rows and columns, those of pairs kept within 16 bits, and how many were not."""
    products = rows[..., :, None].astype(np.int64) * matrix.astype(np.int64)
    if products.shape[-2] % 2:
        products = np.concatenate([products, np.zeros_like(products[..., :1, :])], axis=-2)
    pairs = products[..., 0::2, :] + products[..., 1::2, :]
    clipped = np.clip(pairs, -32768, 32767)
    return pairs.sum(-2), clipped.sum(-2), int((pairs != clipped).sum())


def convolved(x: NDArray[Any], w: NDArray[Any], attributes: dict[str, Any], zero: int) -> tuple[Any, Any, int]:
    group = attributes.get("group", 1)
    seen = windows(x, w, attributes, zero)
    parts = [
        sums(seen[:, g], np.moveaxis(kernels, 1, -1).reshape(len(kernels), -1).T)
        for g, kernels in enumerate(np.split(w, group))
    ]
    exact, saturated = (np.moveaxis(np.concatenate([p[i] for p in parts], axis=-1), -1, 1) for i in (0, 1))
    return exact, saturated, sum(p[2] for p in parts)


@pytest.mark.parametrize("name", CASES)
def test_kernels_without_vnni_really_lose_what_is_counted(name: str) -> None:
    case: Case = CASES[name]
    x, w = case.operands
    real = np.load(RESULTS)[name]
    op_type = {"QLinearConv": "Conv", "MatMulInteger": "MatMul", "QGemm": "Gemm"}[case.op_type]
    found = loss_of(Op("product", op_type, (), (), attributes=case.attributes), x, w, case.zero_point)
    if op_type == "Conv":
        exact, saturated, count = convolved(x, w, case.attributes, case.zero_point)
        lost = exact - saturated
        zeros = case.zero_point * w.reshape(len(w), -1).sum(1, dtype=np.int64)
        exact -= zeros.reshape(1, -1, *[1] * (x.ndim - 2))
    else:
        matrix = w.T if case.attributes.get("transB") else w
        exact, saturated, count = sums(x, matrix)
        lost = exact - saturated
        exact -= case.zero_point * matrix.sum(0, dtype=np.int64)
    assert np.array_equal(found.values, lost)
    assert found.saturated == count > 0
    assert found.pairs == exact.size * -(-(w[0].size if op_type == "Conv" else x.shape[1]) // 2)
    expected = exact if name == "depthwise" else exact - found.values
    if case.op_type == "MatMulInteger":
        assert np.array_equal(real, expected)
        return
    codes = np.clip(np.rint(expected.astype(np.float32) / np.float32(4096)) + 128, 0, 255)
    assert np.array_equal(real, codes.astype(np.uint8))


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))


@given(SHAPES, st.integers(1, 2), st.integers(1, 2), st.integers(0, 2), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_a_convolution_loses_what_whole_integers_say(
    shape: tuple[int, ...], stride: int, dilation: int, pad: int, zero_point: int, seed: int
) -> None:
    batch, channels, outputs, high, wide = shape
    random = np.random.default_rng(seed)
    x = random.integers(0, 256, (batch, channels, 6, 7)).astype(np.uint8)
    w = random.integers(-128, 128, (outputs, channels, high, wide)).astype(np.int8)
    attributes = {"strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [pad, 0, pad, pad]}
    found = loss_of(Op("conv", "Conv", (), (), attributes=attributes), x, w, zero_point)
    exact, saturated, count = convolved(x, w, attributes, zero_point)
    assert np.array_equal(found.values, exact - saturated)
    assert found.saturated == count


@given(
    st.integers(1, 5), st.integers(1, 12), st.integers(1, 5), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1)
)
def test_a_matrix_product_loses_what_whole_integers_say(
    rows: int, inner: int, columns: int, transposed: bool, transposed_weight: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(0, 256, (rows, inner)).astype(np.uint8)
    w = random.integers(-128, 128, (inner, columns)).astype(np.int8)
    attributes = {"transA": int(transposed), "transB": int(transposed_weight)}
    op = Op("gemm", "Gemm", (), (), attributes=attributes)
    found = loss_of(op, x.T if transposed else x, w.T if transposed_weight else w)
    exact, saturated, count = sums(x, w)
    assert np.array_equal(found.values, exact - saturated)
    assert (found.saturated, found.changed <= found.saturated) == (count, True)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 4))
def test_weights_of_7_bits_never_saturate(seed: int, inner: int, columns: int) -> None:
    w = np.random.default_rng(seed).integers(-64, 65, (inner, columns)).astype(np.int8)
    assert not MatrixProduct(Op("product", "MatMul", (), ()), w).can_saturate
    kernels = w.T.reshape(columns, inner, 1, 1)
    assert not Convolution(Op("conv", "Conv", (), ()), kernels).can_saturate


def test_the_least_pair_that_saturates() -> None:
    op = Op("product", "MatMul", (), ())
    assert not MatrixProduct(op, np.array([[64], [64]], np.int8)).can_saturate
    assert not MatrixProduct(op, np.array([[127], [1], [127]], np.int8)).can_saturate, "the last one stands alone"
    assert not MatrixProduct(op, np.array([[-128], [127]], np.int8)).can_saturate, "they cancel"
    found = loss_of(op, np.array([[255, 255], [255, 254], [128, 128]], np.uint8), np.array([[127], [2]], np.int8))
    assert found.values.tolist() == [[128], [126], [0]], "255 · 129 − 32767, and what a code less in a leaves"
    assert loss_of(op, np.array([[255, 255]], np.uint8), np.array([[-128], [-1]], np.int8)).values.tolist() == [[-127]]


def bright(count: int) -> NDArray[np.float32]:
    """Images near the top of their range, whose codes are large."""
    return np.clip(images(count) * 0.2 + 0.85, 0, 1).astype(np.float32)


def wide_weights() -> onnx.ModelProto:
    """The small convolutional model with weights of one sign next to each other, as blurring and averaging have."""
    proto = convolutions()
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim >= 2:
            tensor.CopyFrom(numpy_helper.from_array(np.abs(array) ** 0.2 * np.sign(array.mean()), tensor.name))
    return proto


def quantized(recipe: Recipe, proto: onnx.ModelProto | None = None) -> Model:
    return workflows.quantize(proto or wide_weights(), bright(20), recipe=recipe)


RECIPES = {
    "QDQ": Recipe(),
    "QDQ per tensor": Recipe(weights=QuantSpec(8)),
    "QDQ S8S8": Recipe(activations=QuantSpec(8, symmetric=False)),
    "QOperator": Recipe("qoperator"),
    "equalized": Recipe(equalize=True, weights=QuantSpec(8)),
}


def opened(model: Model, products: list[Product], pool: ThreadPoolExecutor) -> Propagation:
    return Propagation(ONNX, model, products, pool, 1)


@pytest.mark.parametrize("name", RECIPES)
def test_the_model_in_parts_is_the_model(name: str) -> None:
    model = quantized(RECIPES[name])
    products, _ = products_of(ONNX, model)
    assert products
    x = bright(6)
    with ONNX.open(model, [], trace="simulated", threads=1) as runner:
        whole = runner.run({"x": x})
    with ThreadPoolExecutor(1) as pool, opened(model, products, pool) as parts:
        found = parts.run({"x": x}, saturate=False)
        assert found.keys() == whole.keys()
        for output, values in found.items():
            np.testing.assert_allclose(values, whole[output], rtol=1e-4, atol=1e-4)
        assert any(not np.allclose(v, whole[n], atol=1e-3) for n, v in parts.run({"x": x}, saturate=True).items())


@pytest.mark.parametrize("name", ["QDQ", "QDQ S8S8", "QOperator"])
def test_codes_are_those_that_the_kernels_multiply(name: str) -> None:
    model = quantized(RECIPES[name])
    products, _ = products_of(ONNX, model)
    view = ONNX.float_view(model, "deployed")
    x = bright(3)
    compared = 0
    for product in products:
        codes = view.tensors[product.source].codes if product.source in view.tensors else ""
        if not codes:
            continue
        with ONNX.open(model, [codes], trace="deployed", threads=1) as real:
            theirs = real.run({"x": x})[codes]
        values = x
        if product.source != "x":
            with ONNX.open_cut(model, [product.source], [product.source], trace="simulated", threads=1) as cut:
                (values,) = cut.run({"x": x}).values()
        ours = product.codes(values)[0]
        if theirs.shape != ours.shape:
            theirs = np.moveaxis(theirs, -1, 1)
        assert theirs.dtype == np.uint8
        # Kernels round some values to the code beside.
        assert np.abs(theirs.astype(int) - ours.astype(int)).max() <= 1
        compared += 1
    assert compared


def test_a_product_may_need_what_only_a_later_one_reads() -> None:
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["stem"], "stem"),
        helper.make_node("Sigmoid", ["stem"], ["gate"], "gate"),
        helper.make_node("Mul", ["stem", "gate"], ["swish"], "swish"),
        helper.make_node("Concat", ["swish", "stem"], ["both"], "both", axis=1),
        helper.make_node("Conv", ["both", "b"], ["early"], "early"),
        helper.make_node("Conv", ["swish", "c"], ["late"], "late"),
        helper.make_node("Add", ["early", "late"], ["y"], "sum"),
    ]
    shapes = {"a": (8, 3, 1, 1), "b": (4, 16, 1, 1), "c": (4, 8, 1, 1)}
    constants: dict[str, Any] = {n: random.uniform(0.5, 1, shape).astype(np.float32) for n, shape in shapes.items()}
    proto = make_model(nodes, {"x": ["N", 3, 12, 12]}, {"y": ["N", 4, 12, 12]}, constants)
    found = count_saturation(proto, data=bright(4))
    assert {op.op for op in found.ops} == {"stem", "early", "late"}
    assert all(op.saturated for op in found.ops)


def test_op_by_op_and_at_the_outputs() -> None:
    model = quantized(Recipe())
    found = count_saturation(wide_weights(), model.handle.model.proto, data=bright(8))
    assert found.samples == 8
    assert 0 < found.saturated < found.pairs
    assert [op.op for op in found.ops] == sorted(
        (op.op for op in found.ops), key=[op.name for op in model.graph.ops].index
    )
    worst = min(found.ops, key=lambda op: op.sqnr_db)
    assert 0 < worst.share <= worst.changed_share <= 1
    (output,) = found.outputs
    assert output.exact_db is not None
    assert output.saturated_db is not None
    assert output.saturated_db < output.exact_db
    assert output.sqnr_db < 40
    assert found.score is not None
    assert found.score.metric == "agreement"
    assert found.top1_changed == pytest.approx(1 - found.score.quantized)


def test_an_op_that_saturates_alone_is_known_to_the_last_pair() -> None:
    case = replace(CASES["odd sum"], zero_point=0)
    x, w = case.operands
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wr"], "dequantize"),
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], "quantize"),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xr"], "back"),
        helper.make_node("MatMul", ["xr", "wr"], ["y"], "product"),
        helper.make_node("QuantizeLinear", ["y", "ys", "yz"], ["yq"], "quantize_y"),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["out"], "back_y"),
    ]
    scale, steps = np.float32(0.5), np.float32(64)
    constants: dict[str, Any] = {"w": w, "ws": scale, "wz": np.int8(0), "xs": scale, "xz": np.uint8(0)}
    constants |= {"ys": steps, "yz": np.uint8(128)}
    proto = make_model(nodes, {"x": ["N", 63]}, {"out": ["N", 33]}, constants)
    exact, saturated, count = sums(x, w)
    found = count_saturation(proto, data=x.astype(np.float32) / 2, batch_size=2)
    (op,) = found.ops
    assert (op.pairs, op.saturated, op.outputs) == (5 * 33 * 32, count, 5 * 33)
    assert op.changed == (exact != saturated).sum()
    expected = 10 * np.log10((exact.astype(float) ** 2).sum() / ((exact - saturated).astype(float) ** 2).sum())
    assert op.sqnr_db == pytest.approx(expected, abs=1e-4)
    outputs = [
        (np.clip(np.rint(np.float32(s) * scale * scale / steps) + 128, 0, 255) - 128) * steps
        for s in (exact, saturated)
    ]
    noise = ((outputs[0] - outputs[1]) ** 2).sum()
    assert found.outputs[0].sqnr_db == pytest.approx(10 * np.log10((outputs[0] ** 2).sum() / noise), abs=1e-4)
    assert found.outputs[0].exact_db is None, "there is no float model"


def test_any_batches_give_the_same_counts() -> None:
    model = quantized(Recipe()).handle.model.proto
    one, three = (count_saturation(model, data=bright(7), batch_size=size) for size in (1, 3))
    assert [(o.pairs, o.saturated, o.changed) for o in one.ops] == [
        (o.pairs, o.saturated, o.changed) for o in three.ops
    ]
    assert one.outputs[0].sqnr_db == pytest.approx(three.outputs[0].sqnr_db)


def test_what_cannot_saturate_says_why() -> None:
    reduced = count_saturation(wide_weights(), data=bright(20), recipe=Recipe(reduce_range=True))
    assert not reduced.ops
    assert reduced.saturated == 0
    assert set(reduced.skipped.values()) == {"no pair of its weights can saturate"}
    assert reduced.quantized_here
    signed = Recipe(
        "qoperator", activations=QuantSpec(8, symmetric=False), weights=QuantSpec(8, granularity=PerChannel(0))
    )
    kept = count_saturation(quantized(signed).handle.model.proto, data=bright(2))
    assert set(kept.skipped.values()) == {"int8 activations and int8 weights are not added in 16 bits"}
    assert kept.score is not None
    assert kept.score.difference == 0


def test_activations_that_get_their_scale_at_run_time() -> None:
    x, w = CASES["odd sum"].operands
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"], "quantize"),
        helper.make_node("MatMulInteger", ["xq", "w", "xz", "wz"], ["sum"], "product_quant"),
        helper.make_node("Cast", ["sum"], ["real"], "cast", to=1),
        helper.make_node("Mul", ["xs", "ws"], ["scale"], "scales"),
        helper.make_node("Mul", ["real", "scale"], ["y"], "scaled"),
    ]
    constants: dict[str, Any] = {"w": w, "ws": np.float32(0.01), "wz": np.int8(0)}
    proto = make_model(nodes, {"x": ["N", 63]}, {"y": ["N", 33]}, constants)
    found = count_saturation(proto, data=x.astype(np.float32), batch_size=5)
    codes = np.rint(x.astype(np.float32) / np.float32(x.max() / 255)).astype(np.uint8)
    (op,) = found.ops
    assert op.saturated == sums(codes, w)[2] > 0


def test_mistakes_are_said() -> None:
    model = quantized(Recipe()).handle.model.proto
    with pytest.raises(ModelError, match="the first of two models is quantized"):
        count_saturation(model, model, data=bright(2))
    with pytest.raises(ModelError, match="no product of the model is computed from 8-bit codes"):
        count_saturation(wide_weights(), wide_weights(), data=bright(2))
    with pytest.raises(DataError, match="metric"):
        count_saturation(model, data=bright(2), metric="nonsense")


def test_the_document_is_json() -> None:
    found = count_saturation(quantized(Recipe()).handle.model.proto, data=bright(2))
    values = json.loads(json.dumps(found.to_dict()))
    assert values["saturated"] == found.saturated
    assert values["ops"][0]["share"] == found.ops[0].share


def test_real_saturation_where_this_machine_has_it() -> None:
    from quantscope.machine import processor

    if not processor().saturates:
        pytest.skip("this processor adds products in 32 bits")
    for name, real in np.load(RESULTS).items():
        assert np.array_equal(CASES[name].run(), real), name


def test_where_nothing_saturates_kernels_give_the_exact_sums(tmp_path: Path) -> None:
    from quantscope.machine import processor

    if processor().saturates:
        pytest.skip("this processor saturates")
    for name in ("one row", "odd sum", "long sum"):
        x, w = CASES[name].operands
        exact = sums(x, w)[0] - CASES[name].zero_point * w.sum(0, dtype=np.int64)
        assert np.array_equal(CASES[name].run(), exact)
