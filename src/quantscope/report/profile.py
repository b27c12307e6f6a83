"""A profile in the terminal: latency, the ops that take the time, what quantization added, and the reasons."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from quantscope.profiling.document import LatencyComparison, OpSide, OpTiming, Profile, Rewritten, Tried
from quantscope.report import figures

_NAME_WIDTH = 34
_SHOWN_REASONS = 5
_SHOWN_OPS = 4
# What costs less than this share of the time is not worth a line here.
_SMALLEST_SHARE = 0.01
# A difference within this share is none.
_SAME = 0.03


def print_profile(out: Console, profile: Profile, *, top: int | None = 10) -> None:
    """Print the profile, with the first `top` ops; all if None."""
    for part in _parts(profile, top):
        out.print(part)
        out.print()
    for line in _next_steps(profile, top):
        out.print(line, soft_wrap=True)


def _parts(profile: Profile, top: int | None) -> Iterator[RenderableType]:
    yield _verdict(profile)
    yield _latencies(profile)
    if profile.reasons:
        yield _reasons(profile)
    if profile.rewritten is not None:
        yield _rewritten(profile.rewritten)
    yield _ops(profile, top)
    if profile.added:
        yield _added(profile)
    yield _models(profile)
    if profile.notes:
        yield Group(*(Text(f"note: {note}", style="yellow") for note in profile.notes))


def _verdict(profile: Profile) -> RenderableType:
    first = profile.latencies[0]
    lines = [in_words(first)]
    if first.quantized is not None and not first.settled:
        lines.append(
            Text("the interval is wider than ±3 %: give it more time with --time, or a quieter machine", style="yellow")
        )
    if not first.optimized:
        lines.append(Text(f"without {profile.optimization}"))
    return Panel(Group(*lines), title="[bold]profile[/bold]", title_align="left", expand=False)


def in_words(latency: LatencyComparison) -> Text:
    """Whether the quantized model is faster, and by how much."""
    speedup, low, high = latency.speedup, latency.low, latency.high
    if speedup is None or low is None or high is None:
        return Text.assemble((milliseconds(latency.reference.p50_us), "bold"), " per inference")
    if low <= 1 <= high or abs(speedup - 1) < _SAME:
        return Text.assemble(
            ("the quantized model is about as fast", "bold yellow"), f": {speedup:.2f}× ({low:.2f} to {high:.2f})"
        )
    faster = speedup > 1
    factor = (speedup, low, high) if faster else (1 / speedup, 1 / high, 1 / low)
    return Text.assemble(
        "the quantized model is ",
        (f"{factor[0]:.2f}× {'faster' if faster else 'slower'}", "bold green" if faster else "bold red"),
        f" ({factor[1]:.2f} to {factor[2]:.2f}, 95 % of {latency.rounds} rounds)",
    )


def _latencies(profile: Profile) -> RenderableType:
    table = _table("Latency")
    table.add_column("batch", justify="right")
    table.add_column("threads", justify="right", no_wrap=True)
    unlike = any(not latency.optimized for latency in profile.latencies)
    if unlike:
        table.collapse_padding = True
        table.add_column("optimized", justify="right", no_wrap=True)
    table.add_column("")
    for column in ("p50", "p90", "p99", "CPU p50", "samples/s", "speed-up"):
        table.add_column(column, justify="right", no_wrap=True)
    for latency in profile.latencies:
        setting = [str(latency.batch), str(latency.threads or "default")]
        setting += ["yes" if latency.optimized else "no"] if unlike else []
        sides = (("reference", latency.reference), ("quantized", latency.quantized))
        for name, times in sides:
            if times is not None:
                table.add_row(
                    *(setting if name == "reference" else [""] * len(setting)),
                    name,
                    *map(milliseconds, (times.p50_us, times.p90_us, times.p99_us, times.cpu_p50_us)),
                    figures.number(times.throughput, 3),
                    _interval(latency) if name == "quantized" else "",
                )
    return table


def _interval(latency: LatencyComparison) -> str:
    if latency.speedup is None or latency.low is None or latency.high is None:
        return ""
    return f"{latency.speedup:.2f}× ({latency.low:.2f} to {latency.high:.2f})"


def _ops(profile: Profile, top: int | None) -> RenderableType:
    shown = profile.ops if top is None else profile.ops[:top]
    pair = profile.quantized is not None
    table = _table(f"Time per op, µs of one inference, the {len(shown)} slowest of {len(profile.ops)}")
    table.add_column("op", overflow="fold")
    table.add_column("type", no_wrap=True)
    columns = ("float", "quantized", "speed-up", "added", "share", "of peak") if pair else ("µs", "share", "of peak")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("runs in", no_wrap=True)
    for row in shown:
        side = row.quantized if pair else row.reference
        cells: list[str | Text] = [_us(row.reference)]
        if pair:
            cells += [_us(row.quantized), _speedup(row), _added_us(row.quantized)]
        cells += [f"{side.share:.1%}" if side is not None else "–", _peak(side)]
        table.add_row(_name(row), row.op_type, *cells, side.dtype if side is not None else "")
    return table


def _name(row: OpTiming) -> Text:
    more = f" +{len(row.ops) - 1}" if len(row.ops) > 1 else ""
    return Text.assemble(figures.shortened(row.name, _NAME_WIDTH - len(more)), (more, "dim"))


def _speedup(row: OpTiming) -> Text:
    if row.speedup is None:
        return Text("–", style="dim")
    style = "green" if row.speedup > 1 + _SAME else "red" if row.speedup < 1 - _SAME else ""
    return Text(f"{row.speedup:.2f}×", style=style)


def _us(side: OpSide | None) -> str:
    return f"{side.total_us:.0f}" if side is not None else "–"


def _added_us(side: OpSide | None) -> str:
    return f"{side.added_us:.0f}" if side is not None and side.added_us >= 0.5 else ""


def _peak(side: OpSide | None) -> str:
    return f"{side.peak_share:.0%}" if side is not None and side.peak_share is not None else ""


def _added(profile: Profile) -> RenderableType:
    table = _table("Added by the framework and by quantization, µs")
    table.add_column("type")
    for column in ("float", "kernels", "quantized", "kernels"):
        table.add_column(column, justify="right")
    for row in profile.added:
        table.add_row(
            row.op_type,
            f"{row.reference_us:.0f}",
            str(row.reference_count),
            f"{row.quantized_us:.0f}",
            str(row.quantized_count),
        )
    return table


def _reasons(profile: Profile) -> RenderableType:
    total_us = profile.quantized.sums.kernels_us if profile.quantized is not None else 0.0
    costly = [reason for reason in profile.reasons if reason.cost_us >= _SMALLEST_SHARE * total_us]
    shown = costly[:_SHOWN_REASONS]
    lines: list[RenderableType] = [Text("Why it is not faster", style="bold")]
    if not shown:
        lines.append(Text("nothing found that costs as much as 1 % of the time", style="dim"))
    for number, reason in enumerate(shown, 1):
        more = f" and {len(reason.ops) - _SHOWN_OPS} more" if len(reason.ops) > _SHOWN_OPS else ""
        ops = ", ".join(reason.ops[:_SHOWN_OPS]) + more
        lines.append(Text.assemble(f"{number}. ", (reason.title, "bold"), (f"  {reason.rule}", "dim")))
        details = [Text(reason.evidence), Text.assemble(("do: ", "green"), reason.change)]
        if ops:
            details.insert(0, Text(ops, style="cyan"))
        if reason.tried is not None:
            details.append(Text.assemble(("tried: ", "green"), _gain(reason.tried)))
        lines.append(Padding(Group(*details), (0, 0, 0, 3)))
    rest = len(profile.reasons) - len(shown)
    if rest:
        lines.append(Text(f"and {rest} that cost less: --json or the web app show all", style="dim"))
    return Group(*lines)


def _rewritten(written: Rewritten) -> RenderableType:
    return Group(
        Text.assemble(("Written: ", "bold green"), (written.path, "bold")),
        *(Text(f"   changed: {change}") for change in written.changes),
        Text(f"   {_gain(written.measured)}"),
        Text(f"   its outputs are those of the quantized model, bit for bit, on {_samples(written.samples)}"),
    )


def _gain(tried: Tried) -> str:
    times = f"{milliseconds(tried.before_us)} → {milliseconds(tried.after_us)}"
    return f"{times}, {tried.gain:.2f}× ({tried.low:.2f} to {tried.high:.2f})"


def _samples(count: int) -> str:
    return f"{count} sample{'s' * (count != 1)}"


def _models(profile: Profile) -> RenderableType:
    table = _table("Models")
    for column in ("", "file", "load", "memory", "sum of ops", "of latency", "under own names", "profiler adds"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, fact in (("reference", profile.reference), ("quantized", profile.quantized)):
        if fact is not None:
            s = fact.sums
            table.add_row(
                name,
                _bytes(fact.bytes),
                f"{fact.load_ms:.0f} ms",
                _bytes(fact.peak_memory_bytes),
                milliseconds(s.kernels_us),
                f"{s.agreement:.0%}",
                f"{s.attributed:.1%}",
                f"{s.overhead:.0%}",
            )
    peak = profile.peak
    line = (
        f"this processor at most: {peak.float_multiply_adds / 1e9:.0f} billion multiply-adds/s in float, "
        f"{peak.int8_multiply_adds / 1e9:.0f} in int8, {peak.bytes_per_second / 1e9:.0f} GB/s"
    )
    return Group(table, Text(line, style="dim"))


def _next_steps(profile: Profile, top: int | None) -> list[str]:
    if not profile.run:
        return []
    run = shlex.quote(profile.run)
    steps = []
    if profile.rewritten is None and any(reason.exact for reason in profile.reasons):
        # A name that the user will change: the suffix is that of the model's framework.
        suffix = Path(profile.reference.path or "model.onnx").suffix
        steps += ["A faster model with the same outputs:", f"  quantscope profile {run} --output faster{suffix}"]
    if top is not None and len(profile.ops) > top:
        steps += ["All ops:", f"  quantscope show {run} --all"]
    return [*steps, "All columns, charts and the graph:", f"  quantscope serve {run}"]


def milliseconds(us: float) -> str:
    """A time in ms with three digits."""
    return f"{figures.number(us / 1000, 3)} ms"


def _bytes(count: int | None) -> str:
    return f"{count / 2**20:.1f} MiB" if count is not None else "–"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
