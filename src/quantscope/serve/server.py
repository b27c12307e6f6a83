"""Runs the application: the port, the certificate, the address to open, and an end without a mess."""

from __future__ import annotations

import gc
import ipaddress
import logging
import secrets
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from urllib.parse import quote, urlencode

import uvicorn

from quantscope.errors import DataError, UnsupportedError
from quantscope.serve import tls
from quantscope.serve.app import BUILT, application
from quantscope.serve.guard import Access
from quantscope.serve.workspace import Workspace

DEFAULT_PORT = 5000
_PORTS_TRIED = 100
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Address:
    """Where the server is reached. `certificate` is None without TLS."""

    url: str
    token: str
    port: int
    certificate: Path | None

    def link(self, run: str = "") -> str:
        """The address with the token, which opens the app, on a run if one is named."""
        query = {"token": self.token, **({"to": f"/runs/{quote(run, safe='')}"} if run else {})}
        return f"{self.url}?{urlencode(query, safe='/')}"


class _Server(uvicorn.Server):
    """Ends the streams of open pages first: they never end by themselves."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        application = self.config.app
        application.state.live.stop()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    with_tls: bool = True,
    insecure: bool = False,
    certificate: Path | None = None,
    key: Path | None = None,
    built: Path = BUILT,
    started: Callable[[Address], None] = lambda address: None,
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve the run files of a folder until the process is told to stop.

    Args:
        host: the address or name to listen on.
        port: the first port to try; 0 lets the system choose.
        with_tls: encrypt, with `certificate` and `key` or with a certificate of our own making.
        insecure: allow to listen beyond this machine without TLS.
        built: the folder of the built app.
        started: called with the address as soon as it answers.
        note: called with what the user should know before.
    Raises:
        DataError: the folder, the host, the port or the certificate cannot be used.
        UnsupportedError: the app was not built with this installation.
    """
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}", accepted="a folder with .qscope files", next_step="create it")
    if not (built / "index.html").is_file():
        raise UnsupportedError(
            "this installation has no built web app", next_step="install again: pip install quantscope"
        )
    if not with_tls and not insecure and not _is_loopback(host):
        raise DataError(
            f"no TLS on {host}: everyone on the way could read the token and the runs",
            accepted="--no-tls on 127.0.0.1, or TLS", next_step="leave --no-tls away, or add --insecure",
        )  # fmt: skip
    if (certificate is None) != (key is None):
        raise DataError("a certificate needs its key", accepted="both --cert and --key, or none of them")
    workspace = Workspace(folder)
    listening = _bound(host, port)
    # It takes a reader a moment to open the page, which is mostly that of the last run.
    Thread(target=workspace.read_ahead, daemon=True).start()
    with listening:
        chosen = listening.getsockname()[1]
        if port not in (0, chosen):
            note(f"port {port} is taken: {chosen} is the next free one")
        names = frozenset((*_LOCAL, host, socket.gethostname(), socket.getfqdn()))
        if with_tls and certificate is None:
            certificate, key = tls.certificate([*_LOCAL, *_own_names(host)])
        if with_tls:
            _check(certificate, key)
        access = Access(secrets.token_urlsafe(32), chosen, with_tls, frozenset(name.lower() for name in names))
        shown = f"[{_shown(host)}]" if ":" in _shown(host) else _shown(host)
        url = f"{'https' if with_tls else 'http'}://{shown}:{chosen}/"
        address = Address(url, access.token, chosen, certificate if with_tls else None)
        _run(application(workspace, access, built), listening, address, key, started)


def _run(
    app: object, listening: socket.socket, address: Address, key: Path | None, started: Callable[[Address], None]
) -> None:
    # A large run is a million objects, none of them garbage: looking through them again and again takes a sixth of the
    # time of reading it.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http="h11", ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_keep_alive=15, timeout_graceful_shutdown=3, h11_max_incomplete_event_size=2**14,
        ssl_certfile=str(address.certificate) if address.certificate is not None else None,
        ssl_keyfile=str(key) if address.certificate is not None else None,
    )  # fmt: skip
    # Lines about single requests would have the address of a request, and a token may be in it.
    logging.getLogger("uvicorn.access").disabled = True
    server = _Server(config)
    startup = server.startup

    async def start(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets)
        started(address)

    server.startup = start  # type: ignore[method-assign]
    # uvicorn ends in order, and then raises what it was stopped by.
    with suppress(KeyboardInterrupt):
        server.run([listening])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(host: str) -> str:
    """The host as another machine would call it, where the server listens on all of them."""
    return socket.gethostname() if host in ("0.0.0.0", "::") else host


def _own_names(host: str) -> list[str]:
    return [socket.gethostname()] if host in ("0.0.0.0", "::") else [host]


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens on the first free port from this one on."""
    if not 0 <= port < 2**16:
        raise DataError(f"port {port}", accepted="0 to 65535")
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise DataError(f"no such host: {host}", accepted="an address of this machine, or 0.0.0.0") from error
    for candidate in range(port, min(port + _PORTS_TRIED, 2**16)):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((where[0], candidate))
            listening.listen(512)
        except PermissionError as error:
            listening.close()
            raise DataError(f"port {candidate} is for administrators", accepted="a port from 1024 on") from error
        except OSError as error:
            listening.close()
            if error.errno == 99:
                raise DataError(f"{host} is no address of this machine", accepted="127.0.0.1 or 0.0.0.0") from error
            continue
        return listening
    raise DataError(f"no free port from {port} to {port + _PORTS_TRIED - 1}", next_step="choose another with --port")


def _check(certificate: Path | None, key: Path | None) -> None:
    """Raise a DataError if a certificate and a key cannot be used together."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(str(certificate), str(key), password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise DataError(
            f"cannot use the certificate {certificate} with the key {key}: {error}",
            accepted="two PEM files that belong together, the key without a password",
        ) from error
