"""Which ops the error at the model's outputs comes from, estimated from the error budgets alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from quantscope.diagnosis import TensorDiagnosis, level_db
from quantscope.graph import Graph

# Ops that add up or collect values: their inputs' errors weigh as they are. In products each weighs by its own signal.
_ADDING = frozenset(("Add", "Concat", "Max", "Mean", "Min", "Sub", "Sum", "Where"))


def with_output_error(graph: Graph, rows: Sequence[TensorDiagnosis]) -> tuple[TensorDiagnosis, ...]:
    """The rows with their `output_error_share`: the part of the error at the model's outputs that arises there.

    From the outputs back, each tensor's share of the error is split: what the error budget calls inherited goes on to
    the tensors that it is computed from, the rest arises here. Several of them share by their noise, in products
    by noise over signal. A tensor without a budget inherits what its worst input has. A weight's share is what its
    rounding adds to its op's output. Several outputs count alike. The shares of the activations sum to at most 1: what
    the rounding of the model's inputs causes belongs to no op.

    It is an estimate: it follows the power of the error, as if an op passed all of its inputs' errors on alike.
    """
    activations = {row.tensor: row for row in rows if row.role == "activation"}
    arriving = _arriving(graph, activations)
    by_op: dict[str, tuple[TensorDiagnosis, float]] = {}
    for name, row in activations.items():
        if row.budget is not None:
            by_op.setdefault(row.op, (row, arriving.get(name, 0.0)))

    def share(row: TensorDiagnosis) -> float:
        if row.role == "activation":
            return arriving.get(row.tensor, 0.0) * (1 - _inherited(graph, row, activations))
        op, arrived = by_op.get(row.op, (None, 0.0))
        if row.role != "weight" or op is None:
            return math.nan
        return arrived * _part(op, "weight")

    return tuple(replace(row, output_error_share=share(row)) for row in rows)


def _arriving(graph: Graph, rows: Mapping[str, TensorDiagnosis]) -> dict[str, float]:
    """For each tensor the share of the outputs' error that comes from there or from before."""
    order = {name: i for i, op in enumerate(graph.ops) for name in op.outputs}
    arriving: dict[str, float] = {}
    for output in graph.outputs:
        for name in (output.name,) if output.name in rows else graph.nearest_before(output.name, rows):
            arriving[name] = arriving.get(name, 0.0) + 1 / len(graph.outputs)
    # An output that several tensors were gathered into, unseen, gives its share to each: bring the sum back to 1.
    total = sum(arriving.values())
    arriving = {name: share / total for name, share in arriving.items()}
    for name in sorted(rows, key=lambda name: order.get(name, -1), reverse=True):
        passed_on = arriving.get(name, 0.0) * _inherited(graph, rows[name], rows)
        if not passed_on:
            continue
        before = graph.nearest_before(name, rows)
        adds = graph.producers[name].op_type in _ADDING
        noise = {n: _noise(rows[n]) if adds else _noise_over_signal(rows[n]) for n in before}
        broken = [n for n, value in noise.items() if math.isinf(value)]
        noise = dict.fromkeys(broken, 1.0) or noise
        total = sum(noise.values())
        for other, value in noise.items():
            if total > 0:
                arriving[other] = arriving.get(other, 0.0) + passed_on * value / total
    return arriving


def _inherited(graph: Graph, row: TensorDiagnosis, rows: Mapping[str, TensorDiagnosis]) -> float:
    """Which part of a tensor's error its inputs brought, from 0 to 1."""
    if row.budget is not None and row.budget.mse > 0:
        return _part(row, "inherited")
    own = _noise_over_signal(row)
    before = max((_noise_over_signal(rows[name]) for name in graph.nearest_before(row.tensor, rows)), default=0.0)
    if math.isinf(before):
        return 1.0
    return min(before / own, 1.0) if own > 0 else 0.0


def _part(row: TensorDiagnosis, part: str) -> float:
    budget = row.budget
    if budget is None or not budget.mse > 0:
        return 0.0
    return min(max(float(getattr(budget, part)) / budget.mse, 0.0), 1.0)


def _noise(row: TensorDiagnosis) -> float:
    """The power of the error over all elements; infinite where the quantized tensor is broken."""
    return math.inf if level_db(row) == -math.inf else 0.0 if math.isnan(row.mse) else row.mse * row.reference.count


def _noise_over_signal(row: TensorDiagnosis) -> float:
    level = level_db(row)
    return math.inf if level == -math.inf else float(10 ** (-level / 10))
