"""A re-iterable stream of batches of named arrays, with labels where there are some."""

from __future__ import annotations

import importlib
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantscope.errors import DataError
from quantscope.graph import Tensor

if TYPE_CHECKING:
    from quantscope.images import Preprocessing

_LABEL_KEYS = ("labels", "label", "y")
_ACCEPTED = (
    "a folder of photos, an .npz or .npy file, package.module:function, an array, a dict of arrays, a list of batches, "
    "a DataLoader"
)
_SHOWN_FAILURES = 3


@dataclass(frozen=True, eq=False)
class Batch:
    """Some samples: arrays by the model's input names, and labels; the leading axis counts samples.

    `first` is the number of the first sample in its source.
    """

    inputs: dict[str, NDArray[Any]]
    labels: NDArray[Any] | None
    first: int

    @property
    def size(self) -> int:
        """How many samples it holds."""
        return len(next(iter(self.inputs.values())))


class Chunk(NamedTuple):
    """What a source yields: arrays by name or by position, labels, and the number of the first sample."""

    arrays: dict[str, NDArray[Any]] | tuple[NDArray[Any], ...]
    labels: NDArray[Any] | None
    first: int


Inputs = Sequence[Tensor] | None
Source = Callable[[int, "int | None", Inputs], Iterator[Chunk]]
"""Yields the chunks of the samples from start up to stop, anew at each call; the model's inputs tell a lone sample from
a batch, where they are known."""


