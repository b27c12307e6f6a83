"""A quantized model in float terms: its graph without quantization, where to read its tensors, and its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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


@dataclass(frozen=True)
class FloatView:
    """A model as if nothing had been quantized: quantize and dequantize ops gone, float op types and tensor names.

    `tensors` says for each tensor of `graph` where its values are observed.
    """

    graph: Graph
    tensors: Mapping[str, EncodedTensor] = field(default_factory=dict)
