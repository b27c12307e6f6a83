"""The calls of Neural Compressor 2.x: the article's examples, every option, loaders, tuning and metrics."""

from __future__ import annotations

import inspect
import json
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import quantscope
from conftest import convolutions, images, make_model
from quantscope import workflows
from quantscope.backends.onnx import BACKEND, files, profiler
from quantscope.conversions.neural_compressor import from_op_dicts
from quantscope.errors import DataError, ModelError, OutputError, QuantscopeError, RecipeError, UnsupportedError
from quantscope.neural_compressor import (
    FP32,
    AccuracyCriterion,
    AccuracyWarning,
    BenchmarkConfig,
    CompatibilityWarning,
    Metric,
    PostTrainingQuantConfig,
    QuantizedModel,
    TuningCriterion,
    benchmark,
    diagnosing,
    options,
    quantization,
    set_workspace,
)
from quantscope.neural_compressor.limits import _ARGUMENTS_OF, _RECIPES
from quantscope.neural_compressor.metric import metric_of
from quantscope.neural_compressor.source import Source
from quantscope.neural_compressor.translation import left_in_float, recipe_of
from quantscope.recipe import Calibration, Recipe
from registry import registry_model
from test_real_models import text_lines

DOCUMENT = Path(__file__).parent.parent / "docs" / "neural-compressor.md"
ARTICLE = Path(__file__).parent.parent.parent / "shared" / "000_6d2b2c8a17705026.txt"
# The two examples as they are printed.
FALLBACK = """\
from neural_compressor import quantization, PostTrainingQuantConfig 
op_name_dict = {'v0/cg/conv0/conv2d/Conv2D': {'activation': {'dtype': ['fp32']}}}
config = PostTrainingQuantConfig(
diagnosis=True,
op_name_dict=op_name_dict
)
q_model = quantization.fit(model, config, calib_dataloader=dataloader, eval_func=eval)
"""  # noqa: W291
PER_CHANNEL = """\
from neural_compressor import quantization, PostTrainingQuantConfig 
op_name_dict = {'v0/cg/conv0/conv2d/Conv2D': {'weights': {'granularity': ['per_channel']}}}
config = PostTrainingQuantConfig(
diagnosis=True,
op_name_dict=op_name_dict
)
q_model = quantization.fit(model, config, calib_dataloader=dataloader, eval_func=eval)
"""  # noqa: W291
ITS_OP = "v0/cg/conv0/conv2d/Conv2D"


class Loader:
    """Batches as Neural Compressor's own examples give them: an array, and a list of labels."""

    def __init__(self, samples: NDArray[Any], batch_size: int = 1, labels: list[int] | None = None) -> None:
        self.samples, self.batch_size = samples, batch_size
        self.labels = labels if labels is not None else [0] * len(samples)
        self.given = 0

    def __iter__(self) -> Iterator[tuple[NDArray[Any], list[int]]]:
        for first in range(0, len(self.samples), self.batch_size):
            part = slice(first, first + self.batch_size)
            self.given += len(self.samples[part])
            yield self.samples[part], self.labels[part]


class Agreement:
    """An eval_func: the share of samples on which a model names the class that the float model names."""

    def __init__(self, model: onnx.ModelProto, samples: NDArray[Any]) -> None:
        self.samples = samples
        self.classes = self._classes(model)
        self.seen: list[Any] = []

    def __call__(self, model: onnx.ModelProto) -> float:
        self.seen.append(model)
        return float((self._classes(model) == self.classes).mean())

    def _classes(self, model: onnx.ModelProto) -> NDArray[Any]:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        classes: NDArray[Any] = session.run(None, {name: self.samples})[0].argmax(1)
        return classes


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for run files, and as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "workspace", ".")
    return tmp_path


def op_types(model: onnx.ModelProto) -> dict[str, str]:
    return {node.name: node.op_type for node in model.graph.node}


def fit(config: PostTrainingQuantConfig, model: Any = None, **others: Any) -> QuantizedModel:
    return quantization.fit(model or convolutions(), config, **{"calib_dataloader": Loader(images(8)), **others})


def figures(*values: float) -> Any:
    """An eval_func that returns one of these after the other."""
    left = iter(values)
    return lambda model: next(left)


# ---- the article


def with_its_op(name: str) -> tuple[onnx.ModelProto, NDArray[Any]]:
    """A model with an op of the name that the article's examples use, and samples for it."""
    model = convolutions() if name == "small" else onnx.load(registry_model(name))
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    first.name = ITS_OP
    return model, images(24) if name == "small" else text_lines(12, 192)


