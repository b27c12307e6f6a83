"""How much each op matters at the model's output, measured on the samples where the two models disagree most.

Both models are traced once on these samples. For each op then only what lies downstream of it is computed again: in the
reference with this op alone quantized (enable one), and in the simulated quantized model with this op alone in float
(leave one float).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from quantscope import memory
from quantscope.backends.base import Backend, Model, Trace
from quantscope.confirmation import lie_alike
from quantscope.graph import Graph
from quantscope.pairing import TensorPair
from quantscope.progress import Progress
from quantscope.samples import Batch
from quantscope.tracing import Values

STAGE = "sensitivity"
# Ops that are measured, and samples they are measured on, if nobody says.
MOST_OPS, MOST_SAMPLES = 64, 8
_CONSIDERED_SAMPLES = 128
# A traced sample is held four times: both models' tensors, and what each op makes of the other one's.
_HELD = 4
_FLOAT_BYTES = 4
# Quantized alone, an op above this adds a millionth of its signal: it cannot be what hurts.
_HARMLESS_DB = 60.0
_BOOTSTRAPS = 1000
_SMALLEST_PROBABILITY = 1e-9


@dataclass(frozen=True)
class Sensitivity:
    """What one op does to the model's output.

    `alone` is the damage with this op alone quantized; `gain` the damage that goes if it alone is left in float, with
    its 95 % interval over the samples; both are means per sample, in the unit of `damage_name`. `best_rank` and
    `worst_rank` bound its place in the order of gains in 95 % of bootstrap samples; 1 is the op that matters most.
    """

    op: str
    op_type: str
    scope: str
    alone: float
    gain: float
    gain_low: float
    gain_high: float
    best_rank: int
    worst_rank: int


@dataclass(frozen=True)
class Sensitivities:
    """All ops that were measured, the one that matters most first; `damage` is that of the quantized model.

    `others` are the quantized ops that were not measured, those that err most by themselves first. `agreement` is
    Spearman's rank correlation of columns that cost less (isolated error, cumulative error, mse) with the gains, on
    this very model: 1 if the column alone gives the order, 0 if it says nothing; nan below three ops.
    """

    ops: tuple[Sensitivity, ...]
    damage_name: str
    damage: float
    samples: int
    others: tuple[str, ...] = ()
    agreement: Mapping[str, float] = field(default_factory=dict)


def damage(outputs: Values, reference: Values) -> tuple[str, NDArray[np.float64]]:
    """Return how far outputs are from the reference's, per sample, and what the measure is called.

    For class scores of shape (samples, classes) the Kullback-Leibler divergence from the reference's distribution, in
    nats; else the power of the error over that of the signal.
    """
    first = next(iter(reference.values()))
    if len(reference) == 1 and first.ndim == 2 and first.shape[1] > 1 and first.dtype.kind == "f":
        p, q = _distribution(first), _distribution(next(iter(outputs.values())))
        floor = _SMALLEST_PROBABILITY
        return "KL divergence", (p * (np.log(np.maximum(p, floor)) - np.log(np.maximum(q, floor)))).sum(1)
    x, y = (
        np.concatenate([np.asarray(o, np.float64).reshape(len(o), -1) for o in side.values()], axis=1)
        for side in (reference, outputs)
    )
    noise = np.where(np.isfinite(y), x - y, x)
    return "noise over signal", (noise**2).sum(1) / np.maximum((x**2).sum(1), np.finfo(np.float64).tiny)


def _distribution(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Class scores as probabilities: as they are if they are some, else by softmax."""
    values = np.nan_to_num(np.asarray(scores, np.float64))
    if (values >= 0).all() and np.allclose(values.sum(1), 1, atol=1e-3):
        return values
    shifted = np.exp(values - values.max(1, keepdims=True))
    total: NDArray[np.float64] = shifted / shifted.sum(1, keepdims=True)
    return total