class Samples:
    """Samples that can be gone through any number of times.

    `description` is one line for reports; `spec` rebuilds the samples in a later process, None where that is
    impossible; `skipped` names what could not be read so far, with the reason.
    """

    def __init__(
        self,
        source: Source,
        description: str,
        *,
        count: int | None = None,
        spec: Mapping[str, Any] | None = None,
        skipped: dict[str, str] | None = None,
        inputs: Inputs = None,
    ) -> None:
        self._source = source
        self.description = description
        self.spec = spec
        self._count = count
        self._inputs = inputs
        self.skipped: dict[str, str] = {} if skipped is None else skipped

    @classmethod
    def of(cls, source: object, *, labels: object = None, preprocessing: Preprocessing | None = None) -> Samples:
        """The samples in a folder of photos, a file, an array, a function's result, or any iterable of batches.

        Args:
            source: a path; "package.module:function" or a function without arguments, called anew for each pass; an
                array or a dict of arrays with the samples on the leading axis; or an iterable of batches, each an
                array, a dict of arrays, or a pair (inputs, labels), such as a PyTorch or Neural Compressor loader.
            labels: an array, or the path of an .npy file, a text file with a number per line, or, for photos, a list
                of "file label" lines.
            preprocessing: how photos become arrays.
        Raises:
            DataError: the source is of none of these kinds, is empty, or can be gone through only once.
        """
        if isinstance(source, Samples):
            return source
        if isinstance(source, str | Path):
            return _from_path(source, labels, preprocessing)
        if isinstance(source, np.ndarray):
            return _from_arrays((source,), labels, f"array of shape {source.shape}")
        if isinstance(source, Mapping):
            return _from_mapping(dict(source), labels, f"arrays {', '.join(map(str, source))}")
        if callable(source) and not hasattr(source, "__iter__"):
            return _from_function(source, f"function {getattr(source, '__name__', 'given')}")
        if isinstance(source, Iterable):
            return _from_iterable(source, f"{type(source).__name__} of batches")
        raise DataError(f"samples of type {type(source).__name__}", accepted=_ACCEPTED)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Samples:
        """The samples that gave this `spec`."""
        from quantscope.images import Preprocessing

        preprocessing = spec.get("preprocessing")
        return cls.of(
            spec["source"],
            labels=spec.get("labels"),
            preprocessing=Preprocessing.from_spec(preprocessing) if preprocessing else None,
        )

    @property
    def count(self) -> int:
        """How many items the source has, unreadable ones included; counted by one pass where it does not say."""
        if self._count is None:
            self._count = sum(_chunk_size(chunk) for chunk in self._source(0, None, self._inputs))
        return self._count

    def for_inputs(self, inputs: Sequence[Tensor]) -> Samples:
        """The same samples, checked and named for these inputs of a model."""
        return Samples(
            self._source,
            self.description,
            count=self._count,
            spec=self.spec,
            skipped=self.skipped,
            inputs=tuple(inputs),
        )

    def batches(self, batch_size: int, *, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Batches of the items from `start` up to `stop`; a batch never mixes shapes, so it can be smaller.

        Raises:
            DataError: there is no sample at all, or one does not fit the model's inputs.
        """
        held: list[tuple[int, dict[str, NDArray[Any]], Any]] = []
        seen = False
        for first, arrays, label in self._singles(start, stop):
            seen = True
            if held and (len(held) == batch_size or _shapes(arrays) != _shapes(held[0][1])):
                yield _stacked(held)
                held = []
            held.append((first, arrays, label))
        if held:
            yield _stacked(held)
        if not seen and (stop is None or stop > start):
            raise self._nothing()

    def _singles(self, start: int, stop: int | None) -> Iterator[tuple[int, dict[str, NDArray[Any]], Any]]:
        for chunk in self._source(start, stop, self._inputs):
            named, labels = _named(chunk, self._inputs)
            sizes = {name: len(array) for name, array in named.items()}
            size = next(iter(sizes.values()))
            if len(set(sizes.values())) > 1:
                raise DataError(f"inputs differ in their number of samples: {sizes}", accepted="the same for all")
            if labels is not None and len(labels) != size:
                raise DataError(f"labels do not match: {len(labels)} labels for {size} samples")
            for i in range(size):
                yield (
                    chunk.first + i,
                    {n: a[i] for n, a in named.items()},
                    None if labels is None else labels[i],
                )

    def _nothing(self) -> DataError:
        if self.skipped:
            shown = "; ".join(f"{name}: {why}" for name, why in list(self.skipped.items())[:_SHOWN_FAILURES])
            return DataError(
                f"no samples: none of {len(self.skipped)} photos could be read ({shown})",
                accepted="at least one readable photo",
                next_step="check --data and the label list",
            )
        return DataError(f"no samples in {self.description}", accepted=_ACCEPTED, next_step="check --data")


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
    except (ImportError, AttributeError) as error:
        raise DataError(
            f"cannot import {name}: {error}",
            accepted="package.module:function",
            next_step="check the name; the current directory is searched first",
        ) from error
    if not callable(found):
        raise DataError(f"{name} is no function but {type(found).__name__}", accepted="package.module:function")
    function: Callable[..., Any] = found
    return function


def _from_path(source: str | Path, labels: object, preprocessing: Preprocessing | None) -> Samples:
    path = Path(source)
    if path.is_dir():
        return _from_photos(path, labels, preprocessing)
    if not path.exists():
        if isinstance(source, str) and ":" in source:
            samples = _from_function(imported(source), f"function {source}")
            samples.spec = {"source": source}
            return samples
        raise DataError(f"no such file or folder: {path}", accepted=_ACCEPTED, next_step="check --data")
    listed = str(Path(labels).resolve()) if isinstance(labels, str | Path) else None
    spec = {"source": str(path.resolve()), "labels": listed}
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            samples = _from_arrays((array,), labels, f"{path} of shape {array.shape}")
        elif path.suffix == ".npz":
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            samples = _from_mapping(arrays, labels, f"{path} with {', '.join(arrays)}")
        else:
            raise DataError(f"samples in a file of type {path.suffix!r}: {path}", accepted=_ACCEPTED)
    except (ValueError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"cannot read {path}: {error}",
            accepted="an .npy or .npz file of plain arrays, without pickled objects",
        ) from error
    samples.spec = spec if labels is None or listed else None
    return samples


def _from_photos(folder: Path, labels: object, preprocessing: Preprocessing | None) -> Samples:
    from quantscope import images

    if preprocessing is None:
        raise DataError(
            f"photos in {folder} need preprocessing, and none is given",
            accepted=f"--preset {', '.join(images.PRESETS)}, or --resize, --crop, --size, --scale, --mean, --std",
            next_step="take what the model was trained with; from Python pass quantscope.Preprocessing(...)",
        )
    if labels is not None and not isinstance(labels, str | Path):
        raise DataError(f"labels of type {type(labels).__name__} for photos", accepted='a list of "file label" lines')
    listed = Path(labels) if isinstance(labels, str | Path) else None
    if listed is not None and not listed.is_file():
        raise DataError(f"no such label list: {listed}", accepted='a file of "file label" lines')
    found = images.find_photos(folder, listed)
    skipped: dict[str, str] = {}

    def source(start: int, stop: int | None, inputs: Inputs) -> Iterator[Chunk]:
        for index, photo in list(enumerate(found.photos))[start:stop]:
            try:
                array = images.read_photo(photo.path, preprocessing)
            except images.UnreadableImageError as problem:
                skipped[str(photo.path)] = str(problem)
                continue
            yield Chunk((array[None],), None if photo.label is None else np.asarray([photo.label]), index)

    return Samples(
        source,
        f"{len(found.photos)} photos in {folder} ({found.labels})",
        count=len(found.photos),
        spec={
            "source": str(folder.resolve()),
            "labels": str(listed.resolve()) if listed else None,
            "preprocessing": preprocessing.to_spec(),
        },
        skipped=skipped,
    )


def _from_mapping(arrays: dict[str, Any], labels: object, description: str) -> Samples:
    named = {key: np.asarray(array) for key, array in arrays.items()}
    if not named:
        raise DataError(f"no samples in {description}", accepted="at least one array")
    count = len(next(iter(named.values())))
    given = _label_array(labels, count) if labels is not None else None

    def source(start: int, stop: int | None, inputs: Inputs) -> Iterator[Chunk]:
        for i in range(start, count if stop is None else min(stop, count)):
            yield Chunk(
                {key: array[i : i + 1] for key, array in named.items()},
                None if given is None else given[i : i + 1],
                i,
            )

    lengths = {key: len(array) for key, array in named.items() if array.ndim}
    if len(lengths) != len(named) or len(set(lengths.values())) > 1:
        raise DataError(
            f"arrays differ in their number of samples: { {k: a.shape for k, a in named.items()} }",
            accepted="the same leading axis for all, labels included",
        )
    return Samples(source, description, count=count)


def _from_arrays(arrays: tuple[NDArray[Any], ...], labels: object, description: str) -> Samples:
    if arrays[0].ndim == 0:
        raise DataError(f"an array without axes: {description}", accepted="samples on the leading axis")
    count = len(arrays[0])
    given = _label_array(labels, count) if labels is not None else None

    def source(start: int, stop: int | None, inputs: Inputs) -> Iterator[Chunk]:
        for i in range(start, count if stop is None else min(stop, count)):
            yield Chunk(tuple(a[i : i + 1] for a in arrays), None if given is None else given[i : i + 1], i)

    return Samples(source, description, count=count)


def _from_function(function: Callable[[], Any], description: str) -> Samples:
    def source(start: int, stop: int | None, inputs: Inputs) -> Iterator[Chunk]:
        made = function()
        if isinstance(made, str | Path):
            raise DataError(f"{description} returned {made!r}", accepted="arrays, or an iterable of batches")
        if isinstance(made, Iterator):
            return _chunks(made, start, stop, inputs)
        return Samples.of(made)._source(start, stop, inputs)

    return Samples(source, description)


def _from_iterable(iterable: Iterable[Any], description: str) -> Samples:
    if iter(iterable) is iterable:
        raise DataError(
            f"samples of type {type(iterable).__name__} can be gone through only once, and are needed several times",
            accepted=_ACCEPTED,
            next_step="pass list(samples), or a function that returns a fresh generator",
        )

    def source(start: int, stop: int | None, inputs: Inputs) -> Iterator[Chunk]:
        return _chunks(iter(iterable), start, stop, inputs)

    dataset = getattr(iterable, "dataset", None)
    known = hasattr(dataset, "__len__") and not getattr(iterable, "drop_last", False)
    return Samples(source, description, count=len(dataset) if known and dataset is not None else None)


def _chunks(iterator: Iterator[Any], start: int, stop: int | None, inputs: Inputs) -> Iterator[Chunk]:
    first = 0
    for item in iterator:
        if stop is not None and first >= stop:
            return
        chunk = _chunk(item, first, inputs)
        size = _chunk_size(chunk)
        low, high = max(start - first, 0), size if stop is None else min(stop - first, size)
        if low < high:
            yield chunk if (low, high) == (0, size) else _sliced(chunk, low, high)
        first += size


def _chunk(item: Any, first: int, inputs: Inputs) -> Chunk:
    """One item of an iterable: an array, a dict of arrays, or a pair (inputs, labels)."""
    labels = None
    if isinstance(item, tuple | list) and len(item) == 2 and not np.isscalar(item[0]):
        item, labels = item
    ranks = {t.name: len(t.shape) for t in inputs or () if t.shape is not None}
    if isinstance(item, Mapping):
        named = {str(key): _array(value) for key, value in item.items()}
        return Chunk({k: _batched(a, ranks.get(k)) for k, a in named.items()}, _labels(labels), first)
    parts = item if isinstance(item, tuple | list) and not _is_nested_numbers(item) else (item,)
    positions = [ranks.get(t.name) for t in inputs or ()] + [None] * len(parts)
    return Chunk(
        tuple(_batched(_array(part), rank) for part, rank in zip(parts, positions, strict=False)),
        _labels(labels),
        first,
    )


def _batched(array: NDArray[Any], rank: int | None) -> NDArray[Any]:
    """The array with a leading axis of samples, added where it is a lone sample."""
    return array[None] if rank is not None and array.ndim == rank - 1 else array


def _is_nested_numbers(item: Sequence[Any]) -> bool:
    return len(item) > 0 and isinstance(item[0], int | float | list)


def _array(value: Any) -> NDArray[Any]:
    """An array from what a loader gives; a PyTorch tensor is known by its methods, not by importing torch."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype == object:
        raise DataError(f"a sample of type {type(value).__name__} is no array", accepted="numbers of one shape")
    return array


def _labels(labels: Any) -> NDArray[Any] | None:
    return None if labels is None else np.atleast_1d(_array(labels))


def _chunk_size(chunk: Chunk) -> int:
    arrays = chunk.arrays.values() if isinstance(chunk.arrays, dict) else chunk.arrays
    first = next(iter(arrays), None)
    return len(first) if first is not None and first.ndim else 1


def _sliced(chunk: Chunk, low: int, high: int) -> Chunk:
    labels = None if chunk.labels is None else chunk.labels[low:high]
    if isinstance(chunk.arrays, dict):
        return Chunk({k: a[low:high] for k, a in chunk.arrays.items()}, labels, chunk.first + low)
    return Chunk(tuple(a[low:high] for a in chunk.arrays), labels, chunk.first + low)


def _label_array(labels: object, count: int) -> NDArray[Any]:
    if isinstance(labels, str | Path):
        path = Path(labels)
        try:
            values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, ndmin=1)
        except (OSError, ValueError) as error:
            raise DataError(
                f"cannot read the labels in {path}: {error}",
                accepted="an .npy file, or a text file, a number per line",
            ) from error
    else:
        values = _array(labels)
    if len(values) != count:
        raise DataError(f"labels do not match: {len(values)} labels for {count} samples", accepted="one per sample")
    if values.dtype.kind == "f" and (values == np.rint(values)).all():
        values = values.astype(np.int64)
    return values


