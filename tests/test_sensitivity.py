"""What each op does to the output: against models in which it alone is really quantized, or left in float."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

import quantscope
from conftest import images, make_model, two_colours
from quantscope.backends.onnx import BACKEND
from quantscope.errors import DataError, RunFileError, RunInterrupted
from quantscope.fallback.damage import damage, metric_damage
from quantscope.fallback.downstream import Downstream
from quantscope.fallback.groups import chained, groups
from quantscope.pairing import TensorPair
from quantscope.progress import Silent
from quantscope.qparams import PerTensor, QuantSpec
from quantscope.recipe import Recipe
from quantscope.runfile import RunFile
from quantscope.statistics.ranks import spearman
from quantscope.workflows.ranking import open_sensitivity, resume_sensitivity, sensitivity
from quantscope.workflows.runs import opened
from test_runs import SLOW_SAMPLES, begin, finish

PER_TENSOR = QuantSpec(8, granularity=PerTensor())
RECIPE = Recipe(weights=PER_TENSOR)
OPS = (
    "/stem/conv/Conv", "/body/first/Conv", "/body/second/Conv", "/body/Add", "/head/pool/GlobalAveragePool",
    "/head/fc/MatMul",
)  # fmt: skip


def branched() -> onnx.ModelProto:
    """A stem; a body whose first convolution is read inside the body and by the head; a head."""
    rng = np.random.default_rng(5)
    weights = {
        "w1": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.3, (8, 8, 3, 3)).astype(np.float32),
        "w3": rng.normal(0, 0.3, (8, 8, 3, 3)).astype(np.float32),
        "w4": rng.normal(0, 0.5, (16, 5)).astype(np.float32),
    }
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="/stem/conv/Conv", **pads),
        helper.make_node("Relu", ["c1"], ["r1"], name="/stem/relu/Relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="/body/first/Conv", **pads),
        helper.make_node("Conv", ["c2", "w3"], ["c3"], name="/body/second/Conv", **pads),
        helper.make_node("Add", ["r1", "c3"], ["a"], name="/body/Add"),
        helper.make_node("Concat", ["a", "c2"], ["j"], name="/head/Concat", axis=1),
        helper.make_node("GlobalAveragePool", ["j"], ["g"], name="/head/pool/GlobalAveragePool"),
        helper.make_node("Flatten", ["g"], ["f"], name="/head/Flatten"),
        helper.make_node("MatMul", ["f", "w4"], ["y"], name="/head/fc/MatMul"),
    ]
    return make_model(nodes, {"x": ["N", 3, 12, 12]}, {"y": ["N", 5]}, weights)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "branched.onnx"
    onnx.save(branched(), path)
    return path


def outputs(path: Path, x: NDArray[Any]) -> NDArray[Any]:
    """Of a model run as it is written, no op fused."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    result: NDArray[Any] = session.run(None, {"x": x})[0]
    return result


def divergence(y: NDArray[Any], x: NDArray[Any]) -> float:
    p, q = (np.exp(v.astype(np.float64)) for v in (x, y))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    return float((p * np.log(p / q)).sum(1).mean())


def really(model: Path, quantized: set[str], folder: Path, x: NDArray[Any]) -> float:
    """The damage with these ops alone quantized by ONNX Runtime's quantizer, over the last 8 samples.

    The ReLU is never left in float: then the convolution's output would be rounded before it.
    """
    graph = opened(model, x, None, None)[1].graph
    kept = {*quantized, "/stem/relu/Relu"}
    recipe = RECIPE.with_fallback([op.name for op in graph.ops if op.name not in kept])
    quantscope.quantize(model, x, folder / "one.onnx", recipe=recipe, calibration_samples=16)
    return divergence(outputs(folder / "one.onnx", x[16:]), outputs(model, x[16:]))


