"""A search and a ranking of ops by their effect, in the terminal."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantscope.fallback.search import Search, Trial, as_fast
from quantscope.fallback.sensitivity import Sensitivities
from quantscope.fallback.speed import Speed
from quantscope.profiling.latency import PRECISION
from quantscope.report import figures

_SHOWN_OPS = 3
_LISTED_OPS = 40
_SHOWN_TRIALS = 4
_FEW_QUANTIZED = 0.5


def search_table(search: Search) -> RenderableType:
    """Every trial with its accuracy, the verdict, and the trials worth choosing from."""
    table = Table(
        title="Trials", title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
    )
    table.add_column("")
    table.add_column("change", overflow="fold")
    timed = search.best.speed is not None
    # The difference is in the middle of its interval; the names of the changes need the room.
    columns = ("95 % interval", "speed-up") if timed else ("difference", "95 % interval", "s")
    for column in ("quantized", search.best.score.metric, *columns):
        table.add_column(column, justify="right", no_wrap=True)
    reference = search.best.score
    table.add_row("", "reference, in float", "0 %", figures.metric_value(reference.metric, reference.reference))
    for trial in search.trials:
        met = search.criterion.met_by(trial.score)
        absolute, _, interval = figures.difference(trial.score)
        style = "bold green" if trial is search.best and met else "bold" if trial is search.best else ""
        table.add_row(
            Text("✓" if met else "·", style="green" if met else "dim"),
            Text(_change(trial), style=style),
            f"{trial.quantized_share:.1%}",
            figures.metric_value(trial.score.metric, trial.score.quantized),
            *((interval, _interval(trial.speed)) if trial.speed else (absolute, interval, f"{trial.seconds:.1f}")),
        )
    count = len(search.trials)
    over = f" of {search.best.score.samples} samples" if search.best.score.samples is not None else ""
    evaluations = Text(f"{count} full {'evaluation' if count == 1 else 'evaluations'}{over}")
    return Group(
        table,
        Text(""),
        *_verdict(search),
        evaluations,
        *(_times(search) if timed else [_shares(search)]),
    )


def _shares(search: Search) -> Text:
    """The trials worth choosing from, by how much of them is quantized."""
    front = ", ".join(
        f"{figures.metric_value(t.score.metric, t.score.quantized)} with {t.quantized_share:.0%} quantized"
        for t in search.pareto
    )
    return Text(f"accuracy against quantized ops, the best trials: {front}")


def _times(search: Search) -> list[Text]:
    """The trials worth choosing from, by their time, and those that are as fast as the best one."""
    lines = [Text("accuracy against time, the best trials:")]
    for trial in search.pareto:
        value = figures.metric_value(trial.score.metric, trial.score.quantized)
        speed = f", {_faster(trial.speed)}" if trial.speed is not None else ""
        style = "bold" if trial is search.best else ""
        lines.append(Text(f"  {value} at {_milliseconds(search.us(trial))}{speed}: {_change(trial)}", style=style))
    score = search.best.score
    float_value = figures.metric_value(score.metric, score.reference)
    lines.append(Text(f"  {float_value} at {_milliseconds(search.reference_us)}: the float model", style="dim"))
    worst = max(trial.speed.high / trial.speed.speedup - 1 for trial in search.trials if trial.speed is not None)
    if worst > PRECISION:
        text = f"the least certain speed-up is known within ±{worst:.0%}: --time gives each trial more time"
        lines.append(Text(text, style="yellow"))
    equal = [trial.change for trial in search.trials if trial is not search.best and as_fast(trial, search.best)]
    if equal:
        more = f" and {len(equal) - _SHOWN_TRIALS} more" if len(equal) > _SHOWN_TRIALS else ""
        names = "; ".join(equal[:_SHOWN_TRIALS])
        lines.append(Text(f"as fast as the best one within the noise of the measurement: {names}{more}"))
    return lines


def _milliseconds(us: float | None) -> str:
    return f"{figures.number(us / 1000, 3)} ms" if us is not None else "–"


def _interval(speed: Speed) -> str:
    return f"{speed.speedup:.2f}× ({speed.low:.2f} to {speed.high:.2f})"


def _faster(speed: Speed) -> str:
    """By how much the quantized model is faster than the float model, or slower."""
    if speed.low <= 1 <= speed.high:
        return f"about as fast as the float model, {_interval(speed)}"
    if speed.speedup > 1:
        return f"{speed.speedup:.2f}× faster ({speed.low:.2f} to {speed.high:.2f})"
    return f"{1 / speed.speedup:.2f}× slower ({1 / speed.high:.2f} to {1 / speed.low:.2f})"


def _change(trial: Trial) -> str:
    ops = trial.fallback
    if not ops or len(ops) > _SHOWN_OPS:
        return trial.change
    return f"in float: {', '.join(ops)}"


def _verdict(search: Search) -> list[Text]:
    criterion, best = search.criterion, search.best
    allowed = f"{criterion.max_drop:g}{' of the reference' if criterion.relative else ''}"
    if search.met and best.speed is not None:
        what = "the model as configured" if best is search.trials[0] else best.change
        text = f"found: {what} meets the allowed drop of {allowed} and is {_faster(best.speed)}"
        lines = [Text(text, style="bold green" if best.speed.low > 1 else "bold yellow")]
        if best.speed.low <= 1:
            lines.append(Text("no trial that meets it is surely faster than the float model"))
        return [*lines, *_left_in_float(best)]
    if search.met and best.quantized_share < _FEW_QUANTIZED:
        share = f"{best.quantized_share:.0%}"
        return [
            Text(f"the allowed drop of {allowed} is met only with {share} of the ops quantized", style="bold yellow"),
            Text("fallback hardly saves this model: look for another recipe, or allow a larger drop"),
        ]
    if search.met and best is search.trials[0]:
        text = (
            f"nothing to fix: the model as configured meets the allowed drop of {allowed}, no op needs to stay in float"
        )
        return [Text(text, style="bold green")]
    if search.met:
        found = Text(f"found: {best.change} meets the allowed drop of {allowed}", style="bold green")
        return [found, *_left_in_float(best)]
    lines = [Text(f"no recipe that was tried meets the allowed drop of {allowed}", style="bold red")]
    if search.ranking and any(set(search.ranking) <= set(t.fallback) for t in search.trials):
        count = len(search.ranking)
        lines.append(Text(f"no fallback saves this model: not even with its {count} quantized ops in float"))
    lines.append(Text(f"the best one: {best.change}"))
    return lines


def _left_in_float(best: Trial) -> list[Text]:
    if len(best.fallback) <= _SHOWN_OPS:
        return []
    more = len(best.fallback) - _LISTED_OPS
    rest = f" and {more} more, which the recipe names" if more > 0 else ""
    return [Text(f"left in float: {', '.join(best.fallback[:_LISTED_OPS])}{rest}", style="dim")]


def sensitivity_table(found: Sensitivities, top: int | None) -> RenderableType:
    """The ops by what each alone quantized does to the model's output."""
    rows = found.ops[:top]
    what = "modules" if any(len(row.ops) > 1 for row in found.ops) else "ops"
    table = Table(
        title=f"Effect on the output — {len(rows)} of {len(found.ops)} {what}, "
        f"{found.damage_name} over {found.samples} samples",
        title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim",
    )  # fmt: skip
    table.add_column("place", no_wrap=True)
    table.add_column("Op" if what == "ops" else "Module", overflow="fold")
    table.add_column("Type" if what == "ops" else "holds", no_wrap=True)
    for column in ("damage if\nquantized alone", "95 %\ninterval", "gone if\nin float alone"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        place = str(row.best_rank) if row.best_rank == row.worst_rank else f"{row.best_rank}–{row.worst_rank}"
        known = not math.isnan(row.alone_low)
        interval = f"{figures.number(row.alone_low, 3)} … {figures.number(row.alone_high, 3)}" if known else "–"
        table.add_row(
            place, Text(row.op), row.op_type, figures.number(row.alone, 3), interval, figures.number(row.gain, 3),
            style="" if known else "dim",
        )  # fmt: skip
    return Group(table, Text(""), *_certainty(found, what))


def _certainty(found: Sensitivities, what: str) -> list[Text]:
    """How far the order can be trusted."""
    lines = [Text(f"{found.damage_name} of the quantized model: {figures.number(found.damage, 4)}")]
    certain = 0
    for position, row in enumerate(found.ops, 1):
        if row.best_rank != position or row.worst_rank != position:
            break
        certain += 1
    if certain:
        lines.append(Text("the first place is certain" if certain == 1 else f"the first {certain} places are certain"))
    like = _interchangeable(found, certain)
    if like:
        lines.append(
            Text(f"{what} on places {like[0]} to {like[1]} are interchangeable: any of them may be anywhere there")
        )
    idle = sum(1 for row in found.ops if math.isnan(row.alone_low))
    if idle:
        lines.append(Text(f"{idle} {what} do next to nothing alone: they were looked at on the worst sample only"))
    if found.others:
        lines.append(Text(f"not measured: {len(found.others)} ops that come later by estimate"))
    known = {name: value for name, value in found.agreement.items() if not math.isnan(value)}
    if known:
        shown = ", ".join(f"{name} {value:+.2f}" for name, value in known.items())
        lines.append(Text(f"rank correlation of cheaper columns with this effect, on this model: {shown}"))
    return lines


def _interchangeable(found: Sensitivities, certain: int) -> tuple[int, int] | None:
    """The first longest run of places, behind the certain ones, each of whose ops may stand on any of them."""
    rows = [row for row in found.ops if not math.isnan(row.alone_low)]
    best: tuple[int, int] | None = None
    for first in range(certain + 1, len(rows) + 1):
        last = first
        while last < len(rows) and all(
            r.best_rank <= first and r.worst_rank > last for r in rows[first - 1 : last + 1]
        ):
            last += 1
        if last > first and (best is None or last - first > best[1] - best[0]):
            best = first, last
    return best
