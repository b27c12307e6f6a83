"""ONNX files in and out: checked on the way in, written whole or not at all on the way out."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from quantscope.backends.onnx import external
from quantscope.backends.onnx.external import Place, place, refer
from quantscope.backends.onnx.folders import TemporaryFolder, WeightFolder
from quantscope.backends.onnx.reading import referring
from quantscope.errors import ModelError, OutputError

_OLDEST_OPSET = 7
# What protobuf writes at most, less some room for all that is not weights.
_LARGEST_MESSAGE_BYTES = 2**31 - (64 << 20)
# A model that was made in memory keeps its weights there if they are fewer.
_LARGEST_IN_MEMORY_BYTES = 16 << 20
DATA_SUFFIX = ".data"


@dataclass(eq=False)
class OnnxModel:
    """A model's protobuf message; large weights may stay in files in `folder`.

    `data_beside` says that the weights of this model, written to a file, go into a data file of their own beside it.
    """

    proto: onnx.ModelProto
    folder: WeightFolder | None = None
    data_beside: bool = False

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return max((entry.version for entry in self.proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)

    @cached_property
    def external(self) -> bool:
        """True if some weights are kept outside the message."""
        return any(place(tensor) is not None for tensor in self.proto.graph.initializer)

    @property
    def fits_in_message(self) -> bool:
        """True if one message can hold all weights."""
        return not self.external or external.size(self.proto) <= _LARGEST_MESSAGE_BYTES

    def with_weights(self) -> onnx.ModelProto:
        """A copy of the message that holds all weights itself, be they more than protobuf can write."""
        self.check_unchanged()
        return external.with_weights(self.proto, self.folder)

    def copy(self) -> OnnxModel:
        """The same model with a message of its own, to be changed."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        return OnnxModel(proto, self.folder, self.data_beside)

    def portable(self) -> OnnxModel:
        """The same model with its weights in the message; itself where they are more than a message can hold."""
        if not self.external or not self.fits_in_message:
            return self
        return OnnxModel(self.with_weights(), None, self.data_beside)

    def check_unchanged(self) -> None:
        """Raise a ModelError if a file with weights is not what it was when the model was loaded."""
        if self.folder is not None:
            self.folder.check_unchanged()


def read(path: Path) -> OnnxModel:
    """The model in a file, its large weights left where they are.

    Raises:
        ModelError: the file is missing, damaged, no ONNX model, or its external data are missing.
    """
    if not path.exists():
        raise ModelError(
            f"no such model file: {path}", accepted="the path of an .onnx file", next_step="check the path"
        )
    if path.is_dir():
        raise ModelError(f"{path} is a folder", accepted="the path of an .onnx file")
    # ONNX Runtime reads no data through links that lead out of the model's folder, as those of download caches do.
    file = path.resolve()
    try:
        proto = referring(file)
    except (DecodeError, ValueError) as error:
        raise damaged(path) from error
    data = _data_files(proto, file, path)
    folder = Path(os.path.commonpath([file.parent, *(found.parent for found in data.values())]))
    for tensor in proto.graph.initializer:
        where = place(tensor)
        if where is not None:
            location = str(data.get(where.location, file).relative_to(folder))
            refer(tensor, Place(location, where.offset, where.length))
    model = OnnxModel(proto, WeightFolder(folder, {file, *data.values()}), data_beside=bool(data))
    check(model, str(path))
    return model


def damaged(path: Path) -> ModelError:
    """The error that says that a file holds no model."""
    return ModelError(
        f"not an ONNX model, or a damaged one: {path} ({path.stat().st_size} bytes)",
        accepted="an .onnx file",
        next_step="export or download the model again",
    )


