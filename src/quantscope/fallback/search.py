"""Finds the recipe that meets the allowed drop in accuracy and keeps most ops quantized, or is fastest.

First the whole recipe is moved, what costs least at run time first; the better recipe is kept. Then ops are left in
float in the order of their effect: one, two, four, … of them, then by bisection the shortest beginning of the list that
meets the criterion; and those of it that turn out not to be needed are quantized again.

Where time counts, every trial is timed, and ops are left in float if the model gets faster by it, before all that and
once more after it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any, Literal

from quantscope.evaluation import Score
from quantscope.fallback.speed import Speed, Timing
from quantscope.qparams import QuantSpec
from quantscope.recipe import PER_CHANNEL, Calibration, Recipe

Kind = Literal["calibration", "per-channel", "equalization", "16-bit"]

_MOSTLY_QUANTIZED = 0.9


@dataclass(frozen=True)
class Move:
    """A change of the whole recipe, by its kind and name; a recipe that it does not apply to stays as it is.

    One that makes the model slower is taken if it is enough, and otherwise only where many ops would stay in float.
    """

    kind: Kind
    name: str
    change: Callable[[Recipe], Recipe]
    slower: bool = False


def calibrated(calibration: Calibration) -> Move:
    """The move to another method of calibration."""
    percentile = f" {calibration.percentile}" if calibration.method == "percentile" else ""
    return Move(
        "calibration",
        f"calibration {calibration.method}{percentile}",
        lambda recipe: replace(recipe, calibration=calibration),
    )


def _per_channel(recipe: Recipe) -> Recipe:
    return replace(recipe, weights=replace(recipe.weights, granularity=PER_CHANNEL))


def _sixteen_bits(recipe: Recipe) -> Recipe:
    if recipe.format != "qdq" or recipe.activations.bits != 8:
        return recipe
    return replace(recipe, activations=QuantSpec.from_dtype("uint16", symmetric=recipe.activations.symmetric))


WEIGHTS_PER_CHANNEL = Move("per-channel", "weights per channel", _per_channel)
MOVES = (
    calibrated(Calibration("percentile", 99.999)),
    calibrated(Calibration("percentile", 99.9)),
    calibrated(Calibration("entropy")),
    calibrated(Calibration("mse")),
    WEIGHTS_PER_CHANNEL,
    Move("equalization", "channels equalized", lambda recipe: replace(recipe, equalize=True)),
    Move("16-bit", "16-bit activations", _sixteen_bits, slower=True),
)
"""What is tried before ops are left in float, in the order of what it costs at run time."""


@dataclass(frozen=True)
class Criterion:
    """How much worse the metric may get: in its own unit, or as a share of the reference's value if `relative`."""

    max_drop: float = 0.01
    relative: bool = False

    def met_by(self, score: Score) -> bool:
        """True if the quantized model is good enough; one whose metric is no number never is."""
        # A score that is a mean of ones and zeros is not exact to the last bit.
        return -score.gain <= self._allowed(score) + 1e-12

    def goal(self, score: Score) -> float:
        """The value of the metric that the quantized model must reach."""
        return score.reference + (-1 if score.higher_is_better else 1) * self._allowed(score)

    def _allowed(self, score: Score) -> float:
        return self.max_drop * (abs(score.reference) if self.relative else 1.0)


