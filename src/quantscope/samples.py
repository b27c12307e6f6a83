"""A re-iterable stream of batches of named arrays, with labels where there are some."""

from __future__ import annotations

import importlib
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quantscope.binding import Chunk, Inputs, as_array, fitted, labels_differ
from quantscope.errors import DataError
from quantscope.graph import Tensor
from quantscope.sources import (
    ACCEPTED,
    ArraysSource,
    FunctionSource,
    PhotosSource,
    SequenceSource,
    Source,
    StreamSource,
    only_once,
)

if TYPE_CHECKING:
    from quantscope.images import Preprocessing

_SHOWN_FAILURES = 3
# What numpy raises for a file that is damaged, pickled, or of another kind than its name says.
_DAMAGE = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    TypeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some samples: arrays by the model's input names, and labels; the leading axis counts samples.

    `first` is the number of the first sample in its source, `stop` the number after the last; there are fewer
    samples than `stop − first` where photos between them could not be read.
    """

    inputs: dict[str, NDArray[Any]]
    labels: NDArray[Any] | None
    first: int
    stop: int

    @property
    def size(self) -> int:
        """How many samples it holds."""
        return len(next(iter(self.inputs.values())))


class Samples:
    """Samples that can be gone through any number of times.

    `description` is one line for reports; `spec` rebuilds the samples in a later process, None where that is
    impossible. A source that shuffles gives another order in each pass.
    """

    def __init__(
        self,
        source: Source,
        description: str,
        *,
        spec: Mapping[str, Any] | None = None,
        inputs: Inputs = None,
    ) -> None:
        self.description = description
        self.spec = spec
        self._source = source
        self._inputs = inputs
        self._count: int | None = None

    @classmethod
    def of(  # noqa: PLR0911 - a line for each kind of source
        cls, source: object, *, labels: object = None, preprocessing: Preprocessing | None = None
    ) -> Samples:
        """The samples in a folder of photos, a file, an array, a function's result or an iterable of batches.

        Args:
            source: a path; "package.module:function" or a function without arguments, called anew for each
                pass; an array or a dict of arrays with the samples on the leading axis; or an iterable of
                batches, each an array, a dict of arrays, or a pair (inputs, labels), such as a PyTorch or
                Neural Compressor loader.
            labels: for arrays, an array or the path of an .npy file or of a text file with a number per line;
                for photos the path of a list of "file label" lines.
            preprocessing: how photos become arrays.
        Raises:
            DataError: the source is of none of these kinds, is damaged, or can be gone through only once.
        """
        if isinstance(source, str | Path) and Path(source).is_dir():
            return _photos(Path(source), labels, preprocessing)
        if preprocessing is not None:
            raise DataError(
                f"preprocessing is given, and the samples are no folder of photos: {source!r:.80}",
                accepted="preprocessing for a folder of photos; other samples come as the model takes them",
                next_step="leave the preprocessing out",
            )
        if isinstance(source, str | Path) and (Path(source).exists() or ":" not in str(source)):
            return _file(Path(source), labels)
        if isinstance(source, Mapping):
            return cls(_arrays(source, labels), "arrays " + ", ".join(map(str, source)))
        if hasattr(source, "__array__"):
            array = as_array(source)
            return cls(_arrays(array, labels), f"array of shape {list(array.shape)}")
        if labels is not None:
            raise DataError(
                f"labels are given apart from samples of type {type(source).__name__}",
                accepted="batches that hold their labels: (inputs, labels), or a dict with the key labels",
            )
        if isinstance(source, Samples):
            return source
        if isinstance(source, str | Path):
            return cls(
                FunctionSource(imported(str(source)), _source_of),
                f"function {source}",
                spec={"source": str(source)},
            )
        if callable(source) and not hasattr(source, "__iter__"):
            return cls(
                FunctionSource(source, _source_of),
                f"function {getattr(source, '__name__', type(source).__name__)}",
            )
        return cls(_iterable(source), f"{type(source).__name__} of samples")

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Samples:
        """The samples that gave this `spec`."""
        if "source" not in spec:
            raise DataError(
                f"the record of the samples names no source: {dict(spec)}", next_step="give the samples anew"
            )
        preprocessing = spec.get("preprocessing")
        if preprocessing is not None:
            from quantscope.images import Preprocessing

            preprocessing = Preprocessing.from_spec(preprocessing)
        return cls.of(spec["source"], labels=spec.get("labels"), preprocessing=preprocessing)

    @property
    def count(self) -> int:
        """How many samples the source has, unreadable ones included; by one pass where it does not say."""
        if self._count is None:
            self._count = self._source.count(self._inputs)
        return self._count

    @property
    def skipped(self) -> Mapping[str, str]:
        """What could not be read so far, with the reason."""
        return MappingProxyType(self._source.skipped)

    def for_inputs(self, inputs: Sequence[Tensor]) -> Samples:
        """The same samples, to be named, checked and converted for these inputs of a model."""
        return Samples(self._source, self.description, spec=self.spec, inputs=tuple(inputs))

    def batches(self, batch_size: int, *, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Batches of the samples from `start` up to `stop`; smaller ones where the samples' shape changes.

        Raises:
            DataError: there is no sample at all, or one does not fit the model's inputs.
        """
        if batch_size < 1 or start < 0 or (stop is not None and stop < 0):
            raise DataError(
                f"batch size {batch_size}, start {start}, stop {stop}",
                accepted="a batch size from 1, a start and a stop from 0",
            )
        pieces: list[Chunk] = []
        seen = False
        for chunk in self._source.read(start, stop, self._inputs):
            rest = fitted(chunk, self._inputs)
            while rest.size:
                seen = True
                if pieces and rest.shapes != pieces[0].shapes:
                    yield _joined(pieces)
                    pieces = []
                room = batch_size - sum(piece.size for piece in pieces)
                pieces.append(rest.part(0, room))
                if rest.size >= room:
                    yield _joined(pieces)
                    pieces = []
                rest = rest.part(room, rest.size)
        if pieces:
            yield _joined(pieces)
        # A later window may well be empty: the samples before it were there.
        if not seen and start == 0 and stop != 0:
            raise self._nothing()

    def _nothing(self) -> DataError:
        if self.skipped:
            shown = "; ".join(f"{name}: {why}" for name, why in list(self.skipped.items())[:_SHOWN_FAILURES])
            return DataError(
                f"no samples in {self.description}: {len(self.skipped)} photos could not be read ({shown})",
                accepted="at least one readable photo",
                next_step="check the files and the label list",
            )
        return DataError(f"no samples in {self.description}", accepted=ACCEPTED, next_step="check the data")


