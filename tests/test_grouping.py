"""Groups of a graph: where they come from, and that every level can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantscope.graph import Graph, Op, Tensor
from quantscope.grouping import Grouping, Wiring, grouped
from quantscope.scopes import scopes


def chain(names: Sequence[str], types: Sequence[str], weights: Sequence[str] = ()) -> Graph:
    """Ops one behind the other; each reads the last one's output, and its weight if that is not empty."""
    found = scopes(list(names), list(types))
    ops = []
    for i, (name, op_type) in enumerate(zip(names, types, strict=True)):
        weight = [weights[i]] if weights and weights[i] else []
        ops.append(Op(name, op_type, (f"t{i}", *weight), (f"t{i + 1}",), found[i]))
    return Graph(
        tuple(ops), {}, (Tensor("t0"),), (Tensor(f"t{len(ops)}"),), frozenset(weight for weight in weights if weight)
    )


def check(graph: Graph, result: Grouping) -> None:
    """What every grouping keeps: each op has a place, parents precede children, no level is beyond reading."""
    assert len(result.group) == len(result.labels) == len(graph.ops)
    assert len(result.names) == len(result.parents)
    assert all(parent < i for i, parent in enumerate(result.parents))
    assert all(-1 <= group < len(result.names) for group in result.group)
    children = Counter(result.parents) + Counter(result.group)
    assert all(children[group] > 1 for group in range(len(result.names)))
    assert max(children.values(), default=0) <= 32


def path(result: Grouping, op: int) -> list[str]:
    found: list[str] = []
    at = result.group[op]
    while at >= 0:
        found.insert(0, result.names[at])
        at = result.parents[at]
    return found


def test_names_with_slashes_or_colons_are_scopes() -> None:
    names = [
        "/stem/Conv",
        "/stem/Relu",
        "/body/a/Conv",
        "/body/a/Relu",
        "/body/b/Conv",
        "/body/b/Relu",
        "F0::x",
        "F0::y",
    ]
    result = grouped(chain(names, ["Conv", "Relu"] * 4))
    assert result.source == "scopes"
    assert [path(result, i) for i in range(8)] == [
        ["stem"], ["stem"], ["body", "a"], ["body", "a"], ["body", "b"], ["body", "b"], ["F0"], ["F0"]
    ]  # fmt: skip
    assert result.labels[0] == "Conv"


def test_a_group_of_one_op_is_the_op_and_a_group_of_one_group_is_one_group() -> None:
    names = ["/a/q_proj/MatMul", "/a/Add", "/b/c/Conv", "/b/c/Relu", "/d/Conv"]
    result = grouped(chain(names, ["MatMul", "Add", "Conv", "Relu", "Conv"]))
    assert result.names == ("a", "b/c")
    assert result.labels == ("q_proj", "Add", "Conv", "Relu", "d")
    assert [path(result, i) for i in range(5)] == [["a"], ["a"], ["b/c"], ["b/c"], []]


def test_many_numbered_siblings_are_put_together_in_order() -> None:
    names = [f"/model/layers.{i}/{op}" for i in range(270) for op in ("MatMul", "Add")]
    graph = chain(["/embed/Gather", *names], ["Gather", *["MatMul", "Add"] * 270])
    result = grouped(graph)
    check(graph, result)
    top = [name for name, parent in zip(result.names, result.parents, strict=True) if parent < 0]
    assert top[0] == "layers 0–16"
    assert top[-1] == "layers 255–269"
    assert path(result, 1 + 2 * 20) == ["layers 17–33", "layers.20"]


def test_the_flat_names_of_keras_tell_blocks() -> None:
    blocks = [f"conv{stage}_block{block}" for stage in (2, 3) for block in (1, 2, 3, 4)]
    parts = ["1_conv", "1_bn", "2_conv", "2_bn", "add"]
    layers = ["conv1_conv", *(f"{block}_{part}" for block in blocks for part in parts), "conv2d_1", "avg_pool"]
    result = grouped(chain([f"resnet/{layer}/op" for layer in layers], ["Conv"] * len(layers)))
    check(chain(layers, ["Conv"] * len(layers)), result)
    assert path(result, 0) == []
    assert path(result, 1) == path(result, 5) == ["conv2", "block1"]
    assert path(result, 39) == ["conv3", "block4"]
    assert path(result, 41) == path(result, 42) == []
    assert result.labels[1] == "conv2_block1_1_conv"


