"""`python tensorflow_models.py FOLDER`: small TensorFlow models of every format, and what TensorFlow says they compute.

NAME.npz holds inputs under the names of the signature's, and outputs as "output:NAME". It runs in a process of its own:
no test imports TensorFlow.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

RNG = np.random.default_rng(0)


def images() -> Any:
    """Two convolutions whose Keras names Keras 3 turns into each other's, batch normalization, two outputs."""
    image = keras.Input((12, 12, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv2d")(image)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.Conv2D(4, 3, name="conv2d_1")(x)
    x = keras.layers.MaxPooling2D(name="pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    scores = keras.layers.Dense(5, activation="softmax", name="scores")(x)
    size = keras.layers.Dense(1, name="size")(x)
    return keras.Model(image, [scores, size], name="net")


def tokens() -> Any:
    """Numbers of tokens and a mask, an embedding, one dense layer twice, a recurrent layer."""
    ids = keras.Input((6,), dtype="int32", name="ids")
    mask = keras.Input((6, 1), name="mask")
    x = keras.layers.Embedding(8, 4, name="embedding")(ids)
    x = keras.layers.Multiply(name="masked")([x, mask])
    shared = keras.layers.Dense(4, name="shared")
    x = keras.layers.LSTM(3, name="lstm")(shared(shared(x)))
    return keras.Model([ids, mask], x, name="reader")


def nested() -> Any:
    """A model in a model, with sizes of images left open."""
    inner = keras.Sequential([keras.Input((None, None, 2)), keras.layers.Conv2D(3, 3, name="conv")], name="inner")
    image = keras.Input((None, None, 2), name="image")
    return keras.Model(image, keras.layers.GlobalAveragePooling2D(name="mean")(inner(image)), name="outer")


class Doubled(keras.layers.Layer):  # type: ignore[misc]
    """A layer that no one but this file knows."""

    def call(self, x: Any) -> Any:
        return 2 * x


class Module(tf.Module):  # type: ignore[misc]
    """A function with a variable, as TensorFlow saves it without Keras."""

    def __init__(
        self, function: Callable[..., Any], shape: tuple[int | None, ...] | None, dtype: Any = tf.float32
    ) -> None:
        super().__init__()
        self.scale = tf.Variable(3.0)
        specification = tf.TensorSpec(shape, dtype, "x")
        self.function = tf.function(lambda x: {"y": function(self.scale, x)}, input_signature=[specification])


def keep(path: Path, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    named = {f"output:{name}": np.asarray(value) for name, value in outputs.items()}
    np.savez(path, allow_pickle=False, **inputs, **named)


def shuffle(model: Any) -> Any:
    """The model with weights that are not as it began: else batch normalization does nothing."""
    model.set_weights([np.abs(RNG.standard_normal(w.shape)).astype(w.dtype) * 0.3 for w in model.get_weights()])
    return model


def keras_models(folder: Path) -> None:
    model = shuffle(images())
    image = RNG.standard_normal((1, 12, 12, 3)).astype(np.float32)
    scores, size = model(image)
    keep(folder / "images.npz", {"image": image}, {"scores": scores, "size": size})
    model.save(folder / "images.keras")
    model.save(folder / "images.h5")
    model.export(folder / "images_saved", verbose=False)
    specification = [tf.TensorSpec((None, 12, 12, 3), name="image")]
    traced = tf.function(lambda x: model(x, training=False), input_signature=specification).get_concrete_function()
    frozen = convert_variables_to_constants_v2(traced)
    (folder / "images.pb").write_bytes(frozen.graph.as_graph_def().SerializeToString())
    (folder / "images_unfrozen.pb").write_bytes(traced.graph.as_graph_def().SerializeToString())
    model.save_weights(folder / "images.weights.h5")

    model = shuffle(tokens())
    given = {"ids": RNG.integers(0, 8, (1, 6)).astype(np.int32), "mask": np.ones((1, 6, 1), np.float32)}
    keep(folder / "tokens.npz", given, {"lstm": model(list(given.values()))})
    model.save(folder / "tokens.keras")
    model.export(folder / "tokens_saved", verbose=False)
    # Other variables than those that its signature reads are restored from this one.
    specification = [tf.TensorSpec((None, 6), tf.int32, "ids"), tf.TensorSpec((None, 6, 1), name="mask")]
    signature = tf.function(lambda *arrays: {"lstm": model(list(arrays))}, input_signature=specification)
    tf.saved_model.save(model, folder / "tokens_tf", signatures=signature)

    model = shuffle(nested())
    image = RNG.standard_normal((1, 7, 9, 2)).astype(np.float32)
    keep(folder / "nested.npz", {"image": image}, {"mean": model(image)})
    model.save(folder / "nested.keras")


def hostile_models(folder: Path) -> None:
    """Models that write the file `ran` when somebody runs what is in them."""
    ran = str(folder / "ran")
    lambda_layer = keras.layers.Lambda(lambda x: Path(ran).write_text("") or x, output_shape=(3,), name="evil")
    model = keras.Sequential([keras.Input((3,)), lambda_layer])
    model.save(folder / "lambda.keras")
    model.save(folder / "lambda.h5")
    keras.Sequential([keras.Input((3,)), Doubled()]).save(folder / "custom.keras")
    # A name of Python's own where an activation should be.
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="relu")]).save(folder / "relu.keras")
    activation = {"module": "builtins", "class_name": "function", "config": "print", "registered_name": "function"}
    with zipfile.ZipFile(folder / "relu.keras") as given, zipfile.ZipFile(folder / "builtin.keras", "w") as changed:
        for name in given.namelist():
            content = given.read(name)
            if name == "config.json":
                content = content.replace(b'"activation": "relu"', b'"activation": ' + json.dumps(activation).encode())
                assert b"print" in content
            changed.writestr(name, content)

    def python(scale: Any, x: Any) -> Any:
        return tf.reshape(tf.numpy_function(lambda value: value, [x], tf.float32), (1, 3)) * scale

    def writing(scale: Any, x: Any) -> Any:
        with tf.control_dependencies([tf.io.write_file(ran, "x")]):
            return scale * x

    for name, function in {"python": python, "writing": writing}.items():
        module = Module(function, (1, 3))
        tf.saved_model.save(module, folder / name, signatures=module.function)
    Path(ran).unlink(missing_ok=True)


def modules(folder: Path) -> None:
    """SavedModels without Keras, and with what does not work."""
    plain = Module(lambda scale, x: tf.nn.relu(scale * x, name="kept"), (None, 3))
    x = RNG.standard_normal((1, 3)).astype(np.float32)
    keep(folder / "plain.npz", {"x": x}, plain.function(x))
    tf.saved_model.save(plain, folder / "plain", signatures={"only": plain.function})
    tf.saved_model.save(plain, folder / "unsigned")
    tf.saved_model.save(plain, folder / "two", signatures={"first": plain.function, "second": plain.function})

    def text(scale: Any, x: Any) -> Any:
        return tf.strings.length(tf.strings.lower(tf.strings.as_string(scale * x)))

    def lists(scale: Any, x: Any) -> Any:
        found = tf.TensorArray(tf.float32, 3)
        for i in tf.range(3):
            found = found.write(i, scale * x[:, i])
        return found.stack()

    functions = {
        "lists": (lists, (None, 3), tf.float32),
        "text": (text, (1, 3), tf.float32),
        "random": (lambda scale, x: scale * x + tf.random.normal((1, 3)), (1, 3), tf.float32),
        "words": (lambda scale, x: tf.strings.length(x), (1,), tf.string),
        "shapeless": (lambda scale, x: scale * x, None, tf.float32),
    }
    for name, (function, shape, dtype) in functions.items():
        module = Module(function, shape, dtype)
        tf.saved_model.save(module, folder / name, signatures=module.function)


def first_version(folder: Path) -> None:
    """A SavedModel as TensorFlow 1 wrote it."""
    v1 = tf.compat.v1
    x = RNG.standard_normal((1, 3)).astype(np.float32)
    with tf.Graph().as_default(), v1.Session() as session:
        given = v1.placeholder(tf.float32, (None, 3), "given")
        weight = v1.get_variable(
            "weight", initializer=RNG.standard_normal((3, 2)).astype(np.float32), use_resource=False
        )
        product = tf.matmul(given, weight, name="product")
        session.run(v1.global_variables_initializer())
        keep(folder / "first.npz", {"x": x}, {"y": session.run(product, {given: x})})
        v1.saved_model.simple_save(session, str(folder / "first"), {"x": given}, {"y": product})


def main() -> None:
    folder = Path(sys.argv[1])
    keras_models(folder)
    hostile_models(folder)
    modules(folder)
    first_version(folder)


if __name__ == "__main__":
    main()
