"""How long an inference takes, and how sure the ratio of two models' times is.

What the clock shows depends on the moment, on where a session's memory happens to lie, and on what else the machine
does. So both models run in turn, with sessions loaded anew for each round: a round gives one ratio of medians, and the
ratios of the rounds, which differ by all that also differs between two calls of the command, give the interval.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from quantscope.profiling.document import Latency, LatencyComparison

PRECISION = 0.03
"""The interval of a ratio is narrow enough at ± this share."""
_FEWEST_ROUNDS, _MOST_ROUNDS = 6, 40
_FEWEST_RUNS = 3
_WARM_UP_RUNS, _WARM_UP_SECONDS = 2, 0.05
# Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond, the series of Cornish and Fisher in 1/degrees.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_NORMAL = 1.959964


class Runs(Protocol):
    """A loaded model."""

    def run(self, inputs: Any, /) -> object:
        """One inference."""
        ...


Load = Callable[[], AbstractContextManager[Runs]]
"""Loads a model."""


@dataclass
class Times:
    """All that was timed of one model: wall and CPU seconds of each run, and seconds of each loading."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)

    def latency(self, batch: int) -> Latency:
        """The percentiles in µs."""
        (wall_50, wall_90, wall_99), (cpu_50, cpu_90, cpu_99) = map(_percentiles_us, (self.wall, self.cpu))
        return Latency(wall_50, wall_90, wall_99, cpu_50, cpu_90, cpu_99, batch * 1e6 / wall_50, len(self.wall))

    @property
    def load_ms(self) -> float:
        """The median time to load the model, in ms."""
        return float(np.median(self.load)) * 1e3


def _percentiles_us(seconds: Sequence[float]) -> tuple[float, float, float]:
    half, most, nearly_all = (float(value) * 1e6 for value in np.percentile(seconds, (50, 90, 99)))
    return half, most, nearly_all


def ratio_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the geometric mean of ratios, and its bounds with 95 % confidence.

    Student's t interval of the mean of the logarithms; without a second ratio nothing bounds it.
    """
    logs = np.log(np.asarray(ratios, dtype=np.float64))
    mean = float(np.mean(logs))
    if len(logs) < 2:
        return math.exp(mean), 0.0, math.inf
    half = student_t(len(logs) - 1) * float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def student_t(degrees: int) -> float:
    """The 97.5 % quantile of Student's t distribution."""
    if degrees <= len(_T):
        return _T[degrees - 1]
    z = _NORMAL
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )


@dataclass(frozen=True)
class Measured:
    """Two models, or one, timed at one setting."""

    reference: Times
    quantized: Times | None
    ratios: tuple[float, ...]
    settled: bool

    def comparison(self, batch: int, threads: int, optimized: bool) -> LatencyComparison:
        """What a profile says of it."""
        alone = LatencyComparison(batch, threads, self.reference.latency(batch), optimized=optimized)
        if self.quantized is None:
            return alone
        speedup, low, high = ratio_interval(self.ratios)
        return replace(
            alone,
            quantized=self.quantized.latency(batch),
            speedup=speedup,
            low=low,
            high=high,
            rounds=len(self.ratios),
            settled=self.settled,
        )


def measure(
    loads: Sequence[Load],
    inputs: Sequence[Any],
    seconds: float,
    report: Callable[[float], None] = lambda share: None,
) -> Measured:
    """Return the times of one model or of two that run in turn, until the ratio is settled or the time is up.

    Args:
        loads: one model, or the reference and the quantized one.
        inputs: what each of them is fed.
        seconds: the time to stop after; no fewer than three rounds are made.
        report: called with the share of the time that has passed.
    """
    times = [Times() for _ in loads]
    ratios: list[float] = []
    begin = time.perf_counter()
    settled = False
    while len(times[0].load) < _MOST_ROUNDS:
        medians = _round(loads, inputs, times, seconds / (4 * _FEWEST_ROUNDS), reverse=len(times[0].load) % 2 == 1)
        passed = time.perf_counter() - begin
        report(min(1.0, passed / seconds))
        rounds = len(times[0].load)
        if len(loads) == 2:
            ratios.append(medians[0] / medians[1])
            settled = rounds >= _FEWEST_ROUNDS and is_settled(ratios)
        if settled or (rounds >= _FEWEST_ROUNDS and len(loads) == 1) or (rounds >= 3 and passed >= seconds):
            break
    return Measured(times[0], times[1] if len(times) > 1 else None, tuple(ratios), settled)


def is_settled(ratios: Sequence[float]) -> bool:
    """True if the interval of the ratio is within ±3 %."""
    middle, low, high = ratio_interval(ratios)
    return high / middle - 1 <= PRECISION and 1 - low / middle <= PRECISION


def _round(
    loads: Sequence[Load], inputs: Sequence[Any], times: Sequence[Times], seconds: float, *, reverse: bool
) -> list[float]:
    """Load the models, warm them up, run them in turn; returns the median time of each."""
    order = list(range(len(loads)))
    if reverse:
        order.reverse()
    first = [len(t.wall) for t in times]
    with ExitStack() as stack:
        runners: dict[int, Runs] = {}
        for number in order:
            begin = time.perf_counter()
            runners[number] = stack.enter_context(loads[number]())
            times[number].load.append(time.perf_counter() - begin)
        for number in order:
            _warm_up(runners[number], inputs[number])
        begin, done = time.perf_counter(), 0
        while done < _FEWEST_RUNS or time.perf_counter() - begin < seconds:
            for number in order:
                wall, cpu = time.perf_counter(), time.process_time()
                runners[number].run(inputs[number])
                times[number].wall.append(time.perf_counter() - wall)
                times[number].cpu.append(time.process_time() - cpu)
            order.reverse()
            done += 1
    return [float(np.median(t.wall[start:])) for t, start in zip(times, first, strict=True)]


def _warm_up(runner: Runs, inputs: Any) -> None:
    begin, done = time.perf_counter(), 0
    while done < _WARM_UP_RUNS or time.perf_counter() - begin < _WARM_UP_SECONDS:
        runner.run(inputs)
        done += 1
