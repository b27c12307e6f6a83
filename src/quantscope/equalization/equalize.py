"""Scales the channels of tensors so that the weights before and behind them have like ranges, channel by channel.

The model computes what it did. Where a tensor or a weight has one scale for all channels, small ones no longer share it
with large ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from quantscope.equalization.factors import equalizing
from quantscope.equalization.record import Record, Rescaling
from quantscope.equalization.regions import Layout, Region, Use, regions


class Draft(Protocol):
    """A copy of a model whose constants are on their way to being scaled."""

    def own(self, uses: Sequence[Use]) -> dict[Use, str]:
        """The name of the constant at each operand; one that others read too gets a copy, which the op reads now."""
        ...

    def read(self, constant: str) -> NDArray[Any]:
        """The values of a constant, an array of the caller's own or one not to be changed."""
        ...

    def write(self, constant: str, values: NDArray[Any]) -> None:
        """Replace the values of a constant."""
        ...

    def remember(self, record: str) -> None:
        """Put the record into the model, in the place of one that is there."""
        ...


D = TypeVar("D", bound=Draft)


def equalize(layout: Layout, draft: Callable[[], D]) -> tuple[D | None, tuple[str, ...]]:
    """Return the model with its channels equalized and the record of it, None if there are none; and notes.

    Args:
        layout: of the model.
        draft: makes a copy of it.
    """
    found, left = regions(layout)
    notes = [f"not equalized, since something needs channels as they are: {_counts(left)}"] if left else []
    if not found:
        return None, (*notes, "equalization found no tensor whose channels can be scaled")
    made = draft()
    names = made.own([use for region in found for use in (*region.written, *region.read)])
    record = Record(
        tuple(
            Rescaling(
                factors.astype(np.float32),
                region.tensors,
                {names[use]: axis for use, axis in region.written.items()},
                {names[use]: axis for use, axis in region.read.items()},
            )
            for region, factors in zip(found, equalizing(found, names, made.read), strict=True)
        )
    )
    for name in record.constants:
        made.write(name, record.scaled(name, made.read(name)))
    made.remember(record.text())
    return made, (_where(found), *notes)


def _where(found: Sequence[Region]) -> str:
    first = found[0]
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"equalized channels: those between {first.weight[0]!r} and {next(iter(first.read))[0]!r}{more}"


def _counts(left: Counter[str]) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in left.most_common())
