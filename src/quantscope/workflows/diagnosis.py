"""From two models, or one, to the ops that hurt: `diagnose`, gone on with by `resume`, looked at by `open_run`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantscope import sweep
from quantscope.attribution import attribute
from quantscope.backends.base import Backend, Model, Trace
from quantscope.diagnosis import Diagnosis
from quantscope.images import Preprocessing
from quantscope.memory import parsed
from quantscope.pairing import Pairing, TensorPair, pair
from quantscope.plan import Plan, Traced
from quantscope.progress import Progress, Silent
from quantscope.quantized import by_op
from quantscope.recipe import Recipe
from quantscope.recorded import Recorded
from quantscope.runfile import RunFile, graph_json, model_beside
from quantscope.samples import Samples
from quantscope.tracing import Comparison
from quantscope.weights import compare_weights
from quantscope.workflows.quantization import quantized_model
from quantscope.workflows.runs import (
    batch_size_for,
    check_writable,
    digest,
    loaded_model,
    opened,
    opened_again,
    outcome,
    run_facts,
    same_model,
    settled,
    split,
    tidied,
)


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
    given = loaded_model(backend, quantized, progress) if quantized is not None else None
    if given is None:
        recipe = settled(backend, float_model, recipe)
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
        for note in (*reference.notes, *(given.notes if given is not None else ())):
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
    known = run_file.about("quantized_digest")
    if known and target is not None and target.is_file() and digest(backend, target) == known:
        return backend.load(target)
    quantized = quantized_model(backend, reference, samples, recipe, calibration, size, plan, progress, run_file)
    for note in quantized.notes:
        run_file.add_note(note)
    if target is not None:
        backend.save(quantized, target)
        run_file.write_about(quantized_digest=digest(backend, target))
        return replace(quantized, path=target)
    return quantized


def _unreadable(skipped: Mapping[str, str]) -> str:
    shown = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:5])
    more = f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    were = (
        "1 photo could not be read and was"
        if len(skipped) == 1
        else f"{len(skipped)} photos could not be read and were"
    )
    return f"{were} skipped ({shown}{more})"
