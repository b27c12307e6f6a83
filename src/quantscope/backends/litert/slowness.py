"""Why a quantized model is not faster: ops in float between integer ones, and ops that XNNPACK does not run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantscope.backends.base import Finding, Kernel
from quantscope.backends.litert import schema
from quantscope.backends.litert.assignment import supported
from quantscope.backends.litert.handle import Handle
from quantscope.backends.litert.structure import DEQUANTIZE, QUANTIZE, Structure

_NAMED = 3
# Below, nobody would see the gain.
_LEAST_SHARE = 0.002


def findings(handle: Handle, kernels: Sequence[Kernel]) -> list[Finding]:
    """Return what slows the model down, the most costly first.

    Args:
        handle: the quantized model.
        kernels: what `profile` says of its ops, with times.
    """
    structure = handle.structure
    times = {kernel.name: kernel for kernel in kernels}
    total = sum(kernel.us for kernel in kernels)
    found = [*_in_float(structure, times, total), *_rescaling(structure, times), *_not_delegated(kernels, total)]
    worth = [finding for finding in found if finding.cost_us >= _LEAST_SHARE * total]
    return sorted(worth, key=lambda finding: -finding.cost_us)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _share(us: float, total: float) -> str:
    return f"{us:.0f} µs of {total:.0f}" if total else f"{us:.0f} µs"


def _in_float(structure: Structure, times: dict[str, Kernel], total: float) -> Iterator[Finding]:
    """Ops in float that read what was dequantized for them, and whose output is quantized again."""
    for region in _regions(structure):
        around = [at for at in range(len(structure.operators)) if _touches(structure, at, region)]
        names = [structure.op_names[at] for at in region]
        conversions = [structure.op_names[at] for at in around]
        kinds = {structure.native[at] for at in around}
        if kinds != {QUANTIZE, DEQUANTIZE}:
            continue
        cost = sum(times[name].us for name in conversions if name in times)
        types = list(dict.fromkeys(structure.native[at] for at in region))
        unknown = [kind for kind in types if kind not in supported(8, 8)]
        yield Finding(
            "float-between-integers",
            tuple(names),
            f"{_listed(names)}: in float between integer ops",
            f"{len(conversions)} conversions from codes and back around {_listed(types)} take {_share(cost, total)}",
            f"write the model without {_listed(unknown)}, which LiteRT's quantizer has no integer form for"
            if unknown
            else "quantize these ops too, or leave their neighbours in float",
            cost,
        )


def _regions(structure: Structure) -> list[list[int]]:
    """Ops in float that are connected, by position."""
    floats = [
        at
        for at, native in enumerate(structure.native)
        if native not in (QUANTIZE, DEQUANTIZE) and not any(structure.is_codes(i) for i in _ends(structure, at))
        and any(structure.dtype(i) == "float32" for i in _ends(structure, at))
    ]  # fmt: skip
    group: dict[int, int] = {}
    members: dict[int, list[int]] = {}
    owner: dict[int, int] = {}
    for at in floats:
        group[at] = at
        members[at] = [at]
        for i in _ends(structure, at):
            if i in structure.constants or structure.dtype(i) != "float32":
                continue
            other = owner.setdefault(i, at)
            first, second = group[other], group[at]
            if first != second:
                members[first] += members.pop(second)
                group |= dict.fromkeys(members[first], first)
    return [sorted(region) for region in members.values()]


def _ends(structure: Structure, at: int) -> list[int]:
    op = structure.operators[at]
    return [i for i in (*schema.indices(op.inputs), *schema.indices(op.outputs)) if i >= 0]


def _touches(structure: Structure, at: int, region: Sequence[int]) -> bool:
    """True for a conversion whose real values an op of the region reads or writes."""
    native, op = structure.native[at], structure.operators[at]
    if native not in (QUANTIZE, DEQUANTIZE) or int(op.inputs[0]) in structure.constants:
        return False
    real = int(op.inputs[0]) if native == QUANTIZE else int(op.outputs[0])
    return structure.dtype(real) == "float32" and any(real in _ends(structure, other) for other in region)


def _rescaling(structure: Structure, times: dict[str, Kernel]) -> Iterator[Finding]:
    """Codes that are brought to another scale between two integer ops."""
    found = [
        structure.op_names[at]
        for at, native in enumerate(structure.native)
        if native == QUANTIZE and structure.is_codes(int(structure.operators[at].inputs[0]))
    ]
    if found:
        cost = sum(times[name].us for name in found if name in times)
        served = tuple(dict.fromkeys(op for name in found if name in times for op in times[name].ops))
        yield Finding(
            "rescaled-codes",
            served,
            f"codes are brought to another scale {len(found)} times",
            f"{_listed(found)}: {cost:.0f} µs",
            "give the ops that read one tensor the same scale: what joins tensors (Concat) sets it for all of them",
            cost,
        )


def _not_delegated(kernels: Sequence[Kernel], total: float) -> Iterator[Finding]:
    """Ops that LiteRT runs by its own kernels, which are mostly slower than XNNPACK's."""
    mark = " (not XNNPACK's)"
    by_type: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        if kernel.op_type.endswith(mark) and kernel.role == "compute":
            by_type.setdefault(kernel.op_type.removesuffix(mark), []).append(kernel)
    for native, found in by_type.items():
        cost = sum(kernel.us for kernel in found)
        inputs = list(dict.fromkeys(kernel.inputs[0] for kernel in found if kernel.inputs))
        yield Finding(
            "not-delegated",
            tuple(op for kernel in found for op in kernel.ops),
            f"XNNPACK does not run {len(found)} {native}",
            f"LiteRT's own kernels take {_share(cost, total)}, for {_listed(inputs)}",
            "XNNPACK takes most ops of fixed shape with few operands, in float and int8: give it such, or another op",
            cost,
        )
