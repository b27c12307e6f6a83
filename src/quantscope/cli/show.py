"""quantscope show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantscope.cli import options as o

_EPILOG = """[bold]Examples[/bold]

  quantscope show model.qscope

  quantscope show model.qscope --sort mse --top 30

  quantscope show model.qscope --op /layer4/conv2/Conv

  quantscope show model.qscope --skipped

  quantscope show model.qscope --times --all
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(show)


def show(
    run: Annotated[Path, typer.Argument(help="A run file; the run may still go on, or have been interrupted.")],
    top: o.Top = 10,
    all: o.All = False,
    sort: o.Sort = o.DEFAULT_SORT,
    skipped: Annotated[bool, typer.Option("--skipped", help="List the ops without a row, and why.")] = False,
    op: Annotated[
        str | None,
        typer.Option("--op", metavar="NAME", help="All about one op: errors, error budget, values, channels."),
    ] = None,
    times: Annotated[bool, typer.Option("--times", help="The time per op, of a run that was profiled.")] = False,
    json: o.Json = False,
) -> None:
    """Print a run again, also one that is half finished."""
    from quantscope.cli.diagnose import print_diagnosis
    from quantscope.cli.profile import diagnosis_or_times, print_profile
    from quantscope.cli.sensitivity import print_sensitivity
    from quantscope.cli.tune import print_search
    from quantscope.profiling import Profile
    from quantscope.report import op_details, terminal
    from quantscope.workflows.ranking import open_sensitivity
    from quantscope.workflows.tuning import open_search

    o.check_sort(sort)
    o.check_top(top)
    search = open_search(run)
    if search is not None:
        print_search(search, json)
        return
    measured = open_sensitivity(run)
    if measured is not None:
        print_sensitivity(measured, None if all else top, json)
        return
    diagnosis = diagnosis_or_times(run, times)
    if isinstance(diagnosis, Profile):
        print_profile(diagnosis, None if all else top, json)
        return
    if op is not None:
        terminal.console().print(op_details.op_details(diagnosis, op))
        return
    if skipped and not json:
        terminal.console().print(terminal.skipped_table(diagnosis))
        return
    print_diagnosis(diagnosis, None if all else top, sort, json, [])
