"""A model cut at some of its tensors: each is fed from outside, and what the op before it computed comes out.

The op writes another tensor, and its own becomes an input of the graph. So whatever reads the tensor reads what is fed,
and quantizes it as the model does.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.litert import interpreters, schema
from quantscope.backends.litert.float_view import Place
from quantscope.backends.litert.interpreters import InterpreterRunner
from quantscope.backends.litert.simulation import Runnable, add_constant
from quantscope.backends.litert.structure import Structure
from quantscope.equalization import FormerUnit, Record
from quantscope.errors import UnsupportedError

Absorbed = Mapping[str, tuple[Structure, str]]
"""By output the reference, and its op to apply to what comes out."""


@contextmanager
def opened(
    runnable: Runnable,
    tensors: Sequence[str],
    outputs: Sequence[str],
    absorbed: Absorbed,
    constants: Mapping[tuple[str, str], NDArray[Any]],
    record: Record,
    *,
    threads: int,
) -> Iterator[FormerUnit]:
    """A runner of the model cut at these tensors; see `quantscope.backends.base.Backend.open_cut`.

    `record` is what equalization did to the model: tensors and constants are in the unit from before.

    Raises:
        UnsupportedError: a tensor is not computed by an op, or an operand in `constants` is not a float one.
    """
    cut = _Cut(runnable, tensors)
    for (op, tensor), values in constants.items():
        cut.replace_constant(op, tensor, record.scaled(tensor, values))
    for name in outputs:
        if name in absorbed:
            cut.apply_activation(name, *absorbed[name])
    content, fed, computed = cut.finished(outputs)
    made = interpreters.interpreter(content, threads=threads)
    yield FormerUnit(tuple(fed), InterpreterRunner(made, fed, computed).run, record.tensors)


class _Cut:
    """A model on its way to being cut; the tables it shares with the model are copied before they change."""

    def __init__(self, runnable: Runnable, tensors: Sequence[str]) -> None:
        self._runnable = runnable
        self._table = copy.copy(runnable.table)
        self._graph = copy.copy(runnable.table.subgraphs[0])
        self._table.subgraphs = [self._graph, *runnable.table.subgraphs[1:]]
        self._table.buffers = list(runnable.table.buffers)
        self._table.operatorCodes = list(runnable.table.operatorCodes)
        self._graph.tensors = list(self._graph.tensors)
        self._ops = list(self._graph.operators)
        self._fed: dict[str, int] = {}
        self._computed: dict[str, int] = {}
        renamed: dict[int, int] = {}
        for name in dict.fromkeys(tensors):
            if name in runnable.reading.written:
                number = runnable.reading.written[name]
                self._fed[name] = number
                self._computed[name] = renamed[number] = self._copied(number)
            elif name not in runnable.inputs:
                raise UnsupportedError(f"cannot cut the model at {name!r}: no op computes it")
        for position, op in enumerate(self._ops):
            written = schema.indices(op.outputs)
            if any(i in renamed for i in written):
                changed = copy.copy(op)
                changed.outputs = np.array([renamed.get(i, i) for i in written], np.int32)
                self._ops[position] = changed

    def _copied(self, tensor: int) -> int:
        made = copy.copy(self._graph.tensors[tensor])
        made.name = f"{schema.text(made.name)}/cut"
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def replace_constant(self, op: str, tensor: str, values: NDArray[Any]) -> None:
        """Let an op compute with these values in the place of a constant.

        Raises:
            UnsupportedError: it is not a float operand of the op.
        """
        place, at = self._runnable.constants.get((op, tensor)), self._runnable.ops.get(op)
        if place is None or at is None:
            raise UnsupportedError(f"cannot replace {tensor!r}: no op {op!r} of the model computes with it")
        inputs = schema.indices(self._ops[at].inputs)
        if int(self._graph.tensors[inputs[place]].type) != schema.tables.TensorType.FLOAT32:
            raise UnsupportedError(
                f"cannot replace {tensor!r} of the op {op!r}: it is not a float operand",
                accepted="a weight or bias that the op reads in float",
            )
        inputs[place] = add_constant(self._table, f"{tensor}/replaced", values)
        changed = copy.copy(self._ops[at])
        changed.inputs = np.array(inputs, np.int32)
        self._ops[at] = changed

    def apply_activation(self, name: str, reference: Structure, op: str) -> None:
        """Let what comes out at a cut go through an activation of the reference.

        Raises:
            UnsupportedError: the op computes with more than one tensor that is not constant.
        """
        if name not in self._computed:
            raise UnsupportedError(f"the model is not cut at {name!r}")
        if op not in reference.op_names:
            raise UnsupportedError(f"the reference has no op {op!r}")
        position = reference.op_names.index(op)
        activation = copy.copy(reference.operators[position])
        read = schema.indices(activation.inputs)
        data = [i for i in read if i >= 0 and reference.root[i] not in reference.constants]
        if len(data) != 1 or len(schema.indices(activation.outputs)) != 1:
            raise UnsupportedError(
                f"the op {op!r} ({reference.native[position]}) cannot be applied to an output: "
                f"it has {len(data)} inputs",
                accepted="an op with one input that is not constant",
            )
        source = self._computed[name]
        operands = []
        for i in read:
            if i < 0 or i in data:
                operands.append(source if i in data else i)
            else:
                values = reference.constants.real(reference.root[i])
                operands.append(add_constant(self._table, f"{op}/{i}", values))
        code = reference.table.operatorCodes[activation.opcodeIndex]
        self._computed[name] = self._copied(source)
        activation.opcodeIndex = schema.op_code(self._table, schema.builtin(code), int(code.version))
        activation.inputs = np.array(operands, np.int32)
        activation.outputs = np.array([self._computed[name]], np.int32)
        self._ops.append(activation)

    def finished(self, outputs: Sequence[str]) -> tuple[bytes, dict[str, Place], dict[str, Place]]:
        """The cut model; by name what to feed into which of its tensors, and which of them is what."""
        unknown = [name for name in outputs if name not in self._computed]
        if unknown:
            raise UnsupportedError(f"the model is not cut at {', '.join(map(repr, unknown))}")
        results = {name: self._computed[name] for name in outputs}
        given = {name: place.tensor for name, place in self._runnable.inputs.items()} | self._fed
        content, numbers = extracted(self._table, self._ops, given.values(), list(results.values()))
        fed = {name: Place(numbers[i]) for name, i in given.items() if i in numbers}
        return content, fed, {name: Place(numbers[i]) for name, i in results.items()}


def extracted(table: Any, ops: Sequence[Any], inputs: Any, outputs: Sequence[int]) -> tuple[bytes, dict[int, int]]:
    """A model of those of the ops that the outputs need, back to the inputs; and the new numbers of its tensors.

    Args:
        table: the model that the ops are from.
        ops: in execution order.
        inputs: numbers of tensors to feed; those that are not needed have no new number.
        outputs: numbers of tensors.
    """
    stops, producers = set(inputs), {i: at for at, op in enumerate(ops) for i in schema.indices(op.outputs)}
    kept: set[int] = set()
    needed: dict[int, None] = {}
    waiting = list(outputs)
    while waiting:
        i = waiting.pop()
        if i < 0 or i in needed:
            continue
        needed[i] = None
        at = producers.get(i)
        if i not in stops and at is not None and at not in kept:
            kept.add(at)
            read = ops[at]
            waiting += [*schema.indices(read.inputs), *schema.indices(read.intermediates)]
            needed |= dict.fromkeys(schema.indices(read.outputs))
    numbers = {old: new for new, old in enumerate(sorted(needed))}
    graph = copy.copy(table.subgraphs[0])
    graph.tensors = [copy.copy(graph.tensors[old]) for old in numbers]
    graph.operators = []
    for at in sorted(kept):
        op = copy.copy(ops[at])
        for key in ("inputs", "outputs", "intermediates"):
            values = getattr(op, key)
            if values is not None:
                setattr(op, key, np.array([numbers.get(int(i), -1) for i in values], np.int32))
        graph.operators.append(op)
    graph.inputs = np.array([numbers[i] for i in dict.fromkeys(inputs) if i in numbers], np.int32)
    graph.outputs = np.array([numbers[i] for i in dict.fromkeys(outputs)], np.int32)
    made = copy.copy(table)
    made.subgraphs = [graph, *table.subgraphs[1:]]
    made.signatureDefs = made.metadata = made.metadataBuffer = None
    if len(made.subgraphs) == 1:
        # The first buffer is the empty one.
        used = {0: 0}
        for tensor in graph.tensors:
            tensor.buffer = used.setdefault(int(tensor.buffer), len(used))
        made.buffers = [table.buffers[old] for old in used]
    return schema.packed(made), numbers