def imported(name: str) -> Callable[..., Any]:
    """The function "package.module:function", found from the current directory too.

    Raises:
        DataError: there is none.
    """
    module_name, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, SyntaxError, TypeError, ValueError) as error:
        raise DataError(
            f"cannot import {name}: {error}",
            accepted="package.module:function",
            next_step="check the name; the current directory is searched first",
        ) from error
    if not callable(found):
        raise DataError(f"{name} is no function but {type(found).__name__}", accepted="package.module:function")
    function: Callable[..., Any] = found
    return function


def _joined(pieces: list[Chunk]) -> Batch:
    if len(pieces) == 1:
        return Batch(pieces[0].arrays, pieces[0].labels, pieces[0].first, pieces[0].stop)
    inputs = {name: np.concatenate([piece.arrays[name] for piece in pieces]) for name in pieces[0].arrays}
    labels = [piece.labels for piece in pieces if piece.labels is not None]
    return Batch(inputs, np.concatenate(labels) if labels else None, pieces[0].first, pieces[-1].stop)


def _source_of(source: object) -> Source:
    return Samples.of(source)._source


def _iterable(source: object) -> Source:
    if isinstance(source, Iterator):
        raise only_once(source)
    reachable = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    # A PyTorch Dataset has items by number and no __iter__.
    if isinstance(source, Sequence) or (reachable and not hasattr(source, "__iter__")):
        return SequenceSource(source)
    if isinstance(source, Iterable):
        return StreamSource(source)
    raise DataError(f"samples of type {type(source).__name__}", accepted=ACCEPTED)


