"""Integer kernels that are slow for what they are given: signed activations, unsigned weights, pooling, channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from quantscope.backends.base import Finding, Kernel
from quantscope.backends.onnx.slowness import integer_cures
from quantscope.backends.onnx.slowness.integer_cures import CHANNELS_AT_ONCE
from quantscope.backends.onnx.slowness.obstacles import Cure
from quantscope.backends.onnx.slowness.times import Times, on_codes, us
from quantscope.backends.onnx.slowness.unfused import Made, changed, count, examples
from quantscope.backends.onnx.slowness.written import PRODUCTS, QUANTIZE, Written
from quantscope.graph import Op

# What was measured of each with ONNX Runtime 1.32 on a Zen 4 core, as the share of the time that the cure saves:
# docs/slowness.md.
_SIGNED_ACTIVATIONS = 0.9
_UNSIGNED_WEIGHTS = 0.6
_DYNAMIC = 0.6
_FEW_CHANNELS = 4
_GROUPED = 0.7
# On x86 the kernel that reads codes where they are (MlasConvSym) takes these numbers of outputs, and an int8 weight
# whose zero points are 0. The share is what it saves with filters of 3×3 or less; with larger ones it is less.
_OUTPUTS_AT_ONCE, _FEWEST_OUTPUTS = 8, 16
_MOST_PADDED = 7
_UNPADDED, _UNPADDED_WIDTH = 0.4, 3
_SLOWER_THAN_FLOAT: Mapping[str, tuple[float, str, Cure]] = {
    "MaxPool": (
        0.95,
        "leave it in float; behind a QLinearConv ONNX Runtime has a faster kernel, NhwcMaxPool",
        integer_cures.move_real_values,
    ),
    "QLinearAveragePool": (
        0.9,
        "a depthwise Conv whose weights are all the same computes the same, and has a fast integer kernel",
        integer_cures.depthwise_for_average,
    ),
    "QLinearSoftmax": (
        0.8,
        "leave its input in float: a MatMul before it then gives real values from its integer kernel",
        integer_cures.real_input,
    ),
    "Resize": (0.4, "leave it in float together with the ops around it", integer_cures.move_real_values),
}  # fmt: skip
_INTEGER_PRODUCTS = frozenset((
    "QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger",
))  # fmt: skip
_DYNAMIC_PRODUCTS = frozenset(("ConvInteger", "MatMulInteger"))


def slow_on_codes(written: Written, times: Times, made: Made) -> Iterator[Finding]:
    """The findings about kernels that do read codes; for x86 processors, where they were measured."""
    signed = [
        k for k in times.kernels if k.op_type in _INTEGER_PRODUCTS and k.inputs and k.inputs[0].startswith("int8[")
    ]
    if signed:
        yield _signed_activations(written, signed, made)
    yield from _unsigned_weights(written, times, {kernel.name for kernel in signed}, made)
    yield from _dynamic(written, times, made)
    yield from _slower_than_float(written, times, made)
    yield from _grouped(written, times, made)
    yield from _unpadded(written, times, made)


def _named(kernels: Sequence[Kernel]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(op for kernel in kernels for op in kernel.ops))


def _signed_activations(written: Written, kernels: Sequence[Kernel], made: Made) -> Finding:
    names = _named(kernels)
    return Finding(
        "int8-activations",
        names,
        f"integer products of int8 activations ({count(len(kernels), 'kernel')})",
        f"{us(kernels):.0f} µs in kernels that read int8 activations: x86 processors multiply uint8 by int8, and ONNX"
        f" Runtime only turns int8 activations into uint8 where a model is written with QuantizeLinear and"
        f" DequantizeLinear; {_slowest(kernels)}",
        "uint8 activations (int8 weights may stay), or the QDQ format instead of QOperator",
        us(kernels) * _SIGNED_ACTIVATIONS,
        changed(written, names[:1], integer_cures.uint8_activations, made),
        exact=True,
    )


def _unsigned_weights(written: Written, times: Times, signed: set[str], made: Made) -> Iterator[Finding]:
    found: dict[str, list[Kernel]] = {}
    for op in written.graph.ops:
        # ConvInteger is the exception: its int8 weights were measured five times as slow as uint8 ones.
        if op.op_type != "ConvInteger" and _weight_type(written, op) == "uint8":
            kernels = [k for k in times.computing([op.name]) if _is_integer_product(k) and k.name not in signed]
            if kernels:
                found[op.name] = kernels
    if not found:
        return
    kernels = list({k.name: k for several in found.values() for k in several}.values())
    yield Finding(
        "uint8-weights",
        tuple(found),
        f"uint8 weights ({count(len(found), 'op')})",
        f"{us(kernels):.0f} µs in kernels with uint8 weights: the dot product instructions of x86 processors take int8"
        f" ones; {_slowest(kernels)}",
        "int8 weights (symmetric); on a processor without VNNI with one bit less, as products may saturate there",
        us(kernels) * _UNSIGNED_WEIGHTS,
        changed(written, tuple(found), integer_cures.int8_weight, made),
    )


def _is_integer_product(kernel: Kernel) -> bool:
    return kernel.op_type in _INTEGER_PRODUCTS or kernel.op_type == "DynamicQuantizeMatMul"


def _weight_type(written: Written, op: Op) -> str:
    """numpy's name for the codes of a product's constant weight; "" where there is none."""
    if op.op_type in PRODUCTS:
        conversion = written.dequantization(op.inputs[1])
        if conversion is None or conversion.inputs[0] not in written.fixed:
            return ""
        return written.code_type(conversion)
    weight = integer_cures.weight_place(op.op_type)
    name = op.inputs[weight] if weight is not None and weight < len(op.inputs) else ""
    return written.graph.tensor(name).dtype if name and name in written.fixed else ""


def _dynamic(written: Written, times: Times, made: Made) -> Iterator[Finding]:
    """Products whose activations are quantized anew in each inference, where that is not one fast kernel."""
    ops = [op for op in written.graph.ops if op.op_type in _DYNAMIC_PRODUCTS]
    ops = [op for op in ops if any(k.op_type in _DYNAMIC_PRODUCTS for k in times.computing([op.name]))]
    if not ops:
        return
    around = [name for op in ops for name in _chain(written, op)]
    kernels = list({k.name: k for k in (*times.computing(around), *times.converting(around))}.values())
    kinds = ", ".join(dict.fromkeys(op.op_type for op in ops))
    yield Finding(
        "conv-integer",
        tuple(op.name for op in ops),
        f"{kinds}: activations are quantized anew in each inference ({count(len(ops), 'op')})",
        f"{us(kernels):.0f} µs in {', '.join(dict.fromkeys(k.op_type for k in kernels))}: the range of each activation"
        f" is looked for first, and products come out as int32, to be cast and scaled by ops of their own;"
        f" {_slowest(kernels)}",
        "quantize statically, with calibration data; without such data leave Conv in float and quantize MatMul alone",
        us(kernels) * _DYNAMIC,
        changed(written, tuple(op.name for op in ops), integer_cures.static, made),
    )


def _chain(written: Written, op: Op) -> list[str]:
    """The names of the ops that a dynamically quantized product is written as."""
    names = [op.name]
    graph = written.graph
    before = graph.producers.get(op.inputs[0])
    if before is not None and before.op_type == "DynamicQuantizeLinear":
        names.append(before.name)
    tensor = op.outputs[0]
    for _ in range(2):
        readers = graph.consumers.get(tensor, ())
        if len(readers) != 1 or readers[0].op_type not in ("Cast", "Mul"):
            break
        names.append(readers[0].name)
        tensor = readers[0].outputs[0]
    return names


def _slower_than_float(written: Written, times: Times, made: Made) -> Iterator[Finding]:
    for op_type, (saved, change, cure) in _SLOWER_THAN_FLOAT.items():
        kernels = [k for k in times.kernels if k.op_type == op_type and k.role == "compute" and on_codes(k)]
        wanted = {op_type, op_type.removeprefix("QLinear")}
        names = tuple(name for name in _named(kernels) if written.graph.by_name[name].op_type in wanted)
        if names:
            finding = _slow_kernel(written, kernels, names, saved, change, cure, made, op_type)
            yield finding if _can_try(written, names, cure) else replace(finding, changed=None)


def _can_try(written: Written, names: Sequence[str], cure: Cure) -> bool:
    """True if the file says what the cure has to know.

    A depthwise Conv needs the number of channels, and an op that moves codes has to have codes before it in the file.
    """
    inputs = [written.graph.by_name[name].inputs[0] for name in names]
    if cure is integer_cures.depthwise_for_average:
        return all(map(written.rank, inputs))
    if cure is integer_cures.move_real_values:
        return all(written.dequantization(name) or _are_codes(written, name) for name in inputs)
    return True


def _are_codes(written: Written, tensor: str) -> bool:
    """True if an integer op or a QuantizeLinear writes this tensor."""
    writer = written.graph.producers.get(tensor)
    return writer is not None and (writer.op_type == QUANTIZE or writer.op_type.startswith("QLinear"))


def _grouped(written: Written, times: Times, made: Made) -> Iterator[Finding]:
    names, kernels = [], []
    for op, shape, found in _convolutions(written, times):
        if op.attributes.get("group", 1) != 1 and 1 < shape[1] <= _FEW_CHANNELS:
            names.append(op.name)
            kernels += found
    if names:
        yield _slow_kernel(
            written, kernels, tuple(names), _GROUPED,
            "leave it in float together with the ops around it (between quantized ops ONNX Runtime quantizes its float"
            " weight itself): the integer kernel computes one group after another",
            integer_cures.real_product, made, f"QLinearConv in groups of {_FEW_CHANNELS} channels or fewer",
        )  # fmt: skip


def _convolutions(written: Written, times: Times) -> Iterator[tuple[Op, tuple[int, ...], list[Kernel]]]:
    """Each convolution that runs on codes: the op, the shape of its weight, and its kernels."""
    for op in written.graph.ops:
        if op.op_type in ("Conv", "QLinearConv"):
            shape = written.graph.tensor(op.inputs[1 if op.op_type == "Conv" else 3]).shape or ()
            sizes = tuple(size for size in shape if isinstance(size, int))
            found = [k for k in times.computing([op.name]) if k.op_type == "QLinearConv"]
            if found and len(sizes) == len(shape) > 1:
                yield op, sizes, found


def _unpadded(written: Written, times: Times, made: Made) -> Iterator[Finding]:
    """Convolutions of few channels that would have a faster kernel if these were a multiple of four."""
    names, kernels, saved_us = [], [], 0.0
    for op, (outputs, channels, *window), found in _convolutions(written, times):
        misses = channels <= _MOST_PADDED and channels % CHANNELS_AT_ONCE > 0 and op.attributes.get("group", 1) == 1
        fits = outputs >= _FEWEST_OUTPUTS and outputs % _OUTPUTS_AT_ONCE == 0 and _has_symmetric_weight(written, op)
        if misses and fits and all(k.inputs and k.inputs[0].startswith("uint8[") for k in found):
            names.append(op.name)
            kernels += found
            saved_us += us(found) * _UNPADDED * min(1, _UNPADDED_WIDTH / max(*window, 1))
    if names:
        yield Finding(
            "unpadded-channels",
            tuple(names),
            f"QLinearConv reads few channels that are no multiple of {CHANNELS_AT_ONCE} ({count(len(names), 'op')})",
            f"{us(kernels):.0f} µs: ONNX Runtime's direct kernel for x86 takes {CHANNELS_AT_ONCE} channels at once, and"
            " the one that is left copies all that lies under the filter for each output; padding was measured to save"
            f" {_UNPADDED:.0%} of that with a 3×3 filter, less with a larger one; {_slowest(kernels)}",
            f"pad its input and weight with channels of zeros to a multiple of {CHANNELS_AT_ONCE}, by a Pad of the"
            " codes behind QuantizeLinear: outputs stay the same; float was measured to gain less, or to lose",
            saved_us,
            changed(written, tuple(names), integer_cures.padded_channels, made),
            exact=True,
        )


def _has_symmetric_weight(written: Written, op: Op) -> bool:
    """True if a convolution has a constant int8 weight whose zero points are 0."""
    if _weight_type(written, op) != "int8":
        return False
    conversion = written.dequantization(op.inputs[1])
    zero = (*conversion.inputs, "")[2] if conversion is not None else op.inputs[5]
    return not zero or not np.any(written.value(zero))


def _slow_kernel(
    written: Written,
    kernels: Sequence[Kernel],
    names: tuple[str, ...],
    saved: float,
    change: str,
    cure: Cure,
    made: Made,
    what: str,
) -> Finding:
    return Finding(
        "slow-integer-kernel",
        names,
        f"{what} is slower than float ({count(len(names), 'op')})",
        f"{us(kernels):.0f} µs; with float values it was measured to take {1 - saved:.0%} of the time;"
        f" {_slowest(kernels)}",
        change,
        us(kernels) * saved,
        changed(written, names, cure, made),
    )


def _slowest(kernels: Sequence[Kernel]) -> str:
    ordered = sorted(kernels, key=lambda kernel: -kernel.us)
    return examples([f"{k.ops[0] if k.ops else k.name}: {k.us:.0f} µs for {k.inputs[0]}" for k in ordered if k.inputs])