def test_names_of_weights_tell_modules_where_ops_have_no_scopes() -> None:
    names: list[str] = []
    types: list[str] = []
    weights: list[str] = []
    for layer in range(8):
        for part, op_type in (
            ("attention.query", "MatMul"),
            ("", "Softmax"),
            ("mlp.up", "MatMul"),
            ("mlp.down", "MatMul"),
        ):
            names.append(f"op_{len(names)}")
            types.append(op_type)
            weights.append(f"encoder.layer.{layer}.{part}.weight" if part else "")
    graph = chain(names, types, weights)
    result = grouped(graph)
    check(graph, result)
    assert result.source == "weights"
    # The query is alone in its group, and so is a part of the layer; the op between two weights is in that layer too.
    assert result.labels[4] == "attention/query"
    assert path(result, 4)[-1].endswith("1")
    assert path(result, 5) == path(result, 4)[: len(path(result, 5))]
    assert path(result, 6)[-1] == "mlp"


def test_without_names_the_order_is_cut_where_few_tensors_are_in_use() -> None:
    """Blocks of twelve ops; inside, two tensors are always in use, between them one."""
    ops: list[Op] = []
    last = "x"
    for block in range(20):
        start = last
        for i in range(12):
            inputs = (last, start) if i else (last,)
            last = f"b{block}_{i}"
            ops.append(Op(f"op.{len(ops)}", "Mul" if i else "Conv", inputs, (last,)))
    graph = Graph(tuple(ops), {}, (Tensor("x"),), (Tensor(last),), frozenset())
    result = grouped(graph)
    check(graph, result)
    assert result.source == "cuts"
    # What is left for the last two is short enough for one.
    assert [result.group[i] for i in range(240)] == [min(i // 12, 18) for i in range(240)]
    assert result.names[3] == "block 3 · Conv Mul×11"


def test_many_blocks_are_nested() -> None:
    graph = chain([f"p2o.Conv.{i}" for i in range(9000)], ["Conv", "Relu", "Add"] * 3000)
    result = grouped(graph)
    check(graph, result)
    sizes = Counter(result.group)
    assert all(7 <= size <= 28 for size in sizes.values())
    assert max(len(path(result, i)) for i in range(9000)) == 3


def test_a_mask_that_everybody_reads_does_not_hide_the_blocks() -> None:
    ops = [Op("mask", "Where", ("m",), ("mask_out",))]
    last = "x"
    for i in range(140):
        ops.append(Op(f"op.{i}", "Conv", (last, "mask_out"), (f"t{i}",)))
        last = f"t{i}"
    graph = Graph(tuple(ops), {}, (), (), frozenset())
    assert max(Wiring.of(graph).live) == 1
    check(graph, grouped(graph))


def test_codes_are_where_the_op_is_that_they_belong_to() -> None:
    ops = (
        Op("q0", "QuantizeLinear", ("x", "s", "z"), ("xq",)),
        Op("d0", "DequantizeLinear", ("xq", "s", "z"), ("xd",)),
        Op("wd", "DequantizeLinear", ("w", "s", "z"), ("wdq",)),
        Op("/a/Conv", "Conv", ("xd", "wdq"), ("c",), "a"),
        Op("q1", "QuantizeLinear", ("c", "s", "z"), ("cq",)),
        Op("d1", "DequantizeLinear", ("cq", "s", "z"), ("cd",)),
        Op("/b/Relu", "Relu", ("cd",), ("y",), "b"),
        Op("/b/Mul", "Mul", ("y", "y"), ("z",), "b"),
    )
    graph = Graph(ops, {}, (Tensor("x"),), (Tensor("z"),), frozenset(("w", "s", "z")))
    assert Wiring.of(graph).owner == (3, 3, 3, 3, 3, 3, 6, 7)
    result = grouped(graph)
    assert [path(result, i) for i in range(8)] == [["a"]] * 6 + [["b"]] * 2


@pytest.mark.parametrize("count", [0, 1, 6])
def test_small_graphs_need_no_groups(count: int) -> None:
    graph = chain([f"op{i}" for i in range(count)], ["Conv"] * count)
    assert grouped(graph) == Grouping("none", (), (), (-1,) * count, tuple(f"op{i}" for i in range(count)))


parts = st.sampled_from(["a", "b", "layers.0", "layers.1", "layers.2", "x::y", "", "m;n"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(parts, max_size=4), max_size=120), st.booleans())
def test_any_names_give_levels_that_can_be_read(names: list[list[str]], flat: bool) -> None:
    full = ["/".join([*([] if flat else name), f"op{i}"]) for i, name in enumerate(names)]
    graph = chain(full, ["Conv", "Relu", "QuantizeLinear"] * (len(full) // 3) + ["Add"] * (len(full) % 3))
    check(graph, grouped(graph))
