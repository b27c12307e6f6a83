"""Recipes: the file, what rules select, what the quantized model really has, other tools' forms, the commands."""

from __future__ import annotations

import json
import random
import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from conftest import convolutions, images, make_model
from quantscope import Calibration, OpRule, Recipe, Samples
from quantscope.backends.base import Model
from quantscope.backends.onnx import BACKEND, quantization
from quantscope.backends.onnx.assignment import assign
from quantscope.backends.onnx.blocks import block_qparams
from quantscope.calibration import calibrate
from quantscope.cli import main
from quantscope.conversions import neural_compressor
from quantscope.conversions import onnxruntime as ort_arguments
from quantscope.errors import OutputError, RecipeError
from quantscope.graph import Graph, Op
from quantscope.qparams import Granularity, PerTensor, QuantSpec
from quantscope.recipe import PER_CHANNEL, SpecChange, per_block
from quantscope.recipe_file import text
from quantscope.statistics import TensorStatistics
from quantscope.statistics.ranges import calibrated_range
from registry import registry_model

ROOT = Path(__file__).parent.parent
DTYPES: Any = ("int4", "uint4", "int8", "uint8", "int16", "uint16")
FP32 = {"weight": {"dtype": ["fp32"]}, "activation": {"dtype": ["fp32"]}}


# ---- the file

granularities = st.one_of(
    st.sampled_from([PerTensor(), PER_CHANNEL]), st.builds(per_block, st.integers(1, 4096))
)  # fmt: skip
changes = st.builds(
    SpecChange, st.none() | st.sampled_from(DTYPES), st.none() | st.booleans(), st.none() | granularities
)
specs = st.builds(
    lambda dtype, symmetric, granularity: QuantSpec.from_dtype(dtype, symmetric=symmetric, granularity=granularity),
    st.sampled_from(DTYPES), st.booleans(), granularities,
)  # fmt: skip
# TOML holds every character but lone surrogates.
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
rules = st.builds(
    OpRule, names, st.sampled_from(["name", "type", "scope"]), st.none() | changes, st.none() | changes
) | st.builds(OpRule, names.map(re.escape), st.just("regex"))
recipes = st.builds(
    Recipe,
    format=st.sampled_from(["qdq", "qoperator"]),
    activations=specs,
    weights=specs,
    op_types=st.none() | st.lists(names, min_size=1, max_size=3).map(tuple),
    rules=st.lists(rules, max_size=5).map(tuple),
    calibration=st.builds(
        Calibration,
        st.sampled_from(["minmax", "percentile", "entropy", "mse"]),
        st.floats(50, 100, exclude_min=True),
    ),
    reduce_range=st.booleans(),
)


@settings(deadline=None, max_examples=150)
@given(recipe=recipes)
def test_a_recipe_survives_its_file_and_its_plain_form(recipe: Recipe) -> None:
    assert Recipe.from_dict(tomllib.loads(text(recipe))) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_a_file_is_written_as_one_writes_it_by_hand(tmp_path: Path) -> None:
    recipe = Recipe(rules=(OpRule("Softmax", "type"), OpRule("a", weights=SpecChange("int4", None, per_block(32)))))
    recipe.save(tmp_path / "recipe.toml")
    assert (
        (tmp_path / "recipe.toml")
        .read_text()
        .endswith(
            '[[rules]]\ntype = "Softmax"\nfallback = true\n\n'
            '[[rules]]\nop = "a"\nweights = { dtype = "int4", granularity = "per_block", block_size = 32 }\n'
        )
    )
    assert Recipe.load(tmp_path / "recipe.toml") == recipe
    with pytest.raises(OutputError, match="cannot write"):
        recipe.save(tmp_path / "no" / "recipe.toml")


def test_what_a_file_leaves_out_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    assert Recipe.load(tmp_path / "empty.toml") == Recipe()
    assert Recipe.from_dict({"weights": {"dtype": "uint8"}}).weights == QuantSpec(8, False, False, PER_CHANNEL)
    assert Recipe.from_dict({"weights": {"dtype": "int4"}}).weights.symmetric


def test_run_files_of_version_0_1_still_load() -> None:
    old = {
        "format": "qoperator",
        "activations": {"dtype": "int8", "symmetric": True},
        "weights": {"dtype": "int8", "symmetric": True, "per_channel": False},
        "op_types": None,
        "rules": [{"selector": "/head/*", "by": "name"}, {"selector": "Add", "by": "type"}],
        "calibration": {"method": "percentile", "percentile": 99.9},
        "reduce_range": True,
    }
    assert Recipe.from_dict(old) == Recipe(
        format="qoperator",
        activations=QuantSpec(8, True, True),
        weights=QuantSpec(8, granularity=PerTensor()),
        rules=(OpRule("/head/*"), OpRule("Add", "type")),
        calibration=Calibration("percentile", 99.9),
        reduce_range=True,
    )


# ---- rules


def graph_of_names(*ops: tuple[str, str, str]) -> Graph:
    return Graph(tuple(Op(name, kind, (), (), scope) for name, kind, scope in ops), {}, (), (), frozenset())


GRAPH = graph_of_names(
    ("/a/conv/Conv", "Conv", "a/conv"), ("/a/act/Relu", "Relu", "a/act"), ("/ab/Conv", "Conv", "ab"),
    ("/b[0]/Conv", "Conv", "b[0]"), ("/b0/Conv", "Conv", "b0"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "matched"),
    [
        (OpRule("/a/act/Relu"), [1]),
        (OpRule("/a*"), [0, 1, 2]),
        (OpRule("/a*/?onv"), [0, 2]),
        (OpRule("/b[0-9]/Conv"), [4]),
        (OpRule("/b[0]/Conv"), [3]),
        (OpRule("/a.*", "regex"), [0, 1, 2]),
        (OpRule("(?i)/A/.*conv", "regex"), [0]),
        (OpRule("/a", "regex"), []),
        (OpRule("Conv", "type"), [0, 2, 3, 4]),
        (OpRule("conv", "type"), []),
        (OpRule("a", "scope"), [0, 1]),
        (OpRule("/a/conv/", "scope"), [0]),
    ],
)
def test_each_selector_matches_what_it_says(rule: OpRule, matched: list[int]) -> None:
    assert rule.matched(GRAPH) == tuple(GRAPH.ops[i].name for i in matched)


def test_later_rules_win_and_change_only_what_they_name() -> None:
    recipe = Recipe(
        rules=(
            OpRule("Conv", "type", weights=SpecChange("int4")),
            OpRule("a", "scope"),
            OpRule("/a/conv/*", activations=SpecChange("uint16")),
            OpRule("/ab/*", weights=SpecChange(granularity=per_block(8))),
            OpRule("/b0/Conv"),
        )
    )
    found = recipe.specs_for(GRAPH)
    assert found["/b0/Conv"] is None
    assert found["/a/act/Relu"] is None
    conv, block, plain = found["/a/conv/Conv"], found["/ab/Conv"], found["/b[0]/Conv"]
    assert conv is not None
    assert block is not None
    assert plain is not None
    assert (conv.activations.dtype, conv.weights, conv.asked) == ("uint16", recipe.weights, frozenset(("activations",)))
    assert block.weights == QuantSpec(4, True, True, per_block(8))
    assert (plain.activations, plain.weights.dtype, plain.asked) == (
        recipe.activations,
        "int4",
        frozenset(("weights",)),
    )
    assert recipe.fallback_ops(GRAPH) == {"/b0/Conv", "/a/act/Relu"}


