"""quantscope quantize."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from quantscope.cli import options as o

_EPILOG = """[bold]Examples[/bold]

  quantscope quantize model.onnx model.int8.onnx --data samples.npz

  quantscope quantize model.onnx model.int8.onnx --data photos/ --preset imagenet-torch --format qoperator
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(quantize)


def quantize(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="The float model, an .onnx file.")],
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
    preset: o.Preset = None,
    resize: o.Resize = None,
    crop: o.Crop = None,
    size: o.Size = None,
    scale: o.Scale = None,
    mean: o.Mean = None,
    std: o.Std = None,
    channels: o.Channels = None,
    layout: o.Layout = None,
    recipe_file: o.RecipeFile = None,
    format: o.Format = "qdq",
    per_channel: o.PerChannel = True,
    equalize: o.Equalize = False,
    activations: o.Activations = "uint8",
    weights: o.Weights = "int8",
    symmetric: o.Symmetric = False,
    calibration: o.CalibrationMethod = "minmax",
    percentile: o.Percentile = 99.99,
    fallback: o.Fallback = None,
    fallback_type: o.FallbackType = None,
    op_type: o.OpType = None,
    reduce_range: o.ReduceRange = False,
    threads: o.Threads = 0,
    json: o.Json = False,
) -> None:
    """Calibrate a float model with samples and write its quantized form."""
    from quantscope import workflows
    from quantscope.cli.progress import ProgressBars

    recipe = o.recipe(
        format, per_channel, activations, weights, symmetric, calibration, percentile, fallback, fallback_type,
        op_type, reduce_range, equalize, recipe_file, context,
    )  # fmt: skip
    with ProgressBars() as progress:
        quantized = workflows.quantize(
            model, data, output, recipe=recipe,
            preprocessing=o.preprocessing(preset, resize, crop, size, scale, mean, std, channels, layout),
            calibration_samples=calibration_samples, batch_size=batch_size, threads=threads, progress=progress,
        )  # fmt: skip
    before, after = model.stat().st_size, output.stat().st_size
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
    typer.echo(f"see what it costs: quantscope diagnose {model} {output} --data {data}")