@pytest.mark.parametrize("code", [FALLBACK, PER_CHANNEL], ids=["fallback", "per channel"])
@pytest.mark.parametrize("name", ["small", "ppocrv2_cls"])
def test_the_articles_examples_run_with_the_import_line_changed(
    name: str, code: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if ARTICLE.exists():
        assert code in ARTICLE.read_text(), "the very text of the article"
    changed = code.replace("from neural_compressor", "from quantscope.neural_compressor")
    assert changed.splitlines()[1:] == code.splitlines()[1:], "the import line, and no other"
    model, samples = with_its_op(name)
    before = model.SerializeToString()
    evaluated = Agreement(model, samples)
    names: dict[str, Any] = {"model": model, "dataloader": Loader(samples, 2), "eval": evaluated}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        exec(changed, names)
    q_model = names["q_model"]
    assert model.SerializeToString() == before, "the original model is never changed"
    assert len(evaluated.seen) == 2, "the float model and one trial, as in Neural Compressor"
    rows = {t.op: t for t in q_model.diagnosis.weights}
    assert rows[ITS_OP].is_quantized == (code == PER_CHANNEL)
    assert sum(t.is_quantized for t in rows.values()) > 0
    if code == PER_CHANNEL:
        assert rows[ITS_OP].granularity.startswith("per channel")
    out = capsys.readouterr().out
    assert "accuracy: float 1, quantized" in out
    assert "run file: quantization.qscope" in " ".join(out.split())
    assert quantscope.open(workspace / "quantization.qscope").tensors == q_model.diagnosis.tensors
    q_model.save("saved.onnx")
    assert evaluated(onnx.load("saved.onnx")) == q_model.tuning.best.score.quantized


# ---- every option

SIGNATURE = (
    "device", "backend", "domain", "recipes", "quant_format", "inputs", "outputs", "approach",
    "calibration_sampling_size", "op_type_dict", "op_name_dict", "reduce_range", "example_inputs",
    "excluded_precisions", "quant_level", "accuracy_criterion", "tuning_criterion", "diagnosis", "ni_workload_name",
)  # fmt: skip
# name, value, and what it comes to: "same", or the error or the warning with words of it.
OPTIONS: list[tuple[str, Any, Any]] = [
    ("device", "cpu", "same"),
    ("device", "gpu", (UnsupportedError, "device='gpu'")),
    ("backend", "default", "same"),
    ("backend", "onnxrt_cuda_ep", (UnsupportedError, "backend='onnxrt_cuda_ep'")),
    ("domain", "auto", "same"),
    ("domain", "nlp", (CompatibilityWarning, "domain='nlp'")),
    ("domain", "speech", (RecipeError, "domain is 'speech'")),
    ("recipes", {}, "same"),
    ("recipes", [1], (RecipeError, "recipes is list")),
    ("recipes", {"smoothquant": True}, (RecipeError, "'smoothquant'")),
    ("quant_format", "default", "same"),
    ("quant_format", "QDQ", "same"),
    ("quant_format", "QOperator", "same"),
    ("quant_format", "qdq", (RecipeError, "quant_format is 'qdq'")),
    ("inputs", ["x"], (CompatibilityWarning, r"inputs=\['x'\]")),
    ("outputs", ["y"], (CompatibilityWarning, r"outputs=\['y'\]")),
    ("approach", "static", "same"),
    ("approach", "post_training_static_quant", "same"),
    ("approach", "dynamic", (UnsupportedError, "approach='dynamic'")),
    ("approach", "auto", (UnsupportedError, "approach='auto'")),
    ("approach", "weight_only", (UnsupportedError, "approach='weight_only'")),
    ("approach", "magic", (RecipeError, "approach is 'magic'")),
    ("calibration_sampling_size", 4, "same"),
    ("calibration_sampling_size", [4], "same"),
    ("calibration_sampling_size", [4, 8], (CompatibilityWarning, "4 is taken")),
    ("calibration_sampling_size", [], (RecipeError, "calibration_sampling_size")),
    ("calibration_sampling_size", 0, (RecipeError, "calibration_sampling_size")),
    ("op_type_dict", {"Relu": FP32}, "same"),
    ("op_name_dict", {"/stem/.*": FP32}, "same"),
    ("reduce_range", True, "same"),
    ("example_inputs", 1, (CompatibilityWarning, "example_inputs")),
    ("excluded_precisions", ["bf16"], "same"),
    ("excluded_precisions", ["int8"], (RecipeError, "excluded_precisions")),
    ("quant_level", "auto", "same"),
    ("quant_level", 1, "same"),
    ("quant_level", 0, (CompatibilityWarning, "quant_level=0")),
    ("quant_level", 2, (RecipeError, "quant_level is 2")),
    ("accuracy_criterion", AccuracyCriterion(criterion="absolute"), "same"),
    ("tuning_criterion", TuningCriterion(max_trials=3), "same"),
    ("diagnosis", True, "same"),
    ("ni_workload_name", "mine", "same"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "outcome"), OPTIONS, ids=lambda v: str(v)[:30])
def test_every_option_does_the_same_or_says_so_by_name(name: str, value: Any, outcome: Any) -> None:
    if outcome == "same":
        assert getattr(PostTrainingQuantConfig(**{name: value}), name) == value
        return
    kind, words = outcome
    if issubclass(kind, Warning):
        with pytest.warns(kind, match=words) as caught:
            PostTrainingQuantConfig(**{name: value})
        assert [w.filename for w in caught] == [__file__], "the line of the user's script is named"
    else:
        with pytest.raises(kind, match=words) as raised:
            PostTrainingQuantConfig(**{name: value})
        assert raised.value.accepted


def test_the_signatures_are_those_of_neural_compressor() -> None:
    assert tuple(inspect.signature(PostTrainingQuantConfig).parameters) == SIGNATURE
    assert {name for name, *_ in OPTIONS} == set(SIGNATURE)
    assert list(inspect.signature(quantization.fit).parameters)[:7] == [
        "model", "conf", "calib_dataloader", "calib_func", "eval_func", "eval_dataloader", "eval_metric",
    ]  # fmt: skip
    assert list(inspect.signature(TuningCriterion).parameters) == [
        "strategy", "strategy_kwargs", "timeout", "max_trials", "objective",
    ]  # fmt: skip
    assert list(inspect.signature(AccuracyCriterion).parameters) == ["higher_is_better", "criterion", "tolerable_loss"]
    assert tuple(inspect.signature(BenchmarkConfig).parameters) == BENCHMARK_SIGNATURE
    assert list(inspect.signature(benchmark.fit).parameters)[:4] == ["model", "conf", "b_dataloader", "b_func"]


RECIPES: dict[str, tuple[Any, Any]] = {
    # name: what differs from the default, and what it comes to
    "smooth_quant": (True, UnsupportedError),
    "smooth_quant_args": ({"alpha": 0.5}, None),
    "layer_wise_quant": (True, CompatibilityWarning),
    "layer_wise_quant_args": ({"a": 1}, None),
    "fast_bias_correction": (True, UnsupportedError),
    "weight_correction": (True, UnsupportedError),
    "gemm_to_matmul": (True, CompatibilityWarning),
    "graph_optimization_level": ("ENABLE_ALL", UnsupportedError),
    "first_conv_or_matmul_quantization": (False, None),
    "last_conv_or_matmul_quantization": (False, None),
    "pre_post_process_quantization": (False, None),
    "add_qdq_pair_to_weight": (True, UnsupportedError),
    "optypes_to_exclude_output_quant": (["Conv"], UnsupportedError),
    "dedicated_qdq_pair": (True, UnsupportedError),
    "rtn_args": ({"a": 1}, UnsupportedError),
    "awq_args": ({"a": 1}, UnsupportedError),
    "gptq_args": ({"a": 1}, UnsupportedError),
    "teq_args": ({"a": 1}, UnsupportedError),
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_entry_of_recipes_does_the_same_or_says_so_by_name(name: str) -> None:
    value, outcome = RECIPES[name]
    if outcome is None:
        PostTrainingQuantConfig(recipes={name: value})
    elif issubclass(outcome, Warning):
        with pytest.warns(outcome, match=name):
            PostTrainingQuantConfig(recipes={name: value})
    else:
        with pytest.raises(outcome, match=name):
            PostTrainingQuantConfig(recipes={name: value})
    assert set(RECIPES) == set(_RECIPES) | set(_ARGUMENTS_OF)


@pytest.mark.parametrize(
    ("name", "value"), [("strategy", "bayesian"), ("strategy_kwargs", {"a": 1}), ("objective", "modelsize")]
)
def test_other_ways_to_tune_are_warned_about(name: str, value: Any) -> None:
    with pytest.warns(CompatibilityWarning, match=name):
        TuningCriterion(**{name: value})


@pytest.mark.parametrize("arguments", [{"max_trials": 0}, {"timeout": -1}])
def test_limits_that_mean_nothing_are_errors(arguments: Any) -> None:
    with pytest.raises(RecipeError, match=next(iter(arguments))):
        TuningCriterion(**arguments)


def test_one_diagnosis_does_not_limit_the_trials_of_other_configurations() -> None:
    assert PostTrainingQuantConfig(diagnosis=True).tuning.max_trials == 1
    assert PostTrainingQuantConfig().tuning.max_trials == 100
    assert (
        PostTrainingQuantConfig(diagnosis=True, tuning_criterion=TuningCriterion(max_trials=7)).tuning.max_trials == 7
    )


def test_an_option_that_is_set_later_is_checked_too() -> None:
    config = PostTrainingQuantConfig()
    config.backend = "itex"
    with pytest.raises(UnsupportedError, match="itex"):
        fit(config)


def test_the_accuracy_criterion_can_be_set_as_scripts_do() -> None:
    criterion = AccuracyCriterion()
    assert (criterion.relative, criterion.absolute) == (0.01, None)
    criterion.absolute = 0.05
    assert (criterion.criterion, criterion.relative, criterion.absolute) == ("absolute", None, 0.05)
    criterion.relative = 0.02
    assert criterion.relative == 0.02
    with pytest.raises(RecipeError, match="percent"):
        AccuracyCriterion(criterion="percent")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("criterion", "baseline", "met", "missed"),
    [
        (AccuracyCriterion(), 0.8, 0.7921, 0.7919),
        (AccuracyCriterion(criterion="absolute"), 0.8, 0.7901, 0.7899),
        (AccuracyCriterion(higher_is_better=False), 2.0, 2.0199, 2.0201),
        (AccuracyCriterion(), -2.0, -2.0199, -2.0201),
        (AccuracyCriterion(), 0.0, 0.0, -0.0001),
        (AccuracyCriterion(), 0.5, 0.5, float("nan")),
    ],
)
def test_the_goal_is_a_share_or_a_difference(
    criterion: AccuracyCriterion, baseline: float, met: float, missed: float
) -> None:
    config = PostTrainingQuantConfig(accuracy_criterion=criterion, tuning_criterion=TuningCriterion(max_trials=1))
    q_model = fit(config, eval_func=figures(baseline, met))
    assert q_model.tuning is not None
    assert q_model.tuning.met
    assert (q_model.tuning.best.score.reference, q_model.tuning.best.score.quantized) == (baseline, met)
    with pytest.warns(AccuracyWarning, match="missed in 1 trial"):
        q_model = fit(config, eval_func=figures(baseline, missed))
    assert q_model.tuning is not None
    assert not q_model.tuning.met


# ---- what a configuration comes to


def test_the_default_format_is_qoperator_and_qdq_is_there() -> None:
    types = op_types(fit(PostTrainingQuantConfig()).model)
    assert "QLinearConv" in types.values()
    types = op_types(fit(PostTrainingQuantConfig(quant_format="QDQ")).model)
    assert {"Conv", "DequantizeLinear"} <= set(types.values())
    assert "QLinearConv" not in types.values()


def test_the_model_is_the_one_that_quantscope_makes_of_the_same_recipe(model: Path) -> None:
    samples = images(12)
    samples[6:] *= 100
    names = {"/stem/conv/Conv": FP32}
    types = {".*": {"activation": {"algorithm": ["kl"]}}}
    for quant_format in ("QDQ", "QOperator"):
        config = PostTrainingQuantConfig(
            quant_format=quant_format, op_name_dict=names, op_type_dict=types, calibration_sampling_size=6
        )
        loader = Loader(samples, 4)
        q_model = quantization.fit(str(model), config, calib_dataloader=loader)
        assert loader.given == 8, "no batch is read that is not needed"
        assert q_model.recipe.calibration == Calibration("entropy", 99.999)
        assert q_model.recipe.fallback_ops(BACKEND.load(model).graph) == {"/stem/conv/Conv"}
        q_model.save("one.onnx")
        quantscope.quantize(model, samples, "other.onnx", recipe=q_model.recipe, calibration_samples=6, batch_size=4)
        assert Path("one.onnx").read_bytes() == Path("other.onnx").read_bytes()


def test_a_reduced_range_and_a_type_in_float_are_as_asked_for() -> None:
    config = PostTrainingQuantConfig(quant_format="QDQ", reduce_range=True, op_type_dict={"MatMul": FP32})
    q_model = fit(config)
    codes = {t.name: numpy_helper.to_array(t) for t in q_model.initializer() if t.name.endswith("_quantized")}
    weights = [values for name, values in codes.items() if name.startswith("w")]
    assert len(weights) == 2, "the weight of the MatMul is as it was"
    assert all(np.abs(values.astype(int)).max() == 64 for values in weights)


def test_the_original_model_stays_as_it_was(model: Path) -> None:
    proto = onnx.load(model)
    before, content = proto.SerializeToString(), model.read_bytes()
    config = PostTrainingQuantConfig(recipes={"first_conv_or_matmul_quantization": False})
    fit(config, proto, eval_func=lambda given: given.graph.ClearField("node") or 1.0)
    fit(config, model)
    assert proto.SerializeToString() == before
    assert model.read_bytes() == content


def test_what_an_op_alone_shall_get_needs_qdq() -> None:
    names = {"/body/conv/Conv": {"weight": {"granularity": ["per_tensor"]}}}
    with pytest.raises(UnsupportedError, match=r"quant_format QOperator: '/body/conv/Conv'"):
        fit(PostTrainingQuantConfig(quant_format="QOperator", op_name_dict=names))
    with pytest.warns(CompatibilityWarning, match="quant_format is QDQ"):
        q_model = fit(PostTrainingQuantConfig(op_name_dict=names))
    assert q_model.recipe.format == "qdq"
    scales = {t.name: t.dims for t in q_model.initializer() if t.name.endswith("scale")}
    assert (list(scales["w1_scale"]), list(scales["w2_scale"])) == ([8], [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"op_name_dict": {"/stem/Conv": FP32}}, "/stem/conv/Conv"),
        ({"op_type_dict": {"Conv": {"activation": {"algorithm": ["kl"]}}}}, r"op_type_dict\['Conv'\]: algorithm kl"),
        ({"op_name_dict": {"/stem/conv/Conv": {"weight": {"bits": [4]}}}}, "weight bits 4"),
        ({"op_name_dict": {"/stem/conv/Conv": {"activation": {"dtype": ["fp8"]}}}}, "dtype fp8"),
        ({"op_name_dict": {"/stem/conv/Conv": 8}}, r"op_name_dict\['/stem/conv/Conv'\] is 8"),
    ],
)
def test_an_entry_that_cannot_be_had_is_an_error(arguments: Any, words: str) -> None:
    with pytest.raises(QuantscopeError, match=words):
        fit(PostTrainingQuantConfig(**arguments))


