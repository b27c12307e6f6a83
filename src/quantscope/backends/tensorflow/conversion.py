"""The conversion as the rest of quantscope sees it: a path in, the path of a float .tflite model out.

TensorFlow takes seconds to import and gigabytes of memory, prints what it likes, and can end the process it is in. So
it runs in another one, `python -m quantscope.backends.tensorflow.converter`, that leaves a model and a report in a
folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from quantscope import errors
from quantscope.backends.extras import require
from quantscope.backends.tensorflow import cache, formats, keras_objects
from quantscope.errors import ModelError, QuantscopeError
from quantscope.progress import Progress, Silent

MODEL = "model.tflite"
REPORT = "report.json"
_CONVERTER = "quantscope.backends.tensorflow.converter"


@dataclass(frozen=True)
class Conversion:
    """The float .tflite file made of a TensorFlow model; `notes` say in what it differs from it."""

    path: Path
    notes: tuple[str, ...] = ()


def converted(source: Any, progress: Progress | None = None) -> Conversion:
    """Return the model as a float .tflite file with one signature; its outputs were compared with TensorFlow's own.

    The first time takes seconds; afterwards the file in the user's cache serves, as long as the content is the same.

    Args:
        source: a SavedModel folder, a .keras or .h5 file, or a frozen graph in a .pb file, by its path; or a Keras
            model.
        progress: is told that the conversion goes on.
    Raises:
        UnsupportedError: TensorFlow is not installed, or the model has an op that LiteRT does not have.
        ModelError: the model cannot be read or converted, or what it was converted to computes something else.
        OutputError: the cache cannot be written.
    """
    if formats.is_keras_model(source):
        return _of_object(source, progress)
    path = formats.root(Path(source).absolute())
    try:
        formats.check(path)
        require("tensorflow", f"reading {source}")
        folder = cache.place(path)
    except formats.UNREADABLE as error:
        raise ModelError(
            f"cannot read {source}: {error}", accepted=formats.ACCEPTED, next_step="copy or save it again"
        ) from error
    if folder.is_dir():
        cache.used(folder)
    else:
        (progress or Silent()).stage("convert", None)
        with cache.filled(folder) as unfinished:
            _convert(path, unfinished)
    report = json.loads((folder / REPORT).read_text("utf-8"))
    return Conversion(folder / MODEL, tuple(report["notes"]))


def _of_object(model: Any, progress: Progress | None) -> Conversion:
    with TemporaryDirectory(prefix="quantscope-") as folder:
        try:
            return converted(keras_objects.saved(model, Path(folder) / f"model{formats.KERAS}"), progress)
        except ModelError:
            # Layers of the user's own, which a .keras file only names, are functions in a SavedModel.
            return converted(keras_objects.saved(model, Path(folder) / "saved_model"), progress)


def _convert(path: Path, folder: Path) -> None:
    """Let the other process convert the model into this folder."""
    # It ends when this end of the pipe is closed, be it by a kill of this process.
    reading, writing = os.pipe()
    # -P: what lies in the current folder is not to be taken for Keras.
    command = [sys.executable, "-P", "-m", _CONVERTER, str(path), str(folder)]
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    try:
        done = subprocess.run(command, stdin=reading, capture_output=True, env=environment, check=False)
    finally:
        os.close(reading)
        os.close(writing)
    report = folder / REPORT
    if not report.is_file():
        raise _died(path, done.returncode, done.stderr.decode(errors="replace"))
    found = json.loads(report.read_text("utf-8"))
    if "error" in found:
        kind: type[QuantscopeError] = getattr(errors, found["error"].pop("kind"))
        raise kind(**found["error"])


def _died(path: Path, code: int, output: str) -> ModelError:
    if code < 0:
        why = f"it was ended by {signal.Signals(-code).name}"
        step = "if memory ran out, try again with more of it free"
    else:
        why = next(reversed(output.strip().splitlines()), f"exit code {code}")
        step = "see whether `python -c 'import tensorflow'` works"
    return ModelError(
        f"the conversion of {path} broke off: {why}",
        accepted="a .tflite file too, made with tf.lite.TFLiteConverter",
        next_step=step,
    )