def most_damaged(
    backend: Backend,
    reference: Model,
    quantized: Model,
    batches: Iterable[Batch],
    count: int,
    *,
    threads: int,
    progress: Callable[[int], None] = lambda samples: None,
) -> list[Batch]:
    """Return the batches on which the two models disagree most, the worst first."""
    found: list[tuple[float, int, Batch]] = []
    seen = 0
    with ExitStack() as stack:
        run_reference, run_quantized = (
            stack.enter_context(backend.open(model, [], trace="optimized", threads=threads))
            for model in (reference, quantized)
        )
        for batch in batches:
            x = run_reference.run(batch.inputs)
            _, values = damage(run_quantized.run(batch.inputs), x)
            item = (float(np.nan_to_num(values, nan=np.inf).mean()), -batch.first, batch)
            (heapq.heappush if len(found) < count else heapq.heappushpop)(found, item)
            progress(batch.size)
            seen += batch.size
            if seen >= _CONSIDERED_SAMPLES:
                break
    return [batch for _, _, batch in sorted(found, key=lambda item: item[:2], reverse=True)]


@dataclass(eq=False)
class _Traced:
    """One batch with all that the ops made of it, by the reference's tensor names."""

    batch: Batch
    x: Values
    s: Values
    isolated: Values
    in_float: Values
    outputs: Values


class _Side:
    """A model whose part downstream of a tensor can be computed again."""

    def __init__(self, backend: Backend, model: Model, trace: Trace, names: Mapping[str, str], threads: int) -> None:
        """`names` are the tensors that the model is cut at: reference's name → this model's."""
        self._backend = backend
        self._model = model
        self._trace: Trace = trace
        self._names = names
        self._threads = threads
        self._graph: Graph = model.graph if trace == "exact" else backend.float_view(model, trace).graph
        self._outputs = [t.name for t in self._graph.outputs if t.dtype.startswith("float")]

    def downstream(self, tensor: str, batches: Sequence[tuple[Values, Values]]) -> list[Values] | None:
        """The model's outputs for each batch of (values by the reference's names, model inputs); None if unchanged.

        The values of `tensor` are what it shall be; of others those that lie beside it are used.
        """
        own = self._names[tensor]
        behind = self._behind(own)
        outputs = [name for name in self._outputs if name in behind and name != own]
        if own in self._outputs:
            return [{own: values[tensor]} for values, _ in batches]
        if not outputs:
            return None
        beside = {view: name for name, view in self._names.items() if view not in behind or view == own}
        cuts = list(dict.fromkeys([*beside, *outputs]))
        with self._backend.open_cut(self._model, cuts, outputs, trace=self._trace, threads=self._threads) as runner:
            return [
                runner.run({n: values[beside[n]] if n in beside else inputs[n] for n in runner.inputs})
                for values, inputs in batches
            ]

    def _behind(self, tensor: str) -> set[str]:
        """The tensors computed from this one, itself included."""
        found, waiting = {tensor}, [tensor]
        while waiting:
            for op in self._graph.consumers.get(waiting.pop(), ()):
                for name in op.outputs:
                    if name and name not in found:
                        found.add(name)
                        waiting.append(name)
        return found


