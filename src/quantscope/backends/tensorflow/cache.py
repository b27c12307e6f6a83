"""Where converted models are kept: one folder each in the user's cache, named after the content they were made of."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from quantscope.backends.tensorflow import formats
from quantscope.errors import OutputError

# A new number makes all older conversions void.
_VERSION = 1
_DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos", "tf-nightly")
_KEPT_SECONDS = 60 * 24 * 3600
_UNFINISHED = ".unfinished-"
_UNFINISHED_SECONDS = 24 * 3600


def place(path: Path) -> Path:
    """The folder for what is made of the model at this path by the TensorFlow that is installed."""
    digest = hashlib.sha256(f"{_VERSION} {_installed()} {path.suffix.lower()}".encode())
    for name, content in _contents(path):
        with content:
            digest.update(f"\0{name}\0".encode() + hashlib.file_digest(content, "sha256").digest())
    return _root() / digest.hexdigest()


def _contents(path: Path) -> Iterator[tuple[str, Any]]:
    """All that a model is made of, by its name, ready to be read."""
    if path.suffix.lower() == formats.KERAS:
        with zipfile.ZipFile(path) as archive:
            # The same model saved again has another date in it.
            for name in sorted(set(archive.namelist()) - {"metadata.json"}):
                yield name, archive.open(name)
        return
    for file in formats.files(path):
        yield file.relative_to(path).as_posix() if path.is_dir() else "", file.open("rb")


def used(folder: Path) -> None:
    """Note that what is in this folder is still in use."""
    # A cache that may only be read serves as well.
    with suppress(OSError):
        os.utime(folder)


@contextmanager
def filled(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `folder` at the end; if that fails or is interrupted, nothing is left.

    Whoever else made the same in the meantime is as right: that stays.

    Raises:
        OutputError: the cache cannot be written.
    """
    root = folder.parent
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _tidy(root)
        temporary = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root))
    except OSError as error:
        raise _not_writable(root, error) from error
    try:
        yield temporary
        if not folder.exists():
            try:
                temporary.rename(folder)
            except OSError as error:
                if not folder.exists():
                    raise _not_writable(root, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _tidy(root: Path) -> None:
    """Remove what was not used for two months, and what killed processes left."""
    now = time.time()
    for folder in root.iterdir():
        kept = _UNFINISHED_SECONDS if folder.name.startswith(_UNFINISHED) else _KEPT_SECONDS
        # Another process may remove the same.
        with suppress(FileNotFoundError):
            if now - folder.stat().st_mtime > kept:
                shutil.rmtree(folder, ignore_errors=True)


def _root() -> Path:
    """XDG base directory specification 0.8: a path that is not absolute is to be ignored."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "quantscope" / "tensorflow"


def _installed() -> str:
    for name in _DISTRIBUTIONS:
        with suppress(PackageNotFoundError):
            return version(name)
    return "unknown"


def _not_writable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write the converted model into {folder}: {error.strerror or error}",
        accepted="a folder that can be written, with room for the model",
        next_step="set XDG_CACHE_HOME to one",
    )
