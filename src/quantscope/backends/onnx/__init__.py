"""ONNX models, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from quantscope.backends.base import Model, Ranges, Runner, Trace
from quantscope.backends.onnx import files, float_view, quantization, sessions, weights
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.preparation import prepare
from quantscope.backends.onnx.structure import graph_of, infer_types, name_ops
from quantscope.quantized import FloatView, Weight
from quantscope.recipe import Recipe


class _Handle:
    """A model and the graph that ONNX Runtime makes of it, computed when first asked for."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model

    @cached_property
    def prepared(self) -> tuple[OnnxModel, tuple[str, ...]]:
        return prepare(self.model)

    @cached_property
    def deployed(self) -> OnnxModel:
        return sessions.deployed(self.model)


class OnnxBackend:
    """The backend for ONNX models; see `quantscope.backends.base.Backend`."""

    name = "onnx"

    def accepts(self, source: object) -> bool:
        if isinstance(source, str | Path):
            return Path(source).suffix in (".onnx", ".ort") and Path(source).exists()
        return isinstance(source, onnx.ModelProto)

    def load(self, source: object) -> Model:
        if isinstance(source, onnx.ModelProto):
            proto = onnx.ModelProto()
            proto.CopyFrom(source)
            return self._model(files.from_proto(proto))
        path = Path(os.fspath(source))  # type: ignore[call-overload]
        return self._model(files.read(path), path)

    def _model(self, model: OnnxModel, path: Path | None = None, notes: tuple[str, ...] = ()) -> Model:
        name_ops(model.proto)
        infer_types(model)
        return Model(self.name, graph_of(model.proto), _Handle(model), path, notes)

    def save(self, model: Model, path: Path) -> None:
        files.write(model.handle.model, path)

    def prepare(self, model: Model) -> Model:
        prepared, notes = model.handle.prepared
        return self._model(prepared, model.path, notes)

    def tensors_to_calibrate(self, model: Model, recipe: Recipe) -> Sequence[str]:
        return quantization.tensors_to_calibrate(model.graph, recipe)

    def quantize(self, model: Model, recipe: Recipe, ranges: Ranges) -> Model:
        quantized, notes = quantization.quantize(model.handle.model, model.graph, recipe, ranges)
        return self._model(quantized, None, (*model.notes, *notes))

    def float_view(self, model: Model, trace: Trace) -> FloatView:
        handle: _Handle = model.handle
        if trace == "deployed":
            return float_view.float_view(handle.deployed, handle.model)
        return float_view.float_view(handle.model)

    def weights(self, model: Model, trace: Trace = "exact") -> Iterator[Weight]:
        handle: _Handle = model.handle
        return weights.weights(handle.deployed if trace == "deployed" else handle.model)

    def open(
        self, model: Model, tensors: Sequence[str], *, trace: Trace, threads: int
    ) -> AbstractContextManager[Runner]:
        handle: Any = model.handle
        chosen = handle.deployed if trace == "deployed" else handle.model
        return sessions.opened(chosen, tensors, optimize=trace == "optimized", threads=threads)


BACKEND = OnnxBackend()
