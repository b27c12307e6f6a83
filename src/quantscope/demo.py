"""The demonstration: Magika's real file-type model on this machine's own files, labelled by their extension.

Magika and its model come from its PyPI package (Apache-2.0). The files are those of Python's own installation, which
every machine that runs this has.
"""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.errors import UnsupportedError
from quantscope.samples import Samples

_FILES_PER_LABEL = 12
_SMALLEST_FILE_BYTES = 64
# Extensions whose content is what they say, with Magika's label for it.
_LABELS = {
    ".py": "python", ".c": "c", ".h": "c", ".cpp": "cpp", ".hpp": "cpp", ".css": "css", ".html": "html",
    ".js": "javascript", ".json": "json", ".md": "markdown", ".rst": "rst", ".toml": "toml", ".xml": "xml",
    ".yaml": "yaml", ".yml": "yaml", ".ini": "ini", ".sh": "shell", ".bat": "batch", ".ps1": "powershell",
    ".csv": "csv", ".png": "png", ".gif": "gif", ".jpg": "jpeg", ".ico": "ico", ".svg": "svg",
    ".pyc": "pythonbytecode", ".so": "elf", ".exe": "pebin", ".zip": "zip", ".gz": "gzip", ".bmp": "bmp",
    ".wav": "wav", ".ttf": "ttf", ".pem": "pem", ".npy": "npy", ".npz": "npz", ".pdf": "pdf",
}  # fmt: skip
_UNREADABLE_FOLDERS = frozenset(("node_modules", ".git"))


def model_path() -> Path:
    """The model file in the installed magika package.

    Raises:
        UnsupportedError: the package is not installed.
    """
    if find_spec("magika") is None:
        raise UnsupportedError(
            "the demo needs the package magika, which holds its model",
            next_step="install it: pip install 'quantscope[demo]'",
        )
    return Path(str(files("magika"))) / "models" / "standard_v3_3" / "model.onnx"


def samples() -> Samples:
    """This machine's files as samples for Magika's model; made anew at each call, the same ones in the same order.

    Raises:
        UnsupportedError: the package magika is not installed.
    """
    config = json.loads((model_path().parent / "config.min.json").read_text())
    classes = {label: index for index, label in enumerate(config["target_labels_space"])}
    chosen = [(path, classes[label]) for path, label in _files() if label in classes]
    data = np.stack([features(path.read_bytes(), config) for path, _ in chosen])
    labels = np.asarray([label for _, label in chosen])
    kinds = len(set(labels.tolist()))
    result = Samples.of({"bytes": data, "labels": labels})
    result.description = f"{len(chosen)} files of this machine's Python, {kinds} types, labelled by extension"
    result.spec = {"source": "quantscope.demo:samples"}
    return result


def features(content: bytes, config: dict[str, Any]) -> NDArray[np.int32]:
    """The model's input for a file: its first and last bytes without white space around, padded.

    Source: the model's config.min.json and README in the magika package, "beg" and "end" features.
    """
    block, begin, end, padding = (config[k] for k in ("block_size", "beg_size", "end_size", "padding_token"))
    values = np.full(begin + end, padding, np.int32)
    head = np.frombuffer(content[:block].lstrip()[:begin], np.uint8)
    tail = np.frombuffer(content[-block:].rstrip()[-end:], np.uint8)
    values[: len(head)] = head
    if len(tail):
        values[-len(tail) :] = tail
    return values


def _files() -> list[tuple[Path, str]]:
    """Up to so many files of each type, types in turn, so that the first samples hold some of all."""
    by_label: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(sysconfig.get_path(key) for key in ("stdlib", "purelib", "include")):
        for path in _walk(folder):
            label = _LABELS.get(path.suffix.lower())
            if label is not None and len(by_label.setdefault(label, [])) < _FILES_PER_LABEL:
                by_label[label].append(path)
    turns = range(_FILES_PER_LABEL)
    return [(paths[i], label) for i in turns for label, paths in sorted(by_label.items()) if i < len(paths)]


def _walk(folder: str) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in _UNREADABLE_FOLDERS)
        for name in sorted(names):
            path = Path(place, name)
            if path.is_file() and path.stat().st_size >= _SMALLEST_FILE_BYTES and os.access(path, os.R_OK):
                yield path