def test_an_entry_that_is_a_choice_is_warned_about() -> None:
    names = {"/stem/conv/Conv": {"activation": {"scheme": ["asym", "sym"]}}}
    with pytest.warns(CompatibilityWarning, match="asym is taken"):
        fit(PostTrainingQuantConfig(op_name_dict=names))


def test_an_algorithm_is_compared_with_that_of_all_ops_wherever_it_stands() -> None:
    kl = {"activation": {"algorithm": ["kl"]}}
    assert from_op_dicts({"a": kl}, {"Conv": kl, ".*": kl}, strict=True)[1] == ()
    assert "algorithm kl for some ops alone" in from_op_dicts({"a": kl})[1][0], "also where an entry says nothing else"
    with pytest.raises(UnsupportedError, match=r"op_type_dict\['Conv'\]"):
        from_op_dicts(None, {"Conv": {"activation": {"algorithm": ["minmax"]}}, ".*": kl}, strict=True)


def test_ops_that_recipes_leave_in_float() -> None:
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"], name="pre"),
        helper.make_node("Conv", ["s", "w"], ["c1"], name="first"),
        helper.make_node("Sigmoid", ["x"], ["g"], name="gate"),
        helper.make_node("Mul", ["c1", "g"], ["m"], name="between"),
        helper.make_node("Conv", ["m", "w"], ["c2"], name="last"),
        helper.make_node("Relu", ["c2"], ["y"], name="post"),
    ]
    weights = {"w": np.ones((3, 3, 1, 1), np.float32)}
    graph = BACKEND.load(make_model(nodes, {"x": ["N", 3, 4, 4]}, {"y": ["N", 3, 4, 4]}, weights)).graph
    for recipes, kept in (
        ({}, []),
        ({"first_conv_or_matmul_quantization": False}, ["first"]),
        ({"last_conv_or_matmul_quantization": False}, ["last"]),
        ({"pre_post_process_quantization": False}, ["pre", "post"]),
        ({"first_conv_or_matmul_quantization": True, "pre_post_process_quantization": True}, []),
    ):
        assert left_in_float(recipes, graph) == kept
    recipes = {"first_conv_or_matmul_quantization": False, "last_conv_or_matmul_quantization": False}
    types = op_types(fit(PostTrainingQuantConfig(recipes=recipes)).model)
    assert (types["/stem/conv/Conv"], types["/head/fc/MatMul"]) == ("Conv", "MatMul")
    assert "QLinearConv" in types.values()


