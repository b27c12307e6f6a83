"""Models and samples that several tests use: tiny ones made here, and Magika's real one from its package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import settings
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from quantscope import demo
from quantscope.samples import Samples

# How long an example takes says something of the machine alone.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def make_model(
    nodes: list[Any],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    weights: dict[str, NDArray[Any]],
) -> onnx.ModelProto:
    """A float ONNX model of these nodes, opset 17."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def convolutions(batch: Any = "N") -> onnx.ModelProto:
    """Two convolutions, the first with a ReLU that quantization absorbs, then a classifier."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "b1": rng.normal(0, 0.1, 8).astype(np.float32),
        "w2": rng.normal(0, 0.3, (16, 8, 3, 3)).astype(np.float32),
        "w3": rng.normal(0, 0.3, (16, 10)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="/stem/conv/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="/stem/relu/Relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="/body/conv/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c2"], ["g"], name="/head/pool/GlobalAveragePool"),
        helper.make_node("Flatten", ["g"], ["f"], name="/head/Flatten"),
        helper.make_node("MatMul", ["f", "w3"], ["logits"], name="/head/fc/MatMul"),
    ]
    return make_model(nodes, {"x": [batch, 3, 12, 12]}, {"logits": [batch, 10]}, weights)


def images(count: int, seed: int = 1) -> NDArray[Any]:
    """Random arrays that fit `convolutions`."""
    return np.random.default_rng(seed).normal(0, 1, (count, 3, 12, 12)).astype(np.float32)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The two convolutions; a weight that meets nothing but zeros is so large that it ruins the rest per tensor."""
    proto = convolutions()
    for tensor in proto.graph.initializer:
        if tensor.name == "w1":
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[0, 2, 0, 0] = 400.0
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    path = tmp_path / "broken.onnx"
    onnx.save(proto, str(path))
    return path


def two_colours(count: int) -> Any:
    """Images whose third channel is empty."""
    x = images(count)
    x[:, 2] = 0
    return x


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The file of the two convolutions."""
    path = tmp_path / "model.onnx"
    onnx.save(convolutions(), str(path))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of 24 samples with labels."""
    path = tmp_path / "samples.npz"
    np.savez(path, x=images(24), labels=np.arange(24) % 10)
    return path


@pytest.fixture(scope="session")
def magika() -> Path:
    """Magika's real model."""
    return demo.model_path()


@pytest.fixture(scope="session")
def files() -> Samples:
    """This machine's files as Magika's input."""
    return demo.samples()
