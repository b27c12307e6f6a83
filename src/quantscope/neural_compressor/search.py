"""Accuracy-driven tuning: try what costs no speed, then leave ops in float, the worst first, as few as possible."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from quantscope.backends.base import Model
from quantscope.neural_compressor.config import AccuracyCriterion, TuningCriterion
from quantscope.recipe import PER_CHANNEL, CalibrationMethod, Recipe

logger = logging.getLogger("quantscope.neural_compressor")

Quantize = Callable[[Recipe], Model]
Evaluate = Callable[[Model], float]
Rank = Callable[[Model, Recipe], Sequence[str]]
"""The ops of a quantized model, those that best stay in float first."""


@dataclass(frozen=True)
class Trial:
    """One model that was tried: what was changed, and its accuracy."""

    change: str
    recipe: Recipe
    accuracy: float
    met: bool
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What tuning found: the float model's accuracy, the trial that was chosen, and all trials in their order."""

    baseline: float
    goal: float
    chosen: Trial
    trials: tuple[Trial, ...]

    @property
    def met(self) -> bool:
        """True if the model meets the accuracy criterion."""
        return self.chosen.met

    @property
    def summary(self) -> str:
        """The accuracy of both models and the goal, in a line."""
        trials = f"{len(self.trials)} {'trial' if len(self.trials) == 1 else 'trials'}"
        return (
            f"accuracy: float {self.baseline:.6g}, quantized {self.chosen.accuracy:.6g}, goal {self.goal:.6g} "
            f"{'met' if self.met else 'missed'} in {trials} ({self.chosen.change})"
        )


@dataclass(frozen=True)
class Choices:
    """What the configuration leaves open."""

    per_channel: bool = True
    methods: tuple[CalibrationMethod, ...] = ()


class _SpentError(Exception):
    """No trial is left, or no time."""


@dataclass
class Search:
    """The way to a model that meets the criterion, or to the best one that was tried."""

    quantize: Quantize
    evaluate: Evaluate
    rank: Rank
    criterion: AccuracyCriterion
    limits: TuningCriterion
    baseline: float
    trials: list[Trial] = field(default_factory=list)
    best: tuple[Trial, Model] | None = None
    began: float = field(default_factory=time.monotonic)

    def run(self, recipe: Recipe, choices: Choices) -> tuple[Outcome, Model]:
        """Return what was found, and the model."""
        try:
            if not any(self._met(change, changed) for change, changed in _moves(recipe, choices)):
                self._leave_in_float()
        except _SpentError:
            pass
        assert self.best is not None, "the first trial is always made"
        trial, model = self.best
        return Outcome(self.baseline, self.criterion.goal(self.baseline), trial, tuple(self.trials)), model

    def _leave_in_float(self) -> None:
        """Find how few of the worst ops have to stay in float: twice as many each time, then by bisection."""
        assert self.best is not None
        trial, model = self.best
        ops = self.rank(model, trial.recipe)

        def enough(count: int) -> bool:
            kept = f"{count} of {len(ops)} ops in float: {', '.join(ops[: min(count, 3)])}{', …' if count > 3 else ''}"
            return self._met(f"{trial.change}; {kept}", trial.recipe.with_fallback(ops[:count]))

        too_few, count = 0, 1
        while ops and not enough(min(count, len(ops))):
            if count >= len(ops):
                return
            too_few, count = count, 2 * count
        count = min(count, len(ops))
        while count - too_few > 1:
            middle = (too_few + count) // 2
            if enough(middle):
                count = middle
            else:
                too_few = middle

    def _met(self, change: str, recipe: Recipe) -> bool:
        """Try a recipe; the last one that meets the criterion is the best, else the one of the highest accuracy."""
        seconds = time.monotonic() - self.began
        if len(self.trials) >= self.limits.max_trials or (self.trials and 0 < self.limits.timeout <= seconds):
            raise _SpentError
        model = self.quantize(recipe)
        accuracy = self.evaluate(model)
        met = self.criterion.is_met(accuracy, self.baseline)
        trial = Trial(change, recipe, accuracy, met, time.monotonic() - self.began - seconds)
        self.trials.append(trial)
        logger.info("trial %d: %s: accuracy %.6g, float %.6g", len(self.trials), change, accuracy, self.baseline)
        if self.best is None or met or (not self.best[0].met and self._is_better(accuracy, self.best[0].accuracy)):
            self.best = trial, model
        return met

    def _is_better(self, accuracy: float, than: float) -> bool:
        if math.isnan(accuracy) or math.isnan(than):
            return math.isnan(than) and not math.isnan(accuracy)
        return accuracy > than if self.criterion.higher_is_better else accuracy < than


def _moves(recipe: Recipe, choices: Choices) -> Iterator[tuple[str, Recipe]]:
    """The configuration itself, then what costs no speed."""
    yield "as configured", recipe
    if choices.per_channel and not recipe.per_channel:
        recipe = replace(recipe, weights=replace(recipe.weights, granularity=PER_CHANNEL))
        yield "weights per channel", recipe
    for method in choices.methods:
        if method != recipe.calibration.method:
            calibration = replace(recipe.calibration, method=method)
            yield f"calibration {method}", replace(recipe, calibration=calibration)
