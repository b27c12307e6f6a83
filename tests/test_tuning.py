"""The search for the smallest fallback: its logic on made-up scores, and the whole on real models."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quantscope
from conftest import convolutions, images
from quantscope import tuning
from quantscope.errors import DataError, RecipeError
from quantscope.evaluation import Score
from quantscope.fallback.search import Criterion, Search, Tuner
from quantscope.fallback.sensitivity import _spearman, damage
from quantscope.qparams import PerTensor, QuantSpec
from quantscope.recipe import Calibration, Recipe
from test_runs import SLOW_SAMPLES, begin, finish

PER_TENSOR = QuantSpec(8, granularity=PerTensor())


def score(quantized: float, metric: str = "top1", reference: float = 1.0) -> Score:
    return Score(metric, 100, reference, quantized, -1.0, 0.0)


def searched(rank: list[str], quality: Callable[[Recipe], float], **options: Any) -> Search:
    recipe = options.pop("recipe", Recipe())
    tuner = Tuner(
        options.pop("criterion", Criterion(0.01)),
        lambda r: (score(quality(r)), 1 - len(r.rules) / 100),
        lambda r: rank,
        **options,
    )
    return tuner.search(recipe)


def kept(recipe: Recipe) -> set[str]:
    return {rule.selector for rule in recipe.rules}


OPS = [f"op{i}" for i in range(40)]


def test_a_recipe_that_is_good_enough_is_the_only_trial() -> None:
    found = searched(OPS, lambda r: 0.995)
    assert found.met
    assert [t.change for t in found.trials] == ["as asked"]


def test_what_costs_nothing_comes_before_fallback() -> None:
    found = searched(OPS, lambda r: 1.0 if r.calibration.method == "mse" else 0.5)
    assert found.best.recipe.calibration.method == "mse"
    assert not found.best.fallback
    per_tensor = Recipe(weights=PER_TENSOR)
    found = searched(OPS, lambda r: 1.0 if r.per_channel else 0.5, recipe=per_tensor)
    assert [t.change for t in found.trials] == ["as asked", "weights per channel"]


@settings(deadline=None, max_examples=40)
@given(st.sets(st.sampled_from(OPS), min_size=1, max_size=6))
def test_exactly_the_ops_that_are_needed_stay_in_float(needed: set[str]) -> None:
    def quality(recipe: Recipe) -> float:
        return 1.0 if needed <= kept(recipe) else 0.5

    found = searched(OPS, quality, most_trials=200)
    assert found.met
    assert set(found.best.fallback) == needed
    whole = [t for t in found.trials if t.fallback]
    assert len(whole) <= 2 + math.log2(len(OPS)) + 2 * len(OPS)


def test_one_culprit_at_the_head_of_the_list_takes_few_trials() -> None:
    found = searched(OPS, lambda r: 1.0 if "op0" in kept(r) else 0.2)
    assert found.best.fallback == ("op0",)
    assert sum(1 for t in found.trials if t.fallback) <= 7


def test_if_no_fallback_is_enough_it_says_so_and_gives_the_best() -> None:
    found = searched(OPS, lambda r: 0.3 + 0.001 * len(kept(r)))
    assert not found.met
    assert set(found.ranking) == set(found.best.fallback)


def test_no_more_trials_than_allowed() -> None:
    found = searched(OPS, lambda r: 0.3, most_trials=3)
    assert len(found.trials) == 3
    assert not found.met


def test_sixteen_bits_are_tried_before_ops_are_left_in_float() -> None:
    found = searched(OPS, lambda r: 1.0 if r.activations.bits == 16 else 0.5)
    assert found.best.change == "16-bit activations"


@pytest.mark.parametrize(
    ("criterion", "quantized", "metric", "reference", "met"),
    [
        (Criterion(0.01), 0.89, "top1", 0.9, True),
        (Criterion(0.01), 0.889, "top1", 0.9, False),
        (Criterion(0.01, relative=True), 0.892, "top1", 0.9, True),
        (Criterion(0.01, relative=True), 0.890, "top1", 0.9, False),
        (Criterion(0.01), 0.95, "top1", 0.9, True),
        (Criterion(0.1), 0.05, "mse", 0.0, True),
        (Criterion(0.01), 0.05, "mse", 0.0, False),
        (Criterion(0.01), math.nan, "top1", 0.9, False),
    ],
)
def test_the_allowed_drop(criterion: Criterion, quantized: float, metric: str, reference: float, met: bool) -> None:
    assert criterion.met_by(score(quantized, metric, reference)) is met


def test_the_pareto_front_has_what_nothing_beats() -> None:
    found = searched(OPS, lambda r: 0.5 + 0.01 * len(kept(r)), criterion=Criterion(0.2))
    front = found.pareto
    values = [(t.quantized_share, t.score.quantized) for t in front]
    assert values == sorted(values, key=lambda v: -v[0])
    for share, accuracy in values:
        assert not any(
            t.quantized_share >= share and t.score.quantized > accuracy for t in found.trials
        )  # fmt: skip


def test_damage_is_the_divergence_of_distributions_or_noise_over_signal() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 2, (5, 7)), rng.normal(0, 2, (5, 7))
    p, q = (np.exp(v) / np.exp(v).sum(1, keepdims=True) for v in (x, y))
    name, found = damage({"y": y}, {"y": x})
    assert name == "KL divergence"
    np.testing.assert_allclose(found, (p * np.log(p / q)).sum(1), rtol=1e-9)
    np.testing.assert_allclose(damage({"y": q}, {"y": p})[1], found, rtol=1e-9)
    image, other = rng.normal(0, 1, (3, 2, 4, 4)), rng.normal(0, 1, (3, 2, 4, 4))
    name, found = damage({"y": other}, {"y": image})
    assert name == "noise over signal"
    np.testing.assert_allclose(found, ((image - other) ** 2).sum((1, 2, 3)) / (image**2).sum((1, 2, 3)))


def test_rank_correlation_is_spearmans() -> None:
    x, y = np.array([3.0, 1.0, 2.0, 5.0]), np.array([30.0, 10.0, 20.0, 50.0])
    assert _spearman(x, y) == pytest.approx(1)
    assert _spearman(x, -y) == pytest.approx(-1)
    # 1 − 6·Σd²/(n(n²−1)) with ranks 3 1 2 4 and 1 3 2 4.
    assert _spearman(x, np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(1 - 6 * 8 / (4 * 15))
    assert _spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0])) == pytest.approx(1)
    assert math.isnan(_spearman(x[:2], y[:2]))
    assert math.isnan(_spearman(x, np.ones(4)))


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


def test_the_op_that_breaks_the_model_matters_most(broken: Path) -> None:
    found = tuning.sensitivity(broken, data=two_colours(24), recipe=Recipe(weights=PER_TENSOR))
    worst = found.ops[0]
    assert worst.op == "/stem/conv/Conv"
    assert (worst.best_rank, worst.worst_rank) == (1, 1)
    assert worst.gain > 0.5 * found.damage
    assert worst.alone > 0.5 * found.damage
    assert all(other.alone < 0.2 * worst.alone for other in found.ops[1:])
    assert set(found.agreement) == {"isolated error", "cumulative error", "mse"}


def test_the_gain_is_what_a_real_fallback_brings(broken: Path, tmp_path: Path) -> None:
    """Against models that ONNX Runtime's quantizer made with the op really left in float."""
    import onnxruntime

    x = two_colours(24)
    recipe = Recipe(weights=PER_TENSOR)
    found = tuning.sensitivity(broken, data=x, recipe=recipe, calibration_samples=16)

    def outputs(path: Path) -> Any:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x[16:]})[0]

    reference = outputs(broken)
    damages = []
    for chosen in (recipe, recipe.with_fallback([found.ops[0].op])):
        path = tmp_path / f"{len(chosen.rules)}.onnx"
        quantscope.quantize(broken, x, path, recipe=chosen, calibration_samples=16)
        damages.append(damage({"y": outputs(path)}, {"y": reference})[1].mean())
    assert found.damage == pytest.approx(damages[0], rel=0.2)
    assert found.ops[0].gain == pytest.approx(damages[0] - damages[1], rel=0.2)


