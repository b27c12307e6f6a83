"""LiteRT's interpreter, with the tensors that shall be seen."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as litert
from numpy.typing import NDArray

from quantscope.backends.litert import division
from quantscope.backends.litert.building import Builder
from quantscope.backends.litert.float_view import Place
from quantscope.backends.litert.outputs import with_outputs
from quantscope.errors import DataError, ModelError, OutputError

OUTPUT_DTYPES = "biufc"
_UNKNOWN_OP = re.compile(r"(?:Select TensorFlow op|unresolved custom op).*Node number \d+ \((.+?)\)", re.DOTALL)


@cache
def _announced() -> None:
    """Let LiteRT say where nobody reads it that it uses XNNPACK: it does so once, amid a command's own lines."""
    builder = Builder()
    builder.op("NEG", [builder.tensor("x", [1])], [builder.tensor("y", [1])])
    standard_error = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        litert.Interpreter(model_content=builder.finished(["x"], ["y"])).allocate_tensors()
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
        os.close(nowhere)


def interpreter(
    content: bytes | None, *, path: Path | None = None, threads: int | None = 0, plain: bool = False
) -> Any:
    """An interpreter of a model, ready to be fed.

    Args:
        content: the model; or
        path: the file it is in.
        threads: 0 means all cores, None LiteRT's own choice.
        plain: LiteRT's own kernels alone, none of XNNPACK's.
    Raises:
        ModelError: LiteRT refuses the model.
    """
    kind = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else litert.OpResolverType.AUTO
    _announced()
    try:
        made = litert.Interpreter(
            model_path=None if path is None else str(path),
            model_content=content,
            num_threads=None if threads is None else threads or os.cpu_count() or 1,
            experimental_op_resolver_type=kind,
        )
        made.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"LiteRT cannot run the model: {_refusal(error)}",
            accepted="a model that ai_edge_litert's Interpreter loads on the CPU, without Flex and custom ops",
            next_step="convert it with built-in ops alone",
        ) from error
    return made


