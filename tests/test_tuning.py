"""The search for the smallest fallback: its logic on made-up scores, and the whole on real models."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quantscope
from conftest import images, two_colours
from quantscope.errors import DataError, RecipeError
from quantscope.evaluation import Score
from quantscope.fallback.search import MOVES, Criterion, Search, Trial, Tuner, as_dict, as_fast, trial_dict, trial_from
from quantscope.fallback.speed import Speed
from quantscope.profiling import OpSide, OpTiming
from quantscope.qparams import PerTensor, QuantSpec
from quantscope.recipe import Calibration, Recipe
from quantscope.report.search import search_table
from quantscope.report.terminal import console
from quantscope.runfile import RunFile
from quantscope.workflows import tuning
from quantscope.workflows.trial_timing import candidates
from test_runs import SLOW_SAMPLES, begin, finish

PER_TENSOR = QuantSpec(8, granularity=PerTensor())


def score(quantized: float, metric: str = "top1", reference: float = 1.0) -> Score:
    return Score(metric, 100, reference, quantized, -1.0, 0.0, metric != "mse")


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
    assert [t.change for t in found.trials] == ["as configured"]
    assert found.summary == "top1: float 1, quantized 0.995, goal 0.99 met in 1 trial (as configured)"


def test_what_costs_nothing_comes_before_fallback() -> None:
    found = searched(OPS, lambda r: 1.0 if r.calibration.method == "mse" else 0.5)
    assert found.best.recipe.calibration.method == "mse"
    assert not found.best.fallback
    per_tensor = Recipe(weights=PER_TENSOR)
    found = searched(OPS, lambda r: 1.0 if r.per_channel else 0.5, recipe=per_tensor)
    assert [t.change for t in found.trials] == ["as configured", *(move.name for move in MOVES[:5])]
    assert found.best.change == "weights per channel"
    assert found.best.recipe.calibration == per_tensor.calibration, "what did not help is not kept"


def test_each_move_is_one_of_the_best_recipe_so_far() -> None:
    def quality(recipe: Recipe) -> float:
        better = [recipe.calibration.method == "entropy", recipe.per_channel, "op7" in kept(recipe)]
        return 0.7 + 0.1 * sum(better)

    found = searched(OPS, quality, recipe=Recipe("qoperator", weights=PER_TENSOR))
    assert found.met
    assert found.best.fallback == ("op7",)
    assert found.best.change == "weights per channel, op7 in float"
    assert found.best.recipe.per_channel
    assert found.best.recipe.calibration.method == "entropy"


def test_only_the_moves_that_are_given_are_tried() -> None:
    found = searched(OPS, lambda r: 1.0 if kept(r) else 0.5, recipe=Recipe(weights=PER_TENSOR), moves=())
    assert [t.change for t in found.trials] == ["as configured", "op0 in float"]


@settings(deadline=None, max_examples=40)
@given(st.sets(st.sampled_from(OPS), min_size=1, max_size=6))
def test_exactly_the_ops_that_are_needed_stay_in_float(needed: set[str]) -> None:
    def quality(recipe: Recipe) -> float:
        return 1.0 if needed <= kept(recipe) else 0.5

    found = searched(OPS, quality, most_trials=200)
    assert found.met
    assert set(found.best.fallback) == needed
    tried = [t for t in found.trials if t.fallback]
    assert len(tried) <= 2 + 2 * math.log2(len(OPS)) + 2 * len(OPS)


def test_one_culprit_at_the_head_of_the_list_takes_few_trials() -> None:
    found = searched(OPS, lambda r: 1.0 if "op0" in kept(r) else 0.2)
    assert found.best.fallback == ("op0",)
    assert sum(1 for t in found.trials if t.fallback) == 1


@pytest.mark.parametrize(("place", "count"), [(0, 1), (0, 50), (1, 50), (6, 50), (27, 50), (49, 50), (300, 1000)])
def test_trials_grow_with_the_ops_that_are_needed_not_with_all(place: int, count: int) -> None:
    needed = {f"op{i}" for i in range(place + 1)}
    found = searched([f"op{i}" for i in range(count)], lambda r: float(needed <= kept(r)), moves=(), most_trials=10**4)
    assert set(found.best.fallback) == needed
    sizes = [len(t.fallback) for t in found.trials]
    shortest = sizes.index(place + 1)
    assert shortest <= 1 + 2 * math.ceil(math.log2(place + 1))
    assert max(sizes) <= 2 * (place + 1), "hardly more in float than needed, should time be up"


def test_if_no_fallback_is_enough_it_says_so_and_gives_the_best() -> None:
    found = searched(OPS, lambda r: 0.3 + 0.001 * len(kept(r)))
    assert not found.met
    assert set(found.ranking) == set(found.best.fallback)


def test_no_more_trials_than_allowed() -> None:
    found = searched(OPS, lambda r: 0.3, most_trials=3)
    assert len(found.trials) == 3
    assert not found.met
    found = searched(OPS, lambda r: 0.3 + len(kept(r)) / 100, moves=(), most_trials=4)
    assert [len(t.fallback) for t in found.trials] == [0, 1, 2, 4]
    assert found.best is found.trials[-1], "the best so far"


def test_time_is_a_limit_and_one_trial_is_always_made() -> None:
    found = searched(OPS, lambda r: 0.3, most_seconds=0.0)
    assert [t.change for t in found.trials] == ["as configured"]


def test_ops_are_not_ranked_if_no_trial_is_left_for_them() -> None:
    def rank(recipe: Recipe) -> list[str]:
        raise AssertionError("it takes long")

    tuner = Tuner(Criterion(), lambda recipe: (score(0.3), 1.0), rank, moves=(), most_trials=1)
    assert not tuner.search(Recipe()).met


def test_one_figure_for_each_model_is_enough_to_search() -> None:
    """Less is better, nothing is known of single samples, and a figure may be nan."""
    figures = iter([math.nan, 2.6, math.nan, 2.5, 2.2, 2.0])

    def evaluate(recipe: Recipe) -> tuple[Score, float]:
        return Score("loss", None, 2.0, next(figures), higher_is_better=False), 1 - len(recipe.rules) / 100

    found = Tuner(Criterion(0.1, relative=True), evaluate, lambda r: OPS, moves=(), most_trials=4).search(Recipe())
    assert not found.met
    assert found.best is found.trials[3]
    assert found.summary == "loss: float 2, quantized 2.5, goal 2.2 missed in 4 trials (4 ops in float)"
    figures = iter([math.nan, 2.6, 2.2])
    found = Tuner(Criterion(0.1, relative=True), evaluate, lambda r: OPS, moves=(), most_trials=3).search(Recipe())
    assert found.met
    assert [t.score.quantized for t in found.pareto[-1:]] == [2.2]
    again = trial_from(json.loads(json.dumps(trial_dict(found.best))))
    assert repr(again) == repr(found.best)


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
        (Criterion(0.01), math.nan, "mse", 0.0, False),
        (Criterion(0.01, relative=True), -2.0199, "top1", -2.0, True),
        (Criterion(0.01, relative=True), -2.0201, "top1", -2.0, False),
    ],
)
def test_the_allowed_drop(criterion: Criterion, quantized: float, metric: str, reference: float, met: bool) -> None:
    given = score(quantized, metric, reference)
    assert criterion.met_by(given) is met
    assert criterion.met_by(replace(given, quantized=criterion.goal(given)))


def test_the_pareto_front_has_what_nothing_beats() -> None:
    found = searched(OPS, lambda r: 0.5 + 0.01 * len(kept(r)), criterion=Criterion(0.2))
    front = found.pareto
    values = [(t.quantized_share, t.score.quantized) for t in front]
    assert values == sorted(values, key=lambda v: -v[0])
    for share, accuracy in values:
        assert not any(
            t.quantized_share >= share and t.score.quantized > accuracy for t in found.trials
        )  # fmt: skip


def test_tune_leaves_the_culprit_in_float_and_no_other(broken: Path, tmp_path: Path) -> None:
    """Scales per channel save all channels but one."""
    found = tuning.tune(
        broken, data=two_colours(60), recipe=Recipe(weights=PER_TENSOR), metric="cosine", max_drop=0.002,
        run=tmp_path / "run.qscope", output=tmp_path / "best.onnx",
    )  # fmt: skip
    assert found.met
    assert found.best.fallback == ("/stem/conv/Conv",)
    assert found.best.recipe.per_channel
    assert "weights per channel" in [t.change for t in found.trials]
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
        ({"latency": True, "latency_seconds": 0.0}, "0.0 seconds to time a trial"),
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


# ---- accuracy against time


def timed(accuracy: float, speedup: float, low: float, high: float, change: str = "") -> Trial:
    """A trial of float's accuracy 1 and 10 ms."""
    return Trial(change, Recipe(), score(accuracy), 1.0, 1.0, Speed(speedup, low, high, 10_000.0))


