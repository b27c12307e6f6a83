"""What a suggestion really brings: quantize by the patched recipe, and score both models on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from quantscope import evaluation, workflows
from quantscope.advice.suggestion import Suggestion, Verification
from quantscope.backends.base import Model, Trace
from quantscope.errors import DataError, RunFileError, UnsupportedError
from quantscope.plan import Plan
from quantscope.progress import Progress, Silent
from quantscope.recipe import Recipe
from quantscope.runfile import RunFile
from quantscope.tracing import outputs_of, whole_batches

_KEY = "suggestions"
# The reference's scores must be those of the run, but for a rare tie that falls otherwise on another machine.
_SAME_SCORE, _SHARE_OF_TIES = 1e-3, 0.05


def verify(
    suggestion: Suggestion,
    run: str | Path,
    *,
    reference: object = None,
    data: object = None,
    metric: Callable[..., Any] | None = None,
    progress: Progress | None = None,
) -> Suggestion:
    """Return the suggestion with what it brings: the run's metric before and after, over the run's samples.

    The float model is quantized by the patched recipe with the samples that calibrated it before, and evaluated on
    those that were evaluated before; nothing is written but the result, into the run file.

    Args:
        suggestion: one that `advise` gave for this run.
        run: the run file; finished.
        reference: the float model, if it was never a file.
        data: the samples, if they were not given by path or name; the same as before.
        metric: the metric, if it was a function.
    Raises:
        UnsupportedError: another tool made the quantized model.
        RunFileError: the run is not finished, or its model or samples cannot be opened again, or are not what they
            were.
    """
    path = Path(run)
    progress = progress or Silent()
    with RunFile.read(path) as file:
        facts = {key: file.about(key) for key in ("status", "recipe", "plan", "data", "models")}
        before = file.sample_scores()
    if facts["recipe"] is None:
        raise UnsupportedError(
            f"the quantized model of {path} was made by another tool, which quantscope cannot run",
            accepted="runs that quantized the model themselves",
            next_step="quantize again with that tool as suggested, and diagnose the new model",
        )
    if facts["status"] != "finished" or not before:
        raise RunFileError(
            f"the run is not finished: {path}", next_step=f"go on with it: quantscope diagnose --resume {path}"
        )
    if reference is None:
        reference = workflows.same_model(facts["models"]["reference"], path)
    samples = workflows.samples_again(path, facts["data"], data, "verify(..., data=...)")
    name, (float_scores, quantized_scores) = next(iter(before.items()))
    plan = Plan(**facts["plan"])
    if metric is None and plan.metric is None and name not in evaluation.BUILT_IN:
        raise DataError(
            f"the metric {name} of {path} was a function", next_step="verify from Python: verify(..., metric=...)"
        )
    recipe = suggestion.patch.applied(Recipe.from_dict(facts["recipe"]))
    quantized = workflows.quantize(
        reference, samples, recipe=recipe, calibration_samples=plan.calibration_samples, batch_size=plan.batch_size,
        threads=plan.threads, progress=progress,
    )  # fmt: skip
    chosen = evaluation.metric(name) if metric is None else evaluation.from_function(metric, name)
    again, after = _scores(reference, quantized, samples, plan, chosen, progress)
    _check_same(float_scores, again, path)
    verified = replace(
        suggestion,
        verified=Verification(evaluation.score(name, quantized_scores, after), float(np.mean(again)), quantized.notes),
    )
    _remember(path, verified)
    return verified


def remembered(run: str | Path, suggestions: Sequence[Suggestion]) -> tuple[Suggestion, ...]:
    """Return the suggestions, those that were verified before with what they brought then."""
    with RunFile.read(Path(run)) as file:
        known = {s.patch: s.verified for s in map(Suggestion.from_dict, file.about(_KEY) or ())}
    return tuple(replace(s, verified=known.get(s.patch, s.verified)) for s in suggestions)


def ranked(suggestions: Sequence[Suggestion]) -> tuple[Suggestion, ...]:
    """Return those that were tried and helped, best first, then those not tried, then those that did not help.

    Gains within the 95 % interval of the best one are alike: of these, what costs least comes first.
    """
    helped = [s for s in suggestions if s.verified is not None and s.verified.gain > 0]
    others = [s for s in suggestions if s.verified is None]
    failed = [s for s in suggestions if s.verified is not None and s not in helped]
    found: list[Suggestion] = []
    while helped:
        best = max(helped, key=_gain)
        alike = [s for s in helped if s is best or _gain(s) >= _least_gain(best)]
        found += sorted(alike, key=lambda s: (s.cost, -_gain(s)))
        helped = [s for s in helped if s not in alike]
    return (*found, *others, *sorted(failed, key=_gain, reverse=True))


def _gain(suggestion: Suggestion) -> float:
    return suggestion.verified.gain if suggestion.verified is not None else 0.0


def _least_gain(suggestion: Suggestion) -> float:
    """The lower end of the gain's interval."""
    verified = suggestion.verified
    if verified is None:
        return 0.0
    return -verified.score.high if verified.score.metric == "mse" else verified.score.low


def _scores(
    reference: object,
    quantized: Model,
    samples: object,
    plan: Plan,
    metric: evaluation.Metric,
    progress: Progress,
) -> tuple[list[float], list[float]]:
    """The scores of the run's samples: of the float model, and of the quantized one in the trace that was scored."""
    backend, model, bound = workflows.opened(reference, samples, None, None, progress)
    size = workflows.batch_size_for(model, plan.batch_size)
    evaluated = workflows.split(bound, plan)[1]
    trace: Trace = "simulated" if plan.trace == "simulated" else "deployed"
    progress.stage("score", len(evaluated))
    x: list[float] = []
    y: list[float] = []
    with (
        backend.open(model, [], trace="optimized", threads=plan.threads) as run_float,
        backend.open(quantized, [], trace=trace, threads=plan.threads) as run_quantized,
    ):
        for batch in whole_batches(bound, model, size, evaluated.start, evaluated.stop, progress):
            floats = outputs_of(model, run_float.run(batch.inputs))
            outputs = outputs_of(quantized, run_quantized.run(batch.inputs))
            x.extend(metric(floats, batch.labels, floats).tolist())
            y.extend(metric(outputs, batch.labels, floats).tolist())
            progress.advance(batch.size)
    return x, y


def _remember(path: Path, suggestion: Suggestion) -> None:
    """Write what was found into the run file, in place of what was known of the same patch."""

    def with_this(known: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
        others = [s for s in known or () if Suggestion.from_dict(s).patch != suggestion.patch]
        return [*others, suggestion.to_dict()]

    with RunFile.read(path) as file:
        file.change_about(_KEY, with_this)


def _check_same(before: Sequence[float], now: Sequence[float], run: Path) -> None:
    """Raise a RunFileError if the float model does not score as it did: then these are other samples."""
    same = len(before) == len(now)
    if same:
        difference = np.abs(np.asarray(before) - np.asarray(now))
        allowed = _SAME_SCORE * max(1.0, float(np.abs(before).max()))
        same = float((difference > allowed).mean()) <= _SHARE_OF_TIES
    if not same:
        raise RunFileError(
            f"the samples of {run} are not what they were: the float model scores {np.mean(now):.4g} on {len(now)}, "
            f"in the run it was {np.mean(before):.4g} on {len(before)}",
            accepted="the samples that were diagnosed, in the same order",
            next_step="diagnose again",
        )
