"""Counts on real samples which pairs of products would saturate, and what becomes of the model's outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope import evaluation, workflows
from quantscope.backends.base import Backend, Model, Runner
from quantscope.errors import DataError, ModelError
from quantscope.images import Preprocessing
from quantscope.machine import machine
from quantscope.plan import Plan
from quantscope.progress import Progress, Silent
from quantscope.recipe import Recipe
from quantscope.samples import Batch
from quantscope.saturation.document import OpSaturation, OutputChange, Saturation
from quantscope.saturation.pairs import Loss
from quantscope.saturation.products import Product, products_of
from quantscope.saturation.propagation import Propagation
from quantscope.statistics import ErrorStatistics
from quantscope.tracing import Values, outputs_of, whole_batches

STAGE = "saturation"
_ROUNDED = 0.25


def saturation(
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
    backend, given, bound = workflows.opened(model, data, labels, preprocessing)
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
        subject = backend.load(quantized)
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
        counter = _Counter(products, metric)
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


class _Counter:
    """Sums over all batches."""

    def __init__(self, products: list[Product], metric: str | Callable[..., Any] | None) -> None:
        self._products = products
        self._metric = metric
        self._counts = np.zeros((len(products), 4), np.int64)
        self._energies = np.zeros((len(products), 2))
        self._changes: dict[str, tuple[ErrorStatistics, ErrorStatistics, ErrorStatistics]] = {}
        self._chosen: tuple[str, evaluation.Metric] | None = None
        self._scores: tuple[list[float], list[float]] = ([], [])
        self._decisions = [0, 0]
        self._samples = 0

    def seen(self, number: int, loss: Loss, exact: NDArray[Any], lost: NDArray[Any]) -> None:
        """Add what one product lost."""
        self._counts[number] += (loss.pairs, loss.saturated, loss.values.size, loss.changed)
        self._energies[number] += [float(np.vdot(v, v)) for v in (exact.astype(np.float64), lost.astype(np.float64))]

    def add(self, batch: Batch, exact: Values, changed: Values, reference: Values) -> None:
        """Add the outputs of one batch."""
        self._samples += batch.size
        for name, x in exact.items():
            if x.dtype.kind != "f":
                continue
            change, to_exact, to_changed = self._changes.setdefault(name, _three())
            change.update(x, changed[name])
            if name in reference and reference[name].shape == x.shape:
                to_exact.update(reference[name], x)
                to_changed.update(reference[name], changed[name])
        first, other = next(iter(exact.values())), next(iter(changed.values()))
        if _decides(first):
            self._decisions[0] += int((first.argmax(-1) != other.argmax(-1)).sum())
            self._decisions[1] += first.size // first.shape[-1]
        self._chosen = self._chosen or evaluation.chosen(self._metric, exact, batch.labels)
        metric = self._chosen[1]
        self._scores[0].extend(metric(exact, batch.labels, exact).tolist())
        self._scores[1].extend(metric(changed, batch.labels, exact).tolist())

    def result(self) -> Saturation:
        """The figures, without what is known of the machine and the model.

        Raises:
            DataError: there was no sample.
        """
        if not self._samples:
            raise DataError("no whole batch of samples", accepted="at least one", next_step="check --samples")
        rows = [
            OpSaturation(
                product.op.name, product.op.op_type, int(counts[0]), int(counts[1]), int(counts[2]), int(counts[3]),
                _decibel(*energies),
            )
            for product, counts, energies in zip(self._products, self._counts, self._energies, strict=True)
        ]  # fmt: skip
        outputs = tuple(
            OutputChange(
                name, change.sqnr_db, *((e.sqnr_db, c.sqnr_db) if e.count else (None, None))
            )
            for name, (change, e, c) in self._changes.items()
        )  # fmt: skip
        score = None
        if self._chosen is not None:
            score = evaluation.score(self._chosen[0], *self._scores)
        wrong, decisions = self._decisions
        return Saturation(
            tuple(rows), {}, outputs, score, wrong / decisions if decisions else None, self._samples, False, ""
        )  # fmt: skip


def _three() -> tuple[ErrorStatistics, ErrorStatistics, ErrorStatistics]:
    return ErrorStatistics(), ErrorStatistics(), ErrorStatistics()


def _decibel(energy: float, noise: float) -> float:
    if not noise:
        return math.inf
    return 10 * math.log10(energy / noise) if energy else -math.inf


def _decides(scores: NDArray[Any]) -> bool:
    """True if the last axis holds scores of classes: one row per sample, or probabilities."""
    if scores.ndim < 2 or scores.shape[-1] < 2 or not scores.size:
        return False
    # Probabilities that were rounded to codes do not quite sum to 1.
    return scores.ndim == 2 or bool(np.abs(scores.sum(-1) - 1).max() < _ROUNDED and scores.min() >= 0)
