"""Times of the ops, each as a model of its own, run one after the other on what the ops before it computed.

LiteRT tells Python nothing of its ops' times. But XNNPACK, which runs most of them, hands one op after the other to a
kernel and fuses next to nothing, so that an op alone has the kernel that it has in the model. What that leaves out, and
what fusion there is, shows in the difference to the model's latency, which is measured beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.base import Kernel, KernelRole
from quantscope.backends.litert import division, interpreters, schema
from quantscope.backends.litert.building import Builder
from quantscope.backends.litert.cut import extracted
from quantscope.backends.litert.handle import Handle
from quantscope.backends.litert.structure import DEQUANTIZE, QUANTIZE, Structure
from quantscope.errors import DataError, ModelError, UnsupportedError

_ROLES: Mapping[str, KernelRole] = {QUANTIZE: "quantize", DEQUANTIZE: "dequantize"}
_CALLS = 200
# XNNPACK's threads look for more work so long before they sleep, and would take the next op's cores.
_AWAKE_SECONDS = 0.003


@dataclass(eq=False)
class _Alone:
    """One op as a model: its position, its interpreter, and its tensors in the whole model and here."""

    position: int
    content: bytes
    made: Any
    inputs: Mapping[int, int]
    outputs: Mapping[int, int]
    constant_bytes: int
    delegated: bool
    has_state: bool


class Profiler:
    """Runs a model op by op; see `quantscope.backends.base.Profiler`."""

    def __init__(self, handle: Handle, threads: int, optimized: bool) -> None:
        self._structure = handle.structure
        self._places = handle.written.inputs
        self._threads = threads
        self._optimized = optimized
        self._ops = _alone(handle, threads, optimized)
        self._pause = _AWAKE_SECONDS if threads > 1 else 0.0
        self._call_us = _call_us(threads, optimized)
        self._last = _last_reads(self._ops)
        self._runs: list[list[float]] = []
        self._shapes: dict[int, NDArray[Any]] = {}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The model's outputs by name.

        Raises:
            DataError: an op fails on these inputs.
        """
        given = inputs if set(self._places) <= set(inputs) else dict(zip(self._places, inputs.values(), strict=True))
        values: dict[int, NDArray[Any]] = {}
        for name, place in self._places.items():
            array = given[name]
            if place.qparams is not None and array.dtype.kind == "f":
                array = place.qparams.quantize(array).astype(place.qparams.spec.dtype)
            values[place.tensor] = array
        kept = set(self._structure.outputs)
        times = []
        for number, op in enumerate(self._ops):
            times.append(self._timed(op, values))
            for tensor in self._last[number]:
                if tensor not in kept:
                    values.pop(tensor, None)
        self._runs.append(times)
        found = {}
        for tensor in self._structure.outputs:
            qparams = self._structure.constants.qparams(tensor) if self._structure.is_codes(tensor) else None
            array = values[tensor]
            found[self._structure.names[tensor]] = array if qparams is None else qparams.dequantize(array)
        return found

    def _timed(self, op: _Alone, values: dict[int, NDArray[Any]]) -> float:
        """Run one op; its time in µs."""
        try:
            _feed(op, values)
            if self._pause:
                time.sleep(self._pause)
                if not op.has_state:
                    # In the model the threads are awake when an op begins.
                    op.made.invoke()
            began = time.perf_counter()
            op.made.invoke()
            took = time.perf_counter() - began
            for tensor, number in op.outputs.items():
                values[tensor] = op.made.get_tensor(number)
        except (RuntimeError, ValueError) as error:
            # From here on, also where it would not fail: the times of one op are of one kernel.
            changed = division.in_float(op.content)
            if changed is not op.content:
                op.content = changed
                op.made = interpreters.interpreter(changed, threads=self._threads or None, plain=not self._optimized)
                return self._timed(op, values)
            name = self._structure.op_names[op.position]
            raise DataError(
                f"the op {name!r} fails on a batch: {interpreters.first_line(error)}",
                accepted="samples that the model takes",
            ) from error
        for tensor in (*op.inputs, *op.outputs):
            # Shape and type are what is told of it in the end.
            self._shapes.setdefault(tensor, np.broadcast_to(np.empty((), values[tensor].dtype), values[tensor].shape))
        return max(took * 1e6 - self._call_us, 0.0)

    def finish(self, warm_up: int = 0) -> tuple[float, list[Kernel]]:
        """The time of a run in µs, and the kernels in the order they ran: means over the faster half of the runs.

        Args:
            warm_up: how many of the first runs do not count.
        """
        by_time = sorted(self._runs[warm_up:], key=sum)
        half = np.array(by_time[: math.ceil(len(by_time) / 2)])
        means = half.mean(0) if half.size else np.zeros(len(self._ops))
        return float(means.sum()), [self._kernel(op, float(us)) for op, us in zip(self._ops, means, strict=True)]

    def _kernel(self, op: _Alone, us: float) -> Kernel:
        structure = self._structure
        native, name = structure.native[op.position], structure.op_names[op.position]
        role = _ROLES.get(native, "compute")
        arrays = [[self._shapes[i] for i in tensors if i in self._shapes] for tensors in (op.inputs, op.outputs)]
        return Kernel(
            name,
            native if op.delegated or not self._optimized else f"{native} (not XNNPACK's)",
            role,
            us,
            ops=(name,) if role == "compute" else _served(structure, op.position),
            inputs=tuple(map(_text, arrays[0])),
            outputs=tuple(map(_text, arrays[1])),
            bytes_moved=sum(array.size * array.dtype.itemsize for array in (*arrays[0], *arrays[1]))
            + op.constant_bytes,
        )


