"""quantscope sensitivity."""

from __future__ import annotations

import json as encoder
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from quantscope.cli import options as o
from quantscope.cli.expansion import expanded
from quantscope.errors import DataError

_EPILOG = """[bold]Examples[/bold]

What each op does to the output, alone:
  quantscope sensitivity model.onnx --data samples.npz --per-tensor --top 20

A large graph, module by module, on four processes:
  quantscope sensitivity model.onnx --data samples.npz --by scope --workers 4

The damage as the drop of your own metric:
  quantscope sensitivity model.onnx --data my.loader:batches --metric my.scores:f1

Go on with one that was interrupted:
  quantscope sensitivity --resume model.sensitivity.qscope
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG.replace("\n  ", "\n\n  "))(sensitivity)


@expanded
def sensitivity(
    context: typer.Context,
    model: Annotated[Path | None, typer.Argument(help=o.FLOAT_MODEL)] = None,
    data: o.Data = None,
    by: Annotated[
        Literal["op", "scope"],
        typer.Option("--by", rich_help_panel="Measurement", help="Single ops, or whole modules."),
    ] = "op",
    most_ops: Annotated[
        int,
        typer.Option(
            "--ops",
            metavar="N",
            rich_help_panel="Measurement",
            help="Measure N ops: those that the output's error comes from by estimate.",
        ),
    ] = 64,
    metric: o.Metric = None,
    labels: o.Labels = None,
    samples: o.SampleCount = None,
    calibration_samples: o.CalibrationSamples = None,
    batch_size: o.BatchSize = None,
    photos: o.Photos = o.ARRAYS,
    quantization: o.Quantization = o.INT8,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", rich_help_panel="Run", help="The run file. [default: MODEL.sensitivity.qscope, numbered]"
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", rich_help_panel="Run", help="Go on with one that was interrupted."),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", rich_help_panel="Run", help="Processes that share the ops.")
    ] = 1,
    threads: o.Threads = 0,
    top: o.Top = 10,
    all: o.All = False,
    json: o.Json = False,
) -> None:
    """Rank ops by what they do to the model's output: each one alone quantized, and each one alone left in float."""
    from quantscope.cli.diagnose import interruptible
    from quantscope.cli.progress import ProgressBars
    from quantscope.workflows import ranking

    o.check_top(top)
    if resume is not None:
        if model is not None:
            raise DataError("both a model and --resume are given", accepted="one of them")
        with interruptible("sensitivity"), ProgressBars() as progress:
            found = ranking.resume_sensitivity(resume, progress=progress)
    else:
        if model is None or data is None:
            raise DataError(
                "no model is given" if model is None else "no samples are given: --data is missing",
                accepted="quantscope sensitivity MODEL.onnx --data SOURCE",
                next_step="quantscope sensitivity --help shows examples",
            )
        preprocessing = photos.preprocessing()
        recipe = quantization.recipe(context)
        with interruptible("sensitivity"), ProgressBars() as progress:
            found = ranking.sensitivity(
                model, data=data, labels=labels, preprocessing=preprocessing, recipe=recipe, samples=samples,
                calibration_samples=calibration_samples, batch_size=batch_size, by=by, metric=metric,
                most_ops=most_ops, workers=workers, run=run or Path(f"{model.stem}.sensitivity.qscope"),
                number_run=run is None, threads=threads, progress=progress,
            )  # fmt: skip
    print_sensitivity(found, None if all else top, json)


def print_sensitivity(found: object, top: int | None, json: bool) -> None:
    """Print the ops in their order, or all that was measured as JSON."""
    from quantscope.fallback.sensitivity import Sensitivities
    from quantscope.report.search import sensitivity_table
    from quantscope.report.tables import strict
    from quantscope.report.terminal import console

    assert isinstance(found, Sensitivities)
    if json:
        sys.stdout.write(encoder.dumps(strict(asdict(found)), indent=2) + "\n")
        return
    out = console()
    out.print(sensitivity_table(found, top))
    if found.run:
        out.print(f"run file: {found.run}", soft_wrap=True, markup=False)
