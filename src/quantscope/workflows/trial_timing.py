"""Times the models of a search: each against the float model in turn, and op by op to see what to leave in float."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from quantscope.backends.base import Backend, Model
from quantscope.fallback.speed import Speed
from quantscope.profiling.document import OpTiming
from quantscope.profiling.inputs import Inputs, InputSource, for_other
from quantscope.profiling.measurement import op_times
from quantscope.profiling.timing import PARTS, gain
from quantscope.progress import Progress
from quantscope.recipe import Recipe
from quantscope.samples import Samples
from quantscope.workflows.quantizer import Quantizer

_NAMED_TYPES = 3

Candidates = Mapping[str, Sequence[str]]
"""Sets of ops to leave in float, by the name of the change."""


class TrialTiming:
    """Times a recipe's model against the float model, both loaded from memory, as production runs them.

    They are fed as many samples at once as the model's inputs fix, else one.
    """

    def __init__(
        self,
        backend: Backend,
        model: Model,
        quantizer: Quantizer,
        samples: Samples,
        *,
        seconds: float,
        threads: int,
        progress: Progress,
        known: Mapping[str, Any],
        note: Callable[[str, Candidates], None],
    ) -> None:
        """`seconds` is the longest that a model is timed; less when its speed-up is known within ±3 %.

        `known` has what `candidates` found in an earlier process, by the recipe's `repr`; `note` is told of more.
        """
        self._backend = backend
        self._model = model
        self._quantizer = quantizer
        self._source = InputSource(model.graph.inputs, samples)
        self._seconds = seconds
        self._threads = threads
        self._progress = progress
        self._known = known
        self._note = note

    @cached_property
    def _inputs(self) -> Inputs:
        return self._source.batch(self._source.sizes(None)[0])

    def speed(self, recipe: Recipe) -> Speed:
        """The recipe's model against the float model."""
        quantized = self._quantizer.quantized(recipe)
        self._progress.stage("time", PARTS)
        found = gain(
            self._backend, self._model, quantized, self._inputs, self._threads, self._seconds, self._progress
        )  # fmt: skip
        return Speed(found.gain, found.low, found.high, found.before_us)

    def candidates(self, recipe: Recipe) -> Candidates:
        """Sets of quantized ops that may be faster in float, by the name of the change."""
        found: Candidates | None = self._known.get(repr(recipe.to_dict()))
        if found is None:
            quantized = self._quantizer.quantized(recipe)
            fed = for_other(self._inputs, self._model.graph.inputs, quantized.graph.inputs)
            self._progress.stage("profile ops", None)
            rows = op_times(self._backend, self._model, quantized, (self._inputs, fed), self._threads)
            found = candidates(rows, self._quantizer.named_ops(recipe))
            self._note(repr(recipe.to_dict()), found)
        return found


def candidates(rows: Sequence[OpTiming], quantized_ops: Sequence[str]) -> dict[str, list[str]]:
    """Return which of the quantized ops may be faster in float, by the name of the change.

    Four sets: ops without multiply-adds, which have little to gain in int8 and cost changes of type; ops of the types
    that lose time in all; each op that loses; and the one that loses most, as others may lose less than the changes of
    type cost that float needs. A single op's time is noisier than the sum over a type. The changes of type around an op
    are part of its time.

    Args:
        rows: each op's time in both models.
        quantized_ops: the ops that are quantized, in the order of the sets that are returned.
    """
    quantized = set(quantized_ops)
    both = [r for r in rows if r.reference is not None and r.quantized is not None and quantized.intersection(r.ops)]
    lost_us: dict[str, float] = defaultdict(float)
    for row in both:
        lost_us[row.op_type] += _lost_us(row)
    types = sorted((op_type for op_type, us in lost_us.items() if us > 0), key=lambda op_type: -lost_us[op_type])
    more = f" and {len(types) - _NAMED_TYPES} more types" if len(types) > _NAMED_TYPES else ""
    losing = sorted((row for row in both if _lost_us(row) > 0), key=lambda row: -_lost_us(row))
    sets = {
        "{ops} without multiply-adds in float": [row for row in rows if not row.multiply_adds],
        f"all {', '.join(types[:_NAMED_TYPES])}{more} in float": [row for row in both if row.op_type in types],
        "{ops} in float that int8 makes slower": losing,
    }
    if len(losing) > 1:
        sets[f"{losing[0].name} in float, which int8 slows down most"] = losing[:1]
    found = {}
    for change, members in sets.items():
        names = {name for row in members for name in row.ops}
        if chosen := [op for op in quantized_ops if op in names]:
            found[change.format(ops="1 op" if len(chosen) == 1 else f"{len(chosen)} ops")] = chosen
    return found


def _lost_us(row: OpTiming) -> float:
    assert row.reference is not None
    assert row.quantized is not None
    return row.quantized.total_us - row.reference.total_us