def chosen(*trials: Trial, max_drop: float = 0.01) -> Search:
    """The search that tried these, as the tuner ends it."""
    tuner = Tuner(Criterion(max_drop), lambda r: (score(1.0), 1.0), lambda r: [], timing=MadeTiming({}))
    tuner.trials = list(trials)
    return tuner._best_so_far()


class MadeTiming:
    """Speeds that are a function of the ops in float; what is slower is known by the recipe's ops in float."""

    def __init__(
        self, slower: dict[frozenset[str], dict[str, list[str]]], speed: Callable[[Recipe], float] | None = None
    ):
        self.slower = slower
        self.made = speed or (lambda recipe: 1.0)
        self.asked: list[frozenset[str]] = []

    def speed(self, recipe: Recipe) -> Speed:
        found = self.made(recipe)
        return Speed(found, found * 0.98, found * 1.02, 10_000.0)

    def candidates(self, recipe: Recipe) -> dict[str, list[str]]:
        self.asked.append(frozenset(kept(recipe)))
        return self.slower.get(frozenset(kept(recipe)), {})


def test_the_fastest_that_is_good_enough_is_best() -> None:
    fast_but_bad, good, slow = timed(0.5, 3, 2.9, 3.1), timed(0.992, 2, 1.9, 2.1), timed(1.0, 1.5, 1.4, 1.6)
    found = chosen(slow, fast_but_bad, good)
    assert found.met
    assert found.best is good
    assert found.pareto == (fast_but_bad, good, slow)
    assert [found.us(trial) for trial in found.pareto] == pytest.approx([10_000 / 3, 5_000, 10_000 / 1.5])