def _text(array: NDArray[Any]) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _served(structure: Structure, position: int) -> tuple[str, ...]:
    """The op that a conversion is there for: the one that reads what it writes, else the one before it."""
    op = structure.operators[position]
    written, read = int(op.outputs[0]), int(op.inputs[0])
    for at, other in enumerate(structure.operators):
        if written in schema.indices(other.inputs) and structure.native[at] not in _ROLES:
            return (structure.op_names[at],)
    for at, other in enumerate(structure.operators):
        if read in schema.indices(other.outputs) and structure.native[at] not in _ROLES:
            return (structure.op_names[at],)
    return ()


def _feed(op: _Alone, values: Mapping[int, NDArray[Any]]) -> None:
    resized = False
    details = {d["index"]: d for d in op.made.get_input_details()}
    for tensor, number in op.inputs.items():
        if tuple(details[number]["shape"]) != values[tensor].shape:
            op.made.resize_tensor_input(number, values[tensor].shape, strict=False)
            resized = True
    if resized:
        op.made.allocate_tensors()
    for tensor, number in op.inputs.items():
        op.made.set_tensor(number, values[tensor])
    op.made.reset_all_variables()


def _alone(handle: Handle, threads: int, optimized: bool) -> list[_Alone]:
    """Each op as a model of its own; weights that are dequantized are so within it, where XNNPACK does it once.

    Raises:
        UnsupportedError: an op cannot run by itself.
    """
    structure, table = handle.structure, handle.written.table
    unpacking = [
        op
        for native, op in zip(structure.native, structure.operators, strict=True)
        if native == DEQUANTIZE and structure.root[int(op.outputs[0])] in structure.constants
    ]
    found = []
    for position, op in enumerate(structure.operators):
        if any(op is other for other in unpacking):
            continue
        read = [i for i in schema.indices(op.inputs) if i >= 0 and structure.root[i] not in structure.constants]
        fed = [i for i in dict.fromkeys(read) if not structure.tensors[i].isVariable]
        written = schema.indices(op.outputs)
        content, numbers = extracted(table, [*unpacking, op], fed, written)
        try:
            made = interpreters.interpreter(content, threads=threads or None, plain=not optimized)
        except ModelError as error:
            raise UnsupportedError(
                f"the op {structure.op_names[position]!r} ({structure.native[position]}) cannot be timed by itself",
                accepted="a model whose ops need no state and no graph of their own",
                next_step="see docs/frameworks.md for what can be profiled",
            ) from error
        stored = {structure.root[i] for i in schema.indices(op.inputs) if i >= 0 and i not in read}
        found.append(
            _Alone(
                position,
                content,
                made,
                {i: numbers[i] for i in fed},
                {i: numbers[i] for i in written},
                sum(
                    len(table.buffers[int(structure.tensors[i].buffer)].data)
                    for i in stored
                    if i in structure.constants
                ),
                any(d["op_name"] == "DELEGATE" for d in made._get_ops_details()),
                any(structure.tensors[i].isVariable for i in read),
            )
        )
    return found


def _last_reads(ops: Sequence[_Alone]) -> list[list[int]]:
    """By number of an op the tensors that no op behind it reads."""
    last = {tensor: number for number, op in enumerate(ops) for tensor in (*op.outputs, *op.inputs)}
    found: list[list[int]] = [[] for _ in ops]
    for tensor, number in last.items():
        found[number].append(tensor)
    return found


def _call_us(threads: int, optimized: bool) -> float:
    """What a call of an interpreter takes in µs that has next to nothing to do."""
    builder = Builder()
    builder.tensor("x", [1])
    builder.tensor("y", [1])
    builder.op("NEG", ["x"], ["y"])
    content = builder.finished(["x"], ["y"])
    made = interpreters.interpreter(content, threads=threads or None, plain=not optimized)
    times = []
    for _ in range(_CALLS):
        began = time.perf_counter()
        made.invoke()
        times.append(time.perf_counter() - began)
    return float(np.median(times)) * 1e6


@contextmanager
def profiled(handle: Handle, *, threads: int, optimized: bool) -> Iterator[Profiler]:
    """A profiler of the model; 0 threads means LiteRT's own choice, not `optimized` its own kernels alone."""
    yield Profiler(handle, threads, optimized)
