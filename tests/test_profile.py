"""`profile`: times that add up under the user's names, and a ratio whose interval holds."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import quantscope
from conftest import convolutions, images, make_model
from quantscope import Recipe
from quantscope.advice.commands import profile_arguments_of
from quantscope.backends.base import Finding, Kernel, Peak
from quantscope.backends.onnx import BACKEND
from quantscope.backends.onnx.slowness.obstacles import X86
from quantscope.cli import main
from quantscope.errors import DataError, OutputError, RunFileError
from quantscope.profiling import Profile, Tried
from quantscope.profiling.latency import Times, is_settled, measure, ratio_interval, student_t
from quantscope.profiling.rows import added_timings, op_timings
from quantscope.qparams import QuantSpec
from registry import registry_model

PEAK = Peak(1e11, 4e11, 4e11, 1e10)


def residual() -> onnx.ModelProto:
    """A convolution whose output is added to another's and goes through a ReLU, then a classifier."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(0, 0.1, (32, 16, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.1, (32, 32, 3, 3)).astype(np.float32),
        "w3": rng.normal(0, 0.1, (32, 32, 1, 1)).astype(np.float32),
        "w4": rng.normal(0, 0.3, (32, 10)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="stem_relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="branch", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["r1", "w3"], ["c3"], name="shortcut"),
        helper.make_node("Add", ["c2", "c3"], ["a"], name="sum"),
        helper.make_node("Relu", ["a"], ["r2"], name="sum_relu"),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "w4"], ["y"], name="classifier"),
    ]
    return make_model(nodes, {"x": ["N", 16, 32, 32]}, {"y": ["N", 10]}, weights)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The residual model and its quantized form, as files."""
    folder = tmp_path_factory.mktemp("pair")
    path = folder / "float.onnx"
    onnx.save(residual(), str(path))
    data = np.random.default_rng(1).normal(0, 1, (4, 16, 32, 32)).astype(np.float32)
    quantscope.quantize(path, {"x": data}, folder / "int8.onnx")
    return path, folder / "int8.onnx"


@pytest.fixture(scope="module")
def profiled(pair: tuple[Path, Path]) -> Profile:
    """Their profile, measured briefly."""
    return quantscope.profile(
        *pair, shapes={"x": (1, 16, 32, 32)}, batches=[2, 1], threads=[1], seconds=0.5,
    )  # fmt: skip


def test_ops_that_run_in_one_kernel_share_a_row_and_a_row_has_the_same_work_on_both_sides(profiled: Profile) -> None:
    rows = {row.name: row for row in profiled.ops}
    assert set(rows["branch"].ops) >= {"branch", "sum", "sum_relu"}, "the float kernel adds and ends with the ReLU"
    assert set(rows["stem"].ops) == {"stem", "stem_relu"}
    assert "shortcut" in rows
    kernels = [k.op_type for k in rows["branch"].quantized.kernels]  # type: ignore[union-attr]
    assert {"QLinearConv", "QLinearAdd"} <= set(kernels)
    everything = [name for row in profiled.ops for name in row.ops]
    assert len(everything) == len(set(everything)), "no op is in two rows"


def test_every_kernel_has_the_users_name_and_times_add_up(profiled: Profile) -> None:
    for facts, side in ((profiled.reference, "reference"), (profiled.quantized, "quantized")):
        assert facts is not None
        assert facts.sums.attributed == 1
        sides = [getattr(row, side) for row in profiled.ops if getattr(row, side) is not None]
        assert sum(s.total_us for s in sides) == pytest.approx(facts.sums.kernels_us)
        assert sum(s.share for s in sides) == pytest.approx(1)
        for one in sides:
            assert one.total_us == pytest.approx(sum(kernel.us for kernel in one.kernels))
            assert one.total_us == pytest.approx(one.us + one.added_us)
            assert one.cpu_us == pytest.approx(one.total_us), "all runs on the CPU"
            assert one.defined == len(one.kernels)


def test_what_quantization_added_is_a_row_of_its_own_and_belongs_to_an_op(profiled: Profile) -> None:
    added = {row.op_type: row for row in profiled.added}
    assert added["QuantizeLinear"].quantized_count >= 1
    assert added["QuantizeLinear"].reference_count == 0
    assert added["QuantizeLinear"].quantized_us > 0
    stem = next(row for row in profiled.ops if row.name == "stem")
    assert stem.quantized is not None
    assert stem.quantized.added_us > 0, "the model's input is quantized for the first convolution"
    total = sum(row.quantized.added_us for row in profiled.ops if row.quantized is not None)
    assert total == pytest.approx(sum(row.quantized_us for row in profiled.added))


def test_multiply_adds_are_those_of_the_shapes(profiled: Profile) -> None:
    rows = {row.name: row.multiply_adds for row in profiled.ops}
    assert rows["stem"] == 2 * 32 * 32 * 32 * 16 * 9
    assert rows["branch"] == 2 * 32 * 32 * 32 * 32 * 9
    assert rows["shortcut"] == 2 * 32 * 32 * 32 * 32
    assert rows["classifier"] == 2 * 32 * 10


def test_latency_is_measured_at_each_setting_and_throughput_counts_samples(profiled: Profile) -> None:
    assert [(found.batch, found.threads) for found in profiled.latencies] == [(2, 1), (1, 1)]
    for found in profiled.latencies:
        assert found.quantized is not None
        assert found.rounds >= 3
        assert found.low is not None
        assert found.high is not None
        assert found.speedup is not None
        assert found.low <= found.speedup <= found.high
        for one in (found.reference, found.quantized):
            assert 0 < one.p50_us <= one.p90_us <= one.p99_us
            assert one.throughput == pytest.approx(found.batch * 1e6 / one.p50_us)


def test_without_optimization_each_op_runs_as_it_is_written(pair: tuple[Path, Path]) -> None:
    found = quantscope.profile(
        *pair, shapes={"x": (1, 16, 32, 32)}, threads=[1], optimized=[False, True], seconds=0.3
    )  # fmt: skip
    assert [each.optimized for each in found.latencies] == [False, True]
    assert (found.optimized, found.optimization) == (False, "ONNX Runtime's graph optimizations")
    assert {row.name: row.ops for row in found.ops}["branch"] == ("branch",)
    kernels = {kernel.op_type for row in found.ops for kernel in row.reference.kernels}  # type: ignore[union-attr]
    assert kernels == {"Conv", "Relu", "Add", "GlobalAveragePool", "Flatten", "MatMul"}
    assert not found.reasons, "reasons are about what production runs"
    assert found.quantized is not None
    assert found.quantized.sums.attributed == 1


@pytest.fixture(scope="module")
def signed(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The residual model and its form that x86 processors run in slow kernels."""
    quantized = tmp_path_factory.mktemp("signed") / "int8.onnx"
    data = np.random.default_rng(1).normal(0, 1, (4, 16, 32, 32)).astype(np.float32)
    recipe = Recipe(format="qoperator", activations=QuantSpec.from_dtype("int8"))
    quantscope.quantize(pair[0], {"x": data}, quantized, recipe=recipe)
    return pair[0], quantized


