"""Models cut at their tensors: every op computes alone what it computed in the whole model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from conftest import convolutions, images, make_model
from producers.ort import VARIANTS
from quantscope.backends.base import Model, Trace
from quantscope.backends.onnx import BACKEND, sessions
from quantscope.errors import DataError, UnsupportedError
from quantscope.quantized import FloatView
from registry import registry_model
from test_simulation import model_of

DATA = Path(__file__).parent / "producers" / "data"
Values = dict[str, NDArray[Any]]


def branches() -> onnx.ModelProto:
    """A tensor that is a model output, is read by an op, and is read inside the branches of an If."""
    sides = [
        helper.make_graph(
            [helper.make_node(op_type, ["a", *more], [out], op_type)],
            op_type,
            [],
            [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
        )
        for op_type, more, out in (("Mul", ["two"], "doubled"), ("Neg", [], "negated"))
    ]
    nodes = [
        helper.make_node("Tanh", ["x"], ["a"], "tanh"),
        helper.make_node("ReduceSum", ["x"], ["sum"], "sum", keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"], "greater"),
        helper.make_node("If", ["positive"], ["chosen"], "if", then_branch=sides[0], else_branch=sides[1]),
        helper.make_node("Add", ["chosen", "a"], ["y"], "add"),
    ]
    weights = {"two": np.array(2, np.float32), "zero": np.array(0, np.float32)}
    return make_model(nodes, {"x": [4, 5]}, {"y": [4, 5], "a": [4, 5]}, weights)


def float_names(view: FloatView) -> list[str]:
    kinds = ("", "float32", "float16")
    return [name for op in view.graph.ops for name in op.outputs if name and view.graph.tensor(name).dtype in kinds]


def traced(model: Model, trace: Trace, x: NDArray[Any]) -> Values:
    """The values that the whole model computes with, dequantized where it quantizes, its input among them."""
    view = BACKEND.float_view(model, trace)
    where = {name: view.tensors[name] for name in float_names(view)}
    with BACKEND.open(model, [t.codes or t.real for t in where.values()], trace=trace, threads=1) as runner:
        read = runner.run({model.graph.inputs[0].name: x})
    real = {n: t.qparams.dequantize(read[t.codes]) if t.qparams else read[t.real] for n, t in where.items()}
    return {**real, model.graph.inputs[0].name: x}


def cut_run(model: Model, trace: Trace, fed: Values, outputs: list[str] | None = None, **changes: Any) -> Values:
    """What comes out of the model cut at all float tensors."""
    names = float_names(BACKEND.float_view(model, trace))
    with BACKEND.open_cut(
        model, names, names if outputs is None else outputs, trace=trace, threads=1, **changes
    ) as runner:
        return runner.run(fed)


def quantized(variant: str, source: onnx.ModelProto | Path, x: NDArray[Any], folder: Path) -> Model:
    path = source if isinstance(source, Path) else folder / "float.onnx"
    if not isinstance(source, Path):
        onnx.save(source, str(path))
    VARIANTS[variant](path, [{"x": x}], folder / "quantized.onnx")
    return BACKEND.load(folder / "quantized.onnx")


def rounded(model: Model, name: str, array: NDArray[Any]) -> NDArray[Any]:
    """What the model's quantization of a tensor makes of its values."""
    qparams = BACKEND.float_view(model, "simulated").tensors[name].qparams
    return array if qparams is None else qparams.dequantize(qparams.quantize(array))


@pytest.mark.parametrize("name", ["convolutions", "branches", "ppocrv2_cls"])
def test_each_op_of_a_float_model_computes_what_it_did_bit_for_bit(name: str) -> None:
    source: dict[str, Callable[[], Any]] = {"convolutions": convolutions, "branches": branches}
    model = BACKEND.load(source.get(name, lambda: registry_model(name))())
    rng = np.random.default_rng(0)
    shape = {"convolutions": (2, 3, 12, 12), "branches": (4, 5), "ppocrv2_cls": (2, 3, 48, 192)}[name]
    values = traced(model, "exact", rng.normal(0, 1, shape).astype(np.float32))
    computed = cut_run(model, "exact", values)
    assert len(computed) == len(values) - 1
    for tensor, array in computed.items():
        assert array.dtype == values[tensor].dtype
        assert np.array_equal(array, values[tensor]), tensor


