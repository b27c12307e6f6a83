"""The run files of one folder: found by name, read, renamed, tagged and deleted. No other file is ever opened."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any, Concatenate, ParamSpec, TypeVar

from fastapi import Response

from quantscope.errors import QuantscopeError, RunFileError
from quantscope.runfile import SUFFIX, RunFile
from quantscope.serve import api, views
from quantscope.serve.encoding import as_json
from quantscope.serve.kept import Kept
from quantscope.serve.problems import ConflictError, MissingError
from quantscope.serve.summary import damaged, revision, summary

P = ParamSpec("P")
T = TypeVar("T")

# Answers are kept as they were sent, up to so many bytes; so many are computed at a time.
_KEPT_BYTES = 2**26
_AT_A_TIME = 4
_LONGEST_TAG = 40
_BEGINNING_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Workspace:
    """The run files directly in a folder, by their names without the ending; links are not followed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._summaries: dict[str, api.RunSummary] = {}
        self._answers: Kept[bytes] = Kept(_KEPT_BYTES, len)
        self._lock = Lock()
        self._computing = BoundedSemaphore(_AT_A_TIME)

    def names(self) -> list[str]:
        """The runs that are there now."""
        try:
            with os.scandir(self.folder) as entries:
                return sorted(e.name.removesuffix(SUFFIX) for e in entries if _is_run(e))
        except OSError as error:
            raise MissingError(f"cannot read the folder {self.folder}: {error.strerror}") from error

    def path(self, name: str) -> Path:
        """The file of a run.

        Raises:
            MissingError: there is none of this name in the folder.
        """
        path = self.folder / f"{name}{SUFFIX}"
        try:
            regular = _is_name(name) and stat.S_ISREG(path.lstat().st_mode)
        except (OSError, ValueError):
            regular = False
        if not regular:
            raise MissingError(f"no run {name!r} in {self.folder}", next_step="look at the list of runs")
        return path

    def summaries(self) -> list[api.RunSummary]:
        """The lines of all runs, the newest first."""
        names = self.names()
        lines = [self.summary(name) for name in names]
        with self._lock:
            for gone in self._summaries.keys() - set(names):
                del self._summaries[gone]
        return sorted((line for line in lines if line is not None), key=lambda line: line.created, reverse=True)

    def summary(self, name: str) -> api.RunSummary | None:
        """The line of a run; None if it is gone by now. What did not change is not read again."""
        try:
            path = self.path(name)
            if _is_beginning(path):
                return None
            now = revision(path)
        except (MissingError, OSError):
            return None
        known = self._summaries.get(name)
        # Whether a running one still runs, its file does not say.
        if known is not None and known.revision == now and known.status != "running":
            return known
        try:
            with _reading(path):
                line = summary(path, now)
        except QuantscopeError as error:
            if not path.exists():
                return None
            line = damaged(path, error.message, now)
        with self._lock:
            self._summaries[name] = line
        return line

    def view(self, name: str, view: Callable[Concatenate[RunFile, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a view makes of a run.

        Raises:
            MissingError: there is no such run.
            RunFileError: its file is damaged.
        """
        path = self.path(name)
        with self._computing, _reading(path), RunFile.read(path) as run:
            return view(run, *args, **kwargs)

    def answer(self, name: str, view: Callable[..., Any], *args: object) -> Response:
        """What a view makes of a run, as JSON; what was asked for before is kept as long as the file is the same."""
        key = (name, revision(self.path(name)), view, *args)
        content = self._answers.get(key, lambda: as_json(self.view(name, view, *args)))
        return Response(content, media_type="application/json")

    def read_ahead(self, name: str = "") -> None:
        """Have ready what a page of this run, or of the one written last, asks for first.

        Whatever is wrong with the run, the page will be told.
        """
        with suppress(QuantscopeError, OSError, ValueError):
            name = name or max(self.names(), key=lambda other: self.path(other).stat().st_mtime)
            self.answer(name, views.graph, "reference")
            self.answer(name, views.rows)

    def compare(self, a: str, b: str) -> Response:
        """Two runs side by side, as JSON."""

        def compared() -> bytes:
            lines = self.summary(a), self.summary(b)
            if lines[0] is None or lines[1] is None:
                raise MissingError(f"no run {a if lines[0] is None else b!r}")
            tables = self.view(a, views.rows), self.view(b, views.rows)
            return as_json(views.comparison((lines[0], lines[1]), tables))

        key = ("compare", *(f"{name} {revision(self.path(name))}" for name in (a, b)))
        return Response(self._answers.get(key, compared), media_type="application/json")

    def change(self, name: str, change: api.RunChange) -> api.RunSummary:
        """The line of the run after it got other tags, another name, or both.

        Raises:
            MissingError, ConflictError, RunFileError: it is not there, cannot be changed, or is damaged.
        """
        path = self.path(name)
        if change.tags is not None:
            tags = list(dict.fromkeys(tag.strip()[:_LONGEST_TAG] for tag in change.tags if tag.strip()))
            with _reading(path), RunFile.read(path) as run:
                run.write_about(tags=tags)
        if change.name is not None and change.name != name:
            path = self._rename(path, change.name)
        line = self.summary(path.name.removesuffix(SUFFIX))
        if line is None:
            raise MissingError(f"the run {name!r} is gone")
        return line

    def _rename(self, path: Path, name: str) -> Path:
        target = self.folder / f"{name}{SUFFIX}"
        if not _is_name(name) or len(os.fsencode(target.name)) > 255:
            raise ConflictError(
                f"no name for a run file: {name!r}", accepted="letters, digits, dots, dashes and spaces"
            )
        self._check_idle(path)
        try:
            os.link(path, target)
        except FileExistsError:
            raise ConflictError(f"there is a run {name!r} already", accepted="another name") from None
        except OSError as error:
            raise ConflictError(f"cannot rename {path.name} to {target.name}: {error.strerror}") from error
        path.unlink(missing_ok=True)
        return target

    def _check_idle(self, path: Path) -> None:
        """Raise a ConflictError if the run goes on; finish what a killed process began to write."""
        with _reading(path), RunFile.read(path) as run:
            running = run.about("status") == "running" and not run.why_killed()
            if not running:
                run.change_about("tags", lambda tags: tags or [])
        if running:
            raise ConflictError(f"the run {path.stem!r} goes on", next_step="wait for its end, or stop it with Ctrl-C")

    def delete(self, name: str) -> None:
        """Remove the run file, also a damaged one.

        Raises:
            MissingError, ConflictError: it is not there, or goes on.
        """
        path = self.path(name)
        try:
            self._check_idle(path)
        except RunFileError:
            _log.info("deleting a damaged run file: %s", path.name)
        try:
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
        except OSError as error:
            raise ConflictError(f"cannot delete {path.name}: {error.strerror}") from error


def _is_name(name: str) -> bool:
    return name == os.path.basename(name) and name.isprintable() and bool(name.strip(". "))


def _is_run(entry: os.DirEntry[str]) -> bool:
    name = entry.name.removesuffix(SUFFIX)
    return name != entry.name and _is_name(name) and entry.is_file(follow_symlinks=False)


def _is_beginning(path: Path) -> bool:
    """True for the moment in which a run has its name and not yet its first line."""
    found = path.stat()
    return found.st_size == 0 and time.time() - found.st_mtime < _BEGINNING_SECONDS


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a file from elsewhere makes fail is that file's damage: the server goes on."""
    try:
        yield
    except QuantscopeError:
        raise
    except Exception as error:
        _log.warning("%s cannot be read", path.name, exc_info=True)
        raise RunFileError(
            f"the run file is damaged: {path.name} ({type(error).__name__}: {error})",
            next_step="delete it, or run quantscope again",
        ) from error