# ---- data loaders


class Torch:
    """What a PyTorch tensor answers to."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def detach(self) -> Torch:
        return self

    def cpu(self) -> Torch:
        return self

    def numpy(self) -> NDArray[Any]:
        return self.array


X = images(6)


@pytest.mark.parametrize(
    "batches",
    [
        [(X[:4], [1, 2, 3, 4]), (X[4:], [1, 2])],
        [(X[:4], None), (X[4:], None)],
        [(X[:4], 0), (X[4:], 0)],
        [({"x": X[:4]}, [{"boxes": 1}] * 4), ({"x": X[4:]}, "unread")],
        [[Torch(X[:4]), Torch(np.zeros(4))], [Torch(X[4:]), Torch(np.zeros(2))]],
        [(list(X[:4]), [0] * 4), (list(X[4:]), [0] * 2)],
        [X[:4], X[4:]],
        [(x, 0) for x in X],
    ],
    ids=["lists", "none", "stand-ins", "dicts", "tensors", "lists of arrays", "no labels", "lone samples"],
)
def test_batches_come_in_many_forms_and_labels_do_not_matter(batches: list[Any]) -> None:
    expected = fit(PostTrainingQuantConfig(), calib_dataloader=Loader(X)).model.SerializeToString()
    assert fit(PostTrainingQuantConfig(), calib_dataloader=batches).model.SerializeToString() == expected


def two_inputs() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["m"], name="matmul"),
        helper.make_node("Add", ["m", "b"], ["y"], name="add"),
    ]
    weights = {"w": np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)}
    return make_model(nodes, {"a": ["N", 3], "b": ["N", 5]}, {"y": ["N", 5]}, weights)


def test_a_model_with_several_inputs_takes_them_by_position_or_by_name() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    models = [
        fit(PostTrainingQuantConfig(), two_inputs(), calib_dataloader=[(inputs, 0)]).model.SerializeToString()
        for inputs in ((a, b), [a, b], {"b": b, "a": a})
    ]
    assert models[0] == models[1] == models[2]
    with pytest.raises(DataError, match="2 inputs"):
        fit(PostTrainingQuantConfig(), two_inputs(), calib_dataloader=[((a,), 0)])


@pytest.mark.parametrize(
    ("others", "error", "words"),
    [
        ({"calib_dataloader": None}, DataError, "calib_dataloader of type NoneType"),
        ({"calib_dataloader": iter([(X, 0)])}, DataError, "only once"),
        ({"calib_dataloader": []}, DataError, "no samples"),
        ({"calib_dataloader": [(X[:, :2], 0)]}, DataError, "shape"),
        ({"calib_func": print}, UnsupportedError, "calib_func"),
        ({"q_hooks": {}}, UnsupportedError, "q_hooks"),
        ({"eval_dataloader": [(X, 0)]}, DataError, "eval_dataloader is given without eval_metric"),
        ({"eval_metric": {"topk": 1}}, DataError, "eval_metric is given without eval_dataloader"),
        ({"eval_func": lambda model: [1, 2]}, UnsupportedError, "2 figures"),
        ({"eval_func": lambda model: "good"}, DataError, "'good'"),
        ({"eval_func": lambda model: None}, DataError, "None"),
        ({"model": "missing.onnx"}, ModelError, "no such model file"),
    ],
)
def test_a_mistake_is_named(others: dict[str, Any], error: type[QuantscopeError], words: str) -> None:
    with pytest.raises(error, match=words):
        fit(PostTrainingQuantConfig(), **others)


def test_a_configuration_of_another_package_is_refused() -> None:
    config: Any = object()
    with pytest.raises(DataError, match="conf is object"):
        fit(config)


def test_what_an_eval_func_raises_comes_through() -> None:
    def broken(model: Any) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(PostTrainingQuantConfig(), eval_func=broken)


def test_an_eval_func_gets_the_path_of_a_model_that_is_too_large_for_a_message(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def evaluate(given: Any) -> float:
        seen.append(given)
        assert onnx.load(given).graph.node
        return 1.0

    monkeypatch.setattr(files, "_LARGEST_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(files, "_LARGEST_MESSAGE_BYTES", 0)
    q_model = fit(PostTrainingQuantConfig(), onnx.load(model), eval_func=evaluate)
    assert len(seen) == 2
    assert not any(Path(path).exists() for path in seen), "the files are gone afterwards"
    assert len(q_model.nodes()) > 0


# ---- the result


def test_the_result_has_the_calls_of_neural_compressors_model(tmp_path: Path) -> None:
    q_model = fit(PostTrainingQuantConfig())
    assert (q_model.input(), q_model.output()) == (["x"], ["logits"])
    assert q_model.graph().node[0].name == q_model.nodes()[0].name
    assert q_model.diagnosis is None
    assert q_model.tuning is None
    q_model.model.producer_name = "changed by hand"
    q_model.save(tmp_path / "int8.onnx")
    assert onnx.load(tmp_path / "int8.onnx").producer_name == "changed by hand"
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "no" / "int8.onnx", "no such folder")):
        with pytest.raises(OutputError, match=words):
            q_model.save(path)


def test_a_diagnosis_looks_at_samples_that_did_not_calibrate() -> None:
    config = PostTrainingQuantConfig(diagnosis=True, calibration_sampling_size=10, ni_workload_name="mine")
    q_model = fit(config, calib_dataloader=Loader(images(24)))
    assert q_model.diagnosis is not None
    assert q_model.diagnosis.samples["evaluation"] == 14
    again = fit(config, calib_dataloader=Loader(images(10)))
    assert again.diagnosis is not None
    assert again.diagnosis.samples["evaluation"] == 10, "there are no others"
    assert sorted(path.name for path in Path().glob("mine*")) == [
        "mine-2.int8.onnx", "mine-2.qscope", "mine.int8.onnx", "mine.qscope",
    ]  # fmt: skip
    assert Path("mine.int8.onnx").read_bytes() == q_model.model.SerializeToString()


def test_a_diagnosis_takes_the_samples_to_evaluate_and_at_most_64() -> None:
    set_workspace("deep/workspace")
    held_out = Loader(images(100, seed=3), 10)
    q_model = fit(
        PostTrainingQuantConfig(diagnosis=True), eval_dataloader=held_out, eval_metric={"topk": 1},
        calib_dataloader=Loader(images(24)),
    )  # fmt: skip
    assert q_model.diagnosis is not None
    assert q_model.diagnosis.samples["evaluation"] == diagnosing.DIAGNOSED_SAMPLES == 64
    assert Path("deep/workspace/quantization.qscope").exists()


def test_a_diagnosis_that_fails_leaves_the_quantized_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any, **others: Any) -> None:
        raise OutputError("disk full")

    monkeypatch.setattr(workflows, "diagnose", fails)
    with pytest.raises(OutputError) as raised:
        fit(PostTrainingQuantConfig(diagnosis=True))
    assert raised.value.__notes__ == ["the quantized model was written before: quantization.int8.onnx"]
    assert onnx.load("quantization.int8.onnx").graph.node


def test_a_workspace_that_cannot_be_made_is_an_error_before_the_work() -> None:
    Path("file").write_text("")
    set_workspace("file/inside")
    with pytest.raises(OutputError, match="file/inside"):
        fit(PostTrainingQuantConfig(diagnosis=True))


# ---- tuning

CHANGES = ["as configured", "calibration entropy", "calibration percentile 99.999", "weights per channel"]


def culprit(name: str) -> Any:
    """An eval_func by which a model is good if it is float, or if one op in it is."""

    def evaluate(model: onnx.ModelProto) -> float:
        types = op_types(model)
        quantized = any(op_type.startswith("QLinear") for op_type in types.values())
        return 0.9 if not quantized or types.get(name, "").startswith("Conv") else 0.5

    return evaluate


def test_tuning_finds_the_op_to_leave_in_float() -> None:
    q_model = fit(PostTrainingQuantConfig(), eval_func=culprit("/body/conv/Conv"))
    found = q_model.tuning
    assert found is not None
    assert found.met
    assert [t.change for t in found.trials[:3]] == CHANGES[:3]
    assert all("in float" in t.change for t in found.trials[3:])
    assert found.best.fallback == ("/body/conv/Conv",)
    assert found.best.quantized_share == pytest.approx(5 / 6)
    assert op_types(q_model.model)["/body/conv/Conv"] == "Conv"
    assert found.best.recipe == q_model.recipe
    assert found.criterion.goal(found.best.score) == pytest.approx(0.891)
    assert math.isnan(found.best.score.low), "an eval_func says nothing of single samples"


def test_the_best_model_is_returned_where_none_meets_the_criterion() -> None:
    config = PostTrainingQuantConfig(tuning_criterion=TuningCriterion(max_trials=2))
    with pytest.warns(AccuracyWarning, match=r"float 0\.9, quantized 0\.5, goal 0\.891 missed in 2 trials") as caught:
        q_model = fit(config, eval_func=culprit("/body/conv/Conv"))
    assert q_model.tuning is not None
    assert not q_model.tuning.met
    assert any("QLinear" in op_type for op_type in op_types(q_model.model).values())
    assert caught[0].filename.endswith("test_neural_compressor.py")


def test_the_op_that_matters_most_at_the_output_comes_first() -> None:
    """A weight that meets nothing but zeros is so large that it ruins the rest of its tensor."""
    broken = convolutions()
    weight = next(t for t in broken.graph.initializer if t.name == "w1")
    values = numpy_helper.to_array(weight).copy()
    values[0, 2, 0, 0] = 400.0
    weight.CopyFrom(numpy_helper.from_array(values, "w1"))
    samples = images(16)
    samples[:, 2] = 0
    types = {".*": {"weight": {"granularity": ["per_tensor"]}}}
    for quant_format in ("QDQ", "QOperator"):
        config = PostTrainingQuantConfig(quant_format=quant_format, op_type_dict=types)
        source = Source.of(broken, Loader(samples, 4), 8)
        recipe, _ = recipe_of(config, source.backend, source.reference, source.quantizer.prepared)
        ranked = source.ranked(recipe)
        measured = quantscope.sensitivity(broken, data=samples, recipe=recipe, calibration_samples=8)
        assert ranked[0] == measured.ops[0].op == "/stem/conv/Conv"
        assert sorted(ranked) == sorted(op.name for op in source.quantizer.prepared.graph.ops), "those beyond it too"
        in_float = recipe.with_fallback(ranked[:1])
        assert ranked[0] not in source.ranked(in_float)


def test_samples_are_read_once_for_all_methods_of_calibration() -> None:
    loader = Loader(images(8), 4)
    config = PostTrainingQuantConfig(tuning_criterion=TuningCriterion(max_trials=3))
    with pytest.warns(AccuracyWarning):
        fit(config, calib_dataloader=loader, eval_func=figures(1.0, 0.5, 0.6, 0.4))
    assert loader.given == 8


def test_time_is_a_limit_if_it_is_not_0() -> None:
    for timeout, trials in ((0, 3), (1e-9, 1)):
        config = PostTrainingQuantConfig(tuning_criterion=TuningCriterion(timeout=timeout, max_trials=3))
        with pytest.warns(AccuracyWarning, match=f"missed in {trials} trial"):
            fit(config, eval_func=figures(1.0, 0.5, 0.6, 0.4))


def test_where_less_is_better_the_least_figure_is_the_best() -> None:
    config = PostTrainingQuantConfig(
        accuracy_criterion=AccuracyCriterion(higher_is_better=False), tuning_criterion=TuningCriterion(max_trials=3)
    )
    with pytest.warns(
        AccuracyWarning, match=r"float 1, quantized 1\.2, goal 1\.01 missed in 3 trials \(calibration ent"
    ):
        q_model = fit(config, eval_func=figures(1.0, 1.5, 1.2, 1.3))
    assert q_model.recipe.calibration.method == "entropy"


@pytest.mark.parametrize(
    ("entry", "changes"),
    [
        ({}, CHANGES[:3]),
        ({"activation": {"algorithm": ["kl"]}}, ["as configured"]),
        ({"activation": {"algorithm": "minmax"}}, ["as configured"]),
        ({"weight": {"granularity": ["per_tensor"]}}, CHANGES[:3]),
    ],
)
def test_tuning_keeps_what_the_configuration_fixes(entry: Any, changes: list[str]) -> None:
    trials = TuningCriterion(max_trials=len(changes))
    config = PostTrainingQuantConfig(op_type_dict={".*": entry}, tuning_criterion=trials)
    with pytest.warns(AccuracyWarning):
        q_model = fit(config, eval_func=lambda model: float("QLinearConv" not in op_types(model).values()))
    assert q_model.tuning is not None
    assert [trial.change for trial in q_model.tuning.trials] == changes


def test_tuning_takes_a_choice_that_is_given() -> None:
    types = {".*": {"weight": {"granularity": ["per_tensor", "per_channel"]}}}
    config = PostTrainingQuantConfig(op_type_dict=types, tuning_criterion=TuningCriterion(max_trials=4))
    with pytest.warns(UserWarning, match="per_tensor is taken|missed"):
        q_model = fit(config, eval_func=lambda model: float("QLinearConv" not in op_types(model).values()))
    assert q_model.tuning is not None
    assert [trial.change for trial in q_model.tuning.trials] == CHANGES
    assert not q_model.tuning.trials[0].recipe.per_channel
    assert replace(q_model.tuning.trials[0].recipe, weights=Recipe().weights) == q_model.tuning.trials[3].recipe


# ---- metrics


class TopK:
    """A metric as Neural Compressor's own examples have it."""

    def __init__(self, k: int = 1) -> None:
        self.k, self.batches = k, 0
        self.right = self.samples = 0

    def reset(self) -> None:
        self.right = self.samples = 0

    def update(self, preds: Any, labels: Any) -> None:
        self.batches += 1
        assert isinstance(preds, list)
        assert isinstance(labels, list)
        scores = np.array(preds).reshape(-1, np.array(preds).shape[-1])
        self.right += sum(label in row.argsort()[-self.k :] for row, label in zip(scores, labels, strict=True))
        self.samples += len(scores)

    def result(self) -> float:
        return self.right / self.samples


