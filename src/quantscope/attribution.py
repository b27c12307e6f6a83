"""A closer look at a few samples: what each op does to its inputs, and what its error is made of.

Both models are cut at every tensor that is paired. Fed with the reference's tensors, each op of the quantized model
shows its isolated error; fed with the quantized model's, the ops of both models show, step by step, what was inherited
and what the op's own weight, bias, clipping and rounding add. All ops are looked at in one pass over the samples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from os import cpu_count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope import memory
from quantscope.backends.base import Backend, CutRunner, Model, Trace
from quantscope.channel_axes import channel_axes
from quantscope.confirmation import lie_alike
from quantscope.diagnosis import TensorDiagnosis
from quantscope.errors import QuantscopeError
from quantscope.pairing import TensorPair
from quantscope.plan import Plan
from quantscope.progress import Progress
from quantscope.runfile import RunFile
from quantscope.samples import Batch, Samples
from quantscope.statistics.budget import BudgetAccumulator, ErrorBudget
from quantscope.statistics.channels import CHANNEL_BINS, ChannelAccumulator
from quantscope.tracing import Comparison, Values, whole_batches
from quantscope.weights import FloatForms

STAGE = "attribute"
# Arrays held for each tensor at a time: of both models, of the four runs of cut models, and two temporary ones.
_HELD = 8
_FLOAT_BYTES = 4
_SHARES = 8
# Shares of an error settle after so many values; a model of small tensors needs more samples for them.
_ENOUGH_VALUES = 50_000_000
_FEWEST, _MOST = 4, 64


def _enough(values_per_sample: int) -> int:
    """How many samples to look at if nobody says."""
    return max(_FEWEST, min(_MOST, _ENOUGH_VALUES // max(values_per_sample, 1)))


@dataclass(eq=False)
class _Part:
    """One tensor: its pairs in the trace that is diagnosed and in the simulated one, and what is accumulated."""

    position: int
    comparison: Comparison
    simulated: TensorPair
    budget: BudgetAccumulator
    channels: ChannelAccumulator | None
    has_weight: bool

    @property
    def name(self) -> str:
        return self.comparison.pair.reference_name

    def completed(self, row: TensorDiagnosis) -> TensorDiagnosis:
        found: ErrorBudget = self.budget.result()
        if not self.has_weight:
            # Without a weight of its own, what differs is what ops in between did.
            found = replace(found, weight=0.0, residual=found.residual + found.weight)
        return replace(
            row,
            isolated_mse=found.isolated_mse,
            isolated_sqnr_db=found.isolated_sqnr_db,
            budget=found,
            channels=self.channels.result() if self.channels is not None else None,
        )


def attribute(
    run_file: RunFile,
    backend: Backend,
    reference: Model,
    quantized: Model,
    comparisons: Sequence[Comparison],
    simulated: Mapping[str, TensorPair],
    samples: Samples,
    evaluated: range,
    batch_size: int,
    plan: Plan,
    progress: Progress,
) -> None:
    """Add the isolated error, the error budget and the figures per channel to the rows of the run file.

    Args:
        comparisons: the pairs that were compared, aligned.
        simulated: the pairs of the simulated trace by the reference's tensor.
        evaluated: the first of them are looked at, as many as the plan says.
    """
    if plan.budget_samples == 0 or any(s["name"] == STAGE and s["finished"] for s in run_file.stages()):
        return
    began = time.monotonic()
    rows = run_file.activation_rows()
    candidates = _parts(backend, reference, quantized, comparisons, simulated, rows)
    first = next(whole_batches(samples, reference, batch_size, evaluated.start, evaluated.stop, progress), None)
    if not candidates or first is None:
        return
    counts = backend.element_counts(reference, [p.name for p in candidates], first.inputs)
    wanted = plan.budget_samples or _enough(sum(counts.values()) // first.size)
    window = evaluated[: math.ceil(wanted / batch_size) * batch_size]
    sizes = [_HELD * _FLOAT_BYTES * counts.get(p.name, 0) for p in candidates]
    limit = plan.memory_bytes or memory.budget()
    chunks = [candidates[chunk.start : chunk.stop] for chunk in memory.chunks(sizes, limit)]
    total = len(window) * len(chunks)
    progress.stage(STAGE, total)
    run_file.write_stage(STAGE, 0, total)
    try:
        chunks = [_alike(backend, reference, quantized, chunk, first, plan) for chunk in chunks]
        parts = [part for chunk in chunks for part in chunk]
        for chunk in chunks:
            batches = whole_batches(samples, reference, batch_size, window.start, window.stop, progress)
            with _Look(backend, reference, quantized, parts, chunk, plan) as look:
                for batch in batches:
                    look.at(batch)
                    progress.advance(batch.size)
    except QuantscopeError as error:
        note = f"no error budget: the models could not be cut into their ops ({error.message})"
        run_file.add_note(note)
        progress.note(note)
        return
    done = {p.position: p.completed(rows[p.position]) for p in parts}
    run_file.checkpoint(done, {}, {}, (STAGE, total, total, True, time.monotonic() - began))


def _parts(
    backend: Backend,
    reference: Model,
    quantized: Model,
    comparisons: Sequence[Comparison],
    simulated: Mapping[str, TensorPair],
    rows: Mapping[int, TensorDiagnosis],
) -> list[_Part]:
    """The tensors that were compared and have a pair in the simulated trace too."""
    weighted = {w.op for w in backend.weights(quantized, "simulated") if w.qparams is not None and w.role == "weight"}
    axes = channel_axes(reference.graph)
    found = []
    for position, comparison in enumerate(comparisons):
        pair = simulated.get(comparison.pair.reference_name)
        if position not in rows or pair is None:
            continue
        row, axis = rows[position], axes.get(pair.reference_name)
        histogram = row.histogram
        channels = None
        if axis is not None and histogram is not None and len(histogram.edges) > 1:
            channels = ChannelAccumulator(axis, histogram.bins.within(CHANNEL_BINS))
        found.append(
            _Part(
                position,
                comparison,
                pair,
                BudgetAccumulator(comparison.pair.qparams),
                channels,
                pair.quantized_op in weighted,
            )
        )
    return found


def _alike(
    backend: Backend, reference: Model, quantized: Model, parts: Sequence[_Part], batch: Batch, plan: Plan
) -> list[_Part]:
    """Those that lie in the simulated trace as in the reference, so that each can be fed to the other's readers."""
    names, threads = [p.simulated.quantized_name for p in parts], plan.threads
    with (
        backend.open(reference, [p.name for p in parts], trace="exact", threads=threads) as run_reference,
        backend.open(quantized, names, trace="simulated", threads=threads) as run_simulated,
    ):
        x, s = run_reference.run(batch.inputs), run_simulated.run(batch.inputs)
    return [
        part
        for part in parts
        if part.name in x
        and part.simulated.quantized_name in s
        and lie_alike(part.simulated.rescaled(x[part.name]), s[part.simulated.quantized_name])
    ]


