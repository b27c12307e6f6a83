"""The result of a diagnosis: a row per compared tensor, by op, with accuracy and what could not be compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.evaluation import Score
from quantscope.graph import Graph
from quantscope.pairing import Role, TensorPair
from quantscope.plan import Traced
from quantscope.qparams import PerBlock, PerChannel, QParams
from quantscope.recipe import Recipe
from quantscope.statistics import ErrorStatistics, Histogram, PairStatistics, TensorStatistics, shared_bins
from quantscope.statistics.budget import ErrorBudget
from quantscope.statistics.channels import ChannelStatistics

HISTOGRAM_BINS = 256


@dataclass(frozen=True)
class TensorSummary:
    """One tensor over all samples: extrema and population moments of its finite values, and a count of the rest."""

    count: int
    nan_count: int
    infinity_count: int
    min: float
    max: float
    mean: float
    std: float
    variance: float
    kurtosis: float = math.nan
    outlier_ratio: float = math.nan

    @classmethod
    def of(cls, statistics: TensorStatistics) -> TensorSummary:
        """The summary of an accumulator."""
        return cls(
            statistics.count,
            statistics.nan_count,
            statistics.infinity_count,
            statistics.minimum,
            statistics.maximum,
            statistics.mean,
            statistics.std,
            statistics.variance,
            statistics.kurtosis,
            statistics.outlier_ratio,
        )


@dataclass(frozen=True, eq=False)
class SharedHistogram:
    """How often values of the reference and of the quantized tensor fall between the same edges."""

    edges: NDArray[np.float64]
    reference: NDArray[np.int64]
    quantized: NDArray[np.int64]

    @property
    def bins(self) -> Histogram:
        """The values of both tensors together, on the grid of powers of two that the edges lie on."""
        width = float(self.edges[1] - self.edges[0])
        return Histogram(round(math.log2(width)), round(self.edges[0] / width), self.reference + self.quantized)


@dataclass(frozen=True)
class TensorDiagnosis:
    """One row: a tensor of the reference beside the one that stands for it.

    mse, sqnr_db, cosine and rmse_over_scale are the cumulative error, with all that came before the op; `local_*` and
    clipped_fraction are this tensor's own rounding and clipping; `isolated_*` is the error of the op alone, quantized
    on reference inputs, and `budget` splits the cumulative error by its causes, both over a few samples. A weight has
    nothing before it: all agree. `output_error_share` is the estimated part of the error at the model's outputs that
    arises here, from 0 to 1. `simulated_sqnr_db` is the cumulative error of the simulated trace, and
    `kernels_sqnr_db` what the kernels that really run add to it. Error metrics are nan where any value is not finite;
    the counts are in `reference` and `quantized`.
    """

    op: str
    op_type: str
    scope: str
    role: Role
    tensor: str
    quantized_tensor: str
    absorbed: str
    dtype: str
    granularity: str
    scale: float
    zero_point: int | None
    reference: TensorSummary
    quantized: TensorSummary
    mse: float
    sqnr_db: float
    cosine: float
    rmse_over_scale: float
    local_mse: float
    local_sqnr_db: float
    clipped_fraction: float
    levels_used: int | None
    effective_bits: float
    first_non_finite_sample: int | None = None
    simulated_sqnr_db: float = math.nan
    kernels_sqnr_db: float = math.nan
    isolated_mse: float = math.nan
    isolated_sqnr_db: float = math.nan
    output_error_share: float = math.nan
    budget: ErrorBudget | None = field(default=None, compare=False)
    histogram: SharedHistogram | None = field(default=None, compare=False, repr=False)
    channels: ChannelStatistics | None = field(default=None, compare=False, repr=False)

    @property
    def non_finite_count(self) -> int:
        """How many values of both tensors are NaN or infinite."""
        return sum(s.nan_count + s.infinity_count for s in (self.reference, self.quantized))

    @property
    def is_quantized(self) -> bool:
        """False if the tensor was left in float."""
        return self.dtype != "float"

    @property
    def remark(self) -> str:
        """What is odd about this row, in words; "" if nothing is."""
        if self.non_finite_count:
            q, r = self.quantized, self.reference
            found = [
                f"{count} {what} in {side}"
                for side, s in (("quantized", q), ("reference", r))
                for count, what in ((s.nan_count, "NaN"), (s.infinity_count, "infinite"))
                if count
            ]
            where = "" if self.first_non_finite_sample is None else f", first in sample {self.first_non_finite_sample}"
            return ", ".join(found) + where
        if self.reference.count == 0:
            return "empty"
        if self.reference.min == self.reference.max:
            return "constant"
        if self.is_quantized and self.levels_used == 1:
            return "one level"
        return ""


def tensor_diagnosis(
    pair: TensorPair,
    statistics: PairStatistics,
    *,
    first_non_finite_sample: int | None = None,
    simulation: ErrorStatistics | None = None,
    kernels: ErrorStatistics | None = None,
    channels: ChannelStatistics | None = None,
) -> TensorDiagnosis:
    """The row of a pair from what was accumulated."""
    finite = statistics.all_finite
    reference, quantized = statistics.reference, statistics.quantized
    shared = shared_bins(reference.histogram, quantized.histogram, HISTOGRAM_BINS)
    qparams = pair.qparams
    single = qparams is not None and qparams.per_tensor
    return TensorDiagnosis(
        op=pair.op.name,
        op_type=pair.op.op_type,
        scope=pair.op.scope,
        role=pair.role,
        tensor=pair.reference_name,
        quantized_tensor=pair.quantized_name,
        absorbed=pair.absorbed,
        dtype=qparams.spec.dtype if qparams is not None else "float",
        granularity=_granularity(qparams),
        scale=float(qparams.scale.reshape(())) if single and qparams is not None else math.nan,
        zero_point=int(qparams.zero_point.reshape(())) if single and qparams is not None else None,
        reference=TensorSummary.of(reference),
        quantized=TensorSummary.of(quantized),
        mse=statistics.error.mse if finite else math.nan,
        sqnr_db=statistics.error.sqnr_db if finite else math.nan,
        cosine=statistics.error.cosine if finite else math.nan,
        rmse_over_scale=statistics.rmse_over_scale if finite else math.nan,
        local_mse=statistics.rounding.mse if finite else math.nan,
        local_sqnr_db=statistics.rounding.sqnr_db if finite else math.nan,
        clipped_fraction=statistics.rounding.clipped_fraction,
        levels_used=statistics.levels_used,
        effective_bits=statistics.effective_bits,
        first_non_finite_sample=first_non_finite_sample,
        simulated_sqnr_db=simulation.sqnr_db if simulation is not None and finite else math.nan,
        kernels_sqnr_db=kernels.sqnr_db if kernels is not None and finite else math.nan,
        histogram=SharedHistogram(shared[0].edges, shared[0].counts, shared[1].counts),
        channels=channels,
    )


def _granularity(qparams: QParams | None) -> str:
    if qparams is None:
        return ""
    granularity = qparams.spec.granularity
    if isinstance(granularity, PerBlock):
        return f"per block of {granularity.size}, axis {granularity.axis}"
    if isinstance(granularity, PerChannel):
        return f"per channel, axis {granularity.axis}"
    return "per tensor"


@dataclass(frozen=True)
class OpDiagnosis:
    """All rows of one op."""

    op: str
    op_type: str
    scope: str
    activations: tuple[TensorDiagnosis, ...]
    weights: tuple[TensorDiagnosis, ...]


# Below 10 dB the noise is a tenth of the signal; a drop by as much in one op is no ordinary rounding.
_BROKEN_DB, _SUDDEN_DB = 10.0, 10.0


@dataclass(frozen=True)
class FailureSource:
    """An op whose output is broken while its inputs were not; `inputs_db` is the SQNR of the worst of them."""

    row: TensorDiagnosis
    inputs_db: float


def level_db(row: TensorDiagnosis) -> float:
    """The SQNR of a row in dB; −inf where the quantized tensor alone is not finite."""
    if row.quantized.nan_count + row.quantized.infinity_count > row.reference.nan_count + row.reference.infinity_count:
        return -math.inf
    return math.inf if math.isnan(row.sqnr_db) else row.sqnr_db


@dataclass(frozen=True)
class Diagnosis:
    """What was found: rows in execution order, accuracy of both models, and all that is needed to trust them.

    `skipped` gives a reason for each op that has no row; `coverage` is the share of compute ops that have one.
    `measuring_changed` is the largest difference that looking made to the quantized model's outputs: exposing the
    tensors of the deployed trace, or running the simulated one in its place.
    """

    tensors: tuple[TensorDiagnosis, ...]
    scores: tuple[Score, ...]
    skipped: Mapping[str, str]
    coverage: float
    recipe: Recipe | None
    samples: Mapping[str, Any]
    models: Mapping[str, Any]
    environment: Mapping[str, str]
    notes: tuple[str, ...] = ()
    measuring_changed: float | None = None
    trace: Traced = "deployed"
    status: str = "finished"
    run: str = ""
    stages: tuple[Mapping[str, Any], ...] = ()
    graph: Graph | None = field(default=None, compare=False, repr=False)

    @cached_property
    def rows(self) -> tuple[OpDiagnosis, ...]:
        """The rows by op, in execution order."""
        by_op: dict[str, list[TensorDiagnosis]] = {}
        for tensor in self.tensors:
            by_op.setdefault(tensor.op, []).append(tensor)
        return tuple(
            OpDiagnosis(
                op,
                rows[0].op_type,
                rows[0].scope,
                tuple(t for t in rows if t.role == "activation"),
                tuple(t for t in rows if t.role != "activation"),
            )
            for op, rows in by_op.items()
        )

    @property
    def activations(self) -> tuple[TensorDiagnosis, ...]:
        """The activations, worst first: those that are not finite, then by their share of the outputs' error."""
        return ordered((t for t in self.tensors if t.role == "activation"), DEFAULT_ORDER)

    @property
    def weights(self) -> tuple[TensorDiagnosis, ...]:
        """The weights, worst first."""
        return ordered((t for t in self.tensors if t.role == "weight"), DEFAULT_ORDER)

    @property
    def first_not_finite(self) -> TensorDiagnosis | None:
        """The first op in execution order whose output is not finite in the quantized model."""
        return next(
            (t for t in self.tensors if t.role == "activation" and t.quantized.nan_count + t.quantized.infinity_count),
            None,
        )

    @property
    def kernel_differences(self) -> tuple[TensorDiagnosis, ...]:
        """The activations on which the deployed and the simulated trace differ, those that differ most first."""
        rows = (t for t in self.tensors if t.role == "activation" and math.isfinite(t.kernels_sqnr_db))
        return tuple(sorted(rows, key=lambda t: t.kernels_sqnr_db))

    @property
    def failure_sources(self) -> tuple[FailureSource, ...]:
        """The ops that break the model, in execution order: much error comes out where little went in.

        An op counts if its output is below 10 dB, or not finite, while the compared tensors that it is computed from
        are above; and if they are at least 10 dB better, or its isolated error alone puts it below. A model that decays
        little by little has none.
        """
        if self.graph is None:
            return ()
        rows = {t.tensor: t for t in self.tensors if t.role == "activation"}
        order = {name: i for i, op in enumerate(self.graph.ops) for name in op.outputs}
        found = []
        for tensor in sorted(rows, key=lambda name: order.get(name, -1)):
            inputs = [level_db(rows[name]) for name in self.graph.nearest_before(tensor, rows)]
            level, worst = level_db(rows[tensor]), min(inputs, default=math.inf)
            sudden = worst - level >= _SUDDEN_DB or rows[tensor].isolated_sqnr_db < _BROKEN_DB
            if level < _BROKEN_DB <= worst and sudden:
                found.append(FailureSource(rows[tensor], worst))
        return tuple(found)

    def frame(self, role: Role = "activation") -> Any:
        """A pandas DataFrame of all columns, worst first. Needs the extra `quantscope[pandas]`."""
        from quantscope.report.tables import frame

        return frame(self, role)

    def _repr_html_(self) -> str:
        from quantscope.report.notebook import html

        return html(self)


