"""Finds the recipe that keeps most ops quantized and meets the allowed drop in accuracy.

First what costs nothing at run time is tried: other calibration methods, weights per channel; then 16-bit activations;
then ops are left in float in the order of their measured effect: the list is bisected for the shortest beginning that
meets the criterion, and those of it that turn out not to be needed are quantized again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from quantscope.evaluation import Score
from quantscope.qparams import QuantSpec
from quantscope.recipe import PER_CHANNEL, Calibration, Recipe

CALIBRATIONS = (
    Calibration("percentile", 99.999),
    Calibration("percentile", 99.9),
    Calibration("entropy"),
    Calibration("mse"),
)
_MOSTLY_QUANTIZED = 0.9


@dataclass(frozen=True)
class Criterion:
    """The allowed drop of the metric: in its own unit, or as a share of the reference's value if `relative`."""

    max_drop: float = 0.01
    relative: bool = False

    def met_by(self, score: Score) -> bool:
        """True if the quantized model is good enough."""
        drop = score.quantized - score.reference if score.metric == "mse" else score.reference - score.quantized
        allowed = self.max_drop * (abs(score.reference) if self.relative else 1.0)
        # A score that is a mean of ones and zeros is not exact to the last bit.
        return drop <= allowed + 1e-12


@dataclass(frozen=True)
class Trial:
    """One recipe that was tried: what was changed, the accuracy, and the share of compute ops that stay quantized."""

    change: str
    recipe: Recipe
    score: Score
    quantized_share: float
    seconds: float

    @property
    def fallback(self) -> tuple[str, ...]:
        """The ops that the recipe leaves in float by name."""
        return tuple(rule.selector for rule in self.recipe.rules if rule.fallback and rule.by == "name")


@dataclass(frozen=True)
class Search:
    """All trials in their order, the best one, and whether it meets the criterion.

    `ranking` has the ops by their measured effect, if ops were left in float; `model`, `recipe_file` and `run` are the
    files that were written, "" where none was.
    """

    trials: tuple[Trial, ...]
    best: Trial
    met: bool
    criterion: Criterion
    ranking: tuple[str, ...] = ()
    model: str = ""
    recipe_file: str = ""
    run: str = ""

    @property
    def pareto(self) -> tuple[Trial, ...]:
        """The trials that no other one beats in both accuracy and quantized share, by falling share."""
        front = [
            t
            for t in self.trials
            if not any(
                (_value(o.score) >= _value(t.score) and o.quantized_share > t.quantized_share)
                or (_value(o.score) > _value(t.score) and o.quantized_share >= t.quantized_share)
                for o in self.trials
            )
        ]
        unique = {(t.quantized_share, _value(t.score)): t for t in reversed(front)}
        return tuple(sorted(unique.values(), key=lambda t: (-t.quantized_share, _value(t.score))))


def _value(score: Score) -> float:
    """Higher is better; nan is worst."""
    value = -score.quantized if score.metric == "mse" else score.quantized
    return -math.inf if math.isnan(value) else value


