"""Ops that run in float although the file quantizes around them, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from quantscope.backends.base import Finding, Kernel, Model
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.slowness import cures
from quantscope.backends.onnx.slowness.integer_cures import uint8_activations
from quantscope.backends.onnx.slowness.obstacles import (
    Cure,
    Obstacle,
    activation_between,
    has_integer_kernel,
    obstacle,
)
from quantscope.backends.onnx.slowness.rewriting import Rewriting
from quantscope.backends.onnx.slowness.substitutes import SUBSTITUTES
from quantscope.backends.onnx.slowness.times import Times, on_codes, us
from quantscope.backends.onnx.slowness.written import PRODUCTS, QUANTIZE, Written
from quantscope.graph import Op

Made = Callable[[OnnxModel], Model]
"""Makes a model of the backend's of a changed file."""

# Measured with uint8 activations and int8 weights, with VNNI: docs/slowness.md.
_PRODUCT_GAIN = 3.5
# Optimization removes these, or lets another kernel do them: that it has a kernel in float says nothing of them.
_VANISHING = frozenset((
    "Cast", "Dropout", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze",
))  # fmt: skip
_CHANGING_TYPES = frozenset(("Cast", "CastLike"))
_NAMED = 3


@dataclass
class _Group:
    """Ops that the same thing keeps from an integer kernel."""

    obstacle: Obstacle
    ops: list[Op] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)


def unfused(written: Written, times: Times, made: Made) -> Iterator[Finding]:
    """A finding for each thing that keeps ops in float, with all ops that it keeps there."""
    groups: dict[tuple[str, str, Cure | None], _Group] = {}
    between: set[str] = set()
    for op in written.graph.ops:
        kernels = _in_float(written, times, op)
        found = _obstacle(written, op) if kernels and op.name not in between else None
        if found is not None:
            between.add(activation_between(written, op))
            group = groups.setdefault((found.rule, found.title, found.cure), _Group(found))
            group.ops.append(op)
            group.seen.append(f"{op.name}: {found.seen}")
    for group in groups.values():
        yield _finding(written, times, group, made)


def _in_float(written: Written, times: Times, op: Op) -> list[Kernel]:
    """The kernels that compute an op, if it is quantized in the file and none of them reads codes."""
    if not written.is_quantized(op):
        return []
    kernels = times.computing([op.name])
    if op.op_type in _VANISHING:
        kernels = [kernel for kernel in kernels if kernel.op_type == op.op_type]
    return [] if any(map(on_codes, kernels)) else kernels


def _obstacle(written: Written, op: Op) -> Obstacle | None:
    if op.op_type in _CHANGING_TYPES:
        return None
    if has_integer_kernel(written, op):
        return obstacle(written, op) or Obstacle(
            "unfused",
            f"{op.op_type} is quantized, but runs in float",
            "scales are constants, types and granularity are those of an integer kernel",
            "compare its quantization with that of an op of the same type that does run on codes",
        )
    instead = SUBSTITUTES.get(op.op_type)
    return Obstacle(
        "unfused-op-type",
        f"ONNX Runtime has no integer kernel for {op.op_type}"
        + (f' with mode "{op.attributes["mode"]}"' if op.op_type == "Resize" and "mode" in op.attributes else ""),
        f"it reads real values, {_conversions(written, op)}",
        "leave it in float together with the ops around it" + (f", or {instead.change}" if instead else ""),
        instead.cure if instead and _can_try(written, op) else None,
    )


def _can_try(written: Written, op: Op) -> bool:
    """True if an op has constants behind its first operand, and that is not float16."""
    return written.fixed.issuperset(op.inputs[1:]) and written.real_type((*op.inputs, "")[0]) == "float32"


def _conversions(written: Written, op: Op) -> str:
    before = sum(written.dequantization(name) is not None for name in op.inputs)
    behind = sum(len(written.quantizations(name)) for name in op.outputs)
    return f"with {before} DequantizeLinear before it and {behind} QuantizeLinear behind"


def _finding(written: Written, times: Times, group: _Group, made: Made) -> Finding:
    names = tuple(op.name for op in group.ops)
    computing, converting = times.computing(names), times.converting(names)
    products = [k for k in computing if any(written.graph.by_name[op].op_type in PRODUCTS for op in k.ops)]
    evidence = (
        f"{count(len(names), 'op')} in float: {us(computing):.0f} µs in {_types(computing)}, and"
        f" {us(converting):.0f} µs in {count(len(converting), 'conversion')}; {examples(group.seen)}"
    )
    cost = us(converting)
    cure, cured = group.obstacle.cure, names
    if group.obstacle.rule != "unfused-op-type":
        cost += us(products) * (1 - 1 / _PRODUCT_GAIN)
    elif cure is None and (needless := _needless(written, times, group.ops)):
        evidence += f"; {count(len(needless), 'pair')} of QuantizeLinear and DequantizeLinear only between float ops"
        cure, cured = cures.without_pair, tuple(needless)
    return Finding(
        group.obstacle.rule, names, f"{group.obstacle.title} ({count(len(names), 'op')})", evidence,
        group.obstacle.change, cost, cure and changed(written, cured, cure, made),
    )  # fmt: skip


def _needless(written: Written, times: Times, ops: Sequence[Op]) -> list[str]:
    """Each QuantizeLinear beside these ops whose codes no integer kernel writes or reads."""
    beside = {q.name: q for op in ops for name in op.outputs for q in written.quantizations(name)}
    for op in ops:
        for before in filter(None, map(written.dequantization, op.inputs)):
            writer = written.graph.producers.get(before.inputs[0])
            if writer is not None and writer.op_type == QUANTIZE:
                beside[writer.name] = writer
    return [name for name, quantize in beside.items() if not _serves_codes(written, times, quantize)]


def _serves_codes(written: Written, times: Times, quantize: Op) -> bool:
    graph = written.graph
    writer = graph.producers.get(quantize.inputs[0])
    readers = [r.name for pair in written.pair_behind(quantize) for r in graph.consumers.get(pair.outputs[0], ())]
    beside = [*readers, *([writer.name] if writer is not None else [])]
    return any(map(on_codes, times.computing(beside)))


def changed(written: Written, names: Sequence[str], cure: Cure, made: Made) -> Callable[[], Model]:
    """What makes the model with the cure of all these ops."""

    def change() -> Model:
        rewriting = Rewriting(written.model)
        for name in names:
            cure(rewriting, name)
            if cure is uint8_activations:
                # It turns them all.
                break
        return made(rewriting.finish())

    return change


def count(number: int, thing: str) -> str:
    """The number with the name of the thing, in the plural where it takes one."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _types(kernels: Sequence[Kernel]) -> str:
    return ", ".join(dict.fromkeys(kernel.op_type for kernel in kernels)) or "no kernel"


def examples(seen: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = len(seen) - _NAMED
    return "; ".join(seen[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