def sensitivities(
    backend: Backend,
    reference: Model,
    quantized: Model,
    pairs: Sequence[TensorPair],
    batches: Sequence[Batch],
    *,
    weighted: frozenset[str] = frozenset(),
    most_ops: int = MOST_OPS,
    threads: int = 0,
    progress: Progress,
) -> Sensitivities:
    """Return the effect of each quantized op on the model's output.

    Args:
        pairs: of the simulated trace.
        batches: the samples to measure on; as many as memory holds are used.
        weighted: ops of the simulated trace that have a quantized weight.
        most_ops: so many ops are measured: those that err most by themselves.
    """
    traced = _trace(backend, reference, quantized, pairs, batches, threads)
    usable = {p.reference_name: p for p in pairs if all(p.reference_name in t.isolated for t in traced)}
    levels = _levels(usable, traced, weighted)
    ordered = sorted(levels, key=lambda name: levels[name])
    candidates = [name for name in ordered if not levels[name] > _HARMLESS_DB][:most_ops]
    progress.stage(STAGE, len(candidates))
    names = {name: pair.view_name for name, pair in usable.items()}
    float_side = _Side(backend, reference, "exact", {name: name for name in names}, threads)
    quantized_side = _Side(backend, quantized, "simulated", names, threads)
    baseline, measure = [], ""
    with backend.open(quantized, [], trace="simulated", threads=threads) as runner:
        for t in traced:
            measure, values = damage(_floats(runner.run(t.batch.inputs), t.outputs), t.outputs)
            baseline.append(values)
    before = np.concatenate(baseline)
    found: list[tuple[TensorPair, NDArray[np.float64], NDArray[np.float64]]] = []
    for name in candidates:
        pair = usable[name]
        enabled = float_side.downstream(name, [({**t.x, name: t.isolated[name]}, t.batch.inputs) for t in traced])
        left = quantized_side.downstream(name, [({**t.s, name: t.in_float[name]}, t.batch.inputs) for t in traced])
        progress.advance()
        if enabled is None or left is None:
            continue
        alone = np.concatenate([damage({**t.outputs, **o}, t.outputs)[1] for o, t in zip(enabled, traced, strict=True)])
        after = np.concatenate(
            [damage(_renamed(o, t.outputs), t.outputs)[1] for o, t in zip(left, traced, strict=True)]
        )
        found.append((pair, alone, before - after))
    measured = {pair.op.name for pair, _, _ in found}
    others = dict.fromkeys(op for name in ordered if (op := usable[name].op.name) not in measured)
    gains = np.array([gain.mean() for _, _, gain in found])
    names_found = [pair.reference_name for pair, _, _ in found]
    return Sensitivities(
        _ranked(found), measure, float(before.mean()), len(before), tuple(others),
        {name: _spearman(values, gains) for name, values in _cheap_columns(names_found, traced).items()},
    )  # fmt: skip


def _floats(values: Values, like: Values) -> Values:
    return {name: values[name] for name in like if name in values}


def _renamed(outputs: Values, like: Values) -> Values:
    """The outputs under the reference's names: the quantized model's may be called otherwise."""
    if outputs.keys() <= like.keys():
        return {**like, **outputs}
    return dict(zip(like, outputs.values(), strict=False))


def _trace(
    backend: Backend,
    reference: Model,
    quantized: Model,
    pairs: Sequence[TensorPair],
    batches: Sequence[Batch],
    threads: int,
) -> list[_Traced]:
    counts = backend.element_counts(reference, [p.reference_name for p in pairs], batches[0].inputs)
    room = memory.budget() // max(_HELD * _FLOAT_BYTES * sum(counts.values()), 1)
    found: list[_Traced] = []
    named = {p.reference_name: p for p in pairs}
    outputs = [t.name for t in reference.graph.outputs]
    with ExitStack() as stack:
        run_reference = stack.enter_context(backend.open(reference, list(named), trace="exact", threads=threads))
        run_simulated = stack.enter_context(
            backend.open(quantized, [p.quantized_name for p in pairs], trace="simulated", threads=threads)
        )
        ops = float_ops = None
        for batch in batches[: max(room, 1)]:
            x, raw = run_reference.run(batch.inputs), run_simulated.run(batch.inputs)
            if ops is None:
                named = {name: p for name, p in named.items() if lie_alike(x[name], raw[p.quantized_name])}
                absorbed = {
                    p.view_name: (reference, reference.graph.producers[name].name)
                    for name, p in named.items()
                    if p.absorbed
                }
                views = [p.view_name for p in named.values()]
                ops = stack.enter_context(
                    backend.open_cut(quantized, views, views, trace="simulated", threads=threads, absorbed=absorbed)
                )
                float_ops = stack.enter_context(
                    backend.open_cut(reference, list(named), list(named), trace="exact", threads=threads)
                )
            assert float_ops is not None
            s = {name: p.real(raw[p.quantized_name]) for name, p in named.items()}
            values = {name: x[name] for name in named}
            back = {p.view_name: name for name, p in named.items()}
            computed = ops.run({n: values[back[n]] if n in back else batch.inputs[n] for n in ops.inputs})
            in_float = float_ops.run({n: s[n] if n in s else batch.inputs[n] for n in float_ops.inputs})
            isolated = {back[view]: _rounded(named[back[view]], array) for view, array in computed.items()}
            kept = {name: x[name] for name in outputs if name in x and x[name].dtype.kind == "f"}
            found.append(_Traced(batch, values, s, isolated, in_float, kept))
    return found