@pytest.mark.parametrize(
    "metric",
    [TopK(2), Metric(name="topk", k=2), {"topk": {"k": 2}}, {"topk": 2}, Metric(metric_cls=TopK, k=2)],
    ids=["object", "Metric", "dict", "short dict", "class"],
)
def test_a_metric_on_batches_gives_what_an_eval_func_gives(metric: Any) -> None:
    samples, labels = images(30, seed=4), [i % 10 for i in range(30)]

    def expected(model: onnx.ModelProto) -> float:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        scores = session.run(None, {"x": samples})[0]
        best = np.argsort(-scores, axis=1)[:, :2]
        return float(np.mean([label in row for label, row in zip(labels, best, strict=True)]))

    criterion = AccuracyCriterion(tolerable_loss=1.0)
    q_model = fit(
        PostTrainingQuantConfig(accuracy_criterion=criterion),
        eval_dataloader=Loader(samples, 7, labels), eval_metric=metric,
    )  # fmt: skip
    assert q_model.tuning is not None
    assert q_model.tuning.best.score.reference == pytest.approx(expected(convolutions()))
    assert q_model.tuning.best.score.quantized == pytest.approx(expected(q_model.model))


def test_the_built_in_metrics_are_what_their_names_say() -> None:
    rng = np.random.default_rng(0)
    outputs, wanted = rng.normal(size=(10, 4)), rng.normal(size=(10, 4))
    difference = outputs - wanted
    for name, expected in (
        ("MSE", (difference**2).mean()), ("RMSE", np.sqrt((difference**2).mean())), ("MAE", np.abs(difference).mean()),
        ("Accuracy", (outputs.argmax(1) == wanted.argmax(1)).mean()),
    ):  # fmt: skip
        metric = metric_of({name: {}})
        for _ in range(2):
            metric.reset()
            metric.update([outputs[:6]], [wanted[:6]])
            metric.update([outputs[6:]], [wanted[6:]])
            assert metric.result() == pytest.approx(expected), name
    topk = metric_of({"topk": 3})
    topk.update([outputs], [wanted.argmax(1)])
    best = np.argsort(-outputs, axis=1)[:, :3]
    assert topk.result() == (best == wanted.argmax(1)[:, None]).any(1).mean()
    with pytest.raises(DataError, match="labels of shape"):
        topk.update([outputs], [[1, 2, 3]])
    with pytest.raises(DataError, match="labels of shape"):
        metric_of({"MSE": {}}).update([outputs], [[1, 2, 3]])


