"""Finds the tensors of a model whose channels can be scaled while the model computes the same.

They form regions. Channels get their factors from the constants of the op that writes them, keep them in ops that are
linear in each channel for positive factors (Relu, pooling), and lose them in the weights of the ops that read them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from quantscope.graph import Dimension, Graph, Op

Use = tuple[str, int]
"""An operand: the op, and its place among the op's inputs."""

# f(a·x) = a·f(x) for a > 0, of each channel by itself.
_HOMOGENEOUS = (
    "Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Identity", "Dropout",
)  # fmt: skip
_CHANNEL_NORMALIZATIONS = frozenset(("BatchNormalization", "InstanceNormalization"))
_OF_THE_SHAPE = frozenset(("Shape", "Size"))


@dataclass(frozen=True)
class Product:
    """A product with a constant weight: the places of its operands, and how channels lie.

    `read` and `written` give the number of channels that go in and come out, and their axis in the weight, which
    need not be as long (`quantscope.equalization.channels`); `read` is None where no axis has those that go in.
    `behind` is the number of axes behind the channels of both tensors.
    """

    read: tuple[int, int] | None
    written: tuple[int, int]
    behind: int = 0
    data: int = 0
    weight: int = 1
    bias: int = 2


class Layout(Protocol):
    """What a framework says of a model's constants, and of its products.

    `graph` is the model's; its op types have ONNX's names. `fixed` gives the tensors that have to stay as they are for
    a reason that the graph does not tell, with what a note calls the reason.
    """

    graph: Graph
    fixed: Mapping[str, str]

    def standard(self, op: Op) -> bool:
        """True if the op is what its type's name says, and no other domain's."""
        ...

    def scalable(self, tensor: str) -> tuple[int, ...] | None:
        """The shape of a constant that can be scaled; None for any other tensor."""
        ...

    def values(self, tensor: str) -> NDArray[Any] | None:
        """The values of a small constant; None for any other tensor."""
        ...

    def product(self, op: Op) -> Product | None:
        """The op as a product whose second operand is a weight that can be scaled; None if it is none."""
        ...


@dataclass(frozen=True, eq=False)
class Region:
    """Tensors whose channels have the same factors, with the constants that bring these in and take them out.

    `tensors` gives the number of axes behind that of the channels; `written` and `read` the axis of the channels in
    each constant, which need not be as long (`quantscope.equalization.channels`). `weight` is the one whose range is
    that of the channels; of a normalization, whose values are a scale times numbers of variance 1 plus an offset, it is
    the scale, and `offset` the other. What else is in `written` is a bias.
    """

    channels: int
    weight: Use
    offset: Use | None = None
    tensors: dict[str, int] = field(default_factory=dict)
    written: dict[Use, int] = field(default_factory=dict)
    read: dict[Use, int] = field(default_factory=dict)


def regions(layout: Layout) -> tuple[list[Region], Counter[str]]:
    """The regions in execution order; and how many ops with a weight write none, by the type of op in the way."""
    return _Finder(layout).found()


class _InTheWayError(Exception):
    """Something needs channels as they are."""


@dataclass(frozen=True)
class _Side:
    """What scales the channels of a tensor: places of an op's operands, with the axis of the channels there.

    `behind` is the number of the tensor's axes behind that of the channels.
    """

    channels: int
    behind: int
    axes: Mapping[int, int]


