"""quantscope export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from quantscope.errors import DataError

_EPILOG = """[bold]Examples[/bold]

  quantscope export model.qscope --format csv --output ops.csv

  quantscope export model.qscope --format json | jq .accuracy

  quantscope export model.qscope --html report.html
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
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write the web app with this run inside, to open without a server."
        ),
    ] = None,
    times: Annotated[bool, typer.Option("--times", help="Write the time per op of a run that was profiled.")] = False,
) -> None:
    """Write all rows and columns of a run: csv and parquet hold the tables, json the whole document, html the app."""
    from quantscope.cli.profile import diagnosis_or_times
    from quantscope.report.tables import FORMATS, write_whole

    if html is not None:
        from quantscope.serve.offline import page

        if output is not None:
            raise DataError("both --html and --output are given", accepted="one of them")
        content, left_out = page(run)
        write_whole(html, content)
        typer.echo(f"wrote {html}: {len(content)} bytes" + (f"; it leaves out {left_out}" if left_out else ""))
        return
    content = FORMATS[format](diagnosis_or_times(run, times))
    if output is None:
        sys.stdout.buffer.write(content)
        return
    write_whole(output, content)
    typer.echo(f"wrote {output}: {len(content)} bytes")
