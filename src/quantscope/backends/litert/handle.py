"""A LiteRT model with all that is made of it when first asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from quantscope.backends.base import Trace
from quantscope.backends.litert import division, equalization, metadata, preparation, schema, simulation, weights
from quantscope.backends.litert.files import LiteRTModel
from quantscope.backends.litert.float_view import Reading, reading
from quantscope.backends.litert.simulation import Runnable
from quantscope.backends.litert.structure import Structure
from quantscope.equalization import Record
from quantscope.quantized import Weight


class Handle:
    """A model, how it is read, and its simulation."""

    def __init__(self, model: LiteRTModel) -> None:
        self.model = model

    def __getstate__(self) -> dict[str, Any]:
        # Another process makes the rest itself.
        return {"model": self.model}

    @cached_property
    def structure(self) -> Structure:
        return Structure(self.model)

    @cached_property
    def prepared(self) -> Handle:
        """The model as it is quantized; this one if it is that already."""
        # From here on it is compared with itself, and not with one whose channels it may have had scaled.
        made = metadata.forgotten(preparation.prepared(self.model, self.structure))
        return self if made is self.model else Handle(made)

    @cached_property
    def equalized(self) -> tuple[Handle, tuple[str, ...]]:
        """The model with its channels equalized, this one if there are none; and notes."""
        made, notes = equalization.equalized(self.model, self.structure)
        return (self if made is self.model else Handle(made)), notes

    @cached_property
    def record(self) -> Record:
        """What equalization did to the model."""
        return Record.parsed(metadata.record(self.model.table))

    @cached_property
    def reading(self) -> Reading:
        found = reading(self.structure)
        return replace(found, view=replace(found.view, factors=self.record.tensors))

    @cached_property
    def written(self) -> Runnable:
        """The model with its ops as they are."""
        return simulation.as_written(self.structure, self.model, self.reading)

    @cached_property
    def simulated(self) -> Runnable:
        """The model with its quantization in float."""
        if not any(map(self.structure.is_codes, range(len(self.structure.tensors)))):
            return self.written
        return simulation.simulated(self.structure, self.model, self.reading)

    @cached_property
    def simulated_content(self) -> bytes:
        return self.model.content if self.simulated is self.written else schema.packed(self.simulated.table)

    @cached_property
    def divisions(self) -> list[str]:
        """The names of the integer divisions that fail on some samples."""
        table = self.model.table
        graph, names = table.subgraphs[0], self.structure.op_names
        return [
            name for name, op in zip(names, graph.operators or (), strict=True) if division.can_fail(table, graph, op)
        ]

    @cached_property
    def weights(self) -> list[Weight]:
        return list(map(self.record.before, weights.weights(self.structure)))

    def runnable(self, trace: Trace) -> tuple[bytes, Runnable]:
        """What runs in a trace."""
        if trace == "simulated":
            return self.simulated_content, self.simulated
        return self.model.content, self.written
