"""The main jobs, each a page that reads like the drawing in the README: quantize, diagnose and profile."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from quantscope import sweep
from quantscope.attribution import attribute
from quantscope.backends.base import Backend, Model, Trace
from quantscope.backends.registry import backend_for
from quantscope.calibration import calibrate
from quantscope.diagnosis import Diagnosis
from quantscope.errors import DataError, OutputError, RunFileError, RunInterrupted
from quantscope.images import Preprocessing
from quantscope.machine import processor_name
from quantscope.memory import parsed
from quantscope.pairing import Pairing, TensorPair, pair
from quantscope.plan import Plan, Traced
from quantscope.profiling import Profile
from quantscope.profiling.inputs import InputSource, check_shapes
from quantscope.profiling.measurement import Settings, profile_models
from quantscope.progress import Progress, Silent
from quantscope.quantized import by_op
from quantscope.recipe import Recipe
from quantscope.recorded import Recorded
from quantscope.runfile import SUFFIX, RunFile, graph_json, model_beside
from quantscope.samples import Samples
from quantscope.tracing import Comparison
from quantscope.weights import compare_weights

DEFAULT_CALIBRATION_SAMPLES = 50


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
    chosen = recipe or Recipe()
    chosen.fallback_ops(float_model.graph)
    if output is not None:
        check_writable(backend, Path(output), float_model)
    plan = Plan(calibration_samples=calibration_samples, batch_size=batch_size, threads=threads)
    size = batch_size_for(float_model, plan.batch_size)
    quantized = _quantized(backend, float_model, samples, chosen, split(samples, plan)[0], size, plan, progress)
    if output is not None:
        backend.save(quantized, Path(output))
    return quantized


def diagnose(
    reference: object,
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
    run: str | Path | None = None,
    number_run: bool = False,
    output: str | Path | None = None,
    threads: int = 0,
    trace: Traced = "deployed",
    memory: int | str | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    budget_samples: int | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Return where the quantized model differs from the reference, op by op, and what that does to its accuracy.

    Without `quantized` the reference is calibrated with the first samples and quantized, and the rest are evaluated.

    Args:
        reference: the float model: a path or a model object that a backend accepts.
        quantized: the quantized model, made by any tool.
        data: samples: whatever `Samples.of` accepts, with `labels` and `preprocessing` as there.
        recipe: how to quantize, if `quantized` is None.
        samples: how many samples to evaluate; all if None.
        calibration_samples: how many of the first samples calibrate; half of them, at most 50, if None.
        batch_size: samples per inference; what the model fixes, or 1, if None.
        metric: a built-in metric, "package.module:function", or a function of (outputs, labels) that returns a score
            per sample; chosen by the outputs and labels if None.
        run: the run file to write; nothing is written if None.
        number_run: if the run file exists, add a number to its name.
        output: where to write the quantized model; beside the run file if None.
        threads: for inference and statistics; 0 means all cores.
        trace: "deployed" looks at the kernels that really run, "simulated" at the model with its quantization in float,
            "both" at both, and at where they differ.
        memory: how many bytes of tensors may be held at once, as a number or a text such as "2GiB"; more passes over
            the samples are made where a batch's tensors do not fit. A share of what is free if None.
        workers: processes on this machine that share the samples.
        scheduler: the address of a Dask cluster whose workers share the samples.
        budget_samples: how many samples give the isolated errors, the error budgets and the figures per channel; 4 to
            64, the more the smaller the tensors are, if None.
    Raises:
        QuantscopeError: one of its subclasses, with what is accepted instead.
    """
    progress = progress or Silent()
    backend, float_model, bound = opened(reference, data, labels, preprocessing, progress)
    given = backend.load(quantized, progress) if quantized is not None else None
    if given is None:
        recipe = recipe or Recipe()
        recipe.fallback_ops(float_model.graph)
    plan = Plan(
        calibration_samples, samples, batch_size, metric if isinstance(metric, str) else None, threads, trace,
        parsed(memory) if isinstance(memory, str) else memory, workers, scheduler, budget_samples,
    )  # fmt: skip
    # What can fail for a wrong argument fails here, before anything is written.
    batch_size_for(float_model, plan.batch_size)
    split(bound, plan, given)
    sweep.metric_named(metric)
    target = Path(output) if output is not None else None
    if target is not None and given is None:
        check_writable(backend, target, float_model)
    run_file = RunFile.create(
        Path(run) if run is not None else None,
        numbered=number_run,
        **run_facts(backend, float_model, given, bound, plan, recipe if given is None else None),
    )
    with run_file:
        if target is None and run_file.path is not None:
            target = model_beside(run_file.path, backend.suffix)
        if given is None and target is not None:
            run_file.write_about(output=str(target.resolve()))
        with tidied(run_file, backend, target if given is None and output is None else None):
            return _run(run_file, backend, float_model, given, bound, recipe, plan, metric, progress)


