"""Which tensor of one graph equals which of another: by names, by weights, and by how the ops are connected.

The two graphs compute the same function, but one was rewritten: tensors renamed, batch normalization folded,
activations absorbed, whole subgraphs fused. What is certain (a name, a weight that occurs once) comes first; from there
equality spreads along the edges, and only where there is a single candidate on both sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quantscope.graph import Graph, Op
from quantscope.quantized import Weight

How = Literal["name", "weights", "structure"]
Weights = Mapping[str, Sequence[Weight]]
"""The weights of each op, by its name."""

# Ops under another name, as optimizers and quantizers write them.
_FAMILIES = {
    "FusedConv": "Conv", "NhwcFusedConv": "Conv", "Gemm": "MatMul", "FusedGemm": "MatMul", "FusedMatMul": "MatMul",
    "TransposeMatMul": "MatMul", "BiasGelu": "Gelu", "FastGelu": "Gelu", "QuickGelu": "Gelu",
    # A Relu is a Clip without an upper end.
    "Relu": "Clip",
}  # fmt: skip
_COMMUTATIVE = frozenset(("Add", "Mul", "Max", "Min", "Sum", "Mean"))
_PRODUCTS = frozenset(("Conv", "ConvTranspose", "MatMul"))
# Ops that give back what they were given, or the same values in another order, which optimizers move about: both graphs
# are read as if they were not there. The order is found in the values, when there are some.
_TRANSPARENT = frozenset(("Identity", "Dropout", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"))
# Activations that become part of the op before them: the range of its codes, or an attribute, does their work.
_ACTIVATIONS = frozenset(("Relu", "Clip", "LeakyRelu", "HardSwish"))
_LONGEST_CHAIN = 6
# Two weights are the same if their channels point the same way: scaling a channel, as folding does, changes nothing.
_SAME_DIRECTION = 0.9
_COMPARED_VALUES = 1 << 16


def family(op_type: str) -> str:
    """The op type under which an op is looked for: Conv for a FusedConv."""
    return _FAMILIES.get(op_type, op_type)


@dataclass(frozen=True)
class Match:
    """A tensor of the reference, its compute op there, and what told so; `absorbed` names activations merged in."""

    tensor: str
    op: Op
    how: How
    absorbed: str = ""


@dataclass
class Matching:
    """By tensor of the rewritten graph: what it equals; and by op of the reference: which op it was folded into."""

    tensors: dict[str, Match] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)


def match(reference: Graph, rewritten: Graph, reference_weights: Weights, rewritten_weights: Weights) -> Matching:
    """Return which tensors of the rewritten graph equal which of the reference."""
    matcher = _Matcher(_Side(reference), _Side(rewritten))
    matcher.by_ends()
    matcher.by_name()
    matcher.by_weights(reference_weights, rewritten_weights)
    matcher.spread()
    return matcher.result()


class _Side:
    """A graph with transparent ops taken out."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._same: dict[str, str] = {}
        self._fixed = set(graph.constants)
        self.ops: list[Op] = []
        for op in graph.ops:
            # What is computed from constants alone is one: rewriters fold it.
            if all(not name or name in self._fixed for name in op.inputs):
                self._fixed.update(op.outputs)
            if op.op_type in _TRANSPARENT and op.inputs and op.inputs[0] not in self._fixed:
                self._same[op.outputs[0]] = self.tensor(op.inputs[0])
            else:
                self.ops.append(op)
        self.producer: dict[str, Op] = {name: op for op in self.ops for name in op.outputs if name}
        self.consumers: dict[str, list[tuple[Op, int]]] = defaultdict(list)
        for op in self.ops:
            for slot, name in enumerate(op.inputs):
                if name:
                    self.consumers[self.tensor(name)].append((op, slot))
        self.outputs = {self.tensor(t.name) for t in graph.outputs}

    def tensor(self, name: str) -> str:
        """The tensor that this one equals after transparent ops."""
        return self._same.get(name, name)

    def data_inputs(self, op: Op) -> list[str]:
        """The inputs of an op that are computed from the model's inputs."""
        return [self.tensor(n) for n in op.inputs if n and self.tensor(n) not in self._fixed]

    def chain(self, op: Op) -> list[Op]:
        """The op and those behind it that a rewriter may have merged into it, in a line without branches."""
        result = [op]
        while len(result) < _LONGEST_CHAIN:
            name = result[-1].outputs[0] if result[-1].outputs else ""
            users = self.consumers.get(name, [])
            if len(users) != 1 or name in self.outputs or not self._absorbable(users[0][0], family(op.op_type)):
                return result
            result.append(users[0][0])
        return result

    def _absorbable(self, op: Op, into: str) -> bool:
        if op.op_type in _ACTIVATIONS:
            return len(self.data_inputs(op)) == 1
        scaling = op.op_type == "BatchNormalization" or (
            op.op_type in ("Add", "Sub", "Mul", "Div") and len(self.data_inputs(op)) == 1
        )
        return scaling and into in _PRODUCTS


