"""Calibration: one sweep over the samples, in memory that does not grow with them, gives the range of each tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from quantscope.backends.base import Backend, Model, Ranges
from quantscope.errors import DataError
from quantscope.recipe import Recipe
from quantscope.samples import Batch
from quantscope.statistics import TensorStatistics
from quantscope.statistics.ranges import calibrated_range


def observe(
    backend: Backend,
    model: Model,
    recipe: Recipe,
    batches: Iterable[Batch],
    *,
    threads: int = 0,
    progress: Callable[[int], None] = lambda samples: None,
) -> tuple[dict[str, TensorStatistics], tuple[str, ...]]:
    """Return the statistics of every tensor that the recipe quantizes, and notes on what was odd.

    Args:
        model: prepared by the backend.
        batches: the samples.
        progress: called with the number of samples that were just seen.
    Raises:
        DataError: there was no sample.
    """
    names = backend.tensors_to_calibrate(model, recipe)
    statistics = {name: TensorStatistics() for name in names}
    seen = 0
    # Op by op: a fused kernel rounds otherwise, and on another processor yet otherwise.
    with backend.open(model, names, trace="exact", threads=threads) as runner:
        for batch in batches:
            values = {**batch.inputs, **runner.run(batch.inputs)}
            for name in names:
                if name in values and values[name].dtype.kind == "f":
                    statistics[name].update(values[name])
            seen += batch.size
            progress(batch.size)
    if not seen:
        raise DataError("no samples to calibrate with", accepted="at least one sample", next_step="check --data")
    odd = [name for name in names if statistics[name].count > statistics[name].finite_count]
    if not odd:
        return statistics, ()
    return statistics, (
        f"calibration met values that are not finite in {len(odd)} tensors, first in {odd[0]!r}; "
        "ranges are those of the finite values",
    )


def ranges(statistics: Mapping[str, TensorStatistics], recipe: Recipe) -> Ranges:
    """Return the range of every tensor that was observed, as the recipe calibrates."""
    levels = 1 << recipe.activations.bits
    return {name: calibrated_range(s, recipe.calibration, levels) for name, s in statistics.items() if s.count}


def calibrate(
    backend: Backend,
    model: Model,
    recipe: Recipe,
    batches: Iterable[Batch],
    *,
    threads: int = 0,
    progress: Callable[[int], None] = lambda samples: None,
) -> tuple[Ranges, tuple[str, ...]]:
    """Return the range of every tensor that the recipe quantizes, and notes; arguments and errors as of `observe`."""
    statistics, notes = observe(backend, model, recipe, batches, threads=threads, progress=progress)
    return ranges(statistics, recipe), notes
