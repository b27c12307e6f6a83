"""Every figure of a diagnosis against float64 numpy on a real model, and the right tensor beside the right tensor."""

from __future__ import annotations

import math
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
from quantscope import Diagnosis, OpRule, Preprocessing, Recipe, Samples, TensorDiagnosis
from quantscope.diagnosis import ordered
from quantscope.qparams import PerTensor, QuantSpec
from quantscope.report.document import document

PER_TENSOR = QuantSpec(8, granularity=PerTensor())


def run_exposed(path: Path, names: list[str], batches: list[dict[str, Any]], level: str) -> dict[str, NDArray[Any]]:
    """The named tensors over all batches, by ONNX Runtime alone."""
    proto = onnx.load(str(path))
    present = {o.name for o in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in dict.fromkeys(names) if n not in present)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    runs = [session.run(names, batch) for batch in batches]
    return {name: np.concatenate([run[i] for run in runs]) for i, name in enumerate(names)}


def deployed_model(path: Path, folder: Path) -> Path:
    """The graph that ONNX Runtime makes of a model, by ONNX Runtime alone."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(folder / "deployed.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return folder / "deployed.onnx"


def assert_close(found: float, expected: Any, name: str, scale: float = 0.0) -> None:
    assert found == pytest.approx(float(expected), rel=1e-6, abs=1e-6 * scale + 1e-300, nan_ok=True), name


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_every_activation_figure_equals_float64_numpy(
    magika: Path, files: Samples, tmp_path: Path, batch_size: int
) -> None:
    count = 10
    diagnosis = quantscope.diagnose(
        magika, data=files, calibration_samples=20, samples=count, batch_size=batch_size,
        output=tmp_path / "int8.onnx",
    )  # fmt: skip
    rows = [t for t in diagnosis.tensors if t.role == "activation"]
    assert len(rows) > 50
    inputs = quantscope.Samples.of(files).for_inputs([quantscope_input(magika)])
    batches = [b.inputs for b in inputs.batches(batch_size, start=20, stop=20 + count)]
    reference = run_exposed(magika, [t.tensor for t in rows], batches, "ORT_ENABLE_ALL")
    deployed = deployed_model(tmp_path / "int8.onnx", tmp_path)
    quantized = run_exposed(deployed, [t.quantized_tensor for t in rows], batches, "ORT_DISABLE_ALL")
    for t in rows:
        x, codes = reference[t.tensor].astype(np.float64), quantized[t.quantized_tensor]
        scale, zero = np.float64(t.scale), t.zero_point
        if codes.dtype == np.uint8:
            assert zero is not None
            y = ((codes.astype(np.int64) - zero).astype(np.float32) * np.float32(t.scale)).astype(np.float64)
        else:
            y = codes.astype(np.float64)
        # ONNX Runtime may keep channels last: the same values in another order.
        last = np.moveaxis(y, -1, min(1, y.ndim - 1))
        if y.shape != x.shape or (last.shape == x.shape and np.square(x - last).sum() < np.square(x - y).sum()):
            y = last
        x, y = x.reshape(-1), y.reshape(-1)
        check_row(t, x, y)
        if t.is_quantized:
            assert zero is not None
            unclipped = np.rint(x / scale) + zero
            own = (np.clip(unclipped, 0, 255) - zero) * scale
            # A value half-way between two codes may round to either: the error is the same.
            assert_close(t.local_mse, ((x - own) ** 2).mean(), t.op)
            assert_close(t.local_sqnr_db, 10 * np.log10((x * x).sum() / ((x - own) ** 2).sum()), t.op)
            assert_close(t.clipped_fraction, ((unclipped < 0) | (unclipped > 255)).mean(), t.op)
            assert_close(t.rmse_over_scale, np.sqrt(((x - y) ** 2).mean()) / scale, t.op)
            assert t.levels_used == len(np.unique(codes if codes.dtype == np.uint8 else np.rint(y / scale)))
    outputs = run_exposed(tmp_path / "int8.onnx", ["target_label"], batches, "ORT_ENABLE_ALL")["target_label"]
    labels = np.concatenate([b.labels for b in inputs.batches(64, start=20, stop=20 + count) if b.labels is not None])
    right = outputs.reshape(count, -1).argmax(1) == labels
    assert diagnosis.scores[0].metric == "top1"
    assert_close(diagnosis.scores[0].quantized, right.mean(), "top1")
    assert diagnosis.measuring_changed == 0


def quantscope_input(path: Path) -> Any:
    from quantscope.backends.onnx import BACKEND

    return BACKEND.load(path).graph.inputs[0]


def check_row(t: TensorDiagnosis, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """All columns that follow from the two tensors alone."""
    d = x - y
    assert_close(t.mse, (d * d).mean(), t.op)
    assert_close(t.sqnr_db, 10 * np.log10((x * x).sum() / (d * d).sum()) if d.any() else math.inf, t.op)
    norms = math.sqrt((x * x).sum() * (y * y).sum())
    assert_close(t.cosine, (x * y).sum() / norms if norms else float(not x.any() and not y.any()), t.op)
    for side, values in ((t.reference, x), (t.quantized, y)):
        assert (side.count, side.nan_count, side.infinity_count) == (values.size, 0, 0)
        assert (side.min, side.max) == (values.min(), values.max())
        spread = float(np.abs(values).max())
        assert_close(side.mean, values.mean(), t.op, spread * 1e-3)
        assert_close(side.std, values.std(), t.op, spread * 1e-3)
        assert_close(side.variance, values.var(), t.op, spread**2 * 1e-3)
    if np.ptp(x) > 0 and d.std() > 0:
        assert t.effective_bits == pytest.approx(np.log2(np.ptp(x) / d.std()), rel=1e-6)
    histogram = t.histogram
    assert histogram is not None
    np.testing.assert_array_equal(histogram.reference, np.histogram(x, histogram.edges)[0])
    np.testing.assert_array_equal(histogram.quantized, np.histogram(y, histogram.edges)[0])
    assert histogram.reference.sum() == x.size, "no value lies outside the bins"


@pytest.mark.parametrize("weights", [QuantSpec(8), replace(Recipe().weights)], ids=["per tensor", "per channel"])
def test_every_weight_figure_equals_float64_numpy(
    magika: Path, files: Samples, tmp_path: Path, weights: QuantSpec
) -> None:
    diagnosis = quantscope.diagnose(
        magika, data=files, samples=2, recipe=Recipe(weights=weights), output=tmp_path / "int8.onnx"
    )
    proto = onnx.load(str(tmp_path / "int8.onnx"))
    constants = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    original = {i.name: numpy_helper.to_array(i) for i in onnx.load(str(magika)).graph.initializer}
    checked = 0
    for t in diagnosis.weights:
        codes = constants[t.quantized_tensor + "_quantized"].astype(np.float64)
        scale, zero = (constants[f"{t.quantized_tensor}_{part}"].astype(np.float64) for part in ("scale", "zero_point"))
        if scale.size > 1:
            assert t.granularity.startswith("per channel")
            axis = int(t.granularity.split()[-1])
            shape = [1] * codes.ndim
            shape[axis] = -1
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        y = ((codes - zero) * scale).astype(np.float32).astype(np.float64)
        candidates = [w for w in original.values() if w.shape == y.shape and np.abs(w - y).max() < scale.max()]
        if len(candidates) != 1:
            continue
        x = candidates[0].astype(np.float64)
        check_row(t, x.reshape(-1), y.reshape(-1))
        checked += 1
        if t.channels is not None:
            check_channels(t, x, y)
    assert checked >= 5


def check_channels(t: TensorDiagnosis, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    channels = t.channels
    assert channels is not None
    for i in range(x.shape[channels.axis]):
        a, b = np.take(x, i, channels.axis), np.take(y, i, channels.axis)
        assert channels.minimum[i] == a.min()
        assert channels.quantized_maximum[i] == b.max()
        assert channels.mean[i] == pytest.approx(a.mean(), rel=1e-6, abs=1e-9)
        assert channels.std[i] == pytest.approx(a.std(), rel=1e-6)
        assert channels.mse[i] == pytest.approx(((a - b) ** 2).mean(), rel=1e-6)
        np.testing.assert_array_equal(channels.reference_counts[i], np.histogram(a, channels.edges)[0])
        np.testing.assert_array_equal(channels.quantized_counts[i], np.histogram(b, channels.edges)[0])


def by_op(diagnosis: Diagnosis) -> dict[str, TensorDiagnosis]:
    return {t.op: t for t in diagnosis.activations}


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_a_convolution_with_an_absorbed_relu_is_compared_with_the_right_tensor(form: Any) -> None:
    # onnxruntime's debugger compares it with the tensor before the ReLU: 2 to 4 dB.
    diagnosis = quantscope.diagnose(convolutions(), data=images(40), recipe=Recipe(format=form))
    stem = by_op(diagnosis)["/stem/conv/Conv"]
    assert (stem.tensor, stem.absorbed, stem.op_type) == ("r1", "Relu", "Conv")
    assert stem.reference.min == 0
    assert stem.sqnr_db > 35
    assert diagnosis.coverage == 1
    assert diagnosis.skipped["/head/Flatten"].startswith("nothing to compare: Flatten only rearranges")


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize(
    "weights", [QuantSpec(8), Recipe().weights, QuantSpec(8, False, False)], ids=["pt", "pc", "u8"]
)
def test_every_form_gives_sound_rows_for_activations_and_weights(form: Any, weights: QuantSpec) -> None:
    diagnosis = quantscope.diagnose(convolutions(), data=images(40), recipe=Recipe(format=form, weights=weights))
    assert {"/stem/conv/Conv", "/body/conv/Conv", "/head/pool/GlobalAveragePool", "/head/fc/MatMul"} == set(
        by_op(diagnosis)
    )
    found = {t.op: t for t in diagnosis.weights}
    assert set(found) == {"/stem/conv/Conv", "/body/conv/Conv", "/head/fc/MatMul"}
    for t in (*diagnosis.activations, *diagnosis.weights):
        assert t.sqnr_db > 30, t
        assert t.cosine > 0.99
    assert found["/body/conv/Conv"].dtype == weights.dtype
    assert found["/body/conv/Conv"].channels is not None


@pytest.mark.parametrize("symmetric", [False, True])
def test_symmetric_signed_activations(symmetric: bool) -> None:
    recipe = Recipe(activations=QuantSpec(8, signed=True, symmetric=symmetric))
    diagnosis = quantscope.diagnose(convolutions(), data=images(40), recipe=recipe)
    rows = [t for t in diagnosis.activations if t.is_quantized]
    assert rows
    assert all(t.sqnr_db > 25 for t in rows)
    # ONNX Runtime may run int8 codes as uint8 ones, 128 higher: the rows show what runs.
    middle = {"int8": 0, "uint8": 128}
    assert all(t.zero_point == middle[t.dtype] for t in rows) == symmetric


def test_a_fallback_stays_in_float_and_is_shown_so() -> None:
    recipe = Recipe(rules=(OpRule("/body/*"), OpRule("GlobalAveragePool", "type")))
    diagnosis = quantscope.diagnose(convolutions(), data=images(40), recipe=recipe)
    rows = by_op(diagnosis)
    assert not [t for t in diagnosis.weights if t.op == "/body/conv/Conv" and t.is_quantized]
    assert rows["/stem/conv/Conv"].is_quantized
    with pytest.raises(quantscope.QuantscopeError, match="matches no op"):
        quantscope.diagnose(convolutions(), data=images(40), recipe=Recipe().with_fallback(["/nowhere/*"]))


def test_a_given_pair_is_compared_and_nothing_is_calibrated(tmp_path: Path) -> None:
    reference, quantized = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(convolutions(), str(reference))
    made = quantscope.quantize(reference, images(20), quantized)
    assert quantized.stat().st_size > 0
    assert made.backend == "onnx"
    alone = quantscope.diagnose(reference, quantized, data=images(30, seed=9))
    assert alone.recipe is None
    assert alone.samples["calibration"] == 0
    assert alone.samples["evaluation"] == 30
    assert all(t.sqnr_db > 25 for t in alone.activations)


def test_nan_infinity_constant_and_empty_tensors_get_their_rows() -> None:
    nodes = [
        helper.make_node("Sqrt", ["x"], ["root"], name="root"),
        helper.make_node("Mul", ["z", "zero"], ["nothing"], name="constant"),
        helper.make_node("Slice", ["x", "none", "none"], ["gone"], name="empty"),
        helper.make_node("Relu", ["gone"], ["still_gone"], name="relu"),
        helper.make_node("Add", ["root", "nothing"], ["y"], name="sum"),
    ]
    weights: dict[str, Any] = {"zero": np.zeros(4, np.float32), "none": np.zeros(1, np.int64)}
    proto = make_model(nodes, {"x": ["N", 4], "z": ["N", 4]}, {"y": ["N", 4], "still_gone": [None, 4]}, weights)
    x = np.random.default_rng(0).uniform(0.5, 1, (30, 4)).astype(np.float32)
    x[23, 2] = -1
    recipe = Recipe(rules=(OpRule("root"), OpRule("relu"), OpRule("empty"), OpRule("sum")))
    diagnosis = quantscope.diagnose(
        proto, data={"x": x, "z": x}, recipe=recipe, batch_size=4, metric=lambda o, _: np.ones(len(o["y"]))
    )
    rows = by_op(diagnosis)
    assert rows["root"].reference.nan_count == 1
    assert rows["root"].first_non_finite_sample == 23
    assert "1 NaN in quantized, 1 NaN in reference" in rows["root"].remark
    assert "first in sample 23" in rows["root"].remark
    assert math.isnan(rows["root"].mse)
    assert rows["root"].reference.min > 0, "the finite values are still described"
    assert diagnosis.activations[0].non_finite_count, "what is not finite leads the table"
    assert diagnosis.first_not_finite is not None
    assert diagnosis.first_not_finite.op == "root"
    assert rows["constant"].remark == "constant"
    assert rows["relu"].remark == "empty"


def test_rows_can_be_ordered_by_any_column() -> None:
    diagnosis = quantscope.diagnose(convolutions(), data=images(30))
    by_mse = [t.mse for t in ordered(diagnosis.activations, "mse")]
    assert by_mse == sorted(by_mse, reverse=True)
    by_sqnr = [t.sqnr_db for t in ordered(diagnosis.activations, "sqnr_db")]
    assert by_sqnr == sorted(by_sqnr)
    by_share = [t.output_error_share for t in diagnosis.activations]
    assert by_share == sorted(by_share, reverse=True)
    with pytest.raises(KeyError):
        ordered(diagnosis.activations, "beauty")


def test_photos_from_python(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(6):
        Image.fromarray(np.full((14, 15, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    diagnosis = quantscope.diagnose(convolutions(), data=tmp_path, preprocessing=Preprocessing(crop=12, scale=1 / 255))
    assert diagnosis.scores[0].metric == "agreement"
    assert any("1 photo could not be read" in note and "broken.jpg" in note for note in diagnosis.notes)


def test_a_model_that_fixes_its_batch() -> None:
    diagnosis = quantscope.diagnose(convolutions(batch=4), data=images(30), calibration_samples=8)
    assert diagnosis.scores[0].samples == 20, "the last two do not fill a batch"
    with pytest.raises(quantscope.QuantscopeError, match="batch size 3, and the model's inputs fix 4"):
        quantscope.diagnose(convolutions(batch=4), data=images(30), batch_size=3)


def test_a_diagnosis_in_a_notebook_and_as_a_frame() -> None:
    diagnosis = quantscope.diagnose(convolutions(), data=images(30))
    html = diagnosis._repr_html_()
    assert "Activations summary" in html
    assert "/stem/conv/Conv" in html
    assert "<script" not in html
    pandas = pytest.importorskip("pandas")
    frame = diagnosis.frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["output_error_share"].is_monotonic_decreasing
    assert set(diagnosis.frame("weight")["op"]) == {"/stem/conv/Conv", "/body/conv/Conv", "/head/fc/MatMul"}


def test_a_failure_source_is_an_op_whose_inputs_were_fine() -> None:
    """All codes of one weight are zero: its op is named, and not those behind it."""
    broken = quantscope.quantize(convolutions(), images(20)).handle.model.proto
    weight = next(t for t in broken.graph.initializer if t.name == "w2_quantized")
    weight.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(weight)), weight.name))
    diagnosis = quantscope.diagnose(convolutions(), broken, data=images(40))
    assert [source.row.op for source in diagnosis.failure_sources] == ["/body/conv/Conv"]
    assert diagnosis.failure_sources[0].inputs_db > 30
    assert document(diagnosis)["failure_sources"][0]["op"] == "/body/conv/Conv"


def test_a_healthy_model_has_no_failure_source() -> None:
    assert not quantscope.diagnose(convolutions(), data=images(30)).failure_sources