def check_ops_alone(model: Model, x: NDArray[Any]) -> None:
    """Each op of the cut model computes what it did in the whole one, up to the tensor's own quantization."""
    view = BACKEND.float_view(model, "simulated")
    values = traced(model, "simulated", x)
    computed = cut_run(model, "simulated", values)
    halves = any(array.dtype == np.float16 for array in computed.values())
    equal, unrounded = [], 0
    for tensor, array in computed.items():
        qparams, wanted = view.tensors[tensor].qparams, values[tensor]
        found = array if qparams is None else qparams.dequantize(qparams.quantize(array))
        unrounded += not np.array_equal(array, found)
        assert found.shape == wanted.shape
        equal.append(np.mean(found == wanted))
        if not halves:
            assert np.array_equal(found, wanted), tensor
            continue
        # ONNX Runtime computes halves in float, and in the whole model does not round what one op gives the next.
        step = np.spacing(np.abs(wanted).max().astype(np.float16)) if qparams is None else qparams.scale
        assert np.abs(found.astype(np.float64) - wanted).max() <= 1.001 * step, tensor
    assert np.mean(equal) > 0.8
    assert unrounded or all(t.qparams is None for t in view.tensors.values()), "what comes out is not rounded"


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_each_op_of_a_small_quantized_model_computes_what_it_did(variant: str, tmp_path: Path) -> None:
    model = quantized(variant, convolutions(), images(8), tmp_path)
    kinds = {node.op_type for node in model.handle.model.proto.graph.node}
    own = {"dynamic": "ConvInteger", "matmul_int4": "MatMulNBits", "qoperator_per_tensor": "QLinearConv"}
    assert own.get(variant, "Conv" if not variant.startswith("qoperator") else "QLinearConv") in kinds
    check_ops_alone(model, images(4, seed=2))


@pytest.mark.parametrize("variant", ["qdq_per_channel", "qoperator_per_channel", "dynamic"])
def test_each_op_of_a_real_quantized_model_computes_what_it_did(variant: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 48, 192)).astype(np.float32)
    check_ops_alone(quantized(variant, registry_model("ppocrv2_cls"), x, tmp_path), x)


@pytest.mark.parametrize(
    "name", ["modelopt_cls_int8_fp16", "aimet_cls_w4a16", "neural_compressor_cls_qoperator", "quark_cls_xint8"]
)
def test_each_op_of_a_model_of_another_tool_computes_what_it_did(name: str) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 48, 192)).astype(np.float32)
    check_ops_alone(BACKEND.load(DATA / f"{name}.onnx"), x)


@pytest.mark.parametrize("variant", ["", "qdq_per_tensor", "qoperator_per_tensor", "dynamic", "float16"])
def test_another_value_of_a_tensor_changes_what_reads_it_and_nothing_else(variant: str, tmp_path: Path) -> None:
    x = images(4)
    model = quantized(variant, convolutions(), x, tmp_path) if variant else BACKEND.load(convolutions())
    graph = BACKEND.float_view(model, "simulated").graph
    values = traced(model, "simulated", x)
    before = cut_run(model, "simulated", values)
    assert len(values) >= 6
    for name in values:
        other = cut_run(model, "simulated", {**values, name: 1 - 2 * values[name]})
        changed = {tensor for tensor in before if not np.array_equal(before[tensor], other[tensor])}
        assert changed == {tensor for op in graph.consumers.get(name, ()) for tensor in op.outputs}, name


def test_graphs_inside_the_graph_read_what_is_fed() -> None:
    model = BACKEND.load(branches())
    values = traced(model, "exact", np.ones((4, 5), np.float32))
    computed = cut_run(model, "exact", {**values, "a": np.full((4, 5), 3, np.float32)})
    assert np.array_equal(computed["chosen"], np.full((4, 5), 6))
    assert np.array_equal(computed["a"], np.tanh(np.ones((4, 5), np.float32)))
    with BACKEND.open_cut(model, ["a", "sum"], ["a"], trace="exact", threads=1) as runner:
        assert runner.inputs == ("x",)
    with BACKEND.open_cut(model, ["chosen", "a"], ["chosen"], trace="exact", threads=1) as runner:
        assert runner.inputs == ("x", "a")


