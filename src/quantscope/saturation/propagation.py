"""Runs a quantized model product by product, exactly or with what saturation takes from each of them.

The model is cut at what goes into each product and at what comes out. So the sums are exact, as the simulation computes
them, and what the pairs lose is taken off before the output is rounded; the next product reads the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.base import Backend, CutRunner, Model
from quantscope.saturation.pairs import Loss
from quantscope.saturation.products import Product
from quantscope.tracing import Values

Seen = Callable[[int, Loss, NDArray[Any], NDArray[Any]], None]
"""Told of each product its number, what its sums lost, its exact output, and what that lost in its own unit."""


class Propagation(AbstractContextManager["Propagation"]):
    """A quantized model open in parts: what comes before each product, each product, and the end."""

    def __init__(
        self, backend: Backend, model: Model, products: Sequence[Product], pool: Executor, threads: int
    ) -> None:
        self._products = products
        self._pool = pool
        self._threads = threads
        self._stack = ExitStack()
        inputs = {tensor.name for tensor in model.graph.inputs}
        targets = [product.target for product in products]
        everywhere = [*targets, *(product.source for product in products)]

        def cut(*outputs: str) -> CutRunner:
            at = [name for name in dict.fromkeys((*everywhere, *outputs)) if name not in inputs]
            return self._stack.enter_context(
                backend.open_cut(model, at, outputs, trace="simulated", threads=threads)
            )  # fmt: skip

        self._parts: list[tuple[str, CutRunner]] = []
        known = set(inputs)

        def compute(name: str) -> None:
            """Add the part that computes this tensor, behind those that compute what it needs."""
            if name not in known:
                known.add(name)
                runner = cut(name)
                for needed in runner.inputs:
                    compute(needed)
                self._parts.append((name, runner))

        for target in targets:
            compute(target)
        view = backend.float_view(model, "simulated")
        outputs = list(dict.fromkeys(tensor.name for tensor in view.graph.outputs))
        self._rounded = {name: view.tensors[name].qparams for name in outputs if name in view.tensors}
        self._given = [name for name in outputs if name in known]
        computed = [name for name in outputs if name not in known]
        self._end = cut(*computed) if computed else None
        for needed in self._end.inputs if self._end is not None else ():
            compute(needed)
        self._number = {product.target: number for number, product in enumerate(products)}
        self._last = self._last_uses()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _last_uses(self) -> dict[int, list[str]]:
        """By the number of a part, the tensors that nothing reads after it."""
        last: dict[str, int] = {}
        for number, (target, runner) in enumerate(self._parts):
            last |= dict.fromkeys((target, *runner.inputs), number)
        kept = {*self._given, *(self._end.inputs if self._end is not None else ())}
        found: dict[int, list[str]] = {}
        for name, number in last.items():
            if name not in kept:
                found.setdefault(number, []).append(name)
        return found

    def run(self, inputs: Mapping[str, NDArray[Any]], *, saturate: bool, seen: Seen | None = None) -> Values:
        """The model's outputs for one batch."""
        values: Values = dict(inputs)
        for number, (name, runner) in enumerate(self._parts):
            (values[name],) = runner.run({n: values[n] for n in runner.inputs}).values()
            position = self._number.get(name)
            if position is not None:
                product = self._products[position]
                codes, zero_point, scale = product.codes(values[product.source])
                loss = product.pairs.loss(codes, zero_point, self._pool, self._threads)
                lost = product.real(loss.values, scale)
                if seen is not None:
                    seen(position, loss, values[name], lost)
                if saturate:
                    values[name] = np.asarray(values[name] - lost.reshape(values[name].shape))
            for done in self._last.get(number, ()):
                if done not in inputs:
                    values.pop(done, None)
        outputs = {name: values[name] for name in self._given}
        if self._end is not None:
            outputs |= self._end.run({n: values[n] for n in self._end.inputs})
        return {name: self._coded(name, output) for name, output in outputs.items()}

    def _coded(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """An output as the model gives it: rounded to its codes, where it has some."""
        qparams = self._rounded.get(name)
        return values if qparams is None else qparams.dequantize(qparams.quantize(values))
