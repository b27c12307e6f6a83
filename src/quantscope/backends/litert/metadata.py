"""The record of equalized channels among a model's metadata."""

from __future__ import annotations

from typing import Any

import numpy as np

from quantscope.backends.litert import schema
from quantscope.backends.litert.files import LiteRTModel, checked
from quantscope.equalization import KEY


def record(table: Any) -> str | None:
    """The record in a model's tables; None if it has none."""
    entry = next((entry for entry in table.metadata or () if schema.text(entry.name) == KEY), None)
    if entry is None:
        return None
    data = table.buffers[int(entry.buffer)].data
    return "" if data is None else schema.text(bytes(np.asarray(data, np.uint8)))


def remember(table: Any, text: str) -> None:
    """Put the record into a model's tables, in the place of one that is there."""
    entry, buffer = schema.tables.MetadataT(), schema.tables.BufferT()
    entry.name, entry.buffer = KEY, len(table.buffers)
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    table.buffers.append(buffer)
    table.metadata = [*_others(table), entry]


def forgotten(model: LiteRTModel) -> LiteRTModel:
    """The model without the record: from now on it is compared with itself."""
    if record(model.table) is None:
        return model
    table = model.copied()
    table.metadata = _others(table)
    return checked(schema.packed(table), "the model without its record")


def _others(table: Any) -> list[Any]:
    return [entry for entry in table.metadata or () if schema.text(entry.name) != KEY]