def test_rules_reach_ops_that_op_types_leaves_out() -> None:
    recipe = Recipe(op_types=("Relu",), rules=(OpRule("/ab/Conv", activations=SpecChange("int8")),))
    assert [name for name, wanted in recipe.specs_for(GRAPH).items() if wanted] == ["/a/act/Relu", "/ab/Conv"]


@pytest.mark.parametrize(
    ("rule", "nearest"),
    [
        (OpRule("/a/conv/Cnov"), "/a/conv/Conv"),
        (OpRule("/a/conv/Cnov*"), "/a/conv/Conv"),
        (OpRule("/ab/Con", "regex"), "/ab/Conv"),
        (OpRule("Con", "type"), "Conv"),
        (OpRule("a/cnov", "scope"), "a/conv"),
    ],
)
def test_a_selector_that_matches_nothing_is_named_with_the_nearest(rule: OpRule, nearest: str) -> None:
    for wanted in (rule, replace(rule, activations=SpecChange("int8"))):
        with pytest.raises(RecipeError) as raised:
            Recipe(rules=(wanted,)).specs_for(GRAPH)
        assert f"{rule.key} {rule.selector!r} matches no op" in raised.value.message
        assert nearest in raised.value.accepted


def test_fallbacks_are_added_by_name_and_glob() -> None:
    recipe = Recipe(rules=(OpRule("Relu", "type"),)).with_fallback(["/b[0]/Conv", "/ab/*"])
    assert recipe.fallback_ops(GRAPH) == {"/a/act/Relu", "/b[0]/Conv", "/ab/Conv"}


# ---- calibration by mse


def rounded(values: NDArray[Any], low: float, high: float, levels: int) -> NDArray[Any]:
    low, high = min(low, 0), max(high, 0)
    step = (high - low) / (levels - 1)
    zero = np.rint(-low / step)
    codes: NDArray[Any] = (np.clip(np.rint(values / step) + zero, 0, levels - 1) - zero) * step
    return codes


DISTRIBUTIONS: dict[str, Callable[[Any], NDArray[Any]]] = {
    "normal": lambda rng: rng.normal(0, 1, 40_000),
    "heavy tails": lambda rng: rng.standard_t(3, 40_000),
    "relu": lambda rng: np.maximum(rng.normal(0, 1, 40_000), 0),
    "outliers": lambda rng: np.concatenate([rng.normal(0, 1, 40_000), [500, -200]]),
    "shifted": lambda rng: rng.normal(5, 1, 40_000),
    "negative": lambda rng: -np.abs(rng.normal(0, 1, 40_000)),
}


@pytest.mark.parametrize("levels", [16, 256])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_mse_range_is_as_good_as_the_best_of_a_grid(name: str, levels: int) -> None:
    values = DISTRIBUTIONS[name](np.random.default_rng(0)).astype(np.float32)
    statistics = TensorStatistics()
    statistics.update(values)
    found = calibrated_range(statistics, Calibration("mse"), levels)

    def mse(low: float, high: float) -> float:
        return float(((rounded(values, low, high, levels) - values) ** 2).mean())

    low, high = float(values.min()), float(values.max())
    grid = np.linspace(0.02, 1, 25)
    best = min(mse(min(low, low * a), max(high, high * b) if high < 0 else high * b)
               for a in (grid if low < 0 else [1]) for b in (grid if high > 0 else [1]))  # fmt: skip
    assert mse(*found) <= best * 1.05
    assert mse(*found) <= mse(low, high)


# ---- what the quantized model really has


