"""Metrics per sample and the paired interval."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantscope import evaluation
from quantscope.errors import DataError

rng = np.random.default_rng(0)
REFERENCE = {"logits": rng.normal(size=(20, 10)).astype(np.float32)}
QUANTIZED = {"logits": (REFERENCE["logits"] + rng.normal(0, 0.5, (20, 10))).astype(np.float32)}
LABELS = rng.integers(0, 10, 20)


def scores(name: str, outputs: Any = QUANTIZED, labels: Any = LABELS) -> NDArray[np.float64]:
    return evaluation.metric(name)(outputs, labels, REFERENCE)


def test_built_in_metrics_equal_loops_over_the_samples() -> None:
    y, x = QUANTIZED["logits"].astype(np.float64), REFERENCE["logits"].astype(np.float64)
    for i in range(20):
        order = sorted(range(10), key=lambda c, i=i: -y[i, c])  # type: ignore[misc]
        assert scores("top1")[i] == (order[0] == LABELS[i])
        assert scores("top5")[i] == (LABELS[i] in order[:5])
        assert scores("agreement")[i] == (order[0] == max(range(10), key=lambda c, i=i: x[i, c]))  # type: ignore[misc]
        assert scores("cosine")[i] == pytest.approx(
            sum(x[i] * y[i]) / math.sqrt(sum(x[i] ** 2) * sum(y[i] ** 2)), rel=1e-12
        )
        assert scores("mse")[i] == pytest.approx(sum((x[i] - y[i]) ** 2) / 10, rel=1e-12)


def test_the_default_metric_follows_outputs_and_labels() -> None:
    assert evaluation.default_metric(QUANTIZED, LABELS) == "top1"
    assert evaluation.default_metric(QUANTIZED, None) == "agreement"
    assert evaluation.default_metric({"boxes": np.zeros((2, 4, 100), np.float32)}, LABELS) == "cosine"


def my_metric(outputs: dict[str, NDArray[Any]], labels: NDArray[Any] | None) -> NDArray[Any]:
    assert labels is not None
    scores: NDArray[Any] = outputs["logits"][:, 0] * labels
    return scores


def test_a_users_metric_by_name_and_as_a_function() -> None:
    named = evaluation.metric("test_evaluation:my_metric")
    np.testing.assert_allclose(named(QUANTIZED, LABELS, REFERENCE), QUANTIZED["logits"][:, 0] * LABELS, rtol=1e-6)
    wrong = evaluation.from_function(lambda outputs, labels: 0.5, "half")
    with pytest.raises(DataError, match=r"half returned shape \(\) for 20 samples"):
        wrong(QUANTIZED, LABELS, REFERENCE)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "needs labels"),
        (LABELS[:7], "labels do not match"),
        (LABELS + 1, "to 10, the model has 10"),
        (LABELS - 2, "labels do not match"),
        (LABELS + 0.5, "labels do not match"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        scores("top1", labels=labels)


def test_an_unknown_metric_and_a_metric_that_does_not_apply() -> None:
    with pytest.raises(DataError, match="unknown metric 'top3'"):
        evaluation.metric("top3")
    with pytest.raises(DataError, match=r"cannot import no\.such:thing"):
        evaluation.metric("no.such:thing")
    with pytest.raises(DataError, match="needs class scores"):
        scores("top1", {"x": np.zeros((20, 2, 3), np.float32)})


def test_the_interval_of_paired_proportions_is_that_of_bonett_and_price() -> None:
    # 100 pairs, 6 lost, 1 gained: the adjusted proportions are 7/102 and 2/102.
    reference, quantized = np.zeros(100), np.zeros(100)
    reference[:6], quantized[6] = 1, 1
    low, high = evaluation.paired_interval(reference, quantized)
    lost, gained = 7 / 102, 2 / 102
    half = 1.959964 * math.sqrt((gained + lost - (gained - lost) ** 2) / 102)
    assert (low, high) == pytest.approx((gained - lost - half, gained - lost + half), abs=1e-6)
    unchanged = evaluation.paired_interval(np.ones(100), np.ones(100))
    assert unchanged[0] < 0 < unchanged[1], "no change in 100 samples does not prove that there is none"


@given(st.integers(0, 100))
def test_the_interval_of_other_scores_covers_the_truth_as_often_as_it_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(200):
        x = rng.normal(0, 1, 12)
        low, high = evaluation.paired_interval(x, x + rng.normal(0.3, 0.2, 12))
        hits += low <= 0.3 <= high
    assert 170 <= hits <= 200


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.706), (5, 2.5706), (6, 2.4469), (10, 2.2281), (30, 2.0423)])
def test_students_t_agrees_with_the_tables(degrees: int, quantile: float) -> None:
    assert evaluation._student_t(degrees) == pytest.approx(quantile, rel=1e-3)