class _Finder:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._graph = layout.graph
        # That outputs are what they were needs no mention.
        self._fixed = {**{tensor.name: "" for tensor in layout.graph.outputs}, **layout.fixed}

    def found(self) -> tuple[list[Region], Counter[str]]:
        found: list[Region] = []
        left: Counter[str] = Counter()
        done: set[str] = set()
        for op in self._graph.ops:
            side = self._writes(op) if self._layout.standard(op) and op.outputs[0] not in done else None
            if side is None:
                continue
            # A product with a vector takes what its place says, all others their second operand.
            weight = next(iter(side.axes))
            offset = (op.name, 2) if "Normalization" in op.op_type and 2 in side.axes else None
            region = Region(side.channels, (op.name, weight), offset)
            region.written.update({(op.name, slot): axis for slot, axis in side.axes.items()})
            try:
                self._follow(region, op.outputs[0], side.behind)
            except _InTheWayError as reason:
                left.update(filter(None, [str(reason)]))
                continue
            done.update(region.tensors)
            if region.read:
                found.append(region)
        return found, left

    def _follow(self, region: Region, name: str, behind: int) -> None:
        """Add this tensor and all behind it that get the same factors.

        Raises:
            _InTheWayError: one of them is read by something else.
        """
        waiting = [(name, behind)]
        while waiting:
            name, behind = waiting.pop()
            shape, producer = self._graph.tensor(name).shape, self._graph.producers[name]
            if name in self._fixed:
                raise _InTheWayError(self._fixed[name])
            if shape is not None and not _fits(shape, behind, region.channels):
                raise _InTheWayError(producer.op_type)
            # One that is part of the op.
            activation = producer.attributes.get("activation", "Relu")
            if activation not in _HOMOGENEOUS:
                raise _InTheWayError(activation)
            region.tensors[name] = behind
            for op in self._graph.consumers.get(name, ()):
                side = self._reads(op, name)
                if side is not None:
                    if (side.behind, side.channels) != (behind, region.channels):
                        raise _InTheWayError(op.op_type)
                    region.read.update({(op.name, slot): axis for slot, axis in side.axes.items()})
                elif op.op_type not in _OF_THE_SHAPE:
                    kept = self._keeps(region, op, name, behind)
                    if kept is None:
                        raise _InTheWayError(op.op_type)
                    waiting.append((op.outputs[0], kept))

    # ------------------------------------------------------------------ what ops do to channels

    def _scalable(self, op: Op, slot: int) -> tuple[int, ...] | None:
        """The shape of an operand that can be scaled; None for any other."""
        return self._layout.scalable(op.inputs[slot]) if slot < len(op.inputs) else None

    def _writes(self, op: Op) -> _Side | None:
        """What scales the channels of an op's first output; None if nothing does."""
        if op.op_type == "Mul":
            return self._scaling(op)
        product = self._layout.product(op)
        if product is not None:
            channels, axis = product.written
            return self._with_bias(op, _Side(channels, product.behind, {product.weight: axis}), product.bias)
        side = self._normalization(op)
        return self._with_bias(op, side, 2) if side is not None else None

    def _reads(self, op: Op, name: str) -> _Side | None:
        """What takes factors out of the channels of this tensor; None if the op has nothing that does."""
        product = self._layout.product(op) if self._layout.standard(op) else None
        if product is None or product.read is None or op.inputs[product.data] != name or op.inputs.count(name) != 1:
            return None
        channels, axis = product.read
        return _Side(channels, product.behind, {product.weight: axis})

    def _normalization(self, op: Op) -> _Side | None:
        scale, output = self._scalable(op, 1), self._graph.tensor(op.outputs[0]).shape
        if scale is None or len(scale) != 1 or output is None or any(op.outputs[1:]):
            return None
        if op.op_type == "LayerNormalization" and op.attributes.get("axis", -1) in (-1, len(output) - 1):
            return _Side(scale[0], 0, {1: 0})
        return _Side(scale[0], len(output) - 2, {1: 0}) if op.op_type in _CHANNEL_NORMALIZATIONS else None

    def _with_bias(self, op: Op, side: _Side, slot: int) -> _Side | None:
        """The side with the op's bias; None if it has one without a value for each channel."""
        if len(op.inputs) <= slot or not op.inputs[slot]:
            return side
        bias = self._scalable(op, slot)
        if not bias or bias[-1] != side.channels:
            return None
        return _Side(side.channels, side.behind, {**side.axes, slot: len(bias) - 1})

    def _scaling(self, op: Op) -> _Side | None:
        """What scales the channels of a product with a vector."""
        for slot in (0, 1):
            vector = self._scalable(op, slot)
            if vector is not None and op.inputs[1 - slot] not in self._graph.constants:
                axis = self._vector_axis(vector, op.outputs[0])
                if axis is not None:
                    return _Side(vector[axis], len(vector) - 1 - axis, {slot: axis})
        return None

    def _vector_axis(self, shape: tuple[int, ...], output: str) -> int | None:
        """The only axis of a constant with more than one value, if the output's is as long."""
        axes = [axis for axis, length in enumerate(shape) if length > 1]
        whole = self._graph.tensor(output).shape
        if len(axes) != 1 or whole is None or len(whole) < len(shape):
            return None
        return axes[0] if whole[axes[0] - len(shape)] == shape[axes[0]] else None

    def _keeps(self, region: Region, op: Op, name: str, behind: int) -> int | None:
        """The number of axes behind the channels of an op's output that keeps their factors; None if it does not."""
        if not self._layout.standard(op) or op.inputs.count(name) > 1 or any(op.outputs[1:]):
            return None
        if op.op_type in ("Add", "Sub"):
            return self._biased(region, op, name, behind)
        if op.op_type == "Mul":
            return behind if any(other in self._graph.constants for other in op.inputs if other != name) else None
        rule = _KEEPING.get(op.op_type)
        return rule(self, op, behind) if rule is not None and op.inputs[0] == name else None

    def _biased(self, region: Region, op: Op, name: str, behind: int) -> int | None:
        """The same where a constant with a value for each channel is added, which is then scaled too."""
        slot = 1 if op.inputs[0] == name else 0
        vector = self._scalable(op, slot)
        axis = self._vector_axis(vector, op.outputs[0]) if vector is not None else None
        if vector is None or axis is None or (vector[axis], len(vector) - 1 - axis) != (region.channels, behind):
            return None
        region.written[op.name, slot] = axis
        return behind

    def _in_each_channel(self, op: Op, behind: int) -> int:
        return behind

    def _divided(self, op: Op, behind: int) -> int | None:
        return behind if op.inputs[1] in self._graph.constants else None

    def _padded(self, op: Op, behind: int) -> int | None:
        """The same if a Pad puts zeros around each channel, and adds no channel."""
        shape, pads = self._graph.tensor(op.inputs[0]).shape, self._values(op, 1)
        if shape is None or pads is None or pads.size != 2 * len(shape):
            return None
        # What comes before and behind each axis: two lists one after the other, or a pair for each axis.
        pairs = pads.reshape(2, -1).T if pads.ndim == 1 else pads
        others = [self._values(op, slot) for slot in range(2, len(op.inputs)) if op.inputs[slot]]
        with_zeros = op.attributes.get("mode", "constant") == "constant" and all(
            value is not None and not value.any() for value in others
        )
        return behind if with_zeros and not pairs[len(shape) - 1 - behind].any() else None

    def _averaged(self, op: Op, behind: int) -> int | None:
        """The same behind a mean over axes that are not that of the channels."""
        shape, given = self._graph.tensor(op.inputs[0]).shape, self._values(op, 1)
        axes = op.attributes.get("axes") or (given.reshape(-1).tolist() if given is not None else None)
        if shape is None or not isinstance(axes, list):
            return None
        positions = {int(axis) % len(shape) for axis in axes}
        channels = len(shape) - 1 - behind
        if channels in positions:
            return None
        # The two ways in which graphs write it.
        keeps_axes = op.attributes.get("keepdims", op.attributes.get("keepDims", 1))
        return behind if keeps_axes else behind - sum(p > channels for p in positions)

    def _flattened(self, op: Op, behind: int) -> int | None:
        """The last axis if there is one value behind each channel."""
        shape = self._graph.tensor(op.inputs[0]).shape
        if shape is None or behind != len(shape) - 2 or op.attributes.get("axis", 1) != 1:
            return None
        return 0 if all(length == 1 for length in shape[2:]) else None

    def _reshaped(self, op: Op, behind: int) -> int | None:
        """The last axis if that is what the channels are on, before and behind."""
        before, after = (self._graph.tensor(names[0]).shape or (None,) for names in (op.inputs, op.outputs))
        return 0 if behind == 0 and before[-1] == after[-1] and isinstance(after[-1], int) else None

    def _values(self, op: Op, slot: int) -> NDArray[Any] | None:
        return self._layout.values(op.inputs[slot]) if slot < len(op.inputs) else None


def _fits(shape: tuple[Dimension, ...], behind: int, channels: int) -> bool:
    """True if the axis with so many behind it has this length, or may have it."""
    length = shape[-1 - behind] if behind < len(shape) else -1
    return length == channels or not isinstance(length, int)


_KEEPING: Mapping[str, Callable[[_Finder, Op, int], int | None]] = {
    **dict.fromkeys(_HOMOGENEOUS, _Finder._in_each_channel),
    "Div": _Finder._divided,
    "Flatten": _Finder._flattened,
    "Pad": _Finder._padded,
    "ReduceMean": _Finder._averaged,
    "Reshape": _Finder._reshaped,
}
