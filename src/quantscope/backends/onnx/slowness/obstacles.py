"""Why ONNX Runtime has no integer kernel for an op with quantization around it.

What must hold for DequantizeLinear, op and QuantizeLinear to become one kernel is in the selectors of ONNX Runtime's
QDQ transformer (onnxruntime/core/optimizer/qdq_transformer/selectors_actions), and was tried with 1.32 on models of
each kind: docs/slowness.md.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from quantscope.backends.onnx.slowness import cures, integer_cures
from quantscope.backends.onnx.slowness.rewriting import Rewriting
from quantscope.backends.onnx.slowness.written import PRODUCTS, Written
from quantscope.graph import Op

Cure = Callable[[Rewriting, str], None]
"""Changes the quantization around the op of this name."""

_BINARY = frozenset(("Add", "Mul"))
_UNARY = frozenset(("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax"))
# These move codes as they are: codes must mean the same before and after.
_MOVING = frozenset((
    "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "MaxPool", "ReduceMax", "ReduceMin", "Reshape",
    "Resize", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
))  # fmt: skip
_KNOWN = PRODUCTS | _BINARY | _UNARY | _MOVING | {"Concat", "Where"}
_CLIPPING = frozenset(("Relu", "Clip"))
_ACTIVATIONS = _CLIPPING | {
    "Celu", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Selu", "Sigmoid",
    "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
}  # fmt: skip
_OLDEST_MAXPOOL = 12
# https://github.com/microsoft/onnxruntime/pull/28229
_BIAS_TOLERANCE = 0.01
X86 = platform.machine() in ("x86_64", "AMD64", "i386", "i686", "x86")
_BYTES = frozenset(("uint8", "int8"))


@dataclass(frozen=True)
class Obstacle:
    """What keeps an op from an integer kernel: the rule, what it is in words, what was seen, and what to change."""

    rule: str
    title: str
    seen: str
    change: str
    cure: Cure | None = None


def activation_between(written: Written, op: Op) -> str:
    """The name of an activation between an op and the quantization of its output; "" where there is none."""
    found = _Look(written, op).activation if has_integer_kernel(written, op) else None
    return found.name if found is not None else ""


def obstacle(written: Written, op: Op) -> Obstacle | None:
    """The first thing in an op's quantization that keeps it from an integer kernel; None if all looks well."""
    if not has_integer_kernel(written, op):
        return None
    look = _Look(written, op)
    found = next(look.obstacles(), None)
    # What is put in the place of float16 values is float32: it fits where quantization is all around.
    can_try = all(written.real_type(name) == "float32" for name in look.data) or look.is_enclosed
    return found if found is None or can_try else replace(found, cure=None)


def has_integer_kernel(written: Written, op: Op) -> bool:
    """True if ONNX Runtime can compute ops of this kind on codes."""
    if op.op_type == "Resize":
        return bool(op.attributes.get("mode", "nearest") == "nearest")
    if op.op_type == "MaxPool":
        return written.model.opset >= _OLDEST_MAXPOOL
    return op.op_type in _KNOWN