def _rounded(pair: TensorPair, values: NDArray[np.floating]) -> NDArray[np.floating]:
    if pair.qparams is None:
        return values
    rounded: NDArray[np.floating] = pair.qparams.dequantize(pair.qparams.quantize(values)).astype(values.dtype)
    return rounded


def _levels(usable: Mapping[str, TensorPair], traced: Sequence[_Traced], weighted: frozenset[str]) -> dict[str, float]:
    """The isolated SQNR in dB of the tensors that quantized ops write."""
    levels: dict[str, float] = {}
    for name, pair in usable.items():
        if pair.qparams is None and pair.quantized_op not in weighted:
            continue
        signal = noise = 0.0
        for t in traced:
            x, y = t.x[name].astype(np.float64), t.isolated[name].astype(np.float64)
            signal += float((x**2).sum())
            noise += float(((x - y) ** 2).sum())
        levels[name] = 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else math.inf
    return levels


def _cheap_columns(names: Sequence[str], traced: Sequence[_Traced]) -> dict[str, NDArray[np.float64]]:
    """What a diagnosis tells of these tensors without looking at the output, the more the worse."""

    def summed(values: Callable[[_Traced, str], NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.array([sum(float((values(t, name) ** 2).sum()) for t in traced) for name in names])

    def wide(array: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(array, np.float64)

    signal = np.maximum(summed(lambda t, n: wide(t.x[n])), np.finfo(np.float64).tiny)
    isolated = summed(lambda t, n: wide(t.x[n]) - wide(t.isolated[n]))
    cumulative = summed(lambda t, n: wide(t.x[n]) - wide(t.s[n]))
    sizes = np.array([sum(t.x[name].size for t in traced) for name in names])
    return {"isolated error": isolated / signal, "cumulative error": cumulative / signal, "mse": cumulative / sizes}


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Spearman's rank correlation; nan below three values or where all are one. Equal values share their mean rank."""
    if len(x) < 3:
        return math.nan
    a, b = (_mean_ranks(values) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else math.nan


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(last - (counts - 1) / 2, np.float64)[inverse]


def _ranked(
    found: Sequence[tuple[TensorPair, NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[Sensitivity, ...]:
    """By falling gain, then by falling damage alone; the places in the order are bootstrapped over the samples."""
    if not found:
        return ()
    gains = np.stack([gain for _, _, gain in found])
    samples = gains.shape[1]
    draws = np.random.default_rng(0).integers(0, samples, (_BOOTSTRAPS, samples))
    means = gains[:, draws].mean(2)
    ranks = (-means).argsort(axis=0, kind="stable").argsort(axis=0) + 1
    low, high = np.quantile(means, (0.025, 0.975), axis=1)
    best, worst = np.quantile(ranks, (0.025, 0.975), axis=1, method="nearest")
    rows = [
        Sensitivity(
            pair.op.name, pair.op.op_type, pair.op.scope, float(alone.mean()), float(gain.mean()),
            float(low[i]), float(high[i]), int(best[i]), int(worst[i]),
        )
        for i, (pair, alone, gain) in enumerate(found)
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda row: (-row.gain, -row.alone)))
