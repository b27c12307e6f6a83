"""How much each op matters at the model's output, measured on the samples where the two models disagree most."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from os import cpu_count

import numpy as np

from quantscope import spread
from quantscope.backends.base import Backend, Model
from quantscope.fallback.damage import damage
from quantscope.fallback.groups import Group
from quantscope.fallback.measurement import Measured, Measurement, Task
from quantscope.progress import Progress
from quantscope.samples import Batch
from quantscope.statistics.ranks import spearman

STAGE = "sensitivity"
# Ops that are measured, and samples they are measured on, if nobody says.
MOST_OPS, MOST_SAMPLES = 64, 8
_CONSIDERED_SAMPLES = 128
_BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Sensitivity:
    """What one op, or one group of ops, does to the model's output.

    `alone` is the damage with this op alone quantized, with its 95 % interval over the samples; `gain` the damage that
    goes if it alone is left in float; both are means per sample, in the unit of `damage_name`. `best_rank` and
    `worst_rank` bound its place in the order of the damage alone in 95 % of bootstrap samples; 1 is the op that matters
    most. `ops` are the members of a group; an op is its own. Where the damage alone to the worst batch is next to
    nothing it is that of this batch, and there is no interval and no gain: both are nan.
    """

    op: str
    op_type: str
    scope: str
    ops: tuple[str, ...]
    alone: float
    alone_low: float
    alone_high: float
    gain: float
    best_rank: int
    worst_rank: int


@dataclass(frozen=True)
class Sensitivities:
    """All that was measured, what matters most first; `damage` is that of the quantized model.

    `others` are the quantized ops that were not measured: those that would come after the number that was asked for,
    and those whose isolated error is above 60 dB. `agreement` is Spearman's rank correlation of columns that cost less
    (output error, isolated error, cumulative error, mse) with the damage alone, on this model: 1 if the column alone
    gives the order, 0 if it says nothing; nan below three ops. `run` is the run file, "" if none was written.
    """

    ops: tuple[Sensitivity, ...]
    damage_name: str
    damage: float
    samples: int
    others: tuple[str, ...] = ()
    agreement: Mapping[str, float] = field(default_factory=dict)
    run: str = ""

    @property
    def ranking(self) -> tuple[str, ...]:
        """All quantized ops, those that matter most first."""
        return tuple(dict.fromkeys([*(op for row in self.ops for op in row.ops), *self.others]))


def most_damaged(
    backend: Backend,
    reference: Model,
    quantized: Model,
    batches: Iterable[Batch],
    count: int,
    *,
    threads: int,
    progress: Callable[[int], None] = lambda samples: None,
) -> list[Batch]:
    """Return the batches on which the two models disagree most, the worst first."""
    found: list[tuple[float, int, Batch]] = []
    seen = 0
    with ExitStack() as stack:
        run_reference, run_quantized = (
            stack.enter_context(backend.open(model, [], trace="optimized", threads=threads))
            for model in (reference, quantized)
        )
        for batch in batches:
            x = run_reference.run(batch.inputs)
            _, values = damage(run_quantized.run(batch.inputs), x)
            item = (float(np.nan_to_num(values, nan=np.inf).mean()), -batch.first, batch)
            (heapq.heappush if len(found) < count else heapq.heappushpop)(found, item)
            progress(batch.size)
            seen += batch.size
            if seen >= _CONSIDERED_SAMPLES:
                break
    return [batch for _, _, batch in sorted(found, key=lambda item: item[:2], reverse=True)]


def sensitivities(
    task: Task,
    *,
    most_ops: int = MOST_OPS,
    workers: int = 1,
    known: Mapping[str, Measured] | None = None,
    note: Callable[[str, Measured], None] = lambda name, measured: None,
    progress: Progress,
) -> Sensitivities:
    """Return the effect of each quantized op, or group, on the model's output.

    Args:
        task: what is measured; as many of its samples as memory holds are used.
        most_ops: so many are measured: those that the output's error comes from by estimate.
        workers: processes that share them.
        known: what an earlier process measured on the same samples, by name.
        note: is told of each that was measured now.
    Raises:
        WorkerError: worker processes keep dying.
    """
    known = known or {}
    measurement = Measurement(task)
    chosen = measurement.candidates[:most_ops]
    progress.stage(STAGE, len(chosen))
    waiting = [group for group in chosen if group.name not in known]
    for _ in range(len(chosen) - len(waiting)):
        progress.advance()
    measured: dict[str, Measured | None] = {group.name: known.get(group.name) for group in chosen}
    for group, found in zip(waiting, _measured(task, measurement, waiting, workers), strict=True):
        measured[group.name] = found
        if found is not None:
            note(group.name, found)
        progress.advance()
    return _ranked(measurement, chosen, measured, most_ops)


def _measured(task: Task, measurement: Measurement, groups: Sequence[Group], workers: int) -> Iterator[Measured | None]:
    if workers <= 1 or len(groups) < 2:
        yield from map(measurement.of, groups)
        return
    threads = max(1, (task.threads or cpu_count() or 1) // workers)
    yield from spread.over_processes(partial(_measure, replace(task, threads=threads)), groups, workers)


class _Own:
    """The measurement that this process has traced."""

    task: Task | None = None
    measurement: Measurement | None = None


def _measure(task: Task, group: Group) -> Measured | None:
    """What a group does, in a process that traces the models once."""
    if _Own.task is not task or _Own.measurement is None:
        _Own.task, _Own.measurement = task, Measurement(task)
    return _Own.measurement.of(group)


def _ranked(
    measurement: Measurement, chosen: Sequence[Group], measured: Mapping[str, Measured | None], most_ops: int
) -> Sensitivities:
    """By falling damage alone; the places in the order are bootstrapped over the samples."""
    found = [(group, result) for group in chosen if (result := measured[group.name]) is not None]
    full = [(group, result) for group, result in found if result.left is not None]
    before = measurement.before
    draws = np.random.default_rng(0).integers(0, len(before), (_BOOTSTRAPS, len(before)))
    means = np.array([result.alone for _, result in full]).reshape(len(full), -1)[:, draws].mean(2)
    ranks = (-means).argsort(axis=0, kind="stable").argsort(axis=0) + 1
    low, high = np.quantile(means, (0.025, 0.975), axis=1)
    best, worst = np.quantile(ranks, (0.025, 0.975), axis=1, method="nearest")
    rows = [
        Sensitivity(
            group.name, group.op_type, group.scope, group.ops,
            float(np.mean(result.alone)), float(low[i]), float(high[i]),
            float((before - np.array(result.left)).mean()), int(best[i]), int(worst[i]),
        )
        for i, (group, result) in enumerate(full)
    ]  # fmt: skip
    rows.sort(key=lambda row: (-row.alone, -row.gain))
    hopeless = sorted((item for item in found if item[1].left is None), key=lambda item: -float(np.mean(item[1].alone)))
    rows += [
        Sensitivity(
            group.name, group.op_type, group.scope, group.ops,
            float(np.mean(result.alone)), math.nan, math.nan, math.nan, len(full) + 1, len(found),
        )
        for group, result in hopeless
    ]  # fmt: skip
    rest = [*measurement.candidates[most_ops:], *measurement.harmless]
    columns = measurement.columns([group for group, _ in found]) if found else {}
    alone = np.array([np.mean(result.alone) for _, result in found])
    return Sensitivities(
        tuple(rows),
        measurement.damage_name,
        float(before.mean()),
        len(before),
        tuple(dict.fromkeys(op for group in rest for op in group.ops)),
        {name: spearman(values, alone) for name, values in columns.items()},
    )
