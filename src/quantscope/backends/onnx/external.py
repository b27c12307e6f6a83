"""Weights kept in files: a model's message refers to them, and is small however large the model is."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

# A tensor of less is kept in the message: shapes and scales are read often.
REFERRED_BYTES = 1024
# As ONNX Runtime wants the data that it maps.
_ALIGNMENT = 64
# What needs no decoding: numpy's type of it, as a message holds it.
_PLAIN = {
    kind: np.dtype(helper.tensor_dtype_to_np_dtype(kind)).newbyteorder("<")
    for kind in (
        TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BOOL, TensorProto.INT8,
        TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT16,
        TensorProto.UINT32, TensorProto.UINT64,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where the values of a tensor lie; `length` is None where the model does not say."""

    location: str
    offset: int
    length: int | None


def place(tensor: TensorProto) -> Place | None:
    """Where the values of a tensor lie; None if the message holds them."""
    if not uses_external_data(tensor):
        return None
    entries = {entry.key: entry.value for entry in tensor.external_data}
    length = int(entries["length"]) if "length" in entries else None
    return Place(entries.get("location", ""), int(entries.get("offset", 0)), length)


def refer(tensor: TensorProto, where: Place) -> None:
    """Let the tensor, which holds no values, refer to this place."""
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", where.location), ("offset", where.offset), ("length", where.length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))


def content(tensor: TensorProto, folder: object) -> bytes:
    """The values of a tensor as the bytes that a message or a data file holds."""
    where = place(tensor)
    if where is None:
        return bytes(tensor.raw_data) or bytes(numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data)
    with open(os.path.join(str(folder), where.location), "rb") as file:
        file.seek(where.offset)
        return file.read(-1 if where.length is None else where.length)


def array(tensor: TensorProto, folder: object) -> NDArray[Any]:
    """The values of a tensor."""
    where, shape, dtype = place(tensor), tuple(tensor.dims), _PLAIN.get(tensor.data_type)
    if dtype is None:
        whole = tensor
        if where is not None:
            whole = TensorProto(dims=shape, data_type=tensor.data_type, raw_data=content(tensor, folder))
        decoded: NDArray[Any] = numpy_helper.to_array(whole)
        return decoded
    if where is not None:
        read = np.empty(shape, dtype)
        _read(os.path.join(str(folder), where.location), where.offset, read.reshape(-1).view(np.uint8).data)
        return read
    raw = tensor.raw_data
    values: NDArray[Any] = np.frombuffer(raw, dtype).reshape(shape) if raw else numpy_helper.to_array(tensor)
    # Not read-only, as no other array is: a kernel for both kinds is loaded twice.
    return values if values.flags.writeable else values.copy()


def _read(path: str, offset: int, target: memoryview) -> None:
    """Fill the array from this place of a file: np.fromfile does the same at five times the cost per call."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while target:
            count = os.preadv(descriptor, [target], offset)
            if not count:
                raise ValueError(f"{path} ends at byte {offset}")
            target, offset = target[count:], offset + count
    finally:
        os.close(descriptor)


def put(tensor: TensorProto, values: NDArray[Any], folder: object) -> None:
    """Replace the values of a tensor, where they lie, by others of its shape and type."""
    where = place(tensor)
    if where is None:
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return
    with open(os.path.join(str(folder), where.location), "r+b") as file:
        file.seek(where.offset)
        file.write(np.ascontiguousarray(values).data)


def with_weights(proto: ModelProto, folder: object) -> ModelProto:
    """A copy of the message that holds all its weights itself, be they more than protobuf can write."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if place(tensor) is not None:
            tensor.raw_data = content(tensor, folder)
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT
    return copy


def size(proto: ModelProto) -> int:
    """About how many bytes the model takes with all its weights."""
    return int(sum(math.prod(t.dims) * _bytes(t.data_type) for t in proto.graph.initializer))


def _bytes(data_type: int) -> float:
    if data_type in (TensorProto.INT4, TensorProto.UINT4):
        return 0.5
    return 0 if data_type == TensorProto.STRING else int(helper.tensor_dtype_to_np_dtype(data_type).itemsize)


def moved(proto: ModelProto, folder: object, target: Path, name: str) -> ModelProto:
    """A copy of the message whose large weights are written to a file and referred to under this name.

    Args:
        proto: the message.
        folder: where the weights are that it refers to.
        target: the file.
        name: what the file is called by the time the copy is used.
    """
    copy = ModelProto()
    _copy_fields(proto, copy, "graph")
    _copy_fields(proto.graph, copy.graph, "initializer")
    with target.open("wb") as file:
        for tensor in proto.graph.initializer:
            if math.prod(tensor.dims) * _bytes(tensor.data_type) < REFERRED_BYTES:
                copy.graph.initializer.append(tensor)
                continue
            values = content(tensor, folder)
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            moved_tensor = copy.graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
            refer(moved_tensor, Place(name, file.tell(), len(values)))
            file.write(values)
    return copy


def _copy_fields(source: Any, target: Any, without: str) -> None:
    for field, value in source.ListFields():
        if field.name == without:
            continue
        if isinstance(value, str | bytes | int | float):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).MergeFrom(value)
