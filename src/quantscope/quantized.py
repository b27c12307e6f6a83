"""A quantized model in float terms: its graph without quantization, where to read its tensors, and its weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quantscope.graph import Graph
from quantscope.qparams import QParams


@dataclass(frozen=True)
class EncodedTensor:
    """Where a tensor of the quantized model can be observed.

    `codes` is the tensor of integer codes, `real` that of real values; "" where there is none. With `qparams` the
    codes stand for real values; without, the tensor was left in float.
    """

    codes: str = ""
    real: str = ""
    qparams: QParams | None = None


@dataclass(frozen=True, eq=False)
class RescaledQParams(QParams):
    """Scale and zero point of a tensor whose channels were multiplied by `factors` before it was quantized.

    Values are in the unit from before that: real value = (code − zero_point) · scale / factors. Each of the factors
    broadcasts against the tensor; `stored` is what the model says of its codes.
    """

    stored: QParams
    factors: tuple[NDArray[Any], ...]

    @classmethod
    def of(cls, qparams: QParams, factors: tuple[NDArray[Any], ...]) -> RescaledQParams:
        """The same codes in the unit from before the tensor was multiplied by these factors."""
        return cls(qparams.scale, qparams.zero_point, qparams.spec, qparams, factors)

    @property
    def per_tensor(self) -> bool:
        """False: in this unit each channel has a scale of its own."""
        return False

    def aligned(self, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Scale and zero point in a form that broadcasts against a tensor of this shape."""
        scale, zero_point = self.stored.aligned(shape)
        return reduce(np.divide, self.factors, scale), zero_point


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant operand of an op; `qparams` says how it was quantized, None for float.

    `read` gives its real values each time it is called, so that a model's weights are never all in memory twice.
    """

    op: str
    tensor: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]
    role: Literal["weight", "bias"] = "weight"
    channel_axis: int | None = None
    qparams: QParams | None = None


def by_op(weights: Iterable[Weight]) -> dict[str, list[Weight]]:
    """The weights of each op."""
    found: dict[str, list[Weight]] = defaultdict(list)
    for weight in weights:
        found[weight.op].append(weight)
    return found


@dataclass(frozen=True)
class FloatView:
    """A model as if nothing had been quantized: quantize and dequantize ops gone, float op types and tensor names.

    `tensors` says for each tensor of `graph` where its values are observed. `factors` says, by the names of the float
    model before it was equalized, what the values of a tensor have been multiplied by since, in a form that broadcasts
    against it.
    """

    graph: Graph
    tensors: Mapping[str, EncodedTensor] = field(default_factory=dict)
    factors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
