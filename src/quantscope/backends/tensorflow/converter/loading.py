"""One model of any of TensorFlow's formats, frozen."""

from __future__ import annotations

from pathlib import Path

from quantscope.backends.tensorflow import formats
from quantscope.backends.tensorflow.converter import frozen_graphs, keras_files, saved_models
from quantscope.backends.tensorflow.converter.frozen import Frozen, Port
from quantscope.errors import ModelError, UnsupportedError


def load(path: Path) -> Frozen:
    """The model at this path.

    Raises:
        ModelError: it cannot be read.
        UnsupportedError: it has inputs that no samples can be fed into.
    """
    if path.is_dir():
        found = saved_models.load(path)
    elif path.suffix.lower() == formats.FROZEN_GRAPH:
        found = frozen_graphs.load(path)
    else:
        found = keras_files.load(path)
    for port in found.inputs:
        _check_input(port, path)
    return found


def _check_input(port: Port, path: Path) -> None:
    if port.shape is None:
        raise ModelError(
            f"the input {port.name} of {path} has a shape of unknown length",
            accepted="inputs of which at most some sizes are open",
            next_step="save the model with a tf.TensorSpec or keras.Input that has a shape",
        )
    if not (port.dtype.is_floating or port.dtype.is_integer or port.dtype.is_bool):
        raise UnsupportedError(
            f"the input {port.name} of {path} has the type {port.dtype.name}",
            accepted="inputs of floats, integers or truth values",
            next_step="save the part of the model that comes after its preprocessing",
        )
