"""Figures channel by channel against float64 numpy on each channel, and which axis the channels are on."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantscope.backends.onnx import BACKEND
from quantscope.channel_axes import channel_axes
from quantscope.errors import ShapeError
from quantscope.graph import Dimension, Graph, Op, Tensor
from quantscope.qparams import PerChannel, QParams, QuantSpec
from quantscope.statistics import ChannelAccumulator, ChannelStatistics, Histogram, TensorStatistics, kernels
from registry import registry_model

BINS = Histogram(-3, -20, np.zeros(50, np.int64))
"""From −2.5 to 3.75: narrower than the values of the tests."""


def pair(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values around 1 with a spread of their own in each place, many of them zero, and noise on them."""
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.normal(1, rng.uniform(0.1, 5, shape[1:]), shape), -0.5).astype(dtype)
    return x, (x + rng.normal(0, 0.1, shape)).astype(dtype)


def check(found: ChannelStatistics, x: NDArray[Any], y: NDArray[Any], axis: int, bins: Histogram = BINS) -> None:
    """Compare with numpy on the finite values of each channel."""
    edges = bins.edges.copy()
    np.testing.assert_array_equal(found.edges, edges)
    edges[0], edges[-1] = -np.inf, np.inf
    assert found.axis == axis % x.ndim
    assert len(found.mse) == x.shape[axis]
    for i in range(x.shape[axis]):
        a, b = (np.take(v, i, axis).astype(np.float64).reshape(-1) for v in (x, y))
        both = np.isfinite(a) & np.isfinite(b)
        error, signal = np.square(a[both] - b[both]).sum(), np.square(a[both]).sum()
        assert found.mse[i] == pytest.approx(error / both.sum() if both.any() else math.nan, rel=1e-9, nan_ok=True)
        if both.any() and error and signal:
            assert found.sqnr_db[i] == pytest.approx(10 * np.log10(signal / error), rel=1e-9, abs=1e-9)
        a, b = a[np.isfinite(a)], b[np.isfinite(b)]
        np.testing.assert_array_equal(found.reference_counts[i], np.histogram(a, edges)[0])
        np.testing.assert_array_equal(found.quantized_counts[i], np.histogram(b, edges)[0])
        for values, low, high, mean, std in (
            (a, found.minimum, found.maximum, found.mean, found.std),
            (b, found.quantized_minimum, found.quantized_maximum, found.quantized_mean, found.quantized_std),
        ):
            if not len(values):
                assert np.isnan([low[i], high[i], mean[i], std[i]]).all()
                continue
            assert (low[i], high[i]) == (values.min(), values.max())
            assert mean[i] == pytest.approx(values.mean(), rel=1e-9, abs=1e-9)
            assert std[i] == pytest.approx(values.std(), rel=1e-9, abs=1e-9)


shapes = st.lists(st.integers(1, 9), min_size=1, max_size=5).map(tuple)


