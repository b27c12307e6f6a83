"""The same model with other outputs, written without unpacking it: weights are neither read nor held once more."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from quantscope.backends.litert import schema
from quantscope.errors import ModelError

# The place of `outputs` among the fields of SubGraph, in the vtable of a flatbuffer (TensorFlow Lite, schema.fbs).
_OUTPUTS_FIELD = 8
_ALIGNMENT = 4
_MOST_OFFSET = 2**32 - 1


def with_outputs(content: bytes, tensors: Sequence[int]) -> Iterator[bytes | memoryview]:
    """The parts, in order, of a model whose main graph has these outputs; all else is as it was.

    A flatbuffer refers to a list by the distance to it: the new one comes behind the content, and the distance changes.

    Raises:
        ModelError: the model has no list of outputs, or is so large that no distance reaches behind it.
    """
    table = schema.tables.Model.GetRootAs(content, 0).Subgraphs(0)._tab
    field = table.Offset(_OUTPUTS_FIELD)
    at = table.Pos + field
    padding = -len(content) % _ALIGNMENT
    distance = len(content) + padding - at
    if not field or distance > _MOST_OFFSET:
        raise ModelError(
            "the tensors of the model cannot be looked at: it "
            + ("has no outputs" if not field else f"takes {len(content)} bytes"),
            accepted="a model with outputs, of less than 4 GiB",
        )
    whole = memoryview(content)
    yield whole[:at]
    yield struct.pack("<I", distance)
    yield whole[at + 4 :]
    yield bytes(padding) + struct.pack(f"<I{len(tensors)}i", len(tensors), *tensors)