def _shapes(arrays: Mapping[str, NDArray[Any]]) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in arrays.values())


def _stacked(held: list[tuple[int, dict[str, NDArray[Any]], Any]]) -> Batch:
    first, arrays, label = held[0]
    inputs = {name: np.stack([single[name] for _, single, _ in held]) for name in arrays}
    return Batch(inputs, None if label is None else np.asarray([label for _, _, label in held]), first)


def _named(chunk: Chunk, inputs: Inputs) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    """The chunk's arrays by input name, checked and converted, and its labels."""
    arrays, labels = chunk.arrays, chunk.labels
    if isinstance(arrays, tuple):
        if inputs is None:
            return {str(i): a for i, a in enumerate(arrays)}, labels
        if len(arrays) != len(inputs):
            raise DataError(
                f"the samples have {len(arrays)} arrays, the model has {len(inputs)} inputs",
                accepted="one array per input, in this order: " + ", ".join(t.name for t in inputs),
            )
        arrays = {t.name: a for t, a in zip(inputs, arrays, strict=True)}
    known = {t.name for t in inputs} if inputs is not None else set(arrays) - set(_LABEL_KEYS)
    keys = [key for key in arrays if key not in known]
    for key in keys:
        if key in _LABEL_KEYS and labels is None:
            labels = arrays[key]
    arrays = {key: a for key, a in arrays.items() if key in known or key not in _LABEL_KEYS}
    if inputs is None:
        return arrays, labels
    if len(arrays) == len(inputs) == 1:
        arrays = {inputs[0].name: next(iter(arrays.values()))}
    if set(arrays) != known:
        raise DataError(
            f"the samples' names are {', '.join(sorted(arrays))}",
            accepted="the model's: " + ", ".join(sorted(known)),
        )
    return {t.name: _fitted(arrays[t.name], t) for t in inputs}, labels


