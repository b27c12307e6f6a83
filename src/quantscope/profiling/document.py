"""What `profile` found out: latency of both models, time per op, what quantization added, and reasons.

All times are wall times in microseconds per inference unless the name says otherwise. Everything here is plain data:
`to_dict` and `from_dict` carry it to a run file, a page or a script and back.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quantscope.backends.base import Kernel, KernelRole, Peak


@dataclass(frozen=True)
class Latency:
    """Times of whole inferences of one model, in µs, and samples per second at the median."""

    p50_us: float
    p90_us: float
    p99_us: float
    cpu_p50_us: float
    cpu_p90_us: float
    cpu_p99_us: float
    throughput: float
    runs: int


@dataclass(frozen=True)
class LatencyComparison:
    """Both models at one batch size and number of threads, run in turn.

    `optimized` is False for models that ran as they are written, without what the framework does by itself.
    `speedup` is the reference's time over the quantized model's: above 1 the quantized model is faster; `low` and
    `high` bound it with 95 % confidence, from `rounds` pairs of sessions loaded anew. `settled` tells whether the
    bounds came within ±3 % before the time was up.
    """

    batch: int
    threads: int
    reference: Latency
    quantized: Latency | None = None
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 0
    settled: bool = False
    optimized: bool = True


@dataclass(frozen=True)
class OpSide:
    """What one model spends on an op of the table.

    `us` is the time of the kernels that compute it, `added_us` that of the changes of type and layout for it;
    `total_us` is both. `share` is the total's share of all the model's op time. `calls` counts kernel runs in one
    inference, `defined` the kernels. `dtype` is what its first kernel reads. `peak_share` is its multiply-adds per
    second as a share of what this processor was measured to do in that type; None without multiply-adds.
    `bandwidth_share` is its bytes per second as a share of the measured memory bandwidth.
    """

    us: float
    added_us: float
    total_us: float
    share: float
    cpu_us: float
    accelerator_us: float
    calls: float
    defined: int
    dtype: str = ""
    bytes_moved: int = 0
    peak_share: float | None = None
    bandwidth_share: float | None = None
    kernels: tuple[Kernel, ...] = ()


@dataclass(frozen=True)
class OpTiming:
    """A row: an op of the reference, with those that either model fuses with it, and its time in both models.

    `name` is the op with most multiply-adds of `ops`. A side is None where that model has nothing to run for the row.
    `speedup` is the reference's total over the quantized model's, None where one is missing.
    """

    name: str
    op_type: str
    scope: str
    ops: tuple[str, ...]
    multiply_adds: int
    reference: OpSide | None
    quantized: OpSide | None = None
    speedup: float | None = None


@dataclass(frozen=True)
class AddedTiming:
    """Time and number of the kernels of one type that the model did not ask for, such as QuantizeLinear."""

    op_type: str
    role: KernelRole
    reference_us: float
    quantized_us: float
    reference_count: int
    quantized_count: int


@dataclass(frozen=True)
class Sums:
    """How the time per op adds up for one model at the setting that was profiled.

    `latency_us` is an inference without the profiler, `profiled_us` with it, `kernels_us` the sum over all kernels,
    each a mean over the faster half of runs made in turn; `attributed` is the share of the sum that has the user's op
    names.
    """

    latency_us: float
    profiled_us: float
    kernels_us: float
    attributed: float

    @property
    def agreement(self) -> float:
        """Sum of the kernels over the latency; 1 when they agree."""
        return self.kernels_us / self.latency_us if self.latency_us else float("nan")

    @property
    def overhead(self) -> float:
        """What the profiler itself adds, as a share of the latency."""
        return self.profiled_us / self.latency_us - 1 if self.latency_us else float("nan")


@dataclass(frozen=True)
class ModelFacts:
    """One model: its file's size, the time to load it, the memory that loading and one inference took at most."""

    path: str | None
    bytes: int | None
    load_ms: float
    peak_memory_bytes: int | None
    sums: Sums


@dataclass(frozen=True)
class Tried:
    """A change that was made and timed: median inference of the quantized model before and after, and the gain.

    `gain` is before over after, between `low` and `high` with 95 % confidence.
    """

    before_us: float
    after_us: float
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Rewritten:
    """A faster model that was written: what was changed, by the titles of the reasons, and the measured gain in all.

    Its outputs were found to be those of the quantized model, to the last bit, on `samples` samples.
    """

    path: str
    changes: tuple[str, ...]
    measured: Tried
    samples: int


@dataclass(frozen=True)
class Reason:
    """Why time is lost: the rule that found it, the user's ops it is about, the evidence, and what to change.

    `cost_us` is an estimate of the time at stake, by which reasons are ordered; `tried` is the measured gain; `exact`
    tells that the change leaves all outputs as they are, so that it can be written.
    """

    rule: str
    ops: tuple[str, ...]
    title: str
    evidence: str
    change: str
    cost_us: float
    tried: Tried | None = None
    exact: bool = False


@dataclass(frozen=True)
class Profile:
    """The whole of it. `ops` are ordered by time in the quantized model (the reference's, where there is none).

    `batch`, `threads` and `optimized` are the setting at which the ops were timed. `optimization` names what was left
    out where `optimized` is False, here or in `latencies`. `run` is the run file that holds it, "" for none.
    """

    batch: int
    threads: int
    data: str
    reference: ModelFacts
    quantized: ModelFacts | None
    latencies: tuple[LatencyComparison, ...]
    ops: tuple[OpTiming, ...]
    added: tuple[AddedTiming, ...]
    peak: Peak
    reasons: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    run: str = ""
    optimized: bool = True
    optimization: str = ""
    rewritten: Rewritten | None = None

    def to_dict(self) -> dict[str, Any]:
        """The profile as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Profile:
        """The profile that `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: it did not.
        """
        wanted: Any = cls
        made: Profile = _reader(wanted)(values)
        return made


@functools.cache
def _reader(wanted: Any) -> Callable[[Any], Any]:
    """What makes a value the annotated type: dataclasses from mappings, tuples from lists.

    Made once per type, since a large model has a million values.
    """
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return _dataclass_reader(wanted)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        known = _reader(next(a for a in arguments if a is not type(None)))
        return lambda value: None if value is None else known(value)
    if origin is tuple:
        part = _reader(arguments[0])

        def read_list(value: Any) -> Any:
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise TypeError(f"{value!r} is no list")
            return tuple(map(part, value))

        return read_list
    if origin is typing.Literal:
        return lambda value: _accepted(value, value in arguments, " or ".join(map(repr, arguments)))
    if wanted in (int, float, str, bool):
        accepted = (int, float) if wanted is float else wanted
        return lambda value: _accepted(value, isinstance(value, accepted), wanted.__name__)
    return lambda value: value


def _dataclass_reader(wanted: type[Any]) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(wanted)
    readers = {f.name: _reader(hints[f.name]) for f in dataclasses.fields(wanted)}

    def read(value: Any) -> Any:
        _accepted(value, isinstance(value, Mapping), wanted.__name__)
        unknown = value.keys() - readers.keys()
        if unknown:
            raise ValueError(f"{wanted.__name__} has no {', '.join(sorted(map(str, unknown)))}")
        return wanted(**{name: readers[name](part) for name, part in value.items()})

    return read


def _accepted(value: Any, is_accepted: bool, wanted: str) -> Any:
    if not is_accepted:
        raise TypeError(f"{value!r} is no {wanted}")
    return value
