"""quantscope export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

_EPILOG = """[bold]Examples[/bold]

  quantscope export model.qscope --format csv --output ops.csv

  quantscope export model.qscope --format json | jq .accuracy
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(export)


def export(
    run: Annotated[Path, typer.Argument(help="A run file.")],
    format: Annotated[Literal["csv", "json", "parquet"], typer.Option("--format", "-f", help="What to write.")] = "csv",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write. [default: standard output]")
    ] = None,
) -> None:
    """Write all rows and columns of a run: csv and parquet hold the tables, json the whole document."""
    from quantscope.report.tables import FORMATS, write_whole
    from quantscope.workflows import open_run

    content = FORMATS[format](open_run(run))
    if output is None:
        sys.stdout.buffer.write(content)
        return
    write_whole(output, content)
    typer.echo(f"wrote {output}: {len(content)} bytes")