@dataclass
class Tuner:
    """Tries recipes, each at most once.

    `evaluate` quantizes with a recipe and gives the score and the quantized share; `rank` gives the ops by their effect
    on the output under a recipe, the one that matters most first. `tried` holds trials of an earlier process.
    """

    criterion: Criterion
    evaluate: Callable[[Recipe], tuple[Score, float]]
    rank: Callable[[Recipe], Sequence[str]]
    most_trials: int = 40
    most_seconds: float = math.inf
    tried: dict[str, Trial] = field(default_factory=dict)
    note: Callable[[Trial], None] = lambda trial: None
    trials: list[Trial] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    def search(self, recipe: Recipe) -> Search:
        """Return the search from this recipe on."""
        best = self._try("as asked", recipe)
        if self.criterion.met_by(best.score):
            return self._result(best)
        for change, moved in _cheap_moves(recipe):
            best = self._better(best, self._try(change, moved))
            if self.criterion.met_by(best.score):
                return self._result(best)
        wide = None
        if recipe.format == "qdq" and recipe.activations.bits == 8:
            spec = QuantSpec.from_dtype("uint16", symmetric=recipe.activations.symmetric)
            wide = self._try("16-bit activations", replace(best.recipe, activations=spec))
            if wide is not None and self.criterion.met_by(wide.score):
                return self._result(wide)
        ranking = list(self.rank(best.recipe))
        found = self._beginning(best, ranking)
        # Where many ops would have to stay in float, fewer may do with 16-bit activations.
        if wide is not None and (found is None or found[1].quantized_share < _MOSTLY_QUANTIZED):
            other = self._beginning(wide, ranking)
            if other is not None and (found is None or other[1].quantized_share > found[1].quantized_share):
                best, found = wide, other
        if found is None:
            worst = max(self.trials, key=lambda t: (_value(t.score), t.quantized_share))
            return self._result(worst, tuple(ranking))
        return self._result(self._pruned(best, ranking[: found[0]], found[1]), tuple(ranking))

    def _better(self, best: Trial, trial: Trial | None) -> Trial:
        return trial if trial is not None and _value(trial.score) > _value(best.score) else best

    def _beginning(self, start: Trial, ranking: Sequence[str]) -> tuple[int, Trial] | None:
        """How many ops from the head of the list must stay in float, and the trial; None if not even all are enough.

        By bisection: right if more ops in float never hurt.
        """
        low, high = 0, len(ranking)
        found = self._with(start, ranking)
        if found is None or not self.criterion.met_by(found.score):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            trial = self._with(start, ranking[:middle])
            if trial is None:
                break
            if self.criterion.met_by(trial.score):
                high, found = middle, trial
            else:
                low = middle
        return high, found

    def _pruned(self, start: Trial, ops: Sequence[str], found: Trial) -> Trial:
        """The trial after quantizing again what need not stay in float: halves of the ops, quarters, … single ones."""
        kept, size = list(ops), len(ops) // 2
        while size:
            for begin in range(len(kept) - size, -1, -size):
                fewer = kept[:begin] + kept[begin + size :]
                trial = self._with(start, fewer)
                if trial is None:
                    return found
                if self.criterion.met_by(trial.score):
                    kept, found = fewer, trial
            size //= 2
        return found

    def _with(self, start: Trial, ops: Sequence[str]) -> Trial | None:
        what = ops[0] if len(ops) == 1 else f"{len(ops)} ops"
        before = f"{start.change}, " if start.recipe.activations.bits > 8 else ""
        return self._try(f"{before}{what} in float", start.recipe.with_fallback(ops)) if ops else start

    def _try(self, change: str, recipe: Recipe) -> Any:
        """The trial of a recipe; None if there is no budget for another one."""
        key = repr(recipe.to_dict())
        known = self.tried.get(key)
        if known is None:
            spent = time.monotonic() - self._began
            if self.trials and (len(self.trials) >= self.most_trials or spent > self.most_seconds):
                return None
            began = time.monotonic()
            score, share = self.evaluate(recipe)
            known = self.tried[key] = Trial(change, recipe, score, share, time.monotonic() - began)
        if known not in self.trials:
            self.trials.append(known)
            self.note(known)
        return known

    def _result(self, best: Trial, ranking: tuple[str, ...] = ()) -> Search:
        return Search(tuple(self.trials), best, self.criterion.met_by(best.score), self.criterion, ranking)


def _cheap_moves(recipe: Recipe) -> list[tuple[str, Recipe]]:
    """What costs nothing at run time, in order: scales per channel, other calibrations, both."""
    channels = None
    moves: list[tuple[str, Recipe]] = []
    if not recipe.per_channel:
        channels = replace(recipe, weights=replace(recipe.weights, granularity=PER_CHANNEL))
        moves.append(("weights per channel", channels))
    for calibration in CALIBRATIONS:
        if calibration != recipe.calibration:
            name = f"{calibration.method}" + (
                f" {calibration.percentile}" if calibration.method == "percentile" else ""
            )
            moves.append((f"calibration {name}", replace(channels or recipe, calibration=calibration)))
    return moves


def as_dict(search: Search) -> Mapping[str, Any]:
    """The search as plain values."""
    return {
        "met": search.met,
        "criterion": {"max_drop": search.criterion.max_drop, "relative": search.criterion.relative},
        "best": trial_dict(search.best),
        "trials": [trial_dict(t) for t in search.trials],
        "pareto": [search.trials.index(t) for t in search.pareto],
        "ranking": list(search.ranking),
        "model": search.model,
        "recipe_file": search.recipe_file,
        "run": search.run,
    }


def trial_dict(trial: Trial) -> dict[str, Any]:
    """A trial as plain values, from which `trial_from` makes it again."""
    score = trial.score
    return {
        "change": trial.change,
        "recipe": trial.recipe.to_dict(),
        "score": {
            "metric": score.metric, "samples": score.samples, "reference": score.reference,
            "quantized": score.quantized, "low": score.low, "high": score.high,
        },
        "quantized_share": trial.quantized_share,
        "seconds": trial.seconds,
    }  # fmt: skip


def trial_from(values: Mapping[str, Any]) -> Trial:
    """The trial that `trial_dict` described."""
    return Trial(
        values["change"],
        Recipe.from_dict(values["recipe"]),
        Score(**values["score"]),
        values["quantized_share"],
        values["seconds"],
    )
