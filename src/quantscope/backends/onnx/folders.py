"""Folders with the weights of models: the user's, whose files must stay as they are, and temporary ones."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterable
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import cache
from pathlib import Path

from quantscope.errors import ModelError, OutputError

_PREFIX = "quantscope-weights-"
_LOCK = ".quantscope-lock"
# A folder younger than this may be one whose process is about to lock it.
_ABANDONED_AFTER_SECONDS = 60


class WeightFolder:
    """A folder that the weights of a model are read from as long as the model lives.

    It remembers size and time of the files it is told of: weights out of a file written anew are garbage.
    """

    def __init__(self, path: Path, files: Iterable[Path] = ()) -> None:
        self.path = path
        self._stamps = {str(file): _stamp(str(file)) for file in files}

    def __str__(self) -> str:
        return str(self.path)

    def check_unchanged(self) -> None:
        """Raise a ModelError if a file is not what it was."""
        if not os.path.isdir(self.path):
            raise ModelError(
                f"the folder with the weights of the model is not there: {self.path}",
                accepted="a model whose files every process that runs it can read under the same name",
            )
        for file, stamp in self._stamps.items():
            if _stamp(file) != stamp:
                what = "was written anew" if os.path.exists(file) else "is gone"
                raise ModelError(
                    f"a file of the model {what} since it was loaded: {file}",
                    accepted="a model whose files stay as they are while it is worked with",
                    next_step="begin again with the files as they are now",
                )


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


class TemporaryFolder(WeightFolder):
    """A new folder that is removed when nothing refers to it any more, at the latest when the process ends.

    What a killed process left behind is removed when the next process makes a folder.
    """

    def __init__(self) -> None:
        _remove_abandoned()
        super().__init__(Path(tempfile.mkdtemp(prefix=_PREFIX)))
        lock = _locked(self.path, os.O_CREAT)
        weakref.finalize(self, _removed, self.path, lock, os.getpid())

    def no_room(self, reason: str) -> OutputError:
        """The error that says that weights do not fit in here."""
        return OutputError(
            f"cannot keep weights in the temporary folder {self.path.parent}: {reason}",
            accepted="room there for the weights of the models as they run",
            next_step="free some space, or set TMPDIR to a folder that has more",
        )


def _removed(path: Path, lock: int | None, owner: int) -> None:
    if os.getpid() != owner:
        return  # A forked process holds a copy of the object and not the folder.
    shutil.rmtree(path, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def _locked(path: Path, flags: int = 0) -> int | None:
    """A descriptor that holds the folder's lock, which ends with the process; None if another process holds it."""
    descriptor = os.open(path / _LOCK, os.O_RDWR | flags, 0o600)
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@cache
def _remove_abandoned() -> None:
    """Once per process: whoever was killed is not killed again."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # Without a lock file, or of another user: not one to remove.
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - _ABANDONED_AFTER_SECONDS:
                lock = _locked(path)
                if lock is not None:
                    _removed(path, lock, os.getpid())