def _data_files(proto: onnx.ModelProto, file: Path, path: Path) -> dict[str, Path]:
    """The data files that a model names, as they really are; not the model's own file."""
    found: dict[str, Path] = {}
    for tensor in proto.graph.initializer:
        where = place(tensor)
        if where is None or where.location == file.name:
            continue
        inside = os.path.normpath(where.location)
        if os.path.isabs(inside) or inside.startswith(".."):
            raise ModelError(
                f"the model {path} keeps weights outside of its folder: {where.location} (tensor {tensor.name!r})",
                accepted="data files in the model's folder",
                next_step="export the model again, with its data file beside it",
            )
        data = found.setdefault(where.location, (path.parent / inside).resolve())
        if not data.is_file() or data.stat().st_size < where.offset + (where.length or 0):
            problem = "is too short" if data.is_file() else "is missing"
            raise ModelError(
                f"the external data of {path} {problem}: {path.parent / inside} (tensor {tensor.name!r})",
                accepted="the model file with its data file beside it",
                next_step=f"copy the data file to {path.parent}",
            )
    return found


def from_proto(proto: onnx.ModelProto) -> OnnxModel:
    """The model in a message, which stays as it is.

    Raises:
        ModelError: it is empty or not supported.
    """
    check(OnnxModel(proto), "the given ModelProto")
    if OnnxModel(proto).external:
        raise ModelError(
            "the given ModelProto keeps weights in external files, whose folder it does not name",
            accepted="a path, or a ModelProto that holds its weights",
            next_step="pass the path of the .onnx file",
        )
    if external.size(proto) > _LARGEST_IN_MEMORY_BYTES:
        return _outside(proto)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return OnnxModel(copy)


def made(proto: onnx.ModelProto, *, data_beside: bool) -> OnnxModel:
    """The model in a message that was made for it, and that nobody else keeps: large weights go to temporary files."""
    if external.size(proto) > _LARGEST_IN_MEMORY_BYTES:
        return _outside(proto, data_beside=data_beside)
    return OnnxModel(proto, data_beside=data_beside)


def settled(model: OnnxModel) -> OnnxModel:
    """The model with its weights in memory if they are few, whatever files they are in."""
    if external.size(model.proto) > _LARGEST_IN_MEMORY_BYTES:
        return model
    return OnnxModel(model.with_weights(), None, model.data_beside)


def own(model: OnnxModel) -> OnnxModel:
    """The same model with a message and weights of its own, in memory or in a temporary folder, to be changed."""
    if not model.external:
        return model.copy()
    model.check_unchanged()
    return _outside(model.proto, model.folder, data_beside=model.data_beside)


def _outside(proto: onnx.ModelProto, source: WeightFolder | None = None, *, data_beside: bool = False) -> OnnxModel:
    folder = TemporaryFolder()
    try:
        light = external.moved(proto, source, folder.path / "weights", "weights")
    except OSError as error:
        raise folder.no_room(error.strerror or str(error)) from error
    return OnnxModel(light, folder, data_beside)


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


def data_file(path: Path) -> Path:
    """The data file beside a model file that `write` writes, for a model that needs one."""
    return path.with_name(path.name + DATA_SUFFIX)


def all_files(path: Path) -> tuple[Path, ...]:
    """The model file, the data file that `write` puts beside it, and those that it names; such as are there."""
    found = [path, data_file(path)]
    with suppress(OSError, ValueError, DecodeError, ModelError):
        found += _data_files(referring(path), path, path).values()
    return tuple(dict.fromkeys(file for file in found if file.is_file()))


def write(model: OnnxModel, path: Path) -> None:
    """Write the model to a file, beside it first and then renamed.

    Weights go to a data file beside it if they came from one, or are more than a message can hold; that file is there
    before the model is.

    Raises:
        OutputError: it cannot be written.
    """
    data = data_file(path)
    outside = model.data_beside or external.size(model.proto) > _LARGEST_MESSAGE_BYTES
    try:
        with _temporary(path) as message, _temporary(data) as weights:
            if outside:
                model.check_unchanged()
                message.write_bytes(external.moved(model.proto, model.folder, weights, data.name).SerializeToString())
                os.replace(weights, data)
            else:
                message.write_bytes(model.with_weights().SerializeToString())
            os.replace(message, path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}", next_step="choose another folder with --output"
        ) from error


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """The name of a file to write beside this one; what is there under that name in the end is removed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
