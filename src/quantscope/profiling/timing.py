"""Latency of models as production loads them, and what a change brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from quantscope.backends.base import Backend, Model
from quantscope.profiling.document import Tried
from quantscope.profiling.inputs import Inputs, for_other
from quantscope.profiling.latency import Load, Measured, measure, ratio_interval
from quantscope.progress import Progress

PARTS = 100
"""Progress advances by so much while a pair is timed."""


def loads(backend: Backend, models: Sequence[Model], threads: int, optimized: bool = True) -> list[Load]:
    """Return what loads each of the models as production does."""
    return [partial(backend.deploy, model, threads=threads, optimized=optimized) for model in models]


def timed(models: Sequence[Load], inputs: Sequence[Inputs], seconds: float, progress: Progress) -> Measured:
    """Return the latency of the models that are loaded so, run in turn; progress advances by `PARTS` in all."""
    said = 0

    def report(share: float) -> None:
        nonlocal said
        progress.advance(round(share * PARTS) - said)
        said = round(share * PARTS)

    measured = measure(models, inputs, seconds, report)
    report(1.0)
    return measured


def gain(
    backend: Backend, before: Model, after: Model, inputs: Inputs, threads: int, seconds: float, progress: Progress
) -> Tried:
    """Return what a changed model gains over the one before, both loaded from memory.

    Args:
        backend: that of both.
        before, after: the models; `inputs` are of the first one.
        inputs: what they are fed.
        threads: as in production.
        seconds: the longest to measure.
        progress: advances by `PARTS`.
    """
    # A file is loaded otherwise than what was just made.
    pair = loads(backend, [replace(model, path=None) for model in (before, after)], threads)
    fed = [inputs, for_other(inputs, before.graph.inputs, after.graph.inputs)]
    measured = timed(pair, fed, seconds, progress)
    assert measured.quantized is not None
    first, second = measured.reference.latency(1), measured.quantized.latency(1)
    return Tried(first.p50_us, second.p50_us, *ratio_interval(measured.ratios))
