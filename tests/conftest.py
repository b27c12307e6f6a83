"""What several tests use: tiny models made here, Magika's real one from its package, and a site of their runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import settings
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import quantscope
from browsing import Site, browsing
from quantscope import demo
from quantscope.profiling import Profile, Reason, Rewritten, Tried
from quantscope.runfile import RunFile
from quantscope.samples import Samples
from quantscope.workflows.ranking import sensitivity
from registry import registry_model
from serving import serving

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


def broken_convolutions() -> onnx.ModelProto:
    """The two convolutions; a weight that meets nothing but zeros is so large that it ruins the rest per tensor."""
    proto = convolutions()
    for tensor in proto.graph.initializer:
        if tensor.name == "w1":
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[0, 2, 0, 0] = 400.0
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return proto


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The file of `broken_convolutions`."""
    path = tmp_path / "broken.onnx"
    onnx.save(broken_convolutions(), str(path))
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


BRIEFLY: Mapping[str, Any] = {"batches": (4, 1), "threads": (1,), "seconds": 0.5}
"""How tests profile the tiny models: for views of a profile, figures that add up do."""


def with_reasons(profile: Profile) -> Profile:
    """The profile with two reasons and a model written, all made up to test how they are shown; one was tried."""
    first = Reason(
        rule="test",
        ops=(profile.ops[0].name,),
        title="A reason for a test",
        evidence="the op that takes longest",
        change="nothing: it was made up",
        cost_us=12.5,
        tried=Tried(before_us=100.0, after_us=80.0, gain=1.25, low=1.2, high=1.31),
    )
    second = replace(
        first, title="A reason that nobody tried", ops=tuple(op.name for op in profile.ops[1:4]), tried=None
    )
    written = Rewritten("folder/faster.onnx", ("A reason for a test",), Tried(100.0, 50.0, 2.0, 1.9, 2.1), 3)
    return replace(profile, reasons=(first, second), rewritten=written)


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of `broken_convolutions`: "coarse", "fine" with a profile, "search", "effects" and "timed"."""
    place = tmp_path_factory.mktemp("runs")
    model, data = place / "broken.onnx", str(place / "samples.npz")
    onnx.save(broken_convolutions(), str(model))
    np.savez(data, x=two_colours(24), labels=np.arange(24) % 10)
    coarse = quantscope.Recipe.from_dict({"weights": {"granularity": "per_tensor"}})
    quantscope.diagnose(model, data=data, run=place / "coarse.qscope", recipe=coarse)
    quantscope.diagnose(model, data=data, run=place / "fine.qscope")
    quantscope.tune(model, data=data, run=place / "search.qscope", metric="cosine", max_drop=1e-7, most_trials=4)
    sensitivity(str(model), data=data, run=place / "effects.qscope", samples=8)
    timed = quantscope.profile(model, place / "fine.int8.onnx", **BRIEFLY, run=place / "timed.qscope")
    for name in ("timed", "fine"):
        with RunFile.read(place / f"{name}.qscope") as run:
            run.write_about(profile=with_reasons(timed).to_dict())
    return place


def with_speeds(search: Path, target: Path) -> list[float]:
    """Copy the run of a search as one that weighed time: speed-ups are made up for its trials, the last one is best."""
    shutil.copy(search, target)
    with RunFile.read(target) as run:
        trials = run.about("trials")
        speedups = [1.5 + i / 4 for i in range(len(trials))]
        for trial, speedup in zip(trials, speedups, strict=True):
            trial["speed"] = {"speedup": speedup, "low": speedup - 0.2, "high": speedup + 0.2, "reference_us": 20_000.0}
        found = {**run.about("search"), "best": len(trials) - 1}
        run.write_about(trials=trials, search=found)
    return speedups


@pytest.fixture(scope="session")
def rec_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a real model, PP-OCRv4 rec, on narrow noise: 860 ops without scopes."""
    model, path = registry_model("ppocrv4_rec"), tmp_path_factory.mktemp("rec") / "rec.qscope"
    noise = np.random.default_rng(0).uniform(-1, 1, (3, 3, 48, 64)).astype(np.float32)
    recipe = quantscope.Recipe(op_types=("Conv", "MatMul"))
    quantscope.diagnose(model, data=noise, calibration_samples=1, budget_samples=0, recipe=recipe, run=path)
    return path


@pytest.fixture(scope="module")
def site(small_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The built app on a copy of `small_runs`, in a browser."""
    from quantscope.serve.app import BUILT

    if not (BUILT / "index.html").is_file():
        pytest.skip("this installation has no built web app; next step: pip install --editable .")
    folder = tmp_path_factory.mktemp("site")
    for run in small_runs.glob("*.qscope"):
        shutil.copy(run, folder)
    with browsing() as browser, serving(folder, BUILT) as server:
        yield Site(server, folder, browser)


@pytest.fixture(scope="module")
def rec(site: Site, rec_run: Path) -> str:
    """The name of `rec_run` on the site."""
    shutil.copy(rec_run, site.folder)
    return rec_run.stem
