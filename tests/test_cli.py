"""The command line as its user meets it: tables, options, mistakes, files."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

import quantscope
from conftest import convolutions, images
from quantscope.cli import app, main
from quantscope.diagnosis import sortable_columns

COMMANDS = ("diagnose", "quantize", "show", "export", "demo", "recipe", "advise", "tune", "sensitivity", "doctor")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path, data: Path) -> Path:
    """A folder with model.onnx and samples.npz, which the command runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """The exit code and what the command printed."""
    monkeypatch.setattr(sys, "argv", ["quantscope", *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    out, err = capfd.readouterr()
    return int(exit.value.code or 0), out, err


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, here: Path) -> Any:
    return lambda *arguments: run(capfd, monkeypatch, *arguments)


def test_diagnose_prints_accuracy_and_both_tables_within_100_columns(call: Any) -> None:
    code, out, err = call("diagnose", "model.onnx", "--data", "samples.npz")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    tables = lines[: next(i for i, line in enumerate(lines) if line.startswith("What to do next"))]
    assert max(map(len, tables)) <= 100
    assert "\x1b" not in out, "plain when piped"
    for title in ("Accuracy", "Activations summary", "Weights summary", "What to do next", "run file: model.qscope"):
        assert title in out
    header = out[out.index("Activations summary") : out.index("Weights summary")]
    assert all(column in header for column in ("Op", "output", "MSE", "SQNR", "isolated", "min", "clipped"))
    weights = out[out.index("Weights summary") :]
    assert all(column in weights for column in ("MSE", "min", "max", "mean", "std", "variance", "reference"))
    assert "/stem/conv/Conv" in out
    assert not re.search(r"\w…", header.replace("GlobalAverage…", "")), "no figure and no heading is cut"


def test_long_names_give_way_to_figures(call: Any, here: Path) -> None:
    proto = convolutions()
    for node in proto.graph.node:
        node.name = "/a/very/deep/place/in/a/model/whose/names/never/end" + node.name
    onnx.save(proto, "long.onnx")
    code, out, _ = call("diagnose", "long.onnx", "--data", "samples.npz")
    assert code == 0
    table = out[out.index("Activations summary") : out.index("coverage:")]
    assert max(map(len, table.splitlines())) <= 100
    assert re.search(r"…\S*/stem/conv/Conv +Conv\+Relu +\d+\.\d\d% +\S+ +\d+\.\d +\d+\.\d ", table)
    assert all(cut not in table for cut in ("SQN…", "clip…", "Activa…", "varia…"))


@pytest.mark.parametrize("column", sortable_columns())
def test_every_column_sorts(call: Any, column: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quantscope.diagnose("model.onnx", data="samples.npz", run="model.qscope")
    code, out, _ = call("show", "model.qscope", "--sort", column, "--top", "1")
    assert code == 0
    said = {"order": "in execution order", "output_error_share": "by their share of the output's error"}
    assert f"1 of 4, {said.get(column, f'worst first by {column}')}" in out


def test_show_all_shows_all_and_top_some(call: Any) -> None:
    quantscope.diagnose("model.onnx", data="samples.npz", run="model.qscope")
    assert "4 of 4" in call("show", "model.qscope", "--all")[1]
    assert "2 of 4" in call("show", "model.qscope", "--top", "2")[1]
    skipped = call("show", "model.qscope", "--skipped")[1]
    assert "/head/Flatten" in skipped
    assert "only rearranges" in skipped


def test_two_models_are_compared_as_they_are(call: Any) -> None:
    code, out, _ = call("quantize", "model.onnx", "int8.onnx", "--data", "samples.npz", "--calibration-samples", "9")
    assert code == 0
    assert "wrote int8.onnx" in out
    before = Path("int8.onnx").read_bytes()
    code, out, _ = call("diagnose", "model.onnx", "int8.onnx", "--data", "samples.npz", "--metric", "mse")
    assert code == 0
    assert "24 evaluated" in out
    assert "recipe" not in out
    assert Path("int8.onnx").read_bytes() == before


def test_a_folder_of_photos_with_a_label_list_as_in_the_article(call: Any, here: Path) -> None:
    (here / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (16, 20, 3), np.uint8)).save(here / "photos" / f"{i}.png")
    (here / "photos" / "broken.png").write_bytes(b"nothing")
    (here / "labels.txt").write_text("".join(f"{i}.png {i}\n" for i in range(8)) + "broken.png 1\n")
    code, out, _ = call(
        "diagnose", "model.onnx", "--data", "photos", "--labels", "labels.txt", "--preset", "imagenet-torch",
        "--resize", "14", "--crop", "12", "--samples", "5",
    )  # fmt: skip
    assert code == 0
    assert "top1" in out
    assert "broken.png" in out
    assert "1 photo could not be read and was skipped" in " ".join(out.split())


def test_exports_hold_every_row(call: Any, here: Path) -> None:
    quantscope.diagnose("model.onnx", data="samples.npz", run="model.qscope")
    rows = list(csv.DictReader(io.StringIO(call("export", "model.qscope")[1])))
    assert {row["role"] for row in rows} == {"activation", "weight", "bias"}
    document = json.loads(call("export", "model.qscope", "--format", "json")[1])
    by_op = {row["tensor"]: row for row in rows}
    for row in document["activations"]:
        assert float(by_op[row["tensor"]]["mse"]) == row["mse"], "to the last digit"
    code, out, _ = call("export", "model.qscope", "--format", "parquet", "--output", "ops.parquet")
    assert code == 0
    assert "wrote ops.parquet" in out
    import pyarrow.parquet

    assert pyarrow.parquet.read_table("ops.parquet").num_rows == len(rows)


def test_json_is_json_and_nothing_else(call: Any) -> None:
    code, out, err = call("diagnose", "model.onnx", "--data", "samples.npz", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["status"] == "finished"
    code, out, _ = call("quantize", "model.onnx", "q.onnx", "--data", "samples.npz", "--json")
    assert json.loads(out)["output"] == "q.onnx"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    out = CliRunner().invoke(app, [command, "--help"]).output
    assert "Examples" in out
    assert f"quantscope {command}" in out


def test_the_demo_ends_with_both_tables_what_to_do_and_the_run_file(call: Any) -> None:
    code, out, _ = call("demo", "--top", "3")
    assert code == 0
    top1 = re.search(r"top1 +(\S+)% +(\S+)%", out)
    assert top1 is not None
    reference, quantized = map(float, top1.groups())
    assert reference > 80
    assert quantized < reference - 30, "a loss that shows"
    cured = re.search(r"becomes (\S+)%, measured now", out)
    assert cured is not None
    assert float(cured[1]) > reference - 5, "and a cure that works"
    for part in ("Activations summary", "Weights summary", "What to do next", "run file: magika.qscope"):
        assert part in out


MISTAKES: list[tuple[list[str], list[str]]] = [
    (["diagnose"], ["no model is given", "quantscope diagnose MODEL.onnx --data SOURCE"]),
    (["diagnose", "model.onnx"], ["--data is missing", "folder of photos"]),
    (["diagnose", "missing.onnx", "--data", "samples.npz"], ["no such model file: missing.onnx", "check the path"]),
    (["diagnose", "text.onnx", "--data", "samples.npz"], ["not an ONNX model, or a damaged one: text.onnx"]),
    (["diagnose", "cut.onnx", "--data", "samples.npz"], ["cut.onnx", "damaged"]),
    (["diagnose", "model.pt", "--data", "samples.npz"], ["not a model that quantscope reads: model.pt", "ONNX"]),
    (["diagnose", "old.onnx", "--data", "samples.npz"], ["opset 6", "opset 7 or newer", "opset_version=17"]),
    (["diagnose", "outside.onnx", "--data", "samples.npz"], ["external data", "is missing", "weights.bin"]),
    (["diagnose", "model.onnx", "text.onnx", "--data", "samples.npz"], ["text.onnx"]),
    (["diagnose", "model.onnx", "--data", "missing.npz"], ["no such file or folder: missing.npz"]),
    (["diagnose", "model.onnx", "--data", "empty.npz"], ["no samples"]),
    (["diagnose", "model.onnx", "--data", "text.npz"], ["cannot read text.npz", "numpy.savez"]),
    (["diagnose", "model.onnx", "--data", "wide.npz"], ["[1, 3, 12, 13]", "[samples, 3, 12, 12]"]),
    (["diagnose", "model.onnx", "--data", "complex.npz"], ["complex", "float32"]),
    (["diagnose", "model.onnx", "--data", "once:batches"], ["gone through only once", "list(samples)"]),
    (["diagnose", "model.onnx", "--data", "photos", "--preset", "imagenet-torch"], ["no photo in"]),
    (["diagnose", "model.onnx", "--data", "photos"], ["need preprocessing", "imagenet-torch"]),
    (["diagnose", "model.onnx", "--data", "unreadable", "--crop", "12"], ["no samples", "2 photos", "a.png"]),
    (["diagnose", "model.onnx", "--data", "samples.npz", "--labels", "three.txt"], ["3 labels for 24 samples"]),
    (["diagnose", "model.onnx", "--data", "wrong.npz", "--metric", "top1"], ["classes 90 to 90", "0 to 9"]),
    (["diagnose", "model.onnx", "--data", "samples.npz", "--metric", "top9"], ["unknown metric 'top9'", "top1, top5"]),
    (["diagnose", "model.onnx", "--data", "samples.npz", "--sort", "beauty"], ["cannot sort by 'beauty'", "sqnr_db"]),
    (["diagnose", "model.onnx", "--data", "samples.npz", "--top", "-1"], ["--top -1"]),
    (["diagnose", "model.onnx", "--data", "samples.npz", "--samples", "0"], ["0 samples"]),
    (["diagnose", "model.onnx", "--data", "samples.npz", "--batch-size", "0"], ["batch size 0"]),
    (["diagnose", "model.onnx", "--data", "samples.npz", "--calibration-samples", "24"], ["leave none to evaluate"]),
    (["diagnose", "model.onnx", "--data", "samples.npz", "--fallback", "/stem/conv"], ["'/stem/conv' matches no op",
                                                                                    "/stem/conv/Conv"]),
    (["diagnose", "model.onnx", "--data", "samples.npz", "--op-type", "Cnov"], ["'Cnov' does not occur", "Conv"]),
    (["diagnose", "model.onnx", "--data", "samples.npz", "--percentile", "3"], ["percentile is 3.0"]),
    (["diagnose", "model.onnx", "--data", "samples.npz", "--run", "no/run.qscope"], ["cannot write", "--run"]),
    (["diagnose", "model.onnx", "--data", "samples.npz", "--output", "no/int8.onnx"], ["no such folder: no"]),
    (["diagnose", "--resume", "missing.qscope"], ["no such run file: missing.qscope"]),
    (["diagnose", "model.onnx", "--resume", "missing.qscope"], ["both a model and --resume"]),
    (["quantize", "model.onnx", "no/int8.onnx", "--data", "samples.npz"], ["no such folder: no"]),
    (["quantize", "model.onnx", "photos", "--data", "samples.npz"], ["photos is a folder"]),
    (["show", "missing.qscope"], ["no such run file: missing.qscope", "quantscope diagnose"]),
    (["show", "model.onnx"], ["not a run file"]),
    (["export", "missing.qscope"], ["no such run file"]),
    (["doctor", "model.onnx"], ["no samples are given", "--data"]),
    (["doctor", "--data", "samples.npz"], ["samples are given, and no model"]),
    (["doctor", "missing.onnx", "--data", "samples.npz"], ["no such model file: missing.onnx"]),
    (["doctor", "text.onnx", "--data", "samples.npz"], ["text.onnx"]),
    (["doctor", "model.onnx", "--data", "wide.npz"], ["13"]),
    (["doctor", "model.onnx", "model.onnx", "--data", "samples.npz"], ["no product of the model", "8 bits"]),
    (["doctor", "model.onnx", "--data", "samples.npz", "--metric", "bleu"], ["unknown metric 'bleu'"]),
    (["doctor", "model.onnx", "--data", "samples.npz", "--top", "-1"], ["--top -1"]),
    (["doctor", "model.onnx", "model.onnx", "--data", "samples.npz", "--recipe", "r.toml"], ["both a quantized model"]),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_gets_one_clear_message_and_leaves_nothing(
    call: Any, here: Path, arguments: list[str], words: list[str]
) -> None:
    mistakes(here)
    before = sorted(here.rglob("*"))
    code, out, err = call(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    for word in words:
        assert word in err, err
    left = [p for p in sorted(here.rglob("*")) if p not in before and "__pycache__" not in p.parts]
    assert not left, "nothing is half-written"


def mistakes(folder: Path) -> None:
    """The files that the mistakes are made with."""
    (folder / "text.onnx").write_text("no model")
    (folder / "cut.onnx").write_bytes(convolutions().SerializeToString()[:-200])
    (folder / "model.pt").write_text("no model")
    old = convolutions()
    old.opset_import[0].version = 6
    onnx.save(old, str(folder / "old.onnx"))
    outside = convolutions()
    onnx.save(
        outside, str(folder / "outside.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    (folder / "weights.bin").unlink()
    np.savez(folder / "empty.npz", x=images(0))
    (folder / "text.npz").write_text("no archive")
    np.savez(folder / "wide.npz", x=np.zeros((4, 3, 12, 13), np.float32))
    np.savez(folder / "complex.npz", x=images(4) + 1j)
    np.savez(folder / "wrong.npz", x=images(20), labels=np.arange(20) % 10 + 90)
    (folder / "once.py").write_text("import numpy\nbatches = lambda g=iter([numpy.zeros((1, 3, 12, 12))] * 4): g\n")
    (folder / "photos").mkdir()
    (folder / "unreadable").mkdir()
    for name in ("a.png", "b.jpg"):
        (folder / "unreadable" / name).write_bytes(b"nothing")
    (folder / "three.txt").write_text("1\n2\n3\n")


def test_an_output_that_cannot_be_written_is_said_and_the_old_file_stays(call: Any, here: Path) -> None:
    quantscope.diagnose("model.onnx", data="samples.npz", run="model.qscope")
    code, _, err = call("export", "model.qscope", "--output", "no/ops.csv")
    assert code == 2
    assert "cannot write no/ops.csv" in err
    code, _, err = call("diagnose", "model.onnx", "--data", "samples.npz", "--run", "model.qscope")
    assert code == 2
    assert "the run file exists" in err
    assert quantscope.open("model.qscope").status == "finished"


def test_doctor_counts_what_saturates_and_how_to_avoid_it(call: Any, here: Path) -> None:
    code, out, err = call("doctor", "model.onnx", "--data", "samples.npz")
    assert (code, err) == (0, "")
    assert "pairs of products" in out
    assert max(map(len, out.splitlines()[:-1])) <= 120
    code, out, _ = call("doctor", "model.onnx", "--data", "samples.npz", "--reduce-range", "--json")
    found = json.loads(out)
    assert (code, found["saturated"], found["quantized_here"]) == (0, 0, True)
    quantscope.quantize("model.onnx", "samples.npz", "int8.onnx")
    code, out, _ = call("doctor", "model.onnx", "int8.onnx", "--data", "samples.npz", "--samples", "4", "--json")
    found = json.loads(out)
    assert (code, found["samples"], found["quantized_here"]) == (0, 4, False)
    assert found["outputs"][0]["exact_db"] is not None


def test_doctor_looks_at_the_machine(call: Any) -> None:
    code, out, err = call("doctor", "--no-measure")
    assert (code, err) == (0, "")
    for word in (
        "processor",
        "instructions",
        "cores",
        "memory",
        "ONNX Runtime",
        "What to choose",
        "quantize model",
    ):
        assert word in out
    code, out, _ = call("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["peaks"]["1"]["int8_multiply_adds"] > 0
    assert {r["subject"] for r in found["recommendations"]} >= {"types", "form", "threads"}


def test_a_missing_extra_is_named_with_its_install_command() -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = sys.modules['magika'] = None; sys.argv = ['quantscope', *sys.argv[1:]]; "
        "from quantscope.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code, "demo"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "pip install 'quantscope[demo]'" in result.stderr