@pytest.mark.parametrize(
    ("metric", "error", "words"),
    [
        ({"COCOmAPv2": {}}, UnsupportedError, "'COCOmAPv2'"),
        (Metric(name="F1"), UnsupportedError, "'F1'"),
        ({"MSE": {"compare_label": False}}, UnsupportedError, "compare_label=False"),
        ({"topk": {"m": 1}}, UnsupportedError, "'topk' with m"),
        ({"topk": 1, "MSE": {}, "weight": [0.5, 0.5]}, UnsupportedError, "several entries: topk, MSE, weight"),
        (object(), DataError, "no reset, update, result"),
    ],
)
def test_a_metric_that_there_is_not_is_named(metric: Any, error: type[QuantscopeError], words: str) -> None:
    with pytest.raises(error, match=words):
        metric_of(metric)


def test_batches_to_evaluate_are_pairs() -> None:
    with pytest.raises(DataError, match=r"accepted: \(inputs, labels\)"):
        fit(PostTrainingQuantConfig(), eval_dataloader=[X], eval_metric={"topk": 1})


def test_what_an_eval_func_makes_needless_is_said() -> None:
    with pytest.warns(CompatibilityWarning, match="eval_metric changes nothing"):
        fit(PostTrainingQuantConfig(), eval_func=lambda model: 1.0, eval_metric={"topk": 1})
    with pytest.warns(CompatibilityWarning, match="eval_dataloader changes nothing"):
        fit(PostTrainingQuantConfig(), eval_func=lambda model: 1.0, eval_dataloader=Loader(X))