@settings(deadline=None, max_examples=120)
@given(shape=shapes, data=st.data())
def test_any_split_gives_the_same_figures_for_any_shape_and_axis(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x, y = pair(shape, data.draw(st.sampled_from([np.float32, np.float64])), data.draw(st.integers(0, 100)))
    for values in data.draw(
        st.lists(st.tuples(st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0)), max_size=3)
    ):
        (x if values[1] % 2 else y).flat[values[1] % x.size] = values[0]
    batches = [i for i in range(len(shape)) if i != axis % len(shape)]
    along = data.draw(st.sampled_from(batches)) if batches else None
    cuts = sorted(data.draw(st.lists(st.integers(0, 9), max_size=3)))
    updated, merged = ChannelAccumulator(axis, BINS), ChannelAccumulator(axis, BINS)
    cuts = [cut for cut in cuts if along is not None and cut <= shape[along]]
    for a, b in zip(np.split(x, cuts, along or 0), np.split(y, cuts, along or 0), strict=True):
        updated.update(a, b)
        single = ChannelAccumulator(axis, BINS)
        single.update(a, b)
        merged.merge(single)
    check(updated.result(), x, y, axis)
    check(merged.result(), x, y, axis)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((2, 3, 70, 90), 1),  # long runs, read where they lie
        ((3, 4, 600), 1),
        ((40, 5, 7, 7), 1),  # short runs, gathered
        ((1, 300, 7, 7), 1),
        ((700, 21), -1),  # side by side
        ((3, 900, 17), 2),
        ((500,), 0),
        ((20, 1500), 0),
        ((600, 3, 2), 1),
    ],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_way_through_an_array(shape: tuple[int, ...], axis: int, dtype: Any) -> None:
    x, y = pair(shape, dtype)
    accumulator = ChannelAccumulator(axis, BINS)
    accumulator.update(x, y)
    check(accumulator.result(), x, y, axis)
    # What is not finite takes the slow path of its block alone.
    x.flat[1], y.flat[x.size // 2], x.flat[-1] = np.nan, np.inf, -np.inf
    accumulator = ChannelAccumulator(axis, BINS)
    accumulator.update(x, y)
    check(accumulator.result(), x, y, axis)


@pytest.mark.parametrize("turn", [lambda v: v.transpose(0, 3, 1, 2), lambda v: v[:, ::2], np.asfortranarray])
def test_any_memory_layout(turn: Any) -> None:
    x, y = (turn(values) for values in pair((2, 8, 9, 5)))
    accumulator = ChannelAccumulator(1, BINS)
    accumulator.update(x, y)
    check(accumulator.result(), x, y, 1)


def test_codes_stand_for_real_values() -> None:
    x, _ = pair((6, 5, 30))
    q = QParams(np.asarray(0.03, np.float32), np.asarray(40), QuantSpec(8, signed=False, symmetric=False))
    codes = q.quantize(x)
    per_channel = QParams(
        np.linspace(0.02, 0.1, 5, dtype=np.float32), np.zeros(5, np.int64), QuantSpec(granularity=PerChannel(1))
    )
    for qparams, coded, dtype in ((q, codes, np.uint8), (per_channel, per_channel.quantize(x), np.int8)):
        accumulator = ChannelAccumulator(1, BINS, qparams)
        accumulator.update(x, coded.astype(dtype))
        check(accumulator.result(), x, qparams.dequantize(coded), 1)


@pytest.mark.parametrize("exponent", [-140, -30, 0, 5, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_far_beyond_the_edges_are_counted_in_the_outermost_bins(exponent: int, dtype: Any) -> None:
    bins = Histogram(exponent, -3, np.zeros(7, np.int64))
    rng = np.random.default_rng(0)
    x = (rng.choice([-1, 1], (3, 4, 700)) * 10.0 ** rng.uniform(-37, 37, (3, 4, 700))).astype(dtype)
    accumulator = ChannelAccumulator(1, bins)
    accumulator.update(x, -x)
    result = accumulator.result()
    check(result, x, -x, 1, bins)
    assert result.reference_counts.sum() == x.size


@pytest.mark.parametrize("first", [(1 << 24) - 3, (1 << 24) + 1, (1 << 25) - 2, -(1 << 25) + 1])
def test_bins_whose_numbers_float32_cannot_hold(first: int) -> None:
    bins = Histogram(-20, first, np.zeros(5, np.int64))
    x = (np.linspace(first - 9, first + 9, 3000) * 2.0**-20).astype(np.float32).reshape(3, 1000)
    accumulator = ChannelAccumulator(0, bins)
    accumulator.update(x, x)
    check(accumulator.result(), x, x, 0, bins)


def test_without_bins_nothing_is_counted() -> None:
    empty = TensorStatistics().histogram
    accumulator = ChannelAccumulator(1, empty)
    accumulator.update(*pair((2, 3, 40)))
    assert accumulator.result().reference_counts.shape == (3, 0)
    assert np.isfinite(accumulator.result().mse).all()


def test_equal_empty_and_unseen_channels() -> None:
    x = np.ones((2, 3), np.float32)
    equal = ChannelAccumulator(1, BINS)
    equal.update(x, x)
    assert (equal.result().sqnr_db == np.inf).all()
    empty = ChannelAccumulator(1, BINS)
    assert len(empty.result().mse) == 0
    empty.update(x[:0], x[:0])
    assert np.isnan(empty.result().mse).tolist() == [True] * 3
    assert np.isnan(empty.result().sqnr_db).all()
    empty.merge(ChannelAccumulator(1, BINS))
    empty.merge(equal)
    check(empty.result(), x, x, 1)


def test_what_does_not_fit_is_refused() -> None:
    accumulator = ChannelAccumulator(1, BINS)
    accumulator.update(*pair((2, 3)))
    with pytest.raises(ShapeError, match="3 channels before, now 4"):
        accumulator.update(*pair((2, 4)))
    with pytest.raises(ShapeError, match=r"\(2, 3\).*\(3, 2\)"):
        accumulator.update(pair((2, 3))[0], pair((3, 2))[0])
    with pytest.raises(ShapeError, match="axis 1"):
        accumulator.update(*pair((3,)))
    other = ChannelAccumulator(1, Histogram(-3, -20, np.zeros(51, np.int64)))
    other.update(*pair((2, 3)))
    with pytest.raises(ShapeError, match="different bins"):
        accumulator.merge(other)


def test_what_was_compiled_before_any_kernel_changed_is_dropped(tmp_path: Path) -> None:
    cache = tmp_path / "__pycache__"
    cache.mkdir()
    for age, path in enumerate((cache / "new.nbi", tmp_path / "caller.py", tmp_path / "called.py", cache / "old.nbi")):
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    kernels._drop_stale_caches(tmp_path)
    assert [path.name for path in cache.iterdir()] == ["new.nbi"]


# ---------------------------------------------------------------------- which axis the channels are on


def graph(ops: list[tuple[str, str, str]], shapes: dict[str, tuple[Dimension, ...] | None], **perms: Any) -> Graph:
    """A graph of ops (type, inputs, output), each named by its output; names in capitals are constants."""
    nodes = tuple(
        Op(output, kind, tuple(inputs.split()), (output,), "", {"perm": perms[output]} if output in perms else {})
        for kind, inputs, output in ops
    )
    tensors = {name: Tensor(name, "float32", shape) for name, shape in shapes.items()}
    constants = frozenset(name for op in nodes for name in op.inputs if name.isupper())
    return Graph(nodes, tensors, (Tensor("x"),), (), constants)


IMAGE: tuple[Dimension, ...] = ("N", 8, "H", "W")


def test_convolutions_and_what_follows_them_elementwise() -> None:
    ops = [
        ("Conv", "x W", "c"), ("Relu", "c", "r"), ("GlobalAveragePool", "r", "g"), ("Mul", "r g", "m"),
        ("Add", "m B", "a"), ("Concat", "a r", "k"), ("Transpose", "k", "t"), ("Sigmoid", "t", "s"),
        ("Reshape", "s S", "v"), ("Tanh", "v", "h"), ("Add", "s c", "clash"), ("Conv", "x V", "one"),
        ("Mul", "one v", "unclear"), ("Cast", "c", "i"),
    ]  # fmt: skip
    channels_last = ("N", "H", "W", 16)
    shapes: dict[str, tuple[Dimension, ...] | None] = {
        **dict.fromkeys("crma", IMAGE), "g": ("N", 8, 1, 1), "k": ("N", 16, "H", "W"),
        "t": channels_last, "s": channels_last, "v": IMAGE, "clash": IMAGE, "B": (8, 1, 1), "one": ("N", 1, "H", "W"),
        "unclear": IMAGE,
    }  # fmt: skip
    g = graph(ops, shapes, t=[0, 2, 3, 1])
    g = Graph(g.ops, {**g.tensors, "i": Tensor("i", "int64", IMAGE)}, g.inputs, g.outputs, g.constants)
    axes = channel_axes(g)
    assert axes == {**dict.fromkeys("crgmak", 1), "t": 3, "s": 3, "one": 1}


def test_products_and_attention() -> None:
    ops = [
        ("MatMul", "x Q", "q"), ("MatMul", "x K", "k"), ("MatMul", "x V", "v"), ("Transpose", "k", "kt"),
        ("MatMul", "q kt", "scores"), ("Softmax", "scores", "p"), ("MatMul", "p v", "o"), ("Add", "o x", "res"),
        ("LayerNormalization", "res G", "n"), ("Gemm", "n W", "y"), ("MatMul", "n D", "dot"),
    ]  # fmt: skip
    rows: tuple[Dimension, ...] = ("N", 5, 16)
    square: tuple[Dimension, ...] = ("N", 5, 5)
    shapes: dict[str, tuple[Dimension, ...] | None] = {
        **dict.fromkeys(("q", "k", "v", "o", "res", "n", "x"), rows), "kt": ("N", 16, 5), "scores": square, "p": square,
        **dict.fromkeys("QKVW", (16, 16)), "D": (16,),
    }  # fmt: skip
    found = channel_axes(graph(ops, shapes, kt=[0, 2, 1]))
    assert found == {**dict.fromkeys(("q", "k", "v", "o", "res", "n"), 2), "kt": 1, "y": -1}


def test_without_shapes_only_what_cannot_be_wrong() -> None:
    ops = [
        ("Conv", "x W", "c"), ("Relu", "c", "r"), ("Add", "r c", "sum"), ("Add", "sum B", "biased"),
        ("Mul", "sum SCALAR", "scaled"), ("MatMul", "x V", "m"), ("Add", "m B", "mb"), ("Add", "mb c", "clash"),
        ("Transpose", "m", "mt"), ("Transpose", "m", "reversed"),
    ]  # fmt: skip
    found = channel_axes(graph(ops, {"SCALAR": ()}, mt=[0, 2, 1]))
    assert found == {"c": 1, "r": 1, "sum": 1, "scaled": 1, "m": -1, "mb": -1, "mt": 1, "reversed": 0}


@pytest.mark.parametrize(("name", "shape"), [("ppocrv2_cls", (2, 3, 48, 96)), ("ppocrv4_rec", (2, 3, 48, 96))])
def test_no_axis_of_a_real_model_is_wrong(name: str, shape: tuple[int, ...]) -> None:
    """Wherever a weight tells how many channels there are, the axis is as long when the model runs."""
    path = registry_model(name)
    reference = BACKEND.load(path).graph
    axes = channel_axes(reference)
    proto = onnx.load(str(path))
    weights = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    weights |= {n.output[0]: tuple(a.t.dims) for n in proto.graph.node if n.op_type == "Constant" for a in n.attribute}
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in axes)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values = dict(zip(axes, session.run(list(axes), {session.get_inputs()[0].name: x}), strict=True))
    lengths: dict[str, set[int]] = {}
    for op in reference.ops:
        output = op.outputs[0]
        if output not in axes:
            continue
        if op.op_type in ("Conv", "MatMul") and op.inputs[1] in weights:
            lengths[output] = {weights[op.inputs[1]][0 if op.op_type == "Conv" else -1]}
        else:
            lengths[output] = set().union(*(lengths.get(name, set()) for name in op.inputs))
        if lengths[output]:
            assert values[output].shape[axes[output]] in lengths[output], (op.op_type, output)
    assert sum(map(bool, lengths.values())) > len(axes) * 0.8
    assert all(op.outputs[0] in axes for op in reference.ops if op.op_type == "Conv")