def test_the_damage_alone_is_that_of_a_model_with_this_op_alone_quantized(model: Path, tmp_path: Path) -> None:
    x = images(24)
    found = sensitivity(model, data=x, recipe=RECIPE, calibration_samples=16)
    convolutions_alone = [row for row in found.ops if row.op_type == "Conv"]
    assert {row.op for row in convolutions_alone} == {"/stem/conv/Conv", "/body/first/Conv", "/body/second/Conv"}
    for row in convolutions_alone:
        assert row.alone == pytest.approx(really(model, {row.op}, tmp_path, x), rel=0.05), row.op
        assert row.alone_low <= row.alone <= row.alone_high
        assert row.ops == (row.op,)
    assert [row.alone for row in found.ops] == sorted((row.alone for row in found.ops), reverse=True)
    assert found.damage == pytest.approx(really(model, {*OPS, "/head/Concat"}, tmp_path, x), rel=0.05)
    assert set(found.agreement) == {"output error", "isolated error", "cumulative error", "mse"}


def test_a_module_is_measured_as_a_whole(model: Path, tmp_path: Path) -> None:
    x = images(24)
    found = sensitivity(model, data=x, recipe=RECIPE, calibration_samples=16, by="scope")
    assert {row.op: len(row.ops) for row in found.ops} == {"/stem/conv/Conv": 1, "body": 3, "head": 3}
    body = next(row for row in found.ops if row.op == "body")
    assert body.ops == ("/body/first/Conv", "/body/second/Conv", "/body/Add")
    assert body.alone == pytest.approx(really(model, set(body.ops), tmp_path, x), rel=0.05)


def test_an_output_that_is_read_on_is_computed_again_and_so_is_what_reads_it(tmp_path: Path) -> None:
    proto = branched()
    proto.graph.output.append(helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, ["N", 8, 12, 12]))
    onnx.save(onnx.shape_inference.infer_shapes(proto), str(tmp_path / "two.onnx"))
    onnx.utils.extract_model(str(tmp_path / "two.onnx"), str(tmp_path / "rest.onnx"), ["r1"], ["a", "y"])
    rest = onnxruntime.InferenceSession(str(tmp_path / "rest.onnx"), providers=["CPUExecutionProvider"])
    r1 = np.random.default_rng(0).normal(0, 1, (2, 8, 12, 12)).astype(np.float32)
    expected = dict(zip(("a", "y"), rest.run(None, {"r1": r1}), strict=True))
    model = BACKEND.load(str(tmp_path / "two.onnx"))
    assert sensitivity(tmp_path / "two.onnx", data=images(6), recipe=RECIPE).ops
    names = {name: name for name in ("r1", "c2", "a", "y")}
    with Downstream(BACKEND, model, "exact", names, 1).of(("r1",)) as rerun:
        assert rerun is not None
        found = rerun({"r1": r1}, {"x": images(2)})
    assert set(found) == {"a", "y"}
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)


def test_a_tensor_that_leaves_a_module_may_be_read_inside_it_too(model: Path) -> None:
    graph = opened(model, images(2), None, None)[1].graph
    pairs = [TensorPair(op, "activation", op.outputs[0], op.outputs[0]) for op in graph.ops if op.op_type != "Flatten"]
    found = {group.name: group for group in groups(graph, pairs, "scope")}
    assert found["body"].leaving == ("c2", "a")
    assert chained(graph, found["body"])
    assert not any(chained(graph, group) for group in groups(graph, pairs, "op"))


def test_each_op_is_a_group_and_runs_outside_modules_have_few(model: Path) -> None:
    proto = branched()
    for i, node in enumerate(proto.graph.node):
        node.name = f"op{i}"
    onnx.save(proto, model)
    graph = opened(model, images(2), None, None)[1].graph
    pairs = [TensorPair(op, "activation", op.outputs[0], op.outputs[0]) for op in graph.ops]
    assert [group.name for group in groups(graph, pairs, "op")] == [f"op{i}" for i in range(9)]
    assert [group.name for group in groups(graph, pairs, "scope")] == ["op0 … op7", "op8"]


