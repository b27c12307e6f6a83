"""Reads the message in an .onnx file and leaves its weights there.

ONNX lets a tensor name a place in any file: a large weight is referred to where it lies in the model's own file. So
Python never holds it, and ONNX Runtime maps it instead of copying it out of the message.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from quantscope.backends.onnx.external import REFERRED_BYTES, Place, refer


def referring(path: Path) -> ModelProto:
    """The message in a file; its large weights stay there, and are referred to under the file's name.

    Raises:
        ValueError, DecodeError: the file holds no message.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        parts: list[bytes] = []
        for number, start, value, stop in _fields(data, 0, len(data)):
            if number == ModelProto.GRAPH_FIELD_NUMBER:
                graph = b"".join(_graph(data, value, stop, path.name))
                parts += [_head(number, len(graph)), graph]
            else:
                parts.append(data[start:stop])
    return ModelProto.FromString(b"".join(parts))


# How protobuf writes a message: each field as a number that holds its own and its kind, then its value. Fields of bytes
# have their length in front; of those alone an inner message can be made.
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5

_Field = tuple[int, int, int, int]
"""A field's number, where it starts, where its value does, and where it ends."""


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[_Field]:
    while position < end:
        start = position
        key, position = _varint(data, position)
        kind, value = key & 7, position
        if kind == _BYTES:
            length, value = _varint(data, position)
            position = value + length
        elif kind == _VARINT:
            _, position = _varint(data, position)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            position += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"no protobuf message: a field of kind {kind}")
        if position > end:
            raise ValueError("the message ends within a field")
        yield key >> 3, start, value, position


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the position behind it."""
    result = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("the message ends within a number")
        byte = data[position]
        position += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, position
        shift += 7


def _head(number: int, length: int) -> bytes:
    """What stands in front of a field of so many bytes."""
    head = bytearray()
    for value in (number << 3 | _BYTES, length):
        rest = value
        while rest > 127:
            head.append(rest & 127 | 128)
            rest >>= 7
        head.append(rest)
    return bytes(head)


def _graph(data: mmap.mmap, position: int, end: int, location: str) -> Iterator[bytes]:
    kept = position
    for number, start, value, stop in _fields(data, position, end):
        if stop - value < REFERRED_BYTES:
            continue
        referred = None
        if number == GraphProto.INITIALIZER_FIELD_NUMBER:
            referred = _tensor(data, value, stop, location)
        elif number == GraphProto.NODE_FIELD_NUMBER:
            referred = _constant(data, value, stop, location)
        if referred is not None:
            yield data[kept:start]
            yield _head(GraphProto.INITIALIZER_FIELD_NUMBER, len(referred))
            yield referred
            kept = stop
    yield data[kept:end]


def _constant(data: mmap.mmap, position: int, end: int, location: str) -> bytes | None:
    """A Constant as the tensor that it is, with a reference; None for another node, or one of few values."""
    referred, kind, output = None, b"", b""
    for number, _, value, stop in _fields(data, position, end):
        if number == NodeProto.OP_TYPE_FIELD_NUMBER:
            kind = data[value:stop]
        elif number == NodeProto.OUTPUT_FIELD_NUMBER:
            output = data[value:stop]
        elif number == NodeProto.ATTRIBUTE_FIELD_NUMBER:
            for inner, _, tensor, tensor_stop in _fields(data, value, stop):
                if inner == AttributeProto.T_FIELD_NUMBER:
                    referred = _tensor(data, tensor, tensor_stop, location)
    if referred is None or kind != b"Constant":
        return None
    # Of two values of a field the last one counts.
    return referred + bytes(TensorProto(name=output.decode()).SerializeToString())


def _tensor(data: mmap.mmap, position: int, end: int, location: str) -> bytes | None:
    """The tensor with a reference in the place of its values; None if it has few, or holds them otherwise."""
    parts, added = [], TensorProto()
    for number, start, value, stop in _fields(data, position, end):
        if number == TensorProto.RAW_DATA_FIELD_NUMBER and stop - value >= REFERRED_BYTES:
            refer(added, Place(location, value, stop - value))
        else:
            parts.append(data[start:stop])
    return b"".join([*parts, bytes(added.SerializeToString())]) if added.external_data else None