def test_only_what_the_outputs_need_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = BACKEND.load(convolutions())
    names = float_names(BACKEND.float_view(model, "exact"))
    loaded: list[onnx.ModelProto] = []
    made = sessions.session

    def noted(model: Any, *arguments: Any) -> Any:
        loaded.append(model.proto)
        return made(model, *arguments)

    monkeypatch.setattr(sessions, "session", noted)
    wanted = {"c1": ("x",), "r1": ("c1",), "c2": ("r1",), "logits": ("f",)}
    for output, inputs in wanted.items():
        with BACKEND.open_cut(model, names, [output], trace="exact", threads=1) as runner:
            assert runner.inputs == inputs
            values = runner.run(traced(model, "exact", images(2)))
            assert list(values) == [output]
    sizes = [({n.op_type for n in p.graph.node}, {t.name for t in p.graph.initializer}) for p in loaded[::2]]
    assert sizes == [({"Conv"}, {"w1", "b1"}), ({"Relu"}, set()), ({"Conv"}, {"w2"}), ({"MatMul"}, {"w3"})]
    with BACKEND.open_cut(model, ["c1", "c2"], ["c2"], trace="exact", threads=1) as runner:
        assert runner.inputs == ("c1",), "ops between two cuts stay"
    with BACKEND.open_cut(model, ["c2"], ["c2"], trace="exact", threads=1) as runner:
        assert runner.inputs == ("x",)


def test_what_cannot_be_cut_is_named() -> None:
    model = BACKEND.load(convolutions())
    for tensors, outputs, trace, message in (
        (["w1"], [], "exact", "'w1': no op computes it"),
        (["c1"], ["r1"], "exact", "not cut at 'r1'"),
        (["c1", "x"], ["x"], "exact", "not cut at 'x'"),
        (["c1"], ["c1"], "deployed", "cut in the trace 'deployed'"),
    ):
        with (
            pytest.raises(UnsupportedError, match=message),
            BACKEND.open_cut(model, tensors, outputs, trace=trace, threads=1),  # type: ignore[arg-type]
        ):
            pass
    with (
        BACKEND.open_cut(model, ["c1", "r1"], ["r1"], trace="exact", threads=1) as runner,
        pytest.raises(DataError, match="missing: c1"),
    ):
        runner.run({"x": images(1)})


def test_what_is_fed_is_cast_and_what_comes_out_is_not(tmp_path: Path) -> None:
    model = quantized("float16", convolutions(), images(2), tmp_path)
    values = traced(model, "simulated", images(2))
    as_doubles = {name: array.astype(np.float64) for name, array in values.items()}
    computed = cut_run(model, "simulated", as_doubles)
    assert computed["c2"].dtype == np.float16
    assert computed["logits"].dtype == np.float32
    assert all(np.array_equal(computed[name], array) for name, array in cut_run(model, "simulated", values).items())


def test_codes_that_an_op_passes_on_are_fed_and_come_out_as_real_values() -> None:
    weights: Values = {
        "s": np.array(0.02, np.float32), "z": np.array(128, np.uint8), "ys": np.array(0.05, np.float32),
        "w": np.random.default_rng(0).integers(-100, 100, (6, 4, 3, 3)).astype(np.int8),
        "ws": np.array(0.01, np.float32), "wz": np.array(0, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "quantize"),
        helper.make_node("QLinearConv", ["xq", "s", "z", "w", "ws", "wz", "ys", "z"], ["t"], "conv"),
        helper.make_node("MaxPool", ["t"], ["p"], "pool", kernel_shape=[2, 2]),
        helper.make_node("Transpose", ["p"], ["q"], "transpose", perm=[0, 2, 3, 1]),
        helper.make_node("DequantizeLinear", ["q", "ys", "z"], ["r"], "dequantize"),
        helper.make_node("Relu", ["r"], ["y"], "relu"),
    ]
    model = BACKEND.load(model_of(nodes, {"x": [2, 4, 9, 9]}, weights))
    x = np.random.default_rng(1).uniform(-2.5, 2.5, (2, 4, 9, 9)).astype(np.float32)
    check_ops_alone(model, x)
    values = traced(model, "simulated", x)
    fed = {**values, "p": values["p"] + np.float32(0.01)}
    computed = cut_run(model, "simulated", fed)
    assert np.array_equal(computed["p"], values["p"])
    assert np.array_equal(computed["q"], values["q"]), "rounded as the codes are"


