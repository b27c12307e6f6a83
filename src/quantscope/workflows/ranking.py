"""From a float model to its ops in the order of what they do to its output: `sensitivity`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from quantscope.backends.base import Backend, Model
from quantscope.errors import DataError, RunFileError
from quantscope.fallback.groups import By
from quantscope.fallback.measurement import Measured
from quantscope.fallback.sensitivity import MOST_OPS, Sensitivities, Sensitivity
from quantscope.images import Preprocessing
from quantscope.plan import Plan
from quantscope.progress import Progress, Silent
from quantscope.recipe import Recipe
from quantscope.recorded import Recorded
from quantscope.runfile import RunFile
from quantscope.samples import Samples
from quantscope.sweep import metric_named
from quantscope.workflows.quantizer import Quantizer
from quantscope.workflows.runs import batch_size_for, opened, opened_again, outcome, run_facts, settled, split, tidied


def sensitivity(
    model: object,
    *,
    data: object,
    labels: object = None,
    preprocessing: Preprocessing | None = None,
    recipe: Recipe | None = None,
    samples: int | None = None,
    calibration_samples: int | None = None,
    batch_size: int | None = None,
    by: By = "op",
    metric: str | Callable[..., Any] | None = None,
    most_ops: int = MOST_OPS,
    workers: int = 1,
    run: str | Path | None = None,
    number_run: bool = False,
    threads: int = 0,
    progress: Progress | None = None,
) -> Sensitivities:
    """Return how much each op matters at the output of the quantized model, the one that matters most first.

    Args:
        model: the float model: a path or a model object that a backend accepts.
        data: samples: whatever `Samples.of` accepts, with `labels` and `preprocessing` as there.
        recipe, samples, calibration_samples, batch_size, threads: as of `quantscope.diagnose`.
        by: "op", or "scope" for modules as a whole.
        metric: a built-in metric, "package.module:function" or a function of (outputs, labels), of which the damage is
            the drop; the divergence of class scores, or noise over signal, if None.
        most_ops: so many are measured: those that the output's error comes from by estimate.
        workers: processes on this machine that share them.
        run: the run file that remembers what was measured; nothing is written if None.
        number_run: if the run file exists, add a number to its name.
    Raises:
        QuantscopeError: one of its subclasses, with what is accepted instead.
    """
    if most_ops < 1:
        raise DataError(f"{most_ops} ops to measure", accepted="1 or more")
    metric_named(metric)
    backend, float_model, bound = opened(model, data, labels, preprocessing, progress)
    recipe = settled(backend, float_model, recipe)
    name = metric if isinstance(metric, str) else None
    plan = Plan(calibration_samples, samples, batch_size, name, threads, workers=workers, budget_samples=0)
    batch_size_for(float_model, plan.batch_size)
    split(bound, plan)
    run_file = RunFile.create(
        Path(run) if run is not None else None,
        numbered=number_run,
        kind="sensitivity",
        asked={"most_ops": most_ops, "by": by},
        **run_facts(backend, float_model, None, bound, plan, recipe),
    )
    with run_file, tidied(run_file, backend, None):
        return _measured(run_file, backend, float_model, bound, plan, metric, progress or Silent())


def resume_sensitivity(
    run: str | Path,
    *,
    data: object = None,
    metric: Callable[..., Any] | None = None,
    progress: Progress | None = None,
) -> Sensitivities:
    """Return what an interrupted run was to measure; what it has measured is not measured again.

    Raises:
        RunFileError: the run is of another kind, is finished, is being written, or its model is not what it was.
    """
    with RunFile.resume(Path(run)) as run_file:
        if run_file.about("kind") != "sensitivity":
            raise RunFileError(f"{run} holds no sensitivity", next_step=f"see what it holds: quantscope show {run}")
        backend, float_model, bound = opened_again(
            run_file, run, data, "quantscope.resume_sensitivity(run, data=...)", progress
        )
        plan = Plan(**run_file.about("plan"))
        return _measured(
            run_file, backend, float_model, bound, plan, metric or plan.metric, progress or Silent()
        )  # fmt: skip


def open_sensitivity(run: str | Path) -> Sensitivities | None:
    """Return what a run file measured; None if it is of another kind, or not finished.

    Raises:
        RunFileError: the file is missing, damaged or no run file.
    """
    with RunFile.read(Path(run)) as run_file:
        found = run_file.about("sensitivities") if run_file.about("kind") == "sensitivity" else None
        if found is None:
            return None
        rows = tuple(Sensitivity(**{**row, "ops": tuple(row["ops"])}) for row in found["ops"])
        return Sensitivities(**{**found, "ops": rows, "others": tuple(found["others"]), "run": str(run)})


def _measured(
    run_file: RunFile,
    backend: Backend,
    model: Model,
    samples: Samples,
    plan: Plan,
    metric: str | Callable[..., Any] | None,
    progress: Progress,
) -> Sensitivities:
    progress = Recorded(progress, run_file)
    with outcome(run_file):
        calibration, evaluated = split(samples, plan)
        quantizer = Quantizer(
            backend, model, samples, calibration,
            batch_size=batch_size_for(model, plan.batch_size), threads=plan.threads, progress=progress,
        )  # fmt: skip
        asked = run_file.about("asked")
        found = effects(
            run_file, quantizer, Recipe.from_dict(run_file.about("recipe")), evaluated,
            most_ops=asked["most_ops"], by=asked["by"], metric=metric, workers=plan.workers,
        )  # fmt: skip
        found = replace(found, run=str(run_file.path or ""))
        run_file.write_about(sensitivities=asdict(found), status="finished")
    return found


def effects(
    run_file: RunFile,
    quantizer: Quantizer,
    recipe: Recipe,
    window: range,
    *,
    most_ops: int = MOST_OPS,
    by: By = "op",
    metric: str | Callable[..., Any] | None = None,
    workers: int = 1,
) -> Sensitivities:
    """The effect of each op under a recipe; the run file remembers each that was measured, and those are not again."""
    written: dict[str, Any] = run_file.about("measured") or {}
    known = {
        name: Measured(tuple(value["alone"]), tuple(value["left"]) if value["left"] is not None else None)
        for name, value in written.items()
    }

    def note(name: str, measured: Measured) -> None:
        written[name] = asdict(measured)
        run_file.write_about(measured=written)

    return quantizer.sensitivities(
        recipe, window, most_ops=most_ops, by=by, metric=metric, workers=workers, known=known, note=note
    )
