"""quantscope doctor."""

from __future__ import annotations

import json as encoder
import sys
from pathlib import Path
from typing import Annotated

import typer

from quantscope.cli import options as o
from quantscope.cli.expansion import expanded
from quantscope.errors import DataError

_EPILOG = """[bold]Examples[/bold]

What this machine can do for int8, and what to choose for it:
  quantscope doctor

What a quantized model would lose on processors without VNNI:
  quantscope doctor model.int8.onnx --data samples.npz

The same beside the float model, or quantized for it:
  quantscope doctor model.onnx model.int8.onnx --data samples.npz
  quantscope doctor model.onnx --data samples.npz --reduce-range
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG.replace("\n  ", "\n\n  "))(doctor)


@expanded
def doctor(
    context: typer.Context,
    model: Annotated[
        Path | None, typer.Argument(help="A quantized model, or a float one. Without it the machine is looked at.")
    ] = None,
    quantized: Annotated[
        Path | None, typer.Argument(help="The quantized model of a float one; made with the options here if left out.")
    ] = None,
    no_measure: Annotated[
        bool,
        typer.Option("--no-measure", rich_help_panel="Machine", help="Only read what the machine says of itself."),
    ] = False,
    data: o.Data = None,
    labels: o.Labels = None,
    samples: o.SampleCount = None,
    calibration_samples: o.CalibrationSamples = None,
    batch_size: o.BatchSize = None,
    metric: o.Metric = None,
    photos: o.Photos = o.ARRAYS,
    quantization: o.Quantization = o.INT8,
    threads: o.Threads = 0,
    top: o.Top = 10,
    all: o.All = False,
    json: o.Json = False,
) -> None:
    """Say what this machine can do for int8 and what to choose, or count what a model loses where sums saturate.

    Processors without VNNI add pairs of 8-bit products in 16 bits. With a model and samples, doctor counts the pairs
    that do not fit, op by op, and runs the model with them, whatever this machine's own processor does.
    """
    from quantscope.cli.progress import ProgressBars
    from quantscope.report import checkup
    from quantscope.report.tables import strict
    from quantscope.report.terminal import console

    o.check_top(top)
    if model is None:
        if data is not None:
            raise DataError(
                "samples are given, and no model", accepted="quantscope doctor MODEL.onnx --data SOURCE, or no argument"
            )
        from quantscope.doctor import examine

        with ProgressBars() as progress:
            found = examine(measure=not no_measure, progress=progress)
        if json:
            sys.stdout.write(encoder.dumps(strict(found.to_dict()), indent=2) + "\n")
        else:
            checkup.print_checkup(console(), found)
        return
    if data is None:
        raise DataError(
            "no samples are given: --data is missing",
            accepted="quantscope doctor MODEL.onnx --data SOURCE",
            next_step="quantscope doctor --help shows examples",
        )
    from quantscope.workflows.saturation import count_saturation

    preprocessing = photos.preprocessing()
    recipe = quantization.recipe(context)
    with ProgressBars() as progress:
        counted = count_saturation(
            model, quantized, data=data, labels=labels, preprocessing=preprocessing, recipe=recipe, samples=samples,
            calibration_samples=calibration_samples, batch_size=batch_size, metric=metric, threads=threads,
            progress=progress,
        )  # fmt: skip
    if json:
        sys.stdout.write(encoder.dumps(strict(counted.to_dict()), indent=2) + "\n")
    else:
        checkup.print_saturation(console(), counted, None if all else top)
