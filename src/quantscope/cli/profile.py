"""quantscope profile."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantscope.cli import options as o
from quantscope.cli.expansion import expanded
from quantscope.errors import DataError

if TYPE_CHECKING:
    from quantscope.diagnosis import Diagnosis
    from quantscope.profiling import Profile

_TRIES = 5
_EPILOG = """[bold]Examples[/bold]

Why is int8 not faster?
  quantscope profile float.onnx int8.onnx

Try what would make it faster, and measure the gain:
  quantscope profile float.onnx int8.onnx --try

On one thread and on four, one sample at a time and eight:
  quantscope profile float.onnx int8.onnx --threads 1,4 --batch 1,8

Write a faster quantized model with the same outputs:
  quantscope profile float.onnx int8.onnx --output faster.onnx

What does the framework's own optimization bring, and each op without it?
  quantscope profile float.onnx int8.onnx --optimization on,off
  quantscope profile float.tflite int8.tflite --optimization off

With your own samples, or with sizes that the model leaves open:
  quantscope profile float.onnx int8.onnx --data samples.npz
  quantscope profile float.onnx int8.onnx --shape input_ids=1,128

The models of a run, whose page in the web app then has the times too:
  quantscope profile model.qscope
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG.replace("\n  ", "\n\n  "))(profile)


@expanded
def profile(
    reference: Annotated[Path, typer.Argument(help="The float model, or a run file (.qscope).")],
    quantized: Annotated[
        Path | None,
        typer.Argument(help="The quantized model, made by any tool; without it the one model is profiled alone."),
    ] = None,
    data: o.Data = None,
    photos: o.Photos = o.ARRAYS,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape", metavar="INPUT=SIZES", rich_help_panel="Samples",
            help="Sizes that the model leaves open, batch included: input_ids=1,128. Repeat.",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", metavar="N,…", help="Batch sizes; times per op are of the first."),
    ] = None,
    threads: Annotated[
        str,
        typer.Option("--threads", metavar="N,…", help="Numbers of threads; 0 means the framework's choice."),
    ] = "0",
    optimization: Annotated[
        str,
        typer.Option(
            "--optimization", metavar="on,off",
            help="With and without what the framework does by itself: ONNX Runtime's graph optimizations, LiteRT's "
            "XNNPACK delegate. Times per op are of the first.",
        ),
    ] = "on",
    time: Annotated[
        float,
        typer.Option(
            "--time", metavar="SECONDS",
            help="The longest that latency is measured at each setting; less when the ratio is known within ±3 %.",
        ),
    ] = 20.0,
    try_: Annotated[
        bool, typer.Option("--try", help=f"Try the {_TRIES} reasons that cost most, and measure what each brings.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="MODEL",
            help="Write the quantized model with the changes that make it faster and leave its outputs as they are, to "
            "the last bit.",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", rich_help_panel="Run", help="The run file. [default: MODEL.qscope, numbered if that exists]"
        ),
    ] = None,
    top: o.Top = 10,
    all: o.All = False,
    json: o.Json = False,
) -> None:  # fmt: skip
    """Show why a quantized model is not faster: latency of both models, time per op, and the reasons.

    Both models run in turn, as in production. Each op's time in both is found under the names of your float model,
    through fusion and changes of layout.
    """
    from quantscope import workflows
    from quantscope.cli.progress import ProgressBars
    from quantscope.runfile import SUFFIX

    o.check_top(top)
    again = reference.suffix == SUFFIX
    with ProgressBars() as progress:
        result = workflows.profile(
            reference, quantized, data=data, preprocessing=photos.preprocessing(), shapes=_shapes(shape or ()),
            batches=_numbers(batch, "--batch") if batch else None, threads=_numbers(threads, "--threads"),
            optimized=_optimized(optimization), seconds=time, tries=_TRIES if try_ else 0, output=output,
            run=None if again and run is None else run or Path(f"{reference.stem}.qscope"), number_run=run is None,
            progress=progress,
        )  # fmt: skip
    print_profile(result, None if all else top, json)
    if output is not None and result.rewritten is None:
        raise typer.Exit(1)


def print_profile(profile: Profile, top: int | None, json: bool) -> None:
    """Print the tables, or the document as JSON."""
    from quantscope.report import profile as report
    from quantscope.report.tables import as_json
    from quantscope.report.terminal import console

    if json:
        sys.stdout.write(as_json(profile).decode())
        return
    report.print_profile(console(), profile, top=top)


def diagnosis_or_times(run: Path, times: bool) -> Diagnosis | Profile:
    """What to show of a run: its diagnosis, or its profile, if that is wanted or it has nothing else.

    Raises:
        DataError: times are wanted of a run that was not profiled.
    """
    from quantscope.workflows import open_profile, open_run

    diagnosis, profile = open_run(run), open_profile(run)
    if times and profile is None:
        raise DataError(
            f"{run} holds no times", accepted="a run that was profiled", next_step=f"quantscope profile {run}"
        )
    return profile if profile is not None and (times or not diagnosis.tensors) else diagnosis


def _numbers(text: str, option: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise DataError(f"{option} {text!r}", accepted="whole numbers with commas between, such as 1,8")
    return tuple(int(part) for part in parts)


def _optimized(text: str) -> tuple[bool, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not set(parts) <= {"on", "off"}:
        raise DataError(f"--optimization {text!r}", accepted="on, off, or on,off for both")
    return tuple(part == "on" for part in parts)


def _shapes(texts: list[str] | tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for text in texts:
        name, found, sizes = text.rpartition("=")
        if not found or not name:
            raise DataError(f"--shape {text!r}", accepted="INPUT=SIZES, such as input_ids=1,128")
        shapes[name] = _numbers(sizes, "--shape")
    return shapes
