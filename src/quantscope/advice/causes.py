"""What each op adds to the error by itself, in parts that a change of the recipe can take away.

A part is a noise-to-signal ratio: the energy of that error over the energy of the op's output, at most 1. It does not
say how much of it arrives at the model's output; that is what a sensitivity measurement is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from quantscope.diagnosis import Diagnosis, FailureSource, TensorDiagnosis
from quantscope.graph import Graph, Op

# Ops that hold nearly all multiplications, and therefore the gain in speed.
PRODUCTS = frozenset(("Conv", "ConvTranspose", "MatMul", "Gemm"))
# What leads to a break counts for so much, all else for the rest: on PP-OCRv4 rec, Magika and basic-pitch nothing
# helped that left it, and most of what took it away did (docs/advice.md).
_AT_BREAKS = 0.75
# The first ones in execution order: in a model that breaks often the later ones follow from them.
_MOST_BREAKS = 10
# Isolated errors come from a few of the samples and local ones from all: a smaller factor than 6 dB may be chance.
_AMPLIFIED = 4.0
# Their output has the codes of their input: whoever reads it reads those.
_PASS_ON = frozenset(
    (
        "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout", "Expand", "Tile", "Cast",
        "Slice", "Split", "Gather", "MaxPool", "Pad",
    )
)  # fmt: skip


@dataclass(frozen=True)
class OwnError:
    """What the op of one row adds, each part over the energy of its output.

    `amplified` is what the op makes of the rounding of its inputs beyond their own relative error: a difference of two
    nearly equal numbers, or a steep function.
    """

    row: TensorDiagnosis
    weight: float
    clipping: float
    rounding: float
    amplified: float

    @property
    def total(self) -> float:
        """All parts together."""
        return self.weight + self.clipping + self.rounding + self.amplified


class Causes:
    """The own errors of a diagnosis' ops, and what of them a set of changes takes away."""

    def __init__(self, diagnosis: Diagnosis, graph: Graph) -> None:
        self.diagnosis = diagnosis
        self.graph = graph
        self.rows: Mapping[str, TensorDiagnosis] = {t.tensor: t for t in diagnosis.tensors if t.role == "activation"}
        self.weights: dict[str, list[TensorDiagnosis]] = {}
        self._inputs: dict[str, tuple[TensorDiagnosis, ...]] = {}
        for tensor in diagnosis.tensors:
            if tensor.role == "weight":
                self.weights.setdefault(tensor.op, []).append(tensor)

    @cached_property
    def own(self) -> Mapping[str, OwnError]:
        """By tensor, in execution order."""
        return {name: self._own(row) for name, row in self.rows.items()}

    @cached_property
    def total(self) -> float:
        """The own errors of all ops together."""
        return sum(error.total for error in self.own.values())

    @cached_property
    def row_of(self) -> Mapping[str, TensorDiagnosis]:
        """The activation's row of each op."""
        return {row.op: row for row in self.rows.values()}

    def coded(self, op: str) -> bool:
        """True if the op computes with codes, so that leaving it in float changes something."""
        row = self.row_of.get(op)
        return (row is not None and row.is_quantized) or any(w.is_quantized for w in self.weights.get(op, ()))

    @cached_property
    def coded_ops(self) -> tuple[Op, ...]:
        """The ops that compute with codes."""
        return tuple(op for op in self.graph.ops if self.coded(op.name))

    def inputs(self, row: TensorDiagnosis) -> tuple[TensorDiagnosis, ...]:
        """The nearest compared tensors that the op of a row reads."""
        if row.tensor not in self._inputs:
            before = self.graph.nearest_before(row.tensor, self.rows)
            self._inputs[row.tensor] = tuple(self.rows[name] for name in before)
        return self._inputs[row.tensor]

    def readers(self, tensor: str) -> tuple[str, ...]:
        """The ops that read the codes of a tensor, also through ops that pass them on."""
        found: dict[str, None] = {}
        waiting, seen = [tensor], {tensor}
        while waiting:
            for op in self.graph.consumers.get(waiting.pop(), ()):
                if op.op_type in _PASS_ON and not self.weights.get(op.name):
                    new = [name for name in op.outputs if name and name not in seen]
                    seen.update(new)
                    waiting += new
                if self.coded(op.name):
                    found[op.name] = None
        return tuple(found)

    def around(self, row: TensorDiagnosis) -> tuple[str, ...]:
        """The ops that have to change for the codes of a tensor to change: its own and all that read it."""
        return tuple(dict.fromkeys((row.op, *self.readers(row.tensor))))

    def _own(self, row: TensorDiagnosis) -> OwnError:
        power = energy(row)
        clipping, rounding = local_parts(row)
        if row.op_type == "Concat":
            rounding = max(rounding, self._joined(row))
        weight = max((noise(w.sqnr_db) for w in self.weights.get(row.op, ()) if w.is_quantized), default=0.0)
        budget = row.budget
        if budget is not None and budget.count:
            # Behind a failure the inputs, and with them this energy, may be far too large.
            power = max(power, row.quantized.variance + row.quantized.mean**2)
            weight = _ratio(budget.energies["weight"] + budget.energies["bias"], power)
        isolated = noise(row.isolated_sqnr_db)
        expected = weight + clipping + rounding + sum(sum(local_parts(before)) for before in self.inputs(row))
        amplified = isolated - expected if isolated > _AMPLIFIED * expected else 0.0
        return OwnError(row, weight, clipping, rounding, amplified)

    def _joined(self, row: TensorDiagnosis) -> float:
        """What the one scale of a Concat costs: each value over the energy of the tensor that it comes from."""
        joined = self.inputs(row)
        count = sum(before.reference.count for before in joined)
        return sum(joined_noise(row, before) * before.reference.count for before in joined) / count if count else 0.0

    @cached_property
    def broken(self) -> tuple[FailureSource, ...]:
        """The failure sources that fail by themselves: not half of their error came in with their inputs."""
        return tuple(s for s in self.diagnosis.failure_sources if not inherited(s.row) > 0.5)

    def before(self, row: TensorDiagnosis) -> set[str]:
        """The tensor of a row and all compared ones that it is computed from."""
        names, waiting = {row.tensor}, [row]
        while waiting:
            for before in self.inputs(waiting.pop()):
                if before.tensor not in names:
                    names.add(before.tensor)
                    waiting.append(before)
        return names

    @cached_property
    def _worth(self) -> Mapping[str, float]:
        """By tensor what one unit of its own error is of the error of the model."""
        groups = [self.before(source.row) for source in self.diagnosis.failure_sources[:_MOST_BREAKS]]
        everywhere = 1 - _AT_BREAKS if groups else 1.0
        worth = dict.fromkeys(self.own, everywhere / self.total if self.total else 0.0)
        for names in groups:
            total = sum(self.own[name].total for name in names)
            for name in names if total else ():
                worth[name] += _AT_BREAKS / len(groups) / total
        return worth

    def worst(self, part: Callable[[OwnError], float] = lambda error: error.total) -> list[OwnError]:
        """The own errors that have this part, by what it is of the error of the model, worst first."""
        found = [error for error in self.own.values() if part(error) > 0]
        return sorted(found, key=lambda error: self._worth[error.row.tensor] * part(error), reverse=True)

    def share(self, fixed: Callable[[OwnError], float]) -> float:
        """The part of the error that a change addresses, by what it takes away from each op's own error.

        It is the part of all own errors together; where the model breaks somewhere, it is mostly the part of those
        that lead to the break, for nothing is gained as long as that is left, but a second break may hide behind it.
        """
        return sum(self._worth[name] * fixed(error) for name, error in self.own.items())

    def worst_ranges(self, most: int) -> list[str]:
        """The tensors whose rounding and clipping count most, also by what is made of it behind them."""
        counts = {name: self._worth[name] * (error.rounding + error.clipping) for name, error in self.own.items()}
        for name, error in self.own.items():
            for before in self.inputs(error.row) if error.amplified else ():
                counts[before.tensor] += self._worth[name] * error.amplified
        return sorted((name for name in counts if counts[name]), key=lambda name: counts[name], reverse=True)[:most]

    def share_of_float(self, ops: Collection[str]) -> float:
        """The part that leaving these ops in float takes away.

        A tensor stays rounded as long as one op that writes or reads it has codes; and what an op makes of rounded
        inputs goes only with their rounding.
        """
        return self._share(ops, weights=True, clipping=True)

    def share_of_16_bits(self, ops: Collection[str]) -> float:
        """The part that 16-bit activations of these ops take away; weights and ranges stay as they are."""
        return self._share(ops, weights=False, clipping=False)

    def _share(self, ops: Collection[str], *, weights: bool, clipping: bool) -> float:
        chosen = frozenset(ops)
        share = 0.0
        for name in dict.fromkeys(name for op in chosen for name in self._touched.get(op, ())):
            error = self.own[name]
            fixed = error.weight if weights and error.row.op in chosen else 0.0
            if self._holders[name] <= chosen:
                fixed += error.rounding + (error.clipping if clipping else 0.0)
            if error.amplified and self._input_holders[name] <= chosen:
                fixed += error.amplified
            share += self._worth[name] * fixed
        return share

    @cached_property
    def _holders(self) -> Mapping[str, frozenset[str]]:
        """By tensor the ops with codes that write or read it."""
        return {name: frozenset(op for op in self.around(row) if self.coded(op)) for name, row in self.rows.items()}

    @cached_property
    def _input_holders(self) -> Mapping[str, frozenset[str]]:
        """The same of all the tensors that the op of a row reads."""
        return {
            name: frozenset().union(*(self._holders[before.tensor] for before in self.inputs(row)))
            for name, row in self.rows.items()
        }

    @cached_property
    def _touched(self) -> Mapping[str, list[str]]:
        """By op the tensors whose own error may change with it."""
        found: dict[str, list[str]] = {}
        for name, row in self.rows.items():
            for op in {row.op} | self._holders[name] | self._input_holders[name]:
                found.setdefault(op, []).append(name)
        return found


