"""How much of the error at a model's outputs comes through each tensor, from the figures of single tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from quantscope.graph import Graph

# Ops that add up or collect values: their inputs' errors weigh as they are. In products each weighs by its own signal.
_ADDING = frozenset(("Add", "Concat", "Max", "Mean", "Min", "Sub", "Sum", "Where"))


@dataclass(frozen=True)
class TensorError:
    """The error of one tensor: its energy, that over the signal's, and which part of it its inputs brought, 0 to 1.

    Both are infinite where the tensor is broken. `inherited` is None where nobody knows it: then it is estimated by
    what the worst input has, over signal.
    """

    noise: float
    over_signal: float
    inherited: float | None


def arriving(graph: Graph, errors: Mapping[str, TensorError]) -> dict[str, float]:
    """Return for each tensor the share of the outputs' error that comes from there or from before it.

    From the outputs back, what is inherited goes on to the nearest tensors before; several of them share by noise where
    an op adds or collects, by noise over signal elsewhere. All outputs count alike.
    """
    order = {name: i for i, op in enumerate(graph.ops) for name in op.outputs}
    shares: dict[str, float] = {}
    for output in graph.outputs:
        for name in (output.name,) if output.name in errors else graph.nearest_before(output.name, errors):
            shares[name] = shares.get(name, 0.0) + 1
    # An output that several tensors were gathered into, unseen, gives its share to each: bring the sum to 1.
    whole = sum(shares.values())
    shares = {name: share / whole for name, share in shares.items()}
    for name in sorted(errors, key=lambda name: order.get(name, -1), reverse=True):
        passed_on = shares.get(name, 0.0) * inherited(graph, name, errors)
        if not passed_on:
            continue
        adds = graph.producers[name].op_type in _ADDING
        noise = {n: errors[n].noise if adds else errors[n].over_signal for n in graph.nearest_before(name, errors)}
        noise = {n: 1.0 for n, value in noise.items() if math.isinf(value)} or noise
        total = sum(noise.values())
        for before, value in noise.items():
            if total > 0:
                shares[before] = shares.get(before, 0.0) + passed_on * value / total
    return shares


def inherited(graph: Graph, name: str, errors: Mapping[str, TensorError]) -> float:
    """Return which part of a tensor's error the tensors before it brought, 0 to 1.

    The rounding of a model's input arises in the op that reads it: there is none before it to blame.
    """
    error = errors[name]
    before = [errors[n].over_signal for n in graph.nearest_before(name, errors)]
    if not before:
        return 0.0
    if error.inherited is not None:
        return error.inherited
    if math.isinf(max(before)):
        return 1.0
    return min(max(before) / error.over_signal, 1.0) if error.over_signal > 0 else 0.0


def arising(graph: Graph, errors: Mapping[str, TensorError], shares: Mapping[str, float]) -> dict[str, float]:
    """Return for each tensor the share of the outputs' error that arises in the op that writes it; 1 in all.

    Args:
        shares: what `arriving` found.
    """
    return {name: shares.get(name, 0.0) * (1 - inherited(graph, name, errors)) for name in errors}
