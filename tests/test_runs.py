"""Runs that are watched, killed, resumed, written twice, damaged: what they leave and how they go on."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantscope
from conftest import convolutions, images
from quantscope.errors import QuantscopeError, RunFileError
from quantscope.runfile import SCHEMA_VERSION, RunFile

SLOW_SAMPLES = """
import time
import numpy as np

class Slow:
    def __init__(self, seconds):
        self.seconds = seconds
        self.x = np.random.default_rng(1).normal(0, 1, (200, 3, 12, 12)).astype(np.float32)

    def __len__(self):
        return 200

    def __getitem__(self, i):
        time.sleep(self.seconds)
        return self.x[i], np.array(i % 10)

def batches():
    return Slow(0.04)

def quick():
    return Slow(0)
"""


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Path:
    (tmp_path / "slow_samples.py").write_text(SLOW_SAMPLES)
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "quantscope", *arguments]


def begin(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def done(run: Path) -> int:
    """How many samples the last checkpoint covers, seen from another process while the run goes on."""
    try:
        with RunFile.read(run) as run_file:
            return run_file.samples_compared()
    except RunFileError:
        return 0


def wait_for(run: Path, samples: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while done(run) < samples:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, (out, err)
    return out, err


def figures(document: dict[str, Any]) -> dict[str, Any]:
    return {key: document[key] for key in ("activations", "weights", "accuracy", "coverage", "skipped")}


def test_a_run_killed_again_and_again_ends_with_the_same_figures(folder: Path) -> None:
    arguments = ("model.onnx", "--data", "slow_samples:quick", "--json")
    whole = json.loads(finish(begin(folder, "diagnose", *arguments, "--run", "whole.qscope"))[0])
    assert whole["status"] == "finished"

    run = folder / "killed.qscope"
    process = begin(folder, "diagnose", "model.onnx", "--data", "slow_samples:batches", "--run", run.name)
    reached = 0
    for _ in range(2):
        wait_for(run, reached + 1, process)
        live = json.loads(finish(begin(folder, "show", run.name, "--json"))[0])
        assert live["status"] == "running"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        reached = done(run)
        half = json.loads(finish(begin(folder, "show", run.name, "--json"))[0])
        assert half["status"] == "interrupted"
        assert 0 < half["accuracy"][0]["samples"] == reached < 150
        assert len(half["activations"]) == len(whole["activations"])
        shown = finish(begin(folder, "show", run.name))[0]
        assert f"{reached} of 150 done" in shown
        assert "quantscope diagnose --resume killed.qscope" in " ".join(shown.split())
        process = begin(folder, "diagnose", "--resume", run.name, "--json")
    resumed = json.loads(finish(process)[0])
    assert resumed["status"] == "finished"
    assert figures(resumed) == figures(whole), "to the last bit"
    assert not list(folder.glob("*.qscope-journal"))
    with RunFile.read(run) as run_file:
        assert not run_file.accumulators(), "a finished run needs its accumulators no more"


def test_killed_at_any_moment_a_run_file_opens(folder: Path) -> None:
    """Kills at moments spread over the whole run, start-up included."""
    seen = set()
    for i, delay in enumerate((-1.0, 0.0, 0.01, 0.05, 0.2, 1.0, 3.0, 4.0)):
        run = folder / f"run{i}.qscope"
        process = begin(folder, "diagnose", "model.onnx", "--data", "slow_samples:batches", "--run", run.name)
        while delay >= 0 and not run.exists():
            time.sleep(0.001)
        time.sleep(abs(delay))
        process.kill()
        process.communicate()
        if not run.exists():
            seen.add("nothing")
            continue
        try:
            status, message = quantscope.open(run).status, ""
        except RunFileError as error:
            status, message = "", error.message
        # Killed in its first transaction, the file is rolled back to an empty one when it is opened.
        assert status == "interrupted" or "killed before it began" in message
        seen.add("opened" if status else "empty")
    assert "opened" in seen


def test_ctrl_c_says_how_to_go_on_and_leaves_no_mess(folder: Path) -> None:
    process = begin(folder, "diagnose", "model.onnx", "--data", "slow_samples:batches")
    wait_for(folder / "model.qscope", 1, process)
    process.send_signal(signal.SIGINT)
    _, err = finish(process, 130)
    assert "go on with: quantscope diagnose --resume model.qscope" in err
    assert "Traceback" not in err
    finish(begin(folder, "diagnose", "--resume", "model.qscope"))

    process = begin(folder, "diagnose", "model.onnx", "--data", "slow_samples:batches", "--run", "early.qscope")
    while not (folder / "early.qscope").exists():
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = finish(process, 130)
    assert "nothing was written" in err
    assert not list(folder.glob("early*"))


def test_two_runs_at_once_get_a_file_each(folder: Path) -> None:
    both = [begin(folder, "diagnose", "model.onnx", "--data", "slow_samples:quick", "--json") for _ in range(2)]
    runs = {json.loads(finish(process)[0])["run"] for process in both}
    assert runs == {"model.qscope", "model-2.qscope"}
    assert {p.name for p in folder.glob("*.int8.onnx")} == {"model.int8.onnx", "model-2.int8.onnx"}


def test_two_writers_of_one_run_file_are_refused(folder: Path) -> None:
    arguments = ("model.onnx", "--data", "slow_samples:batches", "--run", "one.qscope")
    process = begin(folder, "diagnose", *arguments)
    wait_for(folder / "one.qscope", 1, process)
    _, err = finish(begin(folder, "diagnose", "--resume", "one.qscope"), 2)
    assert f"another process is writing one.qscope: process {process.pid}" in err
    _, err = finish(begin(folder, "diagnose", *arguments), 2)
    assert "the run file exists: one.qscope" in err
    assert "--resume one.qscope" in err
    process.kill()
    process.communicate()


def test_resume_refuses_what_is_not_what_it_was(folder: Path) -> None:
    process = begin(folder, "diagnose", "model.onnx", "--data", "slow_samples:batches", "--run", "one.qscope")
    wait_for(folder / "one.qscope", 1, process)
    process.kill()
    process.communicate()
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole + b"\0")
    _, err = finish(begin(folder, "diagnose", "--resume", "one.qscope"), 2)
    assert "the model of one.qscope is changed" in err
    (folder / "model.onnx").unlink()
    _, err = finish(begin(folder, "diagnose", "--resume", "one.qscope"), 2)
    assert "is missing" in err
    (folder / "model.onnx").write_bytes(whole)
    finish(begin(folder, "diagnose", "--resume", "one.qscope"))
    _, err = finish(begin(folder, "diagnose", "--resume", "one.qscope"), 2)
    assert "the run is finished" in err
    assert "quantscope show one.qscope" in err


def test_a_full_disk_is_one_clear_message_and_the_file_still_opens(folder: Path) -> None:
    """A limit on the size of files stands in for a full disk: writing fails in the same way, with EFBIG."""
    limited = (
        "import resource, runpy, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "runpy.run_module('quantscope', run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", limited, "diagnose", "model.onnx", "--data", "slow_samples:batches",
         "--run", "full.qscope"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _, err = finish(process, 2)
    assert "cannot write" in err
    assert "Traceback" not in err
    run = folder / "full.qscope"
    if run.exists():
        assert quantscope.open(run).status != "finished"
    assert not [p for p in folder.iterdir() if p.name.startswith(".")], "no temporary file is left"


def test_damaged_foreign_and_newer_files_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.qscope"
    quantscope.diagnose(convolutions(), data=images(20), run=whole)
    content = whole.read_bytes()

    (tmp_path / "text.qscope").write_text("not a database at all, but long enough to be looked at" * 100)
    (tmp_path / "empty.qscope").write_bytes(b"")
    (tmp_path / "cut.qscope").write_bytes(content[: len(content) // 3])
    scrambled = bytearray(content)
    for i in range(4096, len(scrambled), 7):
        scrambled[i] ^= 0x5A
    (tmp_path / "scrambled.qscope").write_bytes(bytes(scrambled))
    with sqlite3.connect(tmp_path / "other.qscope") as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    newer = tmp_path / "newer.qscope"
    newer.write_bytes(content)
    with sqlite3.connect(newer) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    expected = {
        "text": "not a run file, or a damaged one", "empty": "killed before it began", "cut": "damaged",
        "scrambled": "damaged", "other": "not a run file", "newer": f"schema version {SCHEMA_VERSION + 1}",
        "missing": "no such run file",
    }  # fmt: skip
    for name, message in expected.items():
        with pytest.raises(RunFileError, match=message):
            quantscope.open(tmp_path / f"{name}.qscope")


def test_a_run_file_holds_no_weights_and_no_pickle(tmp_path: Path) -> None:
    run = tmp_path / "run.qscope"
    proto = convolutions()
    quantscope.diagnose(proto, data=images(20), run=run)
    content = run.read_bytes()
    for tensor in proto.graph.initializer:
        assert tensor.raw_data[:32] not in content
    with sqlite3.connect(run) as connection:
        blobs = [row[0] for row in connection.execute("SELECT arrays FROM tensors WHERE arrays IS NOT NULL")]
    connection.close()
    assert blobs
    for tensor in proto.graph.initializer:
        assert all(tensor.raw_data[:32] not in __import__("zlib").decompress(blob) for blob in blobs)


def test_a_run_reads_back_as_it_was(tmp_path: Path) -> None:
    run = tmp_path / "run.qscope"
    made = quantscope.diagnose(convolutions(), data=images(30), run=run)
    read = quantscope.open(run)
    assert read.tensors == made.tensors
    assert read.scores == made.scores
    assert read.recipe == made.recipe
    assert read.graph is not None
    assert [op.name for op in read.graph.ops] == [op.name for op in made.graph.ops] if made.graph else False
    for a, b in zip(read.tensors, made.tensors, strict=True):
        assert a.histogram is not None
        assert b.histogram is not None
        np.testing.assert_array_equal(a.histogram.quantized, b.histogram.quantized)
        assert (a.channels is None) == (b.channels is None)


def test_a_failed_run_in_a_missing_or_read_only_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="cannot write the run file"):
        quantscope.diagnose(convolutions(), data=images(20), run=tmp_path / "no" / "run.qscope")
    with pytest.raises(QuantscopeError, match="shape"):
        quantscope.diagnose(convolutions(), data=images(20)[:, :2], run=tmp_path / "run.qscope")
    with pytest.raises(QuantscopeError, match="needs labels"):
        quantscope.diagnose(convolutions(), data=images(20), metric="top1", run=tmp_path / "run.qscope")
    assert os.listdir(tmp_path) == []


def test_resume_refuses_weights_that_changed_beside_the_model(folder: Path) -> None:
    import onnx

    onnx.save_model(
        convolutions(),
        str(folder / "beside.onnx"),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    run = folder / "killed.qscope"
    process = begin(folder, "diagnose", "beside.onnx", "--data", "slow_samples:batches", "--run", run.name)
    wait_for(run, 1, process)
    process.kill()
    process.communicate()
    weights = folder / "weights.bin"
    weights.write_bytes(weights.read_bytes())
    _, err = finish(begin(folder, "diagnose", "--resume", run.name), 2)
    assert "is changed" in err


def test_a_model_is_not_written_over_the_one_it_is_made_from(folder: Path) -> None:
    before = (folder / "model.onnx").read_bytes()
    for command in ("diagnose", "quantize", "tune"):
        output = ("model.onnx",) if command == "quantize" else ("--output", "model.onnx")
        arguments = ("model.onnx", *output, "--data", "slow_samples:quick")
        _, err = finish(begin(folder, command, *arguments), 2)
        assert "is a model that is read" in err
    assert (folder / "model.onnx").read_bytes() == before
    assert not list(folder.glob("*.qscope"))
