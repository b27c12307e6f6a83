"""What is left in float or quantized as one: an op, or all ops of a module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from quantscope.graph import Graph
from quantscope.pairing import TensorPair

By = Literal["op", "scope"]
# So many modules at most: more would be no overview.
MOST_GROUPS = 60
# Ops outside any module are taken together in runs of so many.
_LOOSE = 8


@dataclass(frozen=True)
class Group:
    """Ops that are measured as one; `tensors` are those that they write, `leaving` those that are read elsewhere.

    `tensors` and `leaving` have the reference's names, in execution order.
    """

    name: str
    op_type: str
    scope: str
    ops: tuple[str, ...]
    tensors: tuple[str, ...]
    leaving: tuple[str, ...]


def groups(graph: Graph, pairs: Sequence[TensorPair], by: By) -> list[Group]:
    """The groups of the paired tensors, in execution order, each tensor in one group.

    Args:
        graph: the reference's.
        pairs: in execution order.
        by: "op", or "scope": modules of the deepest level that has at most 60 of them, and two ops in each on average.
    """
    names = _by_op(pairs) if by == "op" else _by_scope(pairs)
    members: dict[str, list[TensorPair]] = {}
    for pair in pairs:
        members.setdefault(names[pair.reference_name], []).append(pair)
    read_elsewhere = _leaving(graph, names)
    found = []
    for name, own in members.items():
        ops = tuple(dict.fromkeys(pair.op.name for pair in own))
        tensors = tuple(pair.reference_name for pair in own)
        first = own[0].op
        found.append(
            Group(
                ops[0] if len(ops) == 1 else name,
                first.op_type if len(ops) == 1 else f"{len(ops)} ops",
                first.scope if by == "op" else name,
                ops,
                tensors,
                tuple(tensor for tensor in tensors if tensor in read_elsewhere),
            )
        )
    return [group for group in found if group.leaving]


def _by_op(pairs: Iterable[TensorPair]) -> dict[str, str]:
    return {pair.reference_name: pair.op.name for pair in pairs}


def _by_scope(pairs: Sequence[TensorPair]) -> dict[str, str]:
    """By tensor its module, cut at the deepest level that has few enough of them."""
    scopes = _loose_named(pairs)
    # Modules of one op or two are no overview of it.
    most = min(MOST_GROUPS, max(len({pair.op.name for pair in pairs}) // 2, 2))
    found = {name: scope[0] for name, scope in scopes.items()}
    for depth in range(2, max(map(len, scopes.values()), default=0) + 1):
        deeper = {name: "/".join(scope[:depth]) for name, scope in scopes.items()}
        if len(set(deeper.values())) > most:
            break
        found = deeper
    return found


def _loose_named(pairs: Sequence[TensorPair]) -> dict[str, tuple[str, ...]]:
    """By tensor its module in parts; runs of ops outside any module are named by their first and last one."""
    found: dict[str, tuple[str, ...]] = {}
    loose: list[TensorPair] = []

    def flush() -> None:
        for pair in loose:
            ends = dict.fromkeys((loose[0].op.name, loose[-1].op.name))
            found[pair.reference_name] = (" … ".join(ends),)
        loose.clear()

    for pair in pairs:
        if pair.op.scope:
            flush()
            found[pair.reference_name] = tuple(pair.op.scope.split("/"))
        else:
            loose.append(pair)
            if len(loose) == _LOOSE:
                flush()
    flush()
    return found


def _leaving(graph: Graph, names: Mapping[str, str]) -> set[str]:
    """The tensors that another group, or the model's outputs, are computed from without another tensor in between."""
    found = {before for name in names for before in graph.nearest_before(name, names) if names[before] != names[name]}
    for output in graph.outputs:
        found |= {output.name} if output.name in names else set(graph.nearest_before(output.name, names))
    return found


def chained(graph: Graph, group: Group) -> bool:
    """True if one of the tensors that leave the group is computed from another one of them inside it."""
    inside = frozenset(group.tensors)
    for tensor in group.leaving if len(group.leaving) > 1 else ():
        waiting, seen = [tensor], {tensor}
        while waiting:
            for before in graph.nearest_before(waiting.pop(), inside):
                if before in group.leaving:
                    return True
                if before not in seen:
                    seen.add(before)
                    waiting.append(before)
    return False
