"""quantscope demo."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from quantscope.cli import options as o

# Where quantization costs nothing on this model: the ops that hold nearly all multiplications.
_CURE = ("Conv", "MatMul")


_EPILOG = """[bold]Examples[/bold]

  quantscope demo

  quantscope demo --run first.qscope --top 20
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(demo)


def demo(
    run: Annotated[Path | None, typer.Option("--run", help="The run file. [default: magika.qscope]")] = None,
    top: o.Top = 10,
    json: o.Json = False,
) -> None:
    """Quantize and diagnose a real model in seconds: Magika's file types, on this machine's own files."""
    from dataclasses import replace

    from quantscope import demo as example
    from quantscope import workflows
    from quantscope.cli.diagnose import interruptible, print_diagnosis
    from quantscope.cli.progress import ProgressBars
    from quantscope.recipe import Recipe

    o.check_top(top)
    model = example.model_path()
    with interruptible(), ProgressBars() as progress:
        progress.stage("read files", None)
        samples = example.samples()
        result = workflows.diagnose(
            model, data=samples, run=run or Path("magika.qscope"), number_run=run is None, progress=progress
        )
        cured = workflows.diagnose(model, data=samples, recipe=replace(Recipe(), op_types=_CURE), progress=progress)
    before, after = result.scores[0], cured.scores[0]
    name = shlex.quote(result.run)
    again = shlex.join(
        ["quantscope", "diagnose", str(model), "--data", "quantscope.demo:samples",
         *(part for op_type in _CURE for part in ("--op-type", op_type))]
    )  # fmt: skip
    commands = [
        f"Quantize only {' and '.join(_CURE)}: {before.quantized:.1%} becomes {after.quantized:.1%}, measured now.",
        f"  {again}",
        "Follow the error through the model, op by op:",
        f"  quantscope show {name} --sort order --all",
        "Diagnose your own model:",
        "  quantscope diagnose MODEL.onnx --data SAMPLES        (quantscope diagnose --help has examples)",
    ]
    print_diagnosis(result, top, o.DEFAULT_SORT, json, commands)
