"""The converted model against the framework: the same inputs must give the same outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from quantscope.backends.tensorflow.converter.frozen import Frozen, Port, first_line, with_batch
from quantscope.errors import ModelError

# Of the largest value of an output: sums in another order differ by some 1e-6 of it, a wrong op by far more.
_TOLERANCE = 1e-3
# What is tried for sizes that the model leaves open, until the framework takes one.
_OPEN_SIZES = (32, 128, 224, 1)
# Images and token numbers want large values, most others small ones.
_SPREADS = (1.0, 100.0)


def verified(content: bytes, frozen: Frozen, source: Path) -> list[str]:
    """Notes about what could not be verified; none if all outputs are as the framework computes them.

    Raises:
        ModelError: an output differs by more than 0.1 % of its largest value, or the model does not run.
    """
    rng = np.random.default_rng(0)
    compared = 0
    for spread in _SPREADS:
        found = _expected(frozen, spread, rng)
        if found is None:
            continue
        inputs, expected = found
        try:
            answers = _answers(content, frozen, inputs)
        except Exception as error:  # LiteRT raises errors of several kinds.
            raise ModelError(
                f"{source} was converted, and LiteRT cannot run the result: {first_line(error)}",
                accepted="a model that TensorFlow's converter handles",
                next_step="save the part of the model without the op that is named, or another in its place",
            ) from error
        for port, wanted, got in zip(frozen.outputs, expected, answers, strict=True):
            _compare(port.name, np.asarray(wanted), got, source)
        compared += 1
    if compared:
        return []
    return ["the conversion could not be verified: TensorFlow itself takes none of the random inputs that were tried"]


def _expected(
    frozen: Frozen, spread: float, rng: np.random.Generator
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]] | None:
    """Random inputs with the outputs that the framework computes; None if it takes none of any size."""
    for open_size in _OPEN_SIZES:
        inputs = [_random(port, open_size, spread, rng) for port in frozen.inputs]
        try:
            return inputs, frozen.run(inputs)
        except Exception:  # The framework's own reasons: a size that does not fit, a number beyond a table's end.
            if all(None not in with_batch(port.shape or ()) for port in frozen.inputs):
                return None
    return None


def _random(port: Port, open_size: int, spread: float, rng: np.random.Generator) -> NDArray[Any]:
    shape = [open_size if size is None else size for size in with_batch(port.shape or ())]
    dtype = port.dtype.as_numpy_dtype
    if port.dtype.is_floating:
        return np.asarray(spread * rng.standard_normal(shape)).astype(dtype)
    # Numbers of tokens and the like: the first few of any table.
    highest = 1 if port.dtype.is_bool or spread == 1 else 100
    return np.asarray(rng.integers(0, highest + 1, shape)).astype(dtype)


def _answers(content: bytes, frozen: Frozen, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    interpreter = Interpreter(model_content=content)
    (name,) = interpreter.get_signature_list()
    runner = interpreter.get_signature_runner(name)
    found = runner(**{port.name: array for port, array in zip(frozen.inputs, inputs, strict=True)})
    return [found[port.name] for port in frozen.outputs]


def _compare(name: str, wanted: NDArray[Any], got: NDArray[Any], source: Path) -> None:
    if wanted.shape != got.shape:
        raise _different(name, f"has the shape {list(got.shape)} instead of {list(wanted.shape)}", source)
    left, right = wanted.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(left) & np.isfinite(right)
    # Infinities and NaN have to be in the same places.
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        raise _different(name, "is not finite at other places", source)
    if not finite.any():
        return
    largest = float(np.abs(left[finite]).max())
    off = float(np.abs(left[finite] - right[finite]).max())
    if off > _TOLERANCE * max(largest, 1e-3):
        raise _different(name, f"differs by {off:.3g}, its largest value being {largest:.3g}", source)


def _different(name: str, how: str, source: Path) -> ModelError:
    return ModelError(
        f"{source} was converted to a model that computes something else: the output {name} {how}",
        accepted="a model that gives the same output for the same input",
        next_step="leave out what is random or remembers earlier inputs",
    )