def rewrite(pair: tuple[Path, Path], output: Path) -> Profile:
    return quantscope.profile(*pair, shapes={"x": (1, 16, 32, 32)}, threads=[1], seconds=0.3, output=output)


on_x86 = pytest.mark.skipif(not X86, reason="the rule holds for x86 processors")


@on_x86
def test_a_faster_model_with_the_same_outputs_is_written(
    signed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantscope.profiling.exact_changes.gain", lambda *_: Tried(4.0, 1.0, 4.0, 3.0, 5.0))
    found = rewrite(signed, tmp_path / "faster.onnx").rewritten
    assert found is not None
    assert (found.path, found.samples, found.measured.gain) == (str(tmp_path / "faster.onnx"), 1, 4)
    assert ["int8 activations" in change for change in found.changes] == [True]
    assert not list(tmp_path.glob("*.qscope")), "a run is only written where one is asked for"
    sessions = [onnxruntime.InferenceSession(str(p)) for p in (signed[1], tmp_path / "faster.onnx")]
    for seed in range(5):
        x = np.random.default_rng(seed).normal(0, 2, (1, 16, 32, 32)).astype(np.float32)
        before, after = (session.run(None, {"x": x})[0] for session in sessions)
        np.testing.assert_array_equal(before, after)
    faster = onnx.load(str(tmp_path / "faster.onnx")).graph
    read = {name for node in faster.node for name in node.input}
    assert {tensor.name for tensor in faster.initializer} <= read, "what nothing reads is gone"


@on_x86
@pytest.mark.parametrize(("low", "is_exact"), [(0.9, True), (3.0, False)])
def test_a_change_that_is_not_faster_or_not_exact_is_not_written(
    low: float, is_exact: bool, signed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantscope.profiling.exact_changes.gain", lambda *_: Tried(1.0, 1.0, 1.0, low, 5.0))
    other = BACKEND.load(quantscope.quantize(signed[0], {"x": np.ones((2, 16, 32, 32), np.float32)}).handle.model.proto)
    if not is_exact:
        promised = Finding("wrong", (), "a change that promises too much", "", "", 1.0, lambda: other, exact=True)
        monkeypatch.setattr(type(BACKEND), "findings", lambda *_, **__: [promised])
    found = rewrite(signed, tmp_path / "faster.onnx")
    assert found.rewritten is None
    assert not (tmp_path / "faster.onnx").exists()
    said = "a gain is not sure (1.00×, 0.90 to 5.00)" if is_exact else "outputs would differ"
    assert any(note.startswith(f"not changed, as {said}") for note in found.notes)
    assert any(note.startswith("nothing was written") for note in found.notes)


@on_x86
def test_the_command_says_that_a_faster_model_can_be_written(
    signed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--shape", "x=1,16,32,32", "--threads", "1", "--time", "0.3")
    assert run_cli("profile", *signed, *options) == 0
    assert "quantscope profile float.qscope --output faster.onnx" in capfd.readouterr().out
    monkeypatch.setattr("quantscope.profiling.exact_changes.gain", lambda *_: Tried(4.0, 1.0, 4.0, 3.0, 5.0))
    assert run_cli("profile", *signed, *options, "--output", "faster.onnx") == 0
    shown = capfd.readouterr().out
    assert "Written: faster.onnx" in shown
    assert "4.00× (3.00 to 5.00)" in shown
    assert (tmp_path / "faster.onnx").exists()
    assert run_cli("profile", "float.qscope", "--time", "0.3", "--output", "again.onnx") == 0, "as it was said"
    assert "Written: again.onnx" in capfd.readouterr().out
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "faster.onnx").read_bytes()
    assert run_cli("profile", signed[0], "faster.onnx", *options, "--output", "faster2.onnx") == 1
    assert "nothing was written" in capfd.readouterr().out
    assert not (tmp_path / "faster2.onnx").exists()


def test_a_faster_model_never_takes_the_place_of_one_that_is_read(pair: tuple[Path, Path], tmp_path: Path) -> None:
    before = pair[1].read_bytes()
    for output, said in ((pair[1], "is a model that is read"), (tmp_path / "missing" / "a.onnx", "no such folder")):
        with pytest.raises(OutputError, match=said):
            rewrite(pair, output)
    assert pair[1].read_bytes() == before


def test_memory_counts_the_models_own_not_that_of_who_asks(pair: tuple[Path, Path], tmp_path: Path) -> None:
    big = np.random.default_rng(0).normal(size=(2048, 4096)).astype(np.float32)
    model = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="big")], {"x": [1, 2048]}, {"y": [1, 4096]}, {"w": big}
    )
    path = tmp_path / "big.onnx"
    onnx.save(model, str(path))
    ballast = np.ones(100 << 20, np.uint8)
    facts = quantscope.profile(path, threads=[1], seconds=0.2).reference
    assert facts.bytes == path.stat().st_size
    assert facts.peak_memory_bytes is not None
    assert big.nbytes <= facts.peak_memory_bytes < 6 * big.nbytes
    assert ballast.all()


