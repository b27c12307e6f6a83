"""Puts the ops of a graph into nested groups that a picture can open and close, few enough on every level to be read.

Groups come from the ops' scopes, else from the names of their weights ("encoder.layer.3.weight"), else from the graph
alone: its execution order is cut where few tensors are in use.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import Literal

from quantscope.graph import Graph, Op
from quantscope.scopes import is_repeated_block

Source = Literal["scopes", "weights", "cuts", "none"]
Path = tuple[str, ...]

# More boxes than this on one level are not read but searched.
_MOST_CHILDREN = 32
_SMALLEST_BLOCK, _BLOCK, _LARGEST_BLOCK = 7, 14, 28
# A source that so many ops read over so large a part of the model, a mask for example, says nothing about blocks.
_FAR_SHARE, _FAR_READERS = 0.25, 4
_KNOWN_SHARE = 0.5
_CODES = frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"))
_NUMBERED = re.compile(r"(.*?)[._ -]?(\d+)")
# "block2a" of "block2a_expand_conv", "blocks_0" of "blocks_0__depthwise_conv": Keras' names have no deeper scopes.
_PART_OF_BLOCK = re.compile(
    # The 2 of conv2d is no number of a block.
    r"(?P<block>.*?[A-Za-z].*?(?<!\d)(?!\dd[._ -])\d+[a-z]?)[._ -]+(?P<rest>.*[A-Za-z].*)"
)
# What a block is for: these first.
_PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Attention", "LSTM", "GRU")


@dataclass(frozen=True)
class Grouping:
    """Groups as columns: `parents` and `group` are indices into `names`, −1 at the top; parents precede children.

    `group` and `labels` have an entry per op of the graph.
    """

    source: Source
    names: tuple[str, ...]
    parents: tuple[int, ...]
    group: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(eq=False)
class _Group:
    name: str
    children: list[_Group] = field(default_factory=list)
    ops: list[int] = field(default_factory=list)

    @property
    def first(self) -> int:
        """The earliest op inside: siblings are shown in this order."""
        return min([*self.ops[:1], *(child.first for child in self.children[:1])], default=-1)


def grouped(graph: Graph, wiring: Wiring | None = None) -> Grouping:
    """Return the groups of a graph's ops; `wiring` is the graph's own, if it is there already.

    A group of one op is that op, which takes its name; a group of one group is one group. Where a level has more than
    32 children, numbered ones are put together by number, and ops by cuts.
    """
    wiring = wiring or Wiring.of(graph)
    source, paths = _paths(graph, wiring)
    labels = [op.name.rpartition(";")[2].replace("::", "/").rpartition("/")[2] or op.op_type for op in graph.ops]
    root = _tree(paths)
    _fold(root, labels)
    if len(root.children) == 1:  # One closed box is no first view.
        only = root.children[0]
        root.children, root.ops = only.children, sorted([*root.ops, *only.ops])
    _divide(root, labels, graph, wiring)
    names: list[str] = []
    parents: list[int] = []
    group = [-1] * len(graph.ops)
    waiting = [(child, -1) for child in reversed(root.children)]
    while waiting:
        at, parent = waiting.pop()
        names.append(at.name)
        parents.append(parent)
        index = len(names) - 1
        for op in at.ops:
            group[op] = index
        waiting += [(child, index) for child in reversed(at.children)]
    return Grouping(source if names else "none", tuple(names), tuple(parents), tuple(group), tuple(labels))


@dataclass(frozen=True)
class Wiring:
    """A graph without the ops that only turn values into codes and back: each of them belongs to a real op.

    `reads` has for each real op the real ops it reads from; `owner` the real op of every op, itself or −1; `live` how
    many tensors are in use before each op.
    """

    real: tuple[int, ...]
    reads: Mapping[int, tuple[int, ...]]
    owner: tuple[int, ...]
    live: tuple[int, ...]

    @classmethod
    def of(cls, graph: Graph) -> Wiring:
        ops = graph.ops
        made = {name: i for i, op in enumerate(ops) for name in op.outputs if name}
        owner = [-1 if op.op_type in _CODES else i for i, op in enumerate(ops)]
        for i, op in enumerate(ops):  # Codes of a computed tensor belong to the op that computes it,
            if owner[i] < 0:
                owner[i] = next((owner[made[name]] for name in op.inputs[:1] if name in made), -1)
        for i in range(len(ops) - 1, -1, -1):  # and those of a constant or an input to the first op that reads it.
            for name in ops[i].inputs:
                producer = made.get(name, -1)
                if producer >= 0 and (owner[producer] < 0 or _from_outside(ops[producer], made)):
                    owner[producer] = owner[i]
        real = tuple(i for i, op in enumerate(ops) if op.op_type not in _CODES)
        sources = {i: dict.fromkeys(owner[made[name]] for name in ops[i].inputs if name in made) for i in real}
        reads = {i: tuple(source for source in found if source not in (-1, i)) for i, found in sources.items()}
        return cls(real, reads, tuple(owner), _live(real, reads, len(ops)))


def _from_outside(op: Op, made: Mapping[str, int]) -> bool:
    """True for codes of a constant or an input of the model."""
    return op.op_type in _CODES and all(name not in made for name in op.inputs[:1])


def _live(real: Sequence[int], reads: Mapping[int, tuple[int, ...]], count: int) -> tuple[int, ...]:
    last: dict[int, int] = {}
    readers: Counter[int] = Counter()
    for i in real:
        for producer in reads[i]:
            last[producer] = max(last.get(producer, -1), i)
            readers[producer] += 1
    change = [0] * (count + 2)
    for producer, end in last.items():
        far = end - producer > count * _FAR_SHARE and readers[producer] > _FAR_READERS
        if end > producer and not far:
            change[producer + 1] += 1
            change[end + 1] -= 1
    live: list[int] = []
    now = 0
    for position in range(count + 1):
        now += change[position]
        live.append(now)
    return tuple(live)


def _paths(graph: Graph, wiring: Wiring) -> tuple[Source, list[Path]]:
    """The names of the groups around each op, outermost first."""
    known: dict[int, Path] = {
        i: tuple(part for part in graph.ops[i].scope.split("/") if part)
        for i in wiring.real
        if not is_repeated_block(graph.ops[i].scope)
    }
    enough = _KNOWN_SHARE * len(wiring.real)
    if sum(map(bool, known.values())) > enough:
        return "scopes", _with_codes(graph, wiring, known)
    named = _named_by_weights(graph, wiring)
    # A name of one level tells weights apart, not modules.
    if sum(len(path) > 1 for path in named.values()) > enough:
        return "weights", _with_codes(graph, wiring, named)
    return "cuts", _with_codes(graph, wiring, _cut_paths(graph, wiring))


def _with_codes(graph: Graph, wiring: Wiring, known: Mapping[int, Path]) -> list[Path]:
    return [known.get(wiring.owner[i], ()) for i in range(len(graph.ops))]


def _named_by_weights(graph: Graph, wiring: Wiring) -> dict[int, Path]:
    """The modules that own the weights; an op without one is where the weights before and behind it are together."""
    own: dict[int, Path] = {}
    for i in wiring.real:
        for name in graph.ops[i].inputs:
            parts = tuple(name.split("."))
            if name in graph.constants and len(parts) > 1 and all(parts) and not parts[-1].isdigit():
                own[i] = parts[:-1]
                break
    before: dict[int, Path] = {}
    behind: dict[int, Path] = {}
    for i in wiring.real:
        found = own.get(i) or next((before[p] for p in reversed(wiring.reads[i]) if p in before), None)
        if found:
            before[i] = found
    for i in reversed(wiring.real):
        found = own.get(i) or behind.get(i)
        if found:
            for producer in wiring.reads[i]:
                behind[producer] = found
    result: dict[int, Path] = {}
    for i in wiring.real:
        around = [path for path in (before.get(i), behind.get(i)) if path]
        result[i] = own.get(i) or (_common(*around) if len(around) == 2 else around[0][:-1] if around else ())
    return result


def _common(a: Path, b: Path) -> Path:
    count = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:count]


def _cut_paths(graph: Graph, wiring: Wiring) -> dict[int, Path]:
    """Blocks of the execution order, in parts and parts of parts where there are many."""
    real = wiring.real
    if len(real) <= _MOST_CHILDREN:
        return {}
    levels: list[list[range]] = [_cut([wiring.live[i] for i in real])]
    while len(levels[-1]) > _MOST_CHILDREN:
        blocks = levels[-1]
        costs = [wiring.live[real[block.start]] for block in blocks]
        levels.append([range(blocks[part.start].start, blocks[part.stop - 1].stop) for part in _cut(costs)])
    result: dict[int, Path] = dict.fromkeys(real, ())
    for level in reversed(levels):
        kind = "block" if level is levels[0] else "part"
        for number, block in enumerate(level):
            label = f"{kind} {number} · {_main_ops(graph, [real[at] for at in block])}"
            for at in block:
                result[real[at]] = (*result[real[at]], label)
    return result


def _cut(costs: Sequence[int]) -> list[range]:
    """A sequence in blocks of 7 to 28, each ending where the next begins most cheaply; one block if it is short.

    Args:
        costs: what it costs to begin a block at each place.
    """
    blocks: list[range] = []
    start, count = 0, len(costs)
    while count - start > _LARGEST_BLOCK:
        ends = range(start + _SMALLEST_BLOCK, min(start + _LARGEST_BLOCK, count - _SMALLEST_BLOCK) + 1)
        end = min(ends, key=lambda at: (costs[at], abs(at - start - _BLOCK)))
        blocks.append(range(start, end))
        start = end
    return [*blocks, range(start, count)]


def _main_ops(graph: Graph, ops: Sequence[int]) -> str:
    counts = Counter(graph.ops[i].op_type for i in ops)
    ordered = [t for t in _PRODUCTS if t in counts] + [t for t, _ in counts.most_common() if t not in _PRODUCTS]
    return " ".join(f"{t}×{counts[t]}" if counts[t] > 1 else t for t in ordered[:2])


def _tree(paths: Sequence[Path]) -> _Group:
    root = _Group("")
    groups: dict[Path, _Group] = {(): root}

    def at(path: Path) -> _Group:
        if path not in groups:
            groups[path] = _Group(path[-1])
            at(path[:-1]).children.append(groups[path])
        return groups[path]

    for i, path in enumerate(paths):
        at(path).ops.append(i)
    return root


def _inside_out(root: _Group) -> Iterator[_Group]:
    """Every group, those inside before those around."""
    order: list[_Group] = []
    waiting = [root]
    while waiting:
        order.append(waiting.pop())
        waiting += order[-1].children
    return reversed(order)


def _fold(root: _Group, labels: list[str]) -> None:
    """Make groups of one op that op, and groups of one group one."""
    renamed: set[int] = set()
    for group in _inside_out(root):
        kept: list[_Group] = []
        for child in group.children:
            if not child.children and len(child.ops) == 1:
                op = child.ops[0]
                group.ops.append(op)
                labels[op] = f"{child.name}/{labels[op]}" if op in renamed else child.name
                renamed.add(op)
            elif len(child.children) == 1 and not child.ops:
                inner = child.children[0]
                kept.append(_Group(f"{child.name}/{inner.name}", inner.children, inner.ops))
            else:
                kept.append(child)
        group.children = kept
        group.ops.sort()


def _divide(root: _Group, labels: Sequence[str], graph: Graph, wiring: Wiring) -> None:
    """Leave no level with more children than can be read."""
    for group in _inside_out(root):
        many = len(group.children) + len(group.ops) > _MOST_CHILDREN
        for level in (*(_by_block(group, labels) if many else ()), group):
            _limit(level, graph, wiring)


def _limit(group: _Group, graph: Graph, wiring: Wiring) -> None:
    """Put children together by number, ops by cuts, if there are too many."""
    if len(group.children) + len(group.ops) > _MOST_CHILDREN:
        group.children = _by_number(group.children)
    if len(group.children) + len(group.ops) > _MOST_CHILDREN and len(group.ops) > _LARGEST_BLOCK:
        for block in _cut([wiring.live[i] for i in group.ops]):
            inside = [group.ops[at] for at in block]
            group.children.append(_Group(_main_ops(graph, inside), ops=inside))
        group.ops = []
    while len(group.children) > _MOST_CHILDREN:
        parts = [group.children[block.start : block.stop] for block in _cut([0] * len(group.children))]
        group.children = [_Group(f"{part[0].name} … {part[-1].name}", part) for part in parts]
    group.children.sort(key=lambda child: child.first)


def _by_block(group: _Group, labels: Sequence[str]) -> list[_Group]:
    """Put children and ops together whose names begin with the same numbered blocks; returns the new groups, those
    inside first.
    """
    made: dict[Path, _Group] = {(): group}

    def at(path: Path) -> _Group:
        if path not in made:
            parent = at(path[:-1])
            made[path] = _Group(path[-1])
            parent.children.append(made[path])
        return made[path]

    children, ops = group.children, group.ops
    group.children, group.ops = [], []
    for child in children:
        at(_blocks(child.name)).children.append(child)
    for op in ops:
        at(_blocks(labels[op])).ops.append(op)
    kept = []
    for path in sorted(made, key=len, reverse=True)[:-1]:
        block, parent = made[path], made[path[:-1]]
        if len(block.children) + len(block.ops) > 1:
            kept.append(block)
            continue
        parent.children = [child for child in parent.children if child is not block] + block.children
        parent.ops = sorted([*parent.ops, *block.ops])
    return kept


def _blocks(name: str) -> Path:
    """The numbered blocks that a name begins with: conv2 and block1 of conv2_block1_1_conv."""
    found: list[str] = []
    while part := _PART_OF_BLOCK.fullmatch(name):
        found.append(part["block"])
        name = part["rest"]
    return tuple(found)


def _by_number(groups: Sequence[_Group]) -> list[_Group]:
    """Groups called layers.0, layers.1 and so on in groups of their own, about as many as each then holds."""
    numbered: dict[str, list[tuple[int, _Group]]] = {}
    for group in groups:
        found = _NUMBERED.fullmatch(group.name)
        if found:
            numbered.setdefault(found[1], []).append((int(found[2]), group))
    result = list(groups)
    for name, members in numbered.items():
        if len(members) <= _BLOCK:
            continue
        members.sort(key=lambda member: member[0])
        size = ceil(sqrt(len(members)))
        parts = [members[start : start + size] for start in range(0, len(members), size)]
        chosen = {id(group) for _, group in members}
        result = [group for group in result if id(group) not in chosen]
        result += [_Group(f"{name} {part[0][0]}–{part[-1][0]}".strip(), [g for _, g in part]) for part in parts]
    return result
