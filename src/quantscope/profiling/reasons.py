"""Why a quantized model is not faster, in the user's op names; tried, if that is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from quantscope.backends.base import Backend, Finding, Kernel, Model
from quantscope.errors import DataError, ModelError
from quantscope.machine import machine
from quantscope.profiling.document import Reason, Tried
from quantscope.profiling.inputs import Inputs
from quantscope.profiling.settings import Settings
from quantscope.profiling.timing import PARTS, gain
from quantscope.progress import Progress


def findings(backend: Backend, model: Model, kernels: Sequence[Kernel], threads: int) -> Sequence[Finding]:
    """Return what the backend finds on this machine, the most costly first."""
    here = machine()
    return backend.findings(model, kernels, threads=threads, cores=here.threads, flags=here.processor.features or ())


def reasons(
    backend: Backend,
    quantized: Model,
    kernels: Sequence[Kernel],
    names: Mapping[str, tuple[str, ...]],
    inputs: Inputs,
    settings: Settings,
    progress: Progress,
) -> tuple[Reason, ...]:
    """Return why the quantized model loses time, what costs most first; those that can be tried, tried.

    Args:
        backend: the model's.
        quantized: the model.
        kernels: what it runs as.
        names: by its ops the reference's.
        inputs: what it is fed.
        settings: how many reasons to try, and how.
        progress: told of the tries.
    """
    threads = settings.threads[0]
    found = findings(backend, quantized, kernels, threads)
    tried: dict[int, Tried] = {}
    to_try = [(number, f.changed) for number, f in enumerate(found) if f.changed is not None][: settings.tries]
    if to_try:
        progress.stage("try reasons", PARTS * len(to_try))
        for number, changed in to_try:
            # What was changed for a try may be a model that the framework refuses: then that reason stays untried.
            with suppress(ModelError, DataError):
                tried[number] = gain(backend, quantized, changed(), inputs, threads, settings.try_seconds, progress)
    return tuple(
        Reason(
            f.rule,
            tuple(dict.fromkeys(name for op in f.ops for name in names.get(op, (op,)))),
            f.title,
            f.evidence,
            f.change,
            f.cost_us,
            tried.get(number),
            f.exact,
        )
        for number, f in enumerate(found)
    )
