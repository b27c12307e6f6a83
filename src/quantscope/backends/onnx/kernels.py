"""Which of a model's ops each kernel computes that ONNX Runtime really runs.

Optimization fuses ops, renames them, moves them into other layouts and adds some of its own. What still tells where a
kernel comes from are the tensors it writes and its name; ops that left no trace belong to the kernel that their values
flow into.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from quantscope.backends.base import KernelRole
from quantscope.graph import Graph, Op

_ROLES: Mapping[str, KernelRole] = {
    "QuantizeLinear": "quantize",
    "DynamicQuantizeLinear": "quantize",
    "DequantizeLinear": "dequantize",
    "ReorderInput": "layout",
    "ReorderOutput": "layout",
}
# What ONNX Runtime also adds by itself; where the model has such an op, it is the model's own work.
_ADDED = frozenset(("Transpose", "Cast", "Identity"))
# Marks that optimization leaves on the names of ops: a number, the layout in blocks of channels, a fusion.
_MARK = re.compile(r"(_token_\d+|#\d+|_nchwc|_nhwc|/MatMulAddFusion|_MatMulAddFusion|/GemmTransposeFusion)$")
_PREFIX = "fused "


@dataclass(frozen=True)
class Origin:
    """What a kernel is there for, and the ops of the model that it computes or, for a conversion, that it serves."""

    role: KernelRole
    ops: tuple[str, ...]


def origins(graph: Graph, deployed: Graph) -> dict[str, Origin]:
    """Return for each op of the deployed graph where in the model's graph it comes from.

    Args:
        graph: the model as it is written.
        deployed: the same after ONNX Runtime's optimization.
    """
    computing = {op.name for op in graph.ops if op.op_type not in _ROLES}
    traced = {kernel.name: _traced(graph, kernel) for kernel in deployed.ops}
    own = {kernel.name: [name for name in traced[kernel.name] if name in computing] for kernel in deployed.ops}
    roles = {kernel.name: _role(graph, kernel, own[kernel.name]) for kernel in deployed.ops}
    _claim_producers(graph, deployed, computing, traced, own, roles)
    _claim_fused(graph, deployed, own, roles)
    kernel_of = {name: k.name for k in deployed.ops if roles[k.name] == "compute" for name in own[k.name]}
    computes: dict[str, list[str]] = {name: [] for name in dict.fromkeys(kernel_of.values())}
    # Optimization does the work of ops on constants before anything runs.
    static = graph.static_tensors()
    into = graph.nearest(kernel_of)
    for op in graph.ops:
        if op.name in kernel_of or (op.name in computing and not static.issuperset(op.inputs) and op.name in into):
            computes[kernel_of[into[op.name]]].append(op.name)
    # A conversion is there for the op that needs it: real values for the one that reads them, codes for the one before.
    readers, writers = deployed.nearest(computes), deployed.nearest(computes, before=True)
    result = {}
    for kernel in deployed.ops:
        role = roles[kernel.name]
        beside = writers if role == "quantize" or kernel.op_type == "ReorderOutput" else readers
        ops = computes.get(kernel.name) or computes.get(beside.get(kernel.name, ""), [])
        result[kernel.name] = Origin(role, tuple(ops))
    return result


def _traced(graph: Graph, kernel: Op) -> list[str]:
    """The ops of the model that a kernel's outputs and name speak of."""
    found = [graph.producers[name].name for name in kernel.outputs if name in graph.producers]
    name = kernel.name.removeprefix(_PREFIX)
    while name:
        if name in graph.by_name:
            found.append(name)
            break
        if name in graph.producers:
            found.append(graph.producers[name].name)
            break
        shorter = _MARK.sub("", name)
        if shorter == name:
            break
        name = shorter
    return list(dict.fromkeys(found))


def _role(graph: Graph, kernel: Op, own: list[str]) -> KernelRole:
    role = _ROLES.get(kernel.op_type)
    if role is not None:
        return role
    if kernel.op_type in _ADDED and not any(graph.by_name[name].op_type == kernel.op_type for name in own):
        return "layout"
    return "compute"


def _claim_producers(
    graph: Graph,
    deployed: Graph,
    computing: set[str],
    traced: Mapping[str, list[str]],
    own: dict[str, list[str]],
    roles: Mapping[str, KernelRole],
) -> None:
    """A kernel that writes the codes of a quantization computes the op before it, unless another kernel does."""
    claimed = {name for kernel, names in own.items() if roles[kernel] == "compute" for name in names}
    before = graph.nearest(computing, before=True)
    for kernel in deployed.ops:
        if roles[kernel.name] == "compute" and not own[kernel.name]:
            names = [before[name] for name in traced[kernel.name] if name in before]
            own[kernel.name] = [name for name in dict.fromkeys(names) if name not in claimed]
            claimed.update(own[kernel.name])


def _claim_fused(graph: Graph, deployed: Graph, own: dict[str, list[str]], roles: Mapping[str, KernelRole]) -> None:
    """A convolution that adds a fourth input, or ends with an activation, computes those ops of the model too."""
    claimed = {name for kernel, names in own.items() if roles[kernel] == "compute" for name in names}
    for kernel in deployed.ops:
        if not kernel.op_type.endswith("Conv") or roles[kernel.name] != "compute" or not own[kernel.name]:
            continue
        wanted = ["Add"] if len(kernel.inputs) > 3 and kernel.inputs[3] else []
        wanted += [kernel.attributes["activation"]] if "activation" in kernel.attributes else []
        for op_type in wanted:
            last = graph.by_name[own[kernel.name][-1]]
            readers = [reader for name in last.outputs for reader in graph.consumers.get(name, ())]
            if len(readers) == 1 and readers[0].op_type == op_type and readers[0].name not in claimed:
                own[kernel.name].append(readers[0].name)
                claimed.add(readers[0].name)