# ---- benchmark.fit

BENCHMARK_SIGNATURE = (
    "inputs", "outputs", "backend", "device", "warmup", "iteration", "model_name", "cores_per_instance",
    "num_of_instance", "inter_num_of_threads", "intra_num_of_threads", "diagnosis", "ni_workload_name",
)  # fmt: skip
BENCHMARK_OPTIONS: list[tuple[str, Any, Any]] = [
    ("inputs", ["x"], CompatibilityWarning),
    ("outputs", ["y"], CompatibilityWarning),
    ("backend", "onnxrt_cuda_ep", UnsupportedError),
    ("device", "gpu", UnsupportedError),
    ("warmup", 10, None),
    ("warmup", -1, RecipeError),
    ("iteration", 100, None),
    ("iteration", 0, RecipeError),
    ("model_name", "resnet", CompatibilityWarning),
    ("cores_per_instance", 4, None),
    ("cores_per_instance", 0, RecipeError),
    ("num_of_instance", 2, UnsupportedError),
    ("inter_num_of_threads", 4, CompatibilityWarning),
    ("intra_num_of_threads", 2, None),
    ("intra_num_of_threads", "all", RecipeError),
    ("diagnosis", True, None),
    ("ni_workload_name", "mine", None),
]


@pytest.mark.parametrize(("name", "value", "outcome"), BENCHMARK_OPTIONS, ids=lambda v: str(v)[:30])
def test_every_option_of_a_benchmark_does_the_same_or_says_so_by_name(name: str, value: Any, outcome: Any) -> None:
    given = {name: value}
    if outcome is None:
        assert getattr(BenchmarkConfig(**given), name) == value
    elif issubclass(outcome, Warning):
        with pytest.warns(outcome, match=name) as caught:
            BenchmarkConfig(**given)
        assert [w.filename for w in caught] == [__file__]
    else:
        with pytest.raises(outcome, match=name) as raised:
            BenchmarkConfig(**given)
        assert raised.value.accepted