class _Look:
    """A look at one op of a kind that has an integer kernel."""

    def __init__(self, written: Written, op: Op) -> None:
        self.written, self.op = written, op
        graph = written.graph
        self.data = [name for name in self._data(op) if name]
        self.before = {name: found for name in self.data if (found := written.dequantization(name)) is not None}
        self.output = op.outputs[0]
        self.readers = graph.consumers.get(self.output, ())
        self.behind = [found for name in op.outputs for found in written.quantizations(name)]
        self.activation = self._activation()

    @staticmethod
    def _data(op: Op) -> tuple[str, ...]:
        if op.op_type in PRODUCTS | _BINARY:
            return op.inputs[:2]
        if op.op_type == "Where":
            return op.inputs[1:3]
        return op.inputs if op.op_type == "Concat" else op.inputs[:1]

    def _activation(self) -> Op | None:
        """An activation that stands between the op and the quantization of its output."""
        reader = self.readers[0] if len(self.readers) == 1 and self.output not in self.written.outputs else None
        if self.behind or reader is None or reader.op_type not in _ACTIVATIONS:
            return None
        return reader if self.written.quantizations(reader.outputs[0]) else None

    def _activations(self) -> list[Op]:
        """The conversions of activations around the op."""
        before = [found for found in self.before.values() if found.inputs[0] not in self.written.fixed]
        after = self.activation.outputs[0] if self.activation is not None else self.output
        return [*before, *(self.behind or self.written.quantizations(after))]

    @property
    def is_enclosed(self) -> bool:
        """True if all operands are dequantized or constants, and the output is quantized and nothing else."""
        operands = all(name in self.before or name in self.written.fixed for name in self.data)
        return operands and bool(self.behind) and len(self.readers) == len(self.behind)

    def _weight(self) -> Op | None:
        """The dequantization of a product's constant weight."""
        found = self.before.get(self.data[1]) if self.op.op_type in PRODUCTS else None
        return found if found is not None and found.inputs[0] in self.written.fixed else None

    def obstacles(self) -> Iterator[Obstacle]:
        yield from self._scales()
        yield from self._types()
        yield from self._granularity()
        yield from self._operands()
        yield from self._bias()
        yield from self._result()

    def _scales(self) -> Iterator[Obstacle]:
        around = self._activations()
        for conversion in around:
            if self.written.follows_from_data(conversion):
                yield Obstacle(
                    "unfused-scale",
                    "a scale or zero point is not a constant",
                    f"{conversion.name} takes its scale or zero point from another op or from an input of the model",
                    "quantize statically: store scale and zero point as initializers",
                    cures.constant_scale,
                )
            if shape := self.written.scale_shape(conversion):
                yield Obstacle(
                    "unfused-shape",
                    "an activation has more than one scale",
                    f"{conversion.name} has scales of shape {list(shape)}",
                    "quantize activations per tensor; only weights may have a scale for each channel",
                    cures.scale_per_tensor,
                )

    def _types(self) -> Iterator[Obstacle]:
        weight = self._weight()
        around = self._activations() + ([weight] if weight is not None else [])
        for conversion in around:
            kind = self.written.scale_type(conversion)
            if kind != "float32":
                yield Obstacle(
                    "unfused-dtype",
                    f"scales are {kind}, where integer kernels take float32",
                    f"the scale of {conversion.name} is {kind}",
                    "quantize the float32 model instead of the float16 one",
                    cures.float32_scales,
                )
        codes = [self.written.code_type(conversion) for conversion in around]
        if not _BYTES.issuperset(codes):
            activations, weights = codes[: len(self._activations())], codes[len(self._activations()) :]
            seen = f"activations are {_listed(activations)}" + (f", weights {weights[0]}" if weights else "")
            wrong = _listed(kind for kind in codes if kind not in _BYTES)
            yield Obstacle(
                "unfused-dtype",
                f"{wrong} codes have no integer kernel",
                seen,
                "uint8 activations and int8 weights; if accuracy needs more bits, leave these ops in float",
                cures.eight_bits,
            )

        constants = [found for found in self.before.values() if self.op.op_type not in PRODUCTS]
        signed = [found for found in (*self._activations(), *constants) if self.written.stays_signed(found)]
        if signed and X86:
            yield Obstacle(
                "int8-activations",
                "int8 activations that more than one op reads, or that are constants",
                f"{signed[0].name} has int8 codes; x86 kernels take uint8 ones, and ONNX Runtime turns no others into"
                " them than those that a QuantizeLinear writes for one reader",
                "uint8 activations (int8 weights may stay)",
                integer_cures.uint8_activations,
            )

    def _granularity(self) -> Iterator[Obstacle]:
        weight = self._weight()
        if weight is None:
            return
        shape = self.written.scale_shape(weight)
        if weight.attributes.get("block_size", 0):
            yield Obstacle(
                "per-channel-kernel",
                "weights have a scale for each block",
                f"{weight.name} has blocks of {weight.attributes['block_size']} values",
                "a scale for each output channel, or for the whole weight",
                cures.weight_per_channel,
            )
        elif shape and self.op.op_type in ("MatMul", "Gemm"):
            rank = self.written.rank(weight.inputs[0])
            wanted = 0 if self.op.op_type == "Gemm" and self.op.attributes.get("transB", 0) else rank - 1
            if self.written.axis(weight, rank) != wanted:
                yield Obstacle(
                    "per-channel-kernel",
                    "weights have a scale for each input channel, where the kernel takes one for each output channel",
                    f"the scales of {weight.name} lie along axis {self.written.axis(weight, rank)}, not {wanted}",
                    f"quantize weights along axis {wanted}, or per tensor",
                    cures.weight_per_channel,
                )

    def _operands(self) -> Iterator[Obstacle]:
        missing = [name for name in self.data if name not in self.before]
        if not missing:
            return
        weight = self.op.op_type in PRODUCTS and self.data[-1] in missing and self.data[-1] in self.written.fixed
        if self._weight() is not None:
            yield self._not_quantized(f"no QuantizeLinear and DequantizeLinear on {missing[0]}")
        elif weight or len(missing) == len(self.data):
            what = "its weight is a float constant" if weight else "no input of it is quantized"
            yield Obstacle(
                "fell-back",
                f"{self.op.op_type} was left in float beside integer ops",
                what,
                "quantize it too, or also leave the ops around it in float",
                cures.quantize_all,
            )
        else:
            kind = "constant" if missing[0] in self.written.fixed else "tensor"
            yield Obstacle(
                "unfused-input",
                f"one input of {self.op.op_type} is quantized and another is not",
                f"the {kind} {missing[0]} has no QuantizeLinear and DequantizeLinear",
                "quantize all inputs of the op",
                cures.quantize_all,
            )

    def _bias(self) -> Iterator[Obstacle]:
        bias = self.op.inputs[2] if self.op.op_type in ("Conv", "Gemm") and len(self.op.inputs) > 2 else ""
        conversion = self.written.dequantization(bias)
        if conversion is None:
            return
        kind = self.written.code_type(conversion)
        if kind == "int32" and self.op.op_type == "Conv" and self._misfit(conversion):
            yield Obstacle(
                "unfused-bias",
                "the scale of the bias is not that of the input times that of the weight",
                f"{conversion.name} differs by more than {_BIAS_TOLERANCE:.0%}, or has a zero point that is not 0",
                "quantize biases last, as int32 with that scale and zero point 0, or leave them in float",
                cures.float_bias,
            )
        if kind != "int32":
            yield Obstacle(
                "unfused-bias",
                f"biases are {kind}, where integer kernels take int32",
                f"{conversion.name} dequantizes {kind} codes",
                "int32 biases with the scale of the input times that of the weight, or float ones",
                cures.float_bias,
            )

    def _misfit(self, bias: Op) -> bool:
        """True if the scale of a bias is not what its integer product has, as far as all are constants."""
        around = [*(self.before.get(name) for name in self.data), bias]
        scales = [self.written.value(found.inputs[1]) for found in around if found is not None]
        zero = self.written.value((*bias.inputs, "")[2])
        if zero is not None and zero.any():
            return True
        if len(scales) < 3 or any(scale is None for scale in scales):
            return False
        first, weight, found = (np.asarray(scale, np.float64).reshape(-1) for scale in scales)
        wanted = first * weight
        return len(found) not in (1, len(wanted)) or not np.allclose(found, wanted, rtol=_BIAS_TOLERANCE, atol=0)

    def _result(self) -> Iterator[Obstacle]:
        op = self.op
        if self.activation is not None:
            yield self._activation_between(self.activation)
        elif not self.behind and op.op_type not in ("MatMul", "Gemm"):
            yield self._not_quantized(f"no QuantizeLinear reads its output {self.output}")
        elif self.behind and (self.output in self.written.outputs or len(self.readers) > 1):
            others = [reader.name for reader in self.readers if reader not in self.behind]
            who = others[0] if others else "the model's output" if self.output in self.written.outputs else "a second Q"
            yield Obstacle(
                "unfused-readers",
                "something else reads the output before it is quantized",
                f"{who} reads {self.output} too",
                "let all readers of the tensor read it behind its DequantizeLinear",
                cures.readers_behind_quantization,
            )
        elif op.op_type in _MOVING:
            differing = [q for q in self.behind for dq in self.before.values() if not self.written.same_codes(q, dq)]
            if differing:
                yield Obstacle(
                    "unfused-scale",
                    "the output has another scale or zero point than the input, where the op only moves codes",
                    f"{differing[0].name} differs from the DequantizeLinear in front",
                    "give the output the scale and zero point of the input",
                    cures.scale_of_input,
                )

    @staticmethod
    def _not_quantized(seen: str) -> Obstacle:
        return Obstacle(
            "unfused-no-output-q",
            "an activation before or behind quantized operands is not quantized",
            seen,
            "quantize the output of each quantized op too",
            cures.quantize_all,
        )

    def _activation_between(self, activation: Op) -> Obstacle:
        quantize = self.written.quantizations(activation.outputs[0])[0]
        if activation.op_type in _CLIPPING:
            kind, zero = self.written.code_type(quantize), self.written.value((*quantize.inputs, "")[2])
            return Obstacle(
                "unfused-activation",
                f"the quantization behind {activation.op_type} does not do its work",
                f"{quantize.name} has {kind} codes with zero point {'0' if zero is None else int(zero.reshape(-1)[0])},"
                f" which also stand for values that {activation.op_type} cuts off",
                "asymmetric activations: a range that begins and ends where the activation does, so that its lowest"
                " value is the lowest code",
                cures.range_of_activation,
            )
        return Obstacle(
            "unfused-activation",
            f"{activation.op_type} stands between the op and the quantization of its output",
            f"{activation.name} reads the real output",
            f"also quantize the input of {activation.op_type}",
            cures.quantize_output,
        )


def _listed(kinds: object) -> str:
    return " and ".join(dict.fromkeys(kinds))  # type: ignore[call-overload]
