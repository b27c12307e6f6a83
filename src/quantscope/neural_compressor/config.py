"""The configuration classes of Neural Compressor 2.x: the same arguments, in the same order, with the same defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from quantscope.errors import RecipeError
from quantscope.neural_compressor import limits
from quantscope.neural_compressor.limits import CompatibilityWarning

__all__ = [
    "AccuracyCriterion",
    "BenchmarkConfig",
    "CompatibilityWarning",
    "PostTrainingQuantConfig",
    "TuningCriterion",
    "options",
    "set_workspace",
]


@dataclass
class AccuracyCriterion:
    """How much worse than the float model the quantized one may be.

    `tolerable_loss` is a share of the float model's accuracy ("relative"), or a difference ("absolute").
    """

    higher_is_better: bool = True
    criterion: Literal["relative", "absolute"] = "relative"
    tolerable_loss: float = 0.01

    def __post_init__(self) -> None:
        if self.criterion not in ("relative", "absolute"):
            raise RecipeError(f"accuracy criterion {self.criterion!r}", accepted="relative, absolute")

    @property
    def relative(self) -> float | None:
        """The tolerable loss if it is relative, else None."""
        return self.tolerable_loss if self.criterion == "relative" else None

    @relative.setter
    def relative(self, loss: float) -> None:
        self.criterion, self.tolerable_loss = "relative", loss

    @property
    def absolute(self) -> float | None:
        """The tolerable loss if it is absolute, else None."""
        return self.tolerable_loss if self.criterion == "absolute" else None

    @absolute.setter
    def absolute(self, loss: float) -> None:
        self.criterion, self.tolerable_loss = "absolute", loss


@dataclass
class TuningCriterion:
    """When tuning ends: after `max_trials` evaluations, or after `timeout` seconds; 0 is no limit of time.

    quantscope tunes in one way, and as soon as the accuracy criterion is met it is done: another strategy or objective
    is warned about by name.
    """

    strategy: str = "basic"
    strategy_kwargs: Mapping[str, Any] | None = None
    timeout: float = 0
    max_trials: int = 100
    objective: Any = "performance"

    def __post_init__(self) -> None:
        if self.max_trials < 1:
            raise RecipeError(f"max_trials is {self.max_trials}", accepted="1 or more")
        if self.timeout < 0:
            raise RecipeError(f"timeout is {self.timeout}", accepted="seconds, or 0 for no limit")
        limits.warn_of_tuning(self)


@dataclass
class PostTrainingQuantConfig:
    """How to quantize, and whether to diagnose.

    docs/neural-compressor.md has a line for each argument. With `diagnosis` and no `tuning_criterion` there is one
    trial, as in Neural Compressor: the diagnosis is then one of the model as it is configured.

    Raises:
        RecipeError: a value means nothing.
        UnsupportedError: quantscope lacks what was asked for, and without it the model would be another one.
    """

    device: str = "cpu"
    backend: str = "default"
    domain: str = "auto"
    recipes: Mapping[str, Any] = field(default_factory=dict)
    quant_format: str = "default"
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    approach: str = "static"
    calibration_sampling_size: int | Sequence[int] = (100,)
    op_type_dict: Mapping[str, Mapping[str, Any]] | None = None
    op_name_dict: Mapping[str, Mapping[str, Any]] | None = None
    reduce_range: bool | None = None
    example_inputs: Any = None
    excluded_precisions: Sequence[str] = ()
    quant_level: str | int = "auto"
    accuracy_criterion: AccuracyCriterion = field(default_factory=AccuracyCriterion)
    tuning_criterion: TuningCriterion | None = None
    diagnosis: bool = False
    ni_workload_name: str = "quantization"

    def __post_init__(self) -> None:
        if self.tuning_criterion is None:
            # A new one for each: in Neural Compressor all configurations share one, and one diagnosis changes it.
            self.tuning_criterion = TuningCriterion(max_trials=1) if self.diagnosis else TuningCriterion()
        limits.check(self)
        limits.warn(self)

    @property
    def tuning(self) -> TuningCriterion:
        """The tuning criterion, which is never None once the configuration is made."""
        return self.tuning_criterion or TuningCriterion()

    @property
    def calibration_samples(self) -> int:
        """How many samples calibrate: the first of the sizes that were given."""
        return limits.sampling_sizes(self.calibration_sampling_size)[0]


@dataclass
class BenchmarkConfig:
    """How to measure a model's speed: after `warmup` runs, `iteration` more, -1 for the data loader's batches once.

    With `diagnosis` the time of each op is measured too, and written to a run file named `ni_workload_name`.

    Raises:
        RecipeError: a value means nothing.
        UnsupportedError: quantscope lacks what was asked for, and without it something else would be measured.
    """

    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    backend: str = "default"
    device: str = "cpu"
    warmup: int = 5
    iteration: int = -1
    model_name: str = ""
    cores_per_instance: int | None = None
    num_of_instance: int = 1
    inter_num_of_threads: int | None = None
    intra_num_of_threads: int | None = None
    diagnosis: bool = False
    ni_workload_name: str = "profiling"

    def __post_init__(self) -> None:
        limits.check_benchmark(self)
        limits.warn_of_benchmark(self)

    @property
    def threads(self) -> int:
        """Within an op: `intra_num_of_threads`, else `cores_per_instance`, else 0, the framework's choice."""
        return self.intra_num_of_threads or self.cores_per_instance or 0


@dataclass
class _Options:
    """What holds for all calls; `workspace` is the folder of run files and of the models they are about."""

    workspace: str = "."


options = _Options()


def set_workspace(workspace: str | Path) -> None:
    """Set the folder that diagnoses are written to; the current one until then."""
    options.workspace = str(workspace)