@dataclass(frozen=True)
class Trial:
    """One recipe that was tried: what was changed, the accuracy, and the share of compute ops that stay quantized.

    `change` names the last move, which is one of the best recipe until then, and the ops left in float. `speed` is None
    if the search does not weigh time.
    """

    change: str
    recipe: Recipe
    score: Score
    quantized_share: float
    seconds: float
    speed: Speed | None = None

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
    def summary(self) -> str:
        """The accuracy of both models, the goal, and the change that was best, in a line."""
        score = self.best.score
        return (
            f"{score.metric}: float {score.reference:.6g}, quantized {score.quantized:.6g}, "
            f"goal {self.criterion.goal(score):.6g} {'met' if self.met else 'missed'} in {len(self.trials)} "
            f"{'trial' if len(self.trials) == 1 else 'trials'} ({self.best.change})"
        )

    @property
    def pareto(self) -> tuple[Trial, ...]:
        """The trials that no other one beats, the fastest first, each less fast and more accurate than the one before.

        Of those that are equally fast within the measurement's noise the most accurate one is there. Where time was not
        measured, the share of quantized ops takes its place.
        """
        front: list[Trial] = []
        better = list(self.trials)
        while better:
            fastest = max(better, key=_rate)
            found = max((t for t in better if as_fast(t, fastest)), key=lambda t: (_value(t.score), t.quantized_share))
            front.append(found)
            better = [t for t in better if _value(t.score) > _value(found.score)]
        return tuple(front)

    @property
    def reference_us(self) -> float | None:
        """The float model's time in µs, the median over all trials; None if time was not measured."""
        times = [trial.speed.reference_us for trial in self.trials if trial.speed is not None]
        return median(times) if times else None

    def us(self, trial: Trial) -> float | None:
        """A trial's time in µs: `reference_us` over its speed-up; None if time was not measured.

        What else the machine does changes from trial to trial, and slows both models of a trial alike.
        """
        reference = self.reference_us
        return reference / trial.speed.speedup if reference is not None and trial.speed is not None else None


def _value(score: Score) -> float:
    """Higher is better; nan is worst."""
    value = score.quantized if score.higher_is_better else -score.quantized
    return -math.inf if math.isnan(value) else value


def _rate(trial: Trial) -> float:
    """How fast a trial is; the share of quantized ops where that was not measured."""
    return trial.speed.speedup if trial.speed is not None else trial.quantized_share


def as_fast(one: Trial, other: Trial) -> bool:
    """True if the difference in time is within the measurement's noise."""
    if one.speed is None or other.speed is None:
        return one.quantized_share == other.quantized_share
    return one.speed.like(other.speed)


