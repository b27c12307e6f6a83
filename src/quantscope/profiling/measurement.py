"""From two models to a profile: latency first, without the profiler; then the ops; then the reasons, tried if asked."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from quantscope.backends.base import Backend, Kernel, Model, Peak
from quantscope.profiling.document import (
    LatencyComparison,
    ModelFacts,
    OpTiming,
    Profile,
    Reason,
    Rewritten,
    Sums,
)
from quantscope.profiling.exact_changes import ExactChanges
from quantscope.profiling.footprint import peak_memory
from quantscope.profiling.inputs import Inputs, InputSource, for_other
from quantscope.profiling.latency import Times
from quantscope.profiling.reasons import reasons
from quantscope.profiling.rows import added_timings, attributed, op_timings, reference_ops, renamed, sums
from quantscope.profiling.settings import Settings
from quantscope.profiling.timing import PARTS, loads, timed
from quantscope.progress import Progress
from quantscope.quantized import by_op

AGREEMENT = 0.1
"""The sum over the kernels is said to disagree with the latency beyond this share."""
_FEWEST_RUNS, _MOST_RUNS, _PROFILED_SECONDS = 10, 200, 2.0
_PROFILER_WARM_UP = 2
_NO_PEAK = Peak(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class _Profiled:
    """One model under the profiler."""

    kernels: list[Kernel]
    sums: Sums


def profile_models(
    backend: Backend,
    reference: Model,
    quantized: Model | None,
    source: InputSource,
    settings: Settings,
    progress: Progress,
) -> Profile:
    """Return where the time of both models goes.

    Args:
        backend: that of both.
        reference: the float model.
        quantized: None to profile one model alone.
        source: what they are fed.
        settings: how to time.
        progress: told of each stage.
    """
    models = [reference] if quantized is None else [reference, quantized]
    batch, threads, optimized = settings.batches[0], settings.threads[0], settings.optimized[0]
    latencies, first = _latencies(backend, models, source, settings, progress)
    inputs = _inputs(models, source.batch(batch))
    progress.stage("profile ops", None)
    profiled = _profiled(backend, models, inputs, threads, optimized)
    progress.stage("measure memory", len(models))
    memory = []
    for model, its in zip(models, inputs, strict=True):
        memory.append(peak_memory(backend, model, its, threads, optimized))
        progress.advance()
    progress.stage("measure peak", None)
    peak = backend.peak(threads)
    facts = [
        ModelFacts(str(m.path) if m.path else None, _size(backend, m), t.load_ms, held, p.sums)
        for m, t, held, p in zip(models, first, memory, profiled, strict=True)
    ]
    names = _names(backend, reference, quantized) if quantized is not None else {}
    theirs = renamed(profiled[1].kernels, names) if quantized is not None else None
    if theirs is not None:
        facts[1] = replace(facts[1], sums=replace(facts[1].sums, attributed=attributed(theirs)))
    found: tuple[Reason, ...] = ()
    if quantized is not None and optimized:
        found = reasons(backend, quantized, profiled[1].kernels, names, inputs[1], settings, progress)
    notes = [*(note for model in models for note in model.notes), *_notes(facts)]
    rewritten: Rewritten | None = None
    if quantized is not None and settings.output is not None:
        batches = [_inputs(models, each)[1] for each in source.several(batch)]
        changes = ExactChanges(backend, quantized, batches, threads, settings.try_seconds, progress)
        rewritten = changes.written(profiled[1].kernels, settings.output)
        notes += changes.notes
        if rewritten is None:
            notes.append(
                "nothing was written: no change is known that makes it faster and leaves its outputs as they are"
            )
    return Profile(
        batch=batch,
        threads=threads,
        data=source.description,
        reference=facts[0],
        quantized=facts[1] if quantized is not None else None,
        latencies=tuple(latencies),
        ops=op_timings(reference.graph, backend.multiply_adds(reference, inputs[0]), peak, profiled[0].kernels, theirs),
        added=added_timings(profiled[0].kernels, theirs),
        peak=peak,
        reasons=found,
        notes=tuple(dict.fromkeys(notes)),
        optimized=optimized,
        optimization=backend.optimization,
        rewritten=rewritten,
    )


def _inputs(models: Sequence[Model], batch: Inputs) -> list[Inputs]:
    own = models[0].graph.inputs
    return [batch, *(for_other(batch, own, other.graph.inputs) for other in models[1:])]


def _latencies(
    backend: Backend, models: Sequence[Model], source: InputSource, settings: Settings, progress: Progress
) -> tuple[list[LatencyComparison], list[Times]]:
    """The latency at each setting; and all times at the first one, by model."""
    found, first = [], None
    every = list(itertools.product(settings.batches, settings.threads, settings.optimized))
    progress.stage("time", PARTS * len(every))
    for batch, threads, optimized in every:
        inputs = _inputs(models, source.batch(batch))
        measured = timed(loads(backend, models, threads, optimized), inputs, settings.seconds, progress)
        found.append(measured.comparison(batch, threads, optimized))
        first = first or measured
    assert first is not None
    return found, [first.reference, *([first.quantized] if first.quantized is not None else [])]


def op_times(
    backend: Backend, reference: Model, quantized: Model, inputs: Sequence[Inputs], threads: int
) -> tuple[OpTiming, ...]:
    """Return each op's time in both models, without what a profile says of the processor.

    Args:
        backend: that of both.
        reference: the float model.
        quantized: the quantized one.
        inputs: what each of them is fed.
        threads: as in production.
    """
    first, second = _profiled(backend, (reference, quantized), inputs, threads, optimized=True)
    theirs = renamed(second.kernels, _names(backend, reference, quantized))
    return op_timings(reference.graph, backend.multiply_adds(reference, inputs[0]), _NO_PEAK, first.kernels, theirs)


def _profiled(
    backend: Backend, models: Sequence[Model], inputs: Sequence[Inputs], threads: int, optimized: bool
) -> list[_Profiled]:
    """The kernels of each model, and its latency with and without the profiler, all run in turn."""
    plain: list[list[float]] = [[] for _ in models]
    with ExitStack() as stack:
        runners = [stack.enter_context(backend.deploy(m, threads=threads, optimized=optimized)) for m in models]
        profilers = [stack.enter_context(backend.profile(m, threads=threads, optimized=optimized)) for m in models]
        begin = time.perf_counter()
        done = 0
        while done < _PROFILER_WARM_UP + _FEWEST_RUNS or (
            time.perf_counter() - begin < _PROFILED_SECONDS * len(models) and done < _MOST_RUNS
        ):
            for runner, profiler, fed, seconds in zip(runners, profilers, inputs, plain, strict=True):
                began = time.perf_counter()
                runner.run(fed)
                seconds.append(time.perf_counter() - began)
                profiler.run(fed)
            done += 1
        finished = [profiler.finish(_PROFILER_WARM_UP) for profiler in profilers]
    latencies_us = [_mean_of_faster_half(seconds[_PROFILER_WARM_UP:]) * 1e6 for seconds in plain]
    return [
        _Profiled(kernels, sums(latency_us, profiled_us, kernels))
        for latency_us, (profiled_us, kernels) in zip(latencies_us, finished, strict=True)
    ]


def _mean_of_faster_half(seconds: Sequence[float]) -> float:
    return float(np.mean(sorted(seconds)[: math.ceil(len(seconds) / 2)]))


def _names(backend: Backend, reference: Model, quantized: Model) -> dict[str, tuple[str, ...]]:
    return reference_ops(
        reference.graph,
        quantized.graph,
        backend.float_view(quantized, "exact"),
        by_op(backend.weights(reference)),
        by_op(backend.weights(quantized)),
    )


def _size(backend: Backend, model: Model) -> int | None:
    return sum(file.stat().st_size for file in backend.files(model.path)) if model.path is not None else None


def _notes(facts: Sequence[ModelFacts]) -> list[str]:
    notes = []
    for name, fact in zip(("reference", "quantized model"), facts, strict=False):
        share = fact.sums.agreement - 1
        if abs(share) > AGREEMENT:
            notes.append(
                f"{name}: the times of the ops add up to {fact.sums.kernels_us / 1000:.2f} ms, "
                f"{abs(share):.0%} {'more' if share > 0 else 'less'} than an inference takes: "
                + (
                    "the profiler slows them down, or the machine was busy"
                    if share > 0
                    else "the rest is spent between the ops, which is much where they are small"
                )
            )
    return notes
