"""Which axis of an activation holds its channels, as far as the graph tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from quantscope.graph import Graph, Op

_SPATIAL = frozenset(
    (
        "Conv", "FusedConv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool",
        "GlobalLpPool", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN",
    )
)  # fmt: skip
_LAST_AXIS_NORMALIZATIONS = frozenset(
    (
        "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    )
)  # fmt: skip
_PRODUCTS = frozenset(("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulNBits"))
# Each element of the output comes from the elements in the same place of the inputs, or the shape at least is kept.
_ELEMENTWISE = frozenset(
    (
        "Abs", "Add", "BiasGelu", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout", "Elu", "Erf", "Exp",
        "FastGelu", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "LogSoftmax", "Max",
        "Mean", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "QuickGelu", "Reciprocal", "Relu", "Round", "Selu",
        "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh",
        "ThresholdedRelu", "Where",
    )
)  # fmt: skip


def channel_axes(graph: Graph) -> dict[str, int]:
    """Return the axis of the channels of each float activation for which the graph tells it, by tensor name.

    An axis counts from the front. Only where the rank is unknown may it be negative and count from the back, as a
    product's last axis does. A tensor behind an op that may rearrange its axes (Reshape, Slice, …) is left out, and
    so is one whose inputs do not agree: no axis is better than a wrong one.
    """
    found: dict[str, int] = {}
    static = set(graph.constants) | {""}
    for op in graph.ops:
        if all(name in static for name in op.inputs):
            static.update(op.outputs)
            continue
        # Further outputs, such as MaxPool's indices, have other meanings.
        output = graph.tensor(op.outputs[0])
        axis = _axis(graph, op, found, static)
        if axis is None or not _may_be_float(output.dtype):
            continue
        if output.shape is None:
            found[output.name] = axis
        elif -len(output.shape) <= axis < len(output.shape):
            found[output.name] = axis % len(output.shape)
    return found


def _may_be_float(dtype: str) -> bool:
    return not dtype or dtype.startswith(("float", "bfloat"))


def _rank(graph: Graph, name: str) -> int | None:
    shape = graph.tensor(name).shape
    return None if shape is None else len(shape)


def _axis(graph: Graph, op: Op, found: Mapping[str, int], static: set[str]) -> int | None:
    """The axis of the first output's channels; negative where it is known from the back alone."""
    if op.op_type in _SPATIAL:
        return -1 if graph.channels_last else 1
    if op.op_type in _LAST_AXIS_NORMALIZATIONS:
        rank = _rank(graph, op.inputs[0])
        return -1 if op.attributes.get("axis", -1) in (-1, rank and rank - 1) else None
    if op.op_type in _PRODUCTS:
        return _product(graph, op, found, static)
    if op.op_type == "Transpose":
        return _transposed(op, found.get(op.inputs[0]))
    if op.op_type in _ELEMENTWISE or op.op_type == "Concat":
        return _inherited(graph, op, found, static)
    return None


def _product(graph: Graph, op: Op, found: Mapping[str, int], static: set[str]) -> int | None:
    """The last axis, which is that of the second operand: of a weight, or of an activation whose channels are there."""
    factor = op.inputs[1]
    rank = _rank(graph, factor)
    if rank == 1:
        return None
    if factor in static:
        return -1
    # Of queries times keys the last axis is a position, which the keys' transposed axis tells.
    axis = found.get(factor)
    last = axis == -1 or (rank is not None and axis == rank - 1)
    return -1 if op.op_type == "MatMul" and last else None


def _transposed(op: Op, axis: int | None) -> int | None:
    order = op.attributes.get("perm")
    if axis is None:
        return None
    if order is None:
        return -1 - axis
    return list(order).index(axis % len(order)) if -len(order) <= axis < len(order) else None


def _inherited(graph: Graph, op: Op, found: Mapping[str, int], static: set[str]) -> int | None:
    """The axis on which all inputs agree that have one; broadcasting aligns shapes at the back."""
    inputs = [name for name in op.inputs if name not in static]
    axes = {axis for name in inputs for axis in _aligned(graph, name, op.outputs[0], found)}
    if len(axes) != 1:
        return None
    axis = axes.pop()
    if axis < 0:
        return axis
    # Known from the front alone, it stays where it is if nothing can put axes before it.
    constants = (_rank(graph, name) for name in op.inputs if name and name in static)
    stays = all(name in found for name in inputs) and all(rank is not None and rank <= axis + 1 for rank in constants)
    return axis if stays else None


def _aligned(graph: Graph, name: str, output: str, found: Mapping[str, int]) -> Iterator[int]:
    """The axis of an input's channels, if it has one: from the back, or from the front where its rank is unknown."""
    axis = found.get(name)
    if axis is None:
        return
    shape, other = graph.tensor(name).shape, graph.tensor(output).shape
    if shape is None or axis < 0:
        yield axis
        return
    # A single channel that is repeated along an axis says nothing of that axis.
    behind = axis - len(shape)
    repeated = shape[axis] == 1 and other is not None and len(other) >= -behind and other[behind] != 1
    if not repeated:
        yield behind
