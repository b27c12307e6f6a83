"""What there is to say of a tensor pair over all samples: both tensors, the error between them, and the rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantscope.errors import ShapeError
from quantscope.qparams import QParams
from quantscope.statistics import metrics
from quantscope.statistics.arrays import flat, flat_floats, real_values
from quantscope.statistics.kernels import blocks, tensors
from quantscope.statistics.tensor import TensorStatistics

# Beyond 16 bits a table of all codes is larger than the tensors it would describe.
_COUNTED_BITS = 16


class ErrorStatistics:
    """Sums over the values of a pair that are finite on both sides; every metric follows from them."""

    def __init__(self, sums: NDArray[np.float64] | None = None) -> None:
        self.sums = np.zeros(blocks.ERROR_SLOTS) if sums is None else sums

    def update(self, reference: NDArray[Any], quantized: NDArray[Any]) -> None:
        """Add a batch of two float arrays of one shape.

        Raises:
            ShapeError: the shapes differ.
        """
        if reference.shape != quantized.shape:
            raise ShapeError(f"shapes differ: reference {reference.shape}, quantized {quantized.shape}")
        x, y = flat_floats(reference, quantized)
        tensors.compare_errors(x, y, self.sums)

    def merge(self, other: ErrorStatistics) -> None:
        """Add all that another accumulator has seen."""
        self.sums += other.sums

    @property
    def count(self) -> int:
        """How many values were compared."""
        return int(self.sums[blocks.PAIRS])

    @property
    def mse(self) -> float:
        """Mean squared error over the finite pairs."""
        return metrics.mse(float(self.sums[blocks.SQUARED_ERROR]), float(self.sums[blocks.PAIRS]))

    @property
    def sqnr_db(self) -> float:
        """Signal-to-quantization-noise ratio in dB over the finite pairs; nan where nothing was compared."""
        if not self.count:
            return math.nan
        return metrics.sqnr_db(float(self.sums[blocks.REFERENCE_SQUARES]), float(self.sums[blocks.SQUARED_ERROR]))

    @property
    def cosine(self) -> float:
        """Cosine similarity over the finite pairs; nan where nothing was compared."""
        if not self.count:
            return math.nan
        return metrics.cosine(
            float(self.sums[blocks.PRODUCT]),
            float(self.sums[blocks.REFERENCE_SQUARES]),
            float(self.sums[blocks.QUANTIZED_SQUARES]),
        )


class RoundingStatistics:
    """The local error: a tensor against its own quantize-dequantize, and how much of it is clipped."""

    def __init__(self, sums: NDArray[np.float64] | None = None) -> None:
        self.sums = np.zeros(tensors.ROUNDING_SLOTS) if sums is None else sums

    def merge(self, other: RoundingStatistics) -> None:
        """Add all that another accumulator has seen."""
        self.sums += other.sums

    @property
    def count(self) -> int:
        """How many finite values were rounded."""
        return int(self.sums[tensors.ROUNDED])

    @property
    def mse(self) -> float:
        """Mean squared error of the round trip."""
        return metrics.mse(float(self.sums[tensors.ROUNDING_SQUARES]), float(self.sums[tensors.ROUNDED]))

    @property
    def sqnr_db(self) -> float:
        """Signal-to-quantization-noise ratio of the round trip, in dB; nan where nothing was rounded."""
        if not self.count:
            return math.nan
        return metrics.sqnr_db(float(self.sums[tensors.ROUNDED_SQUARES]), float(self.sums[tensors.ROUNDING_SQUARES]))

    @property
    def clipped_fraction(self) -> float:
        """The share of values whose code saturates: those beyond the range by more than half a step."""
        return float(self.sums[tensors.CLIPPED] / self.sums[tensors.ROUNDED]) if self.count else math.nan


class _Grid(NamedTuple):
    """A single scale as the kernels need it: `low` and `high` are the extreme codes minus the zero point."""

    zero_point: Any
    step: Any
    lowest_code: int
    scale: float
    low: float
    high: float

    @classmethod
    def of(cls, qparams: QParams) -> _Grid:
        low, high = qparams.spec.code_range
        scale, zero_point = float(qparams.scale.reshape(())), int(qparams.zero_point.reshape(()))
        return cls(
            np.int32(zero_point), np.float32(scale), low, scale, float(low - zero_point), float(high - zero_point)
        )


class PairStatistics:
    """Statistics of one tensor pair; `update` adds a batch, `merge` adds another's.

    The quantized side comes as real values, or as integer codes with the `qparams` they were made with: codes are
    counted, and all that concerns the quantized tensor alone follows from the counts.
    """

    def __init__(self, qparams: QParams | None = None) -> None:
        self.qparams = qparams
        self.reference = TensorStatistics()
        self.error = ErrorStatistics()
        self.rounding = RoundingStatistics()
        self._quantized = TensorStatistics()
        self._code_values = np.zeros(0, np.float32)
        self._code_counts = np.zeros(0, np.int64)
        self._grid = _Grid.of(qparams) if qparams is not None and qparams.per_tensor else None
        if qparams is not None and qparams.per_tensor and qparams.spec.bits <= _COUNTED_BITS:
            low, high = qparams.spec.code_range
            self._code_values = qparams.dequantize(np.arange(low, high + 1)).astype(np.float32)
            self._code_counts = np.zeros(high - low + 1, np.int64)

    def update(self, reference: NDArray[Any], quantized: NDArray[Any]) -> None:
        """Add a batch.

        Args:
            reference: float array of any shape.
            quantized: same shape; real values, or codes of an integer type.
        Raises:
            ShapeError: the shapes differ.
        """
        if reference.shape != quantized.shape:
            raise ShapeError(f"shapes differ: reference {reference.shape}, quantized {quantized.shape}")
        if not reference.size:
            return
        if quantized.dtype.kind in "iu" and len(self._code_counts):
            (x,) = flat_floats(reference)
            self._update_codes(x, quantized)
            return
        quantized = real_values(quantized, self.qparams)
        x, y = flat_floats(reference, quantized)
        tensors.compare(
            x, y,
            self.reference.sums, self.reference.bins, self.reference.layout,
            self._quantized.sums, self._quantized.bins, self._quantized.layout, self.error.sums,
        )  # fmt: skip
        if self.qparams is not None:
            self._update_rounding(reference, quantized, x)

    def _update_codes(self, x: NDArray[Any], codes: NDArray[Any]) -> None:
        grid = self._grid
        assert grid is not None
        tensors.compare_codes(
            x, flat(codes),
            grid.zero_point, grid.step, grid.lowest_code, grid.scale, grid.low, grid.high,
            self.reference.sums, self.reference.bins, self.reference.layout,
            self._code_counts, self.error.sums, self.rounding.sums,
        )  # fmt: skip

    def _update_rounding(self, reference: NDArray[Any], quantized: NDArray[Any], x: NDArray[Any]) -> None:
        grid = self._grid
        if grid is None:
            self._update_rounding_by_channel(reference)
            return
        tensors.round_trip(x, grid.scale, grid.low, grid.high, self.rounding.sums)
        if len(self._code_counts):
            finite = quantized[np.isfinite(quantized)].astype(np.float64)
            assert self.qparams is not None
            codes = self.qparams.quantize(finite) - grid.lowest_code
            self._code_counts += np.bincount(codes, minlength=len(self._code_counts))

    def _update_rounding_by_channel(self, reference: NDArray[Any]) -> None:
        """The local error where each channel or block has its own scale: weights, seen once, so numpy will do."""
        assert self.qparams is not None
        x = reference.astype(np.float64)
        scale, zero_point = self.qparams.aligned(x.shape)
        low, high = self.qparams.spec.code_range
        finite = np.isfinite(x)
        codes = np.rint(x / scale) + zero_point
        inside = np.clip(codes, low, high)
        error = x - (inside - zero_point) * scale
        sums = self.rounding.sums
        sums[tensors.ROUNDED] += finite.sum()
        sums[tensors.ROUNDING_SQUARES] += np.square(error, where=finite, out=np.zeros_like(x)).sum()
        sums[tensors.ROUNDED_SQUARES] += np.square(x, where=finite, out=np.zeros_like(x)).sum()
        sums[tensors.CLIPPED] += ((inside != codes) & finite).sum()

    def merge(self, other: PairStatistics) -> None:
        """Add all that another accumulator of the same pair has seen."""
        self.reference.merge(other.reference)
        self._quantized.merge(other._quantized)
        self.error.merge(other.error)
        self.rounding.merge(other.rounding)
        self._code_counts += other._code_counts

    @property
    def quantized(self) -> TensorStatistics:
        """Statistics of the quantized model's tensor, dequantized."""
        if self._quantized.count or not len(self._code_counts):
            return self._quantized
        return TensorStatistics.from_counts(self._code_values, self._code_counts)

    @property
    def all_finite(self) -> bool:
        """True if every value seen on both sides was finite."""
        return (
            self.reference.count == self.reference.finite_count and self.quantized.count == self.quantized.finite_count
        )

    @property
    def levels_used(self) -> int | None:
        """How many different codes occurred; None where the tensor has no codes or too many to count."""
        return int((self._code_counts > 0).sum()) if len(self._code_counts) else None

    @property
    def rmse_over_scale(self) -> float:
        """√mse / scale; 1/√12 ≈ 0.289 is the healthy value of pure rounding; nan without a single scale."""
        if self.qparams is None or not self.qparams.per_tensor:
            return math.nan
        return math.sqrt(self.error.mse) / float(self.qparams.scale.reshape(()))

    @property
    def effective_bits(self) -> float:
        """log2 of the reference's range over the error's standard deviation; nan unless all values are finite."""
        if not self.all_finite or not self.error.count:
            return math.nan
        variance = self.error.mse - (self.reference.mean - self.quantized.mean) ** 2
        return metrics.effective_bits(self.reference.minimum, self.reference.maximum, math.sqrt(max(variance, 0.0)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state, for a run file."""
        state = {"error": self.error.sums, "rounding": self.rounding.sums, "codes": self._code_counts}
        for side, statistics in (("reference", self.reference), ("quantized", self._quantized)):
            state |= {f"{side}.{key}": array for key, array in statistics.arrays().items()}
        return state

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], qparams: QParams | None) -> PairStatistics:
        """The accumulator whose state `arrays` gave."""
        result = cls(qparams)
        result.error.sums = arrays["error"].copy()
        result.rounding.sums = arrays["rounding"].copy()
        result._code_counts = arrays["codes"].copy()
        result.reference, result._quantized = (
            TensorStatistics.from_arrays({key: arrays[f"{side}.{key}"] for key in ("sums", "bins", "layout")})
            for side in ("reference", "quantized")
        )
        return result
