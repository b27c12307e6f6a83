"""What a model looks like, free of any framework: tensors, ops and the graph they form."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

_SHAPE_OPS = frozenset(("Shape", "Size"))

Dimension = int | str | None
"""A number, the name of a symbolic dimension ("batch"), or None where nothing is known."""


@dataclass(frozen=True)
class Tensor:
    """A named value in the graph.

    `dtype` is numpy's name for the element type ("float32"), "" where unknown; `shape` is None where even the
    rank is unknown.
    """

    name: str
    dtype: str = ""
    shape: tuple[Dimension, ...] | None = None


@dataclass(frozen=True)
class Op:
    """One node. `name` is unique in its graph; `scope` is the module it belongs to, "" at the top.

    `op_type` is the name that ONNX's operator set has for this type, in every framework: so one recipe and one rule
    serve all of them. `native_type` is the framework's own where it differs ("CONV_2D"), and selects the op as well.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scope: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    native_type: str = ""

    def is_of(self, op_type: str) -> bool:
        """True if the op is of this type, by either of its names."""
        return op_type in (self.op_type, self.native_type)


@dataclass(frozen=True)
class Graph:
    """A model's ops in execution order.

    `constants` names the tensors whose values are stored in the model (weights, shapes);
    `inputs` and `outputs` are the model's own. With `channels_last` convolutions and pooling have their channels on the
    last axis instead of the second.
    """

    ops: tuple[Op, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: frozenset[str]
    channels_last: bool = False

    @cached_property
    def producers(self) -> Mapping[str, Op]:
        """The op that computes each tensor; model inputs and constants have none."""
        return {name: op for op in self.ops for name in op.outputs if name}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Op, ...]]:
        """The ops that read each tensor, in execution order."""
        found: dict[str, list[Op]] = {}
        for op in self.ops:
            for name in dict.fromkeys(op.inputs):
                if name:
                    found.setdefault(name, []).append(op)
        return {name: tuple(ops) for name, ops in found.items()}

    @cached_property
    def by_name(self) -> Mapping[str, Op]:
        """The ops by their names."""
        return {op.name: op for op in self.ops}

    def nearest_before(self, tensor: str, wanted: Container[str]) -> tuple[str, ...]:
        """Those of the wanted tensors that this one is computed from without another wanted one in between."""
        found: dict[str, None] = {}
        waiting, seen = [tensor], {tensor}
        while waiting:
            producer = self.producers.get(waiting.pop())
            for name in producer.inputs if producer is not None else ():
                if name in wanted:
                    found[name] = None
                elif name and name not in seen:
                    seen.add(name)
                    waiting.append(name)
        return tuple(found)

    def nearest(self, wanted: Container[str], *, before: bool = False) -> dict[str, str]:
        """For each op the wanted one that is nearest: itself, else one that reads from it, else one it reads from.

        Args:
            wanted: names of ops.
            before: look first at the ops that it reads from.
        """
        found: dict[str, str] = {op.name: op.name for op in self.ops if op.name in wanted}
        for backwards in (before, not before):
            for op in self.ops if backwards else reversed(self.ops):
                if op.name in found:
                    continue
                beside = self._read_from(op) if backwards else self._readers(op)
                close = next((found[other.name] for other in beside if other.name in found), None)
                if close is not None:
                    found[op.name] = close
        return found

    def static_tensors(self, *, with_shapes: bool = False) -> set[str]:
        """The tensors that are the same for every sample, those left out ("") among them.

        Args:
            with_shapes: also those that depend on the shape of a sample alone.
        """
        static = set(self.constants) | {""}
        for op in self.ops:
            if (with_shapes and op.op_type in _SHAPE_OPS) or all(name in static for name in op.inputs):
                static.update(op.outputs)
        return static

    def _readers(self, op: Op) -> Iterator[Op]:
        return (reader for name in op.outputs for reader in self.consumers.get(name, ()))

    def _read_from(self, op: Op) -> Iterator[Op]:
        return (self.producers[name] for name in op.inputs if name in self.producers)

    def tensor(self, name: str) -> Tensor:
        """The tensor of this name; one without dtype and shape where the graph says nothing about it."""
        return self.tensors.get(name, Tensor(name))
