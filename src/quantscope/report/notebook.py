"""A diagnosis as HTML for a notebook cell: no script, no request, colours of the notebook's own theme."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from quantscope.diagnosis import Diagnosis, TensorDiagnosis
from quantscope.report import figures

_SHOWN = 10


def html(diagnosis: Diagnosis) -> str:
    """Accuracy and the worst rows of both tables."""
    scores = (
        [
            s.metric,
            figures.metric_value(s.metric, s.reference),
            figures.metric_value(s.metric, s.quantized),
            *figures.difference(s),
            str(s.samples),
        ]
        for s in diagnosis.scores
    )
    parts = [
        _table(
            "Accuracy",
            ("metric", "reference", "quantized", "difference", "relative", "95 % interval", "samples"),
            scores,
        ),
        _table(
            f"Activations summary: {min(_SHOWN, len(diagnosis.activations))} of {len(diagnosis.activations)}",
            ("op", "type", "of output error", "MSE", "SQNR dB", "local dB", "min", "max", "clipped", "remark"),
            map(_activation, diagnosis.activations[:_SHOWN]),
        ),
        _table(
            f"Weights summary: {min(_SHOWN, len(diagnosis.weights))} of {len(diagnosis.weights)}",
            ("op", "type", "of output error", "MSE", "SQNR dB", "min", "max", "mean", "std", "variance"),
            map(_weight, diagnosis.weights[:_SHOWN]),
        ),
        f"<p>coverage {diagnosis.coverage:.1%}, status {escape(diagnosis.status)}"
        f"{', run file ' + escape(diagnosis.run) if diagnosis.run else ''}</p>",
    ]
    return "\n".join(parts)


def _activation(t: TensorDiagnosis) -> Sequence[str]:
    return (
        t.op, t.op_type, figures.share(t.output_error_share), figures.number(t.mse),
        figures.decibel(t.sqnr_db), figures.decibel(t.local_sqnr_db),
        figures.number(t.reference.min), figures.number(t.reference.max), figures.share(t.clipped_fraction), t.remark,
    )  # fmt: skip


def _weight(t: TensorDiagnosis) -> Sequence[str]:
    r = t.reference
    return (
        t.op, t.op_type, figures.share(t.output_error_share), figures.number(t.mse), figures.decibel(t.sqnr_db),
        *(figures.number(v) for v in (r.min, r.max, r.mean, r.std, r.variance)),
    )  # fmt: skip


def _table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
