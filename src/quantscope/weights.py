"""Compares the weights of both models, op by op and channel by channel; no sample is needed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from quantscope.backends.base import Backend, Model
from quantscope.diagnosis import TensorDiagnosis, tensor_diagnosis
from quantscope.graph import Op
from quantscope.pairing import Role, TensorPair
from quantscope.progress import Progress
from quantscope.quantized import Weight
from quantscope.runfile import RunFile
from quantscope.statistics import PairStatistics
from quantscope.statistics.channels import channel_statistics

STAGE = "weights"


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
    ops = {op.name: op for op in backend.float_view(quantized).graph.ops}
    ops |= {pair.quantized_op: replace(pair.op, op_type=ops[pair.quantized_op].op_type) for pair in pairs}
    matches = _matched(weights, backend, reference)
    rows = {}
    for position, (float_weight, weight) in enumerate(matches, len(pairs)):
        rows[position] = _row(ops[weight.op], float_weight, weight)
        progress.advance()
    run_file.checkpoint(rows, {}, {}, (STAGE, len(weights), len(weights), True, time.monotonic() - began))


def _matched(weights: Iterable[Weight], backend: Backend, reference: Model) -> list[tuple[Weight, Weight]]:
    """Each quantized weight with its float form: of the same op and name, from the prepared or the given reference."""
    result: list[tuple[Weight, Weight]] = []
    missing = list(weights)
    for model in (backend.prepare(reference), reference):
        by_op: dict[str, list[Weight]] = {}
        for weight in backend.weights(model):
            by_op.setdefault(weight.op, []).append(weight)
        still: list[Weight] = []
        for weight in missing:
            found = _same(weight, by_op.get(weight.op, []))
            if found is None:
                still.append(weight)
            else:
                result.append((found, weight))
        missing = still
    return result


def _same(weight: Weight, candidates: list[Weight]) -> Weight | None:
    """The candidate of the same name and shape, else the only one of this shape."""
    fitting = [c for c in candidates if c.values.shape == weight.values.shape]
    named = [c for c in fitting if c.tensor == weight.tensor]
    if named:
        return named[0]
    return fitting[0] if len(fitting) == 1 else None


def _row(op: Op, reference: Weight, quantized: Weight) -> TensorDiagnosis:
    statistics = PairStatistics(quantized.qparams)
    statistics.update(reference.values, quantized.values.astype(np.float32, copy=False))
    role: Role = "bias" if quantized.values.ndim < 2 and op.op_type in ("Conv", "ConvTranspose", "Gemm") else "weight"
    axis = quantized.channel_axis
    channels = channel_statistics(reference.values, quantized.values, axis) if axis is not None else None
    pair = TensorPair(op, role, reference.tensor, quantized.tensor, quantized.qparams)
    return tensor_diagnosis(pair, statistics, channels=channels)
