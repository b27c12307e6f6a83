"""Where other tools give a wrong figure: theirs, ours and the true one, on the same input.

Tools that cannot be installed beside quantscope gave their figures to `rivals/make.py`. What ONNX Runtime's own
debugger and calibrator say is measured here, within bounds that only a wrong figure meets: a release that repairs one
fails its test, and the claim is looked at again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization import qdq_loss_debug as debugger
from onnxruntime.quantization.calibrate import create_calibrator

import quantscope
from conftest import convolutions, images, make_model
from producers.ort import Reader
from quantscope import Recipe, Samples, TensorDiagnosis
from quantscope.backends.onnx import BACKEND
from quantscope.calibration import calibrate
from quantscope.statistics import PairStatistics
from registry import registry_model
from rivals.make import LINES, line, one_exact_in_ten, stored, true_mse, true_sqnr_db
from test_diagnosis import deployed_model, run_exposed
from test_real_models import text_lines

NEURAL_COMPRESSOR_MODEL = Path(__file__).parent / "producers" / "data" / "neural_compressor_cls_qdq.onnx"
Activations = dict[str, list[NDArray[Any]]]


def show(defect: str, rival: object, ours: object, true: object) -> None:
    """One line of the comparison, for `pytest -s`."""
    print(f"\n{defect}: rival {rival}, quantscope {ours}, true {true}")


def compared(x: NDArray[Any], y: NDArray[Any]) -> PairStatistics:
    """quantscope's statistics of a pair, fed with a sample at a time."""
    statistics = PairStatistics()
    for a, b in zip(x, y, strict=True):
        statistics.update(a, b)
    return statistics


def reader(x: NDArray[Any], name: str = "x") -> Reader:
    """Samples one by one for ONNX Runtime's tools."""
    return Reader([{name: sample[None]} for sample in x])


def quantized(folder: Path, model: onnx.ModelProto, x: NDArray[Any], **options: Any) -> tuple[Path, Path]:
    """The files of a model and of what ONNX Runtime's own quantizer makes of it, activations in uint8."""
    reference, result = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(model, str(reference))
    quantize_static(str(reference), str(result), reader(x), activation_type=QuantType.QUInt8, **options)
    return reference, result


def activations(model: Path, x: NDArray[Any], folder: Path, name: str = "x") -> Activations:
    """All tensors that the rival's debugger collects from a model."""
    augmented = str(folder / f"augmented_{model.name}")
    debugger.modify_model_output_intermediate_tensors(str(model), augmented)
    found: Activations = debugger.collect_activations(augmented, reader(x, name))
    return found


def debugged(reference: Path, result: Path, x: NDArray[Any], folder: Path) -> dict[str, dict[str, float]]:
    """The rival's errors by tensor, in dB."""
    match = debugger.create_activation_matching(activations(result, x, folder), activations(reference, x, folder))
    errors: dict[str, dict[str, float]] = debugger.compute_activation_error(match)
    return errors


def constants(model: Path) -> dict[str, NDArray[Any]]:
    """The initializers of a model."""
    return {i.name: numpy_helper.to_array(i) for i in onnx.load(str(model)).graph.initializer}


def dequantized(codes: NDArray[Any], values: dict[str, NDArray[Any]], name: str) -> NDArray[np.float64]:
    """Codes as real numbers by the definition of DequantizeLinear, in float64."""
    scale, zero = (values[f"{name}_{part}"].astype(np.float64) for part in ("scale", "zero_point"))
    real: NDArray[np.float64] = (codes.astype(np.float64) - zero) * scale
    return real


@pytest.mark.parametrize("name", list(LINES))
def test_neural_compressor_normalizes_each_tensor_by_itself_and_finds_no_error(name: str) -> None:
    x, y = line(name)
    figure = stored("neural_compressor")["figures"][name]
    ours, true = compared(x[None], y[None]).error.mse, true_mse(x, y)
    show(f"mse of y = {name}", figure["rival"], ours, true)
    assert figure["true"] == pytest.approx(true, rel=1e-6), "the rival saw the same tensors"
    assert figure["rival"] < 1e-12
    assert true > 9
    assert ours == pytest.approx(true, rel=1e-9)


@pytest.mark.parametrize(("rival", "decibels"), [("aimet", 79.6), ("quark", 24.5)])
def test_an_average_over_samples_lets_one_exact_sample_in_ten_hide_the_error(rival: str, decibels: float) -> None:
    # AIMET averages the ratio, Quark its logarithm.
    x, y = one_exact_in_ten()
    figure = stored(rival)["figures"]["one exact in ten"]
    ours, true = compared(x, y).error.sqnr_db, true_sqnr_db(x, y)
    show(f"SQNR with one exact sample in ten, {rival}", figure["rival"], ours, true)
    assert figure["true"] == pytest.approx(true, rel=1e-6), "the rival saw the same tensors"
    assert figure["rival"] == pytest.approx(decibels, abs=0.1)
    assert true == pytest.approx(11.05, abs=0.01)
    assert ours == pytest.approx(true, rel=1e-9)


