"""One sweep over the samples: both models run, every pair's statistics grow, every sample is scored.

It writes checkpoints as it goes. What a checkpoint holds is enough to go on after a kill with the same figures as an
uninterrupted run, because the accumulators come back bit for bit and the batches begin where they ended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from heapq import heappop, heappush
from os import cpu_count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope import evaluation
from quantscope.backends.base import Backend, Model, Runner, Trace
from quantscope.confirmation import LIKELY, UNRELATED, Layout, arranged, correlation, layout
from quantscope.diagnosis import tensor_diagnosis
from quantscope.errors import DataError
from quantscope.pairing import TensorPair
from quantscope.progress import Progress
from quantscope.runfile import RunFile
from quantscope.samples import Batch, Samples
from quantscope.statistics import PairStatistics

STAGE = "compare"
# A checkpoint may cost this share of the run's time, and is never older than the longest pause.
_CHECKPOINT_SHARE = 0.02
_SHORTEST_PAUSE_SECONDS = 2.0
_SHARES_PER_WORKER = 4


@dataclass
class _Compared:
    """One pair with what has been accumulated of it."""

    pair: TensorPair
    statistics: PairStatistics
    first_non_finite_sample: int | None = None
    mismatch: str = ""
    layout: Layout | None = None
    confirmed: bool = False

    def update(self, x: NDArray[Any], y: NDArray[Any], first: int) -> None:
        if not self.confirmed:
            self._confirm(x, y)
        if self.layout is not None and x.size == y.size:
            y = arranged(y, self.layout, x.shape)
        if x.shape != y.shape:
            self.mismatch = self.mismatch or f"shapes differ: reference {list(x.shape)}, quantized {list(y.shape)}"
        if self.mismatch:
            return
        finite = self.statistics.error.count
        self.statistics.update(x, y)
        if self.first_non_finite_sample is None and self.statistics.error.count - finite < x.size:
            self.first_non_finite_sample = first + _first_non_finite(x, y)

    def _confirm(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """On the first batch: find the layout, and drop a pair whose two sides have nothing to do with each other."""
        self.confirmed = True
        r = correlation(x, y) if x.shape == y.shape else math.nan
        # Axes of one length hide that they were exchanged: only the values tell.
        if not r > LIKELY:
            self.layout = layout(x, y)
            if self.layout is not None:
                r = correlation(x, arranged(y, self.layout, x.shape))
        if self.pair.how == "structure" and r < UNRELATED:
            self.mismatch = (
                f"ambiguous: {self.pair.quantized_name} stands in its place and does not follow it (r={r:.2f})"
            )


def _first_non_finite(x: NDArray[Any], y: NDArray[Any]) -> int:
    """The position in the batch of the first sample with a value that is not finite."""
    for i in range(len(x) if x.ndim else 0):
        if not (np.isfinite(x[i]).all() and (y.dtype.kind in "iu" or np.isfinite(y[i]).all())):
            return i
    return 0


@dataclass
class _Scores:
    """Scores per sample and metric since the last checkpoint, and the function behind each metric."""

    chosen: str | Callable[..., Any] | None
    metrics: dict[str, evaluation.Metric] = field(default_factory=dict)
    pending: dict[str, tuple[int, list[float], list[float]]] = field(default_factory=dict)

    def add(
        self,
        reference: evaluation.Outputs,
        quantized: evaluation.Outputs,
        labels: NDArray[Any] | None,
        first: int,
    ) -> None:
        if not self.metrics:
            self._choose(reference, labels)
        for name, metric in self.metrics.items():
            _, x, y = self.pending.setdefault(name, (first, [], []))
            x.extend(metric(reference, labels, reference).tolist())
            y.extend(metric(quantized, labels, reference).tolist())

    def _choose(self, outputs: evaluation.Outputs, labels: NDArray[Any] | None) -> None:
        if self.chosen is not None and not isinstance(self.chosen, str):
            name = getattr(self.chosen, "__name__", "metric")
            self.metrics = {name: evaluation.from_function(self.chosen, name)}
            return
        name = self.chosen or evaluation.default_metric(outputs, labels)
        self.metrics = {n: evaluation.metric(n) for n in (name, *evaluation.metrics_beside(name, outputs))}


def metric_named(metric: str | Callable[..., Any] | None) -> None:
    """Raise a DataError if a metric's name means nothing."""
    if isinstance(metric, str):
        evaluation.metric(metric)


