"""The float form of ops on codes: the same names, and the values of the integer kernels to a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from conftest import convolutions, images
from producers.ort import VARIANTS
from quantscope.backends.base import Model, Trace
from quantscope.backends.onnx import BACKEND
from quantscope.errors import UnsupportedError
from quantscope.graph import Op
from registry import registry_model

X_SCALE = 0.02


@dataclass(frozen=True)
class Case:
    """An op on codes whose first operand is fed and whose others are constant."""

    op_type: str
    shape: tuple[int, ...]
    y_scale: float
    others: tuple[tuple[int, ...], ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    channels: int = 1
    bias: tuple[int, ...] | None = None
    dtype: str = "uint8"
    zero_points: bool = True
    domain: str = "com.microsoft"
    opset: int = 17
    one_zero_point: bool = False


CONV = Case("QLinearConv", (2, 4, 9, 9), 0.05, ((6, 4, 3, 3),), domain="", bias=(6,))
GEMM = Case("QGemm", (5, 12), 0.05, ((12, 7),), bias=(7,))
CASES = {
    "conv": CONV,
    "conv per channel": Case(**{**vars(CONV), "channels": 6, "attributes": {"pads": [1, 1, 1, 1], "strides": [2, 2]}}),
    "conv without bias": Case(**{**vars(CONV), "bias": None, "dtype": "int8"}),
    "conv with one zero point": Case(**{**vars(CONV), "channels": 6, "one_zero_point": True}),
    "conv in an old opset": Case(**{**vars(CONV), "channels": 6, "opset": 11}),
    "conv in the oldest opset": Case(**{**vars(CONV), "opset": 10}),
    "conv, channels last": Case(
        **{**vars(CONV), "shape": (2, 9, 9, 4), "attributes": {"channels_last": 1}, "domain": "com.microsoft"}
    ),
    "matmul": Case("QLinearMatMul", (3, 5, 12), 0.05, ((12, 7),), domain=""),
    "matmul per column": Case("QLinearMatMul", (5, 12), 0.05, ((12, 7),), channels=7, domain="", dtype="int8"),
    "gemm": GEMM,
    "gemm per channel": Case(**{**vars(GEMM), "channels": 7}),
    "gemm, transposed, times two": Case(
        **{**vars(GEMM), "others": ((7, 12),), "channels": 7, "y_scale": 0.1,
           "attributes": {"transB": 1, "alpha": 2.0}}
    ),
    "gemm without bias": Case(**{**vars(GEMM), "bias": None, "shape": (12, 5), "attributes": {"transA": 1}}),
    "gemm whose bias has two axes": Case(**{**vars(GEMM), "channels": 7, "bias": (1, 7)}),
    "gemm that writes floats": Case(**{**vars(GEMM), "y_scale": 0.0}),
    "add": Case("QLinearAdd", (9, 3, 4, 4), 0.0431, ((3, 1, 1),)),
    "add, int8": Case("QLinearAdd", (9, 3, 4, 4), 0.0431, ((3, 1, 1),), dtype="int8"),
    "mul": Case("QLinearMul", (9, 3, 4, 4), 0.0431, ((3, 1, 1),)),
    "average pool": Case(
        "QLinearAveragePool", (2, 3, 8, 8), 0.01, attributes={"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    ),
    "average pool that counts the padding, channels last": Case(
        "QLinearAveragePool", (2, 8, 8, 3), 0.01,
        attributes={"kernel_shape": [2, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1, "channels_last": 1},
    ),
    "global average pool": Case("QLinearGlobalAveragePool", (40, 3, 4, 4), 0.0113),
    "global average pool, channels last": Case(
        "QLinearGlobalAveragePool", (40, 4, 4, 3), 0.0113, attributes={"channels_last": 1}
    ),
    "mean": Case("QLinearReduceMean", (9, 5, 12), 0.0113, attributes={"axes": [1], "keepdims": 0}),
    "mean, axes are an input": Case(
        "QLinearReduceMean", (9, 5, 12), 0.0113, attributes={"axes": [1], "keepdims": 0}, opset=18
    ),
    "leaky relu": Case("QLinearLeakyRelu", (5, 12), 0.02, attributes={"alpha": 0.1}),
    "leaky relu, int8, zero point left out": Case("QLinearLeakyRelu", (5, 12), 0.02, dtype="int8", zero_points=False),
    "sigmoid": Case("QLinearSigmoid", (5, 12), 1 / 256),
    "softmax": Case("QLinearSoftmax", (4, 5, 6), 1 / 256, attributes={"axis": -1, "opset": 13}),
    "softmax of a middle axis": Case("QLinearSoftmax", (4, 5, 6), 1 / 256, attributes={"axis": 1, "opset": 13}),
    "softmax of several axes": Case("QLinearSoftmax", (4, 3, 3), 1 / 256, attributes={"axis": 1, "opset": 11}),
    "softmax of several axes in an old opset": Case(
        "QLinearSoftmax", (4, 3, 3), 1 / 256, attributes={"axis": 1, "opset": 11}, opset=12
    ),
    "where": Case("QLinearWhere", (5, 12), 0.03, ((12,),)),
    "concat": Case("QLinearConcat", (5, 12), 0.03, ((5, 3), (5, 2)), {"axis": 1}),
}  # fmt: skip


def tiny(case: Case) -> onnx.ModelProto:
    """x → QuantizeLinear → the op → DequantizeLinear → y, with random constants."""
    rng = np.random.default_rng(0)
    kind = np.dtype(case.dtype)
    middle = 128 if case.dtype == "uint8" else 0
    weights: dict[str, NDArray[Any]] = {
        "x_scale": np.array(X_SCALE, np.float32), "x_zero_point": np.array(middle, kind),
        "y_scale": np.array(case.y_scale, np.float32),
        # Sigmoid and Softmax have no negative values, Mul without a zero point only codes from 0 on.
        "y_zero_point": np.array(middle if case.y_scale != 1 / 256 else np.iinfo(kind).min, kind),
    }  # fmt: skip

    def triple(name: str) -> list[str]:
        return [f"{name}_quantized", f"{name}_scale", f"{name}_zero_point" if case.zero_points else ""]

    operands = [triple("x")]
    for i, shape in enumerate(case.others):
        size = case.channels if i == 0 else 1
        name = f"w{i}"
        operands.append(triple(name))
        weights[f"{name}_quantized"] = rng.integers(-100 + middle, 100 + middle, shape).astype(kind)
        scale = rng.uniform(0.005, 0.02, size) if size > 1 else np.array(0.01)
        weights[f"{name}_scale"] = scale.astype(np.float32)
        weights[f"{name}_zero_point"] = np.full(1 if case.one_zero_point else scale.shape, middle, kind)
    if not case.zero_points and case.dtype == "uint8":
        weights["x_zero_point"] = np.array(0, kind)
    output = ["y_scale", "y_zero_point" if case.zero_points else ""]
    if case.op_type == "QLinearConcat":
        inputs = output + [name for operand in operands for name in operand]
    elif case.op_type == "QLinearWhere":
        weights["condition"] = rng.integers(0, 2, 12).astype(bool)
        inputs = ["condition", *operands[0], *operands[1], *output]
    else:
        inputs = [name for operand in operands for name in operand]
        bias = [] if case.bias is None else ["b_quantized"]
        if case.bias is not None:
            weights["b_quantized"] = rng.integers(-2000, 2000, case.bias).astype(np.int32)
        if case.op_type == "QGemm":
            inputs += [*(bias or [""]), *(output if case.y_scale else [])]
        else:
            inputs += [*output, *bias]
    quantize = ["x", "x_scale", "x_zero_point"]
    nodes = [
        helper.make_node("QuantizeLinear", quantize, ["x_quantized"], "quantize"),
        helper.make_node(case.op_type, inputs, ["y_quantized" if case.y_scale else "y"], "op_quant",
                         domain=case.domain, **case.attributes),
    ]  # fmt: skip
    if case.y_scale:
        nodes.append(helper.make_node("DequantizeLinear", ["y_quantized", *filter(None, output)], ["y"], "dequantize"))
    return model_of(nodes, {"x": list(case.shape)}, weights, case.opset)


def model_of(
    nodes: list[Any], inputs: dict[str, list[int]], weights: dict[str, NDArray[Any]], opset: int = 17
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def values(model: Model, names: list[str], x: NDArray[Any], trace: Trace) -> dict[str, NDArray[Any]]:
    with BACKEND.open(model, names, trace=trace, threads=1) as runner:
        return runner.run({model.graph.inputs[0].name: x})


def dequantized_input(x: NDArray[Any]) -> NDArray[Any]:
    """The input of a tiny model as its op sees it."""
    return np.clip(np.rint(x / X_SCALE), -128, 127) * X_SCALE


def steps_apart(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """By how many codes two tensors of codes differ."""
    return np.abs(a.astype(np.int64) - b.astype(np.int64))


def essence(op: Op) -> tuple[Any, ...]:
    return op.name, op.op_type, op.inputs, op.outputs


@pytest.mark.parametrize("name", list(CASES))
def test_each_op_on_codes_has_a_float_form_of_the_same_value(name: str) -> None:
    case = CASES[name]
    model = BACKEND.load(tiny(case))
    low, high = (0.0, 2.5) if not case.zero_points and case.dtype == "uint8" else (-2.5, 2.5)
    x = np.random.default_rng(1).uniform(low, high, case.shape).astype(np.float32)
    written = BACKEND.float_view(model, "exact").graph
    view = BACKEND.float_view(model, "simulated")
    op = view.graph.by_name["op"]
    assert op.op_type == written.by_name["op"].op_type
    if "last" not in name and "several axes" not in name:
        assert op.outputs == written.by_name["op"].outputs == ("y",)
        assert set(written.by_name["op"].inputs) - {""} <= set(op.inputs)
    assert view.graph.outputs[0].name == "y"
    if not case.y_scale:
        exact, simulated = (values(model, [], x, trace)["y"] for trace in ("exact", "simulated"))
        np.testing.assert_allclose(simulated, exact, rtol=1e-5, atol=1e-5)
        return
    found = view.tensors["y"]
    assert found.codes == "y_quantized"
    assert found.qparams is not None
    read = values(model, [found.codes, found.real], x, "simulated")
    assert np.array_equal(found.qparams.dequantize(read[found.codes]), read[found.real])
    assert len(np.unique(read[found.codes])) > 20
    assert read[found.codes].dtype == case.dtype
    # ONNX Runtime has no kernel of this op for processors.
    traces: tuple[Trace, ...] = ("exact", "deployed") if case.op_type != "QLinearReduceMean" else ()
    wanted = [values(model, [], x, trace)["y"] for trace in traces]
    for real in wanted or [dequantized_input(x).mean(1)]:
        apart = steps_apart(read[found.codes], found.qparams.quantize(real))
        assert apart.max() <= 1
        assert (apart == 0).mean() >= 0.99


def test_weights_and_biases_of_the_float_form_are_those_of_the_op() -> None:
    model = BACKEND.load(tiny(CASES["gemm, transposed, times two"]))
    written = {w.tensor: w for w in BACKEND.weights(model)}
    found = {w.tensor: w for w in BACKEND.weights(model, "simulated")}
    assert set(written) == {"w0"}
    assert set(found) == {"w0", "b"}
    assert found["w0"].op == found["b"].op == "op"
    assert found["w0"].channel_axis == written["w0"].channel_axis == 0
    assert np.array_equal(found["w0"].read(), written["w0"].read())
    tensors = {t.name: numpy_helper.to_array(t) for t in model.handle.model.proto.graph.initializer}
    scale = 2 * tensors["x_scale"] * tensors["w0_scale"]
    assert found["b"].role == "bias"
    np.testing.assert_allclose(found["b"].read(), tensors["b_quantized"] * scale, rtol=1e-6)


def test_every_op_on_codes_has_a_case() -> None:
    from quantscope.backends.onnx.float_view import INTEGER_OPS

    assert {case.op_type for case in CASES.values()} == {*INTEGER_OPS, "QLinearConcat"}


@pytest.mark.parametrize("variant", ["qoperator_per_tensor", "qoperator_per_channel"])
@pytest.mark.parametrize(("name", "width"), [("ppocrv2_cls", 192), ("ppocrv4_rec", 160)])
def test_real_models_of_ops_on_codes(name: str, width: int, variant: str, tmp_path: Path) -> None:
    """Op by op, on the values that the integer kernels read, all codes are equal to one step, and nearly all equal."""
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, 48, width)).astype(np.float32)
    path = tmp_path / "quantized.onnx"
    VARIANTS[variant](registry_model(name), [{"x": x[:1]}, {"x": x[1:]}], path)
    model = BACKEND.load(path)
    written, view = BACKEND.float_view(model, "exact"), BACKEND.float_view(model, "simulated")
    assert [essence(op) for op in view.graph.ops] == [essence(op) for op in written.graph.ops]
    assert [t.name for t in view.graph.outputs] == [t.name for t in written.graph.outputs]
    codes = {name: t.codes for name, t in written.tensors.items() if t.codes}
    assert {name: t.codes for name, t in view.tensors.items() if t.codes} == codes

    floats = [o for op in view.graph.ops for o in op.outputs if view.graph.tensor(o).dtype in ("", "float32")]
    where = {name: written.tensors[name] for name in floats}
    read = values(model, [t.codes or t.real for t in where.values()], x, "exact")
    real = {n: t.qparams.dequantize(read[t.codes]) if t.qparams else read[t.real] for n, t in where.items()}
    with BACKEND.open_cut(model, floats, floats, trace="simulated", threads=2) as runner:
        computed = runner.run({"x": x, **real})
    equal = []
    for tensor, t in where.items():
        if t.qparams is None:
            np.testing.assert_array_equal(computed[tensor], read[t.real])
            continue
        apart = steps_apart(t.qparams.quantize(computed[tensor]), read[t.codes])
        assert apart.max() <= 1, tensor
        assert (apart == 0).mean() >= 0.9, tensor
        equal.append((apart == 0).mean())
    assert np.mean(equal) >= 0.99


def test_the_whole_model_ends_up_where_the_deployed_one_does(tmp_path: Path) -> None:
    path, samples = tmp_path / "float.onnx", images(8)
    onnx.save(convolutions(), str(path))
    VARIANTS["qoperator_per_channel"](path, [{"x": samples}], tmp_path / "quantized.onnx")
    model = BACKEND.load(tmp_path / "quantized.onnx")
    assert any(node.op_type == "QLinearConv" for node in model.handle.model.proto.graph.node)
    view = BACKEND.float_view(model, "simulated")
    names = [t.codes for t in view.tensors.values() if t.codes]
    assert len(names) >= 5
    simulated, deployed = (values(model, names, samples, trace) for trace in ("simulated", "exact"))
    for name in names:
        apart = steps_apart(simulated[name], deployed[name])
        assert apart.max() <= 1
        assert (apart == 0).mean() >= 0.99, name


def test_ops_that_take_codes_as_they_are_stay(tmp_path: Path) -> None:
    """MaxPool on codes; and a codes tensor that other tools named like the real one, with a reader in between."""
    rng = np.random.default_rng(0)
    weights: dict[str, NDArray[Any]] = {
        "s": np.array(X_SCALE, np.float32), "z": np.array(128, np.uint8), "ys": np.array(0.05, np.float32),
        "w": rng.integers(-100, 100, (6, 4, 3, 3)).astype(np.int8),
        "ws": np.array(0.01, np.float32), "wz": np.array(0, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "quantize"),
        helper.make_node("QLinearConv", ["xq", "s", "z", "w", "ws", "wz", "ys", "z"], ["t"], "conv"),
        helper.make_node("MaxPool", ["t"], ["p"], "pool", kernel_shape=[2, 2]),
        helper.make_node("Shape", ["t"], ["shape"], "shape"),
        helper.make_node("DequantizeLinear", ["p", "ys", "z"], ["y"], "dequantize"),
    ]
    model = BACKEND.load(model_of(nodes, {"x": [2, 4, 9, 9]}, weights))
    view = BACKEND.float_view(model, "simulated")
    assert [essence(op) for op in view.graph.ops] == [
        ("conv", "Conv", ("x", "w"), ("t",)),
        ("pool", "MaxPool", ("t",), ("p",)),
        ("shape", "Shape", ("t",), ("shape",)),
    ]
    assert (view.tensors["t"].codes, view.tensors["p"].codes, view.tensors["shape"].codes) == ("t", "p", "")
    x = rng.uniform(-2.5, 2.5, (2, 4, 9, 9)).astype(np.float32)
    read = {trace: values(model, ["t", "p"], x, trace) for trace in ("simulated", "exact")}
    assert read["simulated"]["p"].dtype == np.uint8
    assert steps_apart(read["simulated"]["t"], read["exact"]["t"]).max() <= 1
    where = view.tensors["t"]
    real = values(model, [where.real], x, "simulated")[where.real]
    assert where.qparams is not None
    assert np.array_equal(where.qparams.quantize(real), read["simulated"]["t"])


def test_scales_that_the_model_computes_as_it_runs() -> None:
    rng = np.random.default_rng(0)
    weights: dict[str, NDArray[Any]] = {
        "w": rng.integers(-100, 100, (6, 4, 3, 3)).astype(np.int8),
        "ws": np.full(6, 0.01, np.float32),
        "wz": np.zeros(6, np.int8),
        "b": rng.integers(-2000, 2000, 6).astype(np.int32),
        "ys": np.array(0.05, np.float32),
        "z": np.array(128, np.uint8),
    }
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"], "quantize"),
        helper.make_node("QLinearConv", ["xq", "xs", "xz", "w", "ws", "wz", "ys", "z", "b"], ["yq"], "conv"),
        helper.make_node("DequantizeLinear", ["yq", "ys", "z"], ["y"], "dequantize"),
    ]
    model = BACKEND.load(model_of(nodes, {"x": [2, 4, 9, 9]}, weights))
    x = rng.uniform(-2.5, 2.5, (2, 4, 9, 9)).astype(np.float32)
    simulated, exact = (values(model, ["yq"], x, trace)["yq"] for trace in ("simulated", "exact"))
    assert steps_apart(simulated, exact).max() <= 1
    assert np.mean(simulated == exact) >= 0.99
    assert BACKEND.float_view(model, "simulated").graph.by_name["conv"].inputs == ("x", "w", "b")


def test_a_tensor_keeps_its_name_where_the_model_gives_the_dequantized_one_another() -> None:
    proto = tiny(CASES["sigmoid"])
    proto.graph.node[1].output[0] = proto.graph.node[2].input[0] = "s_quantized"
    model = BACKEND.load(proto)
    for graph in (BACKEND.float_view(model, "exact").graph, BACKEND.float_view(model, "simulated").graph):
        assert essence(graph.ops[0]) == ("op", "Sigmoid", ("x",), ("s",))
        assert graph.outputs[0].name == "s"


def test_files_of_the_oldest_format() -> None:
    """In these every initializer is listed among the inputs too."""
    proto = tiny(CASES["conv in the oldest opset"])
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    model = BACKEND.load(proto)
    x = np.random.default_rng(1).uniform(-2.5, 2.5, CONV.shape).astype(np.float32)
    simulated, exact = (values(model, ["y_quantized"], x, trace)["y_quantized"] for trace in ("simulated", "exact"))
    assert np.mean(simulated == exact) >= 0.99
    with BACKEND.open_cut(model, ["y"], ["y"], trace="simulated", threads=1) as runner:
        assert runner.inputs == ("x",)
        computed = runner.run({"x": x})["y"]
    qparams = BACKEND.float_view(model, "simulated").tensors["y"].qparams
    assert qparams is not None
    assert np.array_equal(qparams.quantize(computed), simulated)


def test_codes_that_are_an_input_of_the_model() -> None:
    case = CASES["add"]
    proto = tiny(case)
    del proto.graph.node[0]
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x_quantized", TensorProto.UINT8, case.shape))
    model = BACKEND.load(proto)
    codes = np.random.default_rng(0).integers(0, 256, case.shape).astype(np.uint8)
    simulated, exact = (values(model, [], codes, trace)["y"] for trace in ("simulated", "exact"))
    assert np.mean(simulated == exact) >= 0.99
    written, view = (BACKEND.float_view(model, trace).graph for trace in ("exact", "simulated"))
    assert [essence(op) for op in view.ops] == [essence(op) for op in written.ops]


@pytest.mark.parametrize("variant", [v for v in VARIANTS if not v.startswith("qoperator")])
def test_other_models_are_their_own_simulation(variant: str, tmp_path: Path) -> None:
    path = tmp_path / "float.onnx"
    onnx.save(convolutions(), str(path))
    VARIANTS[variant](path, [{"x": images(4)}], tmp_path / "quantized.onnx")
    for source in (path, tmp_path / "quantized.onnx"):
        model = BACKEND.load(source)
        assert model.handle.traced("simulated") is model.handle.traced("exact")
        written, view = BACKEND.float_view(model, "exact"), BACKEND.float_view(model, "simulated")
        assert view.graph.ops == written.graph.ops


def test_an_op_without_a_float_form_is_named() -> None:
    node = helper.make_node("QLinearTan", ["x"], ["y"], "the op", domain="com.microsoft")
    model = BACKEND.load(model_of([node], {"x": [1, 2]}, {}))
    with pytest.raises(UnsupportedError, match=r"'the op' \(QLinearTan\)"):
        BACKEND.float_view(model, "simulated")
    case = Case("QLinearSoftmax", (4, 5, 6), 1 / 256, attributes={"axis": 1, "opset": 13}, opset=12)
    with pytest.raises(UnsupportedError, match="opset 12 has no Softmax along axis 1 alone"):
        BACKEND.float_view(BACKEND.load(tiny(case)), "simulated")
