"""Runs the models over samples and accumulates what there is to say of each pair, shard by shard.

A shard is a run of consecutive samples with accumulators of its own. Shards begin and end at the same samples however
the work is spread, and are merged in order: one process, several, or a cluster give the same figures to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from os import cpu_count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.base import Model, Runner, Trace
from quantscope.backends.registry import backend
from quantscope.confirmation import Alignment
from quantscope.errors import DataError
from quantscope.pairing import TensorPair
from quantscope.plan import Traced
from quantscope.progress import Progress
from quantscope.samples import Batch, Samples
from quantscope.statistics import ErrorStatistics, PairStatistics

# Samples of a shard, if they come one by one: the first ones are small, so that a run soon has something to show.
_LARGEST_SHARD = 16
_SHARES_PER_THREAD = 4

Values = dict[str, NDArray[Any]]


@dataclass
class Comparison:
    """One pair with what has been accumulated of it.

    `simulated` is the same tensor in the simulated trace, where both are looked at; `simulation` is then its error
    against the reference, and `kernels` that of the deployed tensor against it.
    """

    pair: TensorPair
    statistics: PairStatistics
    alignment: Alignment = field(default_factory=Alignment)
    first_non_finite_sample: int | None = None
    simulated: TensorPair | None = None
    simulation: ErrorStatistics = field(default_factory=ErrorStatistics)
    kernels: ErrorStatistics = field(default_factory=ErrorStatistics)

    @classmethod
    def of(cls, pair: TensorPair, simulated: TensorPair | None = None) -> Comparison:
        """A pair of which nothing is known yet."""
        return cls(pair, PairStatistics(pair.qparams), simulated=simulated)

    def fresh(self) -> Comparison:
        """The same pair with empty accumulators, aligned as this one is."""
        return replace(
            self,
            statistics=PairStatistics(self.pair.qparams),
            alignment=replace(self.alignment),
            first_non_finite_sample=None,
            simulation=ErrorStatistics(),
            kernels=ErrorStatistics(),
        )

    def update(self, x: NDArray[Any], y: NDArray[Any], s: NDArray[Any] | None, first: int) -> None:
        """Add a batch whose first sample has this number; `s` is the tensor of the simulated trace."""
        doubtful = self.pair.how == "structure"
        like = x if self.alignment.confirmed else self.pair.rescaled(x)
        aligned = self.alignment.aligned(like, y, self.pair.quantized_name, doubtful=doubtful)
        if aligned is None:
            return
        finite = self.statistics.error.count
        # Codes are counted as they are.
        self.statistics.update(x, aligned if self.pair.codes else self.pair.real(aligned))
        if self.first_non_finite_sample is None and self.statistics.error.count - finite < x.size:
            self.first_non_finite_sample = first + _first_non_finite(x, aligned)
        if s is not None and self.simulated is not None and s.shape == x.shape:
            values = self.simulated.real(s)
            self.simulation.update(x, values)
            self.kernels.update(values, self.pair.real(aligned))

    def merge(self, later: Comparison) -> None:
        """Add what was accumulated of later samples."""
        self.statistics.merge(later.statistics)
        self.simulation.merge(later.simulation)
        self.kernels.merge(later.kernels)
        if self.first_non_finite_sample is None:
            self.first_non_finite_sample = later.first_non_finite_sample
        if not self.alignment.mismatch:
            self.alignment = later.alignment

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state, for a run file."""
        first = -1 if self.first_non_finite_sample is None else self.first_non_finite_sample
        return {
            **self.statistics.arrays(),
            **self.alignment.arrays(),
            "first_non_finite": np.asarray(first),
            "simulation": self.simulation.sums,
            "kernels": self.kernels.sums,
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state that `arrays` gave."""
        self.statistics = PairStatistics.from_arrays(state, self.pair.qparams)
        self.alignment = Alignment.from_arrays(state)
        first = int(state["first_non_finite"])
        self.first_non_finite_sample = None if first < 0 else first
        self.simulation = ErrorStatistics(state["simulation"].copy())
        self.kernels = ErrorStatistics(state["kernels"].copy())


def _first_non_finite(x: NDArray[Any], y: NDArray[Any]) -> int:
    """The position in the batch of the first sample with a value that is not finite."""
    for i in range(len(x) if x.ndim else 0):
        if not (np.isfinite(x[i]).all() and (y.dtype.kind in "iu" or np.isfinite(y[i]).all())):
            return i
    return 0


@dataclass(frozen=True, eq=False)
class Scored:
    """The outputs of both models on one batch, to be scored."""

    first: int
    labels: NDArray[Any] | None
    reference: Values
    quantized: Values


@dataclass(eq=False)
class Shard:
    """What some consecutive samples gave: an accumulator for each pair, and the models' outputs."""

    comparisons: list[Comparison]
    scored: list[Scored] = field(default_factory=list)
    stop: int = 0


@dataclass(frozen=True, eq=False)
class Job:
    """All that a process needs to trace a shard: both models and the pairs to look at."""

    reference: Model
    quantized: Model
    comparisons: tuple[Comparison, ...]
    traced: Traced
    threads: int = 0

    def runs(self) -> dict[str, tuple[Model, list[str], Trace]]:
        """What has to run: a model, the tensors to expose and the trace, by a name for it."""
        pairs = [c.pair for c in self.comparisons]
        trace: Trace = "simulated" if self.traced == "simulated" else "deployed"
        found: dict[str, tuple[Model, list[str], Trace]] = {
            "reference": (self.reference, [p.reference_name for p in pairs], "optimized"),
            "quantized": (self.quantized, [p.quantized_name for p in pairs], trace),
        }
        if self.traced == "both":
            names = [c.simulated.quantized_name for c in self.comparisons if c.simulated is not None]
            found["simulated"] = (self.quantized, names, "simulated")
        return found


def shard_stop(position: int, batch_size: int) -> int:
    """Return where the shard ends that holds the sample at this position among those evaluated.

    Shards hold 1, 2, 4, 8, 16, 16, … batches, or fewer where 16 batches are more than 16 samples.
    """
    largest = max(1, _LARGEST_SHARD // batch_size) * batch_size
    stop, size = 0, batch_size
    while stop <= position:
        if size >= largest:
            return stop + ((position - stop) // largest + 1) * largest
        stop += size
        size *= 2
    return stop


class Tracer:
    """Open models, ready to trace one shard after the other."""

    def __init__(self, job: Job, runners: Mapping[str, Runner], pool: Executor, threads: int) -> None:
        self._job = job
        self._runners = runners
        self._pool = pool
        self._threads = threads

    def shards(
        self,
        batches: Iterable[Batch],
        comparisons: Sequence[Comparison],
        last: Callable[[Batch], bool],
        seen: Callable[[Batch, Values], None] = lambda batch, quantized: None,
    ) -> Iterator[Shard]:
        """Each shard of these batches, accumulated from nothing, aligned as `comparisons` are by then.

        Args:
            comparisons: the pairs so far; whoever gets a shard merges it into them before asking for the next.
            last: whether a shard ends with this batch.
            seen: called with each batch, and what the quantized model made of it, once its statistics are taken.
        """
        shard: Shard | None = None
        for batch, values in self._ahead(batches):
            shard = shard or Shard([c.fresh() for c in comparisons])
            self._update(shard.comparisons, values, batch.first)
            shard.scored.append(
                Scored(
                    batch.first,
                    batch.labels,
                    outputs_of(self._job.reference, values["reference"]),
                    outputs_of(self._job.quantized, values["quantized"]),
                )
            )
            shard.stop = batch.stop
            seen(batch, values["quantized"])
            del values
            if last(batch):
                yield shard
                shard = None
        if shard is not None:
            yield shard

    def _ahead(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, dict[str, Values]]]:
        """Each batch with what the models make of it; the next one is computed while this one is looked at."""
        waiting: tuple[Batch, dict[str, Future[Values]]] | None = None
        for batch in batches:
            running = {name: self._pool.submit(r.run, batch.inputs) for name, r in self._runners.items()}
            if waiting is not None:
                yield waiting[0], {name: future.result() for name, future in waiting[1].items()}
            waiting = (batch, running)
        if waiting is not None:
            yield waiting[0], {name: future.result() for name, future in waiting[1].items()}

    def _update(self, comparisons: Sequence[Comparison], values: Mapping[str, Values], first: int) -> None:
        """Add a batch to all pairs, in a few shares of equal size: handing a task over costs as much as a small one."""
        x, y, simulated = values["reference"], values["quantized"], values.get("simulated", {})

        def update(share: list[Comparison]) -> None:
            for c in share:
                s = simulated.get(c.simulated.quantized_name) if c.simulated is not None else None
                c.update(x[c.pair.reference_name], y[c.pair.quantized_name], s, first)

        shares: list[list[Comparison]] = [[] for _ in range(_SHARES_PER_THREAD * self._threads)]
        loads = [(0, i) for i in range(len(shares))]
        present = [
            c
            for c in comparisons
            if not c.alignment.mismatch and c.pair.reference_name in x and c.pair.quantized_name in y
        ]
        for c in sorted(present, key=lambda c: -x[c.pair.reference_name].size):
            load, i = heappop(loads)
            shares[i].append(c)
            heappush(loads, (load + x[c.pair.reference_name].size, i))
        for _ in self._pool.map(update, shares):
            pass


def whole_batches(
    samples: Samples, model: Model, size: int, start: int, stop: int, progress: Progress
) -> Iterator[Batch]:
    """The batches of these samples, up to one that is not whole where the model fixes its batch."""
    fixed = any(t.shape and isinstance(t.shape[0], int) for t in model.graph.inputs)
    for batch in samples.batches(size, start=start, stop=stop):
        if fixed and batch.size < size:
            progress.note(f"the last {batch.size} samples do not fill a batch of {size}: left out")
            return
        yield batch


def outputs_of(model: Model, values: Values) -> Values:
    """The model's own outputs among what was traced.

    Raises:
        DataError: it has none that is a tensor.
    """
    found = {t.name: values[t.name] for t in model.graph.outputs if t.name in values}
    if not found:
        raise DataError("the model has no tensor among its outputs", accepted="a model with a float output")
    return found


@contextmanager
def opened(job: Job) -> Iterator[Tracer]:
    """The job's models, open on this machine."""
    threads = job.threads or cpu_count() or 1
    with ExitStack() as stack:
        # The models run at once, each on its share of the cores: one thread does the same work in a quarter less CPU
        # time than two that wait for each other (docs/decisions/0003-kernels.md).
        runners = {
            name: stack.enter_context(
                backend(model.backend).open(model, names, trace=trace, threads=max(1, threads // 2))
            )
            for name, (model, names, trace) in job.runs().items()
        }
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        yield Tracer(job, runners, pool, threads)