def test_tune_leaves_the_culprit_in_float_and_no_other(broken: Path, tmp_path: Path) -> None:
    """Scales per channel save all channels but one."""
    found = tuning.tune(
        broken, data=two_colours(60), recipe=Recipe(weights=PER_TENSOR), metric="cosine", max_drop=0.002,
        run=tmp_path / "run.qscope", output=tmp_path / "best.onnx",
    )  # fmt: skip
    assert found.met
    assert found.best.fallback == ("/stem/conv/Conv",)
    assert found.best.recipe.per_channel
    assert [t.change for t in found.trials][:2] == ["as asked", "weights per channel"]
    recipe = Recipe.load(tmp_path / "best.toml")
    assert recipe == found.best.recipe
    assert quantscope.diagnose(broken, tmp_path / "best.onnx", data=two_colours(60), metric="cosine").scores
    again = tuning.open_search(tmp_path / "run.qscope")
    assert again is not None
    assert again.trials == found.trials
    assert again.met


def test_a_search_that_was_killed_does_not_try_again_what_it_tried(tmp_path: Path, model: Path) -> None:
    (tmp_path / "slow_samples.py").write_text(SLOW_SAMPLES)
    arguments = ("tune", model.name, "--data", "slow_samples:batches", "--max-drop", "0", "--samples", "30", "--json",
                 "--trials", "6", "--metric", "mse", "--calibration-samples", "8")  # fmt: skip
    process = begin(tmp_path, *arguments, "--run", "run.qscope")
    while not (tmp_path / "run.qscope").exists() or not _tried(tmp_path / "run.qscope"):
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = _tried(tmp_path / "run.qscope")
    out, _ = finish(begin(tmp_path, "tune", "--resume", "run.qscope", "--json"), 1)
    found = json.loads(out)
    assert found["trials"][: len(before)] == before
    assert len(found["trials"]) == 6
    shown = finish(begin(tmp_path, "show", "run.qscope"))[0]
    assert "no recipe that was tried meets the allowed drop of 0" in shown


def _tried(run: Path) -> list[Any]:
    from quantscope.errors import RunFileError
    from quantscope.runfile import RunFile

    try:
        with RunFile.read(run) as run_file:
            return run_file.about("trials") or []
    except RunFileError:
        return []


def test_bad_input_is_refused_before_anything_is_written(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run.qscope"
    for options, message in (
        ({"max_drop": -1.0}, "allowed drop of -1"),
        ({"most_trials": 0}, "0 trials"),
        ({"metric": "nonsense"}, "unknown metric"),
    ):
        with pytest.raises(DataError, match=message):
            tuning.tune(model, data=images(20), run=run, **options)
        assert not run.exists()
    with pytest.raises(RecipeError):
        tuning.tune(model, data=images(20), run=run, recipe=Recipe().with_fallback(["nothing"]))
    assert not run.exists()


def test_the_moves_keep_the_users_calibration_out_of_the_list() -> None:
    found = searched(OPS, lambda r: 0.1, recipe=Recipe(calibration=Calibration("entropy")), most_trials=6)
    assert [t.change for t in found.trials].count("calibration entropy") == 0