def clipped(clip: list[Any], weights: Values, opset: int = 17) -> onnx.ModelProto:
    """x → Conv → c → clip → y."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "conv"), *clip]
    kernel = np.random.default_rng(0).normal(0, 0.5, (4, 3, 3, 3)).astype(np.float32)
    return model_of(nodes, {"x": [2, 3, 12, 12]}, {"w": kernel, **weights}, opset)


def scalar(value: float) -> NDArray[Any]:
    return np.array(value, np.float32)


BOUNDS = {"low": scalar(-0.5), "high": scalar(1)}
CLIP = helper.make_node("Clip", ["c", "low", "high"], ["y"], "act")
ACTIVATIONS: dict[str, tuple[Callable[[], onnx.ModelProto], float, float]] = {
    "relu": (lambda: clipped([helper.make_node("Relu", ["c"], ["y"], "act")], {}), 0, np.inf),
    "clip": (lambda: clipped([CLIP], BOUNDS), -0.5, 1),
    "clip of another opset": (
        lambda: clipped([helper.make_node("Clip", ["c"], ["y"], "act", min=-0.5, max=1.0)], {}, 9), -0.5, 1
    ),
    "clip with computed bounds": (
        lambda: clipped(
            [
                helper.make_node("Constant", [], ["double"], "c1", value=numpy_helper.from_array(np.array(-0.5))),
                helper.make_node("Cast", ["double"], ["low"], "cast", to=TensorProto.FLOAT),
                CLIP,
            ],
            {"high": scalar(1)},
        ), -0.5, 1,
    ),
    "minimum": (lambda: clipped([helper.make_node("Min", ["high", "c"], ["y"], "act")], BOUNDS), -np.inf, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_an_absorbed_activation_is_applied_to_what_comes_out(name: str) -> None:
    make, low, high = ACTIVATIONS[name]
    reference = BACKEND.load(make())
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (2, 3, 12, 12)).astype(np.float32)
    # The quantized model has the reference's bounds in its names for other things.
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y1"], "act"),
        helper.make_node("QuantizeLinear", ["y1", "s", "z"], ["low"], "quantize"),
        helper.make_node("DequantizeLinear", ["low", "s", "z"], ["high"], "dequantize"),
        helper.make_node("Neg", ["high"], ["y"], "neg"),
    ]
    weights = {"w": reference_kernel(reference), "s": scalar(0.01), "z": np.array(0, np.uint8)}
    model = BACKEND.load(model_of(nodes, {"x": [2, 3, 12, 12]}, weights))
    plain = cut_run(model, "simulated", {"x": x}, ["y1"])["y1"]
    assert plain.min() < -1
    assert plain.max() > 1.5
    absorbed = {"y1": (reference, "act"), "y": (reference, "conv")}
    found = cut_run(model, "simulated", {"x": x}, ["y1"], absorbed=absorbed)["y1"]
    assert np.array_equal(found, np.clip(plain, low, high).astype(np.float32))
    fed = cut_run(model, "simulated", {"x": x, "y1": plain}, ["y1", "y"], absorbed={"y1": (reference, "act")})
    assert np.array_equal(fed["y"], -rounded(model, "y1", plain)), "what reads the tensor reads what is fed"


def reference_kernel(model: Model) -> NDArray[Any]:
    return next(weight for weight in BACKEND.weights(model) if weight.tensor == "w").read()


def test_an_activation_of_floats_is_applied_to_halves() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "cast", to=TensorProto.FLOAT16),
        helper.make_node("Neg", ["h"], ["y"], "neg"),
    ]
    proto = model_of(nodes, {"x": [2, 3]}, {})
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT16, None))
    reference = BACKEND.load(ACTIVATIONS["clip"][0]())
    x = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
    found = cut_run(BACKEND.load(proto), "exact", {"h": x}, ["y"], absorbed={"y": (reference, "act")})["y"]
    assert np.array_equal(found, np.clip(-x.astype(np.float16), -0.5, 1))


def test_what_is_no_activation_is_named() -> None:
    model = BACKEND.load(branches())
    for op, message in (("add", r"'add' \(Add\) .* 2 inputs"), ("none", "no op 'none'")):
        with pytest.raises(UnsupportedError, match=message):
            cut_run(model, "exact", {}, ["y"], absorbed={"y": (model, op)})


def convolved(x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any]) -> NDArray[Any]:
    """A convolution with a padding of one pixel, in float64."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], (2, 3))
    result: NDArray[Any] = np.einsum("nchwij,ocij->nohw", windows, weight.astype(np.float64)) + bias[:, None, None]
    return result


