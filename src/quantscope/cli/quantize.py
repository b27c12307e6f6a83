"""quantscope quantize."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from quantscope.cli import options as o
from quantscope.cli.expansion import expanded

_EPILOG = """[bold]Examples[/bold]

  quantscope quantize model.onnx model.int8.onnx --data samples.npz

  quantscope quantize model.onnx model.int8.onnx --data photos/ --preset imagenet-torch --format qoperator
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(quantize)


@expanded
def quantize(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help=o.FLOAT_MODEL)],
    output: Annotated[Path, typer.Argument(help="The quantized model to write.")],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            "-d",
            metavar="SOURCE",
            help="A folder of photos, an .npz or .npy file, or package.module:function.",
        ),
    ],
    calibration_samples: o.CalibrationSamples = None,
    batch_size: o.BatchSize = None,
    photos: o.Photos = o.ARRAYS,
    quantization: o.Quantization = o.INT8,
    threads: o.Threads = 0,
    json: o.Json = False,
) -> None:
    """Calibrate a float model with samples and write its quantized form."""
    from quantscope import workflows
    from quantscope.backends.registry import backend_for
    from quantscope.cli.progress import ProgressBars

    recipe = quantization.recipe(context)
    with ProgressBars() as progress:
        quantized = workflows.quantize(
            model, data, output, recipe=recipe,
            preprocessing=photos.preprocessing(),
            calibration_samples=calibration_samples, batch_size=batch_size, threads=threads, progress=progress,
        )  # fmt: skip
    before, after = (sum(f.stat().st_size for f in backend_for(p).files(p)) for p in (model, output))
    if json:
        import json as encoder

        facts = {
            "output": str(output),
            "bytes": after,
            "reference_bytes": before,
            "notes": list(quantized.notes),
        }
        sys.stdout.write(encoder.dumps(facts, indent=2) + "\n")
        return
    typer.echo(f"wrote {output}: {after / 1e6:.2f} MB, the float model has {before / 1e6:.2f} MB")
    typer.echo(f"see what it costs:  quantscope diagnose {model} {output} --data {data}")
    typer.echo(f"see what it brings: quantscope profile {model} {output} --data {data}")
