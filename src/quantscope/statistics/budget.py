"""Where the error of one op's output comes from: its inputs, its weight and bias, its own clipping and rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.errors import ShapeError
from quantscope.qparams import QParams
from quantscope.statistics import metrics
from quantscope.statistics.arrays import flat_floats, real_values
from quantscope.statistics.kernels import budget as kernels

PARTS = ("inherited", "weight", "bias", "clipping", "rounding", "residual")


@dataclass(frozen=True)
class ErrorBudget:
    """The cumulative error of one tensor in six parts, and the error of its op alone.

    The error e = quantized − reference of an element is the sum of six differences t, one per part:

    - inherited: the op with float weights on the quantized model's inputs − the reference's output;
    - weight: what quantizing the weight changes in that;
    - bias: what quantizing the bias changes then, which gives the op's output before it is rounded to codes;
    - clipping: that output clipped to what its codes can represent − itself;
    - rounding: rounded to codes − clipped;
    - residual: what the quantized model really gave − rounded.

    Each field is the share Σt·e / n of the mean squared error `mse` = Σe² / n, in the tensor's unit squared: the six
    sum to it. A share is negative where a part cancels more of the others than it adds. `energies` has Σt² / n by
    part, which is what a part would cost alone; energies do not sum to anything. `isolated_mse` and `isolated_sqnr_db`
    are those of the quantized op on the reference's inputs, rounded to its codes. All are nan where nothing was
    compared. `left_out` counts elements that are not finite in one of the arrays.
    """

    count: int
    left_out: int
    mse: float
    inherited: float
    weight: float
    bias: float
    clipping: float
    rounding: float
    residual: float
    energies: Mapping[str, float]
    isolated_mse: float
    isolated_sqnr_db: float

    @property
    def shares(self) -> Mapping[str, float]:
        """The six shares by part, in the order in which they arise; they sum to `mse`."""
        return {part: getattr(self, part) for part in PARTS}


class BudgetAccumulator:
    """The error budget of one tensor; `update` adds a batch, `merge` adds another's."""

    def __init__(self, qparams: QParams | None = None) -> None:
        """Begin with nothing seen; without `qparams` the tensor is not quantized, and nothing is clipped or rounded."""
        self.qparams = qparams
        self.sums = np.zeros(kernels.BUDGET_SLOTS)

    def update(
        self,
        reference: NDArray[Any],
        float_weights: NDArray[Any],
        float_bias: NDArray[Any],
        computed: NDArray[Any],
        quantized: NDArray[Any],
        isolated: NDArray[Any],
    ) -> None:
        """Add a batch: six arrays of one shape, float16, float32 or float64. Several may be the same array.

        Args:
            reference: y, the reference's output.
            float_weights: a, the op with float weights on the quantized model's inputs.
            float_bias: w, the same with quantized weights and float bias.
            computed: b, with the quantized bias too: the quantized op before its output is rounded.
            quantized: q, what the quantized model gave: real values, or codes of an integer type.
            isolated: i, the quantized op on the reference's inputs, before its output is rounded.
        Raises:
            ShapeError: the shapes differ.
        """
        arrays = (reference, float_weights, float_bias, computed, real_values(quantized, self.qparams), isolated)
        if any(array.shape != reference.shape for array in arrays):
            raise ShapeError(f"shapes differ: {', '.join(str(array.shape) for array in arrays)}")
        y, a, w, b, q, i = flat_floats(*arrays)
        qparams = self.qparams
        if qparams is None:
            kernels.add_budget(y, a, w, b, b, b, q, i, self.sums)
        elif qparams.per_tensor:
            low, high = qparams.spec.code_range
            zero_point = int(qparams.zero_point.reshape(()))
            kernels.add_quantized_budget(
                y, a, w, b, q, i,
                np.float32(qparams.scale.reshape(())), np.float32(low - zero_point), np.float32(high - zero_point),
                self.sums,
            )  # fmt: skip
        else:
            c, r = _round_trip(b.reshape(reference.shape), qparams)
            _, rounded = _round_trip(i.reshape(reference.shape), qparams)
            kernels.add_budget(y, a, w, b, c.reshape(-1), r.reshape(-1), q, rounded.reshape(-1), self.sums)

    def merge(self, other: BudgetAccumulator) -> None:
        """Add all that another accumulator of the same tensor has seen."""
        self.sums += other.sums

    def result(self) -> ErrorBudget:
        """Return the budget of all that was seen so far."""
        sums = [float(value) for value in self.sums]
        count = sums[kernels.COUNTED]

        def means(first: int) -> dict[str, float]:
            return {part: metrics.mse(sums[first + i], count) for i, part in enumerate(PARTS)}

        return ErrorBudget(
            count=int(count),
            left_out=int(sums[kernels.LEFT_OUT]),
            mse=metrics.mse(sums[kernels.TOTAL], count),
            **means(kernels.SHARES),
            energies=means(kernels.ENERGIES),
            isolated_mse=metrics.mse(sums[kernels.ISOLATED], count),
            isolated_sqnr_db=(metrics.sqnr_db(sums[kernels.SIGNAL], sums[kernels.ISOLATED]) if count else math.nan),
        )


def _round_trip(x: NDArray[Any], qparams: QParams) -> tuple[NDArray[Any], NDArray[Any]]:
    """The values clipped to the representable range, and rounded to codes and back, as the kernel does per tensor.

    What is not finite comes back as nan from the rounding.
    """
    scale, zero_point = qparams.aligned(x.shape)
    step = scale.astype(np.float32)
    low, high = ((limit - zero_point).astype(np.float32) for limit in qparams.spec.code_range)
    with np.errstate(invalid="ignore"):
        codes = np.clip(np.rint(x.astype(np.float32) / step), low, high)
        rounded = codes * step + (x - x)
    return np.clip(x, low * step, high * step).astype(x.dtype), rounded.astype(x.dtype)
