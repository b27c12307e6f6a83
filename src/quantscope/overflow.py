"""The job of counting, on real samples, what a model loses where pairs of 8-bit products saturate."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantscope import evaluation, workflows
from quantscope.backends.base import Backend, Model, Runner
from quantscope.errors import ModelError
from quantscope.images import Preprocessing
from quantscope.machine import machine
from quantscope.plan import Plan
from quantscope.progress import Progress, Silent
from quantscope.recipe import Recipe
from quantscope.samples import Batch
from quantscope.saturation import Saturation
from quantscope.saturation.counting import Counter
from quantscope.saturation.products import products_of
from quantscope.saturation.propagation import Propagation
from quantscope.tracing import Values, outputs_of, whole_batches

STAGE = "saturation"


def count_saturation(
    model: object,
    quantized: object = None,
    *,
    data: object,
    labels: object = None,
    preprocessing: Preprocessing | None = None,
    recipe: Recipe | None = None,
    samples: int | None = None,
    calibration_samples: int | None = None,
    batch_size: int | None = None,
    metric: str | Callable[..., Any] | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> Saturation:
    """Return which products would saturate on a processor without VNNI, and what that does to the model's outputs.

    Args:
        model: a float model, quantized here if `quantized` is None; or a quantized one alone.
        quantized: the quantized model, made by any tool.
        data: samples: whatever `Samples.of` accepts, with `labels` and `preprocessing` as there.
        recipe: how to quantize, if that is to be done.
        samples: how many samples to look at; all, but those that calibrate, if None.
        calibration_samples, batch_size, metric, threads: as of `quantscope.diagnose`.
    Raises:
        QuantscopeError: one of its subclasses, with what is accepted instead.
    """
    progress = progress or Silent()
    backend, given, bound = workflows.opened(model, data, labels, preprocessing, progress)
    if metric is not None and isinstance(metric, str):
        evaluation.metric(metric)
    plan = Plan(calibration_samples, samples, batch_size, threads=threads)
    size = workflows.batch_size_for(given, batch_size)
    reference: Model | None = given
    if _is_quantized(backend, given):
        if quantized is not None:
            raise ModelError(f"the first of two models is quantized: {model}", accepted="FLOAT.onnx QUANTIZED.onnx")
        reference, subject = None, given
    elif quantized is not None:
        subject = backend.load(quantized, progress)
    else:
        # The samples are counted before minutes of work: there may be too few of them.
        workflows.split(bound, plan)
        subject = workflows.quantize(
            model, data, recipe=recipe, labels=labels, preprocessing=preprocessing,
            calibration_samples=calibration_samples, batch_size=batch_size, threads=threads, progress=progress,
        )  # fmt: skip
    if not backend.integer_products(subject):
        raise ModelError(
            f"no product of the model is computed from 8-bit codes: {quantized or model}",
            accepted="a model quantized to 8 bits, weights and activations",
            next_step="quantscope quantize makes one",
        )
    made = quantized is None and reference is not None
    _, window = workflows.split(bound, plan, None if made else subject)
    products, skipped = products_of(backend, subject)
    here = machine()
    count = threads or here.threads
    batches = whole_batches(bound, given, size, window.start, window.stop, progress)
    progress.stage(STAGE, len(window))
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(count))
        parts = stack.enter_context(Propagation(backend, subject, products, pool, count))
        run_reference = None
        if reference is not None:
            run_reference = stack.enter_context(backend.open(reference, [], trace="optimized", threads=count))
        counter = Counter(products, metric)
        for batch in batches:
            exact = outputs_of(subject, parts.run(batch.inputs, saturate=False, seen=counter.seen))
            changed = outputs_of(subject, parts.run(batch.inputs, saturate=True))
            counter.add(batch, exact, changed, _outputs(reference, run_reference, batch))
            progress.advance(batch.size)
    path = subject.path or (Path(str(given.path)) if given.path is not None else None)
    return replace(
        counter.result(), skipped=skipped, here=here.processor.saturates, processor=here.processor.name,
        model=str(path) if path is not None else "", quantized_here=made,
    )  # fmt: skip


def _is_quantized(backend: Backend, model: Model) -> bool:
    return any(weight.qparams is not None for weight in backend.weights(model))


def _outputs(model: Model | None, runner: Runner | None, batch: Batch) -> Values:
    return outputs_of(model, runner.run(batch.inputs)) if model is not None and runner is not None else {}