class InterpreterRunner:
    """Runs a model and names what it gives."""

    def __init__(
        self,
        made: Any,
        inputs: Mapping[str, Place],
        exposed: Mapping[str, Place],
        otherwise: Callable[[], InterpreterRunner | None] = lambda: None,
    ) -> None:
        """`inputs` and `exposed` are tensors by the names under which they are fed and given back.

        `otherwise` gives the runner that runs the batches on which this one fails, if there is one.
        """
        self._interpreter = made
        self._details = {d["index"]: d for d in made.get_input_details()}
        self._inputs = inputs
        self._exposed = exposed
        self._otherwise = otherwise
        # An interpreter holds the tensors of one run; whoever traces may ask for the next before this one is read.
        self._running = Lock()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The exposed tensors by name, for one batch, each array the caller's own.

        Raises:
            DataError: an input is missing, or the model fails on these inputs.
        """
        fed = dict(inputs)
        if not set(self._inputs) <= set(fed) and len(fed) == len(self._inputs):
            # Another converter may have called the same inputs otherwise.
            fed = dict(zip(self._inputs, fed.values(), strict=True))
        missing = [name for name in self._inputs if name not in fed]
        if missing:
            raise DataError(f"inputs are missing: {', '.join(missing)}", accepted=", ".join(self._inputs))
        try:
            arrays = {place.tensor: self._codes(fed[name], place) for name, place in self._inputs.items()}
            with self._running:
                read = self._run(arrays)
        except (RuntimeError, ValueError) as error:
            other = self._otherwise()
            if other is not None:
                return other.run(inputs)
            got = ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in inputs.items())
            raise DataError(
                f"the model fails on a batch ({got}): {first_line(error)}",
                accepted=", ".join(
                    f"{n}: {self._details[p.tensor]['shape'].tolist()}" for n, p in self._inputs.items()
                ),
                next_step="check --batch-size and the preprocessing of the samples, then how the model was converted",
            ) from error
        found = {}
        for name, place in self._exposed.items():
            array = read[place.tensor]
            if array is not None and array.dtype.kind in OUTPUT_DTYPES:
                found[name] = array if place.qparams is None else place.qparams.dequantize(array)
        return found

    def _run(self, arrays: Mapping[int, NDArray[Any]]) -> dict[int, NDArray[Any] | None]:
        self._resize(arrays)
        for tensor, array in arrays.items():
            self._interpreter.set_tensor(tensor, array)
        # An LSTM would go on from where the sample before ended.
        self._interpreter.reset_all_variables()
        self._interpreter.invoke()
        return {place.tensor: self._read(place.tensor) for place in self._exposed.values()}

    def _codes(self, array: NDArray[Any], place: Place) -> NDArray[Any]:
        """What the input takes of these values: codes of real ones if it is quantized."""
        wanted = np.dtype(self._details[place.tensor]["dtype"])
        if place.qparams is not None and array.dtype.kind == "f":
            return place.qparams.quantize(array).astype(wanted)
        return np.ascontiguousarray(array, wanted)

    def _resize(self, arrays: Mapping[int, NDArray[Any]]) -> None:
        changed = False
        for tensor, array in arrays.items():
            if tuple(self._details[tensor]["shape"]) != array.shape:
                self._interpreter.resize_tensor_input(tensor, array.shape, strict=False)
                changed = True
        if changed:
            self._interpreter.allocate_tensors()
            self._details = {d["index"]: d for d in self._interpreter.get_input_details()}

    def _read(self, tensor: int) -> NDArray[Any] | None:
        """A copy of a tensor; None for one that this run has no values of, as LiteRT says of some without elements."""
        try:
            values: NDArray[Any] = self._interpreter.get_tensor(tensor)
        except ValueError:
            logging.getLogger(__name__).debug("tensor %d has no values", tensor)
            return None
        return values


@contextmanager
def opened(
    content: bytes,
    inputs: Mapping[str, Place],
    exposed: Mapping[str, Place],
    outputs: Sequence[int],
    *,
    threads: int,
) -> Iterator[InterpreterRunner]:
    """A runner that exposes these tensors, and holds no others longer than the model needs them.

    What is exposed becomes an output of the model: the kernels are those of production, and compute the same bits.

    Args:
        content: the model.
        inputs, exposed: by name.
        outputs: the numbers of the model's outputs.
        threads: 0 means all cores.
    """
    more = {place.tensor for place in exposed.values()} - set(outputs)

    def exposing(content: bytes) -> Any:
        if not more:
            return interpreter(content, threads=threads)
        # LiteRT maps a file, so that the weights are in memory once however many runners are open.
        with _file(with_outputs(content, [*outputs, *sorted(more)])) as path:
            return interpreter(None, path=path, threads=threads)

    otherwise = cache(lambda: dividing_in_float(content, exposing, inputs, exposed))
    yield InterpreterRunner(exposing(content), inputs, exposed, otherwise)


def dividing_in_float(
    content: bytes, made: Callable[[bytes], Any], inputs: Mapping[str, Place], exposed: Mapping[str, Place]
) -> InterpreterRunner | None:
    """A runner of the model with its integer divisions in float; None if it has none that can fail.

    Args:
        content: the model.
        made: makes an interpreter.
        inputs, exposed: by name.
    """
    changed = division.in_float(content)
    return None if changed is content else InterpreterRunner(made(changed), inputs, exposed)


@contextmanager
def _file(parts: Iterable[bytes | memoryview]) -> Iterator[Path]:
    """A file with this content, which has no name any more afterwards, and is gone when nobody maps it.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        file = NamedTemporaryFile(prefix="quantscope-", suffix=".tflite")  # noqa: SIM115 - only writing may fail
        file.writelines(parts)
        file.flush()
    except OSError as error:
        raise OutputError(
            f"cannot write a temporary file: {error.strerror or error}",
            accepted="a folder with room for the model",
            next_step="name one in the variable TMPDIR",
        ) from error
    with file:
        yield Path(file.name)


def _refusal(error: BaseException) -> str:
    """Why LiteRT refuses a model: by the op's name, if that is one of TensorFlow's or of somebody's own."""
    unknown = _UNKNOWN_OP.search(str(error))
    return f"it does not have the op {unknown[1]}" if unknown else first_line(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