def profile(
    reference: object,
    quantized: object = None,
    *,
    data: object = None,
    preprocessing: Preprocessing | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batches: Sequence[int] | None = None,
    threads: Sequence[int] = (0,),
    seconds: float = 20.0,
    tries: int = 0,
    run: str | Path | None = None,
    number_run: bool = False,
    progress: Progress | None = None,
) -> Profile:
    """Return where the time of a model, or of a float model and its quantized one, goes.

    Args:
        reference: the float model: a path or a model object that a backend accepts; or the path of a run file, whose
            models are profiled and which then holds the profile too.
        quantized: the quantized model, made by any tool.
        data: samples to feed, whatever `Samples.of` accepts; made-up values if None, since times seldom depend on them.
        preprocessing: how photos become arrays.
        shapes: by input the sizes that the model leaves open, the batch axis included.
        batches: batch sizes; what the model fixes, or 1, if None. Times per op are of the first.
        threads: numbers of threads, 0 for the framework's choice. Times per op are of the first.
        seconds: the longest that the latency is measured at each setting; it ends earlier when the ratio of the
            models' times is known within ±3 %.
        tries: so many of the reasons that cost most are tried, and their gain measured.
        run: the run file to write; nothing is written if None.
        number_run: if the run file exists, add a number to its name.
    Raises:
        QuantscopeError: one of its subclasses, with what is accepted instead.
    """
    progress = progress or Silent()
    _check_timing(threads, seconds, tries)
    again = Path(reference) if isinstance(reference, str | Path) and str(reference).endswith(SUFFIX) else None
    if again is not None and (quantized is not None or run is not None):
        raise DataError(
            "a run and another model or run are given", accepted="the run alone: its own models are profiled"
        )
    first, second = _models_of(again) if again is not None else (reference, quantized)
    backend = backend_for(first)
    models = [_loaded(backend, model, progress) for model in (first, second) if model is not None]
    samples = Samples.of(data, preprocessing=preprocessing) if data is not None else None
    inputs = models[0].graph.inputs
    check_shapes(shapes or {}, inputs)
    source = InputSource(inputs, samples.for_inputs(inputs) if samples is not None else None, shapes)
    settings = Settings(source.sizes(batches), tuple(dict.fromkeys(threads)), seconds, tries)
    source.batch(settings.batches[0])
    pair = (models[0], models[1] if len(models) > 1 else None)
    if again is not None:
        made = _profiled(backend, pair, source, settings, progress)
        with RunFile.read(again) as run_file:
            run_file.write_about(profile=made.to_dict())
        return made
    facts = {
        "kind": "profile",
        "data": samples.spec if samples is not None else None,
        "samples": {"description": source.description},
        "environment": environment(backend),
        "graph": graph_json(pair[0].graph),
        "quantized_graph": graph_json(pair[1].graph) if pair[1] is not None else None,
        "models": {
            "reference": identity(backend, pair[0]),
            "quantized": identity(backend, pair[1]) if pair[1] is not None else None,
        },
    }
    run_file = RunFile.create(Path(run) if run is not None else None, numbered=number_run, **facts)
    with run_file, tidied(run_file, backend, None), outcome(run_file):
        made = _profiled(backend, pair, source, settings, Recorded(progress, run_file))
        run_file.write_about(profile=made.to_dict(), status="finished")
        return replace(made, run=str(run_file.path or ""))


def _profiled(
    backend: Backend, models: tuple[Model, Model | None], source: InputSource, settings: Settings, progress: Progress
) -> Profile:
    return replace(profile_models(backend, *models, source, settings, progress), environment=environment(backend))


def _check_timing(threads: Sequence[int], seconds: float, tries: int) -> None:
    """Raise a DataError for settings that mean nothing."""
    if not threads or min(threads) < 0:
        raise DataError(
            f"threads {', '.join(map(str, threads))}", accepted="0 for the framework's choice, or 1 and more"
        )
    if not seconds > 0:
        raise DataError(f"{seconds} seconds to measure", accepted="more than 0")
    if tries < 0:
        raise DataError(f"{tries} reasons to try", accepted="0 or more")