class _Matcher:
    def __init__(self, reference: _Side, rewritten: _Side) -> None:
        self.x = reference
        self.y = rewritten
        self.equal: dict[str, tuple[str, How]] = {}  # rewritten tensor → reference tensor
        self.reverse: dict[str, str] = {}
        self.ops: dict[str, Op] = {}  # rewritten op → reference op
        self.taken: dict[str, Op] = {}  # reference op → rewritten op
        self.heads: dict[str, Op] = {}  # rewritten op that belongs to another one → that one
        self._fresh: list[tuple[str, str]] = []

    # ------------------------------------------------------------------ what is certain

    def by_ends(self) -> None:
        """The model's own inputs and outputs, by name, else by position."""
        for ours, theirs in ((self.x.graph.inputs, self.y.graph.inputs), (self.x.graph.outputs, self.y.graph.outputs)):
            names = {t.name for t in ours}
            for position, tensor in enumerate(theirs):
                if tensor.name in names:
                    self.equate(self.x.tensor(tensor.name), self.y.tensor(tensor.name), "name")
                elif len(ours) == len(theirs):
                    other = ours[position].name
                    self.equate(self.x.tensor(other), self.y.tensor(tensor.name), "structure")

    def by_name(self) -> None:
        """Ops and tensors that kept their names, unless the two disagree."""
        names = self.x.graph.by_name
        for op in self.y.ops:
            own = names.get(op.name)
            own = own if own is not None and family(own.op_type) == family(op.op_type) else None
            for position, tensor in enumerate(op.outputs):
                producer = self.x.producer.get(tensor)
                if producer is None:
                    continue
                behind = next((o for o in self._back(producer) if family(o.op_type) == family(op.op_type)), None)
                if own is not None and behind is not None and own is not behind:
                    own = None
                    continue
                own = own or behind
                if behind is None or position:
                    # Fused into an op of another kind, whose output kept its name; or a further output of its own.
                    self.equate(tensor, tensor, "name")
            if own is not None:
                self.pair(own, op, "name")

    def by_weights(self, reference: Weights, rewritten: Weights) -> None:
        """Ops whose weight occurs once in each graph."""
        ours = _prints(self.x, reference, {op.name for op in self.x.ops} - set(self.taken))
        theirs = _prints(self.y, rewritten, {op.name for op in self.y.ops} - set(self.ops))
        for key, prints in theirs.items():
            candidates = ours.get(key, [])
            nearest = {}
            for op, print_ in prints:
                near = [other for other, p in candidates if _likeness(p, print_) > _SAME_DIRECTION]
                if len(near) == 1:
                    nearest[op.name] = near[0]
            chosen = [op.name for op in nearest.values()]
            for op, _ in prints:
                other = nearest.get(op.name)
                if other is not None and chosen.count(other.name) == 1:
                    self.pair(other, op, "weights")

    def _back(self, op: Op) -> Iterator[Op]:
        """The op and those before it that it may have been merged into."""
        for _ in range(_LONGEST_CHAIN):
            yield op
            data = self.x.data_inputs(op)
            before = self.x.producer.get(data[0]) if len(data) == 1 else None
            if before is None or op not in self.x.chain(before):
                return
            op = before

    # ------------------------------------------------------------------ what follows

    def equate(self, reference: str, rewritten: str, how: How) -> None:
        """Note that two tensors are equal, unless one of them is known to equal another."""
        if rewritten in self.equal or reference in self.reverse:
            return
        self.equal[rewritten] = reference, how
        self.reverse[reference] = rewritten
        self._fresh.append((reference, rewritten))

    def pair(self, reference: Op, rewritten: Op, how: How) -> None:
        """Note that two ops are the same, and which of their inputs and outputs therefore are."""
        if rewritten.name in self.ops or reference.name in self.taken:
            return
        self.ops[rewritten.name] = reference
        self.taken[reference.name] = rewritten
        self._equate_outputs(reference, rewritten, how)
        self._equate_inputs(reference, rewritten, how)

    def _equate_outputs(self, reference: Op, rewritten: Op, how: How) -> None:
        if len(reference.outputs) > 1 and len(reference.outputs) == len(rewritten.outputs):
            for a, b in zip(reference.outputs, rewritten.outputs, strict=True):
                self.equate(a, b, how)
            return
        ours, theirs = self.x.chain(reference), self.y.chain(rewritten)
        # What follows in the rewritten graph was not merged, even where a branch ends the chain.
        followers = {family(op.op_type) for op, _ in self.y.consumers.get(theirs[-1].outputs[0], [])}
        aligned = _aligned(ours, theirs)
        last = aligned[-1][0]
        rest = next((i for i in range(last + 1, len(ours)) if family(ours[i].op_type) in followers), len(ours))
        for (i, j), (next_i, next_j) in zip(aligned, [*aligned[1:], (rest, len(theirs))], strict=True):
            self.equate(ours[next_i - 1].outputs[0], theirs[next_j - 1].outputs[0], how)
            if i:
                self.ops.setdefault(theirs[j].name, ours[i])
                self.taken.setdefault(ours[i].name, theirs[j])
            # What follows up to the next common op, such as a bias that is added apart, belongs to this one.
            for op in theirs[j + 1 : next_j]:
                self.ops.setdefault(op.name, ours[i])
                self.heads.setdefault(op.name, theirs[j])

    def _equate_inputs(self, reference: Op, rewritten: Op, how: How) -> None:
        ours, theirs = self.x.data_inputs(reference), self.y.data_inputs(rewritten)
        if family(reference.op_type) in _COMMUTATIVE and len(ours) == len(theirs) == 2:
            known = [(a, b) for b in theirs for a in ours if self.equal.get(b, ("",))[0] == a]
            if len(known) == 1:
                a, b = known[0]
                self.equate(ours[1 - ours.index(a)], theirs[1 - theirs.index(b)], how)
            return
        if len(ours) == len(theirs):
            for a, b in zip(ours, theirs, strict=True):
                self.equate(a, b, how)

    def spread(self) -> None:
        """Follow the edges from every pair of equal tensors until nothing new comes."""
        while self._fresh:
            while self._fresh:
                reference, rewritten = self._fresh.pop()
                self._backward(reference, rewritten)
                self._forward(reference, rewritten)
            # Inputs of commutative ops, and consumers that were ambiguous, may be clear by now.
            before = len(self.equal), len(self.ops)
            for op in self.y.ops:
                other = self.ops.get(op.name)
                if other is not None:
                    self._equate_inputs(other, op, "structure")
            for rewritten, (reference, _) in list(self.equal.items()):
                self._forward(reference, rewritten)
            if before == (len(self.equal), len(self.ops)):
                return

    def _backward(self, reference: str, rewritten: str) -> None:
        ours, theirs = self.x.producer.get(reference), self.y.producer.get(rewritten)
        if ours is None or theirs is None or theirs.name in self.ops:
            return
        for op in self._back(ours):
            if family(op.op_type) == family(theirs.op_type) and op.name not in self.taken:
                self.pair(op, theirs, "structure")
                return

    def _forward(self, reference: str, rewritten: str) -> None:
        theirs = [(op, slot) for op, slot in self.y.consumers.get(rewritten, []) if op.name not in self.ops]
        ours = [(op, slot) for op, slot in self.x.consumers.get(reference, []) if op.name not in self.taken]
        if not theirs or not ours:
            return
        found = []
        for op, slot in theirs:
            fitting = [o for o, s in ours if self._fits(o, s, op, slot)]
            if len(fitting) == 1:
                found.append((fitting[0], op))
        for other, op in found:
            if sum(o is other for o, _ in found) == 1:
                self.pair(other, op, "structure")

    def _fits(self, reference: Op, slot: int, rewritten: Op, other_slot: int) -> bool:
        kind = family(reference.op_type)
        if kind != family(rewritten.op_type) or (kind not in _COMMUTATIVE and slot != other_slot):
            return False
        ours, theirs = self.x.data_inputs(reference), self.y.data_inputs(rewritten)
        if len(ours) != len(theirs) or not _attributes_agree(reference, rewritten):
            return False
        for name in theirs:
            known = self.equal.get(name)
            if known is not None and known[0] not in ours:
                return False
        return all(self.reverse.get(name, theirs[0]) in theirs for name in ours)

    # ------------------------------------------------------------------ the result

    def result(self) -> Matching:
        """All equal tensors of the rewritten graph that an op computes, and what was folded."""
        matching = Matching()
        for rewritten, (reference, how) in self.equal.items():
            producer = self.x.producer.get(reference)
            theirs = self.y.producer.get(rewritten)
            if producer is None or theirs is None:
                continue
            own = self.ops.get(theirs.name)
            chain = list(self._back(producer))
            inside = own in chain if own is not None else False
            op = own if own is not None and inside else producer
            merged = chain[: chain.index(op)] if inside else []
            absorbed = "+".join(o.op_type for o in reversed(merged) if o.op_type in _ACTIVATIONS)
            matching.tensors[rewritten] = Match(reference, op, how, absorbed)
            for name in self._region(reference, self.heads.get(theirs.name, theirs)):
                matching.folded.setdefault(name, op.name)
        return matching

    def _region(self, tensor: str, rewritten: Op) -> list[str]:
        """The ops of the reference between the inputs of a rewritten op and its output, if nothing else goes in."""
        stops = {self.equal[name][0] for name in self.y.data_inputs(rewritten) if name in self.equal}
        found: list[str] = []
        waiting, seen = [tensor], {tensor}
        while waiting:
            producer = self.x.producer.get(waiting.pop())
            if producer is None:
                return []
            taken = self.taken.get(producer.name)
            if taken is not None and taken is not rewritten:
                return []
            found.append(producer.name)
            for name in self.x.data_inputs(producer):
                if name not in stops and name not in seen:
                    seen.add(name)
                    waiting.append(name)
        return found


