"""The estimate of where the error at the outputs comes from: its rule on made-up figures, and a culprit."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantscope
from conftest import convolutions, images
from quantscope.diagnosis import TensorDiagnosis, TensorSummary
from quantscope.graph import Graph, Op, Tensor
from quantscope.output_error import with_output_error
from quantscope.qparams import PerTensor, QuantSpec
from quantscope.recipe import Recipe
from quantscope.statistics.budget import PARTS, ErrorBudget

SIGNAL = 2.0
COUNT = 100


def graph(ops: dict[str, tuple[str, list[str]]], outputs: list[str]) -> Graph:
    """A graph of ops by the tensor they write: their type and inputs; "x" is the model's input."""
    tensors = {name: Tensor(name, "float32") for name in ("x", *ops)}
    return Graph(
        tuple(Op(f"op_{out}", kind, tuple(inputs), (out,)) for out, (kind, inputs) in ops.items()),
        tensors, (tensors["x"],), tuple(tensors[name] for name in outputs), frozenset(),
    )  # fmt: skip


def row(tensor: str, mse: float, role: Any = "activation", **shares: float) -> TensorDiagnosis:
    """A row with this mean squared error; with shares, a budget of them."""
    summary = TensorSummary(COUNT, 0, 0, -1, 1, 0, 1, 1)
    values: dict[str, Any] = {f.name: math.nan for f in fields(TensorDiagnosis)}
    budget = None
    if shares:
        parts = {part: shares.get(part, 0.0) * mse for part in PARTS}
        budget = ErrorBudget(COUNT, 0, mse, **parts, energies=parts, isolated_mse=0, isolated_sqnr_db=0)
    values |= {
        "op": f"op_{tensor}", "op_type": "Conv", "role": role, "tensor": tensor, "dtype": "uint8", "levels_used": 9,
        "reference": summary, "quantized": summary, "mse": mse, "sqnr_db": 10 * math.log10(SIGNAL / mse),
        "budget": budget, "histogram": None, "channels": None,
    }  # fmt: skip
    return TensorDiagnosis(**values)


def shares(model: Graph, *rows: TensorDiagnosis) -> dict[str, float]:
    return {r.tensor: r.output_error_share for r in with_output_error(model, rows)}


def test_what_is_inherited_goes_on_to_the_op_before_and_the_rest_arises_here() -> None:
    chain = graph({"a": ("Conv", ["x"]), "b": ("Conv", ["a"]), "c": ("Conv", ["b"])}, ["c"])
    rows = (
        row("a", 0.1, rounding=1.0),
        row("b", 0.2, inherited=0.5, weight=0.4, rounding=0.1),
        row("c", 0.4, inherited=0.25, weight=0.75),
        row("w", 0.1, role="weight"),
    )
    found = shares(chain, *rows)
    assert found == {"a": 0.125, "b": 0.125, "c": 0.75, "w": pytest.approx(math.nan, nan_ok=True)}


def test_a_weight_has_the_part_that_its_rounding_adds() -> None:
    chain = graph({"a": ("Conv", ["x"]), "b": ("Conv", ["a"])}, ["b"])
    weight = row("a", 0.1, role="weight")
    rows = (row("a", 0.1, weight=0.75, rounding=0.25), weight, row("b", 0.4, inherited=0.5, clipping=0.5))
    assert [r.output_error_share for r in with_output_error(chain, rows)] == pytest.approx([0.5, 0.375, 0.5])


def test_sums_share_by_noise_and_products_by_noise_over_signal() -> None:
    ops = {"a": ("Conv", ["x"]), "b": ("Conv", ["x"])}
    rows = (row("a", 0.1, rounding=1.0), row("b", 0.3, rounding=1.0), row("c", 0.4, inherited=1.0))
    added = shares(graph({**ops, "c": ("Add", ["a", "b"])}, ["c"]), *rows)
    assert added == pytest.approx({"a": 0.25, "b": 0.75, "c": 0})
    louder = (rows[0], rows[1].__class__(**{**rows[1].__dict__, "sqnr_db": rows[0].sqnr_db}), rows[2])
    assert shares(graph({**ops, "c": ("Mul", ["a", "b"])}, ["c"]), *louder) == pytest.approx(
        {"a": 0.5, "b": 0.5, "c": 0}
    )


def test_without_a_budget_a_tensor_inherits_what_its_worst_input_has() -> None:
    chain = graph({"a": ("Conv", ["x"]), "b": ("Conv", ["a"])}, ["b"])
    assert shares(chain, row("a", 0.1), row("b", 0.4)) == pytest.approx({"a": 0.25, "b": 0.75})


def test_the_rounding_of_the_models_input_counts_for_the_op_that_reads_it() -> None:
    chain = graph({"a": ("Conv", ["x"]), "b": ("Conv", ["a"])}, ["b"])
    rows = (row("a", 0.1, inherited=0.8, weight=0.2), row("b", 0.4, inherited=0.5, rounding=0.5))
    assert shares(chain, *rows) == {"a": 0.5, "b": 0.5}


def test_a_broken_tensor_takes_all_that_is_inherited_behind_it() -> None:
    model = graph({"a": ("Conv", ["x"]), "b": ("Conv", ["x"]), "c": ("Add", ["a", "b"])}, ["c"])
    broken = TensorSummary(COUNT, 7, 0, -1, 1, 0, 1, 1)
    nan = {"quantized": broken, "mse": math.nan, "sqnr_db": math.nan}
    rows = [row("a", 0.1), row("b", 0.3), row("c", 0.4)]
    rows[0], rows[2] = (r.__class__(**{**r.__dict__, **nan}) for r in (rows[0], rows[2]))
    assert shares(model, *rows) == {"a": 1.0, "b": 0.0, "c": 0.0}


@given(st.lists(st.tuples(st.floats(0.001, 1), st.floats(-0.2, 1.2), st.booleans()), min_size=1, max_size=12))
def test_shares_of_activations_are_parts_of_one_whole(ops: list[tuple[float, float, bool]]) -> None:
    names = [f"t{i}" for i in range(len(ops))]
    model = graph(
        {n: ("Add" if i % 3 else "Mul", names[max(i - 2, 0) : i] or ["x"]) for i, n in enumerate(names)}, [names[-1]]
    )
    rows = [
        row(n, mse, inherited=inherited, rounding=1 - inherited) if budget else row(n, mse)
        for n, (mse, inherited, budget) in zip(names, ops, strict=True)
    ]
    found = shares(model, *rows)
    assert all(0 <= value <= 1 + 1e-9 for value in found.values())
    assert sum(found.values()) == pytest.approx(1)


def test_the_op_that_ruins_a_model_leads_both_tables(tmp_path: Path) -> None:
    model = convolutions()
    culprit = next(t for t in model.graph.initializer if t.name == "w2")
    values = onnx.numpy_helper.to_array(culprit).copy()
    # Per tensor, one large weight leaves a few levels to all others.
    values[0, 0, 0, 0] = 60
    culprit.CopyFrom(onnx.numpy_helper.from_array(values, culprit.name))
    onnx.save(model, tmp_path / "m.onnx")
    found = quantscope.diagnose(
        tmp_path / "m.onnx", data=images(12), recipe=Recipe(weights=QuantSpec(8, granularity=PerTensor()))
    )
    assert found.activations[0].op == found.weights[0].op == "/body/conv/Conv"
    assert found.activations[0].output_error_share > 0.5
    assert found.weights[0].output_error_share <= found.activations[0].output_error_share