def sweep(
    run_file: RunFile,
    backend: Backend,
    reference: Model,
    quantized: Model,
    pairs: Sequence[TensorPair],
    samples: Samples,
    evaluated: range,
    batch_size: int,
    *,
    metric: str | Callable[..., Any] | None,
    threads: int,
    progress: Progress,
) -> None:
    """Compare all pairs over the evaluated samples and write rows, scores and checkpoints to the run file.

    Raises:
        DataError: the samples do not fit the models, or there are none.
    """
    stage = next((s for s in run_file.stages() if s["name"] == STAGE), None)
    start = evaluated.start + (stage["done"] if stage else 0)
    began = time.monotonic() - (stage["seconds"] if stage else 0.0)
    compared = [_Compared(pair, PairStatistics(pair.qparams)) for pair in pairs]
    if stage:
        _restore(compared, run_file)
    else:
        run_file.write_stage(STAGE, 0, len(evaluated))
    progress.stage(STAGE, len(evaluated))
    progress.advance(start - evaluated.start)
    scores = _Scores(metric)
    done = start
    last_checkpoint, pause = time.monotonic(), _SHORTEST_PAUSE_SECONDS
    cores = threads or cpu_count() or 1
    with ExitStack() as stack:
        # Both models run at once, each on its share of the cores: one thread does the same work in a quarter less CPU
        # time than two that wait for each other (docs/decisions/0003-kernels.md).
        run_reference, run_quantized = (
            stack.enter_context(backend.open(model, names, trace=trace, threads=max(1, cores // 2)))
            for model, names, trace in _traces(reference, quantized, pairs)
        )
        workers = max(2, cores)
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        batches: Iterable[Batch] = samples.batches(batch_size, start=start, stop=evaluated.stop)
        if _fixes_batch(reference):
            batches = _whole(batches, batch_size, progress)
        for batch, x, y in _ahead(pool, batches, run_reference, run_quantized):
            if run_file.about("measuring_changed") is None:
                run_file.write_about(measuring_changed=_measuring_changed(backend, quantized, batch, y, threads))
            _update(pool, workers, compared, x, y, batch.first)
            scores.add(_outputs(reference, x), _outputs(quantized, y), batch.labels, batch.first)
            del x, y
            progress.advance(batch.stop - done)
            done = batch.stop
            if time.monotonic() - last_checkpoint > pause and done < evaluated.stop:
                before = time.monotonic()
                _checkpoint(run_file, compared, scores, evaluated, done, time.monotonic() - began, finished=False)
                last_checkpoint = time.monotonic()
                pause = max(_SHORTEST_PAUSE_SECONDS, (last_checkpoint - before) / _CHECKPOINT_SHARE)
    _checkpoint(run_file, compared, scores, evaluated, evaluated.stop, time.monotonic() - began, finished=True)


def _whole(batches: Iterable[Batch], size: int, progress: Progress) -> Iterator[Batch]:
    """The batches up to one that is not whole, which a model of a fixed batch cannot take."""
    for batch in batches:
        if batch.size < size:
            progress.note(f"the last {batch.size} samples do not fill a batch of {size}: left out")
            return
        yield batch


def _traces(
    reference: Model, quantized: Model, pairs: Sequence[TensorPair]
) -> tuple[tuple[Model, list[str], Trace], tuple[Model, list[str], Trace]]:
    return (
        (reference, [p.reference_name for p in pairs], "optimized"),
        (quantized, [p.quantized_name for p in pairs], "deployed"),
    )


Values = dict[str, NDArray[Any]]


def _ahead(
    pool: ThreadPoolExecutor, batches: Iterable[Batch], reference: Runner, quantized: Runner
) -> Iterator[tuple[Batch, Values, Values]]:
    """Each batch with what both models make of it; the next one is computed while this one is looked at."""
    waiting: tuple[Batch, Future[Values], Future[Values]] | None = None
    for batch in batches:
        running = (batch, pool.submit(reference.run, batch.inputs), pool.submit(quantized.run, batch.inputs))
        if waiting is not None:
            yield waiting[0], waiting[1].result(), waiting[2].result()
        waiting = running
    if waiting is not None:
        yield waiting[0], waiting[1].result(), waiting[2].result()


def _update(
    pool: ThreadPoolExecutor, workers: int, compared: list[_Compared], x: Values, y: Values, first: int
) -> None:
    """Add a batch to all pairs, in a few shares of equal size: handing a task over costs as much as a small one."""

    def update(share: list[_Compared]) -> None:
        for entry in share:
            entry.update(x[entry.pair.reference_name], y[entry.pair.quantized_name], first)

    shares: list[list[_Compared]] = [[] for _ in range(_SHARES_PER_WORKER * workers)]
    loads = [(0, i) for i in range(len(shares))]
    present = [e for e in compared if not e.mismatch and e.pair.reference_name in x and e.pair.quantized_name in y]
    for entry in sorted(present, key=lambda e: -x[e.pair.reference_name].size):
        load, i = heappop(loads)
        shares[i].append(entry)
        heappush(loads, (load + x[entry.pair.reference_name].size, i))
    for _ in pool.map(update, shares):
        pass


def _outputs(model: Model, values: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    found = {t.name: values[t.name] for t in model.graph.outputs if t.name in values}
    if not found:
        raise DataError("the model has no tensor among its outputs", accepted="a model with a float output")
    return found


def _fixes_batch(model: Model) -> bool:
    return any(t.shape and isinstance(t.shape[0], int) for t in model.graph.inputs)


def _measuring_changed(
    backend: Backend, quantized: Model, batch: Batch, traced: dict[str, NDArray[Any]], threads: int
) -> float:
    """The largest difference between the outputs with tensors exposed and those of plain inference, on one batch."""
    with backend.open(quantized, [], trace="optimized", threads=threads) as plain:
        outputs = plain.run(batch.inputs)
    return max(
        (
            float(np.nanmax(np.abs(outputs[t.name].astype(np.float64) - traced[t.name].astype(np.float64)), initial=0))
            for t in quantized.graph.outputs
            if t.name in outputs
        ),
        default=0.0,
    )


def _checkpoint(
    run_file: RunFile,
    compared: list[_Compared],
    scores: _Scores,
    evaluated: range,
    done: int,
    seconds: float,
    *,
    finished: bool,
) -> None:
    rows = {
        position: tensor_diagnosis(e.pair, e.statistics, first_non_finite_sample=e.first_non_finite_sample)
        for position, e in enumerate(compared)
        if not e.mismatch and (e.statistics.reference.count or finished)
    }
    # A finished run needs its accumulators no more.
    states = {} if finished else {position: _state(e) for position, e in enumerate(compared)}
    mismatched = {e.pair.op.name: e.mismatch for e in compared if e.mismatch}
    if mismatched:
        run_file.write_about(skipped={**(run_file.about("skipped") or {}), **mismatched})
    run_file.checkpoint(
        rows, states, scores.pending, (STAGE, done - evaluated.start, len(evaluated), finished, seconds)
    )
    scores.pending = {}


def _state(entry: _Compared) -> dict[str, NDArray[Any]]:
    first = -1 if entry.first_non_finite_sample is None else entry.first_non_finite_sample
    return {
        **entry.statistics.arrays(),
        "first_non_finite": np.asarray(first),
        "mismatch": np.asarray(entry.mismatch),
        "layout": np.asarray([-1] if entry.layout is None else entry.layout, np.int64),
        "confirmed": np.asarray(entry.confirmed),
    }


def _restore(compared: list[_Compared], run_file: RunFile) -> None:
    for position, state in run_file.accumulators().items():
        entry = compared[position]
        entry.statistics = PairStatistics.from_arrays(state, entry.pair.qparams)
        first = int(state["first_non_finite"])
        entry.first_non_finite_sample = None if first < 0 else first
        entry.mismatch = str(state["mismatch"])
        entry.layout = None if state["layout"].tolist() == [-1] else tuple(state["layout"].tolist())
        entry.confirmed = bool(state["confirmed"])
