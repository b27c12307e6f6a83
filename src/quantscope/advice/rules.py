"""All rules together: what a diagnosis gives reason to change, best first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

from quantscope.advice import everywhere, ranges, structure, weights
from quantscope.advice.causes import PRODUCTS, Causes
from quantscope.advice.patch import RecipePatch
from quantscope.advice.suggestion import Suggestion
from quantscope.advice.words import db
from quantscope.diagnosis import Diagnosis, TensorDiagnosis
from quantscope.evaluation import Score
from quantscope.graph import Graph
from quantscope.recipe import SpecChange
from quantscope.report import figures

RULES: tuple[Callable[[Causes], Iterable[Suggestion]], ...] = (
    structure.failure_source,
    weights.per_channel,
    structure.concat,
    structure.products_only,
    structure.own_error,
    structure.blocks,
    structure.before_break,
    ranges.outliers,
    ranges.clipping,
    ranges.one_sided,
    ranges.wide_codes,
    structure.activation_channels,
    structure.sixteen_bits,
    weights.dead_channels,
    everywhere.saturation,
    everywhere.small_errors,
)
"""From the most to the least specific: of two that give the same patch the first one keeps it."""

# A twentieth of the error is 0.2 dB: not worth a try.
SMALLEST_SHARE = 0.05
# Half of the 1 % that accuracy criteria commonly allow (Neural Compressor's tolerable_loss, MLPerf's 99 %).
NOTICEABLE = 0.005
# A drop that matters even where so few samples were evaluated that chance may explain it.
LARGE = 0.05
# What leaves less than 1 % leaves nothing, as estimates go.
_LEAST_LEFT = 2.0**-7
# The work of an op that is no product, against one that is.
_SMALL_OP = 0.1
# As for a failure source: the noise is a tenth of the signal.
BROKEN_DB = 10.0


def advise(diagnosis: Diagnosis) -> tuple[Suggestion, ...]:
    """Return what could be changed, best first; nothing for a model that quantization did not hurt.

    The order is a heuristic. Each op's own error is put together of parts (rounding of its weight, clipping and
    rounding of its output, what it makes of rounded inputs), each over its output's energy, and a suggestion counts by
    the share of all of them that its patch takes away; where the model breaks, what leads to the break counts three
    times as much as all together. Of what is alike, what costs least speed comes first. How far an op's error gets to
    the model's output is not in it: `verify` measures that.
    """
    if diagnosis.graph is None or why_nothing(diagnosis):
        return ()
    causes = Causes(diagnosis, diagnosis.graph)
    found: dict[object, Suggestion] = {}
    for rule in RULES:
        for suggestion in rule(causes):
            if suggestion.share >= SMALLEST_SHARE:
                effect = _effect(suggestion.patch, diagnosis.graph)
                found.setdefault(effect, replace(suggestion, cost=_cost(suggestion.patch, causes)))
    suggestions = sorted(found.values(), key=lambda s: (_left(s.share), s.cost))
    if diagnosis.recipe is None:
        return tuple(replace(s, title=f"{s.title}, when you quantize again") for s in suggestions)
    return tuple(suggestions)


def _effect(patch: RecipePatch, graph: Graph) -> object:
    """What a patch comes to, however its rules say it."""
    return replace(patch, rules=tuple(r for r in patch.rules if not r.fallback)), patch.in_float(graph)


def _left(share: float) -> int:
    """What a patch leaves of the error, in steps of 1.5 dB: as estimates go, what is in one step is alike."""
    return round(2 * math.log2(max(1 - share, _LEAST_LEFT)))


def _cost(patch: RecipePatch, causes: Causes) -> float:
    """What a patch costs in speed, roughly: the part of the work that it takes out of 8 bits."""
    graph = causes.graph
    slow = set(patch.in_float(graph))
    slow |= {name for rule in patch.rules if _is_wide(rule.activations) for name in rule.matched(graph)}
    work = {op.name: 1.0 if op.op_type in PRODUCTS else _SMALL_OP for op in causes.coded_ops}
    if _is_wide(patch.activations):
        slow = set(work)
    return sum(cost for name, cost in work.items() if name in slow) / (sum(work.values()) or 1.0)


def _is_wide(change: SpecChange | None) -> bool:
    return change is not None and change.dtype in ("int16", "uint16")


def why_nothing(diagnosis: Diagnosis) -> str:
    """Return why there is nothing to fix; "" if there is something."""
    if not any(t.role == "activation" for t in diagnosis.tensors):
        return "no tensor was compared"
    worst = min((_level(t) for t in _outputs(diagnosis)), default=math.inf)
    if diagnosis.failure_sources or diagnosis.first_not_finite is not None or worst < BROKEN_DB:
        return ""
    if not diagnosis.scores:
        return f"no sample was scored, and the model's output has {db(worst)}"
    score = diagnosis.scores[0]
    if _hurt(score):
        return ""
    absolute, _, interval = figures.difference(score)
    return (
        f"{score.metric} {figures.metric_value(score.metric, score.reference)} → "
        f"{figures.metric_value(score.metric, score.quantized)}, {absolute}, 95 % interval {interval}, "
        f"{score.samples} samples: nothing to fix"
    )


def _hurt(score: Score) -> bool:
    if score.metric == "mse":
        return score.difference > 0 and score.low > 0
    drop = -score.difference
    relative = drop / abs(score.reference) if score.reference else drop
    return relative >= LARGE or (relative >= NOTICEABLE and score.high < 0)


def _outputs(diagnosis: Diagnosis) -> list[TensorDiagnosis]:
    """The rows of the model's outputs, or the last one where none was compared."""
    rows = [t for t in diagnosis.tensors if t.role == "activation"]
    outputs = {t.name for t in diagnosis.graph.outputs} if diagnosis.graph is not None else set()
    return [t for t in rows if t.tensor in outputs] or rows[-1:]


def _level(row: TensorDiagnosis) -> float:
    return math.inf if math.isnan(row.sqnr_db) else row.sqnr_db
