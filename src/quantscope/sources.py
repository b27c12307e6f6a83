"""Where samples come from: arrays, photos, functions, streams and sequences, each read again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quantscope.binding import Chunk, Inputs, chunk_of, is_lone
from quantscope.errors import DataError

if TYPE_CHECKING:
    from quantscope.images import PhotoFolder, Preprocessing

ACCEPTED = (
    "a folder of photos, an .npz or .npy file, package.module:function, an array, a dict of arrays, "
    "a list of batches, a DataLoader"
)


class Source(Protocol):
    """Where samples come from: anything that can be read again and again."""

    skipped: dict[str, str]

    def read(self, start: int, stop: int | None, inputs: Inputs) -> Iterator[Chunk]:
        """Yield the samples from number `start` up to `stop`, the others unread where that is possible."""

    def count(self, inputs: Inputs) -> int:
        """How many samples there are, unreadable ones included."""


@dataclass
class ArraysSource:
    """Arrays in memory or mapped from a file."""

    values: Mapping[str, NDArray[Any]] | NDArray[Any]
    labels: NDArray[Any] | None
    length: int
    skipped: dict[str, str] = field(default_factory=dict)

    def read(self, start: int, stop: int | None, inputs: Inputs) -> Iterator[Chunk]:
        values = self.values if isinstance(self.values, Mapping) else (self.values,)
        whole = chunk_of((values, self.labels), inputs, 0, batched=True)
        # One by one, so that a mapped file is never wholly in memory.
        for index in range(start, self.length if stop is None else min(stop, self.length)):
            yield whole.part(index, index + 1)

    def count(self, inputs: Inputs) -> int:
        return self.length


@dataclass
class PhotosSource:
    """A folder of photos."""

    found: PhotoFolder
    preprocessing: Preprocessing
    skipped: dict[str, str] = field(default_factory=dict)

    def read(self, start: int, stop: int | None, inputs: Inputs) -> Iterator[Chunk]:
        from quantscope.images import UnreadableImageError, read_photo

        for index in range(self.count(inputs))[start:stop]:
            photo = self.found.photos[index]
            try:
                array = read_photo(photo.path, self.preprocessing)[None]
            except UnreadableImageError as error:
                self.skipped[photo.name] = error.message
                continue
            labels = None if photo.label is None else np.array([photo.label])
            yield chunk_of(((array,), labels), inputs, index, batched=True)

    def count(self, inputs: Inputs) -> int:
        return len(self.found.photos)


@dataclass
class FunctionSource:
    """A function that is called for each pass."""

    function: Callable[..., Any]
    source_of: Callable[[object], Source]
    skipped: dict[str, str] = field(default_factory=dict)
    given: object = None

    def read(self, start: int, stop: int | None, inputs: Inputs) -> Iterator[Chunk]:
        return self._source().read(start, stop, inputs)

    def count(self, inputs: Inputs) -> int:
        return self._source().count(inputs)

    def _source(self) -> Source:
        made = self.function()
        if isinstance(made, Iterator):
            if made is self.given:
                raise only_once(made)
            self.given = made
            return StreamSource(made)
        if made is None or isinstance(made, str):
            name = getattr(self.function, "__name__", type(self.function).__name__)
            raise DataError(f"function {name} returned {made!r}", accepted="arrays, or an iterable of batches")
        source = self.source_of(made)
        source.skipped = self.skipped
        return source


@dataclass
class StreamSource:
    """An iterable of batches or of lone samples, which has to be read from its beginning."""

    iterable: Iterable[Any]
    skipped: dict[str, str] = field(default_factory=dict)
    gave: bool = False

    def read(self, start: int, stop: int | None, inputs: Inputs) -> Iterator[Chunk]:
        first = 0
        for item in self.iterable:
            self.gave = True
            chunk = chunk_of(item, inputs, first)
            first = chunk.stop
            yield from _within(chunk, start, stop)
            if stop is not None and first >= stop:
                return
        if first == 0 and self.gave:
            raise only_once(self.iterable)

    def count(self, inputs: Inputs) -> int:
        drawn: Any = getattr(self.iterable, "sampler", getattr(self.iterable, "dataset", None))
        # Without a number of its own for the batch size a loader draws in a way that only it knows.
        plain = isinstance(getattr(self.iterable, "batch_size", None), int)
        if plain and hasattr(drawn, "__len__") and not getattr(self.iterable, "drop_last", False):
            return len(drawn)
        return sum(chunk.size for chunk in self.read(0, None, inputs))


@dataclass
class SequenceSource:
    """Batches or lone samples that can be reached by number."""

    items: Any
    skipped: dict[str, str] = field(default_factory=dict)

    def read(self, start: int, stop: int | None, inputs: Inputs) -> Iterator[Chunk]:
        lone = self._lone(inputs)
        first = start if lone else 0
        for index in range(first, len(self.items)):
            if stop is not None and first >= stop:
                return
            chunk = chunk_of(self.items[index], inputs, first)
            if lone and chunk.size != 1:
                raise DataError(
                    f"item 0 is a lone sample and item {index} a batch of {chunk.size}", accepted="one kind"
                )
            first = chunk.stop
            yield from _within(chunk, start, stop)

    def count(self, inputs: Inputs) -> int:
        return len(self.items) if self._lone(inputs) else sum(c.size for c in self.read(0, None, inputs))

    def _lone(self, inputs: Inputs) -> bool:
        """True if an item is one sample: its number is the sample's, and those before it need no reading."""
        return len(self.items) > 0 and is_lone(self.items[0], inputs)


def _within(chunk: Chunk, start: int, stop: int | None) -> Iterator[Chunk]:
    """The part of the chunk from sample `start` up to `stop`, if there is one."""
    low, high = (
        max(start - chunk.first, 0),
        chunk.size if stop is None else min(stop - chunk.first, chunk.size),
    )
    if low < high:
        yield chunk.part(low, high)


def only_once(source: object) -> DataError:
    """The error for an iterator or generator, which a first pass exhausts."""
    return DataError(
        f"samples of type {type(source).__name__} can be gone through only once, but are needed again",
        accepted=ACCEPTED,
        next_step="pass list(samples), or a function that returns a fresh generator, itself or by its name "
        '"package.module:function"',
    )
