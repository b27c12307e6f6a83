"""TensorFlow's formats: converted as the framework computes them, refused with a reason, and never imported here.

What needs TensorFlow is skipped without it: it takes 1.7 GB, and CONTRIBUTING.md says how to install it for a test.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import quantscope
from conftest import make_model
from quantscope.backends import tensorflow
from quantscope.backends.registry import backend_for
from quantscope.backends.tensorflow import Conversion, cache, conversion
from quantscope.errors import ModelError, OutputError, QuantscopeError, RunFileError, UnsupportedError
from quantscope.progress import Silent

INSTALLED = all(find_spec(name) for name in ("tensorflow", "ai_edge_litert"))
needs_tensorflow = pytest.mark.skipif(
    not INSTALLED, reason="TensorFlow is not installed: pip install 'quantscope[tensorflow]'"
)
HIDDEN = """
import sys
for name in ("tensorflow", "keras", "ai_edge_litert", "ai_edge_quantizer"):
    sys.modules[name] = None
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that all tests of this run share, and nobody else."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "quantscope" / "tensorflow"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tensorflow")
    script = Path(__file__).with_name("tensorflow_models.py")
    made = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    assert not (folder / "ran").exists()
    return folder


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# What can be told without TensorFlow.


def test_its_files_are_told_by_their_names_and_their_folders_by_what_lies_in_them(tmp_path: Path) -> None:
    for name in ("a.h5", "a.hdf5", "a.keras", "a.pb", "A.H5"):
        assert tensorflow.recognized(written(tmp_path / name, b""))
        assert tensorflow.recognized(str(tmp_path / name))
    saved = tmp_path / "saved"
    saved.mkdir()
    assert not tensorflow.recognized(saved)
    written(saved / "saved_model.pb", b"")
    assert tensorflow.recognized(saved)
    assert not tensorflow.recognized(tmp_path / "missing.h5")
    assert not tensorflow.recognized(written(tmp_path / "a.onnx", b""))
    assert not tensorflow.recognized(object())