def _fitted(array: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """The array with the input's rank and dtype."""
    shape = tensor.shape
    if shape is not None:
        expected = list(shape)
        fits = array.ndim == len(shape) and all(
            not isinstance(d, int) or d == got for d, got in zip(expected[1:], array.shape[1:], strict=False)
        )
        if not fits:
            raise DataError(
                f"samples for input {tensor.name!r} have shape {list(array.shape)}",
                accepted=str(["samples", *(d if d is not None else "any" for d in expected[1:])]),
                next_step="check the preprocessing: size, crop and layout",
            )
    if not tensor.dtype or array.dtype == np.dtype(tensor.dtype):
        return array
    wanted = np.dtype(tensor.dtype)
    if wanted.kind in "iu":
        if array.dtype.kind not in "iub":
            raise DataError(
                f"a sample for input {tensor.name!r} is {array.dtype}",
                accepted=f"{wanted}, or another integer type",
            )
        limits = np.iinfo(wanted)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise DataError(
                f"a sample for input {tensor.name!r} has values {array.min()} to {array.max()}",
                accepted=f"values that fit {wanted}",
            )
    elif array.dtype.kind not in "iubf":
        raise DataError(f"a sample for input {tensor.name!r} is {array.dtype}", accepted=str(wanted))
    return array.astype(wanted)