def test_of_those_that_are_equally_fast_the_most_accurate_is_best() -> None:
    fastest, equal, slower = timed(0.991, 2.1, 1.9, 2.3), timed(0.999, 2.0, 1.8, 2.2), timed(0.9995, 1.5, 1.4, 1.6)
    found = chosen(fastest, equal, slower)
    assert as_fast(fastest, equal)
    assert not as_fast(equal, slower)
    assert found.best is equal
    assert found.pareto == (equal, slower), "nothing speaks for the fastest by its figure alone"


def test_the_noise_of_two_times_adds_as_squares() -> None:
    """Intervals that overlap a little are still two times; those of a figure within the other's interval are not."""
    wide, narrow = timed(0.999, 1.24, 1.02, 1.5), timed(0.99, 1.55, 1.45, 1.66)
    assert not as_fast(wide, narrow)
    assert as_fast(wide, timed(1.0, 1.4, 1.3, 1.5))
    assert chosen(wide, narrow).best is narrow


def test_a_chain_of_overlaps_does_not_make_the_slowest_as_fast_as_the_fastest() -> None:
    a, b, c = timed(0.992, 2.0, 1.7, 2.35), timed(0.994, 1.7, 1.45, 2.0), timed(0.999, 1.4, 1.2, 1.65)
    assert chosen(a, b, c).pareto == (b, c)
    assert chosen(a, b, c).best is b


def test_if_nothing_is_good_enough_the_most_accurate_is_best_however_slow() -> None:
    accurate, fast = timed(0.9, 1.1, 1.0, 1.2), timed(0.5, 3, 2.9, 3.1)
    found = chosen(fast, accurate)
    assert not found.met
    assert found.best is accurate


SPEEDS = st.tuples(st.integers(0, 20), st.integers(5, 40), st.integers(0, 9))