def test_the_op_that_breaks_the_model_matters_most(broken: Path) -> None:
    found = sensitivity(broken, data=two_colours(24), recipe=RECIPE)
    worst = found.ops[0]
    assert worst.op == "/stem/conv/Conv"
    assert (worst.best_rank, worst.worst_rank) == (1, 1)
    assert worst.gain > 0.5 * found.damage
    assert worst.alone > 0.5 * found.damage
    assert all(other.alone < 0.2 * worst.alone for other in found.ops[1:])


def test_the_gain_is_what_a_real_fallback_brings(broken: Path, tmp_path: Path) -> None:
    """Against models that ONNX Runtime's quantizer made with the op really left in float."""
    x = two_colours(24)
    found = sensitivity(broken, data=x, recipe=RECIPE, calibration_samples=16)
    damages = []
    for chosen in (RECIPE, RECIPE.with_fallback([found.ops[0].op])):
        path = tmp_path / f"{len(chosen.rules)}.onnx"
        quantscope.quantize(broken, x, path, recipe=chosen, calibration_samples=16)
        damages.append(divergence(outputs(path, x[16:]), outputs(broken, x[16:])))
    assert found.damage == pytest.approx(damages[0], rel=0.2)
    assert found.ops[0].gain == pytest.approx(damages[0] - damages[1], rel=0.2)


def test_what_does_next_to_nothing_alone_is_not_looked_at_any_further(broken: Path) -> None:
    """The culprit does nearly all of the damage; a convolution per channel with 16-bit activations next to none."""
    x = two_colours(24)
    whole = sensitivity(broken, data=x, recipe=RECIPE)
    idle = [row for row in whole.ops if math.isnan(row.alone_low)]
    for row in idle:
        assert row.alone < 1e-3 * whole.damage
        assert math.isnan(row.gain)
    assert all(row.alone <= whole.ops[0].alone for row in idle)
    few = sensitivity(broken, data=x, recipe=RECIPE, most_ops=1)
    assert [row.op for row in few.ops] == [whole.ops[0].op], "the estimate chose the op that matters most"
    assert set(few.others) >= {row.op for row in whole.ops[1:]}
    assert set(few.ranking) == set(whole.ranking)


def test_the_damage_may_be_the_drop_of_a_metric(broken: Path) -> None:
    x = two_colours(24)

    def sharpness(outputs: Any, labels: Any) -> Any:
        return outputs["logits"].max(1) - outputs["logits"].min(1)

    found = sensitivity(broken, data=x, recipe=RECIPE, metric=sharpness, calibration_samples=16)
    assert found.damage_name == "drop of sharpness"
    agreement = sensitivity(broken, data=x, recipe=RECIPE, metric="agreement", calibration_samples=16)
    assert agreement.damage_name == "drop of agreement"
    assert 0 <= agreement.damage <= 1
    reference, other = {"y": np.array([[1.0, 2.0], [3.0, 1.0]])}, {"y": np.array([[1.0, 0.0], [3.0, 1.0]])}
    assert metric_damage("agreement", other, reference, None)[1].tolist() == [1, 0]
    assert metric_damage("mse", other, reference, None)[1].tolist() == [2, 0]


def test_processes_that_share_the_ops_give_the_same_figures(model: Path) -> None:
    one = sensitivity(model, data=images(24), recipe=RECIPE, threads=1)
    two = sensitivity(model, data=images(24), recipe=RECIPE, threads=1, workers=2)
    assert repr(two) == repr(one)


