"""Models whose weights stay in files: of any size, from any place, written whole, and nothing left behind."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import quantscope
from conftest import convolutions, images, make_model
from quantscope.backends.onnx import BACKEND, external, files, folders, sizes
from quantscope.backends.onnx.reading import referring
from quantscope.errors import ModelError, OutputError
from quantscope.memory import parsed
from registry import registry_model

WIDTH, LAYERS = 128, 4


def stack() -> onnx.ModelProto:
    """A few products with a ReLU behind each, of 64 KiB of weights apiece."""
    rng = np.random.default_rng(0)
    weights = {f"w{i}": rng.normal(0, 1.4 / WIDTH**0.5, (WIDTH, WIDTH)).astype(np.float32) for i in range(LAYERS)}
    return make_model(_layers(LAYERS), {"x": ["N", WIDTH]}, {f"h{LAYERS}": ["N", WIDTH]}, weights)


def _layers(count: int) -> list[onnx.NodeProto]:
    nodes = []
    for i in range(count):
        nodes.append(helper.make_node("MatMul", [f"h{i}" if i else "x", f"w{i}"], [f"m{i}"], name=f"/fc{i}/MatMul"))
        nodes.append(helper.make_node("Relu", [f"m{i}"], [f"h{i + 1}"], name=f"/fc{i}/Relu"))
    return nodes


def rows(count: int = 20) -> NDArray[Any]:
    return np.random.default_rng(1).normal(0, 1, (count, WIDTH)).astype(np.float32)


def save_outside(proto: onnx.ModelProto, path: Path, data: str = "weights.bin") -> Path:
    """The model in a file, its weights in another one beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, str(path), save_as_external_data=True, location=data, size_threshold=0)
    return path


def left_in(temporary: Path) -> set[str]:
    """The folders with weights; ONNX Runtime may leave a file of its own."""
    return {path.name for path in temporary.glob("quantscope-*")}