def test_all_files_of_a_saved_model_are_its_files(tmp_path: Path) -> None:
    (tmp_path / "saved" / "variables").mkdir(parents=True)
    graph = written(tmp_path / "saved" / "saved_model.pb", b"graph")
    values = written(tmp_path / "saved" / "variables" / "variables.data-00000-of-00001", b"values")
    assert tensorflow.files(tmp_path / "saved") == (graph, values)
    assert tensorflow.files(graph) == (graph, values)
    file = written(tmp_path / "a.keras", b"")
    assert tensorflow.files(file) == (file,)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.h5", b"not HDF5", "is not an HDF5 file"),
        ("a.keras", b"not a zip", "is not a Keras archive"),
        ("a.pb", b"", "the file is empty"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused_at_once(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(ModelError, match=said) as caught:
        tensorflow.converted(path)
    assert str(path) in caught.value.message
    assert "SavedModel" in caught.value.accepted


def test_an_archive_that_is_no_model_is_refused_at_once(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("readme.txt", "no model")
    with pytest.raises(ModelError, match=r"it has no config\.json"):
        tensorflow.converted(tmp_path / "a.keras")


def test_a_damaged_archive_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "require", lambda extra, what: None)
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", np.random.default_rng(0).bytes(9000))
    content = bytearray(path.read_bytes())
    content[4000:4100] = bytes(100)
    written(path, bytes(content))
    with pytest.raises(ModelError, match=f"cannot read {path}"):
        tensorflow.converted(path)


def in_an_installation_without_extras(code: str) -> str:
    """What the code prints where neither TensorFlow nor LiteRT can be imported."""
    command = [sys.executable, "-c", HIDDEN + code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_without_the_extras_everything_else_works_and_nothing_of_them_is_imported(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")]
    path = tmp_path / "float.onnx"
    onnx.save(make_model(nodes, {"x": ["N", 4]}, {"y": ["N", 2]}, {"w": np.eye(4, 2, dtype=np.float32)}), str(path))
    said = in_an_installation_without_extras(f"""
import numpy as np, quantscope, quantscope.cli
from quantscope.backends.registry import backend_for
samples = {{"x": np.ones((4, 4), np.float32)}}
quantized = quantscope.quantize({str(path)!r}, samples, {str(tmp_path / "int8.onnx")!r})
found = quantscope.diagnose({str(path)!r}, {str(tmp_path / "int8.onnx")!r}, data=samples)
print(found.activations[0].op)
print([name for name in sys.modules if name.startswith(("tensorflow", "keras", "ai_edge")) and sys.modules[name]])
""")
    assert said.splitlines() == ["fc", "[]"]


@pytest.mark.parametrize(
    ("name", "extra"),
    [("a.tflite", "litert"), ("a.h5", "tensorflow"), ("a.keras", "tensorflow"), ("a.pb", "tensorflow")],
)
def test_without_its_extra_a_model_is_recognized_and_the_command_to_install_it_said(
    tmp_path: Path, name: str, extra: str
) -> None:
    path = tmp_path / name
    if path.suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
    else:
        written(path, b"\x89HDF\r\n\x1a\n")
    said = in_an_installation_without_extras(f"""
sys.argv = ["quantscope", "quantize", {str(path)!r}, {str(tmp_path / "out.tflite")!r}, "--data", "samples.npz"]
from quantscope.cli import main
sys.stderr = sys.stdout
try:
    main()
except SystemExit as error:
    print("code", error.code)
""")
    assert f"error: reading {path} needs " in said
    assert f"next step: pip install 'quantscope[{extra}]'" in said
    assert said.endswith("code 2\n")


def test_what_is_no_model_is_told_with_all_that_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", written(tmp_path / "a.txt", b"")):
        with pytest.raises(ModelError, match="not a model that quantscope reads") as caught:
            backend_for(path)
        for kind in (".onnx", ".tflite", "SavedModel", ".keras", ".h5", ".pb"):
            assert kind in caught.value.accepted
    with pytest.raises(ModelError, match="no such model file"):
        backend_for(tmp_path / "missing.h5")


def test_the_same_content_has_the_same_place_wherever_it_lies(tmp_path: Path, own_cache: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "variables").mkdir(parents=True)
        written(tmp_path / folder / "saved_model.pb", b"graph")
        written(tmp_path / folder / "variables" / "v", b"values")
    one, two = cache.place(tmp_path / "one"), cache.place(tmp_path / "two")
    assert one == two
    assert one.parent == own_cache
    written(tmp_path / "two" / "variables" / "v", b"valueS")
    assert cache.place(tmp_path / "two") != one
    # The same bytes, divided otherwise.
    (tmp_path / "one" / "variables" / "v").rename(tmp_path / "one" / "v")
    assert cache.place(tmp_path / "one") != one


def test_a_keras_archive_saved_again_has_the_same_place(tmp_path: Path) -> None:
    def saved(name: str, weights: str) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("metadata.json", f"saved as {name}")
            archive.writestr("model.weights.h5", weights)
        return cache.place(tmp_path / name)

    assert saved("one.keras", "1") == saved("two.keras", "1")
    assert saved("one.keras", "1") != saved("three.keras", "2")


def test_a_relative_cache_home_is_ignored_as_the_specification_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = cache.place(written(tmp_path / "a.pb", b"graph")).parent
    assert folder == tmp_path / ".cache" / "quantscope" / "tensorflow"


def test_what_fails_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "digest"

    def interrupted() -> None:
        with cache.filled(folder) as unfinished:
            written(unfinished / "model", b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(folder.parent.iterdir()) == []


def test_of_two_that_make_the_same_the_first_stays(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "digest"
    with cache.filled(folder) as mine:
        written(mine / "model", b"mine")
        with cache.filled(folder) as other:
            written(other / "model", b"other")
    assert (folder / "model").read_bytes() == b"other"
    assert list(folder.parent.iterdir()) == [folder]


def test_what_was_long_unused_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    for name, days in {"old": 100, "recent": 10, ".unfinished-old": 2}.items():
        (root / name).mkdir(parents=True)
        then = time.time() - days * 24 * 3600
        os.utime(root / name, (then, then))
    (root / "used").mkdir()
    os.utime(root / "used", (0, 0))
    cache.used(root / "used")
    with cache.filled(root / "new"):
        pass
    assert {folder.name for folder in root.iterdir()} == {"recent", "used", "new"}


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    blocked = written(tmp_path / "file", b"")
    with (
        pytest.raises(OutputError, match="cannot write the converted model") as caught,
        cache.filled(blocked / "digest"),
    ):
        pass
    assert "XDG_CACHE_HOME" in caught.value.next_step


@pytest.mark.parametrize(("code", "said"), [(-9, "SIGKILL"), (1, "the last line")])
def test_a_conversion_that_breaks_off_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    program = f"""
import os, signal, sys
print("noise\\nthe last line", file=sys.stderr)
os.kill(os.getpid(), signal.SIGKILL) if {code} < 0 else sys.exit({code})
"""
    written(tmp_path / "converter_that_fails.py", program.encode())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(conversion, "_CONVERTER", "converter_that_fails")
    monkeypatch.setattr(conversion, "require", lambda extra, what: None)
    with pytest.raises(ModelError, match=said) as caught:
        tensorflow.converted(written(tmp_path / "a.pb", b"graph"))
    assert "noise" not in str(caught.value)


# What TensorFlow itself makes.


class Told(Silent):
    """Keeps the stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str, total: int | None) -> None:
        self.stages.append(name)


def answers(made: Conversion, inputs: dict[str, Any]) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(made.path))
    (signature,) = interpreter.get_signature_list()
    found: dict[str, Any] = interpreter.get_signature_runner(signature)(**inputs)
    return found


def op_names(made: Conversion) -> set[str]:
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(model_path=str(made.path)).get_tensor_details()
    return {part for tensor in details for part in tensor["name"].split(";")}


@needs_tensorflow
@pytest.mark.parametrize(
    ("name", "arrays", "outputs", "own_names"),
    [
        (
            "images.keras",
            "images",
            ["scores", "size"],
            {"net/conv2d/Relu", "net/conv2d_1/BiasAdd", "net/scores/Softmax"},
        ),
        ("images.h5", "images", ["scores", "size"], {"net/conv2d/Relu", "net/conv2d_1/BiasAdd", "net/pool/MaxPool2d"}),
        ("images_saved", "images", ["output_0", "output_1"], {"net_1/conv2d_1/Relu", "net_1/scores_1/Softmax"}),
        ("images.pb", "images", ["Identity", "Identity_1"], {"net_1/conv2d_1/Relu", "net_1/scores_1/Softmax"}),
        ("tokens.keras", "tokens", ["lstm"], {"reader/embedding/GatherV2", "reader/shared/Tensordot"}),
        # A recurrent layer with the batch size left open, as Keras exports it and as TensorFlow saves it.
        ("tokens_saved", "tokens", ["output_0"], {"reader_1/embedding_1/GatherV2"}),
        ("tokens_tf", "tokens", ["lstm"], {"reader_1/embedding_1/GatherV2"}),
        ("nested.keras", "nested", ["mean"], {"outer/inner/conv/BiasAdd", "outer/mean/Mean"}),
        ("plain", "plain", ["y"], {"kept"}),
        ("unsigned", "plain", ["y"], {"kept"}),
        ("first", "first", ["y"], {"product"}),
    ],
)
def test_a_converted_model_computes_what_tensorflow_does_under_the_users_names(
    models: Path, name: str, arrays: str, outputs: list[str], own_names: set[str]
) -> None:
    told = Told()
    made = tensorflow.converted(models / name, told)
    assert told.stages == ["convert"]
    kept = dict(np.load(models / f"{arrays}.npz"))
    expected = [kept[key] for key in kept if key.startswith("output:")]
    inputs = {key: value for key, value in kept.items() if not key.startswith("output:")}
    found = answers(made, inputs)
    assert list(found) == outputs
    assert [tensor.name for tensor in backend_for(models / name).load(models / name).graph.outputs] == outputs
    for output, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(found[output], wanted, rtol=1e-4, atol=1e-5)
    names = op_names(made)
    assert own_names <= names
    assert not [n for n in names if "PartitionedCall" in n or n.startswith("serving_default")]
    assert made.notes == ("the batch size is open in the TensorFlow model, and 1 in the .tflite model made of it",)
    assert "tensorflow" not in sys.modules
    assert "keras" not in sys.modules


@needs_tensorflow
def test_the_second_time_the_cache_serves(models: Path, tmp_path: Path) -> None:
    first = tensorflow.converted(models / "images.keras")
    moved = tmp_path / "other.keras"
    moved.write_bytes((models / "images.keras").read_bytes())
    told = Told()
    assert tensorflow.converted(str(moved), told) == first
    assert told.stages == []
    assert tensorflow.converted(models / "plain" / "saved_model.pb") == tensorflow.converted(models / "plain")


@needs_tensorflow
@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("lambda.keras", ModelError, r"has code of its own \(Lambda\), which is not run"),
        ("lambda.h5", ModelError, r"has code of its own \(Lambda\), which is not run"),
        ("builtin.keras", ModelError, r"has code of its own \(function\), which is not run"),
        ("custom.keras", ModelError, "needs Doubled, which is not part of Keras"),
        ("python", ModelError, "is a PyFunc, which is not run"),
        ("writing", ModelError, "is a WriteFile, which is not run"),
        ("images.weights.h5", ModelError, "holds weights alone"),
        ("images_unfrozen.pb", ModelError, "is not frozen: .* is a variable"),
        ("two", ModelError, "has the signatures first, second"),
        ("text", UnsupportedError, "does not have: AsString, StringLength, StringLower"),
        ("lists", UnsupportedError, "does not have: TensorListReserve"),
        ("random", ModelError, "computes something else: the output y differs by"),
        ("words", UnsupportedError, "the input x .* has the type string"),
        ("shapeless", ModelError, "the input x .* has a shape of unknown length"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_a_reason(
    models: Path, own_cache: Path, capfd: pytest.CaptureFixture[str], name: str, kind: type[QuantscopeError], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        tensorflow.converted(models / name)
    assert caught.value.accepted
    assert caught.value.next_step
    assert str(models / name) in caught.value.message
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")
    assert not (models / "ran").exists()
    assert not list(own_cache.glob(".unfinished-*"))


@needs_tensorflow
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cut.h5", "images.h5", "is damaged|cannot load"),
        ("cut.keras", "images.keras", "is not a Keras archive"),
        ("cut.pb", "images.pb", "holds no graph"),
        ("text.pb", b"node { name: 'x' }", "holds no graph"),
    ],
)
def test_a_damaged_file_is_told(models: Path, tmp_path: Path, name: str, content: bytes | str, said: str) -> None:
    whole = (models / content).read_bytes() if isinstance(content, str) else content
    path = written(tmp_path / name, whole[: len(whole) * 2 // 3] if isinstance(content, str) else whole)
    with pytest.raises(ModelError, match=said):
        tensorflow.converted(path)


@needs_tensorflow
def test_a_damaged_saved_model_is_told(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    written(folder / "saved_model.pb", (models / "plain" / "saved_model.pb").read_bytes())
    with pytest.raises(ModelError, match="cannot load the SavedModel"):
        tensorflow.converted(folder)
    written(folder / "saved_model.pb", b"\xff" * 100)
    with pytest.raises(ModelError, match=r"saved_model\.pb cannot be read"):
        tensorflow.converted(folder)


@needs_tensorflow
def test_every_job_takes_a_saved_model_and_knows_it_again(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models / "images_saved", folder)
    data = {"image": np.random.default_rng(1).standard_normal((12, 12, 12, 3)).astype(np.float32)}
    run = tmp_path / "run.qscope"
    found = quantscope.diagnose(folder, data=data, run=run)
    assert {row.op.partition("/")[0] for row in found.activations} == {"net_1"}
    assert found.notes[0].startswith("the batch size is open in the TensorFlow model")
    assert found.models["reference"]["path"] == str(folder)
    assert (tmp_path / "run.int8.tflite").is_file()
    assert quantscope.profile(run, seconds=0.2).quantized is not None
    assert quantscope.profile(models / "images.pb", seconds=0.2).ops
    variables = folder / "variables" / "variables.index"
    variables.write_bytes(variables.read_bytes() + b"x")
    with pytest.raises(RunFileError, match=f"is changed: {folder}"):
        quantscope.profile(run, seconds=0.2)
    shutil.rmtree(folder)
    with pytest.raises(RunFileError, match=f"is missing: {folder}"):
        quantscope.profile(run, seconds=0.2)


@needs_tensorflow
def test_the_command_line_tells_what_it_did_and_keeps_tensorflow_quiet(models: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", image=np.random.default_rng(1).standard_normal((4, 12, 12, 3)).astype(np.float32))
    output = tmp_path / "int8.tflite"
    command = [sys.executable, "-m", "quantscope", "quantize", str(models / "images.h5"), str(output)]
    done = subprocess.run([*command, "--data", str(tmp_path / "data.npz")], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"wrote {output}: ")
    assert done.stderr.splitlines() == [
        "note: the batch size is open in the TensorFlow model, and 1 in the .tflite model made of it"
    ]
    assert backend_for(output.read_bytes()).load(output.read_bytes()).graph.inputs[0].name == "image"


@needs_tensorflow
def test_neural_compressors_calls_take_tensorflow_models(models: Path, tmp_path: Path) -> None:
    from quantscope.neural_compressor import PostTrainingQuantConfig, quantization

    images = np.random.default_rng(1).standard_normal((8, 12, 12, 3)).astype(np.float32)
    loader = [(images[i : i + 1], np.zeros(1)) for i in range(8)]
    config = PostTrainingQuantConfig(calibration_sampling_size=4, quant_format="QDQ", op_name_dict={
        "net_1/scores_1/.*": {"activation": {"dtype": ["fp32"]}, "weight": {"dtype": ["fp32"]}}
    })  # fmt: skip
    given: list[bytes] = []

    def evaluate(content: bytes) -> float:
        given.append(content)
        return 1.0

    quantized = quantization.fit(models / "images_saved", config, calib_dataloader=loader, eval_func=evaluate)
    assert [content[4:8] for content in given] == [b"TFL3", b"TFL3"]
    assert quantized.model == given[-1]
    assert quantized.input() == ["image"]
    assert quantized.output() == ["output_0", "output_1"]
    with pytest.raises(UnsupportedError, match=r"a \.tflite model has no graph"):
        quantized.nodes()
    quantized.save(tmp_path / "int8.tflite")
    assert (tmp_path / "int8.tflite").read_bytes() == quantized.model


@needs_tensorflow
def test_a_keras_model_in_memory_is_taken_as_it_is(models: Path) -> None:
    code = f"""
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np
from quantscope.backends.registry import backend_for
from quantscope.progress import Silent

class Told(Silent):
    def stage(self, name, total):
        print(name)

class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x

model = keras.models.load_model({str(models / "images.keras")!r})
for again in range(2):
    loaded = backend_for(model).load(model, Told())
    print(loaded.path, loaded.graph.inputs[0].name, loaded.graph.ops[0].name)
own = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2), Doubled()])
print(len(backend_for(own).load(own).graph.ops) > 0)
try:
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    backend_for(unbuilt).load(unbuilt)
except Exception as error:
    print(type(error).__name__, error.message)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The second time the cache serves, although the model was saved again.
    assert done.stdout.splitlines()[:-1] == ["convert", *["None image net/conv2d/convolution"] * 2, "True"]
    assert done.stdout.splitlines()[-1].startswith("ModelError ")


def converting(parent: int) -> Iterator[int]:
    """The processes that convert for this one."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (folder / "status").read_text(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if f"\nPPid:\t{parent}\n" in status and b"tensorflow.converter" in command:
            yield int(folder.name)


def wait_for(what: Any, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@needs_tensorflow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_conversion_ends_with_whoever_asked_for_it(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = f"from quantscope.backends import tensorflow; tensorflow.converted({str(models / 'images.keras')!r})"
    asking = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    (child,) = wait_for(lambda: list(converting(asking.pid)))
    asking.send_signal(sent)
    _, said = asking.communicate(timeout=60)
    wait_for(lambda: not Path(f"/proc/{child}").exists())
    if sent == signal.SIGINT:
        assert said.strip().endswith("KeyboardInterrupt")
        assert not list(tmp_path.rglob(".unfinished-*"))
    assert not list(tmp_path.rglob("model.tflite"))
