"""Advice: each rule on a model that has its defect and on one that has none, patches, and what they really bring."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import quantscope
from conftest import convolutions, images, make_model
from quantscope import Calibration, Diagnosis, OpRule, Recipe
from quantscope.advice import (
    RecipePatch,
    Suggestion,
    Verification,
    advise,
    everywhere,
    ranges,
    ranked,
    remembered,
    structure,
    verify,
    weights,
    why_nothing,
)
from quantscope.advice.causes import Causes
from quantscope.advice.commands import arguments_of
from quantscope.advice.patch import recipe_flags
from quantscope.cli import main
from quantscope.cli import options as o
from quantscope.cli.expansion import expanded
from quantscope.conversions.neural_compressor import from_op_dicts
from quantscope.errors import DataError, RunFileError, UnsupportedError
from quantscope.evaluation import Score
from quantscope.graph import Graph
from quantscope.machine import Processor
from quantscope.qparams import PerTensor, QuantSpec
from quantscope.recipe import PER_CHANNEL, SpecChange
from quantscope.recipe_file import from_values
from registry import registry_model
from test_real_models import text_lines

PER_TENSOR = Recipe(weights=QuantSpec(8))
Rule = Callable[[Causes], Iterable[Suggestion]]


def causes_of(diagnosis: Diagnosis) -> Causes:
    assert diagnosis.graph is not None
    return Causes(diagnosis, diagnosis.graph)


def fired(rule: Rule, diagnosis: Diagnosis) -> list[Suggestion]:
    return list(rule(causes_of(diagnosis)))


def names_of(diagnosis: Diagnosis) -> list[str]:
    return [suggestion.rule for suggestion in advise(diagnosis)]


def by_rule(diagnosis: Diagnosis, rule: str) -> Suggestion:
    return next(s for s in advise(diagnosis) if s.rule == rule)


def changed(proto: onnx.ModelProto, change: Callable[[dict[str, NDArray[Any]]], object]) -> onnx.ModelProto:
    """The model with `change` made to its constants."""
    values = {t.name: numpy_helper.to_array(t).copy() for t in proto.graph.initializer}
    change(values)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return proto


def given(change: Callable[[dict[str, NDArray[Any]]], object], reference: onnx.ModelProto | None = None) -> Diagnosis:
    """A diagnosis of the quantized convolutions with `change` made to their constants, as if another tool did it."""
    made = quantscope.quantize(convolutions(), images(20)).handle.model.proto
    return quantscope.diagnose(reference or convolutions(), changed(made, change), data=images(40))


def one_wide_channel() -> onnx.ModelProto:
    """The second convolution multiplies a small channel by large weights, for one of its own channels."""

    def change(w: dict[str, NDArray[Any]]) -> None:
        w["w1"][3] *= 0.03
        w["b1"][3] *= 0.03
        w["w2"][0, 3] *= 100
        w["w3"][0] *= 0.05

    return changed(convolutions(), change)


def outlier_model() -> tuple[onnx.ModelProto, NDArray[Any]]:
    """Few of the first product's values are huge, and the Tanh behind it makes nothing of that."""
    rng = np.random.default_rng(0)
    first = rng.normal(0, 0.3, (16, 32)).astype(np.float32)
    first[0], first[0, :3] = 0, 800
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="up"),
        helper.make_node("Tanh", ["h"], ["t"], name="squash"),
        helper.make_node("MatMul", ["t", "w2"], ["y"], name="down"),
    ]
    constants = {"w1": first, "w2": rng.normal(0, 0.3, (32, 10)).astype(np.float32)}
    x = rng.normal(0, 0.5, (40, 200, 16)).astype(np.float32)
    x[:, :, 0] = 0
    x[:, 7, 0] = 1
    return make_model(nodes, {"x": ["N", 200, 16]}, {"y": ["N", 200, 10]}, constants), x


