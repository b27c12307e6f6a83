"""The record of equalized channels among a model's metadata."""

from __future__ import annotations

import onnx

from quantscope.equalization import KEY


def record(proto: onnx.ModelProto) -> str | None:
    """The record in a model's message; None if it has none."""
    return next((entry.value for entry in proto.metadata_props if entry.key == KEY), None)


def remember(proto: onnx.ModelProto, text: str) -> None:
    """Put the record into a model's message, in the place of one that is there."""
    forget(proto)
    proto.metadata_props.add(key=KEY, value=text)


def forget(proto: onnx.ModelProto) -> None:
    """Take the record out of a model's message: from now on the model is compared with itself."""
    kept = [entry for entry in proto.metadata_props if entry.key != KEY]
    if len(kept) < len(proto.metadata_props):
        del proto.metadata_props[:]
        proto.metadata_props.extend(kept)
