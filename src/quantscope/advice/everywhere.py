"""Rules about the model as a whole: kernels that saturate, and errors that no single op is to blame for."""

from __future__ import annotations

import math
from collections.abc import Iterator

from quantscope.advice.causes import PRODUCTS, Causes, OwnError, decibels, energy, noise
from quantscope.advice.patch import RecipePatch
from quantscope.advice.ranges import best_calibration, method, share_of_calibration
from quantscope.advice.suggestion import Suggestion
from quantscope.advice.weights import left_by_channels
from quantscope.advice.words import counted, db, listed, percent, short
from quantscope.diagnosis import TensorDiagnosis
from quantscope.machine import processor
from quantscope.recipe import PER_CHANNEL, SpecChange

# If the op to blame most adds less than this part, the next one adds nearly as much.
NO_SINGLE_OP = 0.15
# Kernels that compute as the simulation does differ by rounding: 40 dB and more on all models that were measured.
KERNELS_DIFFER_DB = 30.0


def saturation(causes: Causes) -> Iterator[Suggestion]:
    """What really runs differs from the simulation on a processor whose 8-bit products saturate: 7-bit weights."""
    diagnosis = causes.diagnosis
    recipe = diagnosis.recipe
    here = processor()
    # Only what this machine says of itself is known.
    if not here.saturates or here.name != diagnosis.environment.get("processor") or diagnosis.trace == "simulated":
        return
    if recipe is not None and (recipe.reduce_range or recipe.weights.bits != 8):
        return
    found = {row.op: _of_kernels(row) for row in causes.rows.values() if row.op_type in PRODUCTS and row.is_quantized}
    hurt = sorted((op for op in found if decibels(found[op]) < KERNELS_DIFFER_DB), key=lambda op: -found[op])
    if not hurt:
        return
    total = sum(found.values())
    traced = any(not math.isnan(row.kernels_sqnr_db) for row in causes.rows.values())
    yield Suggestion(
        "saturation",
        tuple(hurt),
        "Give weights 7 bits, so that sums of products do not saturate",
        (
            f"{here.name} has no VNNI: it adds products of 8-bit codes in 16 bits, which saturate",
            f"on {counted(len(hurt), 'op')} what runs differs from the simulation, most on {short(hurt[0])}: "
            f"{db(decibels(found[hurt[0]]))}",
            *(() if traced else ("quantscope diagnose --trace both shows where deployed and simulated differ",)),
            "quantscope doctor MODEL --data SOURCE counts the pairs of products that saturate, op by op",
        ),
        RecipePatch(reduce_range=True),
        total / (total + causes.total),
    )


def small_errors(causes: Causes) -> Iterator[Suggestion]:
    """Small errors add up and no op is to blame: what makes all of them smaller."""
    recipe = causes.diagnosis.recipe
    if causes.broken or not causes.total:
        return
    single = {op.name: causes.share_of_float([op.name]) for op in causes.coded_ops}
    worst = sorted(single, key=lambda op: -single[op])[:3]
    if not worst or single[worst[0]] >= NO_SINGLE_OP:
        return
    left = left_by_channels(causes) if recipe is None or not recipe.per_channel else {}
    best = best_calibration(causes) if recipe is None or recipe.calibration.method == "minmax" else None
    if not left and best is None:
        return

    def weights(error: OwnError) -> float:
        return error.weight * (1 - left[error.row.op]) if error.row.op in left else 0.0

    changes = ["a scale per channel for weights"] * bool(left)
    if best is not None:
        changes.append(f"ranges by {method(best.calibration)}")
    yield Suggestion(
        "small-errors",
        tuple(worst),
        f"Make all errors smaller: {' and '.join(changes)}",
        (
            f"no op is to blame: leaving {short(worst[0])} in float, the best one, takes {percent(single[worst[0]])} "
            "of the error away, so fallback of single ops will not save this model",
            f"weights add {percent(causes.share(lambda e: e.weight))} of the error, rounding of activations "
            f"{percent(causes.share(lambda e: e.rounding + e.amplified))}, clipping "
            f"{percent(causes.share(lambda e: e.clipping))}; then come {listed(worst[1:])}",
        ),
        RecipePatch(
            weights=SpecChange(granularity=PER_CHANNEL) if left else None,
            calibration=best.calibration if best is not None else None,
        ),
        causes.share(weights) + (share_of_calibration(causes, best.fixed) if best is not None else 0.0),
    )


def _of_kernels(row: TensorDiagnosis) -> float:
    """What the kernels add to the output of an op by themselves, over its energy."""
    if not math.isnan(row.kernels_sqnr_db) and row.budget is None:
        return noise(row.kernels_sqnr_db)
    if row.budget is None or not row.budget.count or not energy(row):
        return 0.0
    return min(1.0, row.budget.energies["residual"] / max(energy(row), row.quantized.variance + row.quantized.mean**2))
