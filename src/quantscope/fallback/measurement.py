"""Measures what one op, or one group of ops, does at the model's outputs.

Both models are traced once on a few samples. Then, for each group, only what lies downstream of it is computed again:
in the reference with this group alone quantized (enable one), and in the simulated quantized model with this group
alone in float (leave one float).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope import memory
from quantscope.backends.base import Backend, Model, Trace
from quantscope.backends.registry import backend
from quantscope.confirmation import lie_alike
from quantscope.error_flow import TensorError, arising, arriving
from quantscope.fallback.damage import damage, metric_damage
from quantscope.fallback.downstream import Downstream, Rerun
from quantscope.fallback.groups import By, Group, chained, groups
from quantscope.pairing import TensorPair
from quantscope.samples import Batch
from quantscope.tracing import Values

# A traced sample is held four times: both models' tensors, and what each op makes of the other one's.
_HELD = 4
_FLOAT_BYTES = 4
# Quantized alone, an op above this adds a millionth of its signal: it cannot be what hurts.
_HARMLESS_DB = 60.0
# An op that alone does less than this part of the damage to the worst batch is not looked at any further.
_HOPELESS = 1e-4
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, eq=False)
class Task:
    """What is measured: both models, the pairs of the simulated trace, and the samples, the worst first.

    `weighted` are the ops of the simulated trace that have a quantized weight; `metric` is the user's, None for the
    damage that fits the outputs.
    """

    reference: Model
    quantized: Model
    pairs: tuple[TensorPair, ...]
    batches: tuple[Batch, ...]
    weighted: frozenset[str]
    by: By = "op"
    metric: str | Callable[..., Any] | None = None
    threads: int = 0


@dataclass(frozen=True)
class Measured:
    """The damage per sample with one group alone quantized, and with it alone in float; None if not looked at."""

    alone: tuple[float, ...]
    left: tuple[float, ...] | None


@dataclass(eq=False)
class _Traced:
    """One batch with what the groups made of it, by the reference's names of the tensors that leave one.

    `isolated` is what the quantized group makes of the reference's inputs, `in_float` what the float one makes of the
    quantized model's.
    """

    batch: Batch
    x: Values
    s: Values
    isolated: Values
    in_float: Values
    outputs: Values


class Measurement:
    """Both models, traced, with the groups that may hurt in the order of the estimated share of the outputs' error.

    `damage_name` says what the damage is, `before` is that of the quantized model, per sample.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._backend: Backend = backend(task.reference.backend)
        self._pairs = {pair.reference_name: pair for pair in task.pairs}
        self._traced = self._trace()
        self._known: dict[tuple[str, str], tuple[float, float]] = {}
        self._errors = {name: self._error(name) for name in self._traced[0].x}
        graph = task.reference.graph
        self._share = arising(graph, self._errors, arriving(graph, self._errors))
        quantized = [group for group in self.groups if self._computes_with_codes(group)]
        ranked = sorted(quantized, key=lambda g: (-self.share(g), self.isolated_db(g)))
        self.candidates = [g for g in ranked if not self.isolated_db(g) > _HARMLESS_DB]
        self.harmless = [g for g in ranked if self.isolated_db(g) > _HARMLESS_DB]
        own = {name: name for name in self._errors}
        self._float_side = Downstream(self._backend, task.reference, "exact", own, task.threads)
        self._quantized_side = Downstream(
            self._backend, task.quantized, "simulated", {n: self._pairs[n].view_name for n in own}, task.threads
        )
        self.damage_name = ""
        with self._backend.open(task.quantized, [], trace="simulated", threads=task.threads) as runner:
            self.before = np.concatenate([self._damage(runner.run(t.batch.inputs), t) for t in self._traced])

    def of(self, group: Group) -> Measured | None:
        """What the group does; None if no output depends on it."""
        alone: list[float] = []
        with self._float_side.of(group.leaving) as rerun:
            if rerun is None:
                return None
            for t in self._traced:
                outputs = self._outputs(rerun, t.x, t.isolated, group, t)
                alone += self._damage(outputs, t).tolist()
                if t is self._traced[0] and len(self._traced) > 1 and self._hopeless(outputs, t):
                    return Measured(tuple(alone), None)
        with self._quantized_side.of(group.leaving) as rerun:
            if rerun is None:
                return None
            left = [self._damage(self._outputs(rerun, t.s, t.in_float, group, t), t) for t in self._traced]
        return Measured(tuple(alone), tuple(np.concatenate(left).tolist()))

    def share(self, group: Group) -> float:
        """The estimated share of the outputs' error that arises in the group."""
        return sum(self._share[name] for name in group.leaving)

    def isolated_db(self, group: Group) -> float:
        """The lowest isolated SQNR of the tensors that leave the group, in dB."""
        return min(_decibels(*self._energies(name, "isolated")) for name in group.leaving)

    def columns(self, chosen: Sequence[Group]) -> dict[str, NDArray[np.float64]]:
        """What tells of these groups without looking at the outputs, the more the worse."""

        def worst(value: Callable[[str], float]) -> NDArray[np.float64]:
            return np.array([max(map(value, group.leaving)) for group in chosen])

        def over_signal(side: str) -> NDArray[np.float64]:
            return worst(lambda name: self._energies(name, side)[1] / self._energies(name, side)[0])

        return {
            "output error": np.array([self.share(group) for group in chosen]),
            "isolated error": over_signal("isolated"),
            "cumulative error": over_signal("s"),
            "mse": worst(lambda n: self._energies(n, "s")[1] / sum(t.x[n].size for t in self._traced)),
        }

    def _outputs(self, rerun: Rerun, values: Values, changed: Values, group: Group, t: _Traced) -> Values:
        # What does not lie behind the group is the reference's.
        return {**t.outputs, **rerun({**values, **{name: changed[name] for name in group.leaving}}, t.batch.inputs)}

    def _damage(self, outputs: Values, t: _Traced) -> NDArray[np.float64]:
        outputs = {name: outputs[name] for name in t.outputs if name in outputs}
        if self._task.metric is None:
            self.damage_name, values = damage(outputs, t.outputs)
        else:
            self.damage_name, values = metric_damage(self._task.metric, outputs, t.outputs, t.batch.labels)
        return values

    def _hopeless(self, outputs: Values, t: _Traced) -> bool:
        """True if this damage to the worst batch is next to nothing; a metric of ones and zeros would not tell."""
        baseline = self.before[: t.batch.size]
        if self._task.metric is not None:
            return False
        return float(damage(outputs, t.outputs)[1].mean()) < _HOPELESS * float(baseline.mean())

    def _computes_with_codes(self, group: Group) -> bool:
        pairs = [self._pairs[name] for name in group.tensors]
        return any(pair.qparams is not None or pair.quantized_op in self._task.weighted for pair in pairs)

    def _energies(self, name: str, side: str) -> tuple[float, float]:
        """The energy of the reference's tensor, and that of the error of one of the others."""
        if (name, side) not in self._known:
            signal = noise = 0.0
            for t in self._traced:
                x = t.x[name].astype(np.float64)
                signal += float((x**2).sum())
                noise += float(((x - getattr(t, side)[name].astype(np.float64)) ** 2).sum())
            self._known[name, side] = max(signal, _TINY), noise
        return self._known[name, side]

    def _error(self, name: str) -> TensorError:
        signal, noise = self._energies(name, "s")
        brought = 0.0
        for t in self._traced:
            x = t.x[name].astype(np.float64)
            brought += float(((t.in_float[name] - x) * (t.s[name] - x)).sum())
        if not math.isfinite(noise):
            return TensorError(math.inf, math.inf, None)
        return TensorError(noise, noise / signal, min(max(brought / noise, 0.0), 1.0) if noise > 0 else 0.0)

    def _trace(self) -> list[_Traced]:
        task, named = self._task, self._pairs
        counts = self._backend.element_counts(task.reference, list(named), task.batches[0].inputs)
        room = memory.budget() // max(_HELD * _FLOAT_BYTES * sum(counts.values()), 1)
        outputs = [t.name for t in task.reference.graph.outputs]
        with ExitStack() as stack:
            run_reference = stack.enter_context(
                self._backend.open(task.reference, list(named), trace="exact", threads=task.threads)
            )
            simulated = [pair.quantized_name for pair in named.values()]
            run_simulated = stack.enter_context(
                self._backend.open(task.quantized, simulated, trace="simulated", threads=task.threads)
            )
            found: list[_Traced] = []
            quantized_ops = float_ops = None
            for batch in task.batches[: max(room, 1)]:
                x, raw = run_reference.run(batch.inputs), run_simulated.run(batch.inputs)
                if quantized_ops is None or float_ops is None:
                    alike = [
                        pair
                        for name, pair in named.items()
                        if name in x
                        and pair.quantized_name in raw
                        and lie_alike(pair.rescaled(x[name]), raw[pair.quantized_name])
                    ]
                    self.groups = groups(task.reference.graph, alike, task.by)
                    leaving = [name for group in self.groups for name in group.leaving]
                    quantized_ops = stack.enter_context(self._opened(task.quantized, "simulated"))
                    float_ops = stack.enter_context(self._opened(task.reference, "exact"))
                s = {name: named[name].real(raw[named[name].quantized_name]) for name in leaving}
                values = {name: x[name] for name in leaving}
                isolated = {n: _rounded(named[n], array) for n, array in quantized_ops.run(values, batch).items()}
                kept = {name: x[name] for name in outputs if name in x and x[name].dtype.kind == "f"}
                found.append(_Traced(batch, values, s, isolated, float_ops.run(s, batch), kept))
        return found

    def _opened(self, model: Model, trace: Trace) -> _GroupRunner:
        """One of the models cut around the groups."""
        float_model = trace == "exact"
        names = {name: name if float_model else self._pairs[name].view_name for name in self._pairs}
        graph = self._task.reference.graph
        absorbed = {
            names[name]: (self._task.reference, graph.producers[name].name)
            for name, pair in self._pairs.items()
            if pair.absorbed and not float_model
        }
        leaving = [name for group in self.groups for name in group.leaving]
        alone = [group for group in self.groups if chained(graph, group)]
        apart = {name for group in alone for name in group.leaving}
        plans = [(leaving, [name for name in leaving if name not in apart])]
        for group in alone:
            others = [name for name in leaving if name not in group.leaving]
            plans += [([*others, name], [name]) for name in group.leaving]
        return _GroupRunner(self._backend, model, trace, self._task.threads, names, absorbed, plans)