DEFAULT_ORDER = "output_error_share"
# Columns in which a small value is a bad one.
_RISING = frozenset(
    (
        "sqnr_db", "isolated_sqnr_db", "local_sqnr_db", "simulated_sqnr_db", "kernels_sqnr_db", "cosine",
        "effective_bits", "levels_used", "min",
    )
)  # fmt: skip
_TEXT = frozenset(("op", "op_type", "scope", "tensor", "dtype"))


def sortable_columns() -> tuple[str, ...]:
    """The columns that a table can be sorted by."""
    return (
        DEFAULT_ORDER, "sqnr_db", "mse", "cosine", "rmse_over_scale", "isolated_sqnr_db", "isolated_mse",
        "local_sqnr_db", "local_mse", "simulated_sqnr_db", "kernels_sqnr_db", "clipped_fraction", "effective_bits",
        "levels_used", "min", "max", "mean", "std", "variance", "kurtosis", "outlier_ratio", "op", "op_type", "order",
    )  # fmt: skip


def ordered(tensors: Any, column: str) -> tuple[TensorDiagnosis, ...]:
    """The rows worst first by a column: what is not finite leads, what has no value comes last; then by rising SQNR.

    Raises:
        KeyError: there is no such column.
    """
    rows = list(tensors)
    if column == "order":
        return tuple(rows)
    value = _getter(column)
    rows.sort(key=lambda t: -math.inf if math.isnan(t.sqnr_db) else t.sqnr_db)
    if column in _TEXT:
        return tuple(sorted(rows, key=lambda t: str(value(t))))
    sign = 1 if column in _RISING else -1

    def key(tensor: TensorDiagnosis) -> tuple[int, float]:
        number = value(tensor)
        if tensor.non_finite_count:
            return 0, -tensor.non_finite_count
        if number is None or math.isnan(number):
            return 2, 0.0
        return 1, sign * number

    return tuple(sorted(rows, key=key))


def _getter(column: str) -> Callable[[TensorDiagnosis], Any]:
    if column not in sortable_columns():
        raise KeyError(column)
    if column in ("min", "max", "mean", "std", "variance", "kurtosis", "outlier_ratio"):
        return lambda tensor: getattr(tensor.reference, column)
    return lambda tensor: getattr(tensor, column)
