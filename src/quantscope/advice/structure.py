"""Rules about ops: those to leave in float, those that need 16 bits, and kinds of ops that do not bear 8 bits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantscope.advice.causes import PRODUCTS, Causes, OwnError, decibels, inherited, joined_noise
from quantscope.advice.patch import RecipePatch
from quantscope.advice.suggestion import Suggestion
from quantscope.advice.words import counted, db, figure, listed, percent, short, span, times
from quantscope.diagnosis import FailureSource, TensorDiagnosis
from quantscope.graph import Graph, Op
from quantscope.recipe import OpRule, Recipe, SpecChange

# A quarter of the error: below, one sees no difference in the accuracy of any model that was measured.
LARGE_SHARE = 0.25
# Half of the error: more than all else together.
MOST = 0.5
# More ops than this share of them in float, or than so many, is no fallback any more; two are, in a small model.
MOST_OF_OPS, MOST_OPS = 0.15, 50
# A front end may be most of a model; beyond, nothing is left to quantize.
MOST_BEFORE = 0.75
# So many ops are named.
NAMED_OPS = 8
# 16 times: what is joined with the largest tensor has four of eight bits left.
UNBALANCED = 16.0
# A tensor at 20 dB, 1 % noise, is hurt.
HURT = 0.01
# Eight times wider than the median channel: half of the channels have lost three of eight bits.
WIDE_ACTIVATION_CHANNEL = 8.0
# Of each channel by itself, and linear for positive factors; a bias or a folded normalization can be scaled too.
_KEEP_SCALES = frozenset(
    (
        "Relu",
        "LeakyRelu",
        "PRelu",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "Identity",
        "Add",
        "BatchNormalization",
    )
)
_NORMALIZATIONS = frozenset(("LayerNormalization", "InstanceNormalization"))
_SHOWN_SOURCES = 3
_MOST_BLOCKS = 3
_PARTS = {
    "weight": "rounding of its weight", "bias": "rounding of its bias", "clipping": "clipping of its output",
    "rounding": "rounding of its output", "residual": "its kernels",
}  # fmt: skip


def failure_source(causes: Causes) -> Iterator[Suggestion]:
    """Much error comes out where little went in: leave that op in float."""
    for source in causes.broken[:_SHOWN_SOURCES]:
        row = source.row
        error = causes.own[row.tensor]
        ops = (row.op,) if _by_weight(error) or not row.is_quantized else causes.around(row)
        ops = tuple(op for op in ops if causes.coded(op))
        if not ops:
            continue
        comes_out = "values that are not finite come out" if row.non_finite_count else f"{db(row.sqnr_db)} come out"
        evidence = [f"{short(row.op)} is where the model breaks: {_goes_in(source)}, {comes_out}", *_budget_lines(row)]
        weight = next(iter(causes.weights.get(row.op, ())), None)
        if weight is not None and weight.is_quantized:
            evidence.append(f"its weight, {weight.dtype} {weight.granularity}, has {db(weight.sqnr_db)}")
        yield _fallback("failure-source", ops, evidence, causes)


def own_error(causes: Causes) -> Iterator[Suggestion]:
    """A few ops add most of the error: leave them in float."""
    most = min(MOST_OPS, max(2, round(MOST_OF_OPS * len(causes.coded_ops))))
    steps: list[tuple[float, tuple[str, ...], int]] = []
    chosen: dict[str, None] = {}
    errors = causes.worst()[:most]
    for number, error in enumerate(errors, 1):
        wider = dict.fromkeys((*chosen, *_to_change(causes, error)))
        if len(wider) > most:
            break
        chosen = wider
        share = causes.share_of_float(chosen)
        if share >= max(LARGE_SHARE, steps[-1][0] + LARGE_SHARE / 2 if steps else 0.0):
            steps.append((share, tuple(chosen), number))
    # The fewest that are worth it, and those that are worth most.
    for _, ops, number in dict.fromkeys((*steps[:1], *steps[-1:])):
        yield _fallback("own-error", ops, [_own_line(e) for e in errors[: min(number, 3)]], causes)


def products_only(causes: Causes) -> Iterator[Suggestion]:
    """Ops that multiply nothing large add most of the error: quantize the products alone."""
    present = dict.fromkeys(op.op_type for op in causes.coded_ops)
    products = tuple(t for t in present if t in PRODUCTS)
    others = [op.name for op in causes.coded_ops if op.op_type not in PRODUCTS]
    if not products or not others:
        return
    share = causes.share_of_float(others)
    single = max(causes.share_of_float([name]) for name in others)
    if share < MOST or single > share / 2:
        return
    by_type: dict[str, float] = {}
    for error in causes.own.values():
        by_type[error.row.op_type] = by_type.get(error.row.op_type, 0.0) + error.total
    worst = sorted((t for t in by_type if t not in PRODUCTS), key=lambda t: by_type[t], reverse=True)[:4]
    errors = [error for error in causes.worst() if error.row.op_type not in PRODUCTS]
    yield Suggestion(
        "products-only",
        tuple(e.row.op for e in errors if causes.coded(e.row.op))[:NAMED_OPS],
        f"Quantize {listed(products, 4)} alone",
        (
            "of the error that the ops add by themselves "
            + ", ".join(f"{t} adds {percent(by_type[t] / causes.total)}" for t in worst)
            + f"; {' and '.join(products)}, with nearly all multiplications, "
            + percent(sum(by_type.get(t, 0.0) for t in products) / causes.total),
            *(_own_line(e) for e in errors[:2]),
            f"leaving any one of the {len(others)} other ops in float would take {percent(single)} of it away at most",
        ),
        RecipePatch(op_types=products),
        share,
    )


def blocks(causes: Causes) -> Iterator[Suggestion]:
    """Normalizations and activations made of small ops, or all ops of a sensitive type: leave them in float."""
    candidates = [*_by_scope(causes), *_by_type(causes), *_silu(causes)]
    chosen: list[_Block] = []
    ops: tuple[str, ...] = ()
    share = 0.0
    while len(chosen) < _MOST_BLOCKS:
        # Of blocks that bring about as much the smallest one.
        gains = [(round(causes.share_of_float({*ops, *b.ops}), 1), -len(b.ops), b) for b in candidates]
        best = max(gains, key=lambda g: g[:2], default=None)
        if best is None or best[0] < share + LARGE_SHARE:
            break
        share = best[0]
        chosen.append(best[2])
        ops = tuple(dict.fromkeys((*ops, *best[2].ops)))
    if not chosen:
        return
    errors = [error for error in causes.worst() if error.row.op in ops]
    yield Suggestion(
        "sensitive-ops",
        ops,
        f"Leave {' and '.join(b.name for b in chosen)} in float",
        tuple(_own_line(e) for e in errors[:3]),
        RecipePatch(rules=tuple(rule for b in chosen for rule in b.rules)),
        causes.share_of_float(ops),
    )


def before_break(causes: Causes) -> Iterator[Suggestion]:
    """An op breaks the model that makes much of small errors: leave all that leads to it in float."""
    amplifying = [s for s in causes.diagnosis.failure_sources if s not in causes.broken]
    if not amplifying:
        return
    source = amplifying[-1]
    row = source.row
    ops = {causes.rows[name].op for name in causes.before(row)} | set(causes.readers(row.tensor))
    # Constants and ops without a row in between stay with those that have one.
    chosen = tuple(op.name for op in causes.coded_ops if op.name in ops)
    if not chosen or len(chosen) > MOST_BEFORE * len(causes.coded_ops):
        return
    yield Suggestion(
        "before-break",
        chosen,
        f"Leave the {counted(len(chosen), 'op')} up to {short(row.op)} in float",
        (
            f"{short(row.op)} ({row.op_type}) is where the model breaks: {_goes_in(source)}, {db(row.sqnr_db)} come "
            f"out; {percent(inherited(row))} of that error is in its inputs, of which it makes more",
            f"{len(chosen)} of {counted(len(causes.coded_ops), 'op')} with codes lead to it",
        ),
        RecipePatch(rules=tuple(OpRule(op) for op in chosen)),
        causes.share_of_float(chosen),
    )


def concat(causes: Causes) -> Iterator[Suggestion]:
    """Tensors of very different size share one scale: leave what joins them in float."""
    hurt = []
    for error in causes.own.values():
        row = error.row
        joined = causes.inputs(row)
        if row.op_type != "Concat" or not row.is_quantized or len(joined) < 2:
            continue
        sizes = {before.tensor: max(abs(before.reference.min), abs(before.reference.max)) for before in joined}
        small = max(joined, key=lambda before: joined_noise(row, before))
        noise = joined_noise(row, small)
        largest = max(sizes.values())
        if noise >= HURT and sizes[small.tensor] > 0 and largest / sizes[small.tensor] >= UNBALANCED:
            hurt.append((noise, row, small, largest / sizes[small.tensor]))
    if not hurt:
        return
    hurt.sort(key=lambda h: -h[0])
    _, row, small, ratio = hurt[0]
    evidence = [
        f"{short(row.op)} joins tensors of which one is {times(ratio)} as large as another, and all get one scale of "
        f"{figure(row.scale)}",
        f"{short(small.op)}, values {span(small.reference.min, small.reference.max)}, is left with "
        f"{db(decibels(hurt[0][0]))} by it",
    ]
    if len(hurt) > 1:
        evidence.append(f"{len(hurt)} Concat like that: {listed([row.op for _, row, _, _ in hurt])}")
    ops = tuple(dict.fromkeys(op for _, row, _, _ in hurt for op in causes.around(row)))
    yield _fallback("unbalanced-concat", ops, evidence, causes)


def sixteen_bits(causes: Causes) -> Iterator[Suggestion]:
    """Rounding of activations is most of the error: 16 bits for them."""
    wide = wide_activations(causes.diagnosis.recipe)
    rounding = causes.share(lambda e: e.rounding + e.amplified)
    if wide is None or rounding < LARGE_SHARE:
        return
    coded = [op.name for op in causes.coded_ops]
    errors = causes.worst(lambda error: error.rounding + error.amplified)
    chosen: dict[str, None] = {}
    for error in errors[:NAMED_OPS]:
        chosen |= dict.fromkeys(_behind_rounding(causes, error))
    some = tuple(op for op in coded if op in chosen)
    evidence = (
        f"rounding of activations is {percent(rounding)} of the error that the ops add by themselves",
        *(_own_line(e) for e in errors[:2]),
        "codes of 16 bits are computed in float on the CPU: they cost time there",
    )
    everything = causes.share_of_16_bits(coded)
    if len(some) <= len(coded) / 2 and causes.share_of_16_bits(some) >= MOST * everything:
        yield Suggestion(
            "16-bit-activations",
            some,
            f"Give activations of {counted(len(some), 'op')} 16 bits: {listed(some)}",
            evidence,
            RecipePatch(rules=tuple(OpRule(op, activations=wide) for op in some)),
            causes.share_of_16_bits(some),
        )
    yield Suggestion(
        "16-bit-activations",
        tuple(dict.fromkeys(e.row.op for e in errors[:NAMED_OPS])),
        "Give all activations 16 bits",
        evidence,
        RecipePatch(activations=wide),
        everything,
    )


def activation_channels(causes: Causes) -> Iterator[Suggestion]:
    """Channels of an activation differ, and share its one scale: equalize them, or 16 bits there, or float."""
    hurt = []
    # Equalized, a channel that is w times as wide as the widest one is √w times as wide: its noise goes down by w. The
    # weights that read it have the same differences, or will have half of them.
    left: dict[str, float] = {}
    for error in causes.own.values():
        row, channels = error.row, error.row.channels
        if channels is None or not row.is_quantized or math.isnan(row.scale) or len(channels.minimum) < 2:
            continue
        widths = np.nan_to_num(np.maximum(np.abs(channels.minimum), np.abs(channels.maximum)))
        power = np.nan_to_num(channels.std**2 + channels.mean**2)
        alive = power > 0
        if not alive.any() or not np.median(widths[alive]) > 0:
            continue
        noise = float(np.minimum(1.0, row.scale**2 / 12 / power[alive]).mean())
        spread = float(widths.max() / np.median(widths[alive]))
        if spread >= WIDE_ACTIVATION_CHANNEL and noise >= HURT:
            hurt.append((noise, row, spread))
            left[row.tensor] = float((widths[alive] / widths.max()).mean())
    if not hurt:
        return
    hurt.sort(key=lambda h: -h[0])
    wide = wide_activations(causes.diagnosis.recipe)
    ops = tuple(dict.fromkeys(op for _, row, _ in hurt[:3] for op in causes.around(row)))
    noise, row, spread = hurt[0]
    evidence = (
        f"{short(row.op)}: the widest of its channels is {times(spread)} the median one, and all share one scale: a "
        f"channel has {db(decibels(noise))} on average",
        f"{counted(len(hurt), 'tensor')} like that; activations cannot have a scale per channel",
    )
    between = [row for _, row, _ in hurt if _between_weights(causes.graph, row.tensor)]
    recipe = causes.diagnosis.recipe
    if between and (recipe is None or not recipe.equalize):
        yield Suggestion(
            "activation-channels",
            tuple(dict.fromkeys(row.op for row in between)),
            f"Equalize channels: {listed(list(dict.fromkeys(row.op for row in between)))}",
            (
                evidence[0],
                f"{counted(len(between), 'tensor')} like that between weights that can take half of the difference; "
                "it costs no time",
            ),
            RecipePatch(equalize=True),
            _share_of_equalization(causes, {row.tensor: left[row.tensor] for row in between}),
        )
    if wide is None:
        yield _fallback("activation-channels", ops, evidence, causes)
        return
    yield Suggestion(
        "activation-channels",
        ops,
        f"Give activations of {counted(len(ops), 'op')} 16 bits: {listed(ops)}",
        evidence,
        RecipePatch(rules=tuple(OpRule(op, activations=wide) for op in ops)),
        causes.share_of_16_bits(ops),
    )


def _share_of_equalization(causes: Causes, left: Mapping[str, float]) -> float:
    """The part of the error in the rounding of these tensors, and of the weights that read them, that would go."""
    readers = {op: part for name, part in left.items() for op in causes.readers(name)}
    return causes.share(
        lambda e: e.rounding * (1 - left.get(e.row.tensor, 1.0)) + e.weight * (1 - readers.get(e.row.op, 1.0))
    )


def _between_weights(graph: Graph, tensor: str) -> bool:
    """True if the channels of a tensor can be scaled: by the weights of the op that writes it, and of all that read it.

    That is what the graph tells; the backend looks closer, and notes what was in the way.
    """
    producer = graph.producers.get(tensor)
    while producer is not None and _keeps_scales(graph, producer):
        tensor = next(name for name in producer.inputs if name not in graph.constants)
        producer = graph.producers.get(tensor)
    if producer is None or not (producer.op_type in _NORMALIZATIONS or _has_weight(graph, producer)):
        return False
    if not _activation_keeps_scales(producer):
        return False
    outputs = {t.name for t in graph.outputs}
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        if name in outputs:
            return False
        for op in graph.consumers.get(name, ()):
            if _keeps_scales(graph, op):
                waiting.append(op.outputs[0])
            elif op.inputs[0] != name or not _has_weight(graph, op):
                return False
    return True


def _has_weight(graph: Graph, op: Op) -> bool:
    return op.op_type in PRODUCTS and op.inputs[1] in graph.constants


def _keeps_scales(graph: Graph, op: Op) -> bool:
    """True if an op scales each channel of its output as that of its input was."""
    data = [name for name in op.inputs if name and name not in graph.constants]
    return len(data) == 1 and op.op_type in _KEEP_SCALES and _activation_keeps_scales(op)


def _activation_keeps_scales(op: Op) -> bool:
    """The same of the activation that is part of an op, where there is one."""
    return op.attributes.get("activation", "Relu") in _KEEP_SCALES


def wide_activations(recipe: Recipe | None) -> SpecChange | None:
    """Return the change to 16-bit activations; None where the format has none, or they have them."""
    if recipe is None:
        return SpecChange(dtype="uint16")
    if recipe.format != "qdq" or recipe.activations.bits != 8:
        return None
    return SpecChange(dtype="int16" if recipe.activations.signed else "uint16")


def _fallback(rule: str, ops: Sequence[str], evidence: Iterable[str], causes: Causes) -> Suggestion:
    return Suggestion(
        rule,
        tuple(ops),
        f"Leave {listed(ops)} in float",
        tuple(evidence),
        RecipePatch(rules=tuple(OpRule(op) for op in ops)),
        causes.share_of_float(ops),
    )


def _goes_in(source: FailureSource) -> str:
    return "the model's inputs go in" if math.isinf(source.inputs_db) else f"{db(source.inputs_db)} go in"


def _by_weight(error: OwnError) -> bool:
    return error.weight >= error.total / 2


def _to_change(causes: Causes, error: OwnError) -> tuple[str, ...]:
    """The ops to leave in float against the largest part of an error."""
    if _by_weight(error):
        return (error.row.op,) if causes.coded(error.row.op) else ()
    return _behind_rounding(causes, error)


def _behind_rounding(causes: Causes, error: OwnError) -> tuple[str, ...]:
    """The ops that hold the codes that an error of rounding or clipping comes from."""
    if error.amplified > error.rounding + error.clipping:
        rows = [before for before in causes.inputs(error.row) if before.is_quantized]
    else:
        rows = [error.row]
    return tuple(dict.fromkeys(op for row in rows for op in causes.around(row) if causes.coded(op)))


def _own_line(error: OwnError) -> str:
    """What an op adds by itself, and by what."""
    row = error.row
    parts = {
        "rounding of its weight": error.weight,
        "clipping of its output": error.clipping,
        "rounding of its output": error.rounding,
        "what it makes of its rounded inputs": error.amplified,
    }
    main = max(parts, key=lambda p: parts[p])
    return (
        f"{short(row.op)} ({row.op_type}) alone leaves {db(decibels(min(1.0, error.total)))}, "
        f"{percent(parts[main] / error.total) if error.total else '0 %'} of it by {main}"
    )


def _budget_lines(row: TensorDiagnosis) -> list[str]:
    """The parts of an error budget that are more than a tenth, largest first."""
    budget = row.budget
    if budget is None or not budget.mse > 0:
        return []
    parts = {words: budget.shares[part] / budget.mse for part, words in _PARTS.items()}
    large = sorted((p for p in parts if parts[p] >= 0.1), key=lambda p: -parts[p])
    texts = [f"{percent(parts[p])} {p}" for p in large]
    return [f"its error is {', '.join(texts)}, {percent(max(0.0, inherited(row)))} came in with its inputs"] * bool(
        texts
    )


@dataclass(frozen=True)
class _Block:
    """Ops that belong together, and the rules that leave them in float."""

    name: str
    ops: tuple[str, ...]
    rules: tuple[OpRule, ...]


def _by_scope(causes: Causes) -> Iterator[_Block]:
    """Modules without a product: a normalization, an activation."""
    members: dict[str, list[str]] = {}
    unfit = set()
    for op in causes.coded_ops:
        parts = op.scope.split("/") if op.scope else []
        for length in range(1, len(parts) + 1):
            scope = "/".join(parts[:length])
            members.setdefault(scope, []).append(op.name)
            if op.op_type in PRODUCTS:
                unfit.add(scope)
    for scope, ops in members.items():
        if len(ops) > 1 and scope not in unfit:
            yield _Block(short(scope), tuple(ops), (OpRule(scope, "scope"),))


def _by_type(causes: Causes) -> Iterator[_Block]:
    """All ops of a type that is no product."""
    for op_type in dict.fromkeys(op.op_type for op in causes.coded_ops if op.op_type not in PRODUCTS):
        ops = tuple(op.name for op in causes.coded_ops if op.op_type == op_type)
        if len(ops) > 1:
            yield _Block(f"all {len(ops)} {op_type}", ops, (OpRule(op_type, "type"),))


def _silu(causes: Causes) -> Iterator[_Block]:
    """Sigmoids with the products by their own inputs: SiLU, hard swish."""
    found: dict[str, None] = {}
    for op in causes.coded_ops:
        if op.op_type not in ("Sigmoid", "HardSigmoid"):
            continue
        gates = [r for r in causes.graph.consumers.get(op.outputs[0], ()) if r.op_type == "Mul"]
        if gates and all(op.inputs[0] in gate.inputs for gate in gates):
            found |= dict.fromkeys((op.name, *(gate.name for gate in gates)))
    if found:
        yield _Block(f"the {len(found)} ops of SiLU", tuple(found), tuple(OpRule(op) for op in found))
