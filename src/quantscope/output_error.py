"""Which ops the error at the model's outputs comes from, estimated from the error budgets alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from quantscope.diagnosis import TensorDiagnosis, level_db
from quantscope.error_flow import TensorError, arising, arriving
from quantscope.graph import Graph


def with_output_error(graph: Graph, rows: Sequence[TensorDiagnosis]) -> tuple[TensorDiagnosis, ...]:
    """The rows with their `output_error_share`: the part of the error at the model's outputs that arises there.

    A tensor without an error budget inherits what its worst input has. A weight's share is what its rounding adds to
    its op's output. The shares of the activations sum to 1: the rounding of the model's inputs counts for the ops that
    read them.

    It is an estimate: it follows the power of the error, as if an op passed all of its inputs' errors on alike.
    """
    activations = {row.tensor: row for row in rows if row.role == "activation"}
    errors = {name: _error(row) for name, row in activations.items()}
    arrived = arriving(graph, errors)
    own = arising(graph, errors, arrived)
    by_op = {row.op: row for row in reversed(activations.values()) if row.budget is not None}

    def share(row: TensorDiagnosis) -> float:
        if row.role == "activation":
            return own[row.tensor]
        output = by_op.get(row.op)
        if row.role != "weight" or output is None:
            return math.nan
        return arrived.get(output.tensor, 0.0) * (_part(output, "weight") or 0.0)

    return tuple(replace(row, output_error_share=share(row)) for row in rows)


def _error(row: TensorDiagnosis) -> TensorError:
    level = level_db(row)
    if level == -math.inf:
        return TensorError(math.inf, math.inf, _part(row, "inherited"))
    noise = 0.0 if math.isnan(row.mse) else row.mse * row.reference.count
    return TensorError(noise, float(10 ** (-level / 10)), _part(row, "inherited"))


def _part(row: TensorDiagnosis, part: str) -> float | None:
    """One part of a row's error, 0 to 1; None where there is no budget."""
    budget = row.budget
    if budget is None or not budget.mse > 0:
        return None
    return min(max(float(getattr(budget, part)) / budget.mse, 0.0), 1.0)
