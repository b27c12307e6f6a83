"""Compares the weights of both models, op by op and channel by channel; no sample is needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from quantscope.backends.base import Backend, Model
from quantscope.diagnosis import TensorDiagnosis, tensor_diagnosis
from quantscope.graph import Op
from quantscope.pairing import TensorPair
from quantscope.progress import Progress
from quantscope.quantized import Weight, by_op
from quantscope.runfile import RunFile
from quantscope.statistics import PairStatistics, shared_bins
from quantscope.statistics.channels import CHANNEL_BINS, channel_statistics

STAGE = "weights"
# Above this no other float weight of the same op and shape can be meant.
_SURELY_THE_SAME_DB = 25.0


def compare_weights(
    run_file: RunFile,
    backend: Backend,
    reference: Model,
    quantized: Model,
    pairs: Sequence[TensorPair],
    progress: Progress,
) -> None:
    """Write a row for each weight of the quantized model whose float form is known.

    The float weights are those of the reference as quantization saw them: with batch normalization folded in.

    Args:
        pairs: the activations, whose rows come first, and by which an op is called what the user calls it.
    """
    if any(stage["name"] == STAGE and stage["finished"] for stage in run_file.stages()):
        return
    began = time.monotonic()
    weights = list(backend.weights(quantized))
    progress.stage(STAGE, len(weights))
    ops = {op.name: op for op in backend.float_view(quantized, "exact").graph.ops}
    for pair in pairs:
        if pair.quantized_op in ops:
            ops[pair.quantized_op] = replace(pair.op, op_type=ops[pair.quantized_op].op_type)
    forms = FloatForms(backend, reference, pairs)
    rows: dict[int, TensorDiagnosis] = {}
    for weight in weights:
        found = forms.of(weight)
        if found is not None and weight.op in ops:
            rows[len(pairs) + len(rows)] = _row(ops[weight.op], *found, weight)
        progress.advance()
    run_file.checkpoint(rows, {}, {}, (STAGE, len(weights), len(weights), True, time.monotonic() - began))


class _Weights:
    """The weights of a model by op; the model is made when it is needed."""

    def __init__(self, backend: Backend, model: Callable[[], Model]) -> None:
        self._backend = backend
        self._model = model

    @cached_property
    def _by_op(self) -> dict[str, list[Weight]]:
        return by_op(self._backend.weights(self._model()))

    def like(self, weight: Weight, ops: Sequence[str]) -> tuple[Weight | None, bool]:
        """The weight of one of these ops that has the same name and shape, else the only one of this shape.

        The second value is True if the name is the same.
        """
        fitting = [w for op in dict.fromkeys(ops) for w in self._by_op.get(op, ()) if w.shape == weight.shape]
        named = [w for w in fitting if w.tensor == weight.tensor]
        if named:
            return named[0], True
        return (fitting[0] if len(fitting) == 1 else None), False


class FloatForms:
    """The float weights of the reference, looked up by their quantized forms."""

    def __init__(self, backend: Backend, reference: Model, pairs: Iterable[TensorPair]) -> None:
        self._called = {pair.quantized_op: pair.op.name for pair in pairs}
        self._sources = (_Weights(backend, lambda: reference), _Weights(backend, lambda: backend.prepare(reference)))

    def of(self, quantized: Weight) -> tuple[Weight, PairStatistics] | None:
        """The float form of a weight and how far they are apart: from the first source whose values are near.

        Where the reference's own values are not that near, something may have been folded into the weight, as batch
        normalization is: then the reference as quantization prepares it holds the float form. The nearer one is the
        answer; if neither is near, that weight was quantized badly.
        """
        ops = (self._called.get(quantized.op, quantized.op), quantized.op)
        best: tuple[Weight, PairStatistics] | None = None
        for source in self._sources:
            candidate, named = source.like(quantized, ops)
            if candidate is None:
                continue
            statistics = PairStatistics(quantized.qparams)
            statistics.update(candidate.read(), quantized.read().astype(np.float32, copy=False))
            level = statistics.error.sqnr_db
            # A weight of another name and of other values is another weight of the op.
            if (named or not level < 0) and (best is None or level > best[1].error.sqnr_db):
                best = candidate, statistics
            if not level < _SURELY_THE_SAME_DB:
                break
        return best


def _row(op: Op, reference: Weight, statistics: PairStatistics, quantized: Weight) -> TensorDiagnosis:
    channels = None
    if quantized.channel_axis is not None:
        bins = shared_bins(statistics.reference.histogram, statistics.quantized.histogram, CHANNEL_BINS)
        channels = channel_statistics(reference.read(), quantized.read(), quantized.channel_axis, bins)
    pair = TensorPair(op, quantized.role, reference.tensor, quantized.tensor, quantized.qparams)
    return tensor_diagnosis(pair, statistics, channels=channels)
