"""Which tensor of the reference belongs to which tensor of the quantized model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from quantscope.graph import Graph, Op
from quantscope.qparams import QParams
from quantscope.quantized import EncodedTensor, FloatView

Role = Literal["activation", "weight", "bias"]

# Ops that only rearrange or repeat values: their output says nothing that their input did not.
_REARRANGING = frozenset(
    (
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Identity",
        "Dropout",
        "Cast",
        "Expand",
        "Tile",
    )
)
_SHAPE_OPS = frozenset(("Shape", "Size"))
# Activations that quantizers merge into the op before them: the range of the codes does their work.
_ABSORBABLE = frozenset(("Relu", "Clip"))


@dataclass(frozen=True)
class TensorPair:
    """A tensor of the reference and the one that stands for it in the quantized model.

    `quantized_name` is the tensor to read: integer codes if `codes`, real values else. With `qparams` it is
    quantized; without, it was left in float. `absorbed` is the type of an activation that became part of the op;
    `quantized_op` is the op's name in the quantized model.
    """

    op: Op
    role: Role
    reference_name: str
    quantized_name: str
    qparams: QParams | None = None
    codes: bool = False
    absorbed: str = ""
    quantized_op: str = ""


@dataclass(frozen=True)
class Pairing:
    """The pairs, in execution order, and why each other compute op of the reference has none."""

    pairs: tuple[TensorPair, ...]
    skipped: dict[str, str]
    compute_ops: int

    @property
    def coverage(self) -> float:
        """The share of the reference's compute ops that are paired, or absorbed into one that is; 1 without any."""
        missing = sum(1 for reason in self.skipped.values() if not reason.startswith(NOT_COMPUTE))
        return 1 - missing / self.compute_ops if self.compute_ops else 1.0


NOT_COMPUTE = "nothing to compare: "


def pair(reference: Graph, quantized: FloatView, observable: Iterable[str]) -> Pairing:
    """Pair tensors by name, after quantize and dequantize ops are stripped and fused activations absorbed.

    Args:
        reference: the float model's graph.
        quantized: the quantized model without its quantization.
        observable: tensors that can be read while the quantized model runs.
    """
    observable = frozenset(observable)
    pairs: list[TensorPair] = []
    skipped: dict[str, str] = {}
    paired_outputs: dict[str, TensorPair] = {}
    static = _static_tensors(reference)
    for op in reference.ops:
        reason = _not_compute(reference, op, static)
        if reason:
            skipped[op.name] = NOT_COMPUTE + reason
    for op in quantized.graph.ops:
        for name in op.outputs:
            found = _match(reference, quantized, op, name)
            if found is None:
                continue
            reference_name, absorbed = found
            producer = reference.producers[reference_name]
            # The user knows the op by the name of the compute op, not of the activation that was merged into it.
            named = reference.by_name.get(op.name) or producer
            if skipped.get(producer.name, "").startswith(NOT_COMPUTE):
                continue
            encoded = quantized.tensors[name]
            read = _readable(encoded, observable)
            if read is None:
                skipped[named.name] = "fused: the optimized graph does not compute this tensor"
                continue
            quantized_name, codes = read
            pair = TensorPair(
                named, "activation", reference_name, quantized_name, encoded.qparams, codes, absorbed, op.name
            )
            pairs.append(pair)
            paired_outputs[reference_name] = pair
    compute = [op for op in reference.ops if not skipped.get(op.name, "").startswith(NOT_COMPUTE)]
    covered = {p.op.name for p in pairs} | {reference.producers[p.reference_name].name for p in pairs}
    for op in compute:
        if op.name in covered:
            skipped.pop(op.name, None)
        elif op.name not in skipped:
            into = _absorbed_into(reference, op, paired_outputs)
            if into:
                covered.add(op.name)
                skipped[op.name] = NOT_COMPUTE + f"folded into {into}"
            else:
                skipped[op.name] = "no tensor of this name in the quantized model"
    return Pairing(tuple(pairs), skipped, len(compute))


def _not_compute(graph: Graph, op: Op, static: set[str]) -> str:
    """Why an op's output is not compared; "" if it is."""
    if op.op_type in _REARRANGING:
        return f"{op.op_type} only rearranges the values of its input"
    dtypes = {graph.tensor(name).dtype for name in op.outputs if name}
    if dtypes and all(dtype and not dtype.startswith(("float", "bfloat")) for dtype in dtypes):
        return f"its output is {', '.join(sorted(dtypes))}"
    if all(not name or name in static for name in op.outputs):
        return "its output does not depend on the values of the model's inputs"
    return ""


def _static_tensors(graph: Graph) -> set[str]:
    """Tensors that are the same for every sample, or depend on its shape alone."""
    static = set(graph.constants) | {""}
    for op in graph.ops:
        if op.op_type in _SHAPE_OPS or all(name in static for name in op.inputs):
            static.update(op.outputs)
    return static


def _match(reference: Graph, quantized: FloatView, op: Op, name: str) -> tuple[str, str] | None:
    """The reference's tensor for an output of an op, and the type of the activation that was absorbed, if one was."""
    if name not in reference.producers:
        return None
    consumers = reference.consumers.get(name, ())
    if len(consumers) == 1 and consumers[0].op_type in _ABSORBABLE and op.op_type not in _ABSORBABLE:
        activation = consumers[0]
        after = activation.outputs[0]
        gone = activation.name not in quantized.graph.by_name and after not in quantized.graph.producers
        if gone and name not in {t.name for t in reference.outputs}:
            return after, activation.op_type
    producer = reference.producers[name]
    absorbed = producer.op_type if producer.op_type in _ABSORBABLE and op.op_type not in _ABSORBABLE else ""
    return name, absorbed


def _readable(encoded: EncodedTensor, observable: frozenset[str]) -> tuple[str, bool] | None:
    """The tensor to read, and whether it holds codes: codes where there are some, for they cost least."""
    if encoded.codes and encoded.codes in observable:
        return encoded.codes, True
    if encoded.real and encoded.real in observable:
        return encoded.real, False
    return None


def _absorbed_into(reference: Graph, op: Op, paired: dict[str, TensorPair]) -> str:
    """The paired op that an op was folded into, as batch normalization is into a convolution; "" if there is none."""
    name = op.outputs[0] if len(op.outputs) == 1 else ""
    for _ in range(3):
        consumers = reference.consumers.get(name, ())
        if len(consumers) != 1:
            return ""
        name = consumers[0].outputs[0]
        if name in paired and paired[name].op.name in (op.name, consumers[0].name):
            return paired[name].op.name
    return ""
