"""Which products an op adds in pairs, in the order in which kernels go along the sum, and which pairs can saturate.

A matrix product pairs neighbours along its sum. A convolution is one over its window, position by position and within
each position channel by channel (channels last, whatever the layout of the model), so a pair may reach from one
position to the next where the channels are odd. Where the sum is odd its last product stands alone, which always fits.
Source: ONNX Runtime, onnxruntime/core/mlas/lib/qgemm.h, amd64/QgemmU8X8KernelAvx2.asm, amd64/ConvSymKernelAvx2.asm and
core/providers/cpu/quantization/qlinearconv.cc (docs/decisions/0012-machine.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.graph import Op
from quantscope.statistics.arrays import flat
from quantscope.statistics.kernels.saturation import HIGHEST, LOWEST, lost

Codes = NDArray[np.uint8]
_LARGEST_CODE = 255


@dataclass(frozen=True, eq=False)
class Loss:
    """What one batch loses: `values` are to be subtracted from the sums of products, shaped as the op's output.

    `saturated` counts pairs, `pairs` all of them, `changed` the outputs with one.
    """

    values: NDArray[np.int32]
    pairs: int
    saturated: int
    changed: int


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of a weight matrix that can saturate with some codes: `first` pair of each column, positions, weights.

    `places` are rows of the matrix, (pairs, 2); `per_output` is how many pairs an output has in all.
    """

    first: NDArray[np.int64]
    places: NDArray[np.int64]
    weights: NDArray[np.int32]
    per_output: int

    @classmethod
    def of(cls, matrix: NDArray[Any]) -> Pairs:
        """Those of a matrix of int8 codes, a row for each product of the sum and a column for each output."""
        even, odd = matrix[0::2].astype(np.int32), matrix[1::2].astype(np.int32)
        per_output = len(even)
        even = even[: len(odd)]
        highest = _LARGEST_CODE * (np.maximum(even, 0) + np.maximum(odd, 0))
        lowest = _LARGEST_CODE * (np.minimum(even, 0) + np.minimum(odd, 0))
        column, pair = np.nonzero(((highest > HIGHEST) | (lowest < LOWEST)).T)
        first = np.searchsorted(column, np.arange(matrix.shape[1] + 1)).astype(np.int64)
        places = np.stack([2 * pair, 2 * pair + 1], axis=1).astype(np.int64)
        return cls(first, places, np.stack([even[pair, column], odd[pair, column]], axis=1), per_output)

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.places)


class MatrixProduct:
    """The pairs of activations times a weight matrix: MatMul, and Gemm, which may transpose both."""

    def __init__(self, op: Op, codes: NDArray[np.int8]) -> None:
        self._transposed = op.op_type == "Gemm" and bool(op.attributes.get("transA", 0))
        matrix = codes.T if op.op_type == "Gemm" and op.attributes.get("transB", 0) else codes
        self._columns = matrix.shape[1]
        self._pairs = Pairs.of(matrix)

    @property
    def can_saturate(self) -> bool:
        return self._pairs.count > 0

    def loss(self, codes: Codes, zero_point: int, pool: Executor, threads: int) -> Loss:
        """What this batch of activations loses."""
        rows = codes.T if self._transposed else codes
        # Products of one row are the "channels" of a convolution over a line of pixels.
        planes = np.ascontiguousarray(rows.reshape(-1, rows.shape[-1]).T)
        count = planes.shape[1]
        found, saturated = _lost(
            planes, np.zeros(1, np.int64), 1, count, self._pairs, self._pairs.places * count, pool, threads
        )
        values = found.reshape(self._columns, count).T.reshape(*rows.shape[:-1], self._columns)
        return Loss(
            values, self._pairs.per_output * saturated.size, int(saturated.sum()), int(np.count_nonzero(saturated))
        )