def _models_of(run: Path) -> tuple[str, str | None]:
    """The files of the models of a run: the reference, and the quantized one, given or made."""
    with RunFile.read(run) as run_file:
        models, output = run_file.about("models"), run_file.about("output")
    reference = same_model(models["reference"], run)
    if models["quantized"] is not None:
        return reference, same_model(models["quantized"], run)
    if output is not None and not Path(output).is_file():
        raise RunFileError(
            f"the quantized model of {run} is gone: {output}",
            next_step="give both models: quantscope profile F.onnx Q.onnx",
        )
    return reference, output


def open_profile(run: str | Path) -> Profile | None:
    """Return the profile in a run file; None if there is none.

    Raises:
        RunFileError: the file is missing, damaged or no run file.
    """
    with RunFile.read(Path(run)) as run_file:
        made = run_file.profile()
    return replace(made, run=str(run)) if made is not None else None


@contextmanager
def tidied(run_file: RunFile, backend: Backend, written: Path | None) -> Iterator[None]:
    """If the run ends before anything was measured, leave nothing behind: there is nothing to go on with."""
    try:
        yield
    except BaseException as error:
        found = run_file.samples_compared() or run_file.about("trials") or run_file.about("measured")
        kept = run_file.path is not None and bool(found)
        if not kept:
            run_file.delete()
            for file in backend.files(written) if written is not None else ():
                file.unlink(missing_ok=True)
        if isinstance(error, KeyboardInterrupt):
            raise RunInterrupted(str(run_file.path) if kept else "") from error
        raise


