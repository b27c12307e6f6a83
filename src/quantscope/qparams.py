"""How real numbers become integer codes and back: the specification, and the scale and zero point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole tensor."""


@dataclass(frozen=True)
class PerChannel:
    """One scale per index of `axis`."""

    axis: int


@dataclass(frozen=True)
class PerBlock:
    """One scale per `size` consecutive elements along `axis`."""

    axis: int
    size: int


Granularity = PerTensor | PerChannel | PerBlock


@dataclass(frozen=True)
class QuantSpec:
    """What codes a tensor shall get: 8 bits signed symmetric per tensor, for example."""

    bits: int = 8
    signed: bool = True
    symmetric: bool = True
    granularity: Granularity = PerTensor()

    @property
    def code_range(self) -> tuple[int, int]:
        """The smallest and largest code of this integer type."""
        if self.signed:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1

    @property
    def dtype(self) -> str:
        """The integer type's usual name: "uint8", "int4"."""
        return f"{'' if self.signed else 'u'}int{self.bits}"

    @classmethod
    def from_dtype(cls, dtype: str, *, symmetric: bool = False, granularity: Granularity | None = None) -> QuantSpec:
        """The specification of an integer type by its name.

        Raises:
            ValueError: the name is not that of an integer type.
        """
        signed = not dtype.startswith("u")
        digits = dtype.removeprefix("u").removeprefix("int")
        if not digits.isdigit():
            raise ValueError(f"not an integer type: {dtype!r}")
        return cls(int(digits), signed, symmetric, granularity or PerTensor())


@dataclass(frozen=True, eq=False)
class QParams:
    """Scale and zero point of one tensor, as arrays: 0-d per tensor, 1-d per channel, n-d per block.

    Real value = (code − zero_point) · scale. Source: ONNX operator specification, DequantizeLinear.
    """

    scale: NDArray[Any]
    zero_point: NDArray[np.int64]
    spec: QuantSpec

    @property
    def per_tensor(self) -> bool:
        """True if one scale serves the whole tensor."""
        return self.scale.size == 1

    def aligned(self, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Scale and zero point in a form that broadcasts against a tensor of this shape."""
        if self.per_tensor:
            return self.scale.reshape(()), self.zero_point.reshape(())
        granularity = self.spec.granularity
        if isinstance(granularity, PerBlock):
            axis = granularity.axis % len(shape)
            parts = [
                np.take(np.repeat(values, granularity.size, axis=axis), np.arange(shape[axis]), axis=axis)
                for values in (self.scale, self.zero_point)
            ]
            return parts[0], parts[1]
        assert isinstance(granularity, PerChannel)
        view = [1] * len(shape)
        view[granularity.axis % len(shape)] = -1
        return self.scale.reshape(view), self.zero_point.reshape(view)

    def quantize(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """The codes of real values: round half to even, then saturate (ONNX QuantizeLinear)."""
        scale, zero_point = self.aligned(values.shape)
        low, high = self.spec.code_range
        codes = np.rint(values / scale) + zero_point
        clipped: NDArray[np.int64] = np.clip(codes, low, high).astype(np.int64)
        return clipped

    def dequantize(self, codes: NDArray[Any]) -> NDArray[Any]:
        """The real values of codes, in the scale's own float type as an inference engine computes them."""
        scale, zero_point = self.aligned(codes.shape)
        # uint8 minus uint8 wraps around: widen first.
        wide = np.int32 if codes.dtype.itemsize < 4 else np.int64
        values: NDArray[Any] = (codes.astype(wide) - zero_point.astype(wide)).astype(scale.dtype) * scale
        return values

    @property
    def real_range(self) -> tuple[float, float]:
        """The smallest and largest representable value, over all channels."""
        low, high = self.spec.code_range
        scale = self.scale.astype(np.float64)
        return float(((low - self.zero_point) * scale).min()), float(((high - self.zero_point) * scale).max())
