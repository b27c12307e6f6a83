"""From a float model to a quantized one: `quantize`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from quantscope.backends.base import Backend, Model
from quantscope.calibration import calibrate
from quantscope.images import Preprocessing
from quantscope.plan import Plan
from quantscope.progress import Progress, Silent
from quantscope.recipe import Recipe
from quantscope.runfile import RunFile
from quantscope.samples import Samples
from quantscope.workflows.runs import batch_size_for, check_writable, opened, settled, split


def quantize(
    model: object,
    data: object,
    output: str | Path | None = None,
    *,
    recipe: Recipe | None = None,
    labels: object = None,
    preprocessing: Preprocessing | None = None,
    calibration_samples: int | None = None,
    batch_size: int | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> Model:
    """Return the model, calibrated with the samples and quantized; write it to `output` if that is given.

    Args:
        model: the path of a float model, or a model object that a backend accepts.
        data: samples: whatever `Samples.of` accepts, with `labels` and `preprocessing` as there.
        output: the file to write.
        recipe: what each op shall get; int8 QDQ, weights per channel, if None.
        calibration_samples: how many of the first samples calibrate; half of them, at most 50, if None.
        batch_size: samples per inference; what the model fixes, or 1, if None.
        threads: for inference; 0 means all cores.
    Raises:
        ModelError, DataError, RecipeError, OutputError: with what is accepted instead.
    """
    progress = progress or Silent()
    backend, float_model, samples = opened(model, data, labels, preprocessing, progress)
    chosen = settled(backend, float_model, recipe)
    if output is not None:
        check_writable(backend, Path(output), float_model)
    plan = Plan(calibration_samples=calibration_samples, batch_size=batch_size, threads=threads)
    size = batch_size_for(float_model, plan.batch_size)
    quantized = quantized_model(backend, float_model, samples, chosen, split(samples, plan)[0], size, plan, progress)
    if output is not None:
        backend.save(quantized, Path(output))
    return quantized


def quantized_model(
    backend: Backend,
    model: Model,
    samples: Samples,
    recipe: Recipe,
    calibration: range,
    size: int,
    plan: Plan,
    progress: Progress,
    run_file: RunFile | None = None,
) -> Model:
    with _stage("prepare", None, progress, run_file):
        prepared = backend.prepare(model)
        if recipe.equalize:
            prepared = backend.equalize(prepared)
    with _stage("calibrate", len(calibration), progress, run_file):
        batches = partial(samples.batches, size, start=calibration.start, stop=calibration.stop)
        ranges, notes = calibrate(
            backend, prepared, recipe, batches,
            threads=plan.threads, memory_bytes=plan.memory_bytes, progress=progress.advance,
        )  # fmt: skip
    with _stage("quantize", None, progress, run_file):
        quantized = backend.quantize(prepared, recipe, ranges)
    quantized = replace(quantized, notes=(*quantized.notes, *notes))
    for note in quantized.notes:
        if note not in model.notes:
            progress.note(note)
    return quantized


@contextmanager
def _stage(name: str, total: int | None, progress: Progress, run_file: RunFile | None) -> Iterator[None]:
    """Announce a stage, and note in the run file that it is done."""
    progress.stage(name, total)
    began = time.monotonic()
    if run_file is not None:
        run_file.write_stage(name, 0, total)
    yield
    if run_file is not None:
        run_file.write_stage(name, total or 0, total, finished=True, seconds=time.monotonic() - began)
