"""One sweep over the samples: both models run, every pair's statistics grow, every sample is scored.

It writes checkpoints as it goes. What a checkpoint holds is enough to go on after a kill with the same figures as an
uninterrupted run, because the accumulators come back bit for bit and the batches begin where they ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import cpu_count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope import evaluation, memory, spread
from quantscope.backends.base import Backend, Model
from quantscope.confirmation import Alignment
from quantscope.diagnosis import tensor_diagnosis
from quantscope.plan import Plan
from quantscope.progress import Progress, Silent
from quantscope.runfile import RunFile
from quantscope.samples import Batch, Samples
from quantscope.tracing import Comparison, Job, Scored, Shard, Values, opened, shard_stop, whole_batches

STAGE = "compare"
# A checkpoint may cost this share of the run's time, and is never older than the longest pause.
_CHECKPOINT_SHARE = 0.02
_SHORTEST_PAUSE_SECONDS = 2.0
_FLOAT_BYTES = 4


@dataclass
class _Scores:
    """Scores per sample and metric since the last checkpoint, and the function behind each metric."""

    chosen: str | Callable[..., Any] | None
    metrics: dict[str, evaluation.Metric] = field(default_factory=dict)
    pending: dict[str, tuple[int, list[float], list[float]]] = field(default_factory=dict)

    def add(self, scored: Scored) -> None:
        reference, labels = scored.reference, scored.labels
        if not self.metrics:
            self._choose(reference, labels)
        for name, metric in self.metrics.items():
            _, x, y = self.pending.setdefault(name, (scored.first, [], []))
            x.extend(metric(reference, labels, reference).tolist())
            y.extend(metric(scored.quantized, labels, reference).tolist())

    def _choose(self, outputs: evaluation.Outputs, labels: NDArray[Any] | None) -> None:
        name, metric = evaluation.chosen(self.chosen, outputs, labels)
        beside = evaluation.metrics_beside(name, outputs) if not callable(self.chosen) else ()
        self.metrics = {name: metric} | {other: evaluation.metric(other) for other in beside}


def metric_named(metric: str | Callable[..., Any] | None) -> None:
    """Raise a DataError if a metric's name means nothing."""
    if isinstance(metric, str):
        evaluation.metric(metric)


