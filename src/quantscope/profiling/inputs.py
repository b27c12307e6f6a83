"""What a model is fed while it is timed: the user's samples, or values made up for its inputs' shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.errors import DataError
from quantscope.graph import Tensor
from quantscope.samples import Samples

Inputs = dict[str, NDArray[Any]]
_SEVERAL = 32


@dataclass(frozen=True)
class InputSource:
    """Gives a batch of any size for a model's inputs.

    `shapes` says by input what the model leaves open, batch axis included; it is not used with `samples`.
    """

    inputs: Sequence[Tensor]
    samples: Samples | None = None
    shapes: Mapping[str, tuple[int, ...]] | None = None

    @property
    def description(self) -> str:
        """One line for reports."""
        if self.samples is not None:
            return self.samples.description
        return ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in self.batch(None).items())

    def sizes(self, wanted: Sequence[int] | None) -> tuple[int, ...]:
        """The batch sizes to time: what the model fixes, or what is wanted, or 1.

        Raises:
            DataError: the model fixes another one, or one is below 1.
        """
        fixed = {t.shape[0] for t in self.inputs if t.shape and isinstance(t.shape[0], int) and t.shape[0] > 0}
        for size in wanted or ():
            if size < 1 or (fixed and fixed != {size}):
                raise DataError(
                    f"batch size {size}",
                    accepted=f"{', '.join(map(str, sorted(fixed)))}, which the model's inputs fix"
                    if fixed
                    else "1 or more",
                )
        return tuple(dict.fromkeys(wanted or sorted(fixed)[:1] or (1,)))

    def batch(self, size: int | None) -> Inputs:
        """So many samples; samples are repeated where there are fewer.

        Raises:
            DataError: a shape is not known, or the samples do not fit.
        """
        if self.samples is None:
            return {tensor.name: _made_up(tensor, self._shape(tensor, size)) for tensor in self.inputs}
        wanted = size or 1
        first = next(self.samples.batches(wanted)).inputs
        repeats = {name: -(-wanted // len(array)) for name, array in first.items()}
        return {
            name: np.ascontiguousarray(np.concatenate([array] * repeats[name])[:wanted])
            for name, array in first.items()
        }

    def several(self, size: int) -> Iterator[Inputs]:
        """Batches of this size, of at most 32 samples in all; one batch where values are made up."""
        if self.samples is None:
            yield self.batch(size)
            return
        for batch in self.samples.batches(size, stop=max(size, _SEVERAL // size * size)):
            yield batch.inputs

    def _shape(self, tensor: Tensor, size: int | None) -> tuple[int, ...]:
        given = (self.shapes or {}).get(tensor.name)
        known = [d if isinstance(d, int) and d > 0 else None for d in tensor.shape or ()]
        if given is not None:
            if tensor.shape is not None and (
                len(given) != len(known) or any(k is not None and k != g for k, g in zip(known, given, strict=True))
            ):
                raise DataError(f"shape {_text(given)} for input {tensor.name}", accepted=_text(tensor.shape))
            return (size or given[0], *given[1:]) if known and known[0] is None else given
        if tensor.shape is None or any(d is None for d in known[1:]):
            raise DataError(
                f"input {tensor.name} has the shape {_text(tensor.shape)}, which leaves sizes open",
                accepted="samples with --data, or the sizes with --shape",
                next_step=f"for example --shape {tensor.name}={_example(tensor)}",
            )
        return tuple(d if d is not None else size or 1 for d in known)


def check_shapes(shapes: Mapping[str, tuple[int, ...]], inputs: Sequence[Tensor]) -> None:
    """Raise a DataError if a shape is given for what is no input."""
    names = [tensor.name for tensor in inputs]
    for name in shapes:
        if name not in names:
            raise DataError(f"--shape is given for {name}, which is no input", accepted=", ".join(names))


def for_other(inputs: Inputs, own: Sequence[Tensor], others: Sequence[Tensor]) -> Inputs:
    """The same values for another model's inputs: by name, by position where names differ, in its types.

    Raises:
        DataError: the other model has another number of inputs.
    """
    if len(own) != len(others):
        raise DataError(
            f"the quantized model has {len(others)} inputs, the reference {len(own)}",
            accepted="two models with the same inputs",
        )
    alike = {tensor.name for tensor in others} == set(inputs)
    renamed = {}
    for mine, other in zip(own, others, strict=True):
        values = inputs[other.name if alike else mine.name]
        renamed[other.name] = values.astype(other.dtype) if other.dtype and str(values.dtype) != other.dtype else values
    return renamed


def _made_up(tensor: Tensor, shape: tuple[int, ...]) -> NDArray[Any]:
    """Normal noise where values are real; ones, which are tokens and masks as well, where they are whole numbers."""
    dtype = np.dtype(tensor.dtype or "float32")
    if dtype.kind == "f":
        return np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return np.ones(shape, dtype)


def _text(shape: Sequence[object] | None) -> str:
    return "unknown" if shape is None else "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def _example(tensor: Tensor) -> str:
    if tensor.shape is None:
        return "1,3,224,224"
    sizes = {2: 128} if len(tensor.shape) < 3 else {}
    return ",".join(
        str(d if isinstance(d, int) and d > 0 else 1 if axis == 0 else sizes.get(len(tensor.shape), 224))
        for axis, d in enumerate(tensor.shape)
    )
