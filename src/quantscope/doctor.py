"""What this machine can do for int8, read and measured, and what to choose for it."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import Any

from quantscope.backends.base import Framework, Peak
from quantscope.backends.registry import backend, names
from quantscope.machine import Machine, machine
from quantscope.progress import Progress, Silent
from quantscope.recommendation import Recommendation, recommend


@dataclass(frozen=True)
class Checkup:
    """The machine, the framework on it, what it was measured to do by number of threads, and what to choose."""

    machine: Machine
    framework: Framework
    peaks: dict[int, Peak]
    recommendations: tuple[Recommendation, ...]

    @property
    def command(self) -> str:
        """How to quantize a model for this machine."""
        flags = [flag for chosen in self.recommendations for flag in chosen.flags]
        return shlex.join(["quantscope", "quantize", "model.onnx", "model.int8.onnx", "--data", "samples.npz", *flags])

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        values = asdict(self)
        processor = self.machine.processor
        values["machine"]["processor"] = {
            "name": processor.name,
            "architecture": processor.architecture,
            "instructions": processor.notable,
            "saturates": processor.saturates,
            "features": None if processor.features is None else sorted(processor.features),
        }
        values["machine"]["threads"] = self.machine.threads
        return {**values, "command": self.command}


def examine(*, measure: bool = True, progress: Progress | None = None) -> Checkup:
    """Return what this machine can do for int8 and what to choose; with `measure` in about five seconds, else at once.

    The kernels are measured with one thread and with as many as can compute at once.
    """
    progress = progress or Silent()
    here, kernels = machine(), backend(names()[0])
    runtime = kernels.framework()
    peaks: dict[int, Peak] = {}
    if measure:
        counts = sorted({1, here.threads})
        progress.stage("measure", len(counts))
        for threads in counts:
            peaks[threads] = kernels.peak(threads)
            progress.advance()
    return Checkup(here, runtime, peaks, recommend(here, runtime.default_threads))