class _GroupRunner:
    """A model cut around all groups, so that each computes from what is fed to it; some in a session of their own."""

    def __init__(
        self,
        backend: Backend,
        model: Model,
        trace: Trace,
        threads: int,
        names: Mapping[str, str],
        absorbed: Mapping[str, tuple[Model, str]],
        plans: Sequence[tuple[Sequence[str], Sequence[str]]],
    ) -> None:
        """`names` gives this model's names; each of `plans` are the tensors to cut at, and those to compute."""
        self._names = names
        self._views = {view: name for name, view in names.items()}
        self._stack = ExitStack()
        self._open: Callable[[], Iterator[Any]] = lambda: (
            backend.open_cut(
                model, [names[n] for n in cuts], [names[n] for n in outputs], trace=trace, threads=threads,
                absorbed={names[n]: absorbed[names[n]] for n in outputs if names[n] in absorbed},
            )
            for cuts, outputs in plans
            if outputs
        )  # fmt: skip

    def __enter__(self) -> _GroupRunner:
        with ExitStack() as stack:
            self._runners = [stack.enter_context(runner) for runner in self._open()]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def run(self, values: Values, batch: Batch) -> Values:
        """What the groups make of these tensors, by the reference's names."""
        found: Values = {}
        for runner in self._runners:
            feed = {
                n: values[self._views[n]] if self._views.get(n) in values else batch.inputs[n] for n in runner.inputs
            }
            found |= {self._views[view]: array for view, array in runner.run(feed).items()}
        return found


def _rounded(pair: TensorPair, values: NDArray[np.floating]) -> NDArray[np.floating]:
    if pair.qparams is None:
        return values
    rounded: NDArray[np.floating] = pair.qparams.dequantize(pair.qparams.quantize(values)).astype(values.dtype)
    return rounded


def _decibels(signal: float, noise: float) -> float:
    return 10 * math.log10(signal / noise) if noise > 0 else math.inf