@dataclass
class _Position:
    """How far a sweep is: samples are gone through once for each chunk of pairs that memory holds at a time."""

    run_file: RunFile
    evaluated: range
    chunks: list[range]
    done: int
    began: float
    last_checkpoint: float = field(default_factory=time.monotonic)
    pause: float = _SHORTEST_PAUSE_SECONDS

    @property
    def total(self) -> int:
        return len(self.evaluated) * len(self.chunks)

    @property
    def chunk(self) -> int:
        return self.done // len(self.evaluated) if self.evaluated else 0

    @property
    def sample(self) -> int:
        """The next sample of the chunk that is gone through now."""
        return self.evaluated.start + (self.done - self.chunk * len(self.evaluated))

    def checkpoint(self, comparisons: Sequence[Comparison], scores: _Scores, *, complete: bool) -> None:
        """Write what the chunk's comparisons are, if it is complete or the last time is long enough ago."""
        before = time.monotonic()
        if not complete and before - self.last_checkpoint <= self.pause:
            return
        chunk = self.chunks[(self.done - 1) // len(self.evaluated)] if self.done else range(0)
        chosen = {position: comparisons[position] for position in chunk}
        rows = {
            position: tensor_diagnosis(
                c.pair,
                c.statistics,
                first_non_finite_sample=c.first_non_finite_sample,
                simulation=c.simulation,
                kernels=c.kernels,
            )
            for position, c in chosen.items()
            if not c.alignment.mismatch and (c.statistics.reference.count or complete)
        }
        if complete:
            # The accumulators, which know it too, are about to go.
            found = {str(position): c.alignment.layout for position, c in chosen.items()}
            self.run_file.write_about(layouts={**(self.run_file.about("layouts") or {}), **found})
        mismatched = {c.pair.op.name: c.alignment.mismatch for c in chosen.values() if c.alignment.mismatch}
        if mismatched:
            self.run_file.write_about(skipped={**(self.run_file.about("skipped") or {}), **mismatched})
        # Of a chunk that is complete the accumulators are needed no more.
        states = {} if complete else {position: c.arrays() for position, c in chosen.items()}
        finished = self.done >= self.total
        self.run_file.checkpoint(
            rows, states, scores.pending, (STAGE, self.done, self.total, finished, time.monotonic() - self.began)
        )
        scores.pending = {}
        self.last_checkpoint = time.monotonic()
        self.pause = max(_SHORTEST_PAUSE_SECONDS, (self.last_checkpoint - before) / _CHECKPOINT_SHARE)


def sweep(
    run_file: RunFile,
    backend: Backend,
    reference: Model,
    quantized: Model,
    comparisons: Sequence[Comparison],
    samples: Samples,
    evaluated: range,
    batch_size: int,
    plan: Plan,
    *,
    metric: str | Callable[..., Any] | None,
    progress: Progress,
) -> None:
    """Compare all pairs over the evaluated samples and write rows, scores and checkpoints to the run file.

    Raises:
        DataError: the samples do not fit the models, or there are none.
    """
    stage = next((s for s in run_file.stages() if s["name"] == STAGE), None)
    if stage is not None and stage["finished"]:
        for position, layout in run_file.about("layouts").items():
            comparisons[int(position)].alignment = Alignment(True, None if layout is None else tuple(layout))
        return
    first = None
    if stage is None or run_file.about("measuring_changed") is None:
        first = next(whole_batches(samples, reference, batch_size, evaluated.start, evaluated.stop, Silent()), None)
    if stage is None:
        _begin(run_file, _chunks(backend, reference, comparisons, first, plan), evaluated, progress)
    chunks = [range(start, stop) for start, stop in run_file.about("chunks")]
    at = _Position(
        run_file,
        evaluated,
        chunks,
        stage["done"] if stage else 0,
        time.monotonic() - (stage["seconds"] if stage else 0),
    )
    for position, state in run_file.accumulators().items():
        comparisons[position].restore(state)
    progress.stage(STAGE, at.total)
    progress.advance(at.done)
    scores = _Scores(metric)
    # A model without a pair still has outputs to score.
    while at.done < at.total:
        number = at.chunk
        chosen = [comparisons[position] for position in chunks[number]]
        changed: Callable[[Batch, Values], None] = _unchanged
        if first is not None and at.done == 0:
            changed = _Changed(run_file, backend, quantized, first, plan.threads)
        batches = whole_batches(samples, reference, batch_size, at.sample, evaluated.stop, progress)
        job = Job(reference, quantized, tuple(chosen), plan.trace, plan.threads)
        end = (number + 1) * len(evaluated)
        for shard in _shards(job, batches, chosen, evaluated.start, batch_size, plan, changed, progress, at.sample):
            for comparison, later in zip(chosen, shard.comparisons, strict=True):
                comparison.merge(later)
            if number == 0:
                for scored in shard.scored:
                    scores.add(scored)
            at.done = number * len(evaluated) + shard.stop - evaluated.start
            if at.done < end:
                at.checkpoint(comparisons, scores, complete=False)
        # Samples that fill no batch are left out.
        at.done = end
        at.checkpoint(comparisons, scores, complete=True)


def _begin(run_file: RunFile, chunks: Sequence[range], evaluated: range, progress: Progress) -> None:
    run_file.write_about(chunks=[[chunk.start, chunk.stop] for chunk in chunks])
    if len(chunks) > 1:
        progress.note(f"the tensors of a batch do not fit in memory at once: {len(chunks)} passes over the samples")
    run_file.write_stage(STAGE, 0, len(evaluated) * len(chunks))


def _chunks(
    backend: Backend, reference: Model, comparisons: Sequence[Comparison], batch: Batch | None, plan: Plan
) -> list[range]:
    """Which pairs are looked at in one pass over the samples: as many as memory holds of a batch's tensors."""
    if batch is None or not comparisons:
        return [range(len(comparisons))]
    names = [c.pair.reference_name for c in comparisons]
    counts = backend.element_counts(reference, names, batch.inputs)
    # In every process that traces one, a batch is held while the next one is computed, and copied out of the framework.
    held = 3 * (plan.workers if plan.scheduler is None else 1)
    sizes = [held * counts.get(c.pair.reference_name, 0) * _bytes_per_element(c) for c in comparisons]
    return memory.chunks(sizes, plan.memory_bytes or memory.budget())


def _bytes_per_element(comparison: Comparison) -> int:
    def read(pair: Any) -> int:
        return -(-pair.qparams.spec.bits // 8) if pair.codes and pair.qparams is not None else _FLOAT_BYTES

    simulated = comparison.simulated
    return _FLOAT_BYTES + read(comparison.pair) + (read(simulated) if simulated is not None else 0)


def _shards(
    job: Job,
    batches: Iterable[Batch],
    comparisons: Sequence[Comparison],
    start: int,
    batch_size: int,
    plan: Plan,
    changed: Callable[[Batch, Values], None],
    progress: Progress,
    sample: int,
) -> Iterator[Shard]:
    """The shards of these batches, traced here or wherever the plan says; the first one always here.

    Args:
        start: the first sample that is evaluated.
        sample: the first sample of these batches.
    """
    done, boundary = sample, start + shard_stop(sample - start, batch_size)

    def last(batch: Batch) -> bool:
        nonlocal boundary
        if batch.stop < boundary:
            return False
        boundary = start + shard_stop(batch.stop - start, batch_size)
        return True

    def seen(batch: Batch, values: Values) -> None:
        nonlocal done
        changed(batch, values)
        progress.advance(batch.stop - done)
        done = batch.stop

    if plan.workers <= 1 and plan.scheduler is None:
        with opened(job) as tracer:
            yield from tracer.shards(batches, comparisons, last, seen)
        return
    groups = _groups(batches, last)
    if not all(c.alignment.confirmed for c in comparisons):
        # How the tensors lie is found in the first shard; all others take it from there.
        group = next(groups, None)
        if group is not None:
            with opened(job) as tracer:
                yield from tracer.shards(group, comparisons, lambda batch: False, seen)
    cores = plan.threads or cpu_count() or 1
    threads = max(1, cores // plan.workers) if plan.scheduler is None else 1
    job = replace(job, comparisons=tuple(c.fresh() for c in comparisons), threads=threads)
    spreading = (
        spread.over_processes(partial(spread.trace, job), groups, plan.workers)
        if plan.scheduler is None
        else spread.over_cluster(job, groups, plan.scheduler)
    )
    for shard in spreading:
        yield shard
        progress.advance(shard.stop - done)
        done = shard.stop


def _groups(batches: Iterable[Batch], last: Callable[[Batch], bool]) -> Iterator[list[Batch]]:
    """The batches of each shard."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if last(batch):
            yield group
            group = []
    if group:
        yield group


class _Changed:
    """Notes in the run file what looking did to the quantized model's outputs, on the first batch.

    Plain inference runs before the models that are looked at are opened: a third one beside them would take memory.
    """

    def __init__(self, run_file: RunFile, backend: Backend, quantized: Model, batch: Batch, threads: int) -> None:
        self._run_file = run_file
        with backend.open(quantized, [], trace="optimized", threads=threads) as plain:
            self._outputs: Values | None = plain.run(batch.inputs)

    def __call__(self, batch: Batch, traced: Values) -> None:
        if self._outputs is not None:
            self._run_file.write_about(measuring_changed=_largest_difference(self._outputs, traced))
            self._outputs = None


def _unchanged(batch: Batch, traced: Values) -> None:
    """Known already."""


def _largest_difference(outputs: Values, traced: Values) -> float:
    """The largest difference between the outputs of plain inference and those with tensors exposed."""
    return max(
        (
            float(np.nanmax(np.abs(values.astype(np.float64) - traced[name].astype(np.float64)), initial=0))
            for name, values in outputs.items()
            if name in traced
        ),
        default=0.0,
    )
