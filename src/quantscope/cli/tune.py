"""quantscope tune."""

from __future__ import annotations

import json as encoder
import math
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from quantscope.cli import options as o
from quantscope.cli.expansion import expanded
from quantscope.errors import DataError

_EPILOG = """[bold]Examples[/bold]

Lose at most one point of top-1:
  quantscope tune resnet50.onnx --data imagenet/ --preset imagenet-torch --max-drop 0.01

Lose at most 1 % of your own metric, from your own recipe:
  quantscope tune model.onnx --data my.loader:batches --metric my.scores:f1 --relative --recipe recipe.toml

Keep one scale per weight tensor and 8 bits, whatever it costs:
  quantscope tune model.onnx --data samples.npz --per-tensor --moves calibration,equalization

Find the fastest model within the allowed drop; every trial is timed against the float model:
  quantscope tune model.onnx --data samples.npz --max-drop 0.01 --latency

Go on with a search that was interrupted:
  quantscope tune --resume model.tune.qscope
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG.replace("\n  ", "\n\n  "))(tune)


@expanded
def tune(
    context: typer.Context,
    model: Annotated[Path | None, typer.Argument(help=o.FLOAT_MODEL)] = None,
    data: o.Data = None,
    max_drop: Annotated[
        float, typer.Option("--max-drop", rich_help_panel="Search", help="How much the metric may drop.")
    ] = 0.01,
    relative: Annotated[
        bool,
        typer.Option("--relative", rich_help_panel="Search", help="The drop is a share of the float model's value."),
    ] = False,
    most_trials: Annotated[
        int, typer.Option("--trials", metavar="N", rich_help_panel="Search", help="Try at most N recipes.")
    ] = 40,
    minutes: Annotated[
        float, typer.Option("--minutes", rich_help_panel="Search", help="Begin no trial after so many minutes.")
    ] = math.inf,
    moves: Annotated[
        str,
        typer.Option(
            "--moves",
            metavar="LIST",
            rich_help_panel="Search",
            help="What may change before ops are left in float, separated by commas; '' for nothing.",
        ),
    ] = "calibration,per-channel,equalization,16-bit",
    latency: Annotated[
        bool,
        typer.Option(
            "--latency",
            rich_help_panel="Search",
            help="Find the fastest model within the allowed drop: time every trial against the float model, and leave "
            "ops in float that are faster so.",
        ),
    ] = False,
    time: Annotated[
        float,
        typer.Option(
            "--time",
            metavar="SECONDS",
            rich_help_panel="Search",
            help="With --latency: the longest that each trial is timed; less when its speed-up is known within ±3 %.",
        ),
    ] = 4.0,
    labels: o.Labels = None,
    samples: o.SampleCount = None,
    calibration_samples: o.CalibrationSamples = None,
    batch_size: o.BatchSize = None,
    metric: o.Metric = None,
    photos: o.Photos = o.ARRAYS,
    quantization: o.Quantization = o.INT8,
    run: Annotated[
        Path | None,
        typer.Option("--run", rich_help_panel="Run", help="The run file. [default: MODEL.tune.qscope, numbered]"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", rich_help_panel="Run", help="The best model. [default: RUN.int8.onnx]"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", rich_help_panel="Run", help="Go on with an interrupted search."),
    ] = None,
    threads: o.Threads = 0,
    json: o.Json = False,
) -> None:
    """Find the recipe that keeps most ops quantized, or is fastest, and loses no more accuracy than allowed.

    Tries other calibrations, weights per channel, equalization and 16 bits; then leaves ops in float, in the order of
    their effect on the model's output. Writes the model and its recipe. Exit code 1: nothing that was tried is enough.
    """
    from quantscope.cli.diagnose import interruptible
    from quantscope.cli.progress import ProgressBars
    from quantscope.workflows import tuning

    if resume is not None:
        if model is not None:
            raise DataError("both a model and --resume are given", accepted="one of them")
        with interruptible("tune"), ProgressBars() as progress:
            found = tuning.resume_tuning(resume, progress=progress)
    else:
        if model is None or data is None:
            raise DataError(
                "no model is given" if model is None else "no samples are given: --data is missing",
                accepted="quantscope tune MODEL.onnx --data SOURCE",
                next_step="quantscope tune --help shows examples",
            )
        preprocessing = photos.preprocessing()
        recipe = quantization.recipe(context)
        with interruptible("tune"), ProgressBars() as progress:
            found = tuning.tune(
                model, data=data, max_drop=max_drop, relative=relative, labels=labels, preprocessing=preprocessing,
                recipe=recipe, samples=samples, calibration_samples=calibration_samples, batch_size=batch_size,
                metric=metric, most_trials=most_trials, most_seconds=minutes * 60,
                moves=[move.strip() for move in moves.split(",") if move.strip()],
                latency=latency, latency_seconds=time, run=run or Path(f"{model.stem}.tune.qscope"),
                number_run=run is None, output=output, threads=threads, progress=progress,
            )  # fmt: skip
    print_search(found, json)
    if not found.met:
        raise typer.Exit(1)


def print_search(found: object, json: bool) -> None:
    """Print the trials, or the search as JSON."""
    from quantscope.fallback.search import Search, as_dict
    from quantscope.report.search import search_table
    from quantscope.report.tables import strict
    from quantscope.report.terminal import console

    assert isinstance(found, Search)
    if json:
        sys.stdout.write(encoder.dumps(strict(dict(as_dict(found))), indent=2) + "\n")
        return
    out = console()
    out.print(search_table(found))
    for name, path in (("model", found.model), ("recipe", found.recipe_file), ("run file", found.run)):
        if path:
            out.print(f"{name}: {path}", soft_wrap=True, markup=False)
    if found.recipe_file and found.met:
        out.print(
            f"look at it: quantscope diagnose MODEL --data SOURCE --recipe {shlex.quote(found.recipe_file)}",
            soft_wrap=True,
        )
