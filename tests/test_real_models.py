"""Real models end to end: those that ONNX Runtime's quantizer fails on, and the published accuracies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization import QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image, ImageDraw, ImageFont

import quantscope
from producers.ort import Reader
from quantscope import Preprocessing, Recipe
from quantscope.diagnosis import ordered
from quantscope.images import PRESETS
from quantscope.qparams import QuantSpec
from quantscope.samples import Samples
from registry import registry_model

SHARED = Path(__file__).parent.parent.parent / "shared"


def text_lines(count: int, width: int = 160) -> NDArray[Any]:
    """Rendered text as PP-OCR takes it."""
    font = ImageFont.load_default(30)
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(count):
        image = Image.new("RGB", (width, 48), "white")
        ImageDraw.Draw(image).text((8, 6), "".join(rng.choice(list("abcdefgh 0123"), width // 20)), "black", font)
        lines.append((np.asarray(image, np.float32)[..., ::-1] / 127.5 - 1).transpose(2, 0, 1))
    return np.stack(lines)


def sounds(count: int) -> NDArray[Any]:
    """Chords with noise as basic-pitch takes them."""
    rng = np.random.default_rng(0)
    t = np.arange(43844) / 22050
    waves = [sum(np.sin(2 * np.pi * f * t) for f in rng.choice([220, 262, 330, 392, 440], 3)) for _ in range(count)]
    return (np.stack(waves)[..., None] * 0.2 + rng.normal(0, 0.01, (count, 43844, 1))).astype(np.float32)


CASES: dict[str, tuple[Callable[[], NDArray[Any]], float]] = {
    "basic_pitch": (lambda: sounds(6), 0.79),
    "ppocrv4_rec": (lambda: text_lines(6), 0.91),
    "ppocrv2_cls": (lambda: text_lines(8, 192), 0.92),
}


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("weights", [QuantSpec(8), Recipe().weights], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("name", list(CASES))
def test_models_that_are_hard_to_quantize_are_quantized_and_diagnosed(
    name: str, weights: QuantSpec, form: Any, tmp_path: Path
) -> None:
    samples, coverage = CASES[name]
    diagnosis = quantscope.diagnose(
        registry_model(name), data=samples(), calibration_samples=4, recipe=Recipe(form, weights=weights),
        output=tmp_path / "int8.onnx",
    )  # fmt: skip
    assert diagnosis.coverage >= coverage
    quantized = [t for t in diagnosis.weights if t.is_quantized]
    assert len(quantized) > 20
    if weights == Recipe().weights:
        assert any(t.granularity.startswith("per channel") for t in quantized), "not in silence per tensor"
    assert all(t.quantized.count == t.reference.count for t in diagnosis.tensors)
    shown = [t for t in diagnosis.activations if t.is_quantized]
    assert all(t.local_sqnr_db > 10 for t in shown if t.reference.max > t.reference.min)


def test_the_culprit_of_ppocrv4_rec_is_named() -> None:
    """int8 per tensor takes its accuracy from 1.00 to 0.00, and leaving p2o.Conv.28 alone in float brings back 0.74."""
    diagnosis = quantscope.diagnose(
        registry_model("ppocrv4_rec"), data=text_lines(6), calibration_samples=4, recipe=Recipe(weights=QuantSpec(8))
    )
    assert [source.row.op for source in diagnosis.failure_sources] == ["p2o.Conv.28"]
    source = diagnosis.failure_sources[0]
    assert source.inputs_db > 10 > source.row.sqnr_db
    weight = next(t for t in diagnosis.weights if t.op == "p2o.Conv.28")
    assert weight.sqnr_db == pytest.approx(10.8, abs=0.1), "its weight is the reason"
    assert all(t.sqnr_db > 5 for t in diagnosis.weights), "the gain of a layer normalization is not taken for its bias"
    assert diagnosis.activations[0].op == diagnosis.weights[0].op == "p2o.Conv.28", "both tables begin with it"
    by_mse = [row.op for row in ordered(diagnosis.activations, "mse")]
    assert by_mse.index("p2o.Conv.28") > 20, "by mse it is nowhere near"


def test_the_culprit_of_ppocrv4_rec_does_most_to_the_output() -> None:
    found = quantscope.sensitivity(
        registry_model("ppocrv4_rec"), data=text_lines(20), calibration_samples=4, most_ops=8,
        recipe=Recipe(weights=QuantSpec(8)),
    )  # fmt: skip
    first = found.ops[0]
    assert (first.op, first.best_rank, first.worst_rank) == ("p2o.Conv.28", 1, 1)
    assert first.alone > 2 * found.ops[1].alone
    assert first.gain > 0.1 * found.damage
    assert len(found.ops) == 8


@pytest.mark.parametrize("moves", [("per-channel",), ()])
def test_what_broke_ppocrv4_rec_is_found_by_the_search(moves: tuple[str, ...]) -> None:
    found = quantscope.tune(
        registry_model("ppocrv4_rec"), data=text_lines(20), calibration_samples=4, max_drop=0.2, metric="cosine",
        most_ops=8, most_trials=12, moves=moves, recipe=Recipe(weights=QuantSpec(8)),
    )  # fmt: skip
    assert found.met
    if moves:
        assert [t.change for t in found.trials] == ["as configured", "weights per channel"]
    else:
        assert found.ranking[0] == "p2o.Conv.28"
        assert "p2o.Conv.28" in found.best.fallback
        assert found.best.quantized_share > 0.9


def test_magika_per_channel_which_the_rival_refuses(magika: Path, files: Samples, tmp_path: Path) -> None:
    batch = next(iter(files.for_inputs(_inputs(magika)).batches(4)))
    reader: Any = Reader([batch.inputs])
    prepared, rival = str(tmp_path / "prepared.onnx"), str(tmp_path / "rival.onnx")
    quant_pre_process(str(magika), prepared, skip_symbolic_shape=True)
    with pytest.raises(ValueError, match="ambiguous"):
        quantize_static(prepared, rival, reader, quant_format=QuantFormat.QDQ, per_channel=True)
    quantscope.quantize(magika, files, tmp_path / "ours.onnx", calibration_samples=4)
    assert (tmp_path / "ours.onnx").stat().st_size < magika.stat().st_size / 2


def _inputs(path: Path) -> Any:
    from quantscope.backends.onnx import BACKEND

    return BACKEND.load(path).graph.inputs


PHOTOS = SHARED / "imagenet"
MODELS = Path(os.environ.get("QUANTSCOPE_MODELS", Path(__file__).parent.parent / "models"))
LITE = Preprocessing(resize=256, crop=224, mean=(127.0,), std=(128.0,))
# Published top-1 of the reference and of int8 by ONNX Runtime's own quantizer, on photos 50 to 499.
PUBLISHED = [
    ("resnet50_v1", PRESETS["imagenet-caffe"], QuantSpec(8), 90.89, 89.78),
    ("resnet50_v1", PRESETS["imagenet-caffe"], Recipe().weights, 90.89, 90.44),
    ("efficientnet_lite0", LITE, QuantSpec(8), 87.33, 81.11),
    ("efficientnet_lite0", LITE, Recipe().weights, 87.33, 87.11),
]


@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no photos in {PHOTOS}")
@pytest.mark.parametrize(("name", "preprocessing", "weights", "reference", "int8"), PUBLISHED)
def test_published_accuracies(
    name: str, preprocessing: Preprocessing, weights: QuantSpec, reference: float, int8: float
) -> None:
    model = MODELS / f"{name}.onnx"
    if not model.exists():
        pytest.skip(f"no {model}: build it, or set QUANTSCOPE_MODELS to the folder that holds it")
    diagnosis = quantscope.diagnose(
        model, data=PHOTOS, preprocessing=preprocessing, calibration_samples=50, recipe=Recipe(weights=weights)
    )
    top1 = diagnosis.scores[0]
    assert (top1.metric, top1.samples) == ("top1", 450)
    assert top1.reference * 100 == pytest.approx(reference, abs=0.01)
    assert top1.quantized * 100 == pytest.approx(int8, abs=1)
    assert diagnosis.measuring_changed == 0
