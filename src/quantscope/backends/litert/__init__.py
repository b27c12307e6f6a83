"""LiteRT (TensorFlow Lite) models, and TensorFlow's own after their conversion, run by LiteRT's interpreter on the CPU.

Nothing here imports LiteRT before a model is loaded: it comes with an extra.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from quantscope.backends import extras, tensorflow
from quantscope.backends.base import (
    CutRunner,
    Feature,
    Finding,
    Framework,
    IntegerProduct,
    Kernel,
    Model,
    Peak,
    Profiler,
    Ranges,
    RecipeCheck,
    Runner,
    Trace,
)
from quantscope.errors import ModelError, UnsupportedError
from quantscope.progress import Progress
from quantscope.quantized import FloatView, Weight
from quantscope.recipe import SIGNED, Recipe, SpecChange

_EXTRA = "litert"
# What a .tflite file's content has behind its first four bytes.
_IDENTIFIER = b"TFL3"


def _file(source: Any, progress: Progress | None = None) -> tensorflow.Conversion:
    """The .tflite file to read for a model.

    Raises:
        UnsupportedError: what it needs is not installed.
    """
    if tensorflow.recognized(source):
        return tensorflow.converted(source, progress)
    extras.require(_EXTRA, f"reading {source}")
    return tensorflow.Conversion(Path(source))


def _signed(change: SpecChange | None) -> SpecChange | None:
    """The change of a rule with a signed integer type."""
    if change is None or change.dtype is None:
        return change
    return SpecChange(SIGNED.get(change.dtype, change.dtype), change.symmetric, change.granularity)


class LiteRTBackend:
    """The backend for .tflite models, and for what becomes one; see `quantscope.backends.base.Backend`."""

    name = "litert"
    suffix = ".tflite"
    sources = f"a .tflite file or, with quantscope[tensorflow], {tensorflow.ACCEPTED}"
    packages: tuple[str, ...] = ("ai-edge-litert", "ai-edge-quantizer")
    optimization = "XNNPACK, LiteRT's default delegate"
    capabilities: Mapping[Feature, str] = {
        "float models": "yes",
        "integer models": "full integer, dynamic range, weight-only, float16 weights; from any converter",
        "int8 activations": "yes",
        "uint8 activations": "as int8: the same values, codes moved by 128",
        "16-bit activations": "int16, where LiteRT's quantizer has the op",
        "4-bit weights": "FULLY_CONNECTED and CONV_2D",
        "scales per channel": "yes",
        "scales per block": "",
        "fallback by op": "name, glob, regex, type, scope",
        "deployed trace": "the model as it is, in XNNPACK's kernels",
        "simulated trace": "yes",
        "error budgets": "yes",
        "channel equalization": "yes",
        "times per op": "each op timed as a model of its own",
        "reasons for lost time": "ops in float between integer ones, other scales, ops that XNNPACK does not run",
        "saturation on old processors": "cannot happen: products are added in 32 bits",
        "weights outside the file": "",
    }

    def missing(self) -> str:
        return extras.missing(_EXTRA)

    def accepts(self, source: object) -> bool:
        if isinstance(source, str | Path) and Path(source).suffix == self.suffix:
            return Path(source).is_file()
        return tensorflow.recognized(source) or (isinstance(source, bytes) and source[4:8] == _IDENTIFIER)

    def load(self, source: object, progress: Progress | None = None) -> Model:
        if not isinstance(source, str | Path) and not self.accepts(source):
            raise ModelError(f"not a LiteRT model: an object of type {type(source).__name__}", accepted=self.sources)
        if isinstance(source, bytes):
            extras.require(_EXTRA, "reading a .tflite model")
        else:
            file = _file(source, progress)
        from quantscope.backends.litert import files

        name = str(source) if isinstance(source, str | Path) else f"an object of type {type(source).__name__}"
        try:
            if isinstance(source, bytes):
                return self._model(files.checked(source, name))
            path = Path(source) if isinstance(source, str | Path) else None
            return self._model(files.read(file.path), path, file.notes)
        except ModelError:
            raise
        except Exception as error:
            # A flatbuffer has no checksum: what is wrong with it shows when it is walked through.
            raise files.damaged(name) from error

    def _model(self, model: Any, path: Path | None = None, notes: tuple[str, ...] = ()) -> Model:
        from quantscope.backends.litert.handle import Handle
        from quantscope.backends.litert.structure import graph_of

        handle = Handle(model)
        if handle.divisions:
            names = ", ".join(map(repr, handle.divisions))
            notes += (
                f"{names}: LiteRT's integer DIV fails on samples for which it divides by zero, in production too; "
                "quantscope runs such batches with a float DIV between DEQUANTIZE and QUANTIZE",
            )
        return Model(self.name, graph_of(handle.structure), handle, path, notes)

    def save(self, model: Model, path: Path) -> None:
        from quantscope.backends.litert import files

        files.write(model.handle.model, path)

    def files(self, path: Path) -> tuple[Path, ...]:
        return tensorflow.files(path) if tensorflow.recognized(path) else (path,)

    def portable(self, model: Model) -> Model:
        return model

    def fits_in_memory_form(self, model: Model) -> bool:
        return True

    def memory_form(self, model: Model) -> bytes:
        content: bytes = model.handle.model.content
        return content

    def prepare(self, model: Model) -> Model:
        from quantscope.backends.litert.structure import graph_of

        handle = model.handle.prepared
        if handle is model.handle:
            return model
        return replace(model, graph=graph_of(handle.structure), handle=handle)

    def equalize(self, model: Model) -> Model:
        from quantscope.backends.litert.structure import graph_of

        handle, notes = model.handle.equalized
        graph = model.graph if handle is model.handle else graph_of(handle.structure)
        return replace(model, graph=graph, handle=handle, notes=(*model.notes, *notes))

    def settled(self, recipe: Recipe) -> Recipe:
        # LiteRT has no unsigned codes.
        rules = tuple(
            replace(rule, activations=_signed(rule.activations), weights=_signed(rule.weights)) for rule in recipe.rules
        )
        activations, weights = (replace(spec, signed=True) for spec in (recipe.activations, recipe.weights))
        return replace(recipe, activations=activations, weights=weights, rules=rules)

    def check(self, model: Model, recipe: Recipe) -> RecipeCheck:
        from quantscope.backends.litert import quantization

        planned = quantization.planned(model.graph, recipe)
        return RecipeCheck(planned.in_float, planned.unsupported)

    def tensors_to_calibrate(self, model: Model, recipe: Recipe) -> Sequence[str]:
        from quantscope.backends.litert import quantization

        return quantization.tensors_to_calibrate(model.handle.structure, model.graph, recipe)

    def quantize(self, model: Model, recipe: Recipe, ranges: Ranges) -> Model:
        from quantscope.backends.litert import quantization

        handle = model.handle
        quantized, notes = quantization.quantize(handle.model, handle.structure, model.graph, recipe, ranges)
        return self._model(quantized, None, (*model.notes, *notes))

    def float_view(self, model: Model, trace: Trace) -> FloatView:
        view: FloatView = model.handle.reading.view
        return view

    def weights(self, model: Model, trace: Trace = "exact") -> Sequence[Weight]:
        found: list[Weight] = model.handle.weights
        return found

    def element_counts(
        self, model: Model, tensors: Sequence[str], inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, int]:
        from quantscope.backends.litert import sizes

        return sizes.element_counts(model.handle, tensors, inputs)

    def open(
        self, model: Model, tensors: Sequence[str], *, trace: Trace, threads: int
    ) -> AbstractContextManager[Runner]:
        from quantscope.backends.litert import tracing

        return tracing.opened(model.handle, tensors, trace, threads=threads)

    def open_cut(
        self,
        model: Model,
        tensors: Sequence[str],
        outputs: Sequence[str],
        *,
        trace: Trace,
        threads: int,
        absorbed: Mapping[str, tuple[Model, str]] = {},
        constants: Mapping[tuple[str, str], NDArray[Any]] = {},
    ) -> AbstractContextManager[CutRunner]:
        from quantscope.backends.litert import cut

        if trace not in ("exact", "simulated"):
            raise UnsupportedError(f"a model cannot be cut in the trace {trace!r}", accepted="exact, simulated")
        activations = {name: (reference.handle.structure, op) for name, (reference, op) in absorbed.items()}
        handle = model.handle
        runnable = handle.runnable(trace)[1]
        return cut.opened(runnable, tensors, outputs, activations, constants, handle.record, threads=threads)

    def deploy(self, model: Model | Path, *, threads: int, optimized: bool = True) -> AbstractContextManager[Runner]:
        # What was converted is loaded from memory.
        path = _file(model).path if isinstance(model, Path) else model.path
        if path is not None and tensorflow.recognized(path):
            path = None
        from quantscope.backends.litert import tracing

        if isinstance(model, Path):
            return tracing.deployment(path, None, threads=threads, optimized=optimized)
        return tracing.deployment(path, model.handle, threads=threads, optimized=optimized)

    def profile(self, model: Model, *, threads: int, optimized: bool = True) -> AbstractContextManager[Profiler]:
        from quantscope.backends.litert import profiler

        return profiler.profiled(model.handle, threads=threads, optimized=optimized)

    def findings(
        self, model: Model, kernels: Sequence[Kernel], *, threads: int, cores: int, flags: Collection[str] = ()
    ) -> Sequence[Finding]:
        from quantscope.backends.litert import slowness

        return slowness.findings(model.handle, kernels)

    def multiply_adds(self, model: Model, inputs: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        from quantscope.backends.litert import sizes

        return sizes.multiply_adds(model.handle, model.graph, inputs)

    def peak(self, threads: int) -> Peak:
        extras.require(_EXTRA, "LiteRT")
        from quantscope.backends.litert import peak

        return peak.measured(threads)

    def framework(self) -> Framework:
        extras.require(_EXTRA, "LiteRT")
        from quantscope.backends.litert import framework

        return framework.installed()

    def integer_products(self, model: Model) -> Sequence[IntegerProduct]:
        from quantscope.backends.litert import integer_products

        return integer_products.integer_products(model.handle.structure)


BACKEND = LiteRTBackend()
