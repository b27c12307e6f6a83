"""LiteRT files in and out: checked on the way in, written whole or not at all on the way out."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from quantscope.backends.litert import schema
from quantscope.errors import ModelError, OutputError

SUFFIX = ".tflite"
_IDENTIFIER_AT = 4


@dataclass(eq=False)
class LiteRTModel:
    """The content of a .tflite file, and its tables as objects, made when first asked for."""

    content: bytes

    @cached_property
    def table(self) -> Any:
        """The model's tables: not to be changed; whoever rewrites the model takes `copied`."""
        return schema.unpacked(self.content)

    def copied(self) -> Any:
        """The model's tables, to be changed; the arrays of weights are still shared."""
        return schema.unpacked(self.content)

    def __getstate__(self) -> dict[str, Any]:
        # Another process reads the tables itself: as objects they are many times the size.
        return {"content": self.content}


def read(path: Path) -> LiteRTModel:
    """The model in a file.

    Raises:
        ModelError: the file is missing, damaged or of another kind.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"cannot read {path}: {error.strerror or error}", accepted=f"a readable {SUFFIX} file"
        ) from error
    return checked(content, str(path))


def checked(content: bytes, source: str) -> LiteRTModel:
    """The model in the content of a file.

    Args:
        content: all of it.
        source: where it came from, for the message.
    Raises:
        ModelError: it is no model, is damaged, or has nothing in it.
    """
    if content[_IDENTIFIER_AT : _IDENTIFIER_AT + len(schema.IDENTIFIER)] != schema.IDENTIFIER:
        raise ModelError(
            f"not a LiteRT model: {source}",
            accepted=f"a {SUFFIX} file, as TensorFlow's and LiteRT's converters write it",
            next_step="check the path; convert the model again if the file is what it should be",
        )
    model = LiteRTModel(content)
    try:
        subgraphs = model.table.subgraphs or []
        complete = bool(subgraphs) and all(
            0 <= int(tensor.buffer) < len(model.table.buffers) for graph in subgraphs for tensor in graph.tensors or ()
        )
    except Exception as error:  # Reading beyond the end raises errors of many kinds.
        raise damaged(source) from error
    if not complete:
        raise damaged(source)
    return model


def damaged(source: str) -> ModelError:
    """The error for a file that begins like a model and cannot be read to its end."""
    return ModelError(
        f"the LiteRT model is damaged or truncated: {source}",
        accepted=f"a complete {SUFFIX} file",
        next_step="copy or convert it again",
    )


def write(model: LiteRTModel, path: Path) -> None:
    """Write the model to a file, beside it first and then renamed.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(model.content)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}", next_step="choose another folder with --output"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
