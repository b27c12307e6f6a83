"""How the arrays of any source become a model's inputs: told from labels, named, checked and converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.errors import DataError
from quantscope.graph import Tensor

Inputs = Sequence[Tensor] | None
"""A model's inputs; None while the samples belong to no model."""

_LABEL_KEYS = ("labels", "label", "y")
_KINDS = {
    "f": "biuf",
    "V": "biuf",
    "c": "biufc",
    "i": "biu",
    "u": "biu",
    "b": "b",
    "O": "OUS",
    "U": "OUS",
    "S": "OUS",
}
"""Which kinds of numpy dtype each kind of input takes without losing what values mean; V is bfloat16's."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some consecutive samples: arrays by name, and labels, with the samples on the leading axis.

    `first` is the number of the first sample in its source.
    """

    arrays: dict[str, NDArray[Any]]
    labels: NDArray[Any] | None
    first: int

    @property
    def size(self) -> int:
        """How many samples it holds."""
        return len(next(iter(self.arrays.values())))

    @property
    def stop(self) -> int:
        """The number of the sample after its last one."""
        return self.first + self.size

    @property
    def shapes(self) -> tuple[tuple[int, ...] | None, ...]:
        """The shapes of one sample's arrays and of its label: samples of equal shapes can be stacked."""
        label = None if self.labels is None else self.labels.shape[1:]
        return (*(array.shape[1:] for array in self.arrays.values()), label)

    def part(self, low: int, high: int) -> Chunk:
        """The samples from position `low` up to `high` in this chunk."""
        arrays = {name: array[low:high] for name, array in self.arrays.items()}
        return Chunk(arrays, None if self.labels is None else self.labels[low:high], self.first + low)


def chunk_of(item: object, inputs: Inputs, first: int, *, batched: bool = False) -> Chunk:
    """One item of a source as a chunk, named but not yet checked against the inputs.

    Args:
        item: an array, a dict of arrays, a tuple or list of arrays by position, or one of these and labels.
        inputs: the model's, to tell labels and lone samples by.
        first: the number of its first sample.
        batched: the item surely has a leading axis of samples; else the inputs' ranks tell if one is missing.
    Raises:
        DataError: something in it is no array, or the arrays are not those that the model takes.
    """
    arrays, labels = _named(item, inputs)
    if not batched and _is_lone(arrays, labels, inputs):
        arrays = {name: array[None] for name, array in arrays.items()}
        if labels is not None and labels.shape[:1] != (1,):
            labels = labels[None]
    if labels is not None and labels.ndim == 0:
        labels = labels[None]
    shapes = {name: array.shape for name, array in arrays.items()}
    if len({shape[:1] for shape in shapes.values()}) > 1 or () in shapes.values():
        raise DataError(
            "arrays differ in their number of samples: " + ", ".join(f"{n} {list(s)}" for n, s in shapes.items()),
            accepted="the same leading axis for all",
        )
    chunk = Chunk(arrays, labels, first)
    if labels is not None and len(labels) != chunk.size:
        raise labels_differ(len(labels), chunk.size)
    return chunk


def is_lone(item: object, inputs: Inputs) -> bool:
    """True if an item is one sample without the leading axis: each array has one axis less than its input."""
    return _is_lone(*_named(item, inputs), inputs)


def fitted(chunk: Chunk, inputs: Inputs) -> Chunk:
    """The chunk with the inputs' dtypes, in the inputs' order.

    Raises:
        DataError: a shape or a dtype is not what an input takes.
    """
    if inputs is None:
        return chunk
    arrays = {t.name: _converted(_with_shape(chunk.arrays[t.name], t), t) for t in inputs}
    return Chunk(arrays, chunk.labels, chunk.first)


def as_array(value: Any) -> NDArray[Any]:
    """An array from what a loader gives; a PyTorch tensor is known by its methods, without importing torch.

    Raises:
        DataError: the value is no array of numbers or text.
    """
    try:
        array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"a {type(value).__name__} is no array: {error}", accepted="numbers of one shape") from error
    if array.dtype == object and not all(isinstance(text, str | bytes) for text in array.flat):
        raise DataError(f"a {type(value).__name__} is no array", accepted="numbers of one shape")
    return array


def _named(item: object, inputs: Inputs) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    """The arrays of an item by the names of the model's inputs, and its labels."""
    values, labels = _parted(item, inputs)
    if isinstance(values, Mapping):
        arrays = {str(key): as_array(value) for key, value in values.items()}
        known = {tensor.name for tensor in inputs or ()}
        key = next((key for key in _LABEL_KEYS if key in arrays and key not in known), None)
        if key is not None and len(arrays) > 1:
            found = arrays.pop(key)
            labels = found if labels is None else labels
    else:
        arrays = _by_position(values, inputs)
    if not arrays:
        raise DataError("a batch without any array", accepted="at least one array")
    return arrays if inputs is None else _renamed(arrays, inputs), None if labels is None else as_array(labels)


