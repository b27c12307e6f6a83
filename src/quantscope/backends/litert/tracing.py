"""Which tensors of a model are seen in which trace, and the model as production runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from quantscope.backends.base import Trace
from quantscope.backends.litert import interpreters, schema
from quantscope.backends.litert.float_view import Place
from quantscope.backends.litert.handle import Handle
from quantscope.backends.litert.interpreters import InterpreterRunner
from quantscope.errors import UnsupportedError
from quantscope.qparams import QParams, QuantSpec


@contextmanager
def opened(handle: Handle, tensors: Sequence[str], trace: Trace, *, threads: int) -> Iterator[InterpreterRunner]:
    """A runner that exposes these tensors and the model's outputs.

    LiteRT writes no other graph for itself, and what is exposed changes no kernel: all traces but the simulated one
    are the model as it is.

    Raises:
        UnsupportedError: a tensor is not there.
    """
    content, runnable = handle.runnable(trace)
    structure = handle.structure
    exposed: dict[str, Place] = {}
    for i in structure.outputs:
        exposed[structure.names[i]] = runnable.reading.place(structure.real_name(i)) or Place(i)
    for name in tensors:
        place = runnable.reading.place(name)
        if place is None:
            raise UnsupportedError(f"the model has no tensor {name!r} in the trace {trace!r}")
        exposed[name] = place
    outputs = schema.indices(runnable.table.subgraphs[0].outputs)
    with interpreters.opened(content, runnable.inputs, exposed, outputs, threads=threads) as runner:
        yield runner


@contextmanager
def deployment(
    path: Path | None, handle: Handle | None, *, threads: int, optimized: bool
) -> Iterator[InterpreterRunner]:
    """A runner of a model as whoever deploys it has it.

    Args:
        path: the file it is loaded from; that of `handle` where that is a file.
        handle: None for a model of which nothing but the file is known: reading its tables would take time and memory
            that production does not take.
        threads: 0 means LiteRT's own choice.
        optimized: False for LiteRT's own kernels alone, without XNNPACK.
    """
    opened = partial(interpreters.interpreter, threads=threads or None, plain=not optimized)
    content = handle.model.content if handle is not None and path is None else None
    made = opened(content, path=path)
    inputs, outputs = _ends(made) if handle is None else (handle.written.inputs, _outputs(handle))

    @cache
    def otherwise() -> InterpreterRunner | None:
        whole = path.read_bytes() if path is not None else content or b""
        return interpreters.dividing_in_float(whole, opened, inputs, outputs)

    yield InterpreterRunner(made, inputs, outputs, otherwise)


def _outputs(handle: Handle) -> dict[str, Place]:
    structure = handle.structure
    return {
        structure.names[i]: Place(i, structure.constants.qparams(i) if structure.is_codes(i) else None)
        for i in structure.outputs
    }


def _ends(made: Any) -> tuple[Mapping[str, Place], Mapping[str, Place]]:
    """Inputs and outputs as the interpreter tells of them, by the names of the signature."""
    signatures = made.get_signature_list()
    if signatures:
        runner = made.get_signature_runner(next(iter(signatures)))
        details = [runner.get_input_details(), runner.get_output_details()]
    else:
        details = [{d["name"]: d for d in found} for found in (made.get_input_details(), made.get_output_details())]
    inputs, outputs = ({name: _place(detail) for name, detail in found.items()} for found in details)
    return inputs, outputs


def _place(detail: Mapping[str, Any]) -> Place:
    parameters, dtype = detail["quantization_parameters"], np.dtype(detail["dtype"])
    if dtype.kind not in "iu" or len(parameters["scales"]) != 1:
        return Place(detail["index"])
    scale, zero_point = (np.asarray(parameters[key]).reshape(()) for key in ("scales", "zero_points"))
    return Place(detail["index"], QParams(scale, zero_point.astype(np.int64), QuantSpec.from_dtype(dtype.name)))