def noise(sqnr_db: float) -> float:
    """Return the noise-to-signal ratio of an SQNR, at most 1; 0 where there is none."""
    return 0.0 if math.isnan(sqnr_db) else min(1.0, 10 ** (-sqnr_db / 10))


def decibels(ratio: float) -> float:
    """Return the SQNR of a noise-to-signal ratio."""
    return math.inf if ratio <= 0 else 0.0 - 10 * math.log10(ratio)


def energy(row: TensorDiagnosis) -> float:
    """Return the mean square of the reference's tensor."""
    return row.reference.variance + row.reference.mean**2


def local_parts(row: TensorDiagnosis) -> tuple[float, float]:
    """Return what clipping and rounding of the tensor to its own codes cost, over its energy.

    Rounding costs step² / 12 at most on average, the rest is clipping, if there is any.
    """
    if not row.is_quantized or math.isnan(row.local_mse):
        return 0.0, 0.0
    power = energy(row)
    step = 0.0 if math.isnan(row.scale) else row.scale
    rounding = row.local_mse if not row.clipped_fraction > 0 else min(row.local_mse, step**2 / 12)
    return _ratio(row.local_mse - rounding, power), _ratio(rounding, power)


def joined_noise(row: TensorDiagnosis, joined: TensorDiagnosis) -> float:
    """Return what the scale of a joined tensor costs one of those that it joins, over the energy of that one."""
    power = energy(joined)
    # Zeros cost nothing on any scale.
    return _ratio(row.scale**2 / 12, power) if row.is_quantized and not math.isnan(row.scale) and power > 0 else 0.0


def inherited(row: TensorDiagnosis) -> float:
    """Return the share of a row's error that came in with its inputs; nan where it is not known."""
    return row.budget.inherited / row.budget.mse if row.budget is not None and row.budget.mse > 0 else math.nan


def _ratio(error: float, power: float) -> float:
    if not error > 0 or not math.isfinite(error):
        return 0.0
    return min(1.0, error / power) if power > 0 else 1.0
