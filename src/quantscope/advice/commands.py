"""The model and the samples of a run as arguments of a command that uses them again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantscope.runfile import RunFile

_PLAN = {
    "calibration_samples": "--calibration-samples", "samples": "--samples", "batch_size": "--batch-size",
    "metric": "--metric",
}  # fmt: skip
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
    arguments = [model, "--data", str(spec.get("source", "SAMPLES"))]
    if spec.get("labels"):
        arguments += ["--labels", str(spec["labels"])]
    if spec.get("preprocessing"):
        arguments += _preprocessing(spec["preprocessing"])
    for key, option in _PLAN.items():
        if plan.get(key) is not None:
            arguments += [option, str(plan[key])]
    return tuple(arguments)


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