class _Look:
    """Both models, whole and cut, open for some of the tensors."""

    def __init__(
        self,
        backend: Backend,
        reference: Model,
        quantized: Model,
        cuts: Sequence[_Part],
        parts: Sequence[_Part],
        plan: Plan,
    ) -> None:
        self._backend = backend
        self._reference = reference
        self._quantized = quantized
        self._parts = parts
        self._cuts = {p.name: p for p in cuts}
        self._plan = plan
        self._stack = ExitStack()

    def __enter__(self) -> _Look:
        backend, plan, stack = self._backend, self._plan, self._stack
        threads = plan.threads or cpu_count() or 1
        viewed = {p.name: p.simulated.view_name for p in self._cuts.values()}
        self._names = {view: name for name, view in viewed.items()}
        wanted = [p.name for p in self._parts]
        absorbed = {
            p.simulated.view_name: (self._reference, self._reference.graph.producers[p.name].name)
            for p in self._parts
            if p.simulated.absorbed
        }
        biases = self._float_biases()
        biased = {op for op, _ in biases}

        def quantized_ops(outputs: list[str], biases: Mapping[tuple[str, str], NDArray[Any]]) -> CutRunner:
            return stack.enter_context(
                backend.open_cut(
                    self._quantized, list(viewed.values()), outputs, trace="simulated", threads=threads,
                    absorbed=absorbed, constants=biases,
                )
            )  # fmt: skip

        self._float_ops = stack.enter_context(
            backend.open_cut(self._reference, list(viewed), wanted, trace="exact", threads=threads)
        )
        self._ops = quantized_ops([viewed[name] for name in wanted], {})
        outputs = [p.simulated.view_name for p in self._parts if p.simulated.quantized_op in biased]
        self._biased = quantized_ops(outputs, biases) if outputs else None
        fed = {*self._float_ops.inputs, *(self._names.get(name, name) for name in self._ops.inputs), *wanted}
        self._exposed = [self._cuts[name] for name in self._cuts if name in fed]
        trace: Trace = "simulated" if plan.trace == "simulated" else "deployed"
        pairs = [p.comparison.pair for p in self._exposed]
        self._run_reference = stack.enter_context(
            backend.open(self._reference, [p.reference_name for p in pairs], trace="exact", threads=threads)
        )
        self._run_quantized = stack.enter_context(
            backend.open(self._quantized, [p.quantized_name for p in pairs], trace=trace, threads=threads)
        )
        view = backend.float_view(self._quantized, "simulated")
        self._inputs = {t.name: view.tensors[t.name].qparams for t in view.graph.inputs if t.name in view.tensors}
        self._pool = stack.enter_context(ThreadPoolExecutor(threads))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _float_biases(self) -> dict[tuple[str, str], NDArray[Any]]:
        """The float form of each quantized bias, by op and tensor of the simulated trace."""
        ops = {p.simulated.quantized_op for p in self._parts}
        forms = FloatForms(self._backend, self._reference, [p.simulated for p in self._cuts.values()])
        found = {}
        for weight in self._backend.weights(self._quantized, "simulated"):
            if weight.role == "bias" and weight.qparams is not None and weight.op in ops:
                form = forms.of(weight)
                if form is not None:
                    found[weight.op, weight.tensor] = form[0].read()
        return found

    def at(self, batch: Batch) -> None:
        """Add a batch."""
        reference, traced = self._run_reference.run(batch.inputs), self._run_quantized.run(batch.inputs)
        x: Values = {p.name: reference[p.name] for p in self._exposed if p.name in reference}
        q: Values = {}
        for part in self._exposed:
            pair = part.comparison.pair
            aligned = part.comparison.alignment.aligned(x[part.name], traced[pair.quantized_name])
            if aligned is not None:
                q[part.name] = pair.real(np.ascontiguousarray(aligned))
        del reference, traced
        feed = {**batch.inputs, **self._rounded(batch.inputs), **q}
        float_weights = self._float_ops.run({name: feed[name] for name in self._float_ops.inputs})
        computed = self._cut(self._ops, feed)
        float_bias = self._cut(self._biased, feed) if self._biased is not None else {}
        isolated = self._cut(self._ops, {**batch.inputs, **x})

        def update(parts: Sequence[_Part]) -> None:
            for part in parts:
                name = part.name
                arrays = (x[name], float_weights[name], computed[name], q[name], isolated[name])
                if all(array.shape == x[name].shape for array in arrays):
                    w = float_bias.get(name, computed[name])
                    part.budget.update(x[name], float_weights[name], w, computed[name], q[name], isolated[name])
                    if part.channels is not None:
                        part.channels.update(x[name], q[name])

        # A few shares of the parts: handing a task over costs as much as a small one.
        for _ in self._pool.map(update, [self._parts[i::_SHARES] for i in range(_SHARES)]):
            pass

    def _rounded(self, inputs: Values) -> Values:
        """The model's inputs as its quantized form reads them: their rounding is inherited by the first ops."""
        return {
            name: qparams.dequantize(qparams.quantize(inputs[name])).astype(inputs[name].dtype)
            for name, qparams in self._inputs.items()
            if qparams is not None and name in inputs and inputs[name].dtype.kind == "f"
        }

    def _cut(self, runner: CutRunner, feed: Values) -> Values:
        """What the ops of the quantized model compute from this, by the reference's names."""
        given = {name: feed[self._names.get(name, name)] for name in runner.inputs}
        return {self._names[name]: values for name, values in runner.run(given).items()}
