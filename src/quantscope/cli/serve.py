"""quantscope serve."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from quantscope.serve.server import Address

_EPILOG = """[bold]Examples[/bold]

  quantscope serve

  quantscope serve runs/ --port 8080

  quantscope serve runs/ --host 0.0.0.0 --cert server.pem --key server.key
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(serve)


def serve(
    workspace: Annotated[Path, typer.Argument(help="The folder with the run files.")] = Path(),
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; 0.0.0.0 makes it reachable from other machines.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", help="The port, or the next free one if it is taken.")] = 5000,
    cert: Annotated[
        Path | None, typer.Option("--cert", metavar="PEM", help="A certificate. [default: one made for this machine]")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="PEM", help="The key of --cert.")] = None,
    tls: Annotated[bool, typer.Option("--tls/--no-tls", help="Encrypt; only loopback may go without.")] = True,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="With --no-tls: listen beyond this machine all the same.")
    ] = False,
) -> None:
    """Open the web app on the runs of a folder: graphs, tables and histograms, live while runs go on."""
    from quantscope.serve import server

    try:
        server.serve(
            workspace, host=host, port=port, with_tls=tls, insecure=insecure, certificate=cert, key=key,
            started=_print_address, note=lambda text: typer.echo(text, err=True),
        )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


def _print_address(address: Address) -> None:
    from quantscope.serve.tls import fingerprint

    typer.echo("quantscope server started.")
    typer.echo(f"Open address {address.link}")
    if address.certificate is not None:
        typer.echo(f"The certificate's SHA-256 fingerprint is {fingerprint(address.certificate)}")
    typer.echo("Press Ctrl-C to stop.")
    sys.stdout.flush()
