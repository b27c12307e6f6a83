"""Which tensors of a model are seen in which trace, and the model as production runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from quantscope.backends.base import Trace
from quantscope.backends.litert import files, interpreters, schema
from quantscope.backends.litert.float_view import Place
from quantscope.backends.litert.handle import Handle
from quantscope.backends.litert.interpreters import InterpreterRunner
from quantscope.errors import UnsupportedError


@contextmanager
def opened(handle: Handle, tensors: Sequence[str], trace: Trace, *, threads: int) -> Iterator[InterpreterRunner]:
    """A runner that exposes these tensors and the model's outputs.

    Every tensor can be kept while the production kernels run, one op at a time: LiteRT writes no other graph for
    itself, so that all traces but the simulated one are the model as it is.

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
def deployment(model: Handle | Path, *, threads: int) -> Iterator[InterpreterRunner]:
    """A runner of the model, or of the one in a file, as whoever deploys it has it."""
    handle = Handle(files.read(model)) if isinstance(model, Path) else model
    structure = handle.structure
    places = {
        structure.names[i]: Place(i, structure.constants.qparams(i) if structure.is_codes(i) else None)
        for i in structure.outputs
    }
    made = interpreters.interpreter(
        None if isinstance(model, Path) else handle.model.content,
        path=model if isinstance(model, Path) else None,
        threads=threads or None,
    )
    yield InterpreterRunner(made, handle.written.inputs, places)