def test_onnxruntimes_sqnr_is_pooled_as_ours_unless_its_caller_averages_it() -> None:
    x, y = one_exact_in_ten()
    sqnr = debugger.compute_signal_to_quantization_noice_ratio
    averaged = np.mean([sqnr(a, b) for a, b in zip(x, y, strict=True)])
    ours, true = compared(x, y).error.sqnr_db, true_sqnr_db(x, y)
    show("SQNR with one exact sample in ten, called per sample", averaged, ours, true)
    assert averaged > 40
    assert sqnr(list(x), list(y)) == pytest.approx(true, abs=1e-3)
    assert ours == pytest.approx(true, rel=1e-9)


def test_onnxruntimes_debugger_wraps_weights_of_uint8(tmp_path: Path) -> None:
    x = images(4)
    reference, result = quantized(tmp_path, convolutions(), x, weight_type=QuantType.QUInt8)
    rival = debugger.compute_weight_error(debugger.create_weight_matching(str(reference), str(result)))
    rows = {t.tensor: t for t in quantscope.diagnose(reference, result, data=x).weights}
    floats, codes = constants(reference), constants(result)
    assert set(rows) == {"w1", "w2", "w3"}
    for name, row in rows.items():
        assert codes[f"{name}_quantized"].dtype == np.uint8
        true = true_sqnr_db(floats[name], dequantized(codes[f"{name}_quantized"], codes, name))
        show(f"SQNR in dB of the uint8 weight {name}", rival[name], row.sqnr_db, true)
        assert rival[name] < -9, "not even the sign of the ratio is right"
        assert true > 40
        assert row.sqnr_db == pytest.approx(true, abs=1e-3)
    assert rival["w2"] == pytest.approx(-13.86, abs=0.5)


def test_onnxruntimes_debugger_compares_a_convolution_with_the_tensor_before_its_absorbed_relu(tmp_path: Path) -> None:
    x = images(24)
    reference, result = quantized(tmp_path, convolutions(), x, weight_type=QuantType.QInt8)
    rival = debugged(reference, result, x, tmp_path)["r1"]["qdq_err"]
    row = row_of(quantscope.diagnose(reference, result, data=x).activations, "/stem/conv/Conv")
    r1 = np.concatenate(activations(reference, x, tmp_path)["r1"]).astype(np.float64)
    values = constants(result)
    codes = np.clip(np.rint(r1 / values["r1_scale"].astype(np.float64)) + values["r1_zero_point"], 0, 255)
    true = true_sqnr_db(r1, dequantized(codes, values, "r1"))
    show("SQNR in dB of rounding after an absorbed ReLU", rival, row.local_sqnr_db, true)
    assert 2 < rival < 4
    assert (row.tensor, row.absorbed) == ("r1", "Relu")
    assert true == pytest.approx(46.5, abs=1)
    assert row.local_sqnr_db == pytest.approx(true, abs=1e-2)


def row_of(rows: tuple[TensorDiagnosis, ...], op: str) -> TensorDiagnosis:
    """The one row of an op."""
    (found,) = (row for row in rows if row.op == op)
    return found


def test_onnxruntimes_debugger_gives_no_pair_and_no_error_for_a_qoperator_model(tmp_path: Path) -> None:
    x = images(8)
    reference, result = quantized(
        tmp_path, convolutions(), x, quant_format=QuantFormat.QOperator, weight_type=QuantType.QInt8
    )
    errors = debugged(reference, result, x, tmp_path)
    weights = debugger.create_weight_matching(str(reference), str(result))
    diagnosis = quantscope.diagnose(reference, result, data=x)
    rows = [row for row in (*diagnosis.activations, *diagnosis.weights) if row.sqnr_db > 20]
    show("tensors of a QOperator model that are compared", len(errors) + len(weights), len(rows), 7)
    assert (errors, weights) == ({}, {})
    assert {row.op for row in diagnosis.activations} == {
        "/stem/conv/Conv", "/body/conv/Conv", "/head/pool/GlobalAveragePool", "/head/fc/MatMul",
    }  # fmt: skip
    assert (len(rows), diagnosis.coverage) == (7, 1)


SIZE = 96  # of the pictures: 13 MiB per sample in all tensors of both models


