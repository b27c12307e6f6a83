"""Which tensor of the reference belongs to which tensor of the quantized model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quantscope.graph import Graph, Op
from quantscope.matching import How, Weights, family, match
from quantscope.qparams import QParams
from quantscope.quantized import EncodedTensor, FloatView, RescaledQParams

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


@dataclass(frozen=True)
class TensorPair:
    """A tensor of the reference and the one that stands for it in the quantized model.

    `quantized_name` is the tensor to read: integer codes if `codes`, real values else. With `qparams` it is
    quantized; without, it was left in float. `absorbed` is the type of an activation that became part of the op;
    `quantized_op` is the op's name in the quantized model, and `how` says what told that the two belong together;
    `view_name` is the tensor's name in the float view. `factors` are those that its channels were multiplied by when
    the model was equalized, in a form that broadcasts against the reference's tensor; `qparams` are in the reference's
    unit all the same.
    """

    op: Op
    role: Role
    reference_name: str
    quantized_name: str
    qparams: QParams | None = None
    codes: bool = False
    absorbed: str = ""
    quantized_op: str = ""
    how: How = "name"
    view_name: str = ""
    factors: NDArray[Any] | None = field(default=None, compare=False, repr=False)

    def real(self, values: NDArray[Any]) -> NDArray[Any]:
        """The real values, in the reference's unit, of what was read under `quantized_name`."""
        if self.codes and self.qparams is not None:
            return self.qparams.dequantize(values)
        return values if self.factors is None else values / self.factors

    def rescaled(self, values: NDArray[Any]) -> NDArray[Any]:
        """The reference's values in the quantized model's unit, which what was read there follows."""
        return values if self.factors is None else values * self.factors


@dataclass(frozen=True)
class Pairing:
    """The pairs, in execution order, and why each other compute op of the reference has none."""

    pairs: tuple[TensorPair, ...]
    skipped: dict[str, str]
    compute_ops: int


def coverage(skipped: Mapping[str, str], compute_ops: int) -> float:
    """The share of the reference's compute ops that are paired, or folded into one that is; 1 without any.

    Args:
        skipped: the reason for each op that has no row.
        compute_ops: how many ops compute something from the values of the model's inputs.
    """
    missing = sum(1 for reason in skipped.values() if not reason.startswith(NOT_COMPUTE))
    return 1 - missing / compute_ops if compute_ops else 1.0


NOT_COMPUTE = "nothing to compare: "


def pair(reference: Graph, quantized: FloatView, reference_weights: Weights, quantized_weights: Weights) -> Pairing:
    """Pair tensors by names, weights and structure, after quantize and dequantize ops are stripped.

    Args:
        reference: the float model's graph.
        quantized: the quantized model as it runs, without its quantization.
        reference_weights: by op.
        quantized_weights: by op, in real values.
    """
    matching = match(reference, quantized.graph, reference_weights, quantized_weights)
    static = reference.static_tensors(with_shapes=True)
    skipped = {op.name: NOT_COMPUTE + reason for op in reference.ops if (reason := _not_compute(reference, op, static))}
    # Whether the model that was equalized names its tensors as the reference does.
    alike = all(name in reference.producers for name in quantized.factors)
    pairs: list[TensorPair] = []
    covered: set[str] = set()
    for op in quantized.graph.ops:
        for name in op.outputs:
            found = matching.tensors.get(name)
            if found is None or reference.producers[found.tensor].name in skipped:
                continue
            encoded = quantized.tensors[name]
            read, codes = _readable(encoded)
            if not read:
                skipped[found.op.name] = (
                    "the quantized model keeps this tensor in blocks of channels, which cannot be read"
                )
                continue
            # An optimizer renames tensors, and moves their axes: by the reference's name they lie as the factors do.
            factors, qparams = quantized.factors.get(found.tensor), encoded.qparams
            if not _factors_are_known(reference, quantized, found.tensor, name, alike):
                skipped[found.op.name] = (
                    "its channels may be equalized, and the reference names tensors otherwise than the model that was"
                )
                continue
            if factors is not None and qparams is not None:
                qparams = RescaledQParams.of(qparams, (factors,))
            pairs.append(
                TensorPair(
                    found.op,
                    "activation",
                    found.tensor,
                    read,
                    qparams,
                    codes,
                    found.absorbed,
                    op.name,
                    found.how,
                    name,
                    factors,
                )
            )
            covered |= {found.op.name, reference.producers[found.tensor].name}
    compute = [op for op in reference.ops if op.name not in skipped]
    kinds = {family(op.op_type) for op in quantized.graph.ops}
    for op in compute:
        into = matching.folded.get(op.name)
        if op.name in covered:
            skipped.pop(op.name, None)
            continue
        if op.name in skipped:
            continue
        if into in covered:
            skipped[op.name] = NOT_COMPUTE + f"folded into {into}"
        elif family(op.op_type) not in kinds:
            skipped[op.name] = f"the quantized model, as it runs, has no {op.op_type}: it was fused or removed"
        else:
            skipped[op.name] = f"no single {op.op_type} of the quantized model, as it runs, takes its place"
    return Pairing(tuple(pairs), skipped, len(compute))


def _factors_are_known(reference: Graph, quantized: FloatView, tensor: str, name: str, alike: bool) -> bool:
    """True if a pair has the factors that stand under the reference's name, or none if none do.

    Where the two models do not name tensors alike, nothing is known of those that an optimizer renamed.
    """
    factors, own = quantized.factors.get(tensor), quantized.factors.get(name)
    if factors is None:
        plain = tensor == name or any(tensor == output.name for output in reference.outputs)
        return own is None and (plain or alike)
    shape = reference.tensor(tensor).shape
    if shape is not None:
        channels = shape[-factors.ndim] if len(shape) >= factors.ndim else 0
        if isinstance(channels, int) and channels != len(factors):
            return False
    if own is None:
        return alike and tensor not in quantized.tensors
    return np.array_equal(own.reshape(-1), factors.reshape(-1))


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


def _readable(encoded: EncodedTensor) -> tuple[str, bool]:
    """The tensor to read, and whether it holds codes: codes where there are some, for they cost least."""
    return (encoded.codes, True) if encoded.codes else (encoded.real, False)
