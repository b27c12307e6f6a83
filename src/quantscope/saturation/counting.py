"""What all batches come to: pairs per op, and the outputs of both models side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope import evaluation
from quantscope.errors import DataError
from quantscope.samples import Batch
from quantscope.saturation.document import OpSaturation, OutputChange, Saturation
from quantscope.saturation.pairs import Loss
from quantscope.saturation.products import Product
from quantscope.statistics import ErrorStatistics
from quantscope.tracing import Values

# Probabilities that were rounded to codes do not quite sum to 1.
_ROUNDED = 0.25


class Counter:
    """Sums over all batches."""

    def __init__(self, products: list[Product], metric: str | Callable[..., Any] | None) -> None:
        self._products = products
        self._metric = metric
        self._counts = np.zeros((len(products), 4), np.int64)
        self._energies = np.zeros((len(products), 2))
        self._changes: dict[str, tuple[ErrorStatistics, ErrorStatistics, ErrorStatistics]] = {}
        self._chosen: tuple[str, evaluation.Metric] | None = None
        self._scores: tuple[list[float], list[float]] = ([], [])
        self._decisions = [0, 0]
        self._samples = 0

    def seen(self, number: int, loss: Loss, exact: NDArray[Any], lost: NDArray[Any]) -> None:
        """Add what one product lost."""
        self._counts[number] += (loss.pairs, loss.saturated, loss.values.size, loss.changed)
        self._energies[number] += [np.square(values, dtype=np.float64).sum() for values in (exact, lost)]

    def add(self, batch: Batch, exact: Values, changed: Values, reference: Values) -> None:
        """Add the outputs of one batch."""
        self._samples += batch.size
        for name, x in exact.items():
            if x.dtype.kind != "f":
                continue  # Classes and the like are compared by the metric.
            change, to_exact, to_changed = self._changes.setdefault(name, _three())
            change.update(x, changed[name])
            if name in reference and reference[name].shape == x.shape:
                to_exact.update(reference[name], x)
                to_changed.update(reference[name], changed[name])
        first, other = next(iter(exact.values())), next(iter(changed.values()))
        if _decides(first):
            self._decisions[0] += int((first.argmax(-1) != other.argmax(-1)).sum())
            self._decisions[1] += first.size // first.shape[-1]
        self._chosen = self._chosen or evaluation.chosen(self._metric, exact, batch.labels)
        metric = self._chosen[1]
        self._scores[0].extend(metric(exact, batch.labels, exact).tolist())
        self._scores[1].extend(metric(changed, batch.labels, exact).tolist())

    def result(self) -> Saturation:
        """The figures, without what is known of the machine and the model.

        Raises:
            DataError: there was no sample.
        """
        if not self._samples:
            raise DataError("no whole batch of samples", accepted="at least one", next_step="check --samples")
        rows = [
            OpSaturation(
                product.op.name, product.op.op_type, int(counts[0]), int(counts[1]), int(counts[2]), int(counts[3]),
                _decibel(*energies),
            )
            for product, counts, energies in zip(self._products, self._counts, self._energies, strict=True)
        ]  # fmt: skip
        outputs = tuple(
            OutputChange(
                name, change.sqnr_db, *((e.sqnr_db, c.sqnr_db) if e.count else (None, None))
            )
            for name, (change, e, c) in self._changes.items()
        )  # fmt: skip
        score = None
        if self._chosen is not None:
            score = evaluation.score(self._chosen[0], *self._scores)
        wrong, decisions = self._decisions
        return Saturation(
            tuple(rows), {}, outputs, score, wrong / decisions if decisions else None, self._samples, False, ""
        )  # fmt: skip


def _three() -> tuple[ErrorStatistics, ErrorStatistics, ErrorStatistics]:
    return ErrorStatistics(), ErrorStatistics(), ErrorStatistics()


def _decibel(energy: float, noise: float) -> float:
    if not noise:
        return math.inf
    return 10 * math.log10(energy / noise) if energy else -math.inf


def _decides(scores: NDArray[Any]) -> bool:
    """True if the last axis holds scores of classes: one row per sample, or probabilities."""
    if scores.ndim < 2 or scores.shape[-1] < 2 or not scores.size:
        return False
    return scores.ndim == 2 or bool(np.abs(scores.sum(-1) - 1).max() < _ROUNDED and scores.min() >= 0)