def chain() -> onnx.ModelProto:
    """Four convolutions of large pictures."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], {}, "x"
    for i in range(4):
        weights[f"w{i}"] = rng.normal(0, 0.1, (16, 16 if i else 3, 3, 3)).astype(np.float32)
        nodes += [
            helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], name=f"conv{i}", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"], name=f"relu{i}"),
        ]
        last = f"r{i}"
    return make_model(nodes, {"x": [1, 3, SIZE, SIZE]}, {last: [1, 16, SIZE, SIZE]}, weights)


def pictures(count: int) -> Iterator[NDArray[Any]]:
    """Samples for `chain`, made as they are asked for."""
    return (np.random.default_rng(i).normal(0, 1, (3, SIZE, SIZE)).astype(np.float32) for i in range(count))


def peak_memory_of(who: str, reference: str, result: str, count: str) -> None:
    """Prints the peak memory of this process in KiB after one of the two tools compared the models; runs by itself."""
    x = np.stack(list(pictures(int(count))))
    if who == "rival":
        assert debugged(Path(reference), Path(result), x, Path(reference).parent)
    else:
        assert quantscope.diagnose(reference, result, data=x, threads=1).coverage == 1
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(text for text in status if text.startswith("VmHWM")).split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory is read from Linux's /proc")
def test_onnxruntimes_debugger_needs_memory_for_every_sample(tmp_path: Path) -> None:
    reference, result = quantized(tmp_path, chain(), np.stack(list(pictures(1))), weight_type=QuantType.QInt8)
    # Compiles what is not compiled yet, which needs memory of its own.
    quantscope.diagnose(reference, result, data=np.stack(list(pictures(2))), threads=1)
    growth = {}
    for who in ("rival", "quantscope"):
        peaks = []
        for count in ("4", "32"):
            code = f"import test_rivals as t; t.peak_memory_of({who!r}, {str(reference)!r}, {str(result)!r}, {count})"
            run = subprocess.run(
                [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
            )
            assert run.returncode == 0, run.stderr
            peaks.append(int(run.stdout.split()[-1]) / 1024)
        growth[who] = peaks[1] / peaks[0]
        print(f"\npeak memory of {who} with 4 and 32 samples: {peaks[0]:.0f} and {peaks[1]:.0f} MiB")
    show("growth of the peak memory from 4 to 32 samples", growth["rival"], growth["quantscope"], 1)
    assert growth["rival"] > 1.5
    assert growth["quantscope"] == pytest.approx(1, abs=0.15)


def test_onnxruntimes_calibrator_loses_batches_when_it_shall_save_memory(tmp_path: Path, model: Path) -> None:
    # With the option all that was collected is thrown away every four samples before its range is taken.
    x = images(33)
    x[5] *= 33 / np.abs(x[5]).max()
    ranges = {}
    for option in (None, 4):
        calibrator = create_calibrator(
            model, [], str(tmp_path / f"{option}.onnx"), extra_options={"max_intermediate_outputs": option}
        )
        calibrator.collect_data(reader(x))
        ranges[option] = [float(value[0]) for value in calibrator.compute_data()["x"].range_value]
    prepared = BACKEND.prepare(BACKEND.load(model))
    batches = partial(Samples.of(x).for_inputs(prepared.graph.inputs).batches, 4)
    ours, true = calibrate(BACKEND, prepared, Recipe(), batches)[0]["x"], (float(x.min()), float(x.max()))
    show("range of the input with CalibMaxIntermediateOutputs", ranges[4], ours, true)
    assert ranges[None] == pytest.approx(true), "without the option it is right"
    assert max(np.abs(ranges[4])) < 5
    assert max(np.abs(true)) == pytest.approx(33)
    assert ours == true


def test_onnxruntimes_debugger_matches_no_activation_in_a_model_of_neural_compressor(tmp_path: Path) -> None:
    reference, result, x = registry_model("ppocrv2_cls"), NEURAL_COMPRESSOR_MODEL, text_lines(4, 192)
    found = [activations(path, x, tmp_path) for path in (reference, result)]
    matched = debugger.create_activation_matching(found[1], found[0])
    diagnosis = quantscope.diagnose(reference, result, data=x)
    rows = diagnosis.activations
    # The debugger holds the logits of both models, under one name, and does not see that they belong together.
    logits, batches = "linear_1.tmp_1", [{"x": sample[None]} for sample in x]
    ours = row_of(rows, "Add@43")
    true = true_sqnr_db(
        run_exposed(reference, [logits], batches, "ORT_ENABLE_ALL")[logits],
        run_exposed(deployed_model(result, tmp_path), [logits], batches, "ORT_DISABLE_ALL")[logits],
    )
    show("activations compared", len(matched), f"{len(rows)}, coverage {diagnosis.coverage:.3f}", "coverage 1")
    show("SQNR in dB of the logits", matched.get(logits), ours.sqnr_db, true)
    assert all(len(tensors) > 300 for tensors in found), "it did collect tensors of both models"
    assert matched == {}
    assert diagnosis.coverage >= 0.95
    assert len(rows) > 100
    assert min(row.sqnr_db for row in rows) > 5, "a wrong pair would have about 0"
    assert all(logits in tensors for tensors in found)
    assert (ours.tensor, ours.quantized_tensor) == (logits, logits)
    assert ours.sqnr_db == pytest.approx(true, abs=1e-3)
