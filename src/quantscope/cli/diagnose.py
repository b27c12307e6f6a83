"""quantscope diagnose."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantscope.cli import options as o
from quantscope.cli.expansion import expanded
from quantscope.errors import DataError, RunInterrupted

if TYPE_CHECKING:
    from quantscope.diagnosis import Diagnosis

_EPILOG = """[bold]Examples[/bold]

Quantize a model and see the damage:
  quantscope diagnose resnet50.onnx --data imagenet/ --preset imagenet-torch

Compare with a quantized model that any tool made:
  quantscope diagnose float.onnx int8.onnx --data samples.npz

Samples from your own code, and your own metric:
  quantscope diagnose model.onnx --data my.loader:batches --metric my.scores:f1

Leave two ops in float and look again:
  quantscope diagnose model.onnx --data samples.npz --fallback '/head/*' --fallback-type Softmax

Where the kernels that really run differ from the simulation, on four processes:
  quantscope diagnose float.onnx int8.onnx --data samples.npz --trace both --workers 4

Go on with a run that was interrupted:
  quantscope diagnose --resume model.qscope
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG.replace("\n  ", "\n\n  "))(diagnose)


@expanded
def diagnose(
    context: typer.Context,
    reference: Annotated[Path | None, typer.Argument(help=o.FLOAT_MODEL)] = None,
    quantized: Annotated[
        Path | None,
        typer.Argument(help="The quantized model, made by any tool; without it quantscope makes one."),
    ] = None,
    data: o.Data = None,
    labels: o.Labels = None,
    samples: o.SampleCount = None,
    calibration_samples: o.CalibrationSamples = None,
    batch_size: o.BatchSize = None,
    metric: o.Metric = None,
    photos: o.Photos = o.ARRAYS,
    quantization: o.Quantization = o.INT8,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", rich_help_panel="Run", help="The run file. [default: MODEL.qscope, numbered if that exists]"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            rich_help_panel="Run",
            help="Where to write the quantized model. [default: RUN.int8.onnx]",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", rich_help_panel="Run", help="Go on with an interrupted run."),
    ] = None,
    threads: o.Threads = 0,
    trace: o.Trace = "deployed",
    memory: o.Memory = None,
    workers: o.Workers = 1,
    scheduler: o.Scheduler = None,
    budget_samples: o.BudgetSamples = None,
    open: Annotated[
        bool, typer.Option("--open", rich_help_panel="Run", help="Open the web app on the run while it goes on.")
    ] = False,
    top: o.Top = 10,
    all: o.All = False,
    sort: o.Sort = o.DEFAULT_SORT,
    json: o.Json = False,
) -> None:
    """Show where a quantized model differs from its float model, op by op, and what that does to its accuracy.

    With one model: calibrate, quantize, evaluate both, compare every op. With two: compare the pair.
    """
    from quantscope import workflows
    from quantscope.cli.progress import ProgressBars
    from quantscope.cli.serve import served
    from quantscope.runfile import first_free

    o.check_sort(sort)
    o.check_top(top)
    if open:
        place = resume or run or (first_free(Path(f"{reference.stem}.qscope")) if reference is not None else Path())
        with served(place):
            context.invoke(diagnose, **{**context.params, "context": context, "open": False})
        return
    if resume is not None:
        if reference is not None:
            raise DataError("both a model and --resume are given", accepted="one of them")
        with interruptible(), ProgressBars() as progress:
            result = workflows.resume(resume, progress=progress)
    else:
        if reference is None:
            raise DataError("no model is given", accepted="quantscope diagnose MODEL.onnx --data SOURCE")
        if data is None:
            raise DataError(
                "no samples are given: --data is missing",
                accepted="a folder of photos, an .npz or .npy file, or package.module:function",
                next_step="quantscope diagnose --help shows examples",
            )
        preprocessing = photos.preprocessing()
        recipe = quantization.recipe(context)
        with interruptible(), ProgressBars() as progress:
            result = workflows.diagnose(
                reference, quantized, data=data, labels=labels, preprocessing=preprocessing, recipe=recipe,
                samples=samples, calibration_samples=calibration_samples, batch_size=batch_size, metric=metric,
                run=run or Path(f"{reference.stem}.qscope"), number_run=run is None,
                output=output, threads=threads, trace=trace, memory=memory, workers=workers, scheduler=scheduler,
                budget_samples=budget_samples, progress=progress,
            )  # fmt: skip
    print_diagnosis(result, None if all else top, sort, json, next_steps(result, given=quantized is not None))


def next_steps(diagnosis: Diagnosis, *, given: bool) -> list[str]:
    """What to do next, each with a command to copy."""
    run = shlex.quote(diagnosis.run)
    steps = ["Follow the error through the model, op by op:", f"  quantscope show {run} --sort order --all"]
    sources = [source.row for source in diagnosis.failure_sources if source.row.is_quantized]
    worst = next((t for t in (*sources, *diagnosis.activations) if t.is_quantized), None)
    if not given and worst is not None and "--resume" not in sys.argv:
        again = shlex.join(["quantscope", *sys.argv[1:]])
        steps += [
            f"Leave {'the failure source' if sources else 'the op with the largest error'} in float, and look what "
            "that brings:",
            f"  {again} --fallback {shlex.quote(worst.op)}",
        ]
        if diagnosis.recipe is not None and diagnosis.recipe.calibration.method == "minmax" and "--recipe" not in again:
            steps += ["Try ranges without outliers:", f"  {again} --calibration entropy"]
    steps += ["Be advised what to change, and what that brings:", f"  quantscope advise {run} --verify"]
    steps += ["See whether it is faster, and why not:", f"  quantscope profile {run}"]
    return [*steps, "Take all columns elsewhere:", f"  quantscope export {run} --format csv"]


def print_diagnosis(diagnosis: Diagnosis, top: int | None, sort: str, json: bool, next_steps: list[str]) -> None:
    """Print the tables, or the document as JSON."""
    from quantscope.report import tables, terminal

    if json:
        sys.stdout.write(tables.as_json(diagnosis).decode())
        return
    terminal.print_summary(terminal.console(), diagnosis, top=top, sort=sort, next_steps=next_steps)


@contextmanager
def interruptible(command: str = "diagnose") -> Iterator[None]:
    """On Ctrl-C say how to go on."""
    try:
        yield
    except RunInterrupted as error:
        if error.run:
            sys.stderr.write(f"interrupted; go on with: quantscope {command} --resume {shlex.quote(error.run)}\n")
        else:
            sys.stderr.write("interrupted before a sample was compared: nothing was written\n")
        raise
