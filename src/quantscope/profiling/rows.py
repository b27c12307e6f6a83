"""The table of ops: kernels of both models brought together under the reference's names.

A fused kernel has one time for several ops, and the other model may fuse others. So ops that either model runs in one
kernel share a row, and a row compares the same work on both sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from quantscope.backends.base import Kernel, Peak
from quantscope.graph import Graph
from quantscope.matching import Weights, match
from quantscope.profiling.document import AddedTiming, OpSide, OpTiming, Sums
from quantscope.quantized import FloatView


def reference_ops(
    reference: Graph, file: Graph, view: FloatView, reference_weights: Weights, weights: Weights
) -> dict[str, tuple[str, ...]]:
    """Return for each op of a quantized model the reference's ops whose work it does.

    Args:
        reference: the float model's graph.
        file: the quantized model's, with its quantization.
        view: the quantized model without it.
        reference_weights: by op.
        weights: those of the quantized model.
    """
    matching = match(reference, view.graph, reference_weights, weights)
    real = {name: tensor for tensor, encoded in view.tensors.items() for name in (encoded.codes, encoded.real) if name}
    known: dict[str, list[str]] = {}
    for op in file.ops:
        found = [matching.tensors[name] for out in op.outputs if (name := real.get(out, out)) in matching.tensors]
        names = [name for m in found for name in (m.op.name, reference.producers[m.tensor].name)]
        if not names and op.name in reference.by_name and reference.by_name[op.name].op_type == op.op_type:
            names = [op.name]
        if names:
            known[op.name] = list(dict.fromkeys(names))
    # What the two graphs do not show to be the same is part of what it flows into: a fused op, or a decomposed one.
    doing = {name: op for op, names in known.items() for name in names}
    for name, into in _flowing(reference, doing).items():
        known[doing[into]] = list(dict.fromkeys([*known[doing[into]], name]))
    nearest = file.nearest(known)
    return {op.name: tuple(known[nearest[op.name]]) for op in file.ops if op.name in nearest}


def _flowing(reference: Graph, known: Mapping[str, str]) -> dict[str, str]:
    """For each op of the reference that computes something and is not known, the known one that it flows into."""
    static = reference.static_tensors(with_shapes=True)
    rest = [op.name for op in reference.ops if op.name not in known and not static.issuperset(op.outputs)]
    nearest = reference.nearest(known)
    return {name: nearest[name] for name in rest if name in nearest}


def renamed(kernels: Iterable[Kernel], names: Mapping[str, tuple[str, ...]]) -> list[Kernel]:
    """The kernels with the reference's ops in the place of the quantized model's."""
    return [
        replace(kernel, ops=tuple(dict.fromkeys(name for op in kernel.ops for name in names.get(op, ()))))
        for kernel in kernels
    ]


def op_timings(
    reference: Graph,
    multiply_adds: Mapping[str, int],
    peak: Peak,
    kernels: Sequence[Kernel],
    quantized: Sequence[Kernel] | None,
) -> tuple[OpTiming, ...]:
    """Return a row for each op, or ops that run together, the slowest in the quantized model first.

    Args:
        reference: the float model's graph.
        multiply_adds: by the names of its ops.
        peak: what this processor can do.
        kernels: those of the reference.
        quantized: those of the quantized model, under the reference's names; None without one.
    """
    both = (kernels, quantized or ())
    rows = _together(reference, [kernel.ops for side in both for kernel in side if kernel.role == "compute"])
    row_of = {name: number for number, names in enumerate(rows) for name in names}
    found: tuple[dict[int, list[Kernel]], ...] = (defaultdict(list), defaultdict(list))
    for side, its in zip(found, both, strict=True):
        for kernel in its:
            if kernel.ops:
                side[row_of.setdefault(kernel.ops[0], len(row_of))].append(kernel)
    total = [sum(kernel.us for kernel in side) for side in both]
    timings = []
    for number, names in enumerate(rows):
        work = sum(multiply_adds.get(name, 0) for name in names)
        a, b = (_side(side[number], all_us, work, peak) for side, all_us in zip(found, total, strict=True))
        if a is None and b is None:
            continue
        main = max(names, key=lambda name: multiply_adds.get(name, 0))
        op = reference.by_name[main]
        speedup = a.total_us / b.total_us if a is not None and b is not None and b.total_us else None
        timings.append(OpTiming(main, op.op_type, op.scope, names, work, a, b, speedup))
    return tuple(sorted(timings, key=lambda t: _us(t.reference if quantized is None else t.quantized), reverse=True))


def _us(side: OpSide | None) -> float:
    return side.total_us if side is not None else 0.0


def _together(reference: Graph, fused: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """The reference's ops, those that are fused by anyone in one group, in execution order."""
    parent = {op.name: op.name for op in reference.ops}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for names in fused:
        for name in names[1:]:
            parent[root(name)] = root(names[0])
    groups: dict[str, list[str]] = defaultdict(list)
    for op in reference.ops:
        groups[root(op.name)].append(op.name)
    return [tuple(names) for names in groups.values()]


