"""Tells every open page what changes in the workspace: one look at the folder serves them all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from quantscope.errors import QuantscopeError
from quantscope.serve import api
from quantscope.serve.encoding import as_json
from quantscope.serve.problems import BusyError
from quantscope.serve.workspace import Workspace

_PAUSE_SECONDS = 0.5
# Proxies close a connection on which nothing is said.
_SILENCE_SECONDS = 15.0
_MOST_STREAMS = 100
_MOST_WAITING = 100

_log = logging.getLogger(__name__)
_Lines = Mapping[str, api.RunSummary]


class Live:
    """Watches a workspace as long as somebody listens. The files tell all: who writes them is another process."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._streams: set[asyncio.Queue[bytes | None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._known: _Lines = {}

    def events(self) -> AsyncIterator[bytes]:
        """A stream of events as the wire has them, all runs first.

        Raises:
            BusyError: there are as many streams as can be served.
        """
        if len(self._streams) >= _MOST_STREAMS:
            raise BusyError(f"{_MOST_STREAMS} pages are open already", next_step="close one, and load the page again")
        return self._stream()

    async def _stream(self) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_WAITING)
        self._streams.add(queue)
        try:
            lines = await asyncio.to_thread(self._look)
            if self._watching is None:
                self._known = lines
                self._watching = asyncio.create_task(self._watch())
            yield _encoded("runs", {"kind": "runs", "runs": [line.model_dump() for line in lines.values()]})
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), _SILENCE_SECONDS)
                except TimeoutError:
                    yield b": nothing new\n\n"
                    continue
                if event is None:
                    return
                yield event
        finally:
            self._streams.discard(queue)

    def stop(self) -> None:
        """End all streams."""
        for queue in self._streams:
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    def _look(self) -> dict[str, api.RunSummary]:
        return {line.name: line for line in self._workspace.summaries()}

    async def _watch(self) -> None:
        try:
            while self._streams:
                await asyncio.sleep(_PAUSE_SECONDS)
                try:
                    lines = await asyncio.to_thread(self._look)
                except QuantscopeError as error:
                    _log.warning("%s", error)
                    continue
                for event in _changes(self._known, lines):
                    self._tell(event)
                self._known = lines
        finally:
            self._watching = None

    def _tell(self, event: bytes) -> None:
        for queue in tuple(self._streams):
            if queue.full():  # Who does not listen is cut off, and finds all runs when it connects again.
                queue.get_nowait()
                queue.put_nowait(None)
                self._streams.discard(queue)
            else:
                queue.put_nowait(event)


def _changes(before: _Lines, now: _Lines) -> list[bytes]:
    gone = [_encoded("removed", {"kind": "removed", "name": name}) for name in before if name not in now]
    return gone + [
        _encoded("run", {"kind": "run", "run": line.model_dump()})
        for name, line in now.items()
        if name not in before or _lasting(before[name]) != _lasting(line)
    ]


def _lasting(line: api.RunSummary) -> api.RunSummary:
    """The line without the time left, which passes by itself."""
    if line.progress is None:
        return line
    return line.model_copy(update={"progress": line.progress.model_copy(update={"seconds_left": None})})


def _encoded(kind: str, values: dict[str, Any]) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + as_json(values) + b"\n\n"