def test_one_model_alone_is_profiled_without_a_ratio(pair: tuple[Path, Path]) -> None:
    alone = quantscope.profile(pair[1], shapes={"x": (1, 16, 32, 32)}, seconds=0.2)
    assert alone.quantized is None
    assert alone.latencies[0].speedup is None
    assert all(row.quantized is None and row.reference is not None for row in alone.ops)
    assert alone.reference.sums.attributed == 1


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_a_real_model_is_attributed_in_both_forms(form: Any, tmp_path: Path) -> None:
    path = registry_model("ppocrv2_cls")
    x = np.random.default_rng(0).normal(0, 1, (4, 3, 48, 192)).astype(np.float32)
    quantscope.quantize(path, {"x": x}, tmp_path / "int8.onnx", recipe=Recipe(format=form))
    found = quantscope.profile(path, tmp_path / "int8.onnx", data={"x": x}, threads=[1], seconds=0.5)
    assert found.quantized is not None
    assert found.reference.sums.attributed >= 0.95
    assert found.quantized.sums.attributed >= 0.95
    names = {op.name for op in BACKEND.load(path).graph.ops}
    assert {name for row in found.ops for name in row.ops} <= names
    both = [row for row in found.ops if row.reference is not None and row.quantized is not None]
    quantized = sum(row.quantized.total_us for row in found.ops if row.quantized is not None)
    assert sum(row.quantized.total_us for row in both if row.quantized is not None) >= 0.95 * quantized


