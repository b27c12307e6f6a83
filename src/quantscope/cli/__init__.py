"""The command line: one file per command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from quantscope.cli import (
    advise,
    demo,
    diagnose,
    doctor,
    export,
    profile,
    quantize,
    recipe,
    sensitivity,
    serve,
    show,
    tune,
)
from quantscope.errors import QuantscopeError

app = typer.Typer(
    name="quantscope",
    help="Find where a quantized neural network loses its accuracy, op by op.",
    epilog="Try it now on a real model and this machine's own files:  quantscope demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    diagnose,
    profile,
    advise,
    quantize,
    sensitivity,
    tune,
    recipe,
    show,
    serve,
    export,
    doctor,
    demo,
):
    _command.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"quantscope {version('quantscope')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a user's mistake ends with one clear message and exit code 2."""
    try:
        app()
    except QuantscopeError as error:
        _print_error(error)
        sys.exit(2)


def _print_error(error: QuantscopeError) -> None:
    from rich.text import Text

    from quantscope.report.terminal import console

    out = console(stderr=True)
    out.print(Text.assemble(("error: ", "bold red"), error.message), soft_wrap=True)
    if error.accepted:
        out.print(Text(f"  accepted:  {error.accepted}"), soft_wrap=True)
    if error.next_step:
        out.print(Text(f"  next step: {error.next_step}"), soft_wrap=True)
