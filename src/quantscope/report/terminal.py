"""A diagnosis in the terminal: accuracy, both tables worst first, and what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from quantscope.diagnosis import DEFAULT_ORDER, Diagnosis, TensorDiagnosis, ordered
from quantscope.pairing import NOT_COMPUTE
from quantscope.report import figures
from quantscope.statistics.budget import PARTS

WIDTH = 100
_SHORTEST_NAME = 16
_SHOWN_SOURCES = 3
# SQNR in dB: below 10 the noise is a tenth of the signal's power, above 30 a thousandth.
_BAD_DB, _GOOD_DB = 10.0, 30.0
_CAUSES = {
    "weight": "rounding of its weight",
    "bias": "rounding of its bias",
    "clipping": "clipping of its output",
    "rounding": "rounding of its output",
    "residual": "of the kernels",
}


def console(*, stderr: bool = False) -> Console:
    """A console of at most 100 columns; plain when piped."""
    found = Console(stderr=stderr, highlight=False)
    width = min(found.width, WIDTH) if found.is_terminal else WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def print_summary(
    out: Console,
    diagnosis: Diagnosis,
    *,
    top: int | None = 10,
    sort: str = DEFAULT_ORDER,
    next_steps: Sequence[str] = (),
) -> None:
    """Print all that a diagnosis says, with the first `top` rows of each table; all rows if None.

    Args:
        sort: the column to order both tables by.
        next_steps: lines that say what to do next; a command among them is printed on one line, to be copied.
    """
    activations = ordered((t for t in diagnosis.tensors if t.role == "activation"), sort)
    weights = ordered((t for t in diagnosis.tensors if t.role == "weight"), sort)
    for part in (
        header(diagnosis), accuracy(diagnosis),
        activation_table(activations, top, sort), weight_table(weights, top, sort),
    ):  # fmt: skip
        out.print(part)
        out.print()
    out.print(remarks(diagnosis), soft_wrap=True)
    if next_steps:
        out.print()
        out.print(Text("What to do next", style="bold"))
        for line in next_steps:
            out.print(Text(f"  {line}"), soft_wrap=True)
    if diagnosis.run:
        out.print()
        out.print(Text.assemble("run file: ", (diagnosis.run, "bold")), soft_wrap=True)


def header(diagnosis: Diagnosis) -> RenderableType:
    """What was compared, on what."""
    models = diagnosis.models
    reference = (models.get("reference") or {}).get("path") or "a model in memory"
    quantized = (models.get("quantized") or {}).get("path") or models.get("output") or "quantized by quantscope"
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    grid.add_row("reference", _plain(reference))
    grid.add_row("quantized", _plain(quantized))
    if diagnosis.recipe is not None:
        recipe = diagnosis.recipe
        kept = ", ".join(rule.selector for rule in recipe.rules if rule.fallback)
        grid.add_row("recipe", recipe.defaults_in_words + (f", in float: {kept}" if kept else ""))
    grid.add_row("samples", _plain(_samples(diagnosis)))
    if diagnosis.status != "finished":
        grid.add_row("status", Text(_status(diagnosis), style="bold yellow"))
    return grid


def _samples(diagnosis: Diagnosis) -> str:
    samples = diagnosis.samples
    text = str(samples.get("description", "–"))
    if "evaluation" in samples:
        counts = f"{samples['evaluation']} evaluated"
        if samples["calibration"]:
            counts = f"{samples['calibration']} calibrate, {counts}"
        text += f": {counts}"
    return text


def _status(diagnosis: Diagnosis) -> str:
    stage = diagnosis.stages[-1] if diagnosis.stages else None
    if stage is None:
        return diagnosis.status
    of = f" of {stage['total']}" if stage["total"] else ""
    at = f"{diagnosis.status}, at stage {stage['name']}: {stage['done']}{of} done"
    if diagnosis.status == "running":
        return at
    return f"{at}; go on with: quantscope diagnose --resume {shlex.quote(diagnosis.run)}"


def accuracy(diagnosis: Diagnosis) -> RenderableType:
    """Each metric of both models, the difference, and its interval."""
    table = _table("Accuracy")
    table.add_column("metric")
    for column in ("reference", "quantized", "difference", "relative", "95 % interval", "samples"):
        table.add_column(column, justify="right")
    for score in diagnosis.scores:
        absolute, relative, interval = figures.difference(score)
        worse = score.high < 0 if score.metric != "mse" else score.low > 0
        table.add_row(
            score.metric if score.metric != "agreement" else "agreement with reference",
            figures.metric_value(score.metric, score.reference),
            Text(figures.metric_value(score.metric, score.quantized), style="bold"),
            Text(absolute, style="bold red" if worse else ""),
            relative,
            interval,
            str(score.samples),
        )
    if not diagnosis.scores:
        table.add_row("no sample was scored yet", *[""] * 6)
    return table


def activation_table(rows: Sequence[TensorDiagnosis], top: int | None, sort: str) -> RenderableType:
    """The article's columns (op, MSE, minimum, maximum), with the share of the output's error and errors in dB."""
    table = _table(f"Activations summary — {_shown(rows, top, sort)}")
    table.add_column("Op")
    table.add_column("Type", no_wrap=True, max_width=14)
    levels = _levels(rows)
    table.add_column("output\nerror", justify="right", no_wrap=True)
    for column in ("MSE", *(f"{name}\ndB" for name in levels)):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("Activation\nmin", justify="right", no_wrap=True)
    table.add_column("Activation\nmax", justify="right", no_wrap=True)
    table.add_column("clipped", justify="right", no_wrap=True)
    for t in rows[:top]:
        table.add_row(
            _Name(t.op), _type(t), figures.share(t.output_error_share), figures.number(t.mse), _decibel(t.sqnr_db),
            *(figures.decibel(getattr(t, column)) for name, column in levels.items() if name != "SQNR"),
            figures.number(t.reference.min), figures.number(t.reference.max), figures.share(t.clipped_fraction),
        )  # fmt: skip
        if t.remark:
            table.add_row(Text(f"  ↳ {t.remark}", style="bold red" if t.non_finite_count else "yellow"))
    return table


def _levels(rows: Sequence[TensorDiagnosis]) -> dict[str, str]:
    """The columns of errors in dB, by what they are called: those of both traces, or those of the op itself."""
    if any(not math.isnan(t.simulated_sqnr_db) for t in rows):
        return {"SQNR": "sqnr_db", "simulated": "simulated_sqnr_db", "kernels": "kernels_sqnr_db"}
    if any(not math.isnan(t.isolated_sqnr_db) for t in rows):
        return {"SQNR": "sqnr_db", "isolated": "isolated_sqnr_db"}
    return {"SQNR": "sqnr_db", "local": "local_sqnr_db"}


def weight_table(rows: Sequence[TensorDiagnosis], top: int | None, sort: str) -> RenderableType:
    """The article's columns for both models: minimum, maximum, mean, standard deviation, variance."""
    table = _table(f"Weights summary — {_shown(rows, top, sort)}")
    table.add_column("Op")
    for column in ("output\nerror", "MSE", "SQNR\ndB"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("model", no_wrap=True)
    for column in ("min", "max", "mean", "std", "variance"):
        table.add_column(column, justify="right", no_wrap=True)
    for t in rows[:top]:
        for side, label in ((t.reference, "reference"), (t.quantized, "quantized")):
            first = side is t.reference
            table.add_row(
                _Name(t.op) if first else _detail(t),
                figures.share(t.output_error_share) if first else "",
                figures.number(t.mse) if first else "",
                _decibel(t.sqnr_db) if first else "",
                Text(label, style="" if first else "dim"),
                *(figures.number(v, 3) for v in (side.min, side.max, side.mean, side.std, side.variance)),
            )
        if t.remark:
            table.add_row(Text(f"  ↳ {t.remark}", style="bold red" if t.non_finite_count else "yellow"))
    return table


def remarks(diagnosis: Diagnosis) -> RenderableType:
    """How far the tables can be trusted: coverage, what measuring changed, and what was odd."""
    lines = []
    missing = [op for op, reason in diagnosis.skipped.items() if not reason.startswith(NOT_COMPUTE)]
    line = f"coverage: {diagnosis.coverage:.1%} of the compute ops are compared"
    if missing:
        line += f", {len(missing)} {'is' if len(missing) == 1 else 'are'} not"
    lines.append(Text(line))
    if missing and diagnosis.run:
        lines.append(Text(f"  the reasons: quantscope show {shlex.quote(diagnosis.run)} --skipped"))
    changed = diagnosis.measuring_changed
    if changed is not None and diagnosis.trace == "simulated":
        lines.append(Text(f"the simulated model's outputs differ by up to {changed:.3g} from those of plain inference"))
    elif changed is not None:
        lines.append(
            Text("measuring did not change the quantized model's outputs: equal bit for bit to plain inference")
            if changed == 0
            else Text(f"measuring changed the quantized model's outputs by up to {changed:.3g}", style="yellow")
        )
    lines += _kernel_lines(diagnosis)
    first = diagnosis.first_not_finite
    if first is not None:
        lines.append(Text(f"first op whose output is not finite: {first.op} ({first.remark})", style="bold red"))
    sources = diagnosis.failure_sources
    for source in sources[:_SHOWN_SOURCES]:
        level = figures.decibel(source.row.sqnr_db)
        inputs = "model inputs" if math.isinf(source.inputs_db) else f"{figures.decibel(source.inputs_db)} dB"
        text = f"failure source: {source.row.op}: {inputs} go in, {level} dB come out{_cause(source.row)}"
        lines.append(Text(text, style="bold red"))
    if len(sources) > _SHOWN_SOURCES:
        lines.append(Text(f"  and {len(sources) - _SHOWN_SOURCES} more further on", style="red"))
    lines += [Text(f"note: {note}", style="yellow") for note in diagnosis.notes]
    return Group(*lines)


def _kernel_lines(diagnosis: Diagnosis) -> list[Text]:
    """Where the kernels that really run give something else than the simulation."""
    if diagnosis.trace != "both":
        return []
    worst = diagnosis.kernel_differences[:_SHOWN_SOURCES]
    if not worst:
        return [Text("deployed and simulated are equal on every compared op")]
    shown = ", ".join(f"{t.op} ({figures.decibel(t.kernels_sqnr_db)} dB)" for t in worst)
    total = len(diagnosis.kernel_differences)
    return [Text(f"deployed and simulated differ on {total} ops, most on {shown}")]


def _cause(row: TensorDiagnosis) -> str:
    """What the largest part of an error is, in words."""
    budget = row.budget
    if budget is None or not budget.mse > 0:
        return ""
    part = max(PARTS, key=lambda p: float(getattr(budget, p)))
    if part == "inherited":
        return "; it amplifies the error of its inputs"
    return f"; {getattr(budget, part) / budget.mse:.0%} of the error is {_CAUSES[part]}"


def skipped_table(diagnosis: Diagnosis) -> RenderableType:
    """Every op without a row, and why."""
    table = _table("Ops without a row")
    table.add_column("Op", overflow="fold", max_width=50)
    table.add_column("reason", overflow="fold")
    for op, reason in diagnosis.skipped.items():
        table.add_row(_plain(op), _plain(reason))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")


def _plain(text: str) -> Text:
    """Text that is shown as it is: a name in brackets is no markup."""
    return Text(text, overflow="fold")


def _shown(rows: Sequence[TensorDiagnosis], top: int | None, sort: str) -> str:
    shown = len(rows) if top is None else min(top, len(rows))
    by = {
        "order": "in execution order",
        DEFAULT_ORDER: "by their share of the output's error",
    }.get(sort, f"worst first by {sort}")
    return f"{shown} of {len(rows)}, {by}"


class _Name:
    """The name of an op on one line, as much of its end as the column holds: figures never give way to names."""

    def __init__(self, name: str, style: str = "") -> None:
        self._name = name
        self._style = style

    def __rich_measure__(self, out: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(len(self._name), _SHORTEST_NAME), len(self._name)).with_maximum(options.max_width)

    def __rich_console__(self, out: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield Text(figures.shortened(self._name, options.max_width), style=self._style, no_wrap=True)


def _detail(tensor: TensorDiagnosis) -> _Name:
    kind = tensor.granularity.partition(",")[0] if tensor.is_quantized else ""
    return _Name(f"  {tensor.op_type}, {tensor.dtype}{' ' + kind if kind else ''}", style="dim")


def _type(tensor: TensorDiagnosis) -> Text:
    text = f"{tensor.op_type}+{tensor.absorbed}" if tensor.absorbed else tensor.op_type
    return Text(text, style="" if tensor.is_quantized else "dim")


def _decibel(value: float) -> Text:
    style = ""
    if not math.isnan(value):
        style = "bold red" if value < _BAD_DB else "green" if value > _GOOD_DB else "yellow"
    return Text(figures.decibel(value), style=style)
