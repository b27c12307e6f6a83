"""ONNX models, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

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
from quantscope.backends.onnx import (
    cut,
    files,
    float_view,
    framework,
    integer_products,
    metadata,
    peak,
    profiler,
    sessions,
    sizes,
    weights,
)
from quantscope.backends.onnx.equalization import equalized
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.order import sort_nodes
from quantscope.backends.onnx.preparation import prepare
from quantscope.backends.onnx.simulation import Simulation, simulated
from quantscope.backends.onnx.structure import graph_of, infer_types, name_ops
from quantscope.equalization import Record
from quantscope.errors import UnsupportedError
from quantscope.progress import Progress
from quantscope.quantized import FloatView, Weight
from quantscope.recipe import Recipe


class _Handle:
    """A model and the graph that ONNX Runtime makes of it, computed when first asked for."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        self._views: dict[Trace, FloatView] = {}
        self._weights: dict[Trace, list[Weight]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Another process runs these graphs. The rest it makes itself, and weights hold functions, which cannot travel.
        graphs: dict[str, Any] = {k: v for k, v in self.__dict__.items() if k in ("model", "deployed", "simulation")}
        return {**graphs, "_views": {}, "_weights": {}}

    def portable(self) -> _Handle:
        """The same with all weights in the messages."""
        copy = _Handle(self.model.portable())
        if "deployed" in self.__dict__:
            copy.deployed = self.deployed.portable()
        if "simulation" in self.__dict__:
            copy.simulation = replace(self.simulation, model=self.simulation.model.portable())
        return copy

    @cached_property
    def prepared(self) -> tuple[OnnxModel, tuple[str, ...]]:
        return prepare(self.model)

    @cached_property
    def record(self) -> Record:
        return Record.parsed(metadata.record(self.model.proto))

    @cached_property
    def deployed(self) -> OnnxModel:
        return sessions.deployed(self.model)

    @cached_property
    def optimized(self) -> OnnxModel:
        """What production runs, be all tensors readable or not."""
        return sessions.optimized(self.model, "ORT_ENABLE_ALL")

    @cached_property
    def simulation(self) -> Simulation:
        return simulated(self.model)

    def traced(self, trace: Trace) -> OnnxModel:
        if trace == "simulated":
            return self.simulation.model
        return self.deployed if trace == "deployed" else self.model

    def view(self, trace: Trace) -> FloatView:
        if trace not in self._views:
            self._views[trace] = replace(self._view(trace), factors=self.record.tensors)
        return self._views[trace]

    def _view(self, trace: Trace) -> FloatView:
        if trace == "deployed":
            return float_view.float_view(self.deployed, float_view.real_names(self.model))
        if trace == "simulated":
            return float_view.float_view(self.simulation.model, self.simulation.names)
        return float_view.float_view(self.model)

    def weights(self, trace: Trace) -> list[Weight]:
        if trace not in self._weights:
            self._weights[trace] = [self.record.before(weight) for weight in weights.weights(self.traced(trace))]
        return self._weights[trace]


class OnnxBackend:
    """The backend for ONNX models; see `quantscope.backends.base.Backend`."""

    name = "onnx"
    suffix = ".onnx"
    sources = "an .onnx file"
    packages: tuple[str, ...] = ("onnxruntime", "onnx")
    optimization = "ONNX Runtime's graph optimizations"
    capabilities: Mapping[Feature, str] = {
        "float models": "yes",
        "integer models": "QDQ, QOperator, dynamic, weight-only; from any tool",
        "int8 activations": "yes",
        "uint8 activations": "yes",
        "16-bit activations": "QDQ",
        "4-bit weights": "QDQ",
        "scales per channel": "yes",
        "scales per block": "MatMul and Gemm",
        "fallback by op": "name, glob, regex, type, scope",
        "deployed trace": "the graph that ONNX Runtime optimizes for this processor",
        "simulated trace": "yes",
        "error budgets": "yes",
        "channel equalization": "yes",
        "times per op": "ONNX Runtime's profiler on the optimized graph",
        "reasons for lost time": "yes, tried and measured where the file can be changed",
        "saturation on old processors": "counted on the samples",
        "weights outside the file": "yes",
    }

    def missing(self) -> str:
        return ""

    def accepts(self, source: object) -> bool:
        if isinstance(source, str | Path):
            return Path(source).suffix in (".onnx", ".ort") and Path(source).exists()
        return isinstance(source, onnx.ModelProto)

    def load(self, source: object, progress: Progress | None = None) -> Model:
        if isinstance(source, onnx.ModelProto):
            return self._model(files.from_proto(source))
        path = Path(os.fspath(source))  # type: ignore[call-overload]
        try:
            return self._model(files.read(path), path)
        except UnicodeDecodeError as error:
            # Protobuf looks at names when they are asked for.
            raise files.damaged(path) from error

    def _model(self, model: OnnxModel, path: Path | None = None, notes: tuple[str, ...] = ()) -> Model:
        sort_nodes(model.proto.graph)
        name_ops(model)
        infer_types(model)
        return Model(self.name, graph_of(model), _Handle(model), path, notes)

    def save(self, model: Model, path: Path) -> None:
        files.write(model.handle.model, path)

    def files(self, path: Path) -> tuple[Path, ...]:
        return files.all_files(path)

    def portable(self, model: Model) -> Model:
        return replace(model, handle=model.handle.portable())

    def fits_in_memory_form(self, model: Model) -> bool:
        fits: bool = model.handle.model.fits_in_message
        return fits

    def memory_form(self, model: Model) -> onnx.ModelProto:
        return model.handle.model.with_weights()

    def prepare(self, model: Model) -> Model:
        prepared, notes = model.handle.prepared
        return self._model(prepared, model.path, notes)

    def equalize(self, model: Model) -> Model:
        changed, notes = equalized(model.handle.model)
        if changed is model.handle.model:
            return replace(model, notes=(*model.notes, *notes))
        return self._model(changed, model.path, (*model.notes, *notes))

    def settled(self, recipe: Recipe) -> Recipe:
        return recipe

    def check(self, model: Model, recipe: Recipe) -> RecipeCheck:
        from quantscope.backends.onnx import quantization

        planned = quantization.planned(model.graph, recipe)
        return RecipeCheck(planned.uncoded, planned.unsupported)

    def tensors_to_calibrate(self, model: Model, recipe: Recipe) -> Sequence[str]:
        from quantscope.backends.onnx import quantization

        return quantization.tensors_to_calibrate(model.graph, recipe)

    def quantize(self, model: Model, recipe: Recipe, ranges: Ranges) -> Model:
        # Not before it is needed: ONNX Runtime's quantizer takes longest of all to import.
        from quantscope.backends.onnx import quantization

        quantized, notes = quantization.quantize(model.handle.model, model.graph, recipe, ranges)
        return self._model(quantized, None, (*model.notes, *notes))

    def float_view(self, model: Model, trace: Trace) -> FloatView:
        handle: _Handle = model.handle
        return handle.view(trace)

    def weights(self, model: Model, trace: Trace = "exact") -> Sequence[Weight]:
        handle: _Handle = model.handle
        return handle.weights(trace)

    def element_counts(
        self, model: Model, tensors: Sequence[str], inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, int]:
        return sizes.element_counts(model.handle.model, tensors, inputs)

    def open(
        self, model: Model, tensors: Sequence[str], *, trace: Trace, threads: int
    ) -> AbstractContextManager[Runner]:
        handle: _Handle = model.handle
        return sessions.opened(handle.traced(trace), tensors, optimize=trace == "optimized", threads=threads)

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
        if trace not in ("exact", "simulated"):
            raise UnsupportedError(f"a model cannot be cut in the trace {trace!r}", accepted="exact, simulated")
        handle: _Handle = model.handle
        names = handle.simulation.names if trace == "simulated" else {}
        activations = {name: (reference.handle.model, op) for name, (reference, op) in absorbed.items()}
        changes = cut.Changes(activations, constants)
        return cut.opened(handle.traced(trace), names, tensors, outputs, changes, handle.record, threads=threads)

    def deploy(self, model: Model | Path, *, threads: int, optimized: bool = True) -> AbstractContextManager[Runner]:
        file = model if isinstance(model, Path) else model.path or model.handle.model
        return sessions.deployment(file, threads=threads, optimized=optimized)

    def profile(self, model: Model, *, threads: int, optimized: bool = True) -> AbstractContextManager[Profiler]:
        handle: _Handle = model.handle
        return profiler.profiled(handle.model, handle.optimized if optimized else handle.model, threads=threads)

    def findings(
        self, model: Model, kernels: Sequence[Kernel], *, threads: int, cores: int, flags: Collection[str] = ()
    ) -> Sequence[Finding]:
        # A model that nobody profiles needs none of this.
        from quantscope.backends.onnx import slowness

        return slowness.findings(model.handle.model, kernels, self._model, threads=threads, cores=cores, flags=flags)

    def multiply_adds(self, model: Model, inputs: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        return profiler.multiply_adds(model.handle.model, inputs)

    def peak(self, threads: int) -> Peak:
        return peak.measured(threads)

    def framework(self) -> Framework:
        return framework.installed()

    def integer_products(self, model: Model) -> Sequence[IntegerProduct]:
        handle: _Handle = model.handle
        return integer_products.integer_products(handle.deployed, handle.view("simulated").graph)


BACKEND = OnnxBackend()
