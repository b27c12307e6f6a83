"""ONNX files in and out: checked on the way in, written whole or not at all on the way out."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from quantscope.errors import ModelError, OutputError

_OLDEST_OPSET = 7
_LARGEST_PROTO_BYTES = 2**31 - 1


@dataclass(eq=False)
class OnnxModel:
    """A model's protobuf message; large weights may stay in files beside it, in `folder`."""

    proto: onnx.ModelProto
    folder: Path | None = None

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return max((entry.version for entry in self.proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)

    @cached_property
    def external(self) -> bool:
        """True if some weights are kept outside the message."""
        return any(uses_external_data(tensor) for tensor in self.proto.graph.initializer)

    def with_weights(self) -> onnx.ModelProto:
        """A copy of the message that holds all weights itself.

        Raises:
            ModelError: it would be larger than protobuf allows.
        """
        copy = onnx.ModelProto()
        copy.CopyFrom(self.proto)
        if self.external:
            load_external_data_for_model(copy, str(self.folder))
        return copy


def read(path: Path) -> OnnxModel:
    """The model in a file, its weights left in external files if they are there.

    Raises:
        ModelError: the file is missing, damaged, no ONNX model, or its external data are missing.
    """
    if not path.exists():
        raise ModelError(
            f"no such model file: {path}", accepted="the path of an .onnx file", next_step="check the path"
        )
    if path.is_dir():
        raise ModelError(f"{path} is a folder", accepted="the path of an .onnx file")
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ModelError(
            f"not an ONNX model, or a damaged one: {path} ({path.stat().st_size} bytes)",
            accepted="an .onnx file",
            next_step="export or download the model again",
        ) from error
    model = OnnxModel(proto, path.parent)
    check(model, str(path))
    return model


def from_proto(proto: onnx.ModelProto) -> OnnxModel:
    """The model in a message.

    Raises:
        ModelError: it is empty or not supported.
    """
    model = OnnxModel(proto)
    check(model, "the given ModelProto")
    if model.external:
        raise ModelError(
            "the given ModelProto keeps weights in external files, whose folder it does not name",
            accepted="a path, or a ModelProto that holds its weights",
            next_step="pass the path of the .onnx file",
        )
    return model


def check(model: OnnxModel, name: str) -> None:
    """Raise a ModelError if the model cannot be worked with."""
    graph = model.proto.graph
    if not graph.node or not graph.output or model.opset == 0:
        raise ModelError(
            f"no ONNX model in {name}: it has no ops", accepted="an ONNX model with a graph",
            next_step="export or download the model again",
        )  # fmt: skip
    if model.opset < _OLDEST_OPSET:
        raise ModelError(
            f"{name} uses opset {model.opset}",
            accepted=f"opset {_OLDEST_OPSET} or newer",
            next_step="export it again with opset_version=17, or run onnx.version_converter",
        )
    for tensor in graph.initializer:
        if uses_external_data(tensor) and model.folder is not None:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            location = model.folder / entries.get("location", "")
            length = int(entries.get("offset", 0)) + int(entries.get("length", 0))
            if not location.is_file() or location.stat().st_size < length:
                problem = "is too short" if location.is_file() else "is missing"
                raise ModelError(
                    f"the external data of {name} {problem}: {location} (tensor {tensor.name!r})",
                    accepted="the model file with its data file beside it",
                    next_step=f"copy the data file to {location.parent}",
                )


def write(model: OnnxModel, path: Path) -> None:
    """Write the model to a file, beside it first and then renamed.

    Raises:
        OutputError: it cannot be written.
    """
    proto = model.with_weights() if model.external else model.proto
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            if proto.ByteSize() > _LARGEST_PROTO_BYTES:
                raise OutputError(f"the model is {proto.ByteSize()} bytes", accepted="models below 2 GiB in one file")
            file.write(proto.SerializeToString())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}", next_step="choose another folder with --output"
        ) from error
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