def test_a_benchmark_says_latency_and_throughput_as_neural_compressor_does(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loader = Loader(images(20), 4)
    conf = BenchmarkConfig(warmup=3, iteration=9, intra_num_of_threads=1)
    found = benchmark.fit(str(model), conf, b_dataloader=loader)
    assert found.latency is not None
    assert found.latency_ms is not None
    assert (found.batch_size, found.latency.runs, found.profile) == (4, 9, None)
    assert loader.given == 4 * (3 + 9), "the loader begins anew, and warming up takes nothing from what is measured"
    assert found.throughput == pytest.approx(1000 / found.latency_ms)
    out = capsys.readouterr().out
    assert re.search(r"Batch size = 4\nLatency: [\d.]+ ms\nThroughput: [\d.]+ images/sec\n", out)
    assert "9 runs after 3 to warm up" in out
    assert not list(Path().glob("*.qscope"))


def test_a_benchmark_goes_through_the_loader_once_and_weighs_a_short_batch_by_its_samples(model: Path) -> None:
    found = benchmark.fit(onnx.load(model), config=BenchmarkConfig(warmup=0), b_dataloader=Loader(images(10), 4))
    assert found.latency is not None
    assert found.latency.runs == 3
    q_model = quantization.fit(str(model), PostTrainingQuantConfig(), calib_dataloader=Loader(images(8)))
    found = benchmark.fit(q_model, BenchmarkConfig(iteration=2), b_dataloader=Loader(images(2)))
    assert found.batch_size == 1


def test_a_function_of_ones_own_gets_the_model(model: Path) -> None:
    seen: list[Any] = []
    assert benchmark.fit(str(model), BenchmarkConfig(), b_func=seen.append) == benchmark.Benchmark()
    assert isinstance(seen[0], onnx.ModelProto)
    with pytest.warns(CompatibilityWarning, match="diagnosis"):
        benchmark.fit(str(model), BenchmarkConfig(diagnosis=True), b_func=seen.append)


def test_a_benchmark_is_told_what_it_needs(model: Path) -> None:
    with pytest.raises(DataError, match="neither b_dataloader nor b_func"):
        benchmark.fit(str(model), BenchmarkConfig())
    with pytest.raises(DataError, match="conf is NoneType"):
        benchmark.fit(str(model), b_dataloader=Loader(X))
    with pytest.raises(DataError, match="gave no batch"):
        benchmark.fit(str(model), BenchmarkConfig(iteration=3), b_dataloader=Loader(images(0)))
    with pytest.raises(DataError, match="b_dataloader of type int"):
        benchmark.fit(str(model), BenchmarkConfig(), b_dataloader=3)


def test_a_profile_has_a_row_for_each_op_and_counts_kernels(
    model: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neural Compressor sums the ops of a type under "Node name", runs the model once without warming it up, and calls
    the number of events "OP defined"."""
    set_workspace(workspace / "kept")
    conf = BenchmarkConfig(diagnosis=True, iteration=2, intra_num_of_threads=1)
    found = benchmark.fit(str(model), conf, b_dataloader=Loader(images(8), 2))
    assert found.profile is not None
    assert found.profile.batch == 2
    entries = json.loads((workspace / "kept/profiling_data.json").read_text())
    names = {op for entry in entries for op in entry["ops"]}
    assert {"/stem/conv/Conv", "/body/conv/Conv", "/head/fc/MatMul"} <= {entry["node_name"] for entry in entries}
    assert {"/stem/relu/Relu", "/head/pool/GlobalAveragePool"} <= names
    for entry, row in zip(entries, found.profile.ops, strict=True):
        assert row.reference is not None
        assert entry["op_defined"] == len(row.reference.kernels)
        assert entry["op_run"] == sum(kernel.calls for kernel in row.reference.kernels)
        assert entry["total_execution_time"] == pytest.approx(sum(k.us for k in row.reference.kernels), abs=2e-3)
        assert entry["accelerator_execution_time"] == 0
        assert entry["cpu_execution_time"] == entry["total_execution_time"]
    table = (workspace / "kept/profiling_table.csv").read_text().splitlines()
    assert table[0] == (
        "Node name,Total execution time [us],Accelerator execution time [us],CPU execution time [us],OP run,OP defined"
    )
    assert [line.split(",")[0] for line in table[1:]] == [entry["node_name"] for entry in entries]
    out = capsys.readouterr().out
    head, first = out[out.index("Node name") :].split("/", 1)[0], out[out.index("/") :].splitlines()[0]
    assert " ".join(re.sub(r"\n", " ", head).split()).count("[us]") == 3
    assert "OP run" in " ".join(head.split())
    assert first.split() == [entries[0]["node_name"], *_figures(entries[0])]
    assert "Latency: " in out
    kept = workflows.open_profile(workspace / "kept/profiling.qscope")
    assert kept is not None
    assert kept.ops == found.profile.ops


def _figures(entry: dict[str, Any]) -> list[str]:
    columns = ("total_execution_time", "accelerator_execution_time", "cpu_execution_time", "op_run", "op_defined")
    return [f"{entry[column]:.0f}" for column in columns]


def test_the_first_runs_of_a_profile_do_not_count(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    kernels = profiler.Profiler._kernels

    def watched(self: profiler.Profiler, runs: Any) -> Any:
        counted.append((len(made), len(self._runs), len(runs)))
        return kernels(self, runs)

    made, run = [], profiler.Profiler.run

    def counting(self: profiler.Profiler, inputs: Any) -> Any:
        made.append(1)
        return run(self, inputs)

    monkeypatch.setattr(profiler.Profiler, "_kernels", watched)
    monkeypatch.setattr(profiler.Profiler, "run", counting)
    benchmark.fit(str(model), BenchmarkConfig(diagnosis=True, iteration=1), b_dataloader=Loader(images(2)))
    # What comes later measures the processor.
    runs, recorded, kept = counted[0]
    assert recorded == runs
    assert 5 <= kept <= (runs - 2) / 2 + 1, "the first ones are left out, and the slower half of the others"


# ---- what there is not


def test_what_there_is_not_is_said_by_name() -> None:
    with pytest.raises(UnsupportedError, match="benchmark_with_raw_cmd"):
        exec("from quantscope.neural_compressor.benchmark import benchmark_with_raw_cmd")
    with pytest.raises(UnsupportedError, match="MixedPrecisionConfig"):
        exec("from quantscope.neural_compressor import MixedPrecisionConfig")
    with pytest.raises(ImportError):
        exec("from quantscope.neural_compressor import Nonsense")


# ---- the documentation


def test_the_documentations_code_runs(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {"dataloader": Loader(images(24), 4), "eval": Agreement(onnx.load(model), images(24))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)
        for block in blocks:
            exec(block, names)
    assert Path("int8.onnx").exists()
    assert Recipe.load("recipe.toml") == names["q_model"].recipe
    assert "as configured" in capsys.readouterr().out


def test_the_documentation_names_every_option() -> None:
    text = DOCUMENT.read_text()
    for name in (*SIGNATURE, *RECIPES, *BENCHMARK_SIGNATURE):
        assert f"`{name}`" in text, name
