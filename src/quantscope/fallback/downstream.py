"""A model whose part behind some of its tensors can be computed again, with other values in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

from quantscope.backends.base import Backend, CutRunner, Model, Trace
from quantscope.graph import Graph
from quantscope.tracing import Values

Rerun = Callable[[Values, Values], Values]
"""(values by the reference's tensor names, the model's inputs) → those of the model's outputs that change."""


class Downstream:
    """One model, and the tensors that it can be cut at."""

    def __init__(self, backend: Backend, model: Model, trace: Trace, names: Mapping[str, str], threads: int) -> None:
        """`names` are the tensors that the model can be cut at: reference's name → this model's."""
        self._backend = backend
        self._model = model
        self._trace: Trace = trace
        self._names = names
        self._threads = threads
        self._graph: Graph = model.graph if trace == "exact" else backend.float_view(model, trace).graph
        self._outputs = [t.name for t in self._graph.outputs if t.dtype.startswith("float")]

    @contextmanager
    def of(self, tensors: tuple[str, ...]) -> Iterator[Rerun | None]:
        """What computes the outputs behind these tensors again; None if none lies behind them.

        The values of `tensors` are what they shall be; of others those that lie beside them are used.
        """
        own = {self._names[tensor]: tensor for tensor in tensors}
        behind = self._behind(own)
        given = {view: tensor for view, tensor in own.items() if view in self._outputs}
        outputs = [name for name in self._outputs if name in behind and name not in own]
        if not outputs:
            yield (lambda values, inputs: {view: values[t] for view, t in given.items()}) if given else None
            return
        beside = {view: name for name, view in self._names.items() if view not in behind or view in own}
        with ExitStack() as stack:
            runners = [
                stack.enter_context(self._cut([*beside, *read], wanted)) for read, wanted in self._steps(outputs)
            ]

            def rerun(values: Values, inputs: Values) -> Values:
                found = {view: values[t] for view, t in given.items()}
                known = {**inputs, **{view: values[name] for view, name in beside.items() if name in values}}
                for runner in runners:
                    made = runner.run({name: known[name] for name in runner.inputs})
                    known |= made
                    found |= made
                return found

            yield rerun

    def _steps(self, outputs: list[str]) -> Iterator[tuple[list[str], list[str]]]:
        """The outputs in the order of their computation: a step for each that is read on, and one for all others.

        With each step the outputs read on before it, whose values it is given.
        """
        read: list[str] = []
        for op in self._graph.ops:
            for name in op.outputs:
                if name in outputs and name in self._graph.consumers:
                    yield list(read), [name]
                    read.append(name)
        rest = [name for name in outputs if name not in read]
        if rest:
            yield read, rest

    def _cut(self, given: list[str], outputs: list[str]) -> AbstractContextManager[CutRunner]:
        cuts = list(dict.fromkeys([*given, *outputs]))
        return self._backend.open_cut(self._model, cuts, outputs, trace=self._trace, threads=self._threads)

    def _behind(self, tensors: Mapping[str, str]) -> set[str]:
        """The tensors computed from these, themselves included."""
        found, waiting = set(tensors), list(tensors)
        while waiting:
            for op in self._graph.consumers.get(waiting.pop(), ()):
                for name in op.outputs:
                    if name and name not in found:
                        found.add(name)
                        waiting.append(name)
        return found