class Convolution:
    """The pairs of a convolution with any number of axes and groups; `channels` groups of one channel have none."""

    def __init__(self, op: Op, codes: NDArray[np.int8]) -> None:
        spatial = codes.ndim - 2
        attributes: Mapping[str, Any] = op.attributes
        self._groups = int(attributes.get("group", 1))
        self._kernel = codes.shape[2:]
        self._strides = list(attributes.get("strides") or [1] * spatial)
        self._dilations = list(attributes.get("dilations") or [1] * spatial)
        self._pads = list(attributes.get("pads") or [0] * 2 * spatial)
        self._auto_pad = _text(attributes.get("auto_pad", "NOTSET"))
        self._inner = codes.shape[1]
        per_group = codes.shape[0] // self._groups
        # (outputs, channels, *kernel) → a row for each position and channel, channels last.
        matrix = np.moveaxis(codes, 1, -1).reshape(codes.shape[0], -1).T
        self._pairs = [
            Pairs.of(matrix[:, group * per_group : (group + 1) * per_group]) for group in range(self._groups)
        ]

    @property
    def can_saturate(self) -> bool:
        return any(pairs.count for pairs in self._pairs)

    def loss(self, codes: Codes, zero_point: int, pool: Executor, threads: int) -> Loss:
        """What this batch of activations loses; the border around them holds the code of zero."""
        padded = np.pad(codes, [(0, 0), (0, 0), *self._border(codes.shape[2:])], constant_values=zero_point)
        size = padded.shape[2:]
        reach = [dilation * (kernel - 1) + 1 for dilation, kernel in zip(self._dilations, self._kernel, strict=True)]
        counts = [(n - r) // stride + 1 for n, r, stride in zip(size, reach, self._strides, strict=True)]
        steps = [math.prod(size[axis + 1 :]) for axis in range(len(size))]
        rows = _sums([s * d * np.arange(n) for s, d, n in zip(steps[:-1], self._strides, counts[:-1], strict=False)])
        window = _sums([s * d * np.arange(n) for s, d, n in zip(steps, self._dilations, self._kernel, strict=True)])
        # Of each product of the sum, where it lies from where an output begins.
        offsets = _sums([window, math.prod(size) * np.arange(self._inner)])
        values, saturated = [], []
        for sample in padded:
            for group, pairs in enumerate(self._pairs):
                planes = sample[group * self._inner : (group + 1) * self._inner]
                one, count = _lost(
                    planes, rows, self._strides[-1], counts[-1], pairs, offsets[pairs.places], pool, threads
                )  # fmt: skip
                values.append(one)
                saturated.append(count)
        shape = (len(codes), -1, *counts)
        hits = np.concatenate(saturated)
        per_output = self._pairs[0].per_output
        return Loss(
            np.concatenate(values).reshape(shape), per_output * hits.size, int(hits.sum()), int(np.count_nonzero(hits))
        )

    def _border(self, size: Sequence[int]) -> list[tuple[int, int]]:
        """How many codes of zero stand before and behind each axis (ONNX operator specification, Conv)."""
        axes = len(size)
        if self._auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
            pads = [0] * 2 * axes if self._auto_pad == "VALID" else self._pads
            return [(pads[axis], pads[axes + axis]) for axis in range(axes)]
        border = []
        for n, stride, dilation, kernel in zip(size, self._strides, self._dilations, self._kernel, strict=True):
            total = max((-(-n // stride) - 1) * stride + dilation * (kernel - 1) + 1 - n, 0)
            less, more = total // 2, total - total // 2
            border.append((less, more) if self._auto_pad == "SAME_UPPER" else (more, less))
        return border


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _sums(parts: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """All sums of one entry of each, the last one varying fastest."""
    total: NDArray[np.int64] = np.zeros(1, np.int64)
    for part in parts:
        total = (total[:, None] + part).reshape(-1)
    return total


def _lost(
    planes: Codes,
    rows: NDArray[np.int64],
    step: int,
    width: int,
    pairs: Pairs,
    offsets: NDArray[np.int64],
    pool: Executor,
    threads: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """What each output loses and how many of its pairs do, (channels, rows, width); channels are shared by threads."""
    channels = len(pairs.first) - 1
    loss, saturated = np.zeros((2, channels, len(rows), width), np.int32)
    shares = np.array_split(np.arange(channels), threads)
    codes = flat(planes)
    run = partial(_share, codes, rows, step, pairs, np.require(offsets, np.int64, ("C", "A", "W")), loss, saturated)
    for _ in pool.map(run, [(int(s[0]), int(s[-1]) + 1) for s in shares if len(s)]):
        pass
    return loss, saturated


def _share(
    codes: Codes,
    rows: NDArray[np.int64],
    step: int,
    pairs: Pairs,
    offsets: NDArray[np.int64],
    loss: NDArray[np.int32],
    saturated: NDArray[np.int32],
    channels: tuple[int, int],
) -> None:
    own, first = slice(*channels), pairs.first[channels[0] : channels[1] + 1]
    lost(codes, rows, step, first, offsets, pairs.weights, loss[own], saturated[own])
