"""Which files and folders are TensorFlow's, told by their names and first bytes alone."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from quantscope.errors import ModelError

ACCEPTED = (
    "a SavedModel folder (it has a saved_model.pb in it), a .keras or .h5 file with a whole model, "
    "or a frozen graph in a .pb file"
)
KERAS = ".keras"
HDF5 = (".h5", ".hdf5")
FROZEN_GRAPH = ".pb"
# What reading a damaged file raises, be it an archive.
UNREADABLE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
_SUFFIXES = (KERAS, *HDF5, FROZEN_GRAPH)
_SAVED_MODEL = "saved_model.pb"
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def recognized(source: object) -> bool:
    """True if this is the path of a file or a folder as TensorFlow writes them, or a Keras model."""
    if not isinstance(source, str | Path):
        return is_keras_model(source)
    path = Path(source)
    return (path / _SAVED_MODEL).is_file() or (path.suffix.lower() in _SUFFIXES and path.is_file())


def is_keras_model(source: object) -> bool:
    """True for a model of Keras, told by the modules of its classes: Keras is not imported for this."""
    makers = {kind.__module__.partition(".")[0] for kind in type(source).__mro__}
    return bool(makers & {"keras", "tf_keras"}) and hasattr(source, "save") and hasattr(source, "export")


def root(path: Path) -> Path:
    """The path that stands for the whole model: the folder, if it is the graph of a SavedModel."""
    return path.parent if path.name == _SAVED_MODEL else path


def files(path: Path) -> tuple[Path, ...]:
    """All files of the model at this path: its graph, and then the others in a fixed order."""
    path = root(path)
    if not path.is_dir():
        return (path,)
    graph = path / _SAVED_MODEL
    return graph, *sorted(file for file in path.rglob("*") if file.is_file() and file != graph)


def check(path: Path) -> None:
    """Raise a ModelError if the file is plainly not what its name says."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return
    if suffix in HDF5:
        with path.open("rb") as file:
            if file.read(len(_HDF5_SIGNATURE)) != _HDF5_SIGNATURE:
                raise _not_a_model(path, "an HDF5 file")
    elif suffix == KERAS:
        if not zipfile.is_zipfile(path):
            raise _not_a_model(path, "a Keras archive")
        with zipfile.ZipFile(path) as archive:
            if "config.json" not in archive.namelist():
                raise _not_a_model(path, "a Keras archive: it has no config.json")
    elif not path.stat().st_size:
        raise _not_a_model(path, "a graph: the file is empty")


def _not_a_model(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} is not {what}", accepted=ACCEPTED, next_step="check the path; copy or save it again")