def _aligned(ours: list[Op], theirs: list[Op]) -> list[tuple[int, int]]:
    """Positions of the longest common subsequence of op families; the heads of both are the same op."""
    rows, columns = len(ours), len(theirs)
    length = np.zeros((rows + 1, columns + 1), int)
    same = [[family(a.op_type) == family(b.op_type) for b in theirs] for a in ours]
    for i in range(rows - 1, 0, -1):
        for j in range(columns - 1, 0, -1):
            keep = length[i + 1, j + 1] + 1 if same[i][j] else 0
            length[i, j] = max(keep, length[i + 1, j], length[i, j + 1])
    result, i, j = [(0, 0)], 1, 1
    while i < rows and j < columns:
        if same[i][j] and length[i, j] == length[i + 1, j + 1] + 1:
            result.append((i, j))
            i, j = i + 1, j + 1
        elif length[i + 1, j] >= length[i, j + 1]:
            i += 1
        else:
            j += 1
    return result


def _attributes_agree(a: Op, b: Op) -> bool:
    """True if the attributes that both ops state are the same."""
    return all(b.attributes[key] == value for key, value in a.attributes.items() if key in b.attributes)


def _prints(
    side: _Side, weights: Weights, ops: set[str]
) -> dict[tuple[str, tuple[int, ...]], list[tuple[Op, NDArray[np.float64]]]]:
    """The largest weight of each product as channels of length 1, by op family and shape."""
    result: dict[tuple[str, tuple[int, ...]], list[tuple[Op, NDArray[np.float64]]]] = defaultdict(list)
    for op in side.ops:
        candidates = [w for w in weights.get(op.name, ()) if w.role == "weight" and len(w.shape) > 1]
        if op.name not in ops or family(op.op_type) not in _PRODUCTS or not candidates:
            continue
        weight = max(candidates, key=lambda w: int(np.prod(w.shape)))
        rows = np.moveaxis(weight.read(), weight.channel_axis or 0, 0).reshape(
            weight.shape[weight.channel_axis or 0], -1
        )
        rows = np.nan_to_num(rows[:, :: max(1, rows.size // _COMPARED_VALUES)].astype(np.float64))
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        # The shape as channels and the rest: a Gemm may hold its weight transposed.
        key = (family(op.op_type), (len(rows), int(np.prod(weight.shape)) // max(len(rows), 1)))
        result[key].append((op, rows / np.where(norms > 0, norms, 1)))
    return result


def _likeness(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The mean cosine of the channels of two weights, sign aside: folding may turn one around."""
    used = a.any(1) & b.any(1)
    return float(np.abs((a * b).sum(1)[used]).mean()) if used.any() else 0.0
