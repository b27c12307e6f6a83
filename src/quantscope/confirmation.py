"""Whether two tensors that should be equal are: looked up in their values, not in the graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOOKED_AT = 1 << 16
_MOST_LAYOUTS = 200
# A structural pair below this has nothing to do with the reference; a badly quantized tensor stays above it.
UNRELATED = 0.2
# What another layout must reach to be taken for the right one.
_CONVINCING = 0.9
# What is enough where no other layout comes near: a badly quantized tensor follows the reference from afar.
LIKELY, _AHEAD = 0.5, 0.2

Layout = tuple[int, ...]
"""The order of a tensor's axes that makes it the reference's; () takes the values in the order they come."""


def correlation(x: NDArray[np.floating], y: NDArray[np.generic]) -> float:
    """Return Pearson's correlation of the values of two arrays of one size; nan where either is constant.

    Arrays of more than 65,536 values are looked at in evenly spaced places.
    """
    step = max(1, x.size // _LOOKED_AT)
    a, b = x.reshape(-1)[::step].astype(np.float64), y.reshape(-1)[::step].astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite] - a[finite].mean() if finite.any() else a[finite], b[finite]
    if not len(a) or not a.any():
        return math.nan
    b = b - b.mean()
    norms = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norms if norms else math.nan


def layout(x: NDArray[np.floating], y: NDArray[np.generic]) -> Layout | None:
    """Return the order of y's axes in which it follows x; None if there is none.

    An optimizer moves transposes and reshapes past ops: what it computes then is the same in another layout.
    """
    if x.size != y.size:
        return None
    if sorted(x.shape) != sorted(y.shape):
        return () if correlation(x, y) > _CONVINCING else None
    fitting = (p for p in permutations(range(y.ndim)) if tuple(y.shape[i] for i in p) == x.shape)
    found = {order: correlation(x, y.transpose(order)) for order in islice(fitting, _MOST_LAYOUTS)}
    # Axes of one element can stand anywhere: such orders are the same, and the first will do, which moves fewest.
    distinct = {tuple(i for i in order if y.shape[i] > 1): (r, order) for order, r in reversed(found.items())}
    if len(distinct) == 1:
        # Axes of different lengths leave no choice.
        return next(iter(distinct.values()))[1]
    ranked = sorted((pair for pair in distinct.values() if not math.isnan(pair[0])), reverse=True)
    if ranked and ranked[0][0] > LIKELY:
        ahead = ranked[0][0] - ranked[1][0] if len(ranked) > 1 else math.inf
        if ahead > _AHEAD or ranked[0][0] > _CONVINCING:
            return ranked[0][1]
    # A tensor that quantization destroyed follows nothing: it is read as it lies or, where that does not fit, with its
    # channels last, which is what optimizers do of themselves.
    straight, channels_last = tuple(range(y.ndim)), (0, y.ndim - 1, *range(1, y.ndim - 1))
    return next((order for order in (straight, channels_last) if order in found), None)


def arranged(y: NDArray[np.generic], order: Layout, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """The array in the layout that `layout` found."""
    return y.transpose(order) if order else y.reshape(shape)


def lie_alike(x: NDArray[Any], y: NDArray[Any]) -> bool:
    """Return True if y can be compared with x as it lies, so that each could stand in the other's place."""
    alignment = Alignment()
    return alignment.aligned(x, y) is not None and alignment.layout in (None, tuple(range(x.ndim)))


@dataclass
class Alignment:
    """How a tensor lies beside its reference: found in the first batch, then applied to all.

    `layout` is None where both lie alike; `mismatch` says why the two cannot be compared, "" while they can.
    """

    confirmed: bool = False
    layout: Layout | None = None
    mismatch: str = ""

    def aligned(
        self, x: NDArray[Any], y: NDArray[Any], name: str = "", *, doubtful: bool = False
    ) -> NDArray[Any] | None:
        """Return y in the reference's layout; None if it cannot be compared.

        Args:
            x: the reference's tensor.
            y: the quantized model's, values or codes.
            name: what y is called, for a message.
            doubtful: nothing but its place in the graph speaks for the pair: y must follow x.
        """
        if not self.confirmed:
            self._confirm(x, y, name, doubtful)
        if self.layout is not None and x.size == y.size:
            y = arranged(y, self.layout, x.shape)
        if x.shape != y.shape:
            self.mismatch = self.mismatch or f"shapes differ: reference {list(x.shape)}, quantized {list(y.shape)}"
        return None if self.mismatch else y

    def _confirm(self, x: NDArray[Any], y: NDArray[Any], name: str, doubtful: bool) -> None:
        self.confirmed = True
        r = correlation(x, y) if x.shape == y.shape else math.nan
        # Axes of one length hide that they were exchanged: only the values tell.
        if not r > LIKELY:
            self.layout = layout(x, y)
            if self.layout is not None:
                r = correlation(x, arranged(y, self.layout, x.shape))
        if doubtful and r < UNRELATED:
            self.mismatch = f"ambiguous: {name} stands in its place and does not follow it (r={r:.2f})"

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state, for a run file."""
        return {
            "mismatch": np.asarray(self.mismatch),
            "layout": np.asarray([-1] if self.layout is None else self.layout, np.int64),
            "confirmed": np.asarray(self.confirmed),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Alignment:
        """The alignment whose state `arrays` gave."""
        layout = arrays["layout"].tolist()
        return cls(bool(arrays["confirmed"]), None if layout == [-1] else tuple(layout), str(arrays["mismatch"]))