def test_renamed_tensors_and_ops_are_still_found(pair: tuple[Path, Path], tmp_path: Path) -> None:
    proto = onnx.load(str(pair[1]))
    tensors = {n for node in proto.graph.node for n in (*node.input, *node.output)} - {"x", "y", ""}
    new = {name: f"t{i}" for i, name in enumerate(sorted(tensors))}
    for i, node in enumerate(proto.graph.node):
        node.name = f"op{i}"
        node.input[:] = [new.get(n, n) for n in node.input]
        node.output[:] = [new.get(n, n) for n in node.output]
    for tensor in proto.graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    del proto.graph.value_info[:]
    onnx.save(proto, str(tmp_path / "renamed.onnx"))
    found = quantscope.profile(pair[0], tmp_path / "renamed.onnx", shapes={"x": (1, 16, 32, 32)}, seconds=0.3)
    for row in found.ops:
        if row.name in ("stem", "branch", "shortcut", "classifier"):
            assert row.quantized is not None, row.name
            assert row.reference is not None, row.name
    assert found.quantized is not None
    assert found.quantized.sums.attributed == 1


def test_the_interval_is_students_of_the_logarithms() -> None:
    ratios = [1.9, 2.1, 2.0, 2.2, 1.95]
    logs = [math.log(r) for r in ratios]
    mean = sum(logs) / 5
    half = 2.7764451 * math.sqrt(sum((v - mean) ** 2 for v in logs) / 4 / 5)
    middle, low, high = ratio_interval(ratios)
    assert (middle, low, high) == pytest.approx(
        (math.exp(mean), math.exp(mean - half), math.exp(mean + half)), rel=1e-4
    )
    assert ratio_interval([2.0])[1:] == (0.0, math.inf)


def test_students_quantiles_are_those_of_the_tables() -> None:
    for degrees, wanted in ((1, 12.706), (5, 2.571), (10, 2.228), (11, 2.201), (20, 2.086), (30, 2.042), (120, 1.980)):
        assert student_t(degrees) == pytest.approx(wanted, abs=2e-3)


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=30))
def test_turning_the_models_round_turns_the_interval_round(ratios: list[float]) -> None:
    middle, low, high = ratio_interval(ratios)
    assert ratio_interval([1 / r for r in ratios]) == pytest.approx((1 / middle, 1 / high, 1 / low), rel=1e-9)


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        _, low, high = ratio_interval(list(1.5 * np.exp(rng.normal(0, 0.05, 6))))
        held += low <= 1.5 <= high
    assert 0.935 <= held / 2000 <= 0.965


