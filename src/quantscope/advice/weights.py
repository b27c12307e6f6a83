"""Rules about weights: a scale for channels that differ, and biases that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from quantscope.advice.causes import PRODUCTS, Causes, decibels, noise
from quantscope.advice.patch import RecipePatch
from quantscope.advice.suggestion import Suggestion
from quantscope.advice.words import counted, db, listed, percent, short, times
from quantscope.diagnosis import TensorDiagnosis
from quantscope.qparams import PerTensor
from quantscope.recipe import PER_CHANNEL, OpRule, SpecChange

# Four times wider than the median channel: half of the channels have lost two of their eight bits, 12 dB.
WIDE_CHANNEL = 4.0
# Below a millionth of the widest channel the codes are all zero, and scales of their own are without meaning.
DEAD_CHANNEL = 1e-6
# A quarter: below, other parts of the same op's error hide what is gained.
MUCH_BIAS = 0.25


@dataclass(frozen=True)
class ChannelWidths:
    """The largest magnitude of each channel of a weight, put in figures.

    `spread` is the widest over the median; `left` is the part of the rounding error that one scale per channel would
    leave: rounding costs step² / 12, and steps are as wide as their channels.
    """

    weight: TensorDiagnosis
    channels: int
    dead: int
    spread: float
    left: float


def channel_widths(weight: TensorDiagnosis) -> ChannelWidths | None:
    """Return the figures of a weight; None if it has no channels that are known."""
    if weight.channels is None or len(weight.channels.minimum) < 2:
        return None
    widths = np.nan_to_num(np.maximum(np.abs(weight.channels.minimum), np.abs(weight.channels.maximum)))
    widest = float(widths.max())
    alive = widths[widths > widest * DEAD_CHANNEL]
    if not len(alive):
        return None
    return ChannelWidths(
        weight,
        len(widths),
        len(widths) - len(alive),
        widest / float(np.median(alive)),
        float((widths**2).mean()) / widest**2,
    )


def per_channel(causes: Causes) -> Iterator[Suggestion]:
    """Weights have one scale, and their channels differ: a scale for each."""
    recipe = causes.diagnosis.recipe
    if recipe is not None and recipe.per_channel:
        return
    found = _per_tensor(causes)
    own = {error.row.op: error.weight for error in causes.own.values()}
    wide = [w for w in found.values() if w.spread >= WIDE_CHANNEL]
    wide.sort(key=lambda w: own.get(w.weight.op, 0.0), reverse=True)
    if not wide:
        return
    worst = wide[0]
    after = decibels(noise(worst.weight.sqnr_db) * worst.left)
    yield Suggestion(
        "weights-per-channel",
        tuple(w.weight.op for w in wide),
        "Give weights one scale per channel",
        (
            f"weights have one scale per tensor, and the channels of {len(wide)} of {counted(len(found), 'op')} differ "
            f"by more than {WIDE_CHANNEL:g} times",
            f"{short(worst.weight.op)}: its widest channel is {times(worst.spread)} the median one, its weight has "
            f"{db(worst.weight.sqnr_db)}; one scale per channel would give about {db(after)}",
            "rounding of weights is "
            + percent(causes.share(lambda error: error.weight))
            + " of the error that the ops add by themselves; a scale per channel costs no time",
        ),
        RecipePatch(weights=SpecChange(granularity=PER_CHANNEL)),
        causes.share(lambda error: error.weight * (1 - found[error.row.op].left) if error.row.op in found else 0.0),
    )


def left_by_channels(causes: Causes) -> dict[str, float]:
    """Return by op what one scale per channel would leave of the rounding of its weight, which has one scale."""
    return {op: widths.left for op, widths in _per_tensor(causes).items()}


def _per_tensor(causes: Causes) -> dict[str, ChannelWidths]:
    found = {}
    for op, weights in causes.weights.items():
        for weight in weights:
            widths = channel_widths(weight)
            if weight.op_type in PRODUCTS and weight.granularity == "per tensor" and widths is not None:
                found[op] = widths
    return found


def dead_channels(causes: Causes) -> Iterator[Suggestion]:
    """Weights have a scale per channel, some channels are zero, and biases do not fit their scales: one scale."""
    hurt = {}
    for op, weights in causes.weights.items():
        row = causes.row_of.get(op)
        budget = row.budget if row is not None else None
        for weight in weights:
            widths = channel_widths(weight)
            if budget is None or widths is None or not weight.granularity.startswith("per channel"):
                continue
            if widths.dead and budget.mse > 0 and budget.bias / budget.mse >= MUCH_BIAS:
                hurt[op] = (widths, budget.bias / budget.mse)
    if not hurt:
        return
    worst = max(hurt, key=lambda op: hurt[op][1])
    widths, part = hurt[worst]
    yield Suggestion(
        "dead-channels",
        tuple(hurt),
        f"Give the weight of {listed(list(hurt))} one scale per tensor",
        (
            f"{widths.dead} of {widths.channels} channels of the weight of {short(worst)} are zero, or as good as: "
            "their scales are so small that 32 bits do not hold their biases",
            f"rounding of the bias is {percent(part)} of the error of {short(worst)}",
        ),
        RecipePatch(rules=tuple(OpRule(op, weights=SpecChange(granularity=PerTensor())) for op in hurt)),
        causes.share(lambda error: error.weight if error.row.op in hurt else 0.0),
    )