def test_what_was_measured_before_a_kill_is_not_measured_again(tmp_path: Path, model: Path) -> None:
    (tmp_path / "slow_samples.py").write_text(SLOW_SAMPLES)
    run = tmp_path / "run.qscope"
    np.savez(tmp_path / "s.npz", x=images(40))
    process = begin(tmp_path, "sensitivity", model.name, "--data", "s.npz", "--run", run.name, "--json", "--per-tensor")
    while not (run.exists() and _known(run)):
        if process.poll() is not None:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with RunFile.read(run) as run_file:
        finished = run_file.about("status") == "finished"
        before = run_file.about("measured")
    if not finished:
        with RunFile.read(run) as run_file:
            # What was measured is taken as it stands: a false figure survives.
            name = next(iter(before))
            before[name]["alone"] = [1234.0] * len(before[name]["alone"])
            run_file.write_about(measured=before)
        out, _ = finish(begin(tmp_path, "sensitivity", "--resume", run.name, "--json"))
        found = json.loads(out)
        assert found["ops"][0]["op"] == name
        assert found["ops"][0]["alone"] == 1234.0
    shown = finish(begin(tmp_path, "show", run.name))[0]
    assert "Effect on the output" in shown
    assert "rank correlation" in shown
    again = open_sensitivity(run)
    assert again is not None
    assert again.ops


class Stopped(Silent):
    """Ctrl-C once an op was measured."""

    def __init__(self) -> None:
        self.measuring = False

    def stage(self, name: str, total: int | None) -> None:
        self.measuring = name == "sensitivity"

    def advance(self, count: int = 1) -> None:
        if self.measuring:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_what_was_measured_to_go_on_with(tmp_path: Path, model: Path) -> None:
    np.savez(tmp_path / "s.npz", x=images(24))
    run = tmp_path / "run.qscope"
    with pytest.raises(RunInterrupted):
        sensitivity(model, data=tmp_path / "s.npz", recipe=RECIPE, run=run, progress=Stopped())
    assert _known(run)
    with RunFile.read(run) as run_file:
        # Whoever goes on is another process: this one is still there, and would be taken for the writer.
        run_file.write_about(writer={})
    assert len(resume_sensitivity(run).ops) >= 4


def _known(run: Path) -> bool:
    try:
        with RunFile.read(run) as run_file:
            return bool(run_file.about("measured"))
    except RunFileError:
        return False


def test_bad_input_is_refused(model: Path) -> None:
    with pytest.raises(DataError, match="0 ops"):
        sensitivity(model, data=images(8), most_ops=0)
    with pytest.raises(DataError, match="unknown metric"):
        sensitivity(model, data=images(8), metric="beauty")


def test_damage_is_the_divergence_of_distributions_or_noise_over_signal() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 2, (5, 7)), rng.normal(0, 2, (5, 7))
    p, q = (np.exp(v) / np.exp(v).sum(1, keepdims=True) for v in (x, y))
    name, found = damage({"y": y}, {"y": x})
    assert name == "KL divergence"
    np.testing.assert_allclose(found, (p * np.log(p / q)).sum(1), rtol=1e-9)
    np.testing.assert_allclose(damage({"y": q}, {"y": p})[1], found, rtol=1e-9)
    image, other = rng.normal(0, 1, (3, 2, 4, 4)), rng.normal(0, 1, (3, 2, 4, 4))
    name, found = damage({"y": other}, {"y": image})
    assert name == "noise over signal"
    np.testing.assert_allclose(found, ((image - other) ** 2).sum((1, 2, 3)) / (image**2).sum((1, 2, 3)))


def test_rank_correlation_is_spearmans() -> None:
    x, y = np.array([3.0, 1.0, 2.0, 5.0]), np.array([30.0, 10.0, 20.0, 50.0])
    assert spearman(x, y) == pytest.approx(1)
    assert spearman(x, -y) == pytest.approx(-1)
    # 1 − 6·Σd²/(n(n²−1)) with ranks 3 1 2 4 and 1 3 2 4.
    assert spearman(x, np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(1 - 6 * 8 / (4 * 15))
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0])) == pytest.approx(1)
    assert math.isnan(spearman(x[:2], y[:2]))
    assert math.isnan(spearman(x, np.ones(4)))
