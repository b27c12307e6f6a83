"""Keras models in .keras and .h5 files: never run what is hidden in them, and keep the names of their layers."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from quantscope.backends.tensorflow import formats
from quantscope.backends.tensorflow.converter.frozen import Frozen, Port, first_line, port, with_batch
from quantscope.errors import ModelError

# What a file must not name: classes that run code they bring along, and places that do more than describe layers.
_CODE = frozenset(("Lambda", "__lambda__", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "function"))
_HARMLESS = re.compile(r"(?:builtins|keras(?:\.src)?(?:\.(?!utils|saving|config|export)\w+)*)")
_EXPORT = "load it where it was made, and save it with model.export(FOLDER): a SavedModel needs no code"


def load(path: Path) -> Frozen:
    """The model in a .keras or .h5 file.

    Raises:
        ModelError: it is damaged, holds weights alone, or needs code of its own.
    """
    _refuse_code(_configuration(path), path)
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises errors of many kinds.
        # What is inside of what could not be made comes last, and is the reason.
        why = first_line(str(error).rpartition("Exception encountered:")[2] or type(error).__name__)
        raise ModelError(
            f"Keras {keras.__version__} cannot load {path}: {why}",
            accepted=formats.ACCEPTED,
            next_step=_EXPORT,
        ) from error
    if not getattr(model, "inputs", None):
        raise ModelError(
            f"{path} does not say what shape its inputs have",
            accepted="a functional or sequential model with an Input",
            next_step=_EXPORT,
        )
    return _frozen(model)


def _configuration(path: Path) -> Any:
    """What the file says about the model's layers; reading it builds nothing."""
    try:
        if path.suffix.lower() == formats.KERAS:
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        with h5py.File(path, "r") as file:
            described = file.attrs.get("model_config")
            weights_alone = described is None and ("layer_names" in file.attrs or "layers" in file)
    except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
        raise ModelError(
            f"{path} is damaged: {first_line(error)}", accepted=formats.ACCEPTED, next_step="copy or save it again"
        ) from error
    if described is None:
        what = "holds weights alone" if weights_alone else "holds no Keras model"
        step = "save the whole model: model.save(FILE)"
        raise ModelError(f"{path} {what}", accepted=formats.ACCEPTED, next_step=step)
    return json.loads(described)


def _refuse_code(configuration: Any, path: Path) -> None:
    """Raise a ModelError if the file names something that would run code, or that is not Keras's own."""
    for described in _described(configuration):
        name, module = described.get("class_name"), described.get("module")
        if name in _CODE and not (name == "function" and _is_known_function(described)):
            raise ModelError(
                f"{path} has code of its own ({name}), which is not run",
                accepted="a model of layers that Keras itself has",
                next_step=_EXPORT,
            )
        of_no_module = module is None and described.get("registered_name")
        if of_no_module or (module is not None and not _HARMLESS.fullmatch(str(module))):
            raise ModelError(
                f"{path} needs {name if of_no_module else f'{module}.{name}'}, which is not part of Keras",
                accepted="a model of layers that Keras itself has",
                next_step=_EXPORT,
            )


def _is_known_function(described: dict[str, Any]) -> bool:
    """True for what Keras itself writes for a function: one of its own activations or operations."""
    place = str(described.get("module"))
    if place == "builtins":
        return hasattr(keras.activations, str(described.get("config")))
    return re.fullmatch(r"keras(?:\.src)?\.(?:activations|ops)(?:\.\w+)*", place) is not None


def _described(configuration: Any) -> Iterator[dict[str, Any]]:
    """All objects in it that name a class, however deep."""
    waiting = [configuration]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            if "class_name" in here:
                yield here
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here


def _frozen(model: Any) -> Frozen:
    for layer in model._flatten_layers():
        layer.call = _in_own_scope(layer.name, layer.call)
    several = len(model.inputs) > 1
    # Unfrozen variables of Keras 3 would be converted into a model that computes nothing, without an error.
    traced = tf.function(
        lambda *arrays: tf.nest.flatten(model(list(arrays) if several else arrays[0], training=False)),
        input_signature=[tf.TensorSpec(with_batch(given.shape), given.dtype, given.name) for given in model.inputs],
    )
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function())

    def run(inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        given = [tf.constant(array) for array in inputs]
        found = model(given if several else given[0], training=False)
        return [np.asarray(output) for output in tf.nest.flatten(found)]

    inputs = tuple(
        Port(given.name, tensor.name, tensor.dtype, given.shape)
        for given, tensor in zip(model.inputs, frozen.inputs, strict=True)
    )
    names = _output_names(model, len(frozen.outputs))
    outputs = tuple(port(name, tensor) for name, tensor in zip(names, frozen.outputs, strict=True))
    return Frozen(frozen.graph.as_graph_def(), inputs, outputs, run)


def _in_own_scope(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The call of a layer, with the names of its ops under the layer's own.

    Keras 3 opens the scope of a layer once to build and once to call it, so that TensorFlow makes conv2d_1 of conv2d,
    and conv2d_1_2 of conv2d_1. A scope that ends in a slash is taken as it is.
    """

    def called(*arguments: Any, **named: Any) -> Any:
        parent, _, own = tf.get_current_name_scope().rpartition("/")
        if not re.fullmatch(rf"{re.escape(name)}(?:_\d+)?", own):
            return call(*arguments, **named)
        with tf.name_scope(f"{parent}/{name}/" if parent else f"{name}/"):
            return call(*arguments, **named)

    return called


def _output_names(model: Any, count: int) -> list[str]:
    """The names of the layers that give the outputs; a number behind those of a layer that gives several."""
    layers = [output._keras_history.operation.name for output in tf.nest.flatten(model.outputs)]
    if len(layers) != count:
        layers = ["output"] * count
    seen: dict[str, int] = {}
    names = []
    for layer in layers:
        number = seen[layer] = seen.get(layer, -1) + 1
        names.append(f"{layer}_{number}" if number or layers.count(layer) > 1 else layer)
    return names