def _side(kernels: Sequence[Kernel], all_us: float, multiply_adds: int, peak: Peak) -> OpSide | None:
    if not kernels:
        return None
    computing = [kernel for kernel in kernels if kernel.role == "compute"]
    own, total = sum(k.us for k in computing), sum(k.us for k in kernels)
    heaviest = max(computing or kernels, key=lambda kernel: kernel.us)
    dtype = _dtype(heaviest)
    integer = "int8" in dtype
    possible = peak.int8_multiply_adds if integer else peak.float_multiply_adds
    moved = sum(kernel.bytes_moved for kernel in computing)
    on_cpu = sum(kernel.us for kernel in kernels if kernel.provider == "CPU")
    return OpSide(
        own,
        total - own,
        total,
        total / all_us if all_us else 0.0,
        on_cpu,
        total - on_cpu,
        sum(kernel.calls for kernel in kernels),
        len(kernels),
        dtype,
        moved,
        multiply_adds / (own * 1e-6) / possible if own and multiply_adds and possible else None,
        moved / (own * 1e-6) / peak.bytes_per_second if own and peak.bytes_per_second else None,
        tuple(kernels),
    )


def _dtype(kernel: Kernel) -> str:
    """The type of the first tensor it reads."""
    return kernel.inputs[0].partition("[")[0] if kernel.inputs else ""


def added_timings(kernels: Sequence[Kernel], quantized: Sequence[Kernel] | None) -> tuple[AddedTiming, ...]:
    """Return, by type, the kernels that change types or layouts and that neither model asked for, slowest first."""
    us: tuple[dict[str, float], ...] = (defaultdict(float), defaultdict(float))
    count: tuple[dict[str, int], ...] = (defaultdict(int), defaultdict(int))
    roles = {}
    for side, its in enumerate((kernels, quantized or ())):
        for kernel in its:
            if kernel.role != "compute":
                roles[kernel.op_type] = kernel.role
                us[side][kernel.op_type] += kernel.us
                count[side][kernel.op_type] += 1
    rows = [
        AddedTiming(op_type, role, us[0][op_type], us[1][op_type], count[0][op_type], count[1][op_type])
        for op_type, role in roles.items()
    ]
    return tuple(sorted(rows, key=lambda row: row.quantized_us + row.reference_us, reverse=True))


def sums(latency_us: float, profiled_us: float, kernels: Sequence[Kernel]) -> Sums:
    """How the kernels' times add up."""
    return Sums(latency_us, profiled_us, sum(kernel.us for kernel in kernels), attributed(kernels))


def attributed(kernels: Sequence[Kernel]) -> float:
    """The share of the kernels' time that has the names of ops; 1 without any time."""
    total = sum(kernel.us for kernel in kernels)
    return sum(kernel.us for kernel in kernels if kernel.ops) / total if total else 1.0
