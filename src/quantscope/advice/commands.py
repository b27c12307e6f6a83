"""The models and the samples of a run as arguments of a command that uses them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantscope.profiling.settings import Settings
from quantscope.runfile import RunFile

_PLAN = {
    "calibration_samples": "--calibration-samples", "samples": "--samples", "batch_size": "--batch-size",
    "metric": "--metric",
}  # fmt: skip
_TIMING: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("batches", "--batch", str), ("threads", "--threads", str),
    ("optimized", "--optimization", lambda is_on: "on" if is_on else "off"),
)  # fmt: skip
_PREPROCESSING = ("resize", "crop", "size", "scale", "mean", "std", "channels", "layout")


def arguments_of(run: str | Path) -> tuple[str, ...]:
    """Return model, samples and their options as `quantscope diagnose` takes them; MODEL.onnx and SAMPLES where the
    run does not know them.

    Raises:
        RunFileError: the file is missing, damaged or no run file.
    """
    with RunFile.read(Path(run)) as file:
        models, spec, plan = file.about("models") or {}, file.about("data") or {}, file.about("plan") or {}
    model = (models.get("reference") or {}).get("path") or "MODEL.onnx"
    arguments = [model, *_data({"source": "SAMPLES", **spec})]
    for key, option in _PLAN.items():
        if plan.get(key) is not None:
            arguments += [option, str(plan[key])]
    return tuple(arguments)


def profile_arguments_of(run: str | Path) -> tuple[str, ...]:
    """Return models, samples and settings as `quantscope profile` takes them.

    Raises:
        RunFileError: the file is missing, damaged or no run file.
    """
    with RunFile.read(Path(run)) as file:
        models, spec, timing = file.about("models") or {}, file.about("data") or {}, file.about("timing") or {}
    paths = [(models.get(side) or {}).get("path") for side in ("reference", "quantized")]
    arguments = [str(path) for path in paths if path]
    if spec:
        arguments += _data(spec)
    for name, shape in (timing.get("shapes") or {}).items():
        arguments += ["--shape", f"{name}={','.join(map(str, shape))}"]
    usual = asdict(Settings())
    for key, option, in_words in _TIMING:
        if key in timing and tuple(timing[key]) != usual[key]:
            arguments += [option, ",".join(map(in_words, timing[key]))]
    if timing.get("seconds", usual["seconds"]) != usual["seconds"]:
        arguments += ["--time", f"{timing['seconds']:g}"]
    if timing.get("output"):
        arguments += ["--output", timing["output"]]
    return (*arguments, *(["--try"] if timing.get("tries") else []))


def _data(spec: Mapping[str, Any]) -> list[str]:
    """The samples, their labels and how photos become arrays."""
    arguments = ["--data", str(spec["source"])]
    if spec.get("labels"):
        arguments += ["--labels", str(spec["labels"])]
    return [*arguments, *(_preprocessing(spec["preprocessing"]) if spec.get("preprocessing") else [])]


def _preprocessing(spec: Mapping[str, Any]) -> list[str]:
    """The name of the preset, or the options that differ from the defaults."""
    from quantscope.images import PRESETS, Preprocessing

    chosen = Preprocessing.from_spec(spec)
    preset = next((name for name, known in PRESETS.items() if known == chosen), None)
    if preset is not None:
        return ["--preset", preset]
    arguments: list[str] = []
    for key in _PREPROCESSING:
        value = getattr(chosen, key)
        if value == getattr(Preprocessing(), key):
            continue
        parts = value if isinstance(value, tuple) else (value,)
        separator = "x" if key in ("crop", "size") else ","
        arguments += [f"--{key}", separator.join(str(part) for part in parts)]
    return arguments or ["--scale", "1"]