@dataclass
class Tuner:
    """Tries recipes, each at most once.

    `evaluate` quantizes with a recipe and gives the score and the quantized share; `rank` gives the ops by their effect
    on the output under a recipe, the one that matters most first. `moves` are tried before ops are left in float, each
    on the best recipe so far. `tried` holds trials of an earlier process. With `timing` the fastest trial that meets
    the criterion is sought, of those that are equally fast the most accurate one.
    """

    criterion: Criterion
    evaluate: Callable[[Recipe], tuple[Score, float]]
    rank: Callable[[Recipe], Sequence[str]]
    moves: Sequence[Move] = MOVES
    most_trials: int = 40
    most_seconds: float = math.inf
    tried: dict[str, Trial] = field(default_factory=dict)
    note: Callable[[Trial], None] = lambda trial: None
    timing: Timing | None = None
    trials: list[Trial] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    def search(self, recipe: Recipe) -> Search:
        """Return the search from this recipe on; without budget for all of it, with the best trial so far."""
        best = self._sped_up(self._try("as configured", recipe))
        slower: list[Trial] = []
        if self.criterion.met_by(best.score):
            return self._result(best)
        for move in self.moves:
            moved = move.change(best.recipe)
            if moved == best.recipe:
                continue
            trial = self._try(move.name, moved)
            if trial is None:
                return self._best_so_far()
            if self.criterion.met_by(trial.score) and not (move.slower and self.timing is not None):
                return self._result(trial)
            if move.slower:
                slower.append(trial)
            elif _value(trial.score) > _value(best.score):
                best = trial
        if self._spent():
            return self._best_so_far()
        ranking = tuple(self.rank(best.recipe))
        found = self._beginning(best, ranking)
        # Where many ops would have to stay in float, fewer may do in a model that is slower.
        for start in slower:
            if (found is None or found[1].quantized_share < _MOSTLY_QUANTIZED) and not _slower_than_float(start):
                other = self._beginning(start, ranking)
                if other is not None and (found is None or _rate(other[1]) > _rate(found[1])):
                    best, found = start, other
        if found is None:
            return self._best_so_far(ranking)
        return self._result(self._sped_up(self._pruned(best, ranking[: found[0]], found[1])), ranking)

    def _sped_up(self, start: Trial) -> Trial:
        """The trial with ops in float for their time, as long as that is surely faster and loses nothing.

        Each op's time depends on those around it: leaving it in float moves the change of type to its neighbour. So
        what was taken is looked at again, and only the time of the whole model decides.
        """
        best = start
        while self.timing is not None and not self._spent():
            faster = best
            for change, ops in self.timing.candidates(best.recipe).items():
                trial = self._try(f"{self._before(best)}{change}", best.recipe.with_fallback(ops))
                if trial is None:
                    return faster
                loses = self.criterion.met_by(best.score) and not self.criterion.met_by(trial.score)
                if not as_fast(trial, best) and not loses and _rate(trial) > _rate(faster):
                    faster = trial
            if faster is best:
                break
            best = faster
        return best

    def _beginning(self, start: Trial, ranking: Sequence[str]) -> tuple[int, Trial] | None:
        """How many ops from the head of the list must stay in float, and the trial; None if not even all are enough.

        Twice as many each time, then by bisection: right if more ops in float never hurt.
        """
        low, high = 0, min(1, len(ranking))
        found = self._with(start, ranking[:high])
        while found is not None and not self.criterion.met_by(found.score):
            if high == len(ranking):
                return None
            low, high = high, min(2 * high, len(ranking))
            found = self._with(start, ranking[:high])
        if found is None:
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
        return self._try(f"{self._before(start)}{what} in float", start.recipe.with_fallback(ops)) if ops else start

    def _before(self, start: Trial) -> str:
        """The change that another one is added to."""
        return f"{start.change}, " if start is not self.trials[0] else ""

    def _try(self, change: str, recipe: Recipe) -> Any:
        """The trial of a recipe; None if there is no budget for another one."""
        key = repr(recipe.to_dict())
        known = self.tried.get(key)
        if known is None:
            if self._spent():
                return None
            began = time.monotonic()
            score, share = self.evaluate(recipe)
            speed = self.timing.speed(recipe) if self.timing is not None else None
            known = self.tried[key] = Trial(change, recipe, score, share, time.monotonic() - began, speed)
        if known not in self.trials:
            self.trials.append(known)
            self.note(known)
        return known

    def _spent(self) -> bool:
        """True if there is no budget for another trial; one is always made."""
        seconds = time.monotonic() - self._began
        return bool(self.trials) and (len(self.trials) >= self.most_trials or seconds >= self.most_seconds)

    def _best_so_far(self, ranking: tuple[str, ...] = ()) -> Search:
        return self._result(max(self.trials, key=lambda t: (_value(t.score), t.quantized_share)), ranking)

    def _result(self, found: Trial, ranking: tuple[str, ...] = ()) -> Search:
        search = Search(tuple(self.trials), found, self.criterion.met_by(found.score), self.criterion, ranking)
        if self.timing is None:
            return search
        # The fastest one may be a step on the way, or one that was tried for another reason.
        best = next((trial for trial in search.pareto if self.criterion.met_by(trial.score)), found)
        return replace(search, best=best, met=self.criterion.met_by(best.score))


def _slower_than_float(trial: Trial) -> bool:
    return trial.speed is not None and trial.speed.high < 1


def as_dict(search: Search) -> Mapping[str, Any]:
    """The search as plain values."""
    return {
        "met": search.met,
        "criterion": {"max_drop": search.criterion.max_drop, "relative": search.criterion.relative},
        "best": trial_dict(search.best),
        "trials": [trial_dict(t) for t in search.trials],
        "pareto": [search.trials.index(t) for t in search.pareto],
        "reference_us": search.reference_us,
        "us": [search.us(t) for t in search.trials],
        "ranking": list(search.ranking),
        "model": search.model,
        "recipe_file": search.recipe_file,
        "run": search.run,
    }


def trial_dict(trial: Trial) -> dict[str, Any]:
    """A trial as plain values, from which `trial_from` makes it again."""
    return {
        "change": trial.change,
        "recipe": trial.recipe.to_dict(),
        "score": asdict(trial.score),
        "quantized_share": trial.quantized_share,
        "seconds": trial.seconds,
        "speed": asdict(trial.speed) if trial.speed is not None else None,
    }


def trial_from(values: Mapping[str, Any]) -> Trial:
    """The trial that `trial_dict` described."""
    return Trial(
        values["change"],
        Recipe.from_dict(values["recipe"]),
        Score(**values["score"]),
        values["quantized_share"],
        values["seconds"],
        Speed(**speed) if (speed := values.get("speed")) is not None else None,
    )
