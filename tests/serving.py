"""A real server in a process of its own, for the tests that need one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

PROGRAM = """
import sys
from pathlib import Path
from quantscope.serve.server import serve
options = {options!r}
serve(Path({folder!r}), built=Path({built!r}), port=0, note=print,
      started=lambda address: print("address", address.link(), flush=True), **options)
"""


def built(folder: Path) -> Path:
    """A stand-in for the built app: its pages, a script and the place for an offline page's data."""
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text('<!doctype html><div id="root"></div>')
    (folder / "assets" / "app-1.js").write_text("export {};")
    (folder / "offline.html").write_text(
        '<!doctype html><script id="quantscope-data" type="application/json"></script><script>"app"</script>'
    )
    return folder


@dataclass
class Server:
    """A running server: its process, its address and its token."""

    process: subprocess.Popen[str]
    url: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def client(self, **options: Any) -> httpx2.Client:
        """A client that is let in."""
        return httpx2.Client(base_url=self.url, headers=self.headers, verify=False, timeout=60, **options)

    def stop(self) -> tuple[int, str, str]:
        """Ctrl-C: the exit code and all that it said."""
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@contextmanager
def serving(folder: Path, app: Path, **options: Any) -> Iterator[Server]:
    """Serve a folder, without TLS unless it is asked for."""
    options = {"with_tls": False, **options}
    program = PROGRAM.format(options=options, folder=str(folder), built=str(app))
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"address (\S+)\?token=(\S+)", line)
        assert found, (line, process.communicate())
        yield Server(process, found[1], found[2])
    finally:
        process.kill()
        process.communicate()


def events(response: httpx2.Response) -> Iterator[dict[str, Any]]:
    """The data of each event of a stream."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))
