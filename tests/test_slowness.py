"""Models made slow on purpose get the reason first, and what is said to help does remove it. No test asserts a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import quantscope
from conftest import make_model
from quantscope.backends.base import Finding, Kernel, Model
from quantscope.backends.onnx import BACKEND
from quantscope.backends.onnx.slowness.obstacles import X86

CHANNELS, SIZE, ROWS, WIDTH = 64, 28, 64, 512
VNNI = ("sse2", "avx512vnni")
SCALE = np.float32(0.05)
on_x86 = pytest.mark.skipif(not X86, reason="about the kernels for x86 processors")

UINT8, INT8, UINT16, INT4 = TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT4
MIDDLE = {UINT8: 128, UINT16: 32768}
RANGES = {UINT8: (0, 256), INT8: (-127, 128), INT4: (-7, 8)}


class Quantized:
    """A model in the making: quantized as `codes` and `weights` say unless a call says otherwise."""

    def __init__(self, codes: int = UINT8, weights: int = INT8) -> None:
        self.codes, self.weights = codes, weights
        self.random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []

    def input(self, shape: Sequence[int], name: str = "x") -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def constant(self, values: Any, kind: int | None = None) -> str:
        array, name = np.asarray(values), f"constant_{len(self.constants)}"
        if kind is None:
            self.constants.append(numpy_helper.from_array(array, name))
        else:
            self.constants.append(helper.make_tensor(name, kind, array.shape, array.ravel()))
        return name

    def op(self, op_type: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        number = len(self.nodes)
        names = [f"{op_type}_{number}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, names, name=f"{op_type}_{number}", **attributes))
        return names[0] if outputs == 1 else names

    def pair(self, tensor: str, *, scale: Any = SCALE, zero: int | None = None, name: str = "") -> str:
        """Behind a QuantizeLinear and DequantizeLinear."""
        zero = MIDDLE.get(self.codes, 0) if zero is None else zero
        shape = np.shape(scale)
        qparams = [name or self.constant(scale), self.constant(np.full(shape, zero), self.codes)]
        along = {"axis": 1} if shape else {}
        return str(
            self.op("DequantizeLinear", [self.op("QuantizeLinear", [tensor, *qparams], **along), *qparams], **along)
        )

    def weight(self, shape: Sequence[int], axis: int = 0, block: int = 0) -> str:
        """The real values of a quantized weight."""
        codes = self.constant(self.random.integers(*RANGES[self.weights], shape), self.weights)
        scales = [shape[axis]] if not block else [n // block if i == axis else n for i, n in enumerate(shape)]
        zeros = self.constant(np.full(scales, MIDDLE.get(self.weights, 0)), self.weights)
        inputs = [codes, self.constant(np.full(scales, 0.01, np.float32)), zeros]
        along = {"axis": axis} | ({"block_size": block} if block else {})
        return str(self.op("DequantizeLinear", inputs, **along))

    def convolution(self, tensor: str, *, group: int = 1, bias: str = "", channels: int = CHANNELS) -> str:
        inputs = [tensor, self.weight([channels, channels // group, 3, 3]), *([bias] if bias else [])]
        return str(self.op("Conv", inputs, pads=[1, 1, 1, 1], group=group))

    def bias(self, scale: float = 0.0005, kind: Any = np.int32) -> str:
        """The real values of a quantized bias."""
        parts = (np.full(CHANNELS, 7, kind), np.float32(scale), np.array(0, kind))
        return str(self.op("DequantizeLinear", [self.constant(part) for part in parts]))

    def model(self, *outputs: str) -> onnx.ModelProto:
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "slow", self.inputs, results, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def image(codes: int = UINT8, weights: int = INT8) -> tuple[Quantized, str]:
    made = Quantized(codes, weights)
    return made, made.input([1, CHANNELS, SIZE, SIZE])


def convolutions(
    codes: int = UINT8,
    weights: int = INT8,
    behind: Callable[[Quantized, str], str] = Quantized.pair,
    bias: Callable[[Quantized], str] = lambda made: "",
    group: int = 1,
) -> onnx.ModelProto:
    """Three quantized convolutions, each with the same thing behind it."""
    made, tensor = image(codes, weights)
    tensor = made.pair(tensor)
    for _ in range(3):
        tensor = behind(made, made.convolution(tensor, group=group, bias=bias(made)))
    return made.model(tensor)


def products(axis: int = 1, block: int = 0) -> onnx.ModelProto:
    """Three quantized matrix products."""
    made = Quantized()
    tensor = made.pair(made.input([ROWS, WIDTH]))
    for _ in range(3):
        tensor = made.pair(made.op("MatMul", [tensor, made.weight([WIDTH, WIDTH], axis, block)]))
    return made.model(tensor)


def alone(op_type: str, **attributes: Any) -> onnx.ModelProto:
    """Three ops of a type with quantization around each."""
    made, tensor = image()
    tensor = made.pair(tensor)
    for _ in range(3):
        tensor = made.pair(made.op(op_type, [tensor], **attributes))
    return made.model(tensor)


def scale_from_data() -> onnx.ModelProto:
    made, tensor = image()

    def behind(made: Quantized, tensor: str) -> str:
        return made.pair(tensor, name=made.op("Mul", [made.constant(np.float32(0.05)), "amount"]))

    made.input([], "amount")
    tensor = behind(made, tensor)
    for _ in range(3):
        tensor = behind(made, made.convolution(tensor, bias=made.bias()))
    return made.model(tensor)


def scale_per_channel() -> onnx.ModelProto:
    made, tensor = image()
    scales = np.full(CHANNELS, SCALE)
    tensor = made.pair(tensor, scale=scales)
    for _ in range(3):
        tensor = made.pair(made.convolution(tensor, bias=made.bias()), scale=scales)
    return made.model(tensor)


def float16_scales() -> onnx.ModelProto:
    made, tensor = image()
    half = np.float16(0.05)
    tensor = made.pair(made.op("Cast", [tensor], to=TensorProto.FLOAT16), scale=half)
    for _ in range(3):
        codes = made.constant(made.random.integers(-127, 128, (CHANNELS, CHANNELS, 3, 3)), INT8)
        weight = made.op("DequantizeLinear", [codes, made.constant(half), made.constant(0, INT8)])
        tensor = made.pair(made.op("Conv", [tensor, weight], pads=[1, 1, 1, 1]), scale=half)
    return made.model(made.op("Cast", [tensor], to=TensorProto.FLOAT))


def read_before_quantization() -> onnx.ModelProto:
    made, tensor = image()
    tensor, others = made.pair(tensor), []
    for _ in range(3):
        real = made.convolution(tensor)
        others.append(made.op("GlobalAveragePool", [real]))
        tensor = made.pair(real)
    return made.model(tensor, *others)


def left_in_float() -> onnx.ModelProto:
    made = Quantized()
    tensor = made.pair(made.input([ROWS, WIDTH]))
    for quantized in (True, False, True, False):
        values = made.random.normal(0, 0.1, (WIDTH, WIDTH)).astype(np.float32)
        weight = made.weight([WIDTH, WIDTH], 1) if quantized else made.constant(values)
        tensor = made.pair(made.op("MatMul", [tensor, weight]))
    return made.model(tensor)


def scaled_by_a_constant() -> onnx.ModelProto:
    made, tensor = image()
    tensor = made.pair(tensor)
    for _ in range(4):
        factors = made.constant(np.full((1, CHANNELS, 1, 1), 2, np.float32))
        tensor = made.pair(made.op("Mul", [tensor, factors]))
    return made.model(tensor)


def turned() -> onnx.ModelProto:
    made, tensor = image()
    turned = made.op("Transpose", [made.pair(tensor)], perm=[0, 2, 3, 1])
    return made.model(made.pair(turned, scale=SCALE / 2))


def divided() -> onnx.ModelProto:
    made, tensor = image()
    tensor = made.pair(tensor)
    for _ in range(3):
        tensor = made.pair(made.op("Div", [tensor, made.constant(np.float32(6))]))
    return made.model(tensor)


def residual(codes: int) -> onnx.ModelProto:
    made, tensor = image(codes)
    tensor = made.pair(tensor)
    for _ in range(3):
        tensor = made.pair(made.op("Add", [tensor, made.pair(made.convolution(tensor))]))
    return made.model(tensor)


def operators(codes: int) -> onnx.ModelProto:
    """Three integer convolutions, as the QOperator format writes them."""
    made, tensor = image(codes)
    activation = [made.constant(np.float32(0.05)), made.constant(MIDDLE.get(codes, 0), codes)]
    weight = [
        made.constant(made.random.integers(-127, 128, (CHANNELS, CHANNELS, 3, 3)), INT8),
        made.constant(np.float32(0.01)),
        made.constant(0, INT8),
    ]
    tensor = made.op("QuantizeLinear", [tensor, *activation])
    for _ in range(3):
        tensor = made.op("QLinearConv", [tensor, *activation, *weight, *activation], pads=[1, 1, 1, 1])
    return made.model(made.op("DequantizeLinear", [tensor, *activation]))


def stem(channels: int = 3, outputs: int = 32, codes: int = UINT8, weights: int = INT8) -> onnx.ModelProto:
    """The first convolution of a model for images."""
    made = Quantized(codes, weights)
    tensor = made.pair(made.input([1, channels, 4 * SIZE, 4 * SIZE]))
    weight = made.weight([outputs, channels, 3, 3])
    return made.model(made.pair(made.op("Conv", [tensor, weight], pads=[1, 1, 1, 1], strides=[2, 2])))


def dynamic() -> onnx.ModelProto:
    """Three convolutions that are quantized anew in each inference."""
    made, tensor = image()
    for _ in range(3):
        codes, scale, zero = made.op("DynamicQuantizeLinear", [tensor], 3)
        weight = made.constant(made.random.integers(0, 256, (CHANNELS, CHANNELS, 3, 3)), UINT8)
        product = made.op("ConvInteger", [codes, weight, zero, made.constant(128, UINT8)], pads=[1, 1, 1, 1])
        factor = made.op("Mul", [scale, made.constant(np.float32(0.01))])
        tensor = made.op("Mul", [made.op("Cast", [product], to=TensorProto.FLOAT), factor])
    return made.model(tensor)


def tiny() -> onnx.ModelProto:
    made = Quantized()
    tensor, other = made.pair(made.input([1, 16])), made.pair(made.input([1, 16], "y"))
    for _ in range(100):
        tensor = made.pair(made.op("Add", [tensor, other]))
    return made.model(tensor)


def activation(op_type: str, zero: int, codes: int = UINT8) -> onnx.ModelProto:
    return convolutions(codes, behind=lambda made, x: made.pair(made.op(op_type, [x]), zero=zero))


def clipped() -> onnx.ModelProto:
    def behind(made: Quantized, tensor: str) -> str:
        limits = [made.constant(np.float32(limit)) for limit in (0, 6)]
        return made.pair(made.op("Clip", [tensor, *limits]), zero=0)

    return convolutions(behind=behind)


def feed(model: Model) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(1)
    shapes = {tensor.name: [n for n in tensor.shape or () if isinstance(n, int)] for tensor in model.graph.inputs}
    return {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def profiled(model: Model, runs: int = 7) -> list[Kernel]:
    with BACKEND.profile(model, threads=1) as profiler:
        for _ in range(runs):
            profiler.run(feed(model))
        return profiler.finish(warm_up=2)[1]


def findings(
    model: Model,
    kernels: Sequence[Kernel] | None = None,
    threads: int = 0,
    cores: int = 2,
    flags: Sequence[str] = VNNI,
) -> list[Finding]:
    kernels = profiled(model) if kernels is None else kernels
    return list(BACKEND.findings(model, kernels, threads=threads, cores=cores, flags=flags))


def first(proto: onnx.ModelProto) -> tuple[Model, Finding]:
    model = BACKEND.load(proto)
    return model, findings(model)[0]


def rules(model: Model) -> list[str]:
    return [finding.rule for finding in findings(model)]


# rule, part of the title, the model made slow, the type of an op that it is about, of which kernel there are more after
QDQ = {
    "16-bit": ("unfused-dtype", "uint16", lambda: convolutions(UINT16), "Conv", "QLinearConv"),
    "4-bit weights": ("unfused-dtype", "int4", lambda: convolutions(weights=INT4), "Conv", "QLinearConv"),
    "float16 scales": ("unfused-dtype", "float16", float16_scales, "Conv", "QLinearConv"),
    "no output": (
        "unfused-no-output-q", "not quantized", lambda: convolutions(behind=lambda made, x: x), "Conv", "QLinearConv",
    ),
    "no kernel": ("unfused-op-type", "HardSwish", lambda: alone("HardSwish"), "HardSwish", "HardSigmoid"),
    "Div": ("unfused-op-type", "Div", divided, "Div", "QLinearMul"),
    "scale from data": ("unfused-scale", "not a constant", scale_from_data, "Conv", "QLinearConv"),
    "moved to another scale": ("unfused-scale", "only moves codes", turned, "Transpose", "Transpose"),
    "a scale per channel": (
        "unfused-shape", "more than one scale",
scale_per_channel, "Conv", "QLinearConv",
    ),
    "Relu and zero point": (
        "unfused-activation", "Relu does not", lambda: activation("Relu", 128), "Conv", "QLinearConv",
    ),
    "symmetric int8 and Relu": (
        "unfused-activation", "Relu does not", lambda: activation("Relu", 0, INT8), "Conv", "QLinearConv",
    ),
    "Clip within the range": ("unfused-activation", "Clip does not", clipped, "Conv", "QLinearConv"),
    "HardSwish between": (
        "unfused-activation", "HardSwish stands between", lambda: activation("HardSwish", 128), "Conv", "QLinearConv",
    ),
    "8-bit bias": (
        "unfused-bias", "int8", lambda: convolutions(bias=lambda made: made.bias(kind=np.int8)), "Conv", "QLinearConv",
    ),
    "scale of the bias": (
        "unfused-bias", "scale of the bias", lambda: convolutions(bias=lambda made: made.bias(0.002)),
        "Conv", "QLinearConv",
    ),
    "read before": ("unfused-readers", "before it is quantized", read_before_quantization, "Conv", "QLinearConv"),
    "one float operand": ("unfused-input", "another is not", scaled_by_a_constant, "Mul", "QLinearMul"),
    "left in float": ("fell-back", "left in float", left_in_float, "MatMul", "QLinearMatMul"),
    "scales of input channels": (
        "per-channel-kernel", "each input channel", lambda: products(axis=0), "MatMul", "QLinearMatMul",
    ),
    "scales of blocks": ("per-channel-kernel", "each block", lambda: products(0, 32), "MatMul", "QLinearMatMul"),
}  # fmt: skip

ON_CODES = {
    "int8 residual": ("int8-activations", "more than one op", lambda: residual(INT8), "Conv", "QLinearConv"),
    "int8 operators": ("int8-activations", "int8 activations", lambda: operators(INT8), "QLinearConv", "QLinearConv"),
    "uint8 weights": ("uint8-weights", "uint8 weights", lambda: convolutions(weights=UINT8), "Conv", "QLinearConv"),
    "dynamic": ("conv-integer", "anew", dynamic, "ConvInteger", "QLinearConv"),
    "groups": ("slow-integer-kernel", "groups", lambda: convolutions(group=16), "Conv", "Conv"),
    "3 channels": ("unpadded-channels", "no multiple of 4", stem, "Conv", "QLinearConv"),
    "3 channels of int8": (
        "unpadded-channels", "no multiple of 4", lambda: stem(codes=INT8), "Conv", "QLinearConv",
    ),
    "MaxPool": ("slow-integer-kernel", "MaxPool", lambda: alone("MaxPool", kernel_shape=[3, 3]), "MaxPool", "MaxPool"),
    "AveragePool": (
        "slow-integer-kernel", "AveragePool", lambda: alone("AveragePool", kernel_shape=[3, 3]),
        "AveragePool", "QLinearConv",
    ),
    "Softmax": ("slow-integer-kernel", "Softmax", lambda: alone("Softmax"), "Softmax", "Softmax"),
}  # fmt: skip

Case = tuple[str, str, Callable[[], onnx.ModelProto], str, str]


def check(case: Case) -> None:
    """The reason comes first, names ops of the file, and its change leaves no finding of this rule."""
    rule, title, make, op_type, kernel_type = case
    model, finding = first(make())
    assert finding.rule == rule
    assert title in finding.title
    assert op_type in {model.graph.by_name[name].op_type for name in finding.ops}
    assert finding.cost_us > 0
    assert all(part for part in (finding.evidence, finding.change))
    assert finding.changed is not None
    changed = finding.changed()
    kernels = profiled(changed)
    assert kernel_type in {kernel.op_type for kernel in kernels}
    assert (rule, title) not in [(f.rule, title if title in f.title else "") for f in findings(changed, kernels)]
    assert model.graph == BACKEND.load(model.handle.model.proto).graph, "the model itself was changed"


@pytest.mark.parametrize("name", QDQ)
def test_a_model_slowed_by_its_quantization_gets_that_reason_first(name: str) -> None:
    check(QDQ[name])


@on_x86
@pytest.mark.parametrize("name", ON_CODES)
def test_a_model_slowed_by_an_integer_kernel_gets_that_reason_first(name: str) -> None:
    check(ON_CODES[name])


@on_x86
@pytest.mark.parametrize(
    ("channels", "outputs", "weights"), [(4, 32, INT8), (18, 32, INT8), (3, 8, INT8), (3, 20, INT8), (3, 32, UINT8)]
)
def test_channels_are_to_be_padded_only_where_that_makes_the_kernel_faster(
    channels: int, outputs: int, weights: int
) -> None:
    assert "unpadded-channels" not in rules(BACKEND.load(stem(channels, outputs, weights=weights)))


@on_x86
@pytest.mark.parametrize("codes", [UINT8, INT8])
def test_padded_channels_change_no_value(codes: int) -> None:
    model, finding = first(stem(codes=codes))
    assert finding.changed is not None
    both = []
    for which in (model, finding.changed()):
        with BACKEND.deploy(which, threads=1) as runner:
            both.append(list(runner.run(feed(model)).values()))
    for before, after in zip(*both, strict=True):
        assert np.std(before) > 0
        np.testing.assert_array_equal(before, after)


@on_x86
def test_padded_channels_change_no_value_of_operators_on_codes_with_a_bias() -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(0, 0.3, (32, 3, 3, 3)).astype(np.float32), "b": rng.normal(0, 1, 32).astype(np.float32)}
    node = onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], name="stem", strides=[2, 2])
    x = rng.normal(0, 1, (3, 3, 64, 64)).astype(np.float32)
    proto = make_model([node], {"x": [1, 3, 64, 64]}, {"y": [1, 32, 31, 31]}, weights)
    model = quantscope.quantize(proto, {"x": x}, recipe=quantscope.Recipe(format="qoperator"))
    _, finding = first(model.handle.model.proto)
    assert finding.rule == "unpadded-channels"
    assert finding.exact
    assert finding.changed is not None
    with BACKEND.deploy(model, threads=1) as before, BACKEND.deploy(finding.changed(), threads=1) as after:
        for sample in x:
            np.testing.assert_array_equal(before.run({"x": sample[None]})["y"], after.run({"x": sample[None]})["y"])


def test_many_small_ops_are_named_as_what_takes_the_time() -> None:
    _, finding = first(tiny())
    assert finding.rule == "overhead"
    assert len(finding.ops) > 50
    assert finding.changed is None


@pytest.mark.parametrize("make", [convolutions, products, lambda: residual(UINT8), lambda: operators(UINT8)])
def test_a_well_quantized_model_gets_no_reason(make: Callable[[], onnx.ModelProto]) -> None:
    model = BACKEND.load(make())
    kernels = profiled(model)
    found = findings(model, kernels)
    assert sum(f.cost_us for f in found if f.rule != "overhead") == 0, found


def test_int8_activations_in_a_chain_are_no_reason_since_onnx_runtime_turns_them_into_uint8() -> None:
    assert "int8-activations" not in rules(BACKEND.load(convolutions(INT8)))


def test_more_threads_than_cores_come_first_and_fewer_last() -> None:
    model = BACKEND.load(convolutions(UINT16))
    kernels = profiled(model)
    assert findings(model, kernels, threads=32, cores=2)[0].rule == "threads"
    last = findings(model, kernels, threads=1, cores=2)[-1]
    assert (last.rule, last.cost_us) == ("threads", 0)
    assert "threads" not in [f.rule for f in findings(model, kernels, threads=0, cores=2)]
    assert "threads" not in [f.rule for f in findings(model, kernels, threads=2, cores=2)]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("sse2", "avx2"), True), (("sse2", "avx512vnni"), False), (("sse2", "avxvnni"), False),
        (("neon",), True), (("neon", "dotprod"), False), ((), False),
    ],
)  # fmt: skip
def test_a_processor_without_dot_products_is_named_if_the_model_has_integer_products(
    flags: tuple[str, ...], named: bool
) -> None:
    quantized, in_float = BACKEND.load(convolutions()), BACKEND.load(convolutions(UINT16))
    assert ("processor" in [f.rule for f in findings(quantized, flags=flags)]) == named
    assert "processor" not in [f.rule for f in findings(in_float, flags=flags)]


def test_costs_order_the_findings_and_never_exceed_the_time_of_the_kernels() -> None:
    model = BACKEND.load(left_in_float())
    kernels = profiled(model)
    costs = [finding.cost_us for finding in findings(model, kernels, threads=1)]
    assert costs == sorted(costs, reverse=True)
    assert all(0 <= cost <= math.fsum(kernel.us for kernel in kernels) for cost in costs)


def test_a_changed_model_can_be_saved_and_read_again(tmp_path: Path) -> None:
    _, finding = first(convolutions(UINT16))
    assert finding.changed is not None
    path = tmp_path / "changed.onnx"
    BACKEND.save(finding.changed(), path)
    assert "QLinearConv" in {kernel.op_type for kernel in profiled(BACKEND.load(path), 3)}