def _arrays(values: Mapping[Any, Any] | NDArray[Any], labels: object) -> ArraysSource:
    """Checked arrays with the samples on the leading axis."""
    given = dict(values) if isinstance(values, Mapping) else {"samples": values}
    named = {str(name): as_array(array) for name, array in given.items()}
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in named.items())
    lengths = {array.shape[:1] for array in named.values()}
    if len(lengths) != 1 or () in lengths:
        raise DataError(
            f"arrays differ in their number of samples: {shapes}" if named else "no samples: no array is given",
            accepted="arrays with the samples on the leading axis, as many in all, labels included",
        )
    length = len(next(iter(named.values())))
    label_array = None if labels is None else _label_array(labels)
    if label_array is not None and label_array.shape[:1] != (length,):
        raise labels_differ(len(np.atleast_1d(label_array)), length)
    return ArraysSource(named if isinstance(values, Mapping) else named["samples"], label_array, length)


def _label_array(labels: object) -> NDArray[Any]:
    if not isinstance(labels, str | Path):
        return as_array(labels)
    path = Path(labels)
    try:
        if path.suffix == ".npy":
            return as_array(np.load(path, allow_pickle=False))
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
        numbers = [float(line) for line in lines]
        whole = all(number.is_integer() for number in numbers)
        return np.array(numbers, np.int64 if whole else np.float64)
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise DataError(
            f"cannot read the labels in {path}: {error}",
            accepted="an .npy file, or a text file with a number per line",
        ) from error


def _file(path: Path, labels: object) -> Samples:
    if not path.exists():
        raise DataError(f"no such file or folder: {path}", accepted=ACCEPTED, next_step="check the path")
    if path.suffix not in (".npy", ".npz"):
        raise DataError(f"samples in a file of type {path.suffix or 'without suffix'}: {path}", accepted=ACCEPTED)
    try:
        # Only an .npy file can be mapped; numpy reads an .npz whole.
        loaded: Any = np.lib.format.open_memmap(path, mode="r") if path.suffix == ".npy" else _unpacked(path)
    except _DAMAGE as error:
        raise DataError(
            f"cannot read {path}: {error}",
            accepted="an .npy or .npz file of plain arrays, without pickled objects",
            next_step="write it again with numpy.save or numpy.savez",
        ) from error
    shape = ", ".join(loaded) if isinstance(loaded, dict) else list(loaded.shape)
    recorded = labels is None or isinstance(labels, str | Path)
    return Samples(_arrays(loaded, labels), f"{path}: {shape}", spec=_spec(path, labels) if recorded else None)


def _unpacked(path: Path) -> dict[str, NDArray[Any]]:
    # numpy leaves a damaged file open that it opened itself.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def _photos(folder: Path, labels: object, preprocessing: Preprocessing | None) -> Samples:
    from quantscope import images

    if preprocessing is None:
        raise DataError(
            f"photos in {folder} need preprocessing, and none is given",
            accepted=f"--preset {', '.join(images.PRESETS)}; "
            "or --resize, --crop, --size, --scale, --mean, --std, --channels, --layout",
            next_step="take what the model was trained with, such as --preset imagenet-torch; "
            "from Python pass preprocessing=quantscope.Preprocessing(...)",
        )
    if labels is not None and not isinstance(labels, str | Path):
        raise DataError(
            f"labels of type {type(labels).__name__} for photos",
            accepted='the path of a list of "file label" lines',
        )
    found = images.find_photos(folder.resolve(), None if labels is None else Path(labels).resolve())
    return Samples(
        PhotosSource(found, preprocessing),
        f"{len(found.photos)} photos in {folder} ({found.labels}), {preprocessing}",
        spec={**_spec(folder, labels), "preprocessing": preprocessing.to_spec()},
    )


def _spec(path: Path, labels: object) -> dict[str, Any]:
    return {
        "source": str(path.resolve()),
        "labels": None if labels is None else str(Path(str(labels)).resolve()),
    }
