"""Scopes, recipes and the scale and zero point."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from conftest import convolutions
from quantscope import Calibration, OpRule, Recipe
from quantscope.backends.onnx import BACKEND
from quantscope.errors import RecipeError
from quantscope.qparams import PerBlock, PerChannel, PerTensor, QParams, QuantSpec
from quantscope.scopes import scopes


def test_scopes_come_from_names_where_names_carry_them() -> None:
    names = ["/model/layers.3/attn/MatMul", "/model/layers.3/attn/Softmax", "/model/Add", "Constant_1"]
    assert scopes(names, ["MatMul", "Softmax", "Add", "Constant"]) == [
        "model/layers.3/attn", "model/layers.3/attn", "model", "",
    ]  # fmt: skip


def test_scopes_come_from_repeated_structure_where_names_carry_none() -> None:
    types = ["Conv", *["Conv", "Mul", "Add"] * 4, "Softmax"]
    found = scopes([f"op.{i}" for i in range(len(types))], types)
    assert found[0] == found[-1] == ""
    assert found[1:13] == [f"blocks.0/{i // 3}" for i in range(12)]


def test_the_graph_of_a_model_is_that_of_its_file() -> None:
    graph = BACKEND.load(convolutions()).graph
    assert [op.op_type for op in graph.ops] == [
        "Conv",
        "Relu",
        "Conv",
        "GlobalAveragePool",
        "Flatten",
        "MatMul",
    ]
    assert graph.producers["r1"].name == "/stem/relu/Relu"
    assert [op.name for op in graph.consumers["r1"]] == ["/body/conv/Conv"]
    assert graph.tensor("c2").shape == ("N", 16, 12, 12)
    assert graph.by_name["/stem/conv/Conv"].attributes["pads"] == [1, 1, 1, 1]
    assert graph.constants == {"w1", "b1", "w2", "w3"}
    assert [t.name for t in graph.inputs] == ["x"]


def test_ops_without_a_name_get_one_of_their_own() -> None:
    proto = convolutions()
    for node in proto.graph.node:
        node.name = "" if node.op_type == "Conv" else "same"
    names = [op.name for op in BACKEND.load(proto).graph.ops]
    assert names == ["Conv:c1", "same", "Conv:c2", "same#2", "same#3", "same#4"]
    assert proto.graph.node[0].name == "", "the user's model is never changed"


def test_a_fallback_matches_by_name_glob_and_type() -> None:
    graph = BACKEND.load(convolutions()).graph
    recipe = Recipe(rules=(OpRule("/head/*"), OpRule("Relu", "type"), OpRule("/body/conv/Conv")))
    assert recipe.fallback_ops(graph) == {
        "/head/pool/GlobalAveragePool", "/head/Flatten", "/head/fc/MatMul", "/stem/relu/Relu", "/body/conv/Conv",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "nearest"), [(OpRule("/body/conv/Con"), "/body/conv/Conv"), (OpRule("Matmul", "type"), "MatMul")]
)
def test_a_selector_that_matches_nothing_is_an_error_with_the_nearest_names(rule: OpRule, nearest: str) -> None:
    with pytest.raises(RecipeError) as raised:
        Recipe(rules=(rule,)).fallback_ops(BACKEND.load(convolutions()).graph)
    assert rule.selector in raised.value.message
    assert nearest in raised.value.accepted


def test_a_recipe_survives_its_plain_form() -> None:
    recipe = Recipe(
        format="qoperator",
        activations=QuantSpec(8, signed=True, symmetric=True),
        weights=QuantSpec(8, granularity=PerTensor()),
        op_types=("Conv",),
        rules=(OpRule("a"), OpRule("Add", "type")),
        calibration=Calibration("percentile", 99.9),
        reduce_range=True,
    )
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_dict(Recipe().to_dict()) == Recipe()


def test_wrong_values_in_a_recipe_are_refused() -> None:
    with pytest.raises(RecipeError, match="minmax, percentile, entropy"):
        Calibration("median")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="percentile is 3"):
        Calibration("percentile", 3)
    with pytest.raises(RecipeError, match="32 bits"):
        Recipe(weights=QuantSpec(32))
    with pytest.raises(RecipeError, match="selects by 'colour'"):
        OpRule("a", "colour")  # type: ignore[arg-type]


@given(
    bits=st.sampled_from([4, 8]),
    signed=st.booleans(),
    granularity=st.sampled_from([PerTensor(), PerChannel(0), PerChannel(1), PerBlock(1, 4)]),
)
def test_dequantize_agrees_with_the_onnx_reference(
    bits: int, signed: bool, granularity: PerTensor | PerChannel | PerBlock
) -> None:
    spec = QuantSpec(bits, signed, symmetric=False, granularity=granularity)
    low, high = spec.code_range
    rng = np.random.default_rng(bits)
    codes = rng.integers(low, high + 1, (6, 8))
    shape: tuple[int, ...] = ()
    if isinstance(granularity, PerChannel):
        shape = (codes.shape[granularity.axis],)
    elif isinstance(granularity, PerBlock):
        shape = (6, 2)
    scale = rng.uniform(0.01, 0.1, shape).astype(np.float32)
    zero_point = rng.integers(low, high + 1, shape)
    found = QParams(np.asarray(scale), np.asarray(zero_point), spec).dequantize(codes)
    attributes = {}
    if not isinstance(granularity, PerTensor):
        attributes["axis"] = granularity.axis
    if isinstance(granularity, PerBlock):
        attributes["block_size"] = granularity.size
    node = helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["y"], **attributes)
    kind = getattr(onnx.TensorProto, spec.dtype.upper())
    tensors = [
        helper.make_tensor("codes", kind, codes.shape, codes.reshape(-1).tolist()),
        numpy_helper.from_array(np.asarray(scale), "scale"),
        helper.make_tensor("zero", kind, shape, np.asarray(zero_point).reshape(-1).tolist()),
    ]
    graph = helper.make_graph(
        [node], "g", [], [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, codes.shape)], tensors
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    from onnx.reference import ReferenceEvaluator

    np.testing.assert_allclose(found, ReferenceEvaluator(proto).run(None, {})[0], rtol=1e-6)


def test_the_range_of_codes_and_of_values() -> None:
    assert QuantSpec(8, signed=True).code_range == (-128, 127)
    assert QuantSpec(4, signed=False).dtype == "uint4"
    assert QuantSpec.from_dtype("uint16").code_range == (0, 65535)
    q = QParams(np.array(0.5, np.float32), np.asarray(10), QuantSpec(8, signed=False, symmetric=False))
    assert q.real_range == (-5.0, 122.5)
    np.testing.assert_array_equal(q.quantize(np.array([-99, 0.0, 0.25, 0.75, 999])), [0, 10, 10, 12, 255])
