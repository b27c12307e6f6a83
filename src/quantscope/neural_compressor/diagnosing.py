"""The diagnosis that `PostTrainingQuantConfig(diagnosis=True)` asks for: its samples, its run file, its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantscope import workflows
from quantscope.backends.base import Model
from quantscope.diagnosis import Diagnosis
from quantscope.errors import OutputError
from quantscope.neural_compressor import loaders
from quantscope.neural_compressor.config import options
from quantscope.neural_compressor.source import Source
from quantscope.runfile import SUFFIX, has_model_beside, model_beside

DIAGNOSED_SAMPLES = 64
"""How many samples a diagnosis looks at, at most; `quantscope.diagnose` has no such limit."""


def free_run(name: str) -> Path:
    """Return where the run file goes: a name in the workspace that is free, as is that of the model beside it.

    Raises:
        OutputError: there is no such folder, and it cannot be made.
    """
    folder = Path(options.workspace)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the workspace {folder}: {error.strerror}", next_step="set_workspace(FOLDER) chooses another"
        ) from error
    stem = Path(name).name or "quantization"
    number = 1
    while True:
        run = folder / f"{stem}{f'-{number}' if number > 1 else ''}{SUFFIX}"
        if not run.exists() and not has_model_beside(run):
            return run
        number += 1


def diagnosed(source: Source, quantized: Model, held_out: Any, run: Path) -> Diagnosis:
    """Return the diagnosis of both models, on samples that did not calibrate if there are some.

    Args:
        held_out: the loader of samples to evaluate, None if there is none.
        run: the run file to write; the quantized model is written beside it.
    """
    path = model_beside(run, source.backend.suffix)
    source.backend.save(quantized, path)
    if held_out is not None:
        loader = loaders.checked(held_out, "eval_dataloader")
        samples = loaders.samples_of(loader, source.reference.graph.inputs, stop=DIAGNOSED_SAMPLES)
    else:
        first = source.calibration_samples
        samples = source.samples(first, first + DIAGNOSED_SAMPLES)
        if not samples.count:
            samples = source.samples(0, min(first, DIAGNOSED_SAMPLES))
    try:
        return workflows.diagnose(source.given, path, data=samples, run=run)
    except Exception as error:
        # Tuning may have taken hours: its result is not lost with the diagnosis.
        error.add_note(f"the quantized model was written before: {path}")
        raise


def show(diagnosis: Diagnosis, accuracy: str) -> None:
    """Print the accuracy that was measured, "" for none, and the tables."""
    from quantscope.report import terminal

    out = terminal.console()
    if accuracy:
        out.print(accuracy, soft_wrap=True)
        out.print()
    terminal.print_summary(out, diagnosis)
