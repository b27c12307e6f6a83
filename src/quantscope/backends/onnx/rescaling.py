"""What equalization did to a model, kept in its file: which tensors and constants have their channels scaled.

A model is the same function before and after, but its inner tensors are not the same: whoever compares it with the
model before has to know the factors.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quantscope.errors import ModelError

_KEY = "quantscope.equalization"
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Rescaling:
    """The factors of one region's channels, float32, and what they belong to, by name.

    `tensors` gives the number of axes behind that of the channels. The constants in `times` are multiplied by the
    factors along the given axis, those in `over` divided.
    """

    factors: NDArray[np.float32]
    tensors: Mapping[str, int]
    times: Mapping[str, int]
    over: Mapping[str, int]


def along(factors: NDArray[Any], shape: Sequence[int], axis: int) -> NDArray[Any]:
    """Return factors of channels in a form that broadcasts against a constant of this shape.

    Where the axis is shorter, it is axis 1 of a grouped convolution's weight: each group of axis 0 has its own part.

    Raises:
        ValueError: the constant has no such channels.
    """
    behind = (1,) * (len(shape) - 1 - axis)
    if shape[axis] == len(factors):
        return factors.reshape(-1, *behind)
    groups = len(factors) // shape[1]
    if axis != 1 or groups * shape[1] != len(factors) or shape[0] % groups:
        raise ValueError(f"{len(factors)} channels along axis {axis} of {list(shape)}")
    return np.repeat(factors.reshape(groups, shape[1]), shape[0] // groups, axis=0).reshape(*shape[:2], *behind)


def by_tensor(rescalings: Iterable[Rescaling]) -> dict[str, NDArray[np.float32]]:
    """What each rescaled activation is multiplied by, in a form that broadcasts against it."""
    return {
        name: rescaling.factors.reshape(-1, *(1,) * behind)
        for rescaling in rescalings
        for name, behind in rescaling.tensors.items()
    }


def by_constant(rescalings: Iterable[Rescaling]) -> dict[str, list[tuple[NDArray[np.float64], int]]]:
    """What each rescaled constant is multiplied by: the factors of channels, with the axis of these."""
    found: dict[str, list[tuple[NDArray[np.float64], int]]] = {}
    for rescaling in rescalings:
        for axes, power in ((rescaling.times, 1), (rescaling.over, -1)):
            for name, axis in axes.items():
                found.setdefault(name, []).append((rescaling.factors.astype(np.float64) ** power, axis))
    return found


def broadcast(
    scaled: Iterable[tuple[NDArray[np.float64], int]], shape: Sequence[int]
) -> tuple[NDArray[np.float64], ...]:
    """The same in a form that broadcasts against the constant.

    Nothing if its shape is not the one that was scaled: an optimizer made another constant of it.
    """
    try:
        return tuple(along(factors, shape, axis) for factors, axis in scaled)
    except (ValueError, IndexError):
        return ()


def write(proto: onnx.ModelProto, rescalings: Iterable[Rescaling]) -> None:
    """Put the record into a model's message, in the place of one that is there."""
    regions = [
        {
            "factors": b64encode(r.factors.astype("<f4").tobytes()).decode(),
            "tensors": dict(r.tensors), "times": dict(r.times), "over": dict(r.over),
        }
        for r in rescalings
    ]  # fmt: skip
    remove(proto)
    text = json.dumps({"version": _VERSION, "regions": regions}, separators=(",", ":"))
    proto.metadata_props.add(key=_KEY, value=text)


def remove(proto: onnx.ModelProto) -> None:
    """Take the record out of a model's message: from now on the model is compared with itself."""
    kept = [entry for entry in proto.metadata_props if entry.key != _KEY]
    if len(kept) < len(proto.metadata_props):
        del proto.metadata_props[:]
        proto.metadata_props.extend(kept)


def read(proto: onnx.ModelProto) -> tuple[Rescaling, ...]:
    """The record in a model's message; nothing if it has none.

    Raises:
        ModelError: it cannot be read.
    """
    text = next((entry.value for entry in proto.metadata_props if entry.key == _KEY), None)
    if text is None:
        return ()
    try:
        values = json.loads(text)
        if values["version"] != _VERSION:
            raise ValueError(f"version {values['version']}")
        return tuple(map(_rescaling, values["regions"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(str(error)) from error


def _rescaling(values: Mapping[str, Any]) -> Rescaling:
    factors = np.frombuffer(b64decode(values["factors"], validate=True), "<f4").astype(np.float32)
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise ValueError("factors that are not positive numbers")
    tensors, times, over = (
        {str(name): int(axis) for name, axis in values[key].items()} for key in ("tensors", "times", "over")
    )
    return Rescaling(factors, tensors, times, over)


def _damaged(problem: str) -> ModelError:
    return ModelError(
        f"the model's record of its equalized channels, {_KEY} in its metadata, means nothing: {problem}",
        accepted="the record that quantscope wrote",
        next_step="quantize the model again",
    )