def test_measuring_stops_when_the_ratio_is_settled_and_loads_anew_each_round() -> None:
    loaded: list[str] = []

    class Sleeping:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def run(self, inputs: Any) -> None:
            time.sleep(self.seconds)

    def load(name: str, seconds: float) -> Any:
        @contextmanager
        def opened() -> Iterator[Sleeping]:
            loaded.append(name)
            yield Sleeping(seconds)

        return opened

    shares: list[float] = []
    found = measure([load("slow", 0.004), load("fast", 0.002)], [None, None], 30.0, shares.append)
    assert loaded.count("slow") == loaded.count("fast") == len(found.ratios) >= 6
    assert loaded[:4] == ["slow", "fast", "fast", "slow"], "who is loaded first changes from round to round"
    assert found.settled == is_settled(found.ratios)
    assert shares == sorted(shares)
    assert Times([0.01, 0.02, 0.03], [0.01] * 3, [0.1]).latency(4).throughput == pytest.approx(200)


def test_kernels_of_two_types_in_one_row_and_conversions_are_told_apart() -> None:
    graph = BACKEND.load(residual()).graph
    floats = [
        Kernel("a", "Conv", "compute", 100, ops=("stem", "stem_relu"), inputs=("float32[1]",), bytes_moved=10_000),
        Kernel("r", "ReorderInput", "layout", 10, ops=("stem",)),
    ]
    integers = [
        Kernel("q", "QuantizeLinear", "quantize", 20, ops=("stem",)),
        Kernel("b", "QLinearConv", "compute", 30, ops=("stem",), inputs=("uint8[1]",)),
    ]
    (row,) = op_timings(graph, {"stem": 10**6}, PEAK, floats, integers)
    assert row.ops == ("stem", "stem_relu")
    assert row.speedup == pytest.approx(110 / 50)
    assert row.reference is not None
    assert row.quantized is not None
    assert row.reference.peak_share == pytest.approx(10**6 / 100e-6 / 1e11)
    assert row.quantized.peak_share == pytest.approx(10**6 / 30e-6 / 4e11)
    assert row.reference.bandwidth_share == pytest.approx(10_000 / 100e-6 / 1e10)
    assert [(a.op_type, a.reference_us, a.quantized_us) for a in added_timings(floats, integers)] == [
        ("QuantizeLinear", 0, 20),
        ("ReorderInput", 10, 0),
    ]


def test_a_profile_comes_back_from_json_as_it_was(profiled: Profile) -> None:
    assert Profile.from_dict(json.loads(json.dumps(profiled.to_dict()))) == profiled


