"""The example on ResNet-50, run by the command line that the article prints: on photos, and on photos made here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

import quantscope
from conftest import make_model

ROOT = Path(__file__).parent.parent
MAIN = ROOT / "examples" / "resnet50_imagenet" / "main.py"
PHOTOS = ROOT.parent / "shared" / "imagenet"
MODELS = Path(os.environ.get("QUANTSCOPE_MODELS", ROOT / "models"))


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The example, run in this folder."""
    command = [sys.executable, str(MAIN), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def classifier(tmp_path: Path) -> list[str]:
    """The article's three paths, to a tiny classifier of photos and to photos that it knows the classes of."""
    rng = np.random.default_rng(0)
    shades = np.array([[250, 40, 40], [40, 250, 40], [40, 40, 250], [240, 240, 60]], np.float64)
    mean = np.array([123.68, 116.779, 103.939])
    # Scores by how near a photo's mean colour, in the order BGR, is to that of each class.
    centred = (shades - mean)[:, ::-1] / 100
    weights = {
        "w": (rng.normal(0, 0.01, (3, 3, 3, 3)) + np.eye(3)[:, :, None, None] / 9 / 100).astype(np.float32),
        "fc": centred.T.astype(np.float32),
        "b": (-(centred**2).sum(1) / 2).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["data", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "fc"], ["m"], name="fc"),
        helper.make_node("Add", ["m", "b"], ["scores"], name="bias"),
    ]
    model = make_model(nodes, {"data": ["N", 3, 224, 224]}, {"scores": ["N", 4]}, weights)
    onnx.save(model, str(tmp_path / "model.onnx"))
    photos = tmp_path / "photos" / "val"
    photos.mkdir(parents=True)
    lines = []
    for i in range(12):
        pixels = np.clip(rng.normal(shades[i % 4], 20, (260, 300, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.png")
        lines.append(f"{i}.png {i % 4}")
    (tmp_path / "val.txt").write_text("\n".join([*lines, "missing.png 0", ""]))
    # The article's command line has a slash behind each path.
    return [
        f"--model_path={tmp_path}/model.onnx/", f"--dataset_location={tmp_path}/photos/",
        f"--label_path={tmp_path}/val.txt/",
    ]  # fmt: skip


def test_the_articles_command_line(classifier: list[str], tmp_path: Path) -> None:
    result = run(tmp_path, *classifier, "--calibration_sampling_size=4", "--tune", "--diagnose")
    assert result.returncode == 0, result.stderr
    assert re.search(r"accuracy: float [\d.]+, quantized [\d.]+, goal [\d.]+ met in 1 trial", result.stdout)
    for words in ("Activations", "Weights", "run file: quantization.qscope", "Quantized model: model.int8.onnx"):
        assert words in result.stdout, words
    diagnosis = quantscope.open(tmp_path / "quantization.qscope")
    assert diagnosis.samples["evaluation"] == 8, "the photos that did not calibrate"
    assert (tmp_path / "model.int8.onnx").read_bytes() == (tmp_path / "quantization.int8.onnx").read_bytes()


def test_tuning_alone_writes_the_model_and_says_what_was_tried(classifier: list[str], tmp_path: Path) -> None:
    result = run(tmp_path, *classifier, "--tune", "--quant_format=QDQ", "--batch_size=5", "--output_model=out.onnx")
    assert result.returncode == 0, result.stderr
    assert "trial 1: as configured: accuracy" in result.stderr
    assert {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node} >= {"DequantizeLinear", "Conv"}
    assert not list(tmp_path.glob("*.qscope"))


def test_a_benchmark_measures_the_model_as_it_is(classifier: list[str], tmp_path: Path) -> None:
    result = run(tmp_path, *classifier, "--benchmark", "--iterations=5", "--batch_size=4")
    assert result.returncode == 0, result.stderr
    found = re.search(r"Latency: ([\d.]+) ms median, ([\d.]+) to ([\d.]+) ms\n.*?([\d.]+) images/sec", result.stdout)
    assert found is not None
    median, least, most, rate = map(float, found.groups())
    assert 0 < least <= median <= most
    assert 4000 / most * 0.99 <= rate <= 4000 / least * 1.01
    result = run(tmp_path, *classifier, "--benchmark", "--mode=accuracy")
    assert float(result.stdout.rpartition(" ")[2]) > 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to do"),
        (["--benchmark", "--diagnose"], "--diagnose goes with --tune"),
        (["--tune", "--batch_size=0"], "--batch_size is 0"),
        (["--tune", "--label_path=none.txt"], "--label_path: there is no none.txt"),
        (["--tune", "--dataset_location=."], "none of the 13 photos"),
        (["--tune", "--output_model=no/such/int8.onnx"], "no such folder"),
    ],
)
def test_a_mistake_gets_one_clear_message(
    classifier: list[str], tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = run(tmp_path, *classifier, *arguments)
    assert result.returncode
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_resnet50_on_photos(tmp_path: Path) -> None:
    model = MODELS / "resnet50_v1.onnx"
    if not PHOTOS.is_dir() or not model.exists():
        pytest.skip(f"no {model} or no photos in {PHOTOS}: build it, or set QUANTSCOPE_MODELS to its folder")
    lines = (PHOTOS / "val.txt").read_text().splitlines()[50:58]
    (tmp_path / "val.txt").write_text("\n".join(lines))
    result = run(
        tmp_path, f"--model_path={model}", f"--dataset_location={PHOTOS}", f"--label_path={tmp_path}/val.txt",
        "--tune", "--diagnose", "--batch_size=4", "--calibration_sampling_size=4",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    figures: Any = re.search(r"accuracy: float ([\d.]+), quantized ([\d.]+)", result.stdout)
    assert float(figures[1]) >= 0.75
    assert float(figures[2]) >= 0.6
    diagnosis = quantscope.open(tmp_path / "quantization.qscope")
    assert diagnosis.coverage > 0.95
    assert diagnosis.samples["evaluation"] == 4
