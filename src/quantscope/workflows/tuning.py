"""From a float model and an allowed drop in accuracy to the most quantized recipe, or the fastest one: `tune`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from quantscope.accuracy import Accuracy
from quantscope.backends.base import Backend, Model
from quantscope.errors import DataError, RunFileError
from quantscope.evaluation import Score
from quantscope.fallback.search import MOVES, Criterion, Kind, Move, Search, Trial, Tuner, trial_dict, trial_from
from quantscope.fallback.sensitivity import (
    MOST_OPS,
)
from quantscope.images import Preprocessing
from quantscope.plan import Plan
from quantscope.progress import Progress, Silent
from quantscope.recipe import Recipe
from quantscope.recorded import Recorded
from quantscope.runfile import RunFile, graph_json, model_beside
from quantscope.samples import Samples
from quantscope.sweep import metric_named
from quantscope.tracing import whole_batches
from quantscope.workflows.quantizer import Quantizer
from quantscope.workflows.ranking import effects
from quantscope.workflows.runs import (
    batch_size_for,
    check_writable,
    opened,
    opened_again,
    outcome,
    run_facts,
    settled,
    split,
    tidied,
)
from quantscope.workflows.trial_timing import Candidates, TrialTiming


def tune(
    model: object,
    *,
    data: object,
    max_drop: float = 0.01,
    relative: bool = False,
    labels: object = None,
    preprocessing: Preprocessing | None = None,
    recipe: Recipe | None = None,
    samples: int | None = None,
    calibration_samples: int | None = None,
    batch_size: int | None = None,
    metric: str | Callable[..., Any] | None = None,
    most_trials: int = 40,
    most_seconds: float = math.inf,
    most_ops: int = MOST_OPS,
    moves: Sequence[str] = get_args(Kind),
    latency: bool = False,
    latency_seconds: float = 4.0,
    run: str | Path | None = None,
    number_run: bool = False,
    output: str | Path | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> Search:
    """Return the search for the recipe that keeps most ops quantized while the metric drops no more than allowed.

    With `latency` it is the fastest one that is sought, and the answer a front of accuracy against time. The best model
    is written to `output`, and its recipe beside it, if a run file or an output is given.

    Args:
        model: the float model: a path or a model object that a backend accepts.
        data: samples: whatever `Samples.of` accepts, with `labels` and `preprocessing` as there.
        max_drop: how much the metric may drop: in its own unit, or as a share of the reference's value if `relative`.
        recipe: where the search begins; int8 QDQ, weights per channel, if None.
        samples, calibration_samples, batch_size, metric, threads: as of `quantscope.diagnose`.
        most_trials, most_seconds: when to stop with the best recipe so far.
        most_ops: how many ops are measured for their effect on the output.
        moves: what may change in the recipe before ops are left in float: "calibration", "per-channel", "equalization",
            "16-bit".
        latency: time each trial's model in turn with the float model, and leave ops in float that are faster so.
        latency_seconds: the longest that each trial's model is timed; less when its speed-up is known within ±3 %.
        run: the run file that remembers the trials; nothing is written if None.
        number_run: if the run file exists, add a number to its name.
        output: where to write the best model; beside the run file if None.
    Raises:
        QuantscopeError: one of its subclasses, with what is accepted instead.
    """
    progress = progress or Silent()
    criterion = _criterion(max_drop, relative, most_trials)
    if not 0 < latency_seconds < math.inf:
        raise DataError(f"{latency_seconds} seconds to time a trial", accepted="more than 0")
    unknown = [move for move in moves if move not in get_args(Kind)]
    if unknown:
        raise DataError(f"unknown move {unknown[0]!r}", accepted=", ".join(get_args(Kind)))
    metric_named(metric)
    backend, float_model, bound = opened(model, data, labels, preprocessing, progress)
    recipe = settled(backend, float_model, recipe)
    plan = Plan(
        calibration_samples, samples, batch_size, metric if isinstance(metric, str) else None, threads, budget_samples=0
    )
    batch_size_for(float_model, plan.batch_size)
    split(bound, plan)
    if output is not None:
        check_writable(backend, Path(output), float_model)
    tuning = {**asdict(criterion), "most_trials": most_trials, "most_seconds": most_seconds, "most_ops": most_ops}
    tuning |= {"moves": list(moves), "latency": latency, "latency_seconds": latency_seconds}
    run_file = RunFile.create(
        Path(run) if run is not None else None,
        numbered=number_run,
        kind="tune",
        tuning=tuning,
        **run_facts(backend, float_model, None, bound, plan, recipe),
    )
    with run_file, tidied(run_file, backend, None):
        target = Path(output) if output is not None else run_file.path and model_beside(run_file.path, backend.suffix)
        run_file.write_about(output=str(target.resolve()) if target is not None else None)
        return _tune(run_file, backend, float_model, bound, recipe, plan, metric, tuning, progress)


def resume_tuning(
    run: str | Path,
    *,
    data: object = None,
    metric: Callable[..., Any] | None = None,
    progress: Progress | None = None,
) -> Search:
    """Return the search of an interrupted run, gone on with: what was tried is not tried again.

    Raises:
        RunFileError: the run is no search, is finished, is being written, or its model is not what it was.
    """
    with RunFile.resume(Path(run)) as run_file:
        if run_file.about("kind") != "tune":
            raise RunFileError(
                f"{run} holds no search", next_step=f"go on with it by: quantscope diagnose --resume {run}"
            )
        plan, recipe = Plan(**run_file.about("plan")), Recipe.from_dict(run_file.about("recipe"))
        backend, float_model, bound = opened_again(
            run_file, run, data, "quantscope.resume_tuning(run, data=...)", progress
        )
        return _tune(
            run_file, backend, float_model, bound, recipe, plan, metric or plan.metric,
            run_file.about("tuning"), progress or Silent(),
        )  # fmt: skip


def open_search(run: str | Path) -> Search | None:
    """Return the search in a run file as far as it is; None if the run is a diagnosis or nothing was tried yet.

    Raises:
        RunFileError: the file is missing, damaged or no run file.
    """
    with RunFile.read(Path(run)) as run_file:
        trials = tuple(trial_from(values) for values in run_file.about("trials") or ())
        if not trials:
            return None
        tuning = run_file.about("tuning")
        criterion = Criterion(tuning["max_drop"], tuning["relative"])
        found = run_file.about("search") or {"best": len(trials) - 1, "ranking": []}
        best = trials[found["best"]]
        output = run_file.about("output") if run_file.about("status") == "finished" else ""
        return Search(
            trials, best, criterion.met_by(best.score), criterion, tuple(found["ranking"]),
            output or "", str(Path(output).with_suffix(".toml")) if output else "", str(run),
        )  # fmt: skip


def _criterion(max_drop: float, relative: bool, most_trials: int) -> Criterion:
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise DataError(f"an allowed drop of {max_drop}", accepted="0 or more, such as 0.01")
    if most_trials < 1:
        raise DataError(f"{most_trials} trials", accepted="1 or more")
    return Criterion(max_drop, relative)


def _tune(
    run_file: RunFile,
    backend: Backend,
    model: Model,
    samples: Samples,
    recipe: Recipe,
    plan: Plan,
    metric: str | Callable[..., Any] | None,
    tuning: dict[str, Any],
    progress: Progress,
) -> Search:
    progress = Recorded(progress, run_file)
    with outcome(run_file):
        size = batch_size_for(model, plan.batch_size)
        calibration, evaluated = split(samples, plan)
        quantizer = Quantizer(
            backend, model, samples, calibration, batch_size=size, threads=plan.threads, progress=progress
        )
        accuracy = Accuracy(
            backend, model,
            lambda: whole_batches(samples, model, size, evaluated.start, evaluated.stop, progress),
            metric=metric, threads=plan.threads,
        )  # fmt: skip
        before = [trial_from(values) for values in run_file.about("trials") or ()]
        known = {repr(t.recipe.to_dict()): t for t in before}
        written: list[Trial] = []

        def evaluate(recipe: Recipe) -> tuple[Score, float]:
            progress.stage("try", len(evaluated))
            return accuracy.score(quantizer.quantized(recipe), progress.advance), quantizer.share(recipe)

        def rank(recipe: Recipe) -> Sequence[str]:
            ranking: list[str] | None = run_file.about("ranking")
            if ranking is None:
                found = effects(run_file, quantizer, recipe, evaluated, most_ops=tuning["most_ops"])
                ranking = quantizer.ranking(recipe, found)
                run_file.write_about(ranking=ranking, sensitivities=asdict(found))
            return ranking

        def note(trial: Trial) -> None:
            written.append(trial)
            run_file.write_about(trials=[trial_dict(t) for t in written])

        def note_candidates(recipe: str, found: Candidates) -> None:
            run_file.change_about("candidates", lambda known: {**(known or {}), recipe: found})

        def applied(move: Move) -> Move:
            if move.kind != "equalization":
                return move
            # Not asked before it matters: to know it is to equalize the model.
            return replace(move, change=lambda recipe: move.change(recipe) if quantizer.can_equalize else recipe)

        timing = None
        # A run of before has no word of it.
        if tuning.get("latency"):
            timing = TrialTiming(
                backend, model, quantizer, samples, seconds=tuning["latency_seconds"], threads=plan.threads,
                progress=progress, known=run_file.about("candidates") or {}, note=note_candidates,
            )  # fmt: skip
        tuner = Tuner(
            Criterion(tuning["max_drop"], tuning["relative"]), evaluate, rank,
            moves=[applied(move) for move in MOVES if move.kind in tuning["moves"]],
            most_trials=tuning["most_trials"], most_seconds=tuning["most_seconds"], tried=known, note=note,
            timing=timing,
        )  # fmt: skip
        search = tuner.search(recipe)
        output = run_file.about("output")
        if output:
            beside = Path(output).with_suffix(".toml")
            best = quantizer.quantized(search.best.recipe)
            run_file.write_about(quantized_graph=graph_json(best.graph))
            backend.save(best, Path(output))
            search.best.recipe.save(beside)
            search = replace(search, model=output, recipe_file=str(beside), run=str(run_file.path or ""))
        run_file.write_about(
            search={"best": search.trials.index(search.best), "ranking": list(search.ranking), "met": search.met},
            status="finished",
        )
    return search
