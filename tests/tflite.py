"""Tiny .tflite models made by hand, as TensorFlow's converter writes them: channels last, an open batch, its names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quantscope.testing import TinyNetwork

IMAGE, OUT = "serving_default_image:0", "StatefulPartitionedCall:0"
STEM = "net/stem/Relu;net/stem/BiasAdd;net/body/Conv2D;net/stem/Conv2D1"
BODY, POOL = "net/body/BiasAdd;net/body/Conv2D", "net/pool/Mean"
SIGNATURE: Mapping[str, str] = {IMAGE: "image", OUT: "scores"}
SHAPES: Mapping[str, list[int | None]] = {
    IMAGE: [None, 8, 8, 3], STEM: [None, 8, 8, 8], BODY: [None, 8, 8, 16], POOL: [None, 16], OUT: [None, 5],
}  # fmt: skip
# An op between the second convolution and the mean: what it writes, and the axes of the mean then.
BETWEEN: Mapping[str, tuple[str, list[int | None], list[int]]] = {
    "FLOOR": ("net/floor/Floor", [None, 8, 8, 16], [1, 2]),
    "EXPAND_DIMS": ("net/expand/ExpandDims", [None, 1, 8, 8, 16], [1, 2, 3]),
    "NEG": ("net/negative/Neg", [None, 8, 8, 16], [1, 2]),
    "SQUARE": ("net/squared/Square", [None, 8, 8, 16], [1, 2]),
}
Activation = Literal["fused", "apart", "in codes"]
_STEP: dict[str, Any] = {"padding": 0, "strideW": 1, "strideH": 1}
_SAME: dict[str, Any] = {**_STEP, "dilationWFactor": 1, "dilationHFactor": 1}
_POOLED = ("Pool2DOptions", {**_STEP, "filterWidth": 2, "filterHeight": 2})
# By op type: the table of its options, and what is in it.
_OPTIONS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ADD": ("AddOptions", {}), "AVERAGE_POOL_2D": _POOLED, "CONV_2D": ("Conv2DOptions", _SAME),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", {**_SAME, "depthMultiplier": 2}),
    "FULLY_CONNECTED": ("FullyConnectedOptions", {}), "MAX_POOL_2D": _POOLED,
    "MEAN": ("ReducerOptions", {"keepDims": True}), "MIRROR_PAD": ("MirrorPadOptions", {}),
    "MUL": ("MulOptions", {}), "RESHAPE": ("ReshapeOptions", {}),
    "TRANSPOSE_CONV": ("TransposeConvOptions", _STEP),
}  # fmt: skip


def tiny(path: Path, net: TinyNetwork | None = None) -> Path:
    """The tiny network in float."""
    return _written(path, _weights(net or TinyNetwork()), {}, SIGNATURE)


def with_op(path: Path, native: str) -> Path:
    """The same with one of the ops of BETWEEN in the middle."""
    return _written(path, _weights(TinyNetwork()), {}, SIGNATURE, between=native)


def halved(path: Path) -> Path:
    """The same with weights in float16, which a DEQUANTIZE brings to float32."""
    return _written(path, {n: w.astype(np.float16) for n, w in _weights(TinyNetwork()).items()}, {}, SIGNATURE)


def wide(path: Path, layers: int = 1) -> Path:
    """Convolutions and ReLUs, each with an output of 256×256 pixels and 16 channels, which takes 4 MiB in float."""
    from quantscope.backends.litert.building import Builder

    made, rng = Builder(), np.random.default_rng(0)
    read, channels = made.tensor("x", [1, 256, 256, 3]), 3
    for i in range(layers):
        made.constant(f"w{i}", rng.normal(0, 0.3, (16, 1, 1, channels)).astype(np.float32))
        made.constant(f"b{i}", np.zeros(16, np.float32))
        conv, relu = (made.tensor(f"{kind}{i}", [1, 256, 256, 16]) for kind in ("conv", "relu"))
        made.op("CONV_2D", [read, f"w{i}", f"b{i}"], [conv], "Conv2DOptions", **_SAME)
        made.op("RELU", [conv], [relu])
        read, channels = relu, 16
    made.constant("axes", np.array([1, 2], np.int32))
    made.tensor("mean", [1, 16])
    made.op("MEAN", [read, "axes"], ["mean"], "ReducerOptions", keepDims=False)
    path.write_bytes(made.finished(["x"], ["mean"]))
    return path


@dataclass(frozen=True)
class Layer:
    """An op with what it reads beside what the one before it wrote, and the activation that is part of it."""

    native: str
    name: str
    constants: Sequence[NDArray[Any]]
    activation: str = "NONE"

    def shape(self, before: tuple[int, ...]) -> tuple[int, ...]:
        """That of its output."""
        kind, first = self.native, self.constants[0] if self.constants else np.zeros(0)
        if kind in ("CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"):
            return (*before[:-1], len(first))
        if kind == "DEPTHWISE_CONV_2D":
            return (*before[:-1], first.shape[-1])
        if kind in ("PAD", "PADV2", "MIRROR_PAD"):
            return tuple(size + int(pads.sum()) for size, pads in zip(before, first, strict=True))
        if kind == "MEAN":
            return (1, 1, 1, before[-1])
        return tuple(map(int, first)) if kind == "RESHAPE" else before


def chain(path: Path, x: NDArray[Any], layers: Sequence[Layer], *, shared: str = "") -> Path:
    """A model of these layers one after the other, of one sample of `x`; its tensors go by the layers' names.

    With `shared` "tensors" weights of the same values are there once; with "buffers" each has a tensor, and all
    constants of the same values have one buffer.
    """
    from quantscope.backends.litert import schema
    from quantscope.backends.litert.building import Builder

    made, known = Builder(), dict[bytes, str]()
    shape = (1, *x.shape[1:])
    before = made.tensor("x", shape)
    for layer in layers:
        read = [before]
        for i, values in enumerate(layer.constants):
            key = values.tobytes() if shared == "tensors" and values.ndim > 1 else f"{layer.name}/{i}".encode()
            known[key] = known.get(key) or made.constant(f"{layer.name}/{i}", np.ascontiguousarray(values))
            read.append(known[key])
        shape = layer.shape(shape)
        if layer.native == "TRANSPOSE_CONV":
            read = [made.constant(f"{layer.name}/shape", np.array(shape, np.int32)), read[1], before, read[2]]
        table, options = _OPTIONS.get(layer.native, ("", {}))
        if table and hasattr(getattr(schema.tables, f"{table}T")(), "fusedActivationFunction"):
            number = getattr(schema.tables.ActivationFunctionType, layer.activation)
            options = {**options, "fusedActivationFunction": number}
        before = made.tensor(layer.name, shape)
        made.op(layer.native, read, [before], table, **options)
    content = made.finished(["x"], [before])
    if shared == "buffers":
        model = schema.unpacked(content)
        first: dict[bytes, int] = {}
        for tensor in model.subgraphs[0].tensors:
            if tensor.buffer:
                tensor.buffer = first.setdefault(model.buffers[tensor.buffer].data.tobytes(), tensor.buffer)
        content = schema.packed(model)
    path.write_bytes(content)
    return path


def odd(path: Path) -> Path:
    """A RESHAPE, outputs that nobody reads, and a tensor as long as its input has positive values."""
    from quantscope.backends.litert.building import Builder

    made = Builder()
    made.tensor("x", [1, 4, 8])
    made.constant("shape", np.array([4, 8], np.int32))
    for name in ("reshaped", "absolute", "unread", "out"):
        made.tensor(name, [4, 8])
    made.constant("zero", np.zeros(1, np.float32))
    made.tensor("is_above", [4, 8], "bool")
    for name, dtype in (("where", "int64"), ("above", "float32"), ("late", "float32")):
        made.tensor(name, [None, 2], dtype)
    made.op("RESHAPE", ["x", "shape"], ["reshaped"], "ReshapeOptions")
    made.op("ABS", ["reshaped"], ["absolute"])
    made.op("NEG", ["reshaped"], ["unread"])
    made.op("GREATER", ["reshaped", "zero"], ["is_above"], "GreaterOptions")
    made.op("WHERE", ["is_above"], ["where"])
    made.op("CAST", ["where"], ["above"], "CastOptions")
    made.op("NEG", ["above"], ["late"])
    made.op("EXP", ["absolute"], ["out"])
    path.write_bytes(made.finished(["x"], ["out"]))
    return path


def dividing(path: Path, dtype: str = "float32", divisor: NDArray[Any] | None = None) -> Path:
    """One tensor divided by another, or by a constant, and a ReLU behind it: in float, or in codes of real values."""
    from quantscope.backends.litert.building import Builder

    made = Builder()
    coded = dtype != "float32"
    scales: dict[str, Any] = {"scale": [1 / 16], "zero_point": [3]} if coded else {}
    made.tensor("x", [1, 8], dtype, **scales)
    if divisor is None:
        made.tensor("y", [1, 8], dtype, **scales)
    else:
        made.constant("y", divisor, **scales)
    quotient: dict[str, Any] = {"scale": [1 / 8], "zero_point": [-5]} if coded else {}
    for name in ("net/div", "net/relu"):
        made.tensor(name, [1, 8], dtype, **quotient)
    made.op("DIV", ["x", "y"], ["net/div"], "DivOptions")
    made.op("RELU", ["net/div"], ["net/relu"])
    path.write_bytes(made.finished(["x", "y"] if divisor is None else ["x"], ["net/relu"]))
    return path


def recurrent(path: Path) -> tuple[Path, dict[str, NDArray[np.float32]]]:
    """A recurrent layer that keeps its state in the model, and a product; the file, and its weights by name.

    4 steps of 3 values in, 2 out.
    """
    from quantscope.backends.litert.building import Builder

    made, rng = Builder(), np.random.default_rng(3)
    shapes = {"inner": (5, 3), "back": (5, 5), "bias": (5,), "head": (2, 20)}
    weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    made.tensor("x", [1, 4, 3])
    for name, values in weights.items():
        made.constant(name, values)
    made.tensor("state", [1, 5], variable=True)
    made.tensor("rnn", [1, 4, 5])
    made.constant("flat", np.array([1, 20], np.int32))
    made.tensor("steps", [1, 20])
    made.tensor("y", [1, 2])
    operands = ["x", "inner", "back", "bias", "state"]
    made.op("UNIDIRECTIONAL_SEQUENCE_RNN", operands, ["rnn"], "SequenceRNNOptions", fusedActivationFunction=4)
    made.op("RESHAPE", ["rnn", "flat"], ["steps"], "ReshapeOptions", newShape=[1, 20])
    made.op("FULLY_CONNECTED", ["steps", "head"], ["y"], "FullyConnectedOptions")
    path.write_bytes(made.finished(["x"], ["y"]))
    return path, weights


def half_read(path: Path) -> Path:
    """A product of which a SPLIT makes halves, one of them for nobody, as the first step of an LSTM does."""
    from quantscope.backends.litert.building import Builder

    made = Builder()
    made.tensor("x", [1, 4])
    made.constant("w", np.random.default_rng(5).normal(0, 0.5, (6, 4)).astype(np.float32))
    made.constant("axis", np.array(1, np.int32))
    made.op("FULLY_CONNECTED", ["x", "w"], [made.tensor("product", [1, 6])], "FullyConnectedOptions")
    halves = [made.tensor("half", [1, 3]), made.tensor("unread", [1, 3])]
    made.op("SPLIT", ["axis", "product"], halves, "SplitOptions", numSplits=2)
    made.op("LOGISTIC", ["half"], [made.tensor("y", [1, 3])])
    path.write_bytes(made.finished(["x"], ["y"]))
    return path


def looped(path: Path) -> tuple[Path, NDArray[np.float32]]:
    """A WHILE that multiplies by a matrix three times, and a ReLU; the file, and the matrix.

    Of what the loop carries, the matrix is read by nobody behind it.
    """
    from quantscope.backends.litert import schema
    from quantscope.backends.litert.building import Builder

    matrix = np.random.default_rng(4).normal(0, 0.5, (4, 4)).astype(np.float32)
    graphs = []
    for what in ("main", "condition", "body"):
        made = Builder()
        carried = [made.tensor("i", [], "int32"), made.tensor("x", [1, 4]), made.tensor("w", [4, 4])]
        if what == "condition":
            made.constant("end", np.array(3, np.int32))
            made.op("LESS", ["i", "end"], [made.tensor("again", [], "bool")])
            given = ["again"]
        elif what == "body":
            made.constant("one", np.array(1, np.int32))
            made.op("ADD", ["i", "one"], [made.tensor("next", [], "int32")], "AddOptions")
            made.op("FULLY_CONNECTED", ["x", "w"], [made.tensor("product", [1, 4])], "FullyConnectedOptions")
            given = ["next", "product", "w"]
        else:
            made.constant("zero", np.array(0, np.int32))
            made.constant("matrix", matrix)
            behind = [made.tensor("j", [], "int32"), made.tensor("loop", [1, 4]), made.tensor("unread", [4, 4])]
            options = {"condSubgraphIndex": 1, "bodySubgraphIndex": 2}
            made.op("WHILE", ["zero", "x", "matrix"], behind, "WhileOptions", **options)
            made.op("RELU", ["loop"], [made.tensor("y", [1, 4])])
            carried, given = ["x"], ["y"]
        graphs.append(schema.unpacked(made.finished(carried, given)))
    table, *others = graphs
    for other in others:
        for tensor in other.subgraphs[0].tensors:
            tensor.buffer += len(table.buffers)
        for op in other.subgraphs[0].operators:
            op.opcodeIndex += len(table.operatorCodes)
        table.subgraphs += other.subgraphs
        table.buffers += other.buffers
        table.operatorCodes += other.operatorCodes
    path.write_bytes(schema.packed(table))
    return path, matrix


def apart(path: Path) -> Path:
    """The same with the ReLU as an op of its own."""
    return _written(path, _weights(TinyNetwork()), {}, SIGNATURE, activation="apart")


def integer(path: Path, signature: Mapping[str, str] | None = SIGNATURE, activation: Activation = "fused") -> Path:
    """The same in int8 from its inputs to its outputs, weights per channel.

    The scales are those of the values that the network has for eight samples. With the activation "in codes" there is
    no ReLU at all: codes end where it does.
    """
    net = TinyNetwork()
    weights = _weights(net)
    activations = {name: _scale(values) for name, values in _values(net).items()}
    coded: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {}
    for layer, source in (("stem", IMAGE), ("body", STEM), ("head", POOL)):
        kernel, bias = (name for name in weights if name.startswith(f"net/{layer}/"))
        values = weights[kernel]
        scale = np.abs(values.reshape(len(values), -1)).max(1) / 127
        codes = np.rint(values / scale.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
        coded[kernel] = codes, {"scale": scale.tolist(), "axis": 0}
        scale = scale * activations[source]["scale"][0]
        coded[bias] = np.rint(weights[bias] / scale).astype(np.int32), {"scale": scale.tolist(), "axis": 0}
    return _written(path, coded, activations, signature, activation=activation)


def _weights(net: TinyNetwork) -> dict[str, NDArray[Any]]:
    return {
        "net/stem/Conv2D": net.stem.transpose(0, 2, 3, 1),
        "net/stem/BiasAdd/ReadVariableOp": net.stem_bias,
        "net/body/Conv2D": net.body.transpose(0, 2, 3, 1),
        "net/body/BiasAdd/ReadVariableOp": net.body_bias,
        "net/head/MatMul": net.head.T,
        "net/head/BiasAdd/ReadVariableOp": net.head_bias,
    }


def _values(net: TinyNetwork) -> dict[str, NDArray[np.float64]]:
    """All activations for eight samples."""
    samples = net.samples(8)
    x = np.pad(samples.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    stem = np.maximum(np.einsum("nihwyx,oiyx->nohw", windows, net.stem) + net.stem_bias[:, None, None], 0)
    body = np.einsum("nihw,oi->nohw", stem, net.body[:, :, 0, 0]) + net.body_bias[:, None, None]
    return {IMAGE: samples, STEM: stem, BODY: body, POOL: body.mean((2, 3)), OUT: net.outputs(samples)}


def _scale(values: NDArray[Any]) -> dict[str, Any]:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = (high - low) / 255
    return {"scale": [scale], "zero_point": [round(-128 - low / scale)]}


def _written(
    path: Path,
    weights: Mapping[str, Any],
    scales: Mapping[str, Any],
    signature: Mapping[str, str] | None,
    between: str = "",
    activation: Activation = "fused",
) -> Path:
    from quantscope.backends.litert.building import Builder

    made = Builder()
    for name, found in weights.items():
        values, quantization = found if isinstance(found, tuple) else (found, {})
        made.constant(name, np.ascontiguousarray(values), **quantization)
        if values.dtype == np.float16:
            made.op("DEQUANTIZE", [name], [made.tensor(f"{name}_dequantize", values.shape)])
    for name, shape in SHAPES.items():
        made.tensor(name, shape, "int8" if scales else "float32", **scales.get(name, {}))
    halves = any(getattr(found, "dtype", None) == np.float16 for found in weights.values())
    operands = {name: f"{name}_dequantize" if halves else name for name in weights}
    kernels = [operand for name, operand in operands.items() if "BiasAdd" not in name]
    biases = [operand for name, operand in operands.items() if "BiasAdd" in name]
    fused = {**_SAME, "fusedActivationFunction": 1 if activation == "fused" else 0}
    stem = made.tensor("net/stem/BiasAdd", SHAPES[STEM]) if activation == "apart" else STEM
    made.op("CONV_2D", [IMAGE, kernels[0], biases[0]], [stem], "Conv2DOptions", **fused)
    if activation == "apart":
        made.op("RELU", [stem], [STEM])
    made.op("CONV_2D", [STEM, kernels[1], biases[1]], [BODY], "Conv2DOptions", **_SAME)
    pooled, axes = BODY, [1, 2]
    if between:
        pooled, shape, axes = BETWEEN[between]
        made.tensor(pooled, shape)
        axis = [made.constant("net/expand/dim", np.array(1, np.int32))] if between == "EXPAND_DIMS" else []
        made.op(between, [BODY, *axis], [pooled], "ExpandDimsOptions" if axis else "")
    made.constant("net/pool/Mean/reduction_indices", np.array(axes, np.int32))
    made.op("MEAN", [pooled, "net/pool/Mean/reduction_indices"], [POOL], "ReducerOptions", keepDims=False)
    made.op("FULLY_CONNECTED", [POOL, kernels[2], biases[2]], [OUT], "FullyConnectedOptions")
    path.write_bytes(made.finished([IMAGE], [OUT], signature or None))
    return path
