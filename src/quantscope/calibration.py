"""Calibration: a sweep over the samples gives the range of each tensor, in memory that does not grow with them.

Tensors that do not fit in memory at once are looked at in several passes, with the same ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice

from quantscope import memory
from quantscope.backends.base import Backend, Model, Ranges
from quantscope.errors import DataError
from quantscope.recipe import Recipe
from quantscope.samples import Batch
from quantscope.statistics import TensorStatistics
from quantscope.statistics.ranges import calibrated_range

_FLOAT_BYTES = 4
# The framework's tensors, and the copies it gives of them.
_HELD = 2


def observe(
    backend: Backend,
    model: Model,
    recipe: Recipe,
    batches: Callable[[], Iterable[Batch]],
    *,
    threads: int = 0,
    memory_bytes: int | None = None,
    progress: Callable[[int], None] = lambda samples: None,
) -> tuple[dict[str, TensorStatistics], tuple[str, ...]]:
    """Return the statistics of every tensor that the recipe quantizes, and notes on what was odd.

    Args:
        model: prepared by the backend.
        batches: gives the samples, from the first one each time.
        memory_bytes: of tensors to hold at once; a share of what is free if None.
        progress: called with a number of samples that were just seen; a sample of several passes counts once.
    Raises:
        DataError: there was no sample.
    """
    names = backend.tensors_to_calibrate(model, recipe)
    statistics = {name: TensorStatistics() for name in names}
    begun = iter(batches())
    first = list(islice(begun, 1))
    chunks = _chunks(backend, model, names, first, memory_bytes or memory.budget())
    seen = told = 0
    for number, chunk in enumerate(chunks):
        # Op by op: a fused kernel rounds otherwise, and on another processor yet otherwise.
        with backend.open(model, chunk, trace="exact", threads=threads) as runner:
            # What was read to see how large the tensors are is not read again.
            for batch in chain(first, begun) if number == 0 else batches():
                values = {**batch.inputs, **runner.run(batch.inputs)}
                for name in chunk:
                    if name in values and values[name].dtype.kind == "f":
                        statistics[name].update(values[name])
                del values
                seen += batch.size
                progress(seen // len(chunks) - told)
                told = seen // len(chunks)
    if not seen:
        raise DataError("no samples to calibrate with", accepted="at least one sample", next_step="check --data")
    odd = [name for name in names if statistics[name].count > statistics[name].finite_count]
    if not odd:
        return statistics, ()
    return statistics, (
        f"calibration met values that are not finite in {len(odd)} tensors, first in {odd[0]!r}; "
        "ranges are those of the finite values",
    )


def _chunks(
    backend: Backend, model: Model, names: Sequence[str], first: Sequence[Batch], limit: int
) -> list[Sequence[str]]:
    """The tensors of each pass: as many as memory holds of a batch's, such as the first one's."""
    if not first or not names:
        return [names]
    counts = backend.element_counts(model, names, first[0].inputs)
    sizes = [_HELD * _FLOAT_BYTES * counts.get(name, 0) for name in names]
    return [names[chunk.start : chunk.stop] for chunk in memory.chunks(sizes, limit)]


def ranges(statistics: Mapping[str, TensorStatistics], recipe: Recipe) -> Ranges:
    """Return the range of every tensor that was observed, as the recipe calibrates."""
    levels = 1 << recipe.activations.bits
    return {name: calibrated_range(s, recipe.calibration, levels) for name, s in statistics.items() if s.count}


def calibrate(
    backend: Backend,
    model: Model,
    recipe: Recipe,
    batches: Callable[[], Iterable[Batch]],
    *,
    threads: int = 0,
    memory_bytes: int | None = None,
    progress: Callable[[int], None] = lambda samples: None,
) -> tuple[Ranges, tuple[str, ...]]:
    """Return the range of every tensor that the recipe quantizes, and notes; arguments and errors as of `observe`."""
    statistics, notes = observe(
        backend, model, recipe, batches, threads=threads, memory_bytes=memory_bytes, progress=progress
    )
    return ranges(statistics, recipe), notes
