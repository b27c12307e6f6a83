"""quantscope serve."""

from __future__ import annotations

import html
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from quantscope.serve.server import Address

_EPILOG = """[bold]Examples[/bold]

  quantscope serve

  quantscope serve runs/ --port 8080

  quantscope serve resnet50.qscope --open

  quantscope serve runs/ --host 0.0.0.0 --cert server.pem --key server.key
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(serve)


def serve(
    workspace: Annotated[
        Path, typer.Argument(help="The folder with the run files, or one of them to begin with.")
    ] = Path(),
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
    open: Annotated[bool, typer.Option("--open", help="Open the app in this machine's browser.")] = False,
) -> None:
    """Open the web app on the runs of a folder: graphs, tables and histograms, live while runs go on."""
    from quantscope.runfile import SUFFIX
    from quantscope.serve import server

    run = workspace.stem if workspace.suffix == SUFFIX and not workspace.is_dir() else ""
    with ExitStack() as stack:

        def started(address: Address) -> None:
            _print_address(address, run)
            if open:
                stack.enter_context(_in_browser(address.link(run)))

        server.serve(
            workspace.parent if run else workspace, host=host, port=port, with_tls=tls, insecure=insecure,
            certificate=cert, key=key, started=started, note=lambda text: typer.echo(text, err=True),
        )  # fmt: skip
    typer.echo("stopped", err=True)


def _print_address(address: Address, run: str) -> None:
    from quantscope.serve.tls import fingerprint

    typer.echo("quantscope server started.")
    typer.echo(f"Open address {address.link(run)}")
    if address.certificate is not None:
        typer.echo(f"The certificate's SHA-256 fingerprint is {fingerprint(address.certificate)}")
    typer.echo("Press Ctrl-C to stop.")
    sys.stdout.flush()


@contextmanager
def _in_browser(link: str) -> Iterator[None]:
    """Open a link by way of a file that only its owner can read: all users see what programs are started with."""
    import webbrowser

    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        yield
        return
    with tempfile.NamedTemporaryFile("w", prefix="quantscope-", suffix=".html") as file:
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={html.escape(link)}">')
        file.flush()
        webbrowser.open(Path(file.name).as_uri())
        yield


@contextmanager
def served(run: Path) -> Iterator[None]:
    """Serve a run's folder from another process while it is made, and then until Ctrl-C."""
    server = subprocess.Popen([sys.executable, "-m", "quantscope", "serve", str(run), "--open"], stdout=sys.stderr)
    try:
        yield
        with suppress(KeyboardInterrupt):
            server.wait()
    finally:
        # Ctrl-C reached it too; what failed without it did not.
        server.terminate()
        with suppress(KeyboardInterrupt):
            server.wait()