def branches() -> onnx.ModelProto:
    """Ops of many kinds: shared inputs and constants, a moved tensor, an absorbed Relu, one op without a form (Erf)."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[Any]:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    weights = {
        "w1": normal(8, 3, 3, 3), "b1": normal(8), "w2": normal(8, 8, 3, 3), "w3": normal(8, 8, 1, 1),
        "half": np.array(0.5, np.float32), "w4": normal(16, 12), "w5": normal(10, 12), "b5": normal(10),
        "shape": np.array([0, 16], np.int64), "gain": np.ones(12, np.float32), "shift": np.zeros(12, np.float32),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1] * 4),
        node("Relu", ["c1"], ["r1"], name="relu"),
        node("Conv", ["r1", "w2"], ["c2"], name="conv2", pads=[1] * 4),
        node("Sigmoid", ["c2"], ["s2"], name="sigmoid"),
        node("Mul", ["c2", "s2"], ["m2"], name="mul"),
        node("Conv", ["r1", "w3"], ["c3"], name="conv3"),
        node("Add", ["m2", "c3"], ["sum"], name="add"),
        node("Mul", ["sum", "half"], ["halved"], name="halve"),
        node("MaxPool", ["halved"], ["p1"], name="maxpool", kernel_shape=[2, 2], strides=[2, 2]),
        node("AveragePool", ["r1"], ["p2"], name="avgpool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Concat", ["p1", "p2"], ["joined"], name="concat", axis=1),
        node("GlobalAveragePool", ["joined"], ["pooled"], name="pool"),
        node("Reshape", ["pooled", "shape"], ["flat"], name="reshape"),
        node("MatMul", ["flat", "w4"], ["mm"], name="matmul"),
        node("LayerNormalization", ["mm", "gain", "shift"], ["ln"], name="norm"),
        node("Mul", ["ln", "half"], ["scaled"], name="scale"),
        node("Erf", ["scaled"], ["erf"], name="erf"),
        node("Gemm", ["erf", "w5", "b5"], ["logits"], name="gemm", transB=1),
        node("Softmax", ["logits"], ["y"], name="softmax"),
    ]
    return make_model(nodes, {"x": ["N", 3, 12, 12]}, {"y": ["N", 10]}, weights)


class Case:
    """A prepared model, its samples, and what quantizing it by a recipe gives."""

    def __init__(self, proto: onnx.ModelProto, inputs: NDArray[Any]) -> None:
        self.model = BACKEND.prepare(BACKEND.load(proto))
        self.graph = self.model.graph
        self.feed = {self.graph.inputs[0].name: inputs}
        self.samples = Samples.of(inputs).for_inputs(self.graph.inputs)
        self.ranges = calibrate(BACKEND, self.model, Recipe(), partial(self.samples.batches, len(inputs)))[0]
        self.reference = outputs(self.model, self.feed)

    def quantized(self, recipe: Recipe) -> Model:
        return BACKEND.quantize(self.model, recipe, self.ranges)

    def sqnr_db(self, model: Model, *, optimize: bool = True) -> float:
        error = outputs(model, self.feed, optimize=optimize) - self.reference
        return float(10 * np.log10((self.reference**2).sum() / max((error**2).sum(), 1e-30)))


def outputs(model: Model, feed: dict[str, Any], *, optimize: bool = True) -> NDArray[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.handle.model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feed)[0], np.float64)


def dtypes(proto: onnx.ModelProto) -> dict[str, tuple[list[str], list[str]]]:
    """The codes that each op reads and writes, by the zero points around it; "" where there are none."""
    kinds = {getattr(TensorProto, name.upper()): name for name in (*DTYPES, "int32")}
    initializers = {t.name: t for t in proto.graph.initializer}
    producers = {name: node for node in proto.graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def codes(nodes: list[Any], kind: str) -> str:
        return next((kinds[initializers[n.input[2]].data_type] for n in nodes if n.op_type == kind), "")

    return {
        node.name: (
            [codes([producers[name]] if name in producers else [], "DequantizeLinear") for name in node.input],
            [codes(readers.get(name, []), "QuantizeLinear") for name in node.output],
        )
        for node in proto.graph.node
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear")
    }


def differences(case: Case, recipe: Recipe, quantized: Model) -> list[tuple[Any, ...]]:
    """Where the model has not what a rule asked for and `unsupported` does not say so."""
    wanted, said = recipe.specs_for(case.graph), quantization.planned(case.graph, recipe).unsupported
    found = dtypes(quantized.handle.model.proto)
    wrong: list[tuple[Any, ...]] = []
    for op in case.graph.ops:
        # An absorbed Relu is gone, and what was said is said.
        if op.name not in found or op.name in said:
            continue
        reads, writes = found[op.name]
        asked = wanted[op.name]
        if asked is None:
            # A bias in 32-bit codes is as exact as in float32; there may be one of zeros: see test_fallback.py.
            constants = [d for name, d in zip(op.inputs, reads, strict=False) if name in case.graph.constants]
            if set(constants) - {"", "int32"}:
                wrong.append((op.name, "in float, and reads a rounded constant"))
            continue
        for name, dtype in zip((*op.inputs, *op.outputs), (*reads, *writes), strict=True):
            constant = name in case.graph.constants
            coded = not constant and case.graph.tensor(name).dtype == "float32" and (dtype or name not in op.outputs)
            if coded and "activations" in asked.asked and dtype != asked.activations.dtype:
                wrong.append((op.name, name, dtype, asked.activations.dtype))
            if constant and "weights" in asked.asked and name == op.inputs[1] and dtype != asked.weights.dtype:
                wrong.append((op.name, name, dtype, asked.weights.dtype))
    return wrong


def any_recipe(rng: random.Random, names: list[str], count: int) -> Recipe:
    def change(dtypes: Any, granularities: list[Granularity]) -> SpecChange:
        return SpecChange(
            rng.choice([*dtypes, None]), rng.choice([None, True, False]), rng.choice([None, *granularities])
        )

    def rule(name: str) -> OpRule:
        kind = rng.random()
        activations = change(DTYPES[2:], []) if 0.2 < kind < 0.8 else None
        granularities: list[Granularity] = [PerTensor(), PER_CHANNEL, per_block(rng.choice([2, 16]))]
        weights = change(DTYPES, granularities) if kind > 0.5 else None
        return OpRule(name, activations=activations, weights=weights)

    return Recipe(
        activations=QuantSpec.from_dtype(rng.choice(["uint8", "uint16", "int16"]), symmetric=rng.random() < 0.3),
        weights=QuantSpec.from_dtype(
            rng.choice(DTYPES),
            symmetric=rng.random() < 0.6,
            granularity=PER_CHANNEL if rng.random() < 0.5 else PerTensor(),
        ),
        rules=tuple(rule(rng.choice(names)) for _ in range(count)),
        reduce_range=rng.random() < 0.2,
    )


@pytest.fixture(scope="session")
def small() -> Case:
    return Case(branches(), images(16))


@pytest.fixture(scope="session")
def cls() -> Case:
    rng = np.random.default_rng(0)
    return Case(onnx.load(str(registry_model("ppocrv2_cls"))), rng.uniform(-1, 1, (4, 3, 48, 192)).astype(np.float32))


def test_any_recipe_gives_a_model_that_runs_and_has_the_codes_asked_for(small: Case) -> None:
    names = [op.name for op in small.graph.ops]
    for seed in range(25):
        recipe = any_recipe(random.Random(seed), names, 6)
        quantized = small.quantized(recipe)
        assert not differences(small, recipe, quantized), (seed, recipe)
        simulated, deployed = small.sqnr_db(quantized, optimize=False), small.sqnr_db(quantized)
        assert simulated > 5, (seed, recipe)
        # Far above the noise of 8 bits the order of a sum shows.
        assert deployed > min(simulated, 45) - 4, (seed, recipe)


def test_a_real_model_has_the_codes_asked_for_per_op_and_runs(cls: Case) -> None:
    convolutions = [op.name for op in cls.graph.ops if op.op_type == "Conv"]
    recipe = Recipe(
        rules=(
            OpRule(convolutions[3], activations=SpecChange("uint16"), weights=SpecChange("int16")),
            OpRule(convolutions[5], weights=SpecChange("int4", False)),
            OpRule(convolutions[7]),
            OpRule("Add", "type", activations=SpecChange("int16", True)),
            OpRule("Gemm", "type", weights=SpecChange("uint4", False, per_block(16))),
        )
    )
    quantized = cls.quantized(recipe)
    assert not quantized.notes
    assert not differences(cls, recipe, quantized)
    found = dtypes(quantized.handle.model.proto)
    assert found[convolutions[3]][0][:2] == ["uint16", "int16"]
    assert found[convolutions[5]][0][:2] == ["uint8", "int4"]
    assert found[convolutions[7]][0][1] == ""
    assert cls.sqnr_db(quantized) > 10


def test_any_recipe_gives_a_real_model_the_codes_asked_for(cls: Case) -> None:
    names = [op.name for op in cls.graph.ops]
    for seed in range(4):
        recipe = any_recipe(random.Random(seed), names, 15)
        quantized = cls.quantized(recipe)
        assert not differences(cls, recipe, quantized), seed
        outputs(quantized, cls.feed)


def test_magika_runs_with_16_bits_everywhere_and_4_bit_blocks(magika: Path, files: Samples) -> None:
    model = BACKEND.prepare(BACKEND.load(magika))
    samples = files.for_inputs(model.graph.inputs)
    recipe = Recipe(
        activations=QuantSpec(16, False, False), weights=QuantSpec(4, True, False, per_block(32)),
        rules=(OpRule("Conv", "type", weights=SpecChange("int16", granularity=PER_CHANNEL)),),
    )  # fmt: skip
    ranges, _ = calibrate(BACKEND, model, recipe, partial(samples.batches, 8, stop=16))
    quantized = BACKEND.quantize(model, recipe, ranges)
    found = dtypes(quantized.handle.model.proto)
    kinds = {op.name: op.op_type for op in model.graph.ops}
    for name, (reads, _) in found.items():
        if kinds.get(name) in ("Conv", "Gemm", "MatMul"):
            assert reads[:2] == ["uint16", "int16" if kinds[name] == "Conv" else "int4"]
    blocks = [n for n in quantized.handle.model.proto.graph.node if any(a.name == "block_size" for a in n.attribute)]
    assert len(blocks) == sum(kind in ("Gemm", "MatMul") for kind in kinds.values())
    batch = next(iter(samples.batches(8, stop=8))).inputs
    expected, actual = outputs(model, dict(batch)), outputs(quantized, dict(batch))
    assert (expected.argmax(1) == actual.argmax(1)).mean() > 0.7


@pytest.mark.parametrize(
    ("recipe", "at_least_db"),
    [
        (Recipe(activations=QuantSpec(16, False, False), weights=QuantSpec(16, granularity=PER_CHANNEL)), 65),
        (Recipe(activations=QuantSpec(16, True, True), weights=QuantSpec(8, granularity=PER_CHANNEL)), 40),
        (Recipe(activations=QuantSpec(16, False, False), weights=QuantSpec(4, True, False, per_block(4))), 20),
        (Recipe(weights=QuantSpec(4, True, False, PER_CHANNEL)), 15),
    ],
)
def test_more_bits_and_finer_scales_are_better(small: Case, recipe: Recipe, at_least_db: float) -> None:
    quantized = small.quantized(recipe)
    assert small.sqnr_db(quantized) > at_least_db
    weights = dtypes(quantized.handle.model.proto)["matmul"][0]
    assert weights == [recipe.activations.dtype, recipe.weights.dtype]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(activations=QuantSpec(8), weights=QuantSpec(8), reduce_range=True),
        Recipe(op_types=("Conv",)),
        Recipe(rules=(OpRule("Relu", "type"),)),
    ],
)
def test_without_specifications_for_ops_the_model_is_byte_for_byte_onnx_runtimes(cls: Case, recipe: Recipe) -> None:
    ranges = TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in cls.ranges.items()
        },
    )
    proto = onnx.ModelProto()
    proto.CopyFrom(cls.model.handle.model.proto)
    quantizer = QDQQuantizer(
        proto, recipe.per_channel, recipe.reduce_range, QuantType.QInt8,
        QuantType.QInt8 if recipe.activations.signed else QuantType.QUInt8, ranges, [],
        list(recipe.fallback_ops(cls.graph)), list(quantization.quantizable_types(recipe)),
        {"ActivationSymmetric": recipe.activations.symmetric, "WeightSymmetric": recipe.weights.symmetric},
    )  # fmt: skip
    theirs = quantizer.quantize_model().SerializeToString(deterministic=True)
    ours, notes = quantization.quantize(cls.model.handle.model, cls.graph, recipe, cls.ranges)
    assert ours.proto.SerializeToString(deterministic=True) == theirs
    assert not notes


def test_a_symmetric_output_keeps_its_relu(small: Case) -> None:
    # onnxruntime 1.32 takes the Relu away all the same where symmetry is asked of one tensor alone.
    recipe = Recipe(rules=(OpRule("conv1", activations=SpecChange("int8", True)),))
    quantized = small.quantized(recipe)
    assert "Relu" in [node.op_type for node in quantized.handle.model.proto.graph.node]
    assert small.sqnr_db(quantized) > small.sqnr_db(small.quantized(Recipe())) - 6


def test_ops_that_share_a_constant_each_get_what_they_ask_for(small: Case) -> None:
    recipe = Recipe(rules=(OpRule("halve"), OpRule("scale", activations=SpecChange("int16"))))
    found = dtypes(small.quantized(recipe).handle.model.proto)
    assert found["halve"][0][1] == ""
    assert found["scale"][0][1] == "int16"


def test_the_model_of_the_user_stays_as_it_was(small: Case) -> None:
    before = small.model.handle.model.proto.SerializeToString()
    small.quantized(any_recipe(random.Random(1), [op.name for op in small.graph.ops], 8))
    assert small.model.handle.model.proto.SerializeToString() == before


@pytest.mark.parametrize(
    ("granularity", "axis", "shape"),
    [(PER_CHANNEL, 2, (3,)), (per_block(4), 1, (2, 2, 3)), (PerTensor(), None, ())],
)
def test_a_matmul_weight_of_three_axes_has_its_scales_where_they_belong(
    granularity: Granularity, axis: int | None, shape: tuple[int, ...]
) -> None:
    # By itself ONNX Runtime takes axis 1, which is summed over, for that of the channels.
    weight = np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32)
    proto = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")],
        {"x": ["N", 2, 4, 8]}, {"y": ["N", 2, 4, 3]}, {"w": weight},
    )  # fmt: skip
    x = np.random.default_rng(1).normal(size=(3, 2, 4, 8)).astype(np.float32)
    case = Case(proto, x)
    quantized = case.quantized(Recipe(weights=QuantSpec(8, granularity=granularity)))
    graph = quantized.handle.model.proto.graph
    node = next(n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0].startswith("w"))
    scale = next(t for t in graph.initializer if t.name == node.input[1])
    assert tuple(scale.dims) == shape
    assert {a.name: a.i for a in node.attribute}.get("axis") == axis
    assert case.sqnr_db(quantized) > 35
    assert case.sqnr_db(quantized, optimize=False) > 35


@settings(deadline=None, max_examples=40)
@given(
    dtype=st.sampled_from(DTYPES), symmetric=st.booleans(), size=st.integers(1, 9), axis=st.integers(0, 1),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_blocks_are_off_by_half_a_step_at_most(dtype: str, symmetric: bool, size: int, axis: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(7, 6)).astype(np.float32)
    values[:2] = 0
    granularity = replace(per_block(size), axis=axis)
    qparams = block_qparams(values, QuantSpec.from_dtype(dtype, symmetric=symmetric, granularity=granularity))
    assert qparams.scale.shape[axis] == -(-values.shape[axis] // size)
    scale, _ = qparams.aligned(values.shape)
    error = np.abs(qparams.dequantize(qparams.quantize(values)) - values)
    assert (error <= scale * (0.5 if symmetric else 1.01) + 1e-6).all()
    assert not (error[values == 0]).any()


def test_blocks_in_a_model_are_those_of_the_onnx_reference(small: Case) -> None:
    from onnx.reference import ReferenceEvaluator

    recipe = Recipe(rules=(OpRule("gemm", weights=SpecChange("uint4", False, per_block(5))),))
    quantized = small.quantized(recipe)
    graph = quantized.handle.model.proto.graph
    node = next(n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] == "w5_quantized")
    tensors = [t for t in graph.initializer if t.name in node.input]
    alone = helper.make_graph(
        [node], "g", [], [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)], tensors
    )
    found = ReferenceEvaluator(
        helper.make_model(alone, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    ).run(None, {})[0]
    weight = next(numpy_helper.to_array(t) for t in small.model.handle.model.proto.graph.initializer if t.name == "w5")
    granularity = replace(per_block(5), axis=1)
    qparams = block_qparams(weight, QuantSpec(4, False, False, granularity))
    np.testing.assert_allclose(found, qparams.dequantize(qparams.quantize(weight)), rtol=1e-6)


UNSUPPORTED: list[tuple[OpRule, str]] = [
    (OpRule("erf", activations=SpecChange("int8")), "no form for Erf"),
    (OpRule("conv1", activations=SpecChange("int4")), "runs no int4 activations: they get uint8"),
    (OpRule("conv1", activations=SpecChange(granularity=PER_CHANNEL)), "one scale per tensor"),
    (OpRule("conv1", weights=SpecChange(granularity=per_block(8))), "MatMul and Gemm alone: its weights get one per"),
    (OpRule("pool", weights=SpecChange("int4")), "has no weights"),
    (OpRule("halve", weights=SpecChange("int4")), "its constants get the codes of its activations"),
    (OpRule("norm", weights=SpecChange(granularity=PER_CHANNEL)), "no channels: they get one scale"),
    (OpRule("conv2", activations=SpecChange(symmetric=True)), "reads 'r1' in uint8: ONNX Runtime has no symmetric"),
]


@pytest.mark.parametrize(("rule", "words"), UNSUPPORTED, ids=[words for _, words in UNSUPPORTED])
def test_what_the_backend_cannot_do_is_said_per_op(small: Case, rule: OpRule, words: str) -> None:
    recipe = Recipe(rules=(rule,))
    said = quantization.planned(small.graph, recipe).unsupported
    assert words in said[rule.selector]
    quantized = small.quantized(recipe)
    assert any(rule.selector in note and words in note for note in quantized.notes)
    assert small.sqnr_db(quantized) > 15, "and the model is whole"


def test_a_third_type_for_a_tensor_is_said(small: Case) -> None:
    recipe = Recipe(
        rules=(
            OpRule("conv2", activations=SpecChange("uint16")),
            OpRule("conv3", activations=SpecChange("int8")),
            OpRule("avgpool", activations=SpecChange("int8")),
        )
    )
    assert "reads 'r1' in uint8" in quantization.planned(small.graph, recipe).unsupported["conv2"]
    small.sqnr_db(small.quantized(recipe))


def test_the_same_reason_for_many_ops_is_one_note(small: Case) -> None:
    notes = small.quantized(Recipe(weights=QuantSpec(4, granularity=per_block(8)))).notes
    assert len(notes) == 2
    assert "'conv1' and 2 more: a scale per block is for MatMul and Gemm alone" in notes[0]
    assert "'norm': its weights have no channels" in notes[1]


def test_ops_that_preparation_folds_are_noted() -> None:
    proto = convolutions()
    weights = {name: np.ones(16, np.float32) for name in ("s", "b", "m", "v")}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    proto.graph.node.insert(3, helper.make_node("BatchNormalization", ["c2", *weights], ["n2"], name="norm"))
    proto.graph.node[4].input[0] = "n2"
    recipe = Recipe(rules=(OpRule("norm"), OpRule("/body/conv/Conv")))
    loaded = BACKEND.load(proto)
    assert recipe.fallback_ops(loaded.graph) == {"norm", "/body/conv/Conv"}
    model = BACKEND.prepare(loaded)
    samples = Samples.of(images(4)).for_inputs(model.graph.inputs)
    ranges, _ = calibrate(BACKEND, model, recipe, partial(samples.batches, 4))
    notes = BACKEND.quantize(model, recipe, ranges).notes
    assert any("op 'norm' matches no op of the prepared model" in note for note in notes)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe(activations=QuantSpec(4, False, False)), "no activations of 4 bits"),
        (Recipe(activations=QuantSpec(8, False, False, PER_CHANNEL)), "one scale per activation"),
        (Recipe("qoperator", QuantSpec(16, False, False)), "no form for activations uint16"),
        (Recipe("qoperator", weights=QuantSpec(4)), "no form for activations uint8, weights int4"),
        (Recipe("qoperator", weights=QuantSpec(8, granularity=per_block(8))), "in blocks"),
        (Recipe("qoperator", QuantSpec(8), QuantSpec(8, False)), "no QOperator kernel"),
        (Recipe(op_types=("Erf",)), "does not quantize Erf"),
    ],
)
def test_defaults_that_no_op_could_get_are_an_error(small: Case, recipe: Recipe, words: str) -> None:
    for call in (lambda: quantization.planned(small.graph, recipe).unsupported, lambda: small.quantized(recipe)):
        with pytest.raises(RecipeError, match=words) as raised:
            call()
        assert raised.value.accepted


def test_the_qoperator_format_says_what_it_leaves_out(small: Case) -> None:
    rules = (OpRule("conv1", weights=SpecChange("uint8")), OpRule("norm", activations=SpecChange()), OpRule("conv2"))
    said = quantization.planned(small.graph, Recipe("qoperator", rules=rules)).unsupported
    assert "one specification for all ops" in said["conv1"]
    assert "no form for LayerNormalization" in said["norm"]
    assert set(said) == {"conv1", "norm"}
    quantized = small.quantized(Recipe("qoperator", rules=rules))
    assert small.sqnr_db(quantized) > 15


# ---- Neural Compressor


def test_an_op_name_dict_becomes_rules_that_match_as_neural_compressor_matches() -> None:
    recipe, notes = neural_compressor.from_op_dicts(
        {
            "v0/cg/conv0/conv2d/Conv2D": {"activation": {"dtype": ["fp32"]}},
            "/a/.*": FP32,
            "/ab/Conv": {"weights": {"granularity": ["per_channel"], "scheme": ["asym"]}},
        },
        {"Conv": {"activation": {"dtype": ["int8"], "scheme": ["sym"]}}},
    )
    assert not notes
    assert recipe.rules == (
        OpRule("Conv", "type", SpecChange("int8", True)),
        OpRule("v0/cg/conv0/conv2d/Conv2D"),
        OpRule("/a/.*", "regex"),
        OpRule("/ab/Conv", weights=SpecChange(symmetric=False, granularity=PER_CHANNEL)),
    )
    without = replace(recipe, rules=recipe.rules[2:])
    assert without.fallback_ops(GRAPH) == {"/a/conv/Conv", "/a/act/Relu"}, "matched whole, not from the start"


@pytest.mark.parametrize("settings", [FP32, {"activation": {"dtype": "fp32"}}, {"weight": {"dtype": ["fp32", "int8"]}}])
def test_float_in_either_role_is_a_fallback(settings: Any) -> None:
    assert neural_compressor.from_op_dicts({"a": settings})[0].rules == (OpRule("a"),)


def test_entries_for_all_types_are_the_defaults() -> None:
    types = {".*": {"activation": {"dtype": ["int8"], "scheme": ["sym"], "algorithm": ["kl"]},
                    "weight": {"granularity": ["per_tensor"]}}}  # fmt: skip
    recipe, notes = neural_compressor.from_op_dicts({"a": {"activation": {"algorithm": ["kl"]}}}, types)
    assert not notes
    assert recipe == Recipe(
        activations=QuantSpec(8, True, True), weights=QuantSpec(8), calibration=Calibration("entropy")
    )
    assert neural_compressor.to_op_dicts(recipe)[1] == types


def test_types_by_expression_need_the_model() -> None:
    with pytest.raises(RecipeError, match="for a model"):
        neural_compressor.from_op_dicts(None, {"Conv|Relu": FP32})
    recipe, _ = neural_compressor.from_op_dicts(None, {"Conv|Relu": FP32}, graph=GRAPH)
    assert recipe.fallback_ops(GRAPH) == {op.name for op in GRAPH.ops}
    with pytest.raises(RecipeError, match="matches no op type"):
        neural_compressor.from_op_dicts(None, {"Gemm.": FP32}, graph=GRAPH)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"activation": {"dtype": ["bf16"]}}, "bf16 has no equivalent"),
        ({"activation": {"algorithm": ["kl"]}}, "algorithm kl for some ops alone"),
        ({"activation": {"scheme": ["sym", "asym"]}}, "a choice to tune: sym is taken"),
        ({"weight": {"bits": [4]}}, "weight bits 4 has no equivalent"),
        ({"weight": {"algorithm": ["GPTQ"]}}, "weight algorithm GPTQ has no equivalent"),
        ({"weight": {"dtype": ["fp8_e4m3"]}}, "weight dtype fp8_e4m3 has no equivalent"),
        ({"pattern": 1}, "pattern has no equivalent"),
    ],
)
def test_what_neural_compressor_says_and_a_recipe_does_not_is_named(settings: Any, words: str) -> None:
    settings = {**settings, "activation": {"granularity": ["per_tensor"], **settings.get("activation", {})}}
    _, notes = neural_compressor.from_op_dicts({"a": settings})
    assert len(notes) == 1
    assert words in notes[0]
    assert "op_name_dict['a']" in notes[0]


FORMAT_NOTE = 'format qdq: say PostTrainingQuantConfig(quant_format="QDQ")'


def test_dictionaries_survive_the_way_through_a_recipe() -> None:
    names = {
        "/head/.*": FP32,
        "conv": {"activation": {"dtype": ["int8"], "scheme": ["sym"]}, "weight": {"granularity": ["per_tensor"]}},
        "p2o.Conv.28": {"weight": {"scheme": ["asym"]}},
    }
    types = {"Softmax": FP32, "MatMul": {"activation": {"dtype": ["uint8"]}}}
    recipe, _ = neural_compressor.from_op_dicts(names, types)
    assert neural_compressor.to_op_dicts(recipe) == (names, types, (FORMAT_NOTE,))


simple_changes = st.builds(
    SpecChange, st.none() | st.sampled_from(["int8", "uint8"]), st.none() | st.booleans(),
    st.none() | st.sampled_from([PerTensor(), PER_CHANNEL]),
).filter(lambda change: change != SpecChange())  # fmt: skip
simple_rules = st.builds(
    lambda place, activations, weights: OpRule(place[0], place[1], activations, weights),
    st.sampled_from([("/a/conv/Conv", "name"), ("/a*", "name"), ("/b[0]/Conv", "name"), ("/b.*", "regex"),
                     ("Conv", "type"), ("a", "scope")]),
    st.none() | simple_changes, st.none() | simple_changes,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(rules=st.lists(simple_rules, max_size=6))
def test_a_recipe_means_the_same_after_the_way_through_the_dictionaries(rules: list[OpRule]) -> None:
    recipe = Recipe(rules=tuple(rules))
    names, types, notes = neural_compressor.to_op_dicts(recipe, GRAPH)
    assert notes == (FORMAT_NOTE,)
    back, _ = neural_compressor.from_op_dicts(names, types, graph=GRAPH)
    found = {name: wanted and (wanted.activations, wanted.weights) for name, wanted in back.specs_for(GRAPH).items()}
    expected = {n: wanted and (wanted.activations, wanted.weights) for n, wanted in recipe.specs_for(GRAPH).items()}
    assert found == expected


def test_what_a_recipe_says_and_neural_compressor_does_not_is_named() -> None:
    recipe = Recipe(
        "qoperator", op_types=("Conv",), reduce_range=True, calibration=Calibration("mse"),
        rules=(OpRule("/ab/Conv", "name", SpecChange("int16"), SpecChange(granularity=per_block(8))),),
    )  # fmt: skip
    with pytest.raises(RecipeError, match="op_types can only be converted for a model"):
        neural_compressor.to_op_dicts(recipe)
    names, types, notes = neural_compressor.to_op_dicts(recipe, GRAPH)
    assert not names
    assert types == {"Relu": FP32}
    for words in ('quant_format="QOperator"', "reduce_range=True", "mse has no", "int16 has no", "per_block has no"):
        assert any(words in note for note in notes), words
    with pytest.raises(RecipeError, match="scope 'a'"):
        neural_compressor.to_op_dicts(Recipe(rules=(OpRule("a", "scope"),)))


# ---- ONNX Runtime


def test_nodes_to_exclude_is_a_fallback_and_back() -> None:
    recipe, notes = ort_arguments.from_arguments(["/stem/conv/Conv", "/head/Flatten"])
    assert not notes
    assert recipe == Recipe().with_fallback(["/stem/conv/Conv", "/head/Flatten"])
    arguments, notes = ort_arguments.to_arguments(recipe, BACKEND.load(convolutions()).graph)
    assert not notes
    assert arguments["nodes_to_exclude"] == ["/stem/conv/Conv", "/head/Flatten"]
    assert "TensorQuantOverrides" not in arguments["extra_options"]


def test_arguments_of_quantize_static_become_the_recipe_and_back() -> None:
    graph = BACKEND.load(convolutions()).graph
    arguments = {
        "quant_format": "QOperator", "activation_type": "QInt8", "weight_type": "QInt8", "per_channel": False,
        "reduce_range": True, "op_types_to_quantize": ["Conv"], "nodes_to_exclude": ["/stem/conv/Conv"],
        "calibrate_method": "Percentile",
        "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True, "CalibPercentile": 99.9},
    }  # fmt: skip
    recipe, notes = ort_arguments.from_arguments(arguments)
    assert not notes
    assert recipe == Recipe(
        "qoperator", QuantSpec(8), QuantSpec(8), ("Conv",), (OpRule("/stem/conv/Conv"),),
        Calibration("percentile", 99.9), reduce_range=True,
    )  # fmt: skip
    back, notes = ort_arguments.to_arguments(recipe, graph)
    assert (back, notes) == (arguments, ())


def test_overrides_of_all_tensors_of_an_op_become_a_rule(small: Case) -> None:
    recipe = Recipe(
        rules=(
            OpRule("conv1"),
            OpRule("add", activations=SpecChange("uint16")),
            OpRule("matmul", weights=SpecChange("int4", False, PER_CHANNEL)),
            OpRule("gemm", weights=SpecChange("int8", None, PerTensor())),
        )
    )
    arguments, notes = ort_arguments.to_arguments(recipe, small.graph)
    assert not notes
    overrides = arguments["extra_options"]["TensorQuantOverrides"]
    assert overrides["sum"][0]["convert"] == {"quant_type": "QUInt8", "symmetric": False, "recv_nodes": ["halve"]}
    assert overrides["w4"] == [{"quant_type": "QInt4", "symmetric": False, "axis": 1}]
    back, notes = ort_arguments.from_arguments(json.loads(json.dumps(arguments)), small.graph)
    assert not notes
    first, second = assign(small.graph, recipe), assign(small.graph, back)
    assert (first.activations, first.constants, first.float_ops) == (
        second.activations, second.constants, second.float_ops,
    )  # fmt: skip
    assert ort_arguments.to_arguments(back, small.graph)[0] == arguments


def test_onnx_runtime_itself_makes_the_same_codes_of_the_exported_arguments(small: Case, tmp_path: Path) -> None:
    recipe = Recipe(
        rules=(
            OpRule("conv2"),
            OpRule("conv3", activations=SpecChange("uint16"), weights=SpecChange("int16")),
            OpRule("conv1", activations=SpecChange("int8", True)),
            OpRule("gemm", weights=SpecChange("uint8", False, PerTensor())),
        )
    )
    arguments, _ = ort_arguments.to_arguments(recipe, small.graph)
    for override in arguments["extra_options"]["TensorQuantOverrides"].values():
        for part in (override[0], override[0].get("convert", {})):
            if part:
                part["quant_type"] = QuantType[part["quant_type"]]
        if "convert" in override[0]:
            override[0]["convert"]["recv_nodes"] = set(override[0]["convert"]["recv_nodes"])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([small.feed])

        def get_next(self) -> Any:
            return next(self.batches, None)

    onnx.save(small.model.handle.model.proto, str(tmp_path / "float.onnx"))
    quantize_static(
        str(tmp_path / "float.onnx"), str(tmp_path / "int8.onnx"), Reader(),
        **{
            **arguments,
            "quant_format": QuantFormat[arguments["quant_format"]],
            "activation_type": QuantType[arguments["activation_type"]],
            "weight_type": QuantType[arguments["weight_type"]],
            "calibrate_method": CalibrationMethod[arguments["calibrate_method"]],
        },
    )  # fmt: skip
    theirs = dtypes(onnx.load(str(tmp_path / "int8.onnx")))
    ours = dtypes(small.quantized(recipe).handle.model.proto)
    assert theirs.keys() == ours.keys()
    for name, (reads, writes) in ours.items():
        # ONNX Runtime rounds a constant for all of its readers; `half` is read by two ops here that agree.
        assert theirs[name] == (reads, writes), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"calibration_providers": ["CUDA"]}, "calibration_providers has no equivalent"),
        ({"extra_options": {"SmoothQuant": True}}, "extra_options['SmoothQuant'] has no equivalent"),
        ({"r1": [{"quant_type": "QUInt16"}]}, "TensorQuantOverrides['r1'] has no equivalent"),
        ({"w1": [{"quant_type": "QInt8", "rmin": -1.0, "rmax": 1.0}]}, "rmin has no equivalent"),
        ({"b1": [{"quant_type": "QInt8"}]}, "TensorQuantOverrides['b1'] has no equivalent"),
    ],
)
def test_what_onnx_runtime_says_and_a_recipe_does_not_is_named(small: Case, arguments: Any, words: str) -> None:
    if not arguments.keys() & {"calibration_providers", "extra_options"}:
        arguments = {"extra_options": {"TensorQuantOverrides": arguments}}
    _, notes = ort_arguments.from_arguments(arguments, small.graph)
    assert any(words in note for note in notes), notes


def test_what_a_recipe_says_and_onnx_runtime_does_not_is_named(small: Case) -> None:
    recipe = Recipe(
        calibration=Calibration("mse"),
        rules=(OpRule("matmul", weights=SpecChange(granularity=per_block(8))), OpRule("halve")),
    )
    notes = ort_arguments.to_arguments(recipe, small.graph)[1]
    for words in ("w4: a scale per block has no", "mse has no", "share have one override: half"):
        assert any(words in note for note in notes), words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"activation_type": "QFloat8"}, "activation_type is QFloat8"),
        ({"nodes_to_exclude": "conv1"}, "nodes_to_exclude is 'conv1'"),
        ({"extra_options": {"TensorQuantOverrides": {"r1": {"quant_type": "QInt8"}}}}, "TensorQuantOverrides['r1']"),
        ({"extra_options": {"TensorQuantOverrides": {"r1": [{"quant_type": "QInt7"}]}}}, "QInt7"),
        ({"extra_options": {"CalibPercentile": "many"}}, "CalibPercentile"),
        ({"extra_options": 3}, "extra_options is 3"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(small: Case, arguments: Any, words: str) -> None:
    with pytest.raises(RecipeError) as raised:
        ort_arguments.from_arguments(arguments, small.graph)
    assert words in raised.value.message
    assert raised.value.accepted


# ---- the command line


@pytest.fixture
def call(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path, data: Path
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["quantscope", *arguments])
        with pytest.raises(SystemExit) as exit:
            main()
        out, err = capfd.readouterr()
        return int(exit.value.code or 0), out, err

    return run


BAD_FILES: list[tuple[str | bytes, list[str]]] = [
    ("format = ", ["bad.toml is no TOML", "line 1"]),
    ("[weights]\ndtype = \"int8\"\n[weights]\n", ["bad.toml is no TOML", "line 3"]),
    (b"\xff\xfe", ["bad.toml is no text", "UTF-8"]),
    ('formt = "qdq"', ["bad.toml: unknown key formt", "format"]),
    ('format = "int8"', ['bad.toml: format is "int8"', "qdq, qoperator"]),
    ("reduce_range = 1", ["bad.toml: reduce_range is 1", "true or false"]),
    ('op_types = "Conv"', ['bad.toml: op_types is "Conv"', '["Conv", "MatMul"]']),
    ("op_types = []", ["bad.toml: op_types is []"]),
    ("activations = 8", ["bad.toml: activations is 8", "a table"]),
    ('[activations]\ndtype = "int7"', ['bad.toml: activations.dtype is "int7"', "int4, uint4, int8, uint8, int16"]),
    ("[weights]\nsymetric = true", ["bad.toml: unknown key weights.symetric", "symmetric"]),
    ('[weights]\ngranularity = "per_row"', ['weights.granularity is "per_row"', "per_tensor, per_channel, per_block"]),
    ('[weights]\ngranularity = "per_block"', ["bad.toml: weights: granularity", "block_size = 32"]),
    ("[weights]\nblock_size = 32", ["weights: block_size without", "per_block"]),
    ('[weights]\ngranularity = "per_block"\nblock_size = 2.5', ["weights.block_size is 2.5", "a whole number"]),
    ('[weights]\ngranularity = "per_block"\nblock_size = 0', ["bad.toml: weights: block_size is 0", "1 or more"]),
    ('[calibration]\nmethod = "median"', ['calibration.method is "median"', "minmax, percentile, entropy, mse"]),
    ("[calibration]\npercentile = 3", ["bad.toml: calibration: percentile is 3", "more than 50"]),
    ('[calibration]\npercentile = "99"', ['calibration.percentile is "99"', "a number"]),
    ("[rules]\nfallback = true", ["bad.toml: rules is", "[[rules]] before each rule"]),
    ("rules = [1]", ["rules[1] is 1", "a table"]),
    ('[[rules]]\ntype = "Relu"\nfallback = true\n[[rules]]\nfallback = true', ["rules[2]: selects by nothing",
                                                                             "exactly one of op, regex, type, scope"]),
    ('[[rules]]\nop = "a"\ntype = "b"\nfallback = true', ["rules[1]: selects by op and type", "exactly one"]),
    ('[[rules]]\nname = "a"\nfallback = true', ["rules[1]: selects by nothing", "op, regex"]),
    ('[[rules]]\nop = "a"\nfalback = true', ["unknown key rules[1].falback", "fallback"]),
    ('[[rules]]\nop = "a"', ["rules[1]: asks for nothing", "fallback = true"]),
    ('[[rules]]\nop = ""\nfallback = true', ['rules[1].op is ""', "not empty"]),
    ('[[rules]]\nregex = "("\nfallback = true', ["rules[1]: regex '('", "regular expression"]),
    ('[[rules]]\nop = "a"\nfallback = true\nweights = {dtype = "int4"}', ["both fallback = true and specifications"]),
    ('[[rules]]\nop = "a"\nweights = {dtype = 4}', ["rules[1].weights.dtype is 4", "int4"]),
    ('[[rules]]\nop = "/stem/conv/Cnov"\nfallback = true', ["op '/stem/conv/Cnov' matches no op", "/stem/conv/Conv"]),
    ('[[rules]]\nscope = "stm"\nfallback = true', ["scope 'stm' matches no op", "stem"]),
    ('op_types = ["Cnov"]', ["'Cnov' does not occur", "Conv"]),
    ('op_types = ["Relu", "Flatten"]\n[activations]\ndtype = "uint4"', ["no activations of 4 bits", "uint8"]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "words"), BAD_FILES, ids=[str(content) for content, _ in BAD_FILES])
def test_a_bad_recipe_file_gets_one_clear_message(
    call: Any, tmp_path: Path, content: str | bytes, words: list[str]
) -> None:
    (tmp_path / "bad.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = call("recipe", "check", "bad.toml", "model.onnx")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err, err


MISTAKES: list[tuple[list[str], list[str]]] = [
    (["check", "missing.toml", "model.onnx"], ["no such recipe file: missing.toml", "docs/recipes.md"]),
    (["check", ".", "model.onnx"], [". is a folder"]),
    (["check", "good.toml", "missing.onnx"], ["no such model file: missing.onnx"]),
    (["convert", "good.toml", "out.json"], ["--to is missing", "neural-compressor, onnxruntime, recipe"]),
    (["convert", "ops.json", "out.toml"], ["--from is missing"]),
    (["convert", "missing.json", "out.toml", "--from", "onnxruntime"], ["no such file: missing.json"]),
    (["convert", "good.toml", "out.toml", "--from", "onnxruntime"], ["good.toml is no JSON", "line 1"]),
    (["convert", "list.json", "out.toml", "--from", "neural-compressor"], ["list.json: a list", "op_name_dict"]),
    (["convert", "ops.json", "out.toml", "--from", "neural-compressor"], ["ops.json: op_name_dict['a'] is 1"]),
    (["convert", "good.toml", "out.json", "--to", "onnxruntime"], ["depend on the model", "--model MODEL.onnx"]),
    (["convert", "list.json", "out.toml", "--from", "onnxruntime", "--model", "model.onnx"],
     ["op '/stem/conv' matches no op", "/stem/conv/Conv"]),
    (["convert", "good.toml", "no/out.toml"], ["cannot write no/out.toml"]),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_gets_one_clear_message_and_leaves_nothing(
    call: Any, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "good.toml").write_text('[[rules]]\ntype = "Relu"\nfallback = true\n')
    (tmp_path / "ops.json").write_text('{"a": 1}')
    (tmp_path / "list.json").write_text('["/stem/conv"]')
    before = sorted(tmp_path.rglob("*"))
    code, out, err = call("recipe", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "Traceback" not in err
    for word in words:
        assert word in err, err
    assert sorted(tmp_path.rglob("*")) == before


def test_check_says_what_each_rule_matches_what_stays_float_and_what_cannot_be(call: Any, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(
        '[[rules]]\nscope = "stem"\nactivations = {dtype = "uint16"}\n'
        '[[rules]]\nop = "/body/conv/Conv"\nweights = {granularity = "per_block", block_size = 8}\n'
        '[[rules]]\ntype = "GlobalAveragePool"\nfallback = true\n'
    )
    code, out, err = call("recipe", "check", "recipe.toml", "model.onnx")
    assert (code, err) == (0, "")
    for words in (
        "3 rules", "scope 'stem': 2 ops, activations uint16", "op '/body/conv/Conv': 1 op, weights per_block 8",
        "type 'GlobalAveragePool': 1 op, in float", "2 of 6 ops stay in float", "1: fallback",
        "1: it gets codes only where its input has some", "what the backend cannot do", "/body/conv/Conv: a scale per",
    ):  # fmt: skip
        assert words in out, out
    facts = json.loads(call("recipe", "check", "recipe.toml", "model.onnx", "--json")[1])
    assert facts["rules"][0] == {"scope": "stem", "ops": ["/stem/conv/Conv", "/stem/relu/Relu"]}
    assert set(facts["float"]) == {"/head/pool/GlobalAveragePool", "/head/Flatten"}
    assert set(facts["unsupported"]) == {"/body/conv/Conv"}


def test_convert_there_and_back(call: Any, tmp_path: Path) -> None:
    names = {"/stem/.*": FP32, "/head/fc/MatMul": {"weight": {"granularity": ["per_tensor"]}}}
    types = {"GlobalAveragePool": FP32}
    both = {"op_name_dict": names, "op_type_dict": types}
    (tmp_path / "ops.json").write_text(json.dumps(both))
    code, out, err = call("recipe", "convert", "ops.json", "recipe.toml", "--from", "neural-compressor")
    assert (code, err) == (0, "")
    assert "wrote recipe.toml: 3 rules" in out
    code, _, err = call("recipe", "convert", "recipe.toml", "back.json", "--to", "neural-compressor")
    assert code == 0
    assert "note: format qdq" in err
    assert json.loads((tmp_path / "back.json").read_text()) == both
    for _ in range(2):
        call("recipe", "convert", "recipe.toml", "run.json", "--to", "onnxruntime", "--model", "model.onnx")
        arguments = json.loads((tmp_path / "run.json").read_text())
        assert arguments["nodes_to_exclude"] == [
            "/stem/conv/Conv", "/stem/relu/Relu", "/head/pool/GlobalAveragePool"
        ]  # fmt: skip
        assert "axis" not in arguments["extra_options"]["TensorQuantOverrides"]["w3"][0]
        code, _, err = call(
            "recipe", "convert", "run.json", "recipe.toml", "--from", "onnxruntime", "--model", "model.onnx"
        )
        assert (code, err) == (0, "")


def test_bare_op_names_and_what_has_no_equivalent(call: Any, tmp_path: Path) -> None:
    (tmp_path / "ops.json").write_text(json.dumps({"/stem/conv/Conv": {"activation": {"dtype": ["bf16"]}}}))
    code, _, err = call("recipe", "convert", "ops.json", "recipe.toml", "--from", "neural-compressor")
    assert code == 0
    assert "note: op_name_dict['/stem/conv/Conv']: activation dtype bf16 has no equivalent" in err
    assert Recipe.load(tmp_path / "recipe.toml").rules == (OpRule("/stem/conv/Conv"),)


def test_quantize_by_a_recipe_file(call: Any, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(
        '[[rules]]\nop = "/body/conv/Conv"\nactivations = {dtype = "int16"}\nweights = {dtype = "uint8"}\n'
    )
    code, _, _ = call(
        "quantize", "model.onnx", "int8.onnx", "--data", "samples.npz", "--recipe", "recipe.toml",
        "--fallback", "/head/fc/*",
    )  # fmt: skip
    assert code == 0
    found = dtypes(onnx.load(str(tmp_path / "int8.onnx")))
    assert found["/body/conv/Conv"][0] == ["int16", "uint8"]
    assert found["/stem/conv/Conv"][0][:2] == ["uint8", "int8"]
    assert found["/head/fc/MatMul"][0][1] == ""


@pytest.mark.parametrize("command", [["quantize", "model.onnx", "int8.onnx"], ["diagnose", "model.onnx"]])
def test_a_recipe_file_and_an_option_that_it_holds_are_an_error(call: Any, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "recipe.toml").write_text("")
    beside = ["--per-tensor", "--weights", "int8"]
    code, out, err = call(*command, "--data", "samples.npz", "--recipe", "recipe.toml", *beside)
    assert (code, out) == (2, "")
    assert "--recipe and --per-channel/--per-tensor, --weights are given" in err
    assert "--recipe alone" in err


def test_diagnose_by_a_recipe_file_keeps_it_in_the_run(call: Any, tmp_path: Path) -> None:
    import quantscope

    (tmp_path / "recipe.toml").write_text('[[rules]]\nscope = "stem"\nactivations = {dtype = "uint16"}\n')
    code, _, _ = call("diagnose", "model.onnx", "--data", "samples.npz", "--recipe", "recipe.toml")
    assert code == 0
    recipe = quantscope.open("model.qscope").recipe
    assert recipe == Recipe.load(tmp_path / "recipe.toml")
    call("quantize", "model.onnx", "int8.onnx", "--data", "samples.npz")
    code, _, err = call("diagnose", "model.onnx", "int8.onnx", "--data", "samples.npz", "--recipe", "recipe.toml")
    assert code == 2
    assert "both a quantized model and --recipe" in err


# ---- the documentation


def test_the_example_of_the_documentation_is_a_recipe_that_quantizes(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "recipes.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", document, re.DOTALL)
    (tmp_path / "example.toml").write_text(example)
    recipe = Recipe.load(tmp_path / "example.toml")
    case = Case(convolutions(), images(8))
    wanted = recipe.specs_for(case.graph)
    relu = wanted["/stem/relu/Relu"]
    assert relu is not None, "the last rule undoes the one before"
    quantized = case.quantized(recipe)
    assert not quantized.notes
    assert dtypes(quantized.handle.model.proto)["/head/fc/MatMul"][0] == ["uint16", "int4"]
    case.sqnr_db(quantized)


def test_the_documentation_names_every_key_and_choice() -> None:
    document = (ROOT / "docs" / "recipes.md").read_text()
    for word in (*DTYPES, "minmax", "percentile", "entropy", "mse", "per_tensor", "per_channel", "per_block",
                 "block_size", "op_types", "reduce_range", "scope", "regex", "fallback"):  # fmt: skip
        assert word in document
