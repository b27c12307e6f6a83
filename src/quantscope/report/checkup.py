"""A machine and a model's saturation in the terminal."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantscope.backends.base import Peak
from quantscope.doctor import Checkup
from quantscope.machine import Machine
from quantscope.report import figures
from quantscope.saturation import OpSaturation, OutputChange, Saturation

_GIB = 2**30
_GIGA = 1e9
# Numbers of threads give the same gain within a tenth on a machine that does nothing else.
_DISTURBED = 1.3
# As in the tables of a diagnosis: below 10 dB the noise is a tenth of the signal's power, above 30 a thousandth.
_BAD_DB, _GOOD_DB = 10.0, 30.0


def print_checkup(out: Console, found: Checkup) -> None:
    """Print what the machine is, what it was measured to do, and what to choose."""
    out.print(_machine(found))
    if found.peaks:
        out.print()
        out.print(_peaks(found.peaks))
        out.print()
        out.print(_verdict(found.peaks))
    out.print()
    out.print(_choices(found))
    out.print()
    out.print(Text("Quantize for this machine", style="bold"))
    out.print(Text(f"  {found.command}"), soft_wrap=True)


def _machine(found: Checkup) -> RenderableType:
    here, framework = found.machine, found.framework
    notable = here.processor.notable
    present, missing = (", ".join(n for n, has in notable.items() if has == wanted) for wanted in (True, False))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("processor", f"{here.processor.name} ({here.processor.architecture})")
    if here.processor.features is None:
        grid.add_row("instructions", "not known")
    elif notable:
        grid.add_row("instructions", Text(present or "none that matter for int8", style="bold"))
        grid.add_row("without", Text(missing or "none that matter for int8", style="dim"))
    grid.add_row("cores", _cores(here))
    total, free = (f"{size / _GIB:.1f} GiB" for size in (here.memory_total_bytes, here.memory_free_bytes))
    grid.add_row("memory", f"{total}, {free} free")
    threads = f"{framework.default_threads} thread{'s' * (framework.default_threads != 1)} by default"
    grid.add_row("framework", f"{framework.name} {framework.version} on {', '.join(framework.providers)}; {threads}")
    grid.add_row("build", Text(framework.build, style="dim"))
    return grid


def _cores(here: Machine) -> str:
    parts = [f"{here.physical_cores} physical"] if here.physical_cores is not None else []
    parts += [f"{here.logical_cores} logical", f"{here.usable_cores} for this process"]
    if here.core_quota is not None:
        parts.append(f"the time of {here.core_quota:g}")
    return ", ".join(parts)


def _peaks(peaks: dict[int, Peak]) -> RenderableType:
    table = _table()
    table.add_column("threads", justify="right")
    for column in ("float", "U8S8", "", "S8S8", "", "memory, GB/s"):
        table.add_column(column, justify="right", no_wrap=True)
    for threads, peak in peaks.items():
        unsigned = peak.int8_multiply_adds / peak.float_multiply_adds
        signed = peak.signed_multiply_adds / peak.float_multiply_adds
        table.add_row(
            str(threads), _giga(peak.float_multiply_adds),
            _giga(peak.int8_multiply_adds), _times(unsigned),
            _giga(peak.signed_multiply_adds), _times(signed),
            _giga(peak.bytes_per_second),
        )  # fmt: skip
    return _titled("Measured — 10⁹ multiply-adds per second, best of many matrix products", table)


def _giga(value: float) -> str:
    return figures.number(value / _GIGA, 3)


def _times(ratio: float) -> Text:
    return Text(f"{ratio:.1f}×", style="green" if ratio >= 1.1 else "bold red" if ratio < 0.9 else "yellow")


def _verdict(peaks: dict[int, Peak]) -> RenderableType:
    """How much faster int8 is than float, in a sentence or two."""
    peak = peaks[max(peaks)]
    unsigned = peak.int8_multiply_adds / peak.float_multiply_adds
    signed = peak.signed_multiply_adds / peak.float_multiply_adds
    best, name = max((unsigned, "U8S8"), (signed, "S8S8"))
    lines = Text.assemble("int8 is ", (f"{best:.1f}× float", "bold"), f" here ({name})")
    if min(unsigned, signed) < best / 2:
        other = "S8S8" if name == "U8S8" else "U8S8"
        lines.append(f"; {other} is {min(unsigned, signed):.1f}×")
    lines.append(": what products gain at most, for a model also reads, writes and rounds")
    gains = [p.int8_multiply_adds / p.float_multiply_adds for p in peaks.values()]
    if max(gains) > _DISTURBED * min(gains):
        lines.append("\nnote: the gain differs between numbers of threads; is something else working here?", "yellow")
    return lines


def _choices(found: Checkup) -> RenderableType:
    table = _table()
    for column in ("about", "choose", "because"):
        table.add_column(column, overflow="fold")
    for chosen in found.recommendations:
        table.add_row(Text(chosen.subject), Text(chosen.choice, style="bold"), Text(chosen.reason))
    return _titled("What to choose", table)


def print_saturation(out: Console, found: Saturation, top: int | None) -> None:
    """Print what saturates, the first `top` ops that lose most, and what becomes of the outputs; all ops if None."""
    out.print(_headline(found), soft_wrap=True)
    out.print()
    if found.saturated:
        out.print(_ops(found.ops, top))
        out.print()
        out.print(_outputs(found))
        out.print()
    for reason, count in Counter(found.skipped.values()).most_common():
        out.print(Text(f"{count} product{'s' * (count != 1)} without a row: {reason}", style="dim"), soft_wrap=True)
    out.print(_here(found), soft_wrap=True)
    for line in _next_steps(found):
        out.print(Text(f"  {line}"), soft_wrap=True)


def _headline(found: Saturation) -> Text:
    samples = f"{found.samples} sample{'s' * (found.samples != 1)}"
    if not found.ops:
        return Text(f"Nothing can saturate: no pair of products goes beyond 16 bits, whatever the samples ({samples})")
    if not found.saturated:
        return Text(f"Nothing saturates: all {found.pairs:,} pairs of products on {samples} fit 16 bits")
    ops = sum(op.saturated > 0 for op in found.ops)
    return Text.assemble(
        ("Without VNNI ", "bold"),
        f"{found.saturated:,} of {found.pairs:,} pairs of products "
        f"({figures.share(found.saturated / found.pairs)}) would saturate, in {ops} of {len(found.ops)} ops "
        f"on {samples}",
    )


def _ops(ops: Sequence[OpSaturation], top: int | None) -> RenderableType:
    rows = sorted((op for op in ops if op.saturated), key=lambda op: op.sqnr_db)
    shown = len(rows) if top is None else min(top, len(rows))
    table = _table()
    table.add_column("Op", overflow="fold")
    table.add_column("type")
    for column in ("pairs\nsaturated", "share", "outputs\nhit", "SQNR\ndB"):
        table.add_column(column, justify="right", no_wrap=True)
    for op in rows[:top]:
        table.add_row(
            Text(op.op), op.op_type, f"{op.saturated:,}", figures.share(op.share),
            figures.share(op.changed_share), _decibel(op.sqnr_db),
        )  # fmt: skip
    return _titled(f"Ops that saturate — {shown} of {len(rows)}, those first that lose most by themselves", table)


def _outputs(found: Saturation) -> RenderableType:
    table = _table()
    table.add_column("output", overflow="fold")
    compared = any(output.exact_db is not None for output in found.outputs)
    beside = ("exact against\nfloat, dB", "saturated against\nfloat, dB") if compared else ()
    for column in ("saturated against\nexact, dB", *beside):
        table.add_column(column, justify="right", no_wrap=True)
    for output in found.outputs:
        table.add_row(Text(output.name), *_levels(output, compared))
    if found.top1_changed is not None:
        table.add_row("decisions changed (top-1)", Text(figures.share(found.top1_changed), style="bold"))
    if found.score is not None:
        score = found.score
        before, after = (figures.metric_value(score.metric, v) for v in (score.reference, score.quantized))
        name = "agreement with exact" if score.metric == "agreement" else score.metric
        table.add_row(name, f"{before} → {after}")
    return _titled("What becomes of the outputs, with all of it added up", table)


def _levels(output: OutputChange, compared: bool) -> list[Text]:
    values = [output.sqnr_db, *((output.exact_db, output.saturated_db) if compared else ())]
    return [_decibel(math.nan if value is None else value) for value in values]


def _here(found: Saturation) -> Text:
    if found.here:
        return Text(f"This processor, {found.processor}, saturates: this is what runs here.", style="bold")
    return Text(
        f"This processor, {found.processor}, does not saturate: this is what processors without VNNI would do."
        if found.saturated
        else f"This processor, {found.processor}, does not saturate, and those without VNNI would not on these samples."
    )


def _next_steps(found: Saturation) -> list[str]:
    """How to get a model that saturates nowhere."""
    if not found.saturated:
        return []
    model = shlex.quote(found.model) if found.quantized_here and found.model else "MODEL.onnx"
    return [f"without saturation: quantscope quantize {model} OUTPUT.onnx --data SOURCE --reduce-range"]


def _decibel(value: float) -> Text:
    style = ""
    if not math.isnan(value):
        style = "bold red" if value < _BAD_DB else "green" if value > _GOOD_DB else "yellow"
    return Text(figures.decibel(value), style=style)


def _titled(title: str, table: Table) -> RenderableType:
    """A table below a title that may be wider."""
    return Group(Text(title, style="bold"), table)


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="dim")
