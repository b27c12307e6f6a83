"""From two models to the ops that take the time: `profile`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from quantscope.backends.base import Backend, Model
from quantscope.backends.registry import backend_for
from quantscope.errors import DataError, RunFileError
from quantscope.images import Preprocessing
from quantscope.profiling import Profile
from quantscope.profiling.inputs import InputSource, check_shapes
from quantscope.profiling.measurement import profile_models
from quantscope.profiling.settings import Settings
from quantscope.progress import Progress, Silent
from quantscope.recorded import Recorded
from quantscope.runfile import SUFFIX, RunFile, graph_json
from quantscope.samples import Samples
from quantscope.workflows.runs import (
    check_writable,
    environment,
    loaded_model,
    model_facts,
    outcome,
    same_model,
    tidied,
)


def profile(
    reference: object,
    quantized: object = None,
    *,
    data: object = None,
    preprocessing: Preprocessing | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batches: Sequence[int] | None = None,
    threads: Sequence[int] = (0,),
    optimized: Sequence[bool] = (True,),
    seconds: float = 20.0,
    tries: int = 0,
    output: str | Path | None = None,
    run: str | Path | None = None,
    number_run: bool = False,
    progress: Progress | None = None,
) -> Profile:
    """Return where the time of a model, or of a float model and its quantized one, goes.

    Args:
        reference: the float model: a path or a model object that a backend accepts; or the path of a run file, whose
            models are profiled and which then holds the profile too.
        quantized: the quantized model, made by any tool.
        data: samples to feed, whatever `Samples.of` accepts; made-up values if None, since times seldom depend on them.
        preprocessing: how photos become arrays.
        shapes: by input the sizes that the model leaves open, the batch axis included.
        batches: batch sizes; what the model fixes, or 1, if None. Times per op are of the first.
        threads: numbers of threads, 0 for the framework's choice. Times per op are of the first.
        optimized: True for models as production runs them, False for models as they are written, without what the
            framework does by itself: ONNX Runtime's graph optimizations, LiteRT's default delegate XNNPACK. Times per
            op are of the first.
        seconds: the longest that the latency is measured at each setting; it ends earlier when the ratio of the
            models' times is known within ±3 %.
        tries: so many of the reasons that cost most are tried, and their gain measured.
        output: where to write the quantized model with those changes that make it faster and leave its outputs as they
            are, to the last bit; nothing is written where there are none.
        run: the run file to write; nothing is written if None.
        number_run: if the run file exists, add a number to its name.
    Raises:
        QuantscopeError: one of its subclasses, with what is accepted instead.
    """
    progress = progress or Silent()
    _check_timing(threads, optimized, seconds, tries, writes=output is not None)
    again = Path(reference) if isinstance(reference, str | Path) and str(reference).endswith(SUFFIX) else None
    if again is not None and (quantized is not None or run is not None):
        raise DataError(
            "a run and another model or run are given", accepted="the run alone: its own models are profiled"
        )
    first, second = _models_of(again) if again is not None else (reference, quantized)
    if again is not None and data is None and not shapes:
        data, shapes = _fed_in(again)
    backend = backend_for(first)
    models = [loaded_model(backend, model, progress) for model in (first, second) if model is not None]
    target = _writable(backend, models, output) if output is not None else None
    samples = Samples.of(data, preprocessing=preprocessing) if data is not None else None
    inputs = models[0].graph.inputs
    check_shapes(shapes or {}, inputs)
    source = InputSource(inputs, samples.for_inputs(inputs) if samples is not None else None, shapes)
    settings = Settings(
        source.sizes(batches),
        tuple(dict.fromkeys(threads)),
        tuple(dict.fromkeys(optimized)),
        seconds,
        tries,
        output=target,
    )
    source.batch(settings.batches[0])
    timing = {"shapes": shapes, **asdict(settings), "output": str(target) if target is not None else None}
    pair = (models[0], models[1] if len(models) > 1 else None)
    if again is not None:
        made = _profiled(backend, pair, source, settings, progress)
        with RunFile.read(again) as run_file:
            run_file.write_about(profile=made.to_dict(), timing=timing)
        return replace(made, run=str(again))
    facts = {
        "kind": "profile",
        "data": samples.spec if samples is not None else None,
        "samples": {"description": source.description},
        "timing": timing,
        "quantized_graph": graph_json(pair[1].graph) if pair[1] is not None else None,
        **model_facts(backend, *pair),
    }
    run_file = RunFile.create(Path(run) if run is not None else None, numbered=number_run, **facts)
    with run_file, tidied(run_file, backend, None), outcome(run_file):
        made = _profiled(backend, pair, source, settings, Recorded(progress, run_file))
        run_file.write_about(profile=made.to_dict(), status="finished")
        return replace(made, run=str(run_file.path or ""))


def open_profile(run: str | Path) -> Profile | None:
    """Return the profile in a run file; None if there is none.

    Raises:
        RunFileError: the file is missing, damaged or no run file.
    """
    with RunFile.read(Path(run)) as run_file:
        made = run_file.profile()
    return replace(made, run=str(run)) if made is not None else None


def _profiled(
    backend: Backend, models: tuple[Model, Model | None], source: InputSource, settings: Settings, progress: Progress
) -> Profile:
    return replace(profile_models(backend, *models, source, settings, progress), environment=environment(backend))


def _check_timing(
    threads: Sequence[int], optimized: Sequence[bool], seconds: float, tries: int, *, writes: bool
) -> None:
    """Raise a DataError for settings that mean nothing."""
    if not threads or min(threads) < 0:
        raise DataError(
            f"threads {', '.join(map(str, threads))}", accepted="0 for the framework's choice, or 1 and more"
        )
    if not optimized:
        raise DataError("neither with nor without optimization", accepted="True, False or both")
    if (tries or writes) and not optimized[0]:
        raise DataError(
            "reasons are to be tried without optimization",
            accepted="tries where the ops are timed as production runs them",
        )
    if not seconds > 0:
        raise DataError(f"{seconds} seconds to measure", accepted="more than 0")
    if tries < 0:
        raise DataError(f"{tries} reasons to try", accepted="0 or more")


def _writable(backend: Backend, models: Sequence[Model], output: str | Path) -> Path:
    """Where the faster model is written.

    Raises:
        DataError: there is no quantized model.
        OutputError: it cannot be written there.
    """
    if len(models) < 2:
        raise DataError(
            "a faster model is to be written, and no quantized one is given",
            accepted="the float model and the quantized one",
        )
    for model in models:
        check_writable(backend, Path(output), model)
    return Path(output)


def _fed_in(run: Path) -> tuple[Samples | None, Mapping[str, tuple[int, ...]] | None]:
    """The samples and the shapes that an earlier profile was given, for one more of the same run; None for neither."""
    with RunFile.read(run) as run_file:
        spec = run_file.about("data") if run_file.about("kind") == "profile" else None
        shapes = (run_file.about("timing") or {}).get("shapes")
    return (
        Samples.from_spec(spec) if spec is not None else None,
        {name: tuple(shape) for name, shape in shapes.items()} if shapes else None,
    )


def _models_of(run: Path) -> tuple[str, str | None]:
    """The files of the models of a run: the reference, and the quantized one, given or made."""
    with RunFile.read(run) as run_file:
        models, output = run_file.about("models"), run_file.about("output")
    reference = same_model(models["reference"], run)
    if models["quantized"] is not None:
        return reference, same_model(models["quantized"], run)
    if output is not None and not Path(output).is_file():
        raise RunFileError(
            f"the quantized model of {run} is gone: {output}",
            next_step="give both models: quantscope profile F.onnx Q.onnx",
        )
    return reference, output
