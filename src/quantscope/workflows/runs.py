"""What all jobs share: models and samples opened, a run begun, what it holds, and how it is opened again."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from quantscope.backends.base import Backend, Model
from quantscope.backends.registry import backend_for
from quantscope.errors import DataError, OutputError, RunFileError, RunInterrupted
from quantscope.images import Preprocessing
from quantscope.machine import processor_name
from quantscope.plan import Plan
from quantscope.progress import Progress, Silent
from quantscope.recipe import Recipe
from quantscope.runfile import RunFile, graph_json
from quantscope.samples import Samples

DEFAULT_CALIBRATION_SAMPLES = 50


def opened(
    model: object,
    data: object,
    labels: object,
    preprocessing: Preprocessing | None,
    progress: Progress | None = None,
) -> tuple[Backend, Model, Samples]:
    """The backend, the float model, and the samples as its inputs take them."""
    backend = backend_for(model)
    loaded = loaded_model(backend, model, progress)
    samples = Samples.of(data, labels=labels, preprocessing=preprocessing)
    return backend, loaded, samples.for_inputs(loaded.graph.inputs)


def loaded_model(backend: Backend, model: object, progress: Progress | None) -> Model:
    """The model; what was odd about it is told."""
    loaded = backend.load(model, progress)
    for note in loaded.notes:
        (progress or Silent()).note(note)
    return loaded


def batch_size_for(model: Model, wanted: int | None) -> int:
    """The number of samples per inference: what the model's inputs fix, else what is wanted, else 1.

    Raises:
        DataError: the model fixes another number than the wanted one.
    """
    fixed = {t.shape[0] for t in model.graph.inputs if t.shape and isinstance(t.shape[0], int) and t.shape[0] > 0}
    if not fixed:
        return wanted or 1
    size = min(fixed)
    if wanted is not None and wanted != size:
        raise DataError(
            f"batch size {wanted}, and the model's inputs fix {size}",
            accepted=f"--batch-size {size}, or none",
        )
    return size


def split(samples: Samples, plan: Plan, given: Model | None = None) -> tuple[range, range]:
    """Which samples calibrate and which are evaluated: the first some, and those after them.

    Raises:
        DataError: there are not enough samples.
    """
    if samples.count == 0:
        raise DataError(f"no samples in {samples.description}", accepted="at least one", next_step="check --data")
    first = 0
    if given is None:
        # A single sample has to serve for both.
        first = plan.calibration_samples or min(DEFAULT_CALIBRATION_SAMPLES, samples.count // 2)
        if first >= samples.count > 1:
            raise DataError(
                f"{first} calibration samples of {samples.count} leave none to evaluate",
                accepted=f"--calibration-samples up to {samples.count - 1}",
            )
        if samples.count == 1:
            return range(0, 1), range(0, 1)
    stop = samples.count if plan.samples is None else min(samples.count, first + plan.samples)
    return range(0, first), range(first, stop)


def check_writable(backend: Backend, path: Path, model: Model) -> None:
    """Raise an OutputError if a model made from this one cannot be written there."""
    if not path.parent.is_dir():
        raise OutputError(f"no such folder: {path.parent}", next_step="create it, or choose another with --output")
    if path.is_dir():
        raise OutputError(f"{path} is a folder", accepted="the name of a file")
    if model.path is not None and path.resolve() in {file.resolve() for file in backend.files(model.path)}:
        raise OutputError(
            f"{path} is a model that is read", accepted="another name", next_step="choose one with --output"
        )


def settled(backend: Backend, model: Model, recipe: Recipe | None) -> Recipe:
    """The recipe, or the one that is used if there is none, as the backend carries it out.

    Raises:
        RecipeError: it names an op that the model does not have.
    """
    chosen = backend.settled(recipe or Recipe())
    chosen.fallback_ops(model.graph)
    return chosen


def run_facts(
    backend: Backend, reference: Model, quantized: Model | None, samples: Samples, plan: Plan, recipe: Recipe | None
) -> dict[str, Any]:
    """What a run file holds from the beginning, whatever its run is for: enough to go on with it in a later process."""
    return {
        "plan": plan.__dict__,
        "recipe": recipe.to_dict() if recipe is not None else None,
        "data": samples.spec,
        "samples": {"description": samples.description},
        **model_facts(backend, reference, quantized),
    }


def model_facts(backend: Backend, reference: Model, quantized: Model | None) -> dict[str, Any]:
    """What a run file holds of its models, and of what runs them."""
    return {
        "environment": environment(backend),
        "graph": graph_json(reference.graph),
        "models": {
            "reference": identity(backend, reference),
            "quantized": identity(backend, quantized) if quantized is not None else None,
        },
    }


def opened_again(
    run_file: RunFile, run: str | Path, data: object, call: str, progress: Progress | None = None
) -> tuple[Backend, Model, Samples]:
    """The backend, the float model and the samples of a run that goes on.

    Args:
        data, call: as of `samples_again`.
        progress: as of `Backend.load`.
    Raises:
        RunFileError: the run cannot find its samples by itself, or its model is not what it was.
    """
    source = samples_again(run, run_file.about("data"), data, call)
    return opened(same_model(run_file.about("models")["reference"], run), source, None, None, progress)


def samples_again(run: str | Path, spec: Mapping[str, Any] | None, data: object, call: str) -> object:
    """The samples to go on with: these, or those that the run was given by a path or name.

    Args:
        spec: what the run file says of its samples.
        call: how to give them from Python, for a message.
    Raises:
        RunFileError: the run cannot find its samples by itself.
    """
    if data is not None:
        return data
    if spec is None:
        raise RunFileError(
            f"the samples of {run} were not given by a path or name",
            accepted="runs whose --data was a folder, a file or a function",
            next_step=f"give them from Python: {call}",
        )
    return Samples.from_spec(spec)


@contextmanager
def tidied(run_file: RunFile, backend: Backend, written: Path | None) -> Iterator[None]:
    """If the run ends before anything was measured, leave nothing behind: there is nothing to go on with."""
    try:
        yield
    except BaseException as error:
        found = run_file.samples_compared() or run_file.about("trials") or run_file.about("measured")
        kept = run_file.path is not None and bool(found)
        if not kept:
            run_file.delete()
            for file in backend.files(written) if written is not None else ():
                file.unlink(missing_ok=True)
        if isinstance(error, KeyboardInterrupt):
            raise RunInterrupted(str(run_file.path) if kept else "") from error
        raise


@contextmanager
def outcome(run_file: RunFile) -> Iterator[None]:
    """Note in the run file how the run ended if it did not end well."""
    try:
        yield
    except BaseException as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        # The disk may be full: then the file says what the last checkpoint says.
        with suppress(RunFileError):
            run_file.write_about(status="interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {text}")
        raise


def identity(backend: Backend, model: Model) -> dict[str, Any]:
    """What tells a model file from another; no path for a model that was never a file."""
    if model.path is None:
        return {"path": None, "digest": None, "bytes": None}
    return {
        "path": str(model.path.resolve()),
        "digest": digest(backend, model.path),
        "bytes": sum(file.stat().st_size for file in backend.files(model.path)),
    }


def same_model(identity: Mapping[str, Any], run: str | Path) -> str:
    """Return the path of the model that a run began with.

    Raises:
        RunFileError: the file is gone, or another one by now.
    """
    path = identity["path"]
    if path is None:
        raise RunFileError(f"a model of {run} was never a file", next_step="diagnose it again from Python")
    there = Path(path).exists()
    if not there or digest(backend_for(path), Path(path)) != identity["digest"]:
        raise RunFileError(
            f"the model of {run} is {'changed' if there else 'missing'}: {path}",
            accepted="the very model that the run began with",
            next_step="bring it back, or begin a new run",
        )
    return str(path)


def digest(backend: Backend, path: Path) -> str:
    """The digest of a model's first file and, where weights lie in others, of when and how large those were written."""
    first, *others = backend.files(path)
    with first.open("rb") as file:
        found = hashlib.file_digest(file, "sha256")
    # Gigabytes of weights are not read again for this.
    for beside in sorted(others):
        stat = beside.stat()
        found.update(f"{beside.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return found.hexdigest()


def environment(backend: Backend) -> dict[str, str]:
    """What a figure may depend on: versions, processor, system."""
    packages = ("quantscope", *backend.packages, "numpy")
    return {
        **{package: version(package) for package in packages},
        "python": platform.python_version(),
        "processor": processor_name(),
        "system": platform.platform(),
    }
