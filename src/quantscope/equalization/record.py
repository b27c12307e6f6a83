"""What equalization did to a model, kept in its file: which tensors and constants have their channels scaled.

A model is the same function before and after, but its inner tensors are not the same: whoever compares it with the
model before has to know the factors.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.equalization.channels import along
from quantscope.errors import ModelError
from quantscope.quantized import RescaledQParams, Weight

KEY = "quantscope.equalization"
"""What the record is called among a file's metadata."""
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


@dataclass(frozen=True, eq=False)
class Record:
    """All that was rescaled in a model; empty for one that never was."""

    rescalings: tuple[Rescaling, ...] = ()

    @classmethod
    def parsed(cls, text: str | None) -> Record:
        """The record in a file; `text` is None where there is none.

        Raises:
            ModelError: it cannot be read.
        """
        if text is None:
            return cls()
        try:
            values = json.loads(text)
            if values["version"] != _VERSION:
                raise ValueError(f"version {values['version']}")
            return cls(tuple(map(_rescaling, values["regions"])))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(str(error)) from error

    def text(self) -> str:
        """The record as a file holds it."""
        regions = [
            {
                "factors": b64encode(r.factors.astype("<f4").tobytes()).decode(),
                "tensors": dict(r.tensors), "times": dict(r.times), "over": dict(r.over),
            }
            for r in self.rescalings
        ]  # fmt: skip
        return json.dumps({"version": _VERSION, "regions": regions}, separators=(",", ":"))

    @cached_property
    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """What each rescaled activation is multiplied by, in a form that broadcasts against it."""
        return {
            name: rescaling.factors.reshape(-1, *(1,) * behind)
            for rescaling in self.rescalings
            for name, behind in rescaling.tensors.items()
        }

    @cached_property
    def _constants(self) -> dict[str, list[tuple[NDArray[np.float64], int]]]:
        """What each rescaled constant is multiplied by: the factors of channels, with the axis of these."""
        found: dict[str, list[tuple[NDArray[np.float64], int]]] = {}
        for rescaling in self.rescalings:
            for axes, power in ((rescaling.times, 1), (rescaling.over, -1)):
                for name, axis in axes.items():
                    found.setdefault(name, []).append((rescaling.factors.astype(np.float64) ** power, axis))
        return found

    @property
    def constants(self) -> tuple[str, ...]:
        """The names of the rescaled constants."""
        return tuple(self._constants)

    def _factors(self, constant: str, shape: Sequence[int]) -> tuple[NDArray[np.float64], ...]:
        """What a constant is multiplied by, in a form that broadcasts against it.

        Nothing if its shape is not the one that was scaled: an optimizer made another constant of it.
        """
        try:
            return tuple(along(factors, shape, axis) for factors, axis in self._constants.get(constant, ()))
        except (ValueError, IndexError):
            return ()

    def scaled(self, constant: str, values: NDArray[Any]) -> NDArray[Any]:
        """The values of a constant from before, multiplied by its factors."""
        return np.asarray(reduce(np.multiply, self._factors(constant, values.shape), values).astype(values.dtype))

    def before(self, weight: Weight) -> Weight:
        """The weight in the unit from before its channels were scaled."""
        factors = self._factors(weight.tensor, weight.shape)
        if not factors:
            return weight
        qparams = None if weight.qparams is None else RescaledQParams.of(weight.qparams, factors)
        return replace(weight, read=partial(_divided, weight.read, factors), qparams=qparams)


def _divided(read: Callable[[], NDArray[Any]], factors: tuple[NDArray[Any], ...]) -> NDArray[Any]:
    values = read()
    return np.asarray(reduce(np.divide, factors, values).astype(values.dtype))


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
        f"the model's record of its equalized channels, {KEY} in its metadata, means nothing: {problem}",
        accepted="the record that quantscope wrote",
        next_step="quantize the model again",
    )
