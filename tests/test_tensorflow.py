"""TensorFlow's formats: converted as the framework computes them, refused with a reason, and never imported here.

What needs TensorFlow is skipped without it: it takes 1.7 GB, and CONTRIBUTING.md says how to install it for a test.
"""

from __future__ import annotations

import os
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
import pytest

from quantscope.backends import tensorflow
from quantscope.backends.tensorflow import Conversion, cache, conversion
from quantscope.errors import ModelError, OutputError, QuantscopeError, UnsupportedError
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


def test_without_tensorflow_the_message_says_what_to_install(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pb", b"graph")
    code = f"""{HIDDEN}
from quantscope.backends import tensorflow
assert tensorflow.recognized({str(path)!r})
try:
    tensorflow.converted({str(path)!r})
except Exception as error:
    print(type(error).__name__, error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"UnsupportedError reading {path} needs tensorflow and ai_edge_litert")
    assert "next step: pip install 'quantscope[tensorflow]'" in said


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
        ("custom.keras", ModelError, "needs Doubled, which is not part of Keras"),
        ("python", ModelError, "is a PyFunc, which is not run"),
        ("writing", ModelError, "is a WriteFile, which is not run"),
        ("images.weights.h5", ModelError, "holds weights alone"),
        ("images_unfrozen.pb", ModelError, "is not frozen: .* is a variable"),
        ("two", ModelError, "has the signatures first, second"),
        ("text", UnsupportedError, "does not have: AsString, StringLength, StringLower"),
        ("tokens_saved", UnsupportedError, "does not have: TensorListReserve"),
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