@settings(deadline=None)
@given(st.lists(SPEEDS, min_size=1, max_size=12))
def test_the_front_against_time_is_one(made: list[tuple[int, int, int]]) -> None:
    """It gets more accurate from one to the next, and each trial is made up for by one at least as accurate that is as
    fast as something faster."""
    trials = [
        timed(0.8 + a / 100, s / 10, s / 10 - n / 20, s / 10 + n / 20, str(i)) for i, (a, s, n) in enumerate(made)
    ]
    front = chosen(*trials).pareto
    values = [t.score.quantized for t in front]
    assert values == sorted(set(values))
    assert values[-1] == max(t.score.quantized for t in trials)
    assert as_fast(front[0], max(trials, key=speedup))
    for trial in trials:
        assert any(
            member.score.quantized >= trial.score.quantized
            and any(as_fast(member, other) and speedup(other) >= speedup(trial) for other in trials)
            for member in front
        )


def speedup(trial: Trial) -> float:
    assert trial.speed is not None
    return trial.speed.speedup


def test_ops_that_int8_makes_slower_are_left_in_float_as_long_as_it_gets_faster() -> None:
    """The first set brings something, after it another one does, and the third does not."""
    timing = MadeTiming(
        {
            frozenset(): {"all 2 ops": ["op1", "op2"], "1 op": ["op9"]},
            frozenset({"op1", "op2"}): {"1 op more": ["op3"]},
            frozenset({"op1", "op2", "op3"}): {"1 op too many": ["op4"]},
        },
        lambda recipe: 1.0 + 0.2 * len(kept(recipe) & {"op1", "op2", "op3"}) - 0.2 * len(kept(recipe) & {"op4", "op9"}),
    )
    found = searched(OPS, lambda r: 1.0, timing=timing)
    assert set(found.best.fallback) == {"op1", "op2", "op3"}
    assert found.best.change == "all 2 ops, 1 op more"
    assert [t.change for t in found.trials] == [
        "as configured", "all 2 ops", "1 op", "all 2 ops, 1 op more", "all 2 ops, 1 op more, 1 op too many",
    ]  # fmt: skip


def test_speed_is_not_bought_with_accuracy_that_the_criterion_keeps() -> None:
    timing = MadeTiming({frozenset(): {"1 op": ["op1"]}}, lambda recipe: 1.0 + len(kept(recipe)))
    found = searched(OPS, lambda r: 0.5 if kept(r) else 1.0, timing=timing)
    assert found.best is found.trials[0]
    assert found.pareto == (found.trials[1], found.trials[0])


def test_accuracy_is_sought_from_the_faster_recipe_on_and_time_once_more_at_the_end() -> None:
    timing = MadeTiming({frozenset(): {"1 op": ["op1"]}}, lambda recipe: 2.0 if "op1" in kept(recipe) else 1.0)
    found = searched(OPS, lambda r: 1.0 if "op7" in kept(r) else 0.5, moves=(), timing=timing)
    assert found.met
    assert set(found.best.fallback) == {"op1", "op7"}
    assert timing.asked[-1] == {"op1", "op7"}


def test_a_move_that_makes_the_model_slower_is_not_the_end_where_time_counts() -> None:
    def quality(recipe: Recipe) -> float:
        return 1.0 if recipe.activations.bits == 16 or "op0" in kept(recipe) else 0.5

    timing = MadeTiming({}, lambda recipe: 0.5 if recipe.activations.bits == 16 else 2.0)
    found = searched(OPS, quality, timing=timing)
    assert "16-bit activations" in [t.change for t in found.trials]
    assert found.best.fallback == ("op0",)


def test_a_trial_with_its_speed_is_read_back_and_one_of_before_too() -> None:
    trial = timed(0.99, 1.5, 1.4, 1.6)
    assert trial_from(json.loads(json.dumps(trial_dict(trial)))) == trial
    of_before = {key: value for key, value in trial_dict(trial).items() if key != "speed"}
    assert trial_from(of_before) == replace(trial, speed=None)
    document = as_dict(chosen(trial))
    assert document["trials"][0]["speed"] == {"speedup": 1.5, "low": 1.4, "high": 1.6, "reference_us": 10_000.0}
    assert (document["reference_us"], document["us"]) == (10_000.0, [10_000 / 1.5])


