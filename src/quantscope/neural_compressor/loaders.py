"""Data loaders as Neural Compressor takes them, which yield pairs (inputs, labels), as samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from quantscope.binding import Chunk, Inputs, as_array, chunk_of
from quantscope.errors import DataError
from quantscope.graph import Tensor
from quantscope.samples import Samples
from quantscope.sources import only_once

_ACCEPTED = (
    "an object with __iter__ that gives batches (inputs, labels) each time it is gone through, such as a DataLoader"
)


def checked(loader: object, name: str) -> Any:
    """The loader itself.

    Raises:
        DataError: it cannot be gone through, or only once.
    """
    if not hasattr(loader, "__iter__"):
        raise DataError(f"{name} of type {type(loader).__name__}", accepted=_ACCEPTED)
    if isinstance(loader, Iterator):
        raise only_once(loader)
    return loader


def samples_of(loader: Any, inputs: tuple[Tensor, ...], *, start: int = 0, stop: int) -> Samples:
    """The inputs that a loader gives, from sample number `start` up to `stop`, and no more of it read than that."""
    source = _LoaderSource(loader, start, stop)
    return Samples(source, f"samples {start} to {stop - 1} of {type(loader).__name__}").for_inputs(inputs)


def inputs_of(item: object, inputs: Inputs) -> object:
    """The inputs of one batch, as `chunk_of` takes them; its labels are left out."""
    given = item[0] if isinstance(item, tuple | list) and len(item) == 2 else item
    if isinstance(given, Mapping):
        return given
    if inputs is not None and len(inputs) == 1:
        return (as_array(given),)
    return tuple(as_array(part) for part in given) if isinstance(given, tuple | list) else (as_array(given),)


@dataclass
class _LoaderSource:
    """Some consecutive samples of a loader, without labels: those of a calibration set often are stand-ins."""

    loader: Any
    start: int
    stop: int
    skipped: dict[str, str] = field(default_factory=dict)
    gave: bool = False

    def read(self, start: int, stop: int | None, inputs: Inputs) -> Iterator[Chunk]:
        low = self.start + start
        high = self.stop if stop is None else min(self.stop, self.start + stop)
        seen = 0
        for item in self.loader if low < high else ():
            self.gave = True
            chunk = chunk_of(inputs_of(item, inputs), inputs, seen)
            seen = chunk.stop
            first, last = max(low - chunk.first, 0), min(high - chunk.first, chunk.size)
            if first < last:
                part = chunk.part(first, last)
                yield replace(part, first=part.first - self.start)
            if seen >= high:
                return
        if seen == 0 and self.gave:
            raise only_once(self.loader)

    def count(self, inputs: Inputs) -> int:
        return sum(chunk.size for chunk in self.read(0, None, inputs))