@pytest.fixture(scope="module")
def healthy() -> Diagnosis:
    return quantscope.diagnose(convolutions(), data=images(40), recipe=PER_TENSOR)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a model whose weights need a scale per channel."""
    folder = tmp_path_factory.mktemp("wide")
    onnx.save(one_wide_channel(), str(folder / "model.onnx"))
    np.save(folder / "samples.npy", images(100))
    run = folder / "wide.qscope"
    quantscope.diagnose(folder / "model.onnx", data=folder / "samples.npy", recipe=PER_TENSOR, run=run)
    return run


@pytest.fixture(scope="module")
def outlying() -> Diagnosis:
    proto, x = outlier_model()
    return quantscope.diagnose(proto, data={"x": x}, batch_size=10)


def test_a_healthy_model_gets_no_advice(healthy: Diagnosis) -> None:
    assert advise(healthy) == ()
    assert "nothing to fix" in why_nothing(healthy)


@pytest.mark.parametrize(
    "rule",
    [
        structure.failure_source, weights.per_channel, structure.concat, structure.before_break, ranges.outliers,
        ranges.clipping, ranges.one_sided, ranges.wide_codes, structure.activation_channels, weights.dead_channels,
        everywhere.saturation,
    ],
)  # fmt: skip
def test_no_rule_about_a_defect_fires_on_a_healthy_model(rule: Rule, healthy: Diagnosis) -> None:
    assert fired(rule, healthy) == []


def test_channels_that_differ_get_a_scale_each(wide: Path) -> None:
    diagnosis = quantscope.open(wide)
    suggestion = by_rule(diagnosis, "weights-per-channel")
    assert suggestion.ops == ("/body/conv/Conv",)
    assert suggestion.patch == RecipePatch(weights=SpecChange(granularity=PER_CHANNEL))
    assert suggestion.patch.applied(PER_TENSOR).per_channel
    assert suggestion.cost == 0
    weight = next(t for t in diagnosis.weights if t.op == "/body/conv/Conv")
    assert f"its weight has {weight.sqnr_db:.1f} dB" in " ".join(suggestion.evidence)
    per_channel = replace(diagnosis, recipe=Recipe())
    assert "weights-per-channel" not in names_of(per_channel), "there is nothing to change"


def test_the_estimate_of_a_scale_per_channel_is_what_it_gives() -> None:
    before, after = (
        next(t for t in weight_rows(one_wide_channel(), recipe) if t.op == "/body/conv/Conv")
        for recipe in (PER_TENSOR, Recipe())
    )
    widths = weights.channel_widths(before)
    assert widths is not None
    assert before.sqnr_db - 10 * np.log10(widths.left) == pytest.approx(after.sqnr_db, abs=1.5)


def weight_rows(proto: onnx.ModelProto, recipe: Recipe) -> Any:
    return quantscope.diagnose(proto, data=images(10), recipe=recipe, budget_samples=0).weights


def test_the_op_that_breaks_the_model_stays_in_float(wide: Path) -> None:
    suggestion = by_rule(quantscope.open(wide), "failure-source")
    assert suggestion.patch == RecipePatch(rules=(OpRule("/body/conv/Conv"),))
    assert any("rounding of its weight" in line for line in suggestion.evidence)


def test_a_model_of_another_tool_gets_advice_in_its_forms() -> None:
    diagnosis = given(lambda w: w["w2_quantized"].fill(0))
    assert diagnosis.recipe is None
    (suggestion,) = advise(diagnosis)
    assert suggestion.title == "Leave /body/conv/Conv in float, when you quantize again"
    assert diagnosis.graph is not None
    names, notes = suggestion.patch.to_op_name_dict(diagnosis.graph)
    assert names == {"/body/conv/Conv": {"weight": {"dtype": ["fp32"]}, "activation": {"dtype": ["fp32"]}}}
    assert notes == ()
    assert suggestion.patch.in_float(diagnosis.graph) == ("/body/conv/Conv",)


def test_codes_that_end_too_early_are_widened() -> None:
    first = advise(given(lambda w: w["r1_scale"].__imul__(np.float32(0.05))))[0]
    assert (first.rule, first.ops) == ("clipping", ("/stem/conv/Conv",))
    assert first.patch == RecipePatch(calibration=Calibration("minmax"))
    assert "42% of its values are clipped" in first.evidence[0]
    recipe = Recipe(calibration=Calibration("percentile", 60))
    ours = quantscope.diagnose(convolutions(), data=images(60), recipe=recipe)
    wider = advise(ours)[0]
    assert wider.rule == "clipping"
    calibration = wider.patch.calibration
    assert calibration is not None
    assert calibration.method == "minmax" or calibration.percentile > 60
    assert "clipping" in [s.rule for s in fired(ranges.clipping, replace(ours, recipe=Recipe()))]
    minmax = fired(ranges.clipping, replace(ours, recipe=Recipe()))[0]
    assert minmax.patch.rules, "no range of minmax is wider: float helps"


def test_codes_that_reach_far_beyond_the_values_are_narrowed() -> None:
    diagnosis = given(lambda w: w["r1_scale"].__imul__(np.float32(40)))
    (suggestion,) = fired(ranges.wide_codes, diagnosis)
    assert suggestion.ops == ("/stem/conv/Conv",)
    assert suggestion.patch == RecipePatch(calibration=Calibration("minmax"))
    assert "of the levels lie where no value is" in suggestion.evidence[0]


def test_symmetric_codes_for_values_of_one_sign_become_asymmetric() -> None:
    recipe = Recipe(activations=QuantSpec(8, signed=True, symmetric=True))
    diagnosis = quantscope.diagnose(convolutions(), data=np.exp(2 * images(60)), recipe=recipe)
    (suggestion,) = fired(ranges.one_sided, diagnosis)
    assert suggestion.ops == ("/stem/relu/Relu",)
    assert suggestion.patch.applied(recipe).activations == QuantSpec(8, signed=True, symmetric=False)


def test_outliers_are_cut_off(outlying: Diagnosis) -> None:
    suggestion = by_rule(outlying, "outliers")
    assert suggestion.ops == ("up",)
    assert suggestion.patch.calibration is not None
    assert suggestion.patch.calibration.method != "minmax"
    row = next(t for t in outlying.activations if t.op == "up")
    assert f"{row.reference.outlier_ratio:.0f} times" in suggestion.evidence[0]
    assert f"{row.levels_used} levels" in suggestion.evidence[0]
    other = replace(outlying, recipe=Recipe(calibration=Calibration("entropy")))
    assert "outliers" not in names_of(other), "the ranges are calibrated otherwise already"


def test_channels_of_activations_that_differ_get_16_bits_where_they_cannot_be_equalized(outlying: Diagnosis) -> None:
    suggestion = by_rule(outlying, "activation-channels")
    assert set(suggestion.ops) == {"up", "squash"}
    assert {r.activations for r in suggestion.patch.rules} == {SpecChange(dtype="uint16")}
    assert suggestion.evidence[1] == "1 tensor like that; activations cannot have a scale per channel"
    (qoperator,) = fired(structure.activation_channels, replace(outlying, recipe=Recipe("qoperator")))
    assert all(rule.fallback for rule in qoperator.patch.rules), "that format has no 16 bits"
    assert fired(structure.sixteen_bits, replace(outlying, recipe=Recipe("qoperator"))) == []


@pytest.mark.parametrize("behind", ["Relu", "Sigmoid"])
def test_channels_between_weights_are_equalized_and_that_helps(behind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spread = 2.0 ** np.linspace(-6, 6, 16)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="first"),
        helper.make_node(behind, ["c1"], ["r1"], name="act"),
        helper.make_node("Conv", ["r1", "w2"], ["y"], name="second"),
    ]
    constants = {
        "w1": rng.normal(0, 1, (16, 3, 3, 3)) * spread.reshape(-1, 1, 1, 1),
        "w2": rng.normal(0, 1, (8, 16, 3, 3)) / (spread.reshape(1, -1, 1, 1) if behind == "Relu" else 1),
    }
    arrays = {name: array.astype(np.float32) for name, array in constants.items()}
    proto = make_model(nodes, {"x": ["N", 3, 12, 12]}, {"y": ["N", 8, 8, 8]}, arrays)
    onnx.save(proto, str(tmp_path / "model.onnx"))
    np.save(tmp_path / "x.npy", images(60))
    run = tmp_path / "run.qscope"
    # A scale per channel for weights: what is left is the activation's.
    diagnosis = quantscope.diagnose(tmp_path / "model.onnx", data=tmp_path / "x.npy", recipe=Recipe(), run=run)
    found = [s for s in fired(structure.activation_channels, diagnosis) if s.patch.equalize]
    if behind == "Sigmoid":
        assert not found
        return
    (suggestion,) = found
    assert suggestion.patch == RecipePatch(equalize=True)
    assert suggestion.ops == ("first",)
    assert suggestion.share > 0.5
    assert fired(structure.activation_channels, replace(diagnosis, recipe=Recipe(equalize=True)))[0].patch.rules
    verified = verify(suggestion, run).verified
    assert verified is not None
    assert verified.score.metric == "cosine"
    assert verified.score.reference < 0.9
    assert verified.score.quantized > 0.99
    assert any(note.startswith("equalized channels") for note in verified.notes)


def test_a_concat_of_boxes_and_scores_stays_in_float() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "wa"], ["a"], name="boxes"),
        helper.make_node("Conv", ["x", "wb"], ["b"], name="scores"),
        helper.make_node("Concat", ["a", "b"], ["j"], name="join", axis=1),
        helper.make_node("GlobalMaxPool", ["j"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["y"], name="flat"),
    ]
    constants = {key: rng.normal(0, std, (4, 3, 3, 3)).astype(np.float32) for key, std in (("wa", 100), ("wb", 0.3))}
    proto = make_model(nodes, {"x": ["N", 3, 12, 12]}, {"y": ["N", 8]}, constants)
    x = images(60)
    run = onnx_run(proto, x)
    diagnosis = quantscope.diagnose(
        proto,
        data={"x": x, "labels": run[:, 4:].argmax(1)},
        metric=lambda o, labels: (o["y"][:, 4:].argmax(1) == labels).astype(float),
    )
    first = advise(diagnosis)[0]
    assert (first.rule, first.ops) == ("unbalanced-concat", ("join",))
    assert "scores" in first.evidence[1]
    assert diagnosis.scores[0].quantized < 0.3


def onnx_run(proto: onnx.ModelProto, x: NDArray[Any]) -> NDArray[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: NDArray[Any] = session.run(None, {"x": x})[0]
    return found


def test_biases_that_do_not_fit_the_scales_of_dead_channels() -> None:
    def dead(w: dict[str, NDArray[Any]]) -> None:
        w["w1"][3], w["b1"][3] = 0, 2

    def too_small(w: dict[str, NDArray[Any]]) -> None:
        w["w1_quantized"][3], w["w1_scale"][3] = 0, 1e-12
        w["b1_quantized_scale"][3], w["b1_quantized"][3] = w["x_scale"] * np.float32(1e-12), 2**31 - 1

    diagnosis = given(too_small, changed(convolutions(), dead))
    first = advise(diagnosis)[0]
    assert (first.rule, first.ops) == ("dead-channels", ("/stem/conv/Conv",))
    assert first.patch.rules == (OpRule("/stem/conv/Conv", weights=SpecChange(granularity=PerTensor())),)
    assert "1 of 8 channels" in first.evidence[0]


def test_small_errors_that_add_up_are_made_smaller_everywhere() -> None:
    rng = np.random.default_rng(0)
    nodes, constants, last = [], {}, "x"
    for i in range(12):
        constants[f"w{i}"] = (rng.normal(0, 0.2, (24, 24)) * np.where(np.arange(24) == i, 4, 1)).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"m{i}"], name=f"/l{i}/MatMul"))
        nodes.append(helper.make_node("Tanh", [f"m{i}"], [f"t{i}"], name=f"/l{i}/Tanh"))
        last = f"t{i}"
    proto = make_model(nodes, {"x": ["N", 24]}, {last: ["N", 24]}, constants)
    data = {"x": rng.normal(0, 1, (120, 24)).astype(np.float32)}
    diagnosis = quantscope.diagnose(proto, data=data, batch_size=20, recipe=Recipe(weights=QuantSpec(4)))
    suggestion = by_rule(diagnosis, "small-errors")
    assert "fallback of single ops will not save this model" in suggestion.evidence[0]
    assert suggestion.patch.weights == SpecChange(granularity=PER_CHANNEL)
    assert suggestion.patch.calibration is not None
    assert suggestion.patch.rules == ()


def test_saturation_is_suspected_on_processors_without_vnni_alone(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diagnosis = quantscope.open(wide)
    tensors = tuple(
        replace(t, budget=replace(t.budget, energies={**t.budget.energies, "residual": t.reference.variance}))
        if t.budget is not None and t.op == "/body/conv/Conv"
        else t
        for t in diagnosis.tensors
    )
    diagnosis = replace(diagnosis, tensors=tensors, environment={"processor": "An old one"})

    def on(*features: str, name: str = "An old one") -> list[Suggestion]:
        monkeypatch.setattr(everywhere, "processor", lambda: Processor(name, "x86_64", frozenset(features)))
        return fired(everywhere.saturation, diagnosis)

    assert on() == [], "nothing is known of the processor"
    assert on("avx2", "avx512vnni") == []
    assert on("avx2", name="Another one") == [], "the diagnosis was made elsewhere"
    (suggestion,) = on("avx2")
    assert suggestion.patch.applied(PER_TENSOR).reduce_range
    assert suggestion.ops == ("/body/conv/Conv",)
    assert "--trace both" in suggestion.evidence[2]


def test_advice_without_error_budgets_goes_by_the_weights() -> None:
    diagnosis = quantscope.diagnose(one_wide_channel(), data=images(60), recipe=PER_TENSOR, budget_samples=0)
    assert all(t.budget is None for t in diagnosis.tensors)
    assert "weights-per-channel" in names_of(diagnosis)


def test_values_that_are_not_finite_constant_and_empty_tensors_do_not_disturb() -> None:
    nodes = [
        helper.make_node("Sqrt", ["x"], ["root"], name="root"),
        helper.make_node("Mul", ["z", "zero"], ["nothing"], name="constant"),
        helper.make_node("Slice", ["x", "none", "none"], ["gone"], name="empty"),
        helper.make_node("Relu", ["gone"], ["still_gone"], name="relu"),
        helper.make_node("Concat", ["root", "nothing"], ["y"], name="join", axis=1),
    ]
    constants: dict[str, Any] = {"zero": np.zeros(4, np.float32), "none": np.zeros(1, np.int64)}
    proto = make_model(nodes, {"x": ["N", 4], "z": ["N", 4]}, {"y": ["N", 8], "still_gone": [None, 4]}, constants)
    x = np.random.default_rng(0).uniform(0.5, 1, (30, 4)).astype(np.float32)
    x[23, 2] = -1
    diagnosis = quantscope.diagnose(
        proto,
        data={"x": x, "z": x},
        batch_size=4,
        recipe=Recipe().with_fallback(["relu", "empty", "root", "join"]),
        metric=lambda o, labels: np.ones(len(o["y"])),
    )
    assert diagnosis.first_not_finite is not None
    assert why_nothing(diagnosis) == ""
    assert all(0 <= s.share <= 1 for s in advise(diagnosis))


PATCHES = [
    RecipePatch(rules=(OpRule("/body/conv/Conv"), OpRule("GlobalAveragePool", "type"))),
    RecipePatch(rules=(OpRule("head", "scope"),)),
    RecipePatch(rules=(OpRule("/stem/conv/Conv", activations=SpecChange(dtype="uint16")),)),
    RecipePatch(rules=(OpRule("/stem/conv/Conv", weights=SpecChange(granularity=PerTensor())),)),
    RecipePatch(weights=SpecChange(granularity=PER_CHANNEL)),
    RecipePatch(weights=SpecChange(granularity=PER_CHANNEL), calibration=Calibration("entropy")),
    RecipePatch(calibration=Calibration("percentile", 99.9)),
    RecipePatch(calibration=Calibration("minmax")),
    RecipePatch(activations=SpecChange(dtype="uint16")),
    RecipePatch(activations=SpecChange(symmetric=True)),
    RecipePatch(op_types=("Conv", "MatMul")),
    RecipePatch(reduce_range=True),
    RecipePatch(equalize=True),
]


@pytest.mark.parametrize("patch", PATCHES, ids=str)
def test_a_patch_survives_every_form(patch: RecipePatch, healthy: Diagnosis, tmp_path: Path) -> None:
    assert RecipePatch.from_dict(json.loads(json.dumps(patch.to_dict()))) == patch
    alone = from_values(tomllib.loads(patch.to_toml()))
    assert alone == patch.applied(Recipe())
    patch.applied(PER_TENSOR).save(tmp_path / "recipe.toml")
    assert Recipe.load(tmp_path / "recipe.toml") == patch.applied(PER_TENSOR)
    graph = healthy.graph
    assert graph is not None
    # What Neural Compressor cannot do is said; all else comes back as the same specifications.
    names, types, notes = patch.to_op_dicts(graph)
    wanted = patch.applied(PER_TENSOR)
    said = any("16" in note or "reduce_range" in note or "equalize" in note for note in notes)
    alone_by_name, _ = patch.to_op_name_dict(graph)
    assert bool(alone_by_name) or said
    for entries in ((names, types), (alone_by_name, {})):
        again, _ = from_op_dicts(*entries, base=PER_TENSOR, graph=graph)
        if not said:
            assert specs(again, graph) == specs(wanted, graph)
    if patch.calibration is not None:
        assert from_op_dicts(names, types, base=PER_TENSOR, graph=graph)[0].calibration.method in (
            patch.calibration.method, "minmax",
        )  # fmt: skip


def specs(recipe: Recipe, graph: Graph) -> dict[str, Any]:
    """What each op gets, by whatever rule."""
    return {op: s and (s.activations, s.weights) for op, s in recipe.specs_for(graph).items()}


@pytest.mark.parametrize(
    "base", [Recipe(), PER_TENSOR, Recipe("qoperator")], ids=["default", "per tensor", "qoperator"]
)
@pytest.mark.parametrize("patch", PATCHES, ids=str)
def test_the_command_says_what_the_patched_recipe_says(patch: RecipePatch, base: Recipe) -> None:
    recipe = patch.applied(base)
    command = patch.to_command(base, ("model.onnx", "--data", "samples.npz"))
    assert command.startswith("quantscope diagnose model.onnx --data samples.npz")
    flags = recipe_flags(recipe)
    if flags is None:
        assert command.endswith("--recipe RECIPE.toml")
        assert any(not rule.fallback or rule.by == "scope" for rule in recipe.rules)
        return
    assert read_by_the_command_line(flags) == recipe


def read_by_the_command_line(flags: list[str]) -> Recipe:
    """The recipe that `quantscope diagnose` makes of these options."""
    from typer.testing import CliRunner

    seen: list[Recipe] = []
    app = typer.Typer()

    @app.command()
    @expanded
    def diagnose(context: typer.Context, quantization: o.Quantization = o.INT8) -> None:
        seen.append(quantization.recipe(context))

    result = CliRunner().invoke(app, flags, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return seen[0]


def test_a_suggestion_that_is_verified_changes_the_accuracy_by_what_it_says(wide: Path) -> None:
    diagnosis = quantscope.open(wide)
    suggestion = by_rule(diagnosis, "weights-per-channel")
    verified = verify(suggestion, wide)
    assert verified.verified is not None
    score = verified.verified.score
    folder = wide.parent
    again = quantscope.diagnose(folder / "model.onnx", data=folder / "samples.npy", recipe=Recipe())
    assert (score.metric, score.samples) == ("agreement", 50)
    assert score.reference == diagnosis.scores[0].quantized
    assert score.quantized == again.scores[0].quantized
    assert score.quantized > score.reference + 0.5
    assert verified.verified.certain
    assert verified.verified.float_value == 1
    assert replace(verified, verified=None) == suggestion
    assert remembered(wide, advise(diagnosis))[list(advise(diagnosis)).index(suggestion)] == verified
    assert Suggestion.from_dict(json.loads(json.dumps(verified.to_dict()))) == verified


def test_outliers_that_mean_nothing_are_verified_from_python(tmp_path: Path) -> None:
    proto, x = outlier_model()
    run = tmp_path / "outliers.qscope"
    diagnosis = quantscope.diagnose(proto, data={"x": x}, batch_size=10, run=run)
    suggestion = by_rule(diagnosis, "outliers")
    with pytest.raises(RunFileError, match="was never a file"):
        verify(suggestion, run, data={"x": x})
    with pytest.raises(RunFileError, match="were not given by a path or name"):
        verify(suggestion, run, reference=proto)
    found = verify(suggestion, run, reference=proto, data={"x": x}).verified
    assert found is not None
    assert found.score.metric == "cosine"
    assert found.gain > 0.5
    with pytest.raises(RunFileError, match="not what they were"):
        verify(suggestion, run, reference=proto, data={"x": x[:30]})


def test_what_cannot_be_verified_is_an_error(wide: Path, tmp_path: Path) -> None:
    suggestion = advise(quantscope.open(wide))[0]
    made = quantscope.quantize(convolutions(), images(20)).handle.model.proto
    other = tmp_path / "other.qscope"
    quantscope.diagnose(convolutions(), made, data=images(10), run=other)
    with pytest.raises(UnsupportedError, match="made by another tool"):
        verify(suggestion, other)
    own = tmp_path / "own.qscope"
    quantscope.diagnose(
        convolutions(), data=images(30), run=own, metric=lambda outputs, labels: np.ones(len(outputs["logits"]))
    )
    with pytest.raises(DataError, match="was a function"):
        verify(suggestion, own, reference=convolutions(), data=images(30))


def tried(gain: float, low: float, high: float, cost: float = 0.0, metric: str = "top1") -> Suggestion:
    patch = RecipePatch(rules=(OpRule(f"{gain}{cost}"),))
    found = Verification(Score(metric, 100, 0.5, 0.5 + gain, low, high), 0.9)
    return Suggestion("rule", (), "title", (), patch, 0.5, cost, found)


def test_what_helped_comes_first_and_of_what_helped_alike_the_cheapest() -> None:
    untried = Suggestion("rule", (), "title", (), RecipePatch(), 0.9)
    best, cheaper, less = tried(0.4, 0.3, 0.5, cost=1.0), tried(0.35, 0.25, 0.45), tried(0.1, 0.05, 0.15)
    nothing, harm = tried(0.0, -0.1, 0.1), tried(-0.2, -0.3, -0.1)
    assert ranked([harm, untried, nothing, less, best, cheaper]) == (cheaper, best, less, untried, nothing, harm)
    error = tried(-0.2, -0.3, -0.1, metric="mse").verified
    assert error is not None
    assert error.gain == pytest.approx(0.2)
    assert error.certain


def test_the_first_suggestion_for_ppocrv4_rec_is_what_helps() -> None:
    diagnosis = quantscope.diagnose(
        registry_model("ppocrv4_rec"), data=text_lines(6), calibration_samples=4, recipe=PER_TENSOR
    )
    found = advise(diagnosis)
    assert found[0].rule == "weights-per-channel"
    assert found[0].ops[0] == "p2o.Conv.28"
    own = by_rule(diagnosis, "own-error")
    assert own.ops[:2] == ("p2o.Conv.28", "p2o.Conv.32"), "the two weights with the lowest SQNR, out of 47"
    assert by_rule(diagnosis, "failure-source").ops == ("p2o.Conv.28",)


def test_the_advice_for_magika_is_what_helps(magika: Path, files: quantscope.Samples, tmp_path: Path) -> None:
    run = tmp_path / "magika.qscope"
    diagnosis = quantscope.diagnose(magika, data=files, samples=60, run=run)
    found = advise(diagnosis)
    products = found[0]
    assert (products.rule, set(products.patch.op_types or ())) == ("products-only", {"Conv", "MatMul"})
    blocks = by_rule(diagnosis, "sensitive-ops")
    assert {rule.selector.rpartition("/")[2] for rule in blocks.patch.rules} == {"LayerNorm_0", "ApplyActivation_1"}
    two = [s for s in found if s.rule == "own-error"][-1]
    assert {op.rpartition("/")[2] for op in two.ops} == {"Square_1", "truediv_1"}, "of which the variance is made"
    assert diagnosis.scores[0].quantized < 0.2
    for suggestion in (products, blocks):
        verified = verify(suggestion, run, data=files).verified
        assert verified is not None
        assert verified.gain > 0.6


def command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    """The exit code of `quantscope advise` and what it printed."""
    monkeypatch.setattr(sys, "argv", ["quantscope", "advise", *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    out, err = capfd.readouterr()
    return int(exit.value.code or 0), out, err


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *arguments: command(capfd, monkeypatch, *map(str, arguments))


def test_the_command_prints_what_why_and_how(call: Any, wide: Path, tmp_path: Path) -> None:
    code, out, err = call(wide, "--top", "9")
    assert (code, err) == (0, "")
    assert max(len(line.rstrip()) for line in out.splitlines() if "quantscope" not in line) <= 100
    assert "\x1b" not in out
    assert "Give weights one scale per channel" in out
    assert 'granularity = "per_channel"' in out
    assert "not tried yet: --verify" in out or "→" in out
    commands = re.findall(r"^   try     (quantscope diagnose .*)$", out, re.MULTILINE)
    assert commands
    assert all(f"--data {wide.parent / 'samples.npy'}" in line for line in commands)
    assert any("--per-tensor --fallback /body/conv/Conv" in line for line in commands)


def test_the_command_verifies_and_writes_the_best_recipe(call: Any, wide: Path, tmp_path: Path) -> None:
    code, out, err = call(wide, "--verify", "--top", "2", "--recipe-out", tmp_path / "better.toml")
    assert (code, err) == (0, "")
    assert re.search(r"gain +agreement \d+\.\d+% → \d+\.\d+%, \+\d+\.\d+ points, 95 % interval \+", out)
    assert "not tried yet" not in out
    recipe = Recipe.load(tmp_path / "better.toml")
    assert recipe.per_channel or recipe.rules
    code, out, _ = call(wide, "--json", "--top", "2")
    document = json.loads(out)
    assert code == 0
    assert len(document["suggestions"]) == 2
    assert all(s["verified"]["gain"] > 0.5 for s in document["suggestions"]), "the run file remembers"
    assert {"rule", "ops", "title", "evidence", "patch", "share", "op_name_dict", "nodes_to_exclude"} <= set(
        document["suggestions"][0]
    )


def test_the_command_says_why_there_is_nothing_to_do(call: Any, model: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "healthy.qscope"
    quantscope.diagnose(model, data=data, run=run, metric="agreement")
    code, out, _ = call(run)
    assert code == 0
    assert "nothing to fix" in out
    code, _, err = call(run, "--recipe-out", tmp_path / "recipe.toml")
    assert code == 2
    assert "no recipe to write" in err
    assert not (tmp_path / "recipe.toml").exists()


def test_mistakes_end_with_one_message_and_exit_code_2(call: Any, wide: Path, tmp_path: Path) -> None:
    for arguments, text in (
        ([tmp_path / "nowhere.qscope"], "no such run file"),
        ([wide.parent / "model.onnx"], "not a run file"),
        ([wide, "--top", "0"], "--top 0"),
        ([wide, "--recipe-out", tmp_path / "no" / "folder.toml"], "cannot write"),
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, ""), arguments
        assert text in err
        assert "Traceback" not in err


def test_a_changed_model_is_not_verified(call: Any, tmp_path: Path) -> None:
    onnx.save(one_wide_channel(), str(tmp_path / "model.onnx"))
    np.save(tmp_path / "samples.npy", images(40))
    run = tmp_path / "run.qscope"
    quantscope.diagnose(tmp_path / "model.onnx", data=tmp_path / "samples.npy", recipe=PER_TENSOR, run=run)
    onnx.save(convolutions(), str(tmp_path / "model.onnx"))
    code, _, err = call(run, "--verify")
    assert code == 2
    assert "changed" in err


def test_a_suggestion_that_the_quantizer_refuses_does_not_end_the_others(
    call: Any, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = advise(quantscope.open(wide))
    bad = replace(found[0], title="Impossible", patch=RecipePatch(op_types=("Softmax",)))
    monkeypatch.setattr("quantscope.advice.advise", lambda diagnosis: (bad, found[0]))
    code, out, err = call(wide, "--verify")
    assert (code, err) == (0, "")
    assert re.search("gain +cannot be tried: op type 'Softmax' does not occur in the model", out)
    assert "→" in out


def test_a_model_of_another_tool_in_the_command(call: Any, tmp_path: Path) -> None:
    made = quantscope.quantize(convolutions(), images(20)).handle.model.proto
    quantscope.diagnose(
        convolutions(), changed(made, lambda w: w["w2_quantized"].fill(0)), data=images(20), run=tmp_path / "run.qscope"
    )
    code, out, _ = call(tmp_path / "run.qscope")
    assert code == 0
    assert "when you quantize again" in out
    assert "op_name_dict = {'/body/conv/Conv'" in out
    assert "nodes_to_exclude = ['/body/conv/Conv']" in out
    code, _, err = call(tmp_path / "run.qscope", "--verify")
    assert code == 2
    assert "made by another tool" in err


def test_the_arguments_of_a_run_are_those_of_its_command(tmp_path: Path, wide: Path) -> None:
    from PIL import Image

    for i in range(6):
        Image.fromarray(np.full((14, 15, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    run = tmp_path / "photos.qscope"
    preprocessing = quantscope.Preprocessing(crop=12, scale=1 / 255, mean=(0.5, 0.4, 0.3))
    quantscope.diagnose(convolutions(), data=tmp_path, preprocessing=preprocessing, run=run, samples=2)
    assert arguments_of(run) == (
        "MODEL.onnx", "--data", str(tmp_path), "--crop", "12", "--scale", str(1 / 255), "--mean", "0.5,0.4,0.3",
        "--samples", "2",
    )  # fmt: skip
    assert arguments_of(wide) == (str(wide.parent / "model.onnx"), "--data", str(wide.parent / "samples.npy"))
