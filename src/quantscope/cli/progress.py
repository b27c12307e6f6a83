"""Progress bars with the stage, rate and time left; silent where nobody watches."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from quantscope.report.terminal import console


class _Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed and task.total else "", style="dim")


class ProgressBars:
    """Listens to a run and draws a bar per stage on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:10}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: int | None = None
        self._told: set[str] = set()
        self._asked = False
        self._before: Any = signal.SIG_DFL

    def __enter__(self) -> ProgressBars:
        self._before = signal.signal(signal.SIGINT, self._ask_to_stop)
        self._progress.start()
        return self

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        raise KeyboardInterrupt

    def _stop_if_asked(self) -> None:
        """An interrupt that came while compiled code called back was swallowed there: raise it again."""
        if self._asked:
            raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)
        self._progress.stop()

    def stage(self, name: str, total: int | None) -> None:
        """A stage begins: the last one is complete."""
        self._stop_if_asked()
        self._finish()
        self._task = self._progress.add_task(name, total=total)

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self._stop_if_asked()
        if self._task is not None:
            self._progress.advance(self._progress.task_ids[-1], count)

    def note(self, text: str) -> None:
        """A line above the bars; what was told before is not told again."""
        if text in self._told:
            return
        self._told.add(text)
        self._progress.console.print(Text(f"note: {text}", style="yellow"))

    def _finish(self) -> None:
        if self._task is not None:
            task = self._progress.tasks[-1]
            self._progress.update(task.id, total=task.total or 1, completed=task.total or 1)