def classifier() -> onnx.ModelProto:
    """A Conv and a Gemm, each with a bias."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "b1": rng.normal(0, 0.1, 8).astype(np.float32),
        "w2": rng.normal(0, 0.3, (10, 8)).astype(np.float32),
        "b2": rng.normal(0, 0.1, 10).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], "gemm", transB=1),
    ]
    return make_model(nodes, {"x": ["N", 3, 12, 12]}, {"y": ["N", 10]}, weights)


@pytest.mark.parametrize("variant", ["qdq_per_channel", "qoperator_per_channel", "qoperator_per_tensor"])
def test_float_values_take_the_place_of_quantized_constants(variant: str, tmp_path: Path) -> None:
    x, rng = images(4), np.random.default_rng(5)
    model = quantized(variant, classifier(), x, tmp_path)
    view = BACKEND.float_view(model, "simulated")
    known = {(w.op, w.role): w for w in BACKEND.weights(model, "simulated")}
    assert {key: w.qparams is not None for key, w in known.items()} == {
        (op, role): True for op in ("conv", "gemm") for role in ("weight", "bias")
    }
    new = {key: rng.normal(0, 0.5, w.shape) for key, w in known.items() if key != ("gemm", "weight")}
    outputs = [view.graph.by_name[op].outputs[0] for op in ("conv", "gemm")]
    fed = {"x": x, view.graph.by_name["gemm"].inputs[0]: rng.normal(0, 0.3, (4, 8)).astype(np.float32)}
    replaced = {(op, known[op, role].tensor): array for (op, role), array in new.items()}
    found = cut_run(model, "simulated", fed, outputs, constants=replaced)
    name = view.graph.by_name["gemm"].inputs[0]
    wanted = (
        convolved(rounded(model, "x", x), new["conv", "weight"], new["conv", "bias"]),
        rounded(model, name, fed[name]) @ known["gemm", "weight"].read().astype(np.float64).T + new["gemm", "bias"],
    )
    plain = cut_run(model, "simulated", fed, outputs)
    for output, array in zip(outputs, wanted, strict=True):
        np.testing.assert_allclose(found[output], array, rtol=1e-4, atol=1e-5)
        assert np.abs(plain[output] - array).max() > 0.1


def test_a_constant_is_replaced_behind_transposes_and_casts_in_the_shape_that_the_op_reads() -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(0, 1, (5, 3)).astype(np.float16)}
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], "transpose"),
        helper.make_node("Cast", ["wt"], ["wf"], "cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "wf"], ["m"], "first"),
        helper.make_node("MatMul", ["x", "wf"], ["n"], "second"),
        helper.make_node("Add", ["m", "n"], ["y"], "add"),
    ]
    model = BACKEND.load(model_of(nodes, {"x": [2, 3]}, weights))
    x = rng.normal(0, 1, (2, 3)).astype(np.float32)
    new = rng.normal(0, 1, (3, 5))
    weight = next(w for w in BACKEND.weights(model) if w.op == "first")
    assert (weight.tensor, weight.shape) == ("w", (3, 5))
    values = traced(model, "exact", x)
    found = cut_run(model, "exact", values, ["m", "n"], constants={("first", "w"): new})
    np.testing.assert_allclose(found["m"], x @ new, rtol=1e-5, atol=1e-5)
    assert np.array_equal(found["n"], values["n"]), "another op that reads the same constant keeps it"


@pytest.mark.parametrize(("variant", "op_type"), [("dynamic", "MatMulInteger"), ("matmul_int4", "MatMulNBits")])
def test_a_constant_that_is_not_read_in_float_is_named(variant: str, op_type: str, tmp_path: Path) -> None:
    model = quantized(variant, convolutions(), images(2), tmp_path)
    weight = next(w for w in BACKEND.weights(model, "simulated") if w.shape == (16, 10))
    replaced = {(weight.op, weight.tensor): weight.read()}
    with pytest.raises(UnsupportedError, match=rf"'{weight.op}' \({op_type}\)"):
        cut_run(model, "simulated", {}, ["logits"], constants=replaced)
    with pytest.raises(UnsupportedError, match="no op 'none'"):
        cut_run(model, "simulated", {}, ["logits"], constants={("none", "w"): weight.read()})


def test_weights_in_files_beside_the_model_are_found(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(convolutions(), str(path), save_as_external_data=True, location="data", size_threshold=0)
    model, whole = BACKEND.load(path), BACKEND.load(convolutions())
    assert model.handle.model.external
    values = traced(model, "exact", images(2))
    found, wanted = cut_run(model, "exact", values), cut_run(whole, "exact", values)
    assert len(found) == 6
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
