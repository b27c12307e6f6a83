"""Writes how far a run is into its run file, so that others can watch from outside."""

from __future__ import annotations

import time
from contextlib import suppress

from quantscope.errors import RunFileError
from quantscope.progress import Progress
from quantscope.runfile import RunFile

# Every write waits for the disk: not more often than somebody looks.
_PAUSE_SECONDS = 1.0


class Recorded:
    """Tells another listener all that it hears, and notes it in the run file as the fact "progress".

    The fact has the stage, `done` and `total`, when it was written (`at`, in seconds since 1970), and `rate`, done per
    second since the first step, None before the second one: the first may be what an earlier process had done.
    """

    def __init__(self, listener: Progress, run_file: RunFile) -> None:
        self._listener = listener
        self._run_file = run_file
        self._stage, self._done = "", 0
        self._total: int | None = None
        self._first: tuple[int, float] | None = None
        self._written = 0.0

    def stage(self, name: str, total: int | None) -> None:
        """A stage begins."""
        self._listener.stage(name, total)
        self._stage, self._total, self._done, self._first = name, total, 0, None
        self._write()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self._listener.advance(count)
        self._done += count
        if self._first is None:
            self._first = self._done, time.monotonic()
        if time.monotonic() - self._written >= _PAUSE_SECONDS:
            self._write()

    def note(self, text: str) -> None:
        """Something the user should know."""
        self._listener.note(text)

    def _write(self) -> None:
        self._written = time.monotonic()
        rate = None
        if self._first is not None and self._done > self._first[0]:
            rate = (self._done - self._first[0]) / max(self._written - self._first[1], 1e-9)
        # A full disk stops the run at its next checkpoint, which says how to go on.
        with suppress(RunFileError):
            self._run_file.write_about(
                progress={
                    "stage": self._stage, "done": self._done, "total": self._total, "rate": rate, "at": time.time(),
                }
            )  # fmt: skip