@pytest.mark.parametrize("damage", [{"ops": 3}, {"peak": None}, {"reference": {}}, {"more": 1}, {"threads": "two"}])
def test_a_damaged_profile_is_refused(profiled: Profile, damage: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Profile.from_dict({**profiled.to_dict(), **damage})


def run_cli(*arguments: object) -> int:
    before = sys.argv
    sys.argv = ["quantscope", *map(str, arguments)]
    try:
        main()
    except SystemExit as error:
        return int(error.code or 0)
    finally:
        sys.argv = before
    return 0


def test_the_command_prints_the_table_writes_a_run_and_the_run_shows_and_exports_it(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--shape", "x=1,16,32,32", "--threads", "1", "--optimization", "off,on", "--time", "0.3")
    assert run_cli("profile", *pair, *options) == 0
    shown = capfd.readouterr().out
    assert "branch" in shown
    assert "QuantizeLinear" in shown
    assert "samples/s" in shown
    assert "without ONNX Runtime's graph optimizations" in shown
    run = tmp_path / "float.qscope"
    assert run.exists()
    assert profile_arguments_of(run) == (*map(str, pair), *options)
    assert run_cli("profile", *pair, *options, "--json") == 0
    document = json.loads(capfd.readouterr().out)
    assert document["quantized"]["sums"]["agreement"] > 0
    assert run_cli("show", run) == 0
    assert "branch" in capfd.readouterr().out
    assert run_cli("export", run) == 0
    table = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    stored = quantscope.open_profile(run)
    assert stored is not None
    assert [row["name"] for row in table] == [row.name for row in stored.ops]
    assert {"reference_total_us", "quantized_accelerator_us", "quantized_cpu_us", "quantized_defined"} <= set(table[0])


def test_the_models_of_a_run_are_profiled_into_it(tmp_path: Path) -> None:
    onnx.save(convolutions(), str(tmp_path / "float.onnx"))
    run = tmp_path / "run.qscope"
    quantscope.diagnose(tmp_path / "float.onnx", data={"x": images(6)}, run=run)
    assert quantscope.open_profile(run) is None
    found = quantscope.profile(run, data={"x": images(6)}, seconds=0.2)
    again = quantscope.open_profile(run)
    assert again is not None
    assert again.ops == found.ops
    assert quantscope.open(run).activations, "the diagnosis is still there"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "which leaves sizes open"),
        (("--shape", "x=1,3,32,32"), "shape [1, 3, 32, 32] for input x"),
        (("--shape", "z=1"), "which is no input"),
        (("--shape", "x"), "INPUT=SIZES"),
        (("--batch", "0"), "batch size 0"),
        (("--optimization", "none"), "--optimization 'none'"),
        (("--optimization", "off", "--try"), "tried without optimization"),
        (("--optimization", "off", "--output", "faster.onnx"), "tried without optimization"),
        (("--output", "faster.onnx"), "no quantized one is given"),
        (("--threads", "a"), "--threads 'a'"),
        (("--time", "0"), "0.0 seconds"),
        (("--data", "nothing.npz"), "nothing.npz"),
    ],
)
def test_bad_input_is_said_in_one_message_and_leaves_nothing(
    arguments: tuple[str, ...], said: str, pair: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "open.onnx"
    proto = residual()
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(proto, str(model))
    shape = () if not arguments or arguments[0] == "--shape" else ("--shape", "x=1,16,32,32")
    code = run_cli("profile", model, *arguments, *(shape if "--data" not in arguments else ()))
    text = capfd.readouterr().err
    assert code == 2
    assert said in text
    assert "Traceback" not in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["open.onnx"]


def test_models_with_other_inputs_and_damaged_runs_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    two = make_model(
        [helper.make_node("Add", ["a", "b"], ["y"], name="add")], {"a": [1], "b": [1]}, {"y": [1]}, {}
    )  # fmt: skip
    onnx.save(two, str(tmp_path / "two.onnx"))
    with pytest.raises(DataError, match="2 inputs"):
        quantscope.profile(pair[0], tmp_path / "two.onnx", shapes={"x": (1, 16, 32, 32)}, seconds=0.2)
    with pytest.raises(DataError, match="a run and another model"):
        quantscope.profile(tmp_path / "a.qscope", pair[1])
    with pytest.raises(RunFileError, match="no such run file"):
        quantscope.profile(tmp_path / "a.qscope")


def test_killed_or_interrupted_it_leaves_no_run_behind(pair: tuple[Path, Path], tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "quantscope",
        "profile",
        *map(str, pair),
        "--shape",
        "x=1,16,32,32",
        "--time",
        "60",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    run = tmp_path / "float.qscope"
    for _ in range(600):
        if run.exists() and run.stat().st_size:
            break
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_ops_inside_a_loop_are_part_of_the_loop(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["going_on"], name="keep"),
            helper.make_node("MatMul", ["state", "w"], ["next"], name="inner"),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", onnx.TensorProto.FLOAT, [8, 8]),
        ],
        [
            helper.make_tensor_value_info("going_on", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", onnx.TensorProto.FLOAT, [8, 8]),
        ],
    )
    model = make_model(
        [helper.make_node("Loop", ["times", "", "x"], ["y"], name="loop", body=body)], {"x": [8, 8]}, {"y": [8, 8]},
        {"w": np.eye(8, dtype=np.float32)},
    )  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array(5, np.int64), "times"))
    onnx.save(model, str(tmp_path / "loop.onnx"))
    found = quantscope.profile(tmp_path / "loop.onnx", seconds=0.2)
    assert [row.name for row in found.ops] == ["loop"]
    assert os.listdir(tmp_path) == ["loop.onnx"]
