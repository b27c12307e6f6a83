"""A cut model that was equalized, in the unit from before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class FormerUnit:
    """A runner of a cut model that takes and gives tensors as they were before their channels were scaled."""

    def __init__(self, inputs: tuple[str, ...], run: Callable[[Arrays], dict[str, NDArray[Any]]], factors: Arrays):
        """`inputs` and `run` are those of the cut model; `factors` are what tensors have been multiplied by."""
        self.inputs = inputs
        self._run = run
        self._factors = factors

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """What was computed at the cuts by name, for one batch."""
        factors = self._factors
        fed = {
            name: np.asarray(inputs[name] * factors[name]) if name in factors else inputs[name]
            for name in self.inputs
            if name in inputs
        }
        computed = self._run(fed)
        return {
            name: np.asarray(values / factors[name]) if name in factors else values for name, values in computed.items()
        }