def test_the_terminal_says_how_fast_and_what_is_equal() -> None:
    found = chosen(
        timed(0.991, 2.1, 1.9, 2.3, "calibration mse"), timed(0.999, 2.0, 1.8, 2.2, "calibration entropy"),
        timed(0.9995, 1.5, 1.4, 1.6, "op1 in float"),
    )  # fmt: skip
    text = printed(found)
    assert "found: calibration entropy meets the allowed drop of 0.01 and is 2.00× faster (1.80 to 2.20)" in text
    assert "99.90% at 5 ms, 2.00× faster (1.80 to 2.20): calibration entropy" in text
    assert "99.95% at 6.67 ms, 1.50× faster (1.40 to 1.60): op1 in float" in text
    assert "100.00% at 10 ms: the float model" in text
    assert "as fast as the best one within the noise of the measurement: calibration mse" in text
    assert "the least certain speed-up is known within ±10%: --time gives each trial more time" in text
    slow = printed(chosen(timed(0.999, 0.5, 0.4, 0.8, "16-bit activations")))
    assert "no trial that meets it is surely faster than the float model" in slow
    assert "2.00× slower (1.25 to 2.50)" in slow


def printed(search: Search) -> str:
    out = console()
    out.width = 160
    with out.capture() as capture:
        out.print(search_table(search))
    return capture.get()


def op(name: str, op_type: str, reference: float, quantized: float | None, multiply_adds: int = 0) -> OpTiming:
    def side(us: float) -> OpSide:
        return OpSide(us, 0.0, us, 0.1, us, 0.0, 1, 1)

    ours = side(quantized) if quantized is not None else None
    return OpTiming(name, op_type, "", (name,), multiply_adds, side(reference), ours)


def test_what_may_be_faster_in_float() -> None:
    rows = [
        op("conv0", "Conv", 100, 40, 10**6), op("conv1", "Conv", 20, 30, 10**5), op("mul0", "Mul", 5, 9),
        op("mul1", "Mul", 5, 4), op("add0", "Add", 5, 2), op("kept", "Mul", 5, 50), op("gone", "Relu", 5, None),
    ]  # fmt: skip
    found = candidates(rows, ["mul1", "conv0", "conv1", "mul0", "add0", "gone"])
    assert found == {
        "4 ops without multiply-adds in float": ["mul1", "mul0", "add0", "gone"],
        "all Mul in float": ["mul1", "mul0"],
        "2 ops in float that int8 makes slower": ["conv1", "mul0"],
        "conv1 in float, which int8 slows down most": ["conv1"],
    }
    assert candidates([op("conv0", "Conv", 100, 40, 10**6)], ["conv0"]) == {}


def test_tune_times_its_trials_and_goes_on_without_timing_them_again(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run.qscope"
    found = tuning.tune(
        model, data=images(24), metric="cosine", max_drop=0.05, latency=True, latency_seconds=1.0, most_trials=3,
        run=run, threads=1,
    )  # fmt: skip
    assert found.met
    assert found.best in found.trials
    assert all(t.speed is not None and 0 < t.speed.low <= t.speed.speedup <= t.speed.high for t in found.trials)
    assert found.trials[1].change == "2 ops without multiply-adds in float"
    assert found.trials[1].fallback == ("/head/pool/GlobalAveragePool", "/head/Flatten")
    again = tuning.open_search(run)
    assert again is not None
    assert again.trials == found.trials
    assert again.best == found.best
    with RunFile.read(run) as run_file:
        known = run_file.about("candidates")
        run_file.write_about(status="failed", search=None, writer=None)
    assert all(ops for sets in known.values() for ops in sets.values())
    resumed = tuning.resume_tuning(run, data=images(24))
    assert resumed.trials == found.trials, "nothing is timed twice"


def test_the_fastest_model_from_the_command_line(model: Path, data: Path, tmp_path: Path) -> None:
    arguments = ("tune", str(model), "--data", str(data), "--metric", "cosine", "--max-drop", "0.05", "--latency",
                 "--time", "0.5", "--trials", "2", "--threads", "1", "--run", "run.qscope")  # fmt: skip
    out, _ = finish(begin(tmp_path, *arguments, "--json"))
    found = json.loads(out)
    assert found["met"]
    assert [trial["speed"]["speedup"] for trial in found["trials"]] == pytest.approx(
        [found["reference_us"] / us for us in found["us"]]
    )
    shown = finish(begin(tmp_path, "show", "run.qscope"))[0]
    assert "accuracy against time, the best trials:" in shown
    assert ": the float model" in shown