def resume(
    run: str | Path,
    *,
    data: object = None,
    metric: Callable[..., Any] | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Return the diagnosis of an interrupted run, gone on with from its last checkpoint.

    Args:
        run: the run file.
        data: the samples, if they were not given by path or name; the same as before.
        metric: the metric, if it was a function.
    Raises:
        RunFileError: the run is finished or being written, or its model or samples are not what they were.
    """
    with RunFile.resume(Path(run)) as run_file:
        plan = Plan(**run_file.about("plan"))
        quantized = run_file.about("models")["quantized"]
        recipe = Recipe.from_dict(run_file.about("recipe")) if run_file.about("recipe") else None
        backend, float_model, bound = opened_again(run_file, run, data, "quantscope.resume(run, data=...)", progress)
        given = backend.load(same_model(quantized, run), progress) if quantized else None
        return _run(
            run_file,
            backend,
            float_model,
            given,
            bound,
            recipe,
            plan,
            metric or plan.metric,
            progress or Silent(),
        )


def run_facts(
    backend: Backend, reference: Model, quantized: Model | None, samples: Samples, plan: Plan, recipe: Recipe | None
) -> dict[str, Any]:
    """What a run file holds from the beginning, whatever its run is for: enough to go on with it in a later process."""
    return {
        "plan": plan.__dict__,
        "recipe": recipe.to_dict() if recipe is not None else None,
        "data": samples.spec,
        "samples": {"description": samples.description},
        "environment": environment(backend),
        "graph": graph_json(reference.graph),
        "models": {
            "reference": identity(backend, reference),
            "quantized": identity(backend, quantized) if quantized is not None else None,
        },
    }


def opened_again(
    run_file: RunFile, run: str | Path, data: object, call: str, progress: Progress | None = None
) -> tuple[Backend, Model, Samples]:
    """The backend, the float model and the samples of a run that goes on.

    Args:
        data, call: as of `samples_again`.
        progress: as of `Backend.load`.
    Raises:
        RunFileError: the run cannot find its samples by itself, or its model is not what it was.
    """
    source = samples_again(run, run_file.about("data"), data, call)
    return opened(same_model(run_file.about("models")["reference"], run), source, None, None, progress)


def samples_again(run: str | Path, spec: Mapping[str, Any] | None, data: object, call: str) -> object:
    """The samples to go on with: these, or those that the run was given by a path or name.

    Args:
        spec: what the run file says of its samples.
        call: how to give them from Python, for a message.
    Raises:
        RunFileError: the run cannot find its samples by itself.
    """
    if data is not None:
        return data
    if spec is None:
        raise RunFileError(
            f"the samples of {run} were not given by a path or name",
            accepted="runs whose --data was a folder, a file or a function",
            next_step=f"give them from Python: {call}",
        )
    return Samples.from_spec(spec)


def open_run(run: str | Path) -> Diagnosis:
    """Return the diagnosis in a run file, also of a run that goes on or was interrupted.

    Raises:
        RunFileError: the file is missing, damaged or no run file.
    """
    with RunFile.read(Path(run)) as run_file:
        return run_file.diagnosis()


def _run(
    run_file: RunFile,
    backend: Backend,
    reference: Model,
    given: Model | None,
    samples: Samples,
    recipe: Recipe | None,
    plan: Plan,
    metric: str | Callable[..., Any] | None,
    progress: Progress,
) -> Diagnosis:
    """The whole diagnosis from wherever the run file is."""
    progress = Recorded(progress, run_file)
    with outcome(run_file):
        for note in reference.notes:
            run_file.add_note(note)
        size = batch_size_for(reference, plan.batch_size)
        calibration, evaluation = split(samples, plan, given)
        quantized = given or _quantized_once(
            run_file, backend, reference, samples, recipe or Recipe(), calibration, size, plan, progress
        )
        pairing = paired(backend, reference, quantized, "simulated" if plan.trace == "simulated" else "deployed")
        simulated = _simulated(backend, reference, quantized, pairing, plan)
        run_file.write_about(
            quantized_graph=graph_json(quantized.graph),
            skipped=pairing.skipped,
            compute_ops=pairing.compute_ops,
            samples={
                "description": samples.description,
                "calibration": 0 if given is not None else len(calibration),
                "evaluation": len(evaluation),
            },
        )
        compare_weights(run_file, backend, reference, quantized, pairing.pairs, progress)
        comparisons = [
            Comparison.of(pair, simulated.get(pair.reference_name) if plan.trace == "both" else None)
            for pair in pairing.pairs
        ]
        sweep.sweep(
            run_file, backend, reference, quantized, comparisons, samples, evaluation, size, plan,
            metric=metric, progress=progress,
        )  # fmt: skip
        attribute(
            run_file, backend, reference, quantized, comparisons, simulated, samples, evaluation, size, plan, progress
        )
        run_file.write_output_error()
        if samples.skipped:
            run_file.add_note(_unreadable(samples.skipped))
        run_file.write_about(status="finished")
    return run_file.diagnosis()


def paired(backend: Backend, reference: Model, quantized: Model, trace: Trace) -> Pairing:
    return pair(
        reference.graph,
        backend.float_view(quantized, trace),
        by_op(backend.weights(reference)),
        by_op(backend.weights(quantized, trace)),
    )


def _simulated(
    backend: Backend, reference: Model, quantized: Model, pairing: Pairing, plan: Plan
) -> dict[str, TensorPair]:
    """The pairs of the simulated trace by the reference's tensor, if anything will look at them."""
    if plan.trace != "simulated":
        if plan.trace == "deployed" and plan.budget_samples == 0:
            return {}
        pairing = paired(backend, reference, quantized, "simulated")
    return {pair.reference_name: pair for pair in pairing.pairs}


@contextmanager
def outcome(run_file: RunFile) -> Iterator[None]:
    """Note in the run file how the run ended if it did not end well."""
    try:
        yield
    except BaseException as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        # The disk may be full: then the file says what the last checkpoint says.
        with suppress(RunFileError):
            run_file.write_about(status="interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {text}")
        raise


def _quantized_once(
    run_file: RunFile,
    backend: Backend,
    reference: Model,
    samples: Samples,
    recipe: Recipe,
    calibration: range,
    size: int,
    plan: Plan,
    progress: Progress,
) -> Model:
    """The quantized model: the one that an earlier part of this run wrote, or a new one."""
    output = run_file.about("output")
    target = Path(output) if output else None
    digest = run_file.about("quantized_digest")
    if digest and target is not None and target.is_file() and _digest(backend, target) == digest:
        return backend.load(target)
    quantized = _quantized(backend, reference, samples, recipe, calibration, size, plan, progress, run_file)
    for note in quantized.notes:
        run_file.add_note(note)
    if target is not None:
        backend.save(quantized, target)
        run_file.write_about(quantized_digest=_digest(backend, target))
        return replace(quantized, path=target)
    return quantized


def _quantized(
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
        batches = samples.batches(size, start=calibration.start, stop=calibration.stop)
        ranges, notes = calibrate(backend, prepared, recipe, batches, threads=plan.threads, progress=progress.advance)
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


def opened(
    model: object,
    data: object,
    labels: object,
    preprocessing: Preprocessing | None,
    progress: Progress | None = None,
) -> tuple[Backend, Model, Samples]:
    """The backend, the float model, and the samples as its inputs take them."""
    backend = backend_for(model)
    loaded = _loaded(backend, model, progress)
    samples = Samples.of(data, labels=labels, preprocessing=preprocessing)
    return backend, loaded, samples.for_inputs(loaded.graph.inputs)


def _loaded(backend: Backend, model: object, progress: Progress | None) -> Model:
    """The model; what was odd about it is told."""
    loaded = backend.load(model, progress)
    for note in loaded.notes:
        (progress or Silent()).note(note)
    return loaded


def batch_size_for(model: Model, wanted: int | None) -> int:
    """The number of samples per inference: what the model's inputs fix, else what is wanted, else 1.

    Raises:
        DataError: the model fixes another number than the wanted one.
    """
    fixed = {t.shape[0] for t in model.graph.inputs if t.shape and isinstance(t.shape[0], int) and t.shape[0] > 0}
    if not fixed:
        return wanted or 1
    size = min(fixed)
    if wanted is not None and wanted != size:
        raise DataError(
            f"batch size {wanted}, and the model's inputs fix {size}",
            accepted=f"--batch-size {size}, or none",
        )
    return size


def split(samples: Samples, plan: Plan, given: Model | None = None) -> tuple[range, range]:
    """Which samples calibrate and which are evaluated: the first some, and those after them.

    Raises:
        DataError: there are not enough samples.
    """
    if samples.count == 0:
        raise DataError(f"no samples in {samples.description}", accepted="at least one", next_step="check --data")
    first = 0
    if given is None:
        # A single sample has to serve for both.
        first = plan.calibration_samples or min(DEFAULT_CALIBRATION_SAMPLES, samples.count // 2)
        if first >= samples.count > 1:
            raise DataError(
                f"{first} calibration samples of {samples.count} leave none to evaluate",
                accepted=f"--calibration-samples up to {samples.count - 1}",
            )
        if samples.count == 1:
            return range(0, 1), range(0, 1)
    stop = samples.count if plan.samples is None else min(samples.count, first + plan.samples)
    return range(0, first), range(first, stop)


def check_writable(backend: Backend, path: Path, model: Model) -> None:
    """Raise an OutputError if a model made from this one cannot be written there."""
    if not path.parent.is_dir():
        raise OutputError(f"no such folder: {path.parent}", next_step="create it, or choose another with --output")
    if path.is_dir():
        raise OutputError(f"{path} is a folder", accepted="the name of a file")
    if model.path is not None and path.resolve() in {file.resolve() for file in backend.files(model.path)}:
        raise OutputError(
            f"{path} is the float model itself", accepted="another name", next_step="choose one with --output"
        )


def identity(backend: Backend, model: Model) -> dict[str, Any]:
    """What tells a model file from another; no path for a model that was never a file."""
    if model.path is None:
        return {"path": None, "digest": None, "bytes": None}
    return {
        "path": str(model.path.resolve()),
        "digest": _digest(backend, model.path),
        "bytes": sum(file.stat().st_size for file in backend.files(model.path)),
    }


def same_model(identity: Mapping[str, Any], run: str | Path) -> str:
    """Return the path of the model that a run began with.

    Raises:
        RunFileError: the file is gone, or another one by now.
    """
    path = identity["path"]
    if path is None:
        raise RunFileError(f"a model of {run} was never a file", next_step="diagnose it again from Python")
    there = Path(path).exists()
    if not there or _digest(backend_for(path), Path(path)) != identity["digest"]:
        raise RunFileError(
            f"the model of {run} is {'changed' if there else 'missing'}: {path}",
            accepted="the very model that the run began with",
            next_step="bring it back, or begin a new run",
        )
    return str(path)


def _digest(backend: Backend, path: Path) -> str:
    """The digest of a model's first file and, where weights lie in others, of when and how large those were written."""
    first, *others = backend.files(path)
    with first.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    # Gigabytes of weights are not read again for this.
    for beside in sorted(others):
        stat = beside.stat()
        digest.update(f"{beside.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def _unreadable(skipped: Mapping[str, str]) -> str:
    shown = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:5])
    more = f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    were = (
        "1 photo could not be read and was"
        if len(skipped) == 1
        else f"{len(skipped)} photos could not be read and were"
    )
    return f"{were} skipped ({shown}{more})"


def environment(backend: Backend) -> dict[str, str]:
    """What a figure may depend on: versions, processor, system."""
    packages = ("quantscope", *backend.packages, "numpy")
    return {
        **{package: version(package) for package in packages},
        "python": platform.python_version(),
        "processor": processor_name(),
        "system": platform.platform(),
    }
