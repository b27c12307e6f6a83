"""The channels of a constant: factors laid along them, and the largest value in each.

An axis need not have as many elements as there are channels. The weight of a grouped convolution has the channels of
one group there, another group's for each part of its first axis. The weight [1, height, width, channels · m] of a
depthwise convolution has m elements for each channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def along(factors: NDArray[Any], shape: Sequence[int], axis: int) -> NDArray[Any]:
    """Return factors of channels in a form that broadcasts against a constant of this shape.

    Raises:
        ValueError: the constant has no such channels.
    """
    size, count, view = shape[axis], len(factors), [1] * len(shape)
    if _in_groups(count, shape, axis):
        groups = count // size
        factors = np.repeat(factors.reshape(groups, size), shape[0] // groups, axis=0)
        view[0] = shape[0]
    elif size != count:
        if not _repeated(count, shape, axis):
            raise ValueError(f"{count} channels along axis {axis} of {list(shape)}")
        factors = np.repeat(factors, size // count)
    view[axis] = size
    return factors.reshape(view)


def largest(values: NDArray[Any], axis: int, channels: int) -> NDArray[np.float64]:
    """Return the largest value of each of so many channels that lie along this axis."""
    if _in_groups(channels, values.shape, axis):
        groups = channels // values.shape[axis]
        moved = np.moveaxis(values, axis, 1)
        found = moved.reshape(groups, len(moved) // groups, moved.shape[1], -1).max(axis=(1, 3)).reshape(-1)
    else:
        found = np.moveaxis(values, axis, 0).reshape(channels, -1).max(axis=1)
    return np.asarray(found, np.float64)


def _in_groups(channels: int, shape: Sequence[int], axis: int) -> bool:
    groups, rest = divmod(channels, shape[axis])
    return axis > 0 and groups > 1 and not rest and shape[0] % groups == 0


def _repeated(channels: int, shape: Sequence[int], axis: int) -> bool:
    return axis == len(shape) - 1 > 0 and shape[0] == 1 and shape[axis] % channels == 0
