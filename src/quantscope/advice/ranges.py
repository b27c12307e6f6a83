"""Rules about the ranges of activations: outliers, clipping, levels that nobody uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantscope.advice.causes import Causes, OwnError, decibels, energy
from quantscope.advice.patch import RecipePatch
from quantscope.advice.suggestion import Suggestion
from quantscope.advice.words import counted, db, figure, listed, percent, short, span, times
from quantscope.diagnosis import TensorDiagnosis
from quantscope.qparams import QuantSpec
from quantscope.recipe import Calibration, OpRule, SpecChange
from quantscope.statistics import TensorStatistics
from quantscope.statistics.ranges import calibrated_range

# Outermost values 4 times beyond 99.9 % of all: these have two of their eight bits less, 12 dB.
OUTLIER_RATIO = 4.0
# A normal distribution has 3, a rectified one about 6; layers with outliers have hundreds.
HEAVY_KURTOSIS = 20.0
# One value in a thousand: percentile 99.9 cuts as many, by intent; minmax on like samples cuts far fewer.
CLIPPED = 1e-3
# Three quarters of the levels lie where no value is: two bits, 12 dB.
UNUSED = 0.75
# Of errors below 40 dB one hears nothing: eight bits give 50 dB to a uniform distribution.
AUDIBLE = 1e-4
# Of what cutting outliers off seems to gain, half is counted.
_TRUST = 0.5
_NORMAL_PERCENTILE = 3.29  # Of magnitudes, 99.9 %, in standard deviations.
# Of so many tensors other ranges are looked at: those whose rounding and clipping count most.
_MOST_RANGES = 200
_PERCENTILES = (99.9, 99.99, 99.999)


def outliers(causes: Causes) -> Iterator[Suggestion]:
    """Few values far out make the steps of all others wide: ranges that cut them off."""
    hurt = [
        error
        for error in _worst(causes, lambda e: e.rounding)
        if error.row.reference.outlier_ratio >= OUTLIER_RATIO or error.row.reference.kurtosis >= HEAVY_KURTOSIS
    ]
    recipe = causes.diagnosis.recipe
    if not hurt or (recipe is not None and recipe.calibration.method != "minmax"):
        return
    best = best_calibration(causes)
    if best is None:
        return
    # The one that gains most shows what it is about.
    row = max(hurt, key=lambda e: e.rounding * best.fixed.get(e.row.tensor, 0.0)).row
    rounding = causes.own[row.tensor].rounding
    yield Suggestion(
        "outliers",
        tuple(e.row.op for e in hurt),
        f"Calibrate by {method(best.calibration)}, which cuts outliers off",
        (
            f"{short(row.op)}: values {span(row.reference.min, row.reference.max)}, the outermost one is "
            f"{times(row.reference.outlier_ratio)} as large as the 99.9th percentile, kurtosis "
            f"{figure(row.reference.kurtosis)}; {row.levels_used} levels are used",
            f"its rounding alone leaves {db(decibels(rounding))}; ranges by {method(best.calibration)} would "
            f"have steps {times(best.finer.get(row.tensor, 1.0))} as fine, by its histogram",
            f"{counted(len(hurt), 'tensor')} with outliers; whether they may be cut off is known when it was tried",
        ),
        RecipePatch(calibration=best.calibration),
        share_of_calibration(causes, best.fixed),
    )


def clipping(causes: Causes) -> Iterator[Suggestion]:
    """Values lie beyond the ranges: wider ranges, or float where calibration cannot know better."""
    hurt = [
        error
        for error in _worst(causes, lambda e: e.clipping)
        if error.clipping >= error.total / 2 and error.row.clipped_fraction >= CLIPPED
    ]
    if not hurt:
        return
    worst = hurt[0]
    row = worst.row
    evidence = (
        f"{short(row.op)}: {percent(row.clipped_fraction)} of its values are clipped, which is "
        f"{percent(worst.clipping / worst.total)} of its own error and leaves {db(decibels(worst.clipping))}; "
        f"they span {span(row.reference.min, row.reference.max)}, its codes {span(*code_span(row))}",
        f"{counted(len(hurt), 'op')} where clipping is the larger part",
    )
    recipe = causes.diagnosis.recipe
    if recipe is None or recipe.calibration.method != "minmax":
        wider = [Calibration("minmax")]
        if recipe is not None and recipe.calibration.method == "percentile":
            wider += [Calibration("percentile", p) for p in _PERCENTILES if p > recipe.calibration.percentile]
        effects = [calibration_effect(causes, c) for c in wider]
        best = max(effects, key=lambda effect: share_of_calibration(causes, effect.fixed))
        yield Suggestion(
            "clipping",
            tuple(e.row.op for e in hurt),
            f"Calibrate by {method(best.calibration)}, which cuts less off",
            evidence,
            RecipePatch(calibration=best.calibration),
            share_of_calibration(causes, best.fixed),
        )
        return
    ops = tuple(dict.fromkeys(op for e in hurt for op in causes.around(e.row)))
    yield Suggestion(
        "clipping",
        ops,
        f"Leave {listed(ops)} in float",
        (*evidence, "the samples that calibrated do not have these values: more of them help too"),
        RecipePatch(rules=tuple(OpRule(op) for op in ops)),
        causes.share_of_float(ops),
    )


def one_sided(causes: Causes) -> Iterator[Suggestion]:
    """Symmetric codes for values of one sign: asymmetric ones have twice as many levels for them."""
    recipe = causes.diagnosis.recipe
    if recipe is None or not recipe.activations.symmetric:
        return
    hurt = [e for e in _worst(causes, lambda e: e.rounding) if min(*_sides(e.row)) == 0.0]
    if not hurt:
        return
    row = hurt[0].row
    names = {e.row.tensor for e in hurt}
    yield Suggestion(
        "unused-levels",
        tuple(e.row.op for e in hurt),
        "Give activations asymmetric ranges",
        (
            f"ranges are symmetric, and {counted(len(hurt), 'tensor')} have values of one sign: half of their codes "
            "are never used",
            f"{short(row.op)}: values {span(row.reference.min, row.reference.max)}, codes {span(*code_span(row))}, "
            f"{row.levels_used} levels used",
        ),
        RecipePatch(activations=SpecChange(symmetric=False)),
        # A step of half the width has a quarter of the error.
        causes.share(lambda error: 0.75 * error.rounding if error.row.tensor in names else 0.0),
    )


def wide_codes(causes: Causes) -> Iterator[Suggestion]:
    """Codes reach far beyond all values: calibrate anew."""
    recipe = causes.diagnosis.recipe
    if recipe is not None and recipe.calibration.method != "minmax":
        return
    hurt = [e for e in _worst(causes, lambda e: e.rounding) if _unused(e.row) >= UNUSED and min(*_sides(e.row)) > 0.0]
    hurt += [e for e in _worst(causes, lambda e: e.rounding) if _unused(e.row) >= UNUSED and e not in hurt]
    if not hurt:
        return
    unused = {e.row.tensor: _unused(e.row) for e in hurt}
    row = hurt[0].row
    calibration = Calibration("minmax") if recipe is None else Calibration("percentile")
    yield Suggestion(
        "unused-levels",
        tuple(e.row.op for e in hurt),
        f"Calibrate by {method(calibration)} on samples like those that are evaluated",
        (
            f"{short(row.op)}: codes {span(*code_span(row))}, values {span(row.reference.min, row.reference.max)}: "
            f"{percent(unused[row.tensor])} of the levels lie where no value is, {row.levels_used} are used",
            f"{counted(len(hurt), 'tensor')} with codes like that",
        ),
        RecipePatch(calibration=calibration),
        causes.share(lambda error: error.rounding * (1 - (1 - unused.get(error.row.tensor, 0.0)) ** 2)),
    )


@dataclass(frozen=True)
class CalibrationEffect:
    """What other ranges do, by tensor: the part of its rounding and clipping that they take away, negative for more,
    and how many times finer its steps are."""

    calibration: Calibration
    fixed: Mapping[str, float]
    finer: Mapping[str, float]


def best_calibration(causes: Causes) -> CalibrationEffect | None:
    """Return the method that by the histograms takes most of the error away; None if none takes any."""
    recipe = causes.diagnosis.recipe
    now = recipe.calibration if recipe is not None else None
    candidates = [Calibration("mse"), Calibration("entropy"), *(Calibration("percentile", p) for p in _PERCENTILES)]
    effects = [calibration_effect(causes, c, outliers_matter=False) for c in candidates if c != now]
    best = max(effects, key=lambda effect: share_of_calibration(causes, effect.fixed))
    return best if share_of_calibration(causes, best.fixed) > 0 else None


def share_of_calibration(causes: Causes, fixed: Mapping[str, float]) -> float:
    """Return the part of the error that other ranges take away, by what they take from each tensor."""

    def taken(error: OwnError) -> float:
        found = (error.clipping + error.rounding) * fixed.get(error.row.tensor, 0.0)
        if error.amplified:
            inputs = [fixed.get(before.tensor, 0.0) for before in causes.inputs(error.row) if before.is_quantized]
            found += error.amplified * min(inputs, default=0.0)
        return found

    return causes.share(taken)


def calibration_effect(causes: Causes, calibration: Calibration, *, outliers_matter: bool = True) -> CalibrationEffect:
    """Return what ranges by this method do.

    It comes from the histogram of the evaluated values, in bins of 1/256 of their range: coarse, but for all methods
    alike.

    Args:
        outliers_matter: False counts a value that is cut off like one of all others that is lost, and half of what is
            gained: how large it was beyond that may mean nothing to the ops behind, or everything.
    """
    recipe = causes.diagnosis.recipe
    # No method gives a wider range than minmax does: what lies beyond that one stays beyond.
    widest = recipe is not None and recipe.calibration.method == "minmax"
    fixed, finer = {}, {}
    for name in causes.worst_ranges(_MOST_RANGES):
        row = causes.rows[name]
        histogram = row.histogram
        if histogram is None or not row.is_quantized or math.isnan(row.scale) or not histogram.reference.any():
            continue
        edges, counts = histogram.edges, histogram.reference
        centres = np.clip((edges[:-1] + edges[1:]) / 2, row.reference.min, row.reference.max)
        # The outermost values are known better than to a bin.
        used = np.flatnonzero(counts)
        centres[used[0]], centres[used[-1]] = row.reference.min, row.reference.max
        levels, (lowest, highest) = 1 << QuantSpec.from_dtype(row.dtype).bits, code_span(row)
        low, high = calibrated_range(TensorStatistics.from_counts(centres, counts), calibration, levels)
        if widest:
            low, high = max(low, lowest), min(high, highest)
        low, high = min(low, 0.0), max(high, 0.0)
        most = math.inf if outliers_matter else _typical_energy(row)
        now = _expected_error(centres, counts, lowest, highest, levels, most)
        then = _expected_error(centres, counts, low, high, levels, most)
        effect = 1 - then / now if now > 0 else 0.0
        fixed[name] = effect * _TRUST if effect > 0 and not outliers_matter else effect
        finer[name] = (highest - lowest) / (high - low) if high > low else 1.0
    return CalibrationEffect(calibration, fixed, finer)


def _typical_energy(row: TensorDiagnosis) -> float:
    """The mean square of a tensor without its outliers: that of a normal one with its 99.9th percentile."""
    largest = max(abs(row.reference.min), abs(row.reference.max))
    return (largest / row.reference.outlier_ratio / _NORMAL_PERCENTILE) ** 2


def _expected_error(
    centres: NDArray[np.float64], counts: NDArray[np.int64], low: float, high: float, levels: int, most: float
) -> float:
    """The mean squared error of rounding inside the range and clipping outside of it, `most` for each value."""
    step = (high - low) / (levels - 1)
    beyond = np.maximum(np.maximum(low - centres, centres - high), 0.0)
    # A value within half a step of zero becomes zero.
    inside = np.minimum(step**2 / 12, np.where(np.abs(centres) < step / 2, centres**2, np.inf))
    return float((np.minimum(np.where(beyond > 0, beyond**2, inside), most) * counts).sum() / counts.sum())


def code_span(row: TensorDiagnosis) -> tuple[float, float]:
    """Return the lowest and highest value that the codes of a tensor stand for."""
    low, high = QuantSpec.from_dtype(row.dtype).code_range
    zero = row.zero_point or 0
    return (low - zero) * row.scale, (high - zero) * row.scale


def method(calibration: Calibration) -> str:
    """Return the method in words."""
    return f"percentile {calibration.percentile:g}" if calibration.method == "percentile" else calibration.method


def _sides(row: TensorDiagnosis) -> tuple[float, float]:
    """How far values reach below and above zero, over how far codes do; 1 where codes do not."""
    low, high = code_span(row)
    below = max(0.0, -row.reference.min) / -low if low < 0 else 1.0
    above = max(0.0, row.reference.max) / high if high > 0 else 1.0
    return below, above


def _unused(row: TensorDiagnosis) -> float:
    """The share of the levels that lie beyond all values; zero always has one."""
    low, high = code_span(row)
    values = max(row.reference.max, 0.0) - min(row.reference.min, 0.0)
    return 1 - min(1.0, values / (high - low)) if high > low else 0.0


def _worst(causes: Causes, part: Callable[[OwnError], float]) -> list[OwnError]:
    """The quantized tensors with a part that is audible, worst first."""
    found = [
        e
        for e in causes.own.values()
        if e.row.is_quantized and not math.isnan(e.row.scale) and energy(e.row) > 0 and part(e) >= AUDIBLE
    ]
    return sorted(found, key=part, reverse=True)