def outputs(path: Path, x: NDArray[Any]) -> NDArray[Any]:
    """What ONNX Runtime makes of a model file, without any help."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    result: NDArray[Any] = session.run(None, {session.get_inputs()[0].name: x})[0]
    return result


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def as_if_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model takes the way of one that no message and no memory can hold."""
    monkeypatch.setattr(files, "_LARGEST_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(files, "_LARGEST_MESSAGE_BYTES", 0)


@pytest.mark.usefixtures("as_if_large")
def test_weights_in_files_change_no_figure(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole.onnx"
    onnx.save(stack(), str(whole))
    with monkeypatch.context() as small:
        small.setattr(files, "_LARGEST_IN_MEMORY_BYTES", 1 << 40)
        small.setattr(files, "_LARGEST_MESSAGE_BYTES", 1 << 40)
        expected = quantscope.diagnose(whole, data=rows(), output=tmp_path / "whole.int8.onnx")
    assert not (tmp_path / "whole.int8.onnx.data").exists()

    outside = save_outside(stack(), tmp_path / "outside.onnx")
    for model in (whole, outside, stack()):
        output = tmp_path / "output.int8.onnx"
        found = quantscope.diagnose(model, data=rows(), output=output, run=tmp_path / "run.qscope")
        assert found.tensors == expected.tensors
        assert found.scores == expected.scores
        assert output.stat().st_size < 16_000 < (tmp_path / "output.int8.onnx.data").stat().st_size
        np.testing.assert_array_equal(outputs(output, rows()), outputs(tmp_path / "whole.int8.onnx", rows()))
        given = quantscope.diagnose(model, output, data=rows()[10:])
        assert [t.sqnr_db for t in given.tensors] == [t.sqnr_db for t in expected.tensors]
        (tmp_path / "run.qscope").unlink()
    del found, given, model
    assert left_in(temporary) == set(), "weights are gone with the models"


def test_a_model_from_a_data_file_is_written_with_one(tmp_path: Path) -> None:
    quantscope.quantize(save_outside(stack(), tmp_path / "outside.onnx"), rows(), tmp_path / "written.onnx")
    message = onnx.load(str(tmp_path / "written.onnx"), load_external_data=False)
    places = [place for tensor in message.graph.initializer if (place := external.place(tensor)) is not None]
    assert {place.location for place in places} == {"written.onnx.data"}
    assert all(place.offset % 64 == 0 for place in places)
    onnx.checker.check_model(str(tmp_path / "written.onnx"))
    assert BACKEND.load(tmp_path / "written.onnx").graph.ops
    assert BACKEND.files(tmp_path / "written.onnx") == (tmp_path / "written.onnx", tmp_path / "written.onnx.data")
    assert BACKEND.files(tmp_path / "outside.onnx") == (tmp_path / "outside.onnx", tmp_path / "weights.bin")
    (tmp_path / "written.onnx").unlink()
    assert BACKEND.files(tmp_path / "written.onnx") == (tmp_path / "written.onnx.data",)


def test_a_model_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = BACKEND.load(save_outside(stack(), tmp_path / "outside.onnx"))
    BACKEND.save(model, tmp_path / "written.onnx")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    other = BACKEND.load(save_outside(convolutions(), tmp_path / "other" / "m.onnx"))

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        BACKEND.save(other, tmp_path / "written.onnx")
    shutil.rmtree(tmp_path / "other")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["ppocrv4_rec", "ppocrv2_cls", "basic_pitch"])
def test_a_file_read_without_its_weights_is_the_same_model(name: str) -> None:
    path = registry_model(name)
    message = referring(path)
    if name != "ppocrv2_cls":  # Its weights are lists of numbers.
        assert message.ByteSize() < path.stat().st_size / 2
    whole, read = onnx.load(str(path)), external.with_weights(message, path.parent)
    kept = {node.output[0] for node in read.graph.node if node.op_type == "Constant"}
    tensors = {t.name: t for t in read.graph.initializer}
    for node in whole.graph.node:
        if node.op_type == "Constant" and node.output[0] not in kept:
            tensor = tensors[node.output[0]]
            assert (tensor.raw_data, tensor.dims) == (node.attribute[0].t.raw_data, node.attribute[0].t.dims)
    assert [n for n in whole.graph.node if n.op_type != "Constant"] == [
        n for n in read.graph.node if n.op_type != "Constant"
    ]
    for tensor in whole.graph.initializer:
        assert tensors[tensor.name].raw_data == tensor.raw_data
    assert (read.graph.input, read.graph.output) == (whole.graph.input, whole.graph.output)
    assert read.opset_import == whole.opset_import


def test_a_damaged_model_is_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    onnx.save(convolutions(), str(tmp_path / "whole.onnx"))
    content = (tmp_path / "whole.onnx").read_bytes()
    rng = random.Random(0)
    damaged = [content[: rng.randrange(len(content))] for _ in range(100)]
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(rng.choice((1, 3, 30))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        damaged.append(bytes(changed))
    refused = 0
    for content in damaged:
        (tmp_path / "damaged.onnx").write_bytes(content)
        try:
            BACKEND.load(tmp_path / "damaged.onnx")
        except ModelError:
            refused += 1
    assert refused >= 100


def test_a_download_cache_of_links_and_hard_links_is_read(tmp_path: Path) -> None:
    """Caches keep files elsewhere, under other names: ONNX Runtime refuses data behind such links by itself."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    save_outside(stack(), blobs / "a1")
    snapshot.mkdir()
    (blobs / "weights.bin").rename(blobs / "b2")
    (snapshot / "model.onnx").symlink_to(blobs / "a1")
    (snapshot / "weights.bin").symlink_to(blobs / "b2")
    onnx.save(stack(), str(blobs / "whole.onnx"))
    (snapshot / "linked.onnx").symlink_to(blobs / "whole.onnx")
    os.link(blobs / "whole.onnx", tmp_path / "hard.onnx")
    expected = [t.sqnr_db for t in quantscope.diagnose(stack(), data=rows()).tensors]
    for path in (snapshot / "model.onnx", snapshot / "linked.onnx", tmp_path / "hard.onnx"):
        assert [t.sqnr_db for t in quantscope.diagnose(path, data=rows()).tensors] == expected


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "inside/../../secret.bin"])
def test_a_model_that_reads_outside_of_its_folder_is_refused(tmp_path: Path, location: str) -> None:
    proto = stack()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    external.refer(tensor, external.Place(location, 0, None))
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(WIDTH * WIDTH * 4))
    (tmp_path / "folder" / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="outside of its folder"):
        BACKEND.load(tmp_path / "folder" / "model.onnx")


def test_a_file_written_anew_while_it_is_used_is_noticed(tmp_path: Path) -> None:
    for name, path in (("whole", tmp_path / "whole.onnx"), ("outside", tmp_path / "outside.onnx")):
        if name == "whole":
            onnx.save(stack(), str(path))
        else:
            save_outside(stack(), path)
        model = BACKEND.load(path)
        weight = next(iter(BACKEND.weights(model)))
        changed = path if name == "whole" else tmp_path / "weights.bin"
        changed.write_bytes(changed.read_bytes() + b"\0")
        with pytest.raises(ModelError, match="was written anew since it was loaded"):
            weight.read()
        with pytest.raises(ModelError, match="was written anew"), BACKEND.open(model, [], trace="exact", threads=1):
            pass
        changed.unlink()
        with pytest.raises(ModelError, match="is gone since it was loaded"):
            BACKEND.prepare(model)


SLOW_SAMPLES = f"""
import time
import numpy as np

class Slow:
    def __len__(self):
        return 10_000

    def __getitem__(self, i):
        time.sleep(0.05)
        return np.ones({WIDTH}, np.float32)

def batches():
    return Slow()
"""
INTERRUPTED = """
import sys
import numpy as np
from quantscope.backends.onnx import files
files._LARGEST_IN_MEMORY_BYTES = 0
import quantscope.cli
quantscope.cli.main()
"""


def _begun(tmp_path: Path, temporary: Path) -> subprocess.Popen[str]:
    """A run that has temporary weights and goes on for a while."""
    (tmp_path / "slow.py").write_text(SLOW_SAMPLES)
    onnx.save(stack(), str(tmp_path / "model.onnx"))
    quantscope.quantize(stack(), rows(), tmp_path / "model.int8.onnx")
    before = set(temporary.glob("quantscope-weights-*/weights"))
    command = [
        sys.executable, "-c", INTERRUPTED, "diagnose", "model.onnx", "model.int8.onnx", "--data", "slow:batches",
        "--run", "run.qscope",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while set(temporary.glob("quantscope-weights-*/weights")) == before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("delay", [0.0, 0.3, 2.0])
def test_ctrl_c_leaves_no_temporary_file(tmp_path: Path, temporary: Path, delay: float) -> None:
    process = _begun(tmp_path, temporary)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert left_in(temporary) == set()


def test_what_a_killed_run_leaves_the_next_one_removes(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = _begun(tmp_path, temporary)
    killed.kill()
    killed.communicate()
    left = left_in(temporary)
    assert left
    (tmp_path / "run.qscope").unlink()
    alive = _begun(tmp_path, temporary)
    others = temporary / "quantscope-weights-of-mine"
    others.mkdir()
    monkeypatch.setattr(folders, "_ABANDONED_AFTER_SECONDS", -60)
    folders._remove_abandoned.cache_clear()
    folder = folders.TemporaryFolder()
    kept = left_in(temporary)
    alive.kill()
    alive.communicate()
    assert kept >= {folder.path.name, others.name}, "what has no lock may be anything"
    assert not kept & left
    assert len(kept) > 2, "folders of a running process stay"
    path = folder.path
    del folder
    assert not path.exists()


def test_a_full_temporary_folder_says_what_to_do(
    temporary: Path, as_if_large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized = BACKEND.load(quantscope.quantize(stack(), rows()).handle.model.with_weights())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 0))
    monkeypatch.setattr(
        "quantscope.backends.onnx.sessions.session", lambda *_: (_ for _ in ()).throw(ModelError("cannot write"))
    )
    with pytest.raises(OutputError, match="cannot keep weights in the temporary folder") as caught:
        BACKEND.float_view(quantized, "deployed")
    assert "TMPDIR" in caught.value.next_step
    monkeypatch.setattr(external, "moved", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="No space left on device"):
        BACKEND.load(stack())


@pytest.mark.parametrize("large", [False, True])
def test_a_model_travels_to_other_processes_and_machines(
    tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(files, "_LARGEST_IN_MEMORY_BYTES", 0)
    path = tmp_path / "model.onnx"
    onnx.save(stack(), str(path))
    quantized = quantscope.quantize(path, rows())
    names = [name for op in BACKEND.float_view(quantized, "deployed").graph.ops for name in op.outputs]
    for model, trace in ((BACKEND.load(path), "exact"), (quantized, "deployed"), (quantized, "simulated")):
        BACKEND.float_view(model, trace)  # type: ignore[arg-type]
        list(BACKEND.weights(model, trace))  # type: ignore[arg-type]

        def run(model: Any, trace: Any = trace) -> NDArray[Any]:
            with BACKEND.open(model, [], trace=trace, threads=1) as runner:
                return runner.run({"x": rows(2)})[f"h{LAYERS}"]

        expected = run(model)
        np.testing.assert_array_equal(run(pickle.loads(pickle.dumps(model))), expected)
        content = pickle.dumps(BACKEND.portable(model))
        with monkeypatch.context() as elsewhere:
            # On another machine the files are not there.
            elsewhere.setattr(folders.WeightFolder, "check_unchanged", lambda self: pytest.fail("files are read"))
            np.testing.assert_array_equal(run(pickle.loads(content)), expected)
    assert names


def test_sizes_are_those_of_the_real_tensors() -> None:
    """A static model, a dynamic one whose shapes follow from its inputs, and one whose shapes follow from values."""
    for path, inputs in (
        (convolutions(batch=2), {"x": images(2)}),
        (convolutions(), {"x": images(3)}),
        (registry_model("ppocrv4_rec"), {"x": np.zeros((2, 3, 48, 313), np.float32)}),
    ):
        model = BACKEND.load(path)
        names = [name for op in model.graph.ops for name in op.outputs if name]
        counts = BACKEND.element_counts(model, [*names, "x"], inputs)
        with BACKEND.open(model, names, trace="exact", threads=0) as runner:
            values = runner.run(inputs)
        assert counts == {**{name: values[name].size for name in names}, "x": inputs["x"].size}


def test_sizes_that_shapes_do_not_tell_are_found_by_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """NonZero gives as many indices as there are values; half precision and sequences are no obstacle."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Cast", ["r"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("NonZero", ["half"], ["indices"]),
        helper.make_node("Transpose", ["indices"], ["places"], perm=[1, 0]),
        helper.make_node("GatherND", ["half", "places"], ["some"]),
        helper.make_node("SequenceConstruct", ["r"], ["sequence"]),
        helper.make_node("Cast", ["some"], ["y"], to=TensorProto.FLOAT),
    ]
    model = BACKEND.load(make_model(nodes, {"x": [None, None]}, {"y": [None]}, {}))
    x = np.arange(-5, 7, dtype=np.float32).reshape(3, 4)
    names = ["r", "half", "some", "y", "sequence"]
    assert BACKEND.element_counts(model, names, {"x": x}) == {"r": 12, "half": 12, "some": 6, "y": 6, "sequence": 0}
    assert not model.handle.model.proto.graph.output[1:], "the model is as it was"
    monkeypatch.setattr(sizes, "_by_inference", lambda *_: {})
    assert BACKEND.element_counts(model, names, {"x": x}) == {"r": 12, "half": 12, "some": 6, "y": 6, "sequence": 0}


# Nine weights of 256 MiB; as they all lie at one place in the file, it is quickly written.
LARGE_WIDTH, LARGE_LAYERS = 8192, 9
LARGE_JOB = """
import sys
from pathlib import Path
import numpy as np
from quantscope.backends.onnx import BACKEND

model = BACKEND.load(Path(sys.argv[1]))
x = {"x": np.random.default_rng(0).normal(0, 1, (2, int(sys.argv[2]))).astype(np.float32)}
names = [op.outputs[0] for op in model.graph.ops]
assert BACKEND.element_counts(model, names, x)[names[0]] == x["x"].size
prepared = BACKEND.prepare(model)
assert not prepared.notes, prepared.notes
with BACKEND.open(prepared, names, trace="exact", threads=0) as runner:
    assert all(np.isfinite(array).all() for array in runner.run(x).values())
weights = list(BACKEND.weights(prepared))
assert sum(weight.read().nbytes for weight in weights) > 2**31
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
"""


def _room() -> str:
    """Why this machine cannot hold the model; "" if it can."""
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    if int(available.split()[1]) << 10 < 10 << 30:
        return "less than 10 GB of memory is free"
    return "less than 8 GB of disk is free" if shutil.disk_usage(tempfile.gettempdir()).free < 8 << 30 else ""


@pytest.mark.skipif(bool(_room()), reason=_room() or "enough room")
def test_a_model_above_two_gigabytes_is_in_memory_once(tmp_path: Path, temporary: Path) -> None:
    size = LARGE_WIDTH * LARGE_WIDTH * 4
    block = np.random.default_rng(0).normal(0, 1.4 / LARGE_WIDTH**0.5, 1 << 20).astype(np.float32)
    with (tmp_path / "weights.bin").open("wb") as file:
        for _ in range(size // block.nbytes):
            file.write(block.data)
    proto = make_model(_layers(LARGE_LAYERS), {"x": ["N", LARGE_WIDTH]}, {f"h{LARGE_LAYERS}": ["N", LARGE_WIDTH]}, {})
    for i in range(LARGE_LAYERS):
        tensor = proto.graph.initializer.add(name=f"w{i}", dims=[LARGE_WIDTH] * 2, data_type=TensorProto.FLOAT)
        external.refer(tensor, external.Place("weights.bin", 0, size))
    onnx.save(proto, str(tmp_path / "large.onnx"))
    result = subprocess.run(
        [sys.executable, "-c", LARGE_JOB, str(tmp_path / "large.onnx"), str(LARGE_WIDTH)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < LARGE_LAYERS * size + parsed("1GiB")
    assert left_in(temporary) == set()
