"""All that a diagnosis was asked for, so that a later process can go on with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from quantscope.errors import DataError

Traced = Literal["deployed", "simulated", "both"]
"""Which form of the quantized model is looked at: the one that really runs, the float simulation of it, or both."""


@dataclass(frozen=True)
class Plan:
    """How to diagnose; `quantscope.workflows.diagnose` says what each field means.

    Raises:
        DataError: a value makes no sense.
    """

    calibration_samples: int | None = None
    samples: int | None = None
    batch_size: int | None = None
    metric: str | None = None
    threads: int = 0
    trace: Traced = "deployed"
    memory_bytes: int | None = None
    workers: int = 1
    scheduler: str | None = None
    budget_samples: int | None = None

    def __post_init__(self) -> None:
        if self.trace not in get_args(Traced):
            raise DataError(f"trace {self.trace!r}", accepted=", ".join(get_args(Traced)))
        for value, least, text in (
            (self.samples, 1, "{} samples"),
            (self.calibration_samples, 1, "{} calibration samples"),
            (self.batch_size, 1, "batch size {}"),
            (self.memory_bytes, 1, "{} bytes of memory"),
            (self.workers, 1, "{} workers"),
            (self.threads, 0, "{} threads"),
            (self.budget_samples, 0, "{} budget samples"),
        ):
            if value is not None and value < least:
                raise DataError(text.format(value), accepted=f"{least} or more")
        if self.scheduler is not None and self.workers > 1:
            raise DataError(
                f"both {self.workers} workers and the scheduler {self.scheduler} are given",
                accepted="workers for processes on this machine, or the scheduler of a Dask cluster",
            )