def _is_lone(arrays: Mapping[str, NDArray[Any]], labels: NDArray[Any] | None, inputs: Inputs) -> bool:
    ranks = {tensor.name: len(tensor.shape) for tensor in inputs or () if tensor.shape is not None}
    missing = [ranks[name] - array.ndim for name, array in arrays.items() if name in ranks]
    if missing:
        return all(m == 1 for m in missing)
    # Without ranks to go by, a scalar label tells.
    return all(array.ndim == 0 for array in arrays.values()) or (labels is not None and labels.ndim == 0)


def _parted(item: object, inputs: Inputs) -> tuple[Mapping[Any, Any] | Sequence[Any], Any]:
    """The arrays of an item, by name or by position, and its labels, None without."""
    if isinstance(item, Mapping):
        return item, None
    if not _is_several(item):
        return (item,), None
    assert isinstance(item, tuple | list)
    if len(item) == 2 and (isinstance(item[0], Mapping) or _is_several(item[0])):
        return item[0], item[1]
    if len(item) == (1 if inputs is None else len(inputs)) + 1:
        return item[:-1], item[-1]
    return item, None


def _is_several(item: object) -> bool:
    """True for a tuple or list of arrays; a list of plain numbers is one array."""
    if isinstance(item, list):
        return any(hasattr(part, "__array__") or isinstance(part, Mapping | tuple) for part in item)
    return isinstance(item, tuple)


def _by_position(values: Sequence[Any], inputs: Inputs) -> dict[str, NDArray[Any]]:
    if inputs is None:
        return {str(i): as_array(value) for i, value in enumerate(values)}
    if len(values) != len(inputs):
        raise DataError(
            f"the samples have {len(values)} arrays by position, the model has {len(inputs)} inputs",
            accepted="one array per input, in the order " + ", ".join(t.name for t in inputs) + ", then labels",
            next_step="give the arrays by name in a dict",
        )
    return {t.name: as_array(value) for t, value in zip(inputs, values, strict=True)}


def _renamed(arrays: dict[str, NDArray[Any]], inputs: Sequence[Tensor]) -> dict[str, NDArray[Any]]:
    if len(arrays) == len(inputs) == 1:
        return {inputs[0].name: next(iter(arrays.values()))}
    names = [tensor.name for tensor in inputs]
    if set(arrays) != set(names):
        missing, unknown = sorted(set(names) - set(arrays)), sorted(set(arrays) - set(names))
        faults = [f"{word} {', '.join(found)}" for word, found in (("missing", missing), ("unknown", unknown)) if found]
        raise DataError(
            f"the samples have the arrays {', '.join(sorted(arrays))}: {'; '.join(faults)}",
            accepted="the model's inputs: " + ", ".join(names) + "; labels under " + ", ".join(_LABEL_KEYS),
        )
    return {name: arrays[name] for name in names}


def labels_differ(labels: int, samples: int) -> DataError:
    """The error for labels that are too few or too many."""
    return DataError(
        f"labels do not match the samples: {labels} labels for {samples} samples",
        accepted="one label per sample",
    )


def _with_shape(array: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """The array itself if its rank and its fixed dimensions, but for the leading one, are the input's."""
    if tensor.shape is None:
        return array
    pairs = zip(tensor.shape[1:], array.shape[1:], strict=False)
    if array.ndim != len(tensor.shape) or any(isinstance(d, int) and d != got for d, got in pairs):
        expected = ("samples", *("any" if d is None else str(d) for d in tensor.shape[1:]))
        raise DataError(
            f"samples for input {tensor.name!r} have shape {list(array.shape)}",
            accepted=f"[{', '.join(expected)}]",
            next_step="check the preprocessing: size, crop and layout; the leading axis counts samples",
        )
    return array


def _converted(array: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """The array with the input's dtype, if every value survives."""
    try:
        wanted = np.dtype(tensor.dtype or array.dtype)
    except TypeError:
        raise DataError(f"input {tensor.name!r} has dtype {tensor.dtype!r}", accepted="a dtype of numpy") from None
    if array.dtype == wanted:
        return array
    if array.dtype.kind not in _KINDS.get(wanted.kind, ""):
        raise DataError(
            f"samples for input {tensor.name!r} are {array.dtype}, the input takes {wanted}",
            accepted=f"{wanted}, or a dtype that converts to it without loss of meaning",
            next_step="convert the samples before they come here",
        )
    if wanted.kind in "iu" and array.size:
        limits, low, high = np.iinfo(wanted), array.min(), array.max()
        if low < limits.min or high > limits.max:
            raise DataError(
                f"samples for input {tensor.name!r} go from {low} to {high}, too far for {wanted}",
                accepted=f"{limits.min} to {limits.max}",
            )
    with np.errstate(over="ignore"):
        converted = array.astype(wanted)
    if wanted.kind == "f" and wanted.itemsize < array.itemsize and (np.isinf(converted) & ~np.isinf(array)).any():
        raise DataError(
            f"samples for input {tensor.name!r} go up to {np.nanmax(np.abs(array)):g}, too far for {wanted}",
            accepted=f"up to {np.finfo(wanted).max:g}",
        )
    return converted
