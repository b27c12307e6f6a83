"""Scales the channels of tensors so that the weights before and behind them have like ranges, channel by channel.

The model computes what it did. Where a tensor or a weight has one scale for all channels, small ones no longer share it
with large ones. Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
section 4.1; docs/decisions/0010-equalization.md says what differs and what it brings.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.onnx import rescaling
from quantscope.backends.onnx.external import array, put
from quantscope.backends.onnx.files import OnnxModel, own
from quantscope.backends.onnx.order import read_by
from quantscope.backends.onnx.regions import Region, Use, regions
from quantscope.backends.onnx.rescaling import Rescaling, along
from quantscope.backends.onnx.simulation import FreshNames

# A change of 1 % moves no code of 8 bits by more than one step.
_SETTLED = 0.01
# A chain of 34 regions settled in 14 passes.
_MOST_PASSES = 30
# Beyond, a channel is dead, and a factor that tells nothing could make another value infinite.
_WIDEST = 1000.0
# Half of the range of what a normalization makes of a scale of 1, in the paper cited above (section 5: n = 6).
_DEVIATIONS = 6.0

Factors = NDArray[np.float64]


def equalized(model: OnnxModel) -> tuple[OnnxModel, tuple[str, ...]]:
    """The model with its channels equalized and the factors in its metadata, and notes; itself if there are none."""
    found, left = regions(model)
    notes = [f"not equalized, since something needs channels as they are: {_counts(left)}"] if left else []
    if not found:
        return model, (*notes, "equalization found no tensor whose channels can be scaled")
    draft = model.copy()
    names = _own_constants(draft, [use for region in found for use in (*region.written, *region.read)])
    result = own(draft)
    done = [
        Rescaling(
            factors.astype(np.float32),
            region.tensors,
            {names[use]: axis for use, axis in region.written.items()},
            {names[use]: axis for use, axis in region.read.items()},
        )
        for region, factors in zip(found, _Ranges(result, found, names).factors(), strict=True)
    ]
    scaled = rescaling.by_constant(done)
    for tensor in result.proto.graph.initializer:
        if tensor.name in scaled:
            values = array(tensor, result.folder)
            factors = rescaling.broadcast(scaled[tensor.name], values.shape)
            put(tensor, reduce(np.multiply, factors, values).astype(values.dtype), result.folder)
    rescaling.write(result.proto, done)
    first = found[0]
    between = f"{first.weight[0]!r} and {next(iter(first.read))[0]!r}"
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return result, (f"equalized channels: those between {between}{more}", *notes)


def _counts(left: Counter[str]) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in left.most_common())


def _own_constants(model: OnnxModel, uses: Sequence[Use]) -> dict[Use, str]:
    """The name of each operand; one that others read too gets a copy, which the op reads from now on."""
    graph = model.proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in read_by(node))
    readers.update(value.name for value in graph.output)
    fresh = FreshNames(graph)
    nodes = {node.name: node for node in graph.node}
    names = {}
    for use in uses:
        node, slot = nodes[use[0]], use[1]
        name = node.input[slot]
        if use not in names and readers[name] > 1:
            copy = graph.initializer.add()
            copy.CopyFrom(constants[name])
            copy.name = fresh(f"{name}/{node.name}")
            readers[name] -= 1
            node.input[slot] = name = copy.name
        names[use] = name
    return names


class _Ranges:
    """The ranges of channels in the constants of all regions, read one constant at a time."""

    def __init__(self, model: OnnxModel, regions: Sequence[Region], names: Mapping[Use, str]) -> None:
        self._model = model
        self._regions = regions
        self._names = names
        self._tensors = {tensor.name: tensor for tensor in model.proto.graph.initializer}
        self._factors: list[Factors] = [np.ones(region.channels) for region in regions]
        self._known: dict[Use, Factors] = {}
        # The regions that scale a constant: by its outputs, and by its inputs.
        self._scaled: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for number, region in enumerate(regions):
            for axes, power in ((region.written, 1), (region.read, -1)):
                for use, axis in axes.items():
                    self._scaled[names[use]].append((number, axis, power))

    def factors(self) -> list[Factors]:
        """Factors that make the ranges on both sides of each region equal, channel by channel."""
        for _ in range(_MOST_PASSES):
            if max([self._equalize(number) for number in range(len(self._regions))]) < _SETTLED:
                break
        return self._factors

    def _equalize(self, number: int) -> float:
        """Improve the factors of a region, given those of all others; returns the largest relative change."""
        region, before = self._regions[number], self._factors[number]
        written = self._range(region.weight, region.written[region.weight], number)
        if region.offset is not None:
            written = _DEVIATIONS * written + self._range(region.offset, region.written[region.offset], number)
        read = _largest(self._range(use, axis, number) for use, axis in region.read.items())
        alive = (written > 0) & (read > 0)
        if not alive.any():
            return 0.0
        # Equation 11 in the paper cited above, of weights that have the factors of before.
        wanted = before[alive] * np.sqrt(read[alive] / written[alive])
        middle = np.median(wanted)
        highest = np.full(wanted.shape, _WIDEST * middle)
        biases = [use for use in region.written if use not in (region.weight, region.offset)]
        bias = sum((self._range(use, region.written[use], number) for use in biases), np.zeros_like(before)) / before
        if bias.any():
            # No bias shall be wider, beside the others, than the widest was: it would take the tensor's range.
            with np.errstate(divide="ignore"):
                highest = np.minimum(highest, middle * bias.max() / bias[alive])
        after = before.copy()
        after[alive] = np.clip(wanted, middle / _WIDEST, highest)
        self._factors[number] = after
        return float(np.abs(after / before - 1).max())

    def _range(self, use: Use, axis: int, number: int) -> Factors:
        """The largest magnitude in each channel of a constant as it is by now."""
        name, channels = self._names[use], self._regions[number].channels
        scaled = self._scaled[name]
        own = [power for other, where, power in scaled if (other, where) == (number, axis)]
        if len(scaled) > len(own):
            values = self._magnitudes(name)
            for other, where, power in scaled:
                values *= along((self._factors[other] ** power).astype(values.dtype), values.shape, where)
            return _channel_maxima(values, axis, channels)
        if use not in self._known:
            self._known[use] = _channel_maxima(self._magnitudes(name), axis, channels)
        return self._known[use] * self._factors[number] ** own[0]

    def _magnitudes(self, name: str) -> NDArray[np.floating]:
        return np.asarray(np.abs(array(self._tensors[name], self._model.folder)))


def _largest(ranges: Iterable[Factors]) -> Factors:
    found: Factors = np.maximum.reduce(list(ranges))
    return found


def _channel_maxima(values: NDArray[np.floating], axis: int, channels: int) -> Factors:
    """The largest value of each channel; axis 1 of a grouped convolution's weight has the channels of one group."""
    if values.shape[axis] != channels:
        groups = channels // values.shape[1]
        values = values.reshape(groups, values.shape[0] // groups, values.shape[1], -1)
        found = values.max(axis=(1, 3)).reshape(-1)
    else:
        found = values.max(axis=tuple(i for i in range(values.ndim) if i != axis))
    return np.asarray(found, np.float64)
