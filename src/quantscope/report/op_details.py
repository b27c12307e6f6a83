"""All that is known of one op, in the terminal: its errors, what they are made of, its values and its channels."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantscope.diagnosis import Diagnosis, OpDiagnosis, TensorDiagnosis
from quantscope.errors import DataError
from quantscope.graph import Graph
from quantscope.report import figures
from quantscope.statistics.budget import PARTS, ErrorBudget

_BAR = 30
_COLUMNS = 72
_HEIGHTS = " ▁▂▃▄▅▆▇█"
_WORST_CHANNELS = 5
# A channel whose range is this share of the widest holds nothing.
_NEGLIGIBLE = 1e-6
_MEANING = {
    "inherited": "came in with its inputs",
    "weight": "rounding of its weight",
    "bias": "rounding of its bias",
    "clipping": "values beyond the output's range",
    "rounding": "rounding of its output",
    "residual": "kernels, and what is not told apart",
}


def op_details(diagnosis: Diagnosis, name: str) -> RenderableType:
    """The page of one op.

    Raises:
        DataError: no op of the diagnosis has this name; the nearest names are given.
    """
    found = next((op for op in diagnosis.rows if op.op == name), None)
    if found is None:
        reason = diagnosis.skipped.get(name)
        if reason is not None:
            raise DataError(f"op {name!r} has no row: {reason}", next_step="look at an op beside it")
        known = [op.op for op in diagnosis.rows]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[:3]
        raise DataError(f"no op {name!r} in {diagnosis.run or 'this diagnosis'}", accepted=", ".join(near))
    parts: list[RenderableType] = [Text.assemble((found.op, "bold"), f"  {found.op_type}", (f"  {found.scope}", "dim"))]
    if diagnosis.graph is not None:
        parts += _place(diagnosis, diagnosis.graph, found)
    for tensor in found.activations:
        parts += [Text(""), *_activation(tensor)]
    for tensor in found.weights:
        parts += [Text(""), *_weight(tensor)]
    return Group(*parts)


def _place(diagnosis: Diagnosis, graph: Graph, found: OpDiagnosis) -> Iterator[RenderableType]:
    op = graph.by_name.get(found.op)
    if op is None:
        return
    levels = {t.tensor: t for t in diagnosis.activations}

    def described(name: str) -> str:
        row = levels.get(name)
        return f"{name} ({figures.decibel(row.sqnr_db)} dB)" if row is not None else name

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    attributes = ", ".join(f"{key}={value}" for key, value in op.attributes.items())
    if attributes:
        grid.add_row("attributes", Text(attributes))
    inputs = [name for name in op.inputs if name and name not in graph.constants]
    grid.add_row("reads", Text(", ".join(map(described, inputs)) or "constants alone"))
    readers = [o.name for name in op.outputs for o in graph.consumers.get(name, ())]
    grid.add_row("is read by", Text(", ".join(readers) or "nobody: it is an output of the model"))
    yield grid


def _heading(tensor: TensorDiagnosis, kind: str) -> Text:
    text = Text.assemble((f"{kind} {tensor.tensor}", "bold"))
    if not tensor.is_quantized:
        return text.append("  left in float", style="dim")
    codes = f"  {tensor.dtype} {tensor.granularity}"
    if not math.isnan(tensor.scale):
        codes += f", scale {figures.number(tensor.scale)}, zero point {tensor.zero_point}"
    if tensor.levels_used is not None:
        codes += f", {tensor.levels_used} levels used"
    return text.append(codes, style="dim")


def _activation(tensor: TensorDiagnosis) -> Iterator[RenderableType]:
    yield _heading(tensor, "activation")
    if tensor.remark:
        yield Text(tensor.remark, style="bold red" if tensor.non_finite_count else "yellow")
    yield _errors(tensor)
    if tensor.budget is not None:
        yield _budget(tensor.budget)
    yield _values(tensor)
    yield from _histogram(tensor)
    yield from _channels(tensor)


def _weight(tensor: TensorDiagnosis) -> Iterator[RenderableType]:
    yield _heading(tensor, tensor.role)
    yield _errors(tensor)
    yield _values(tensor)
    yield from _histogram(tensor)
    yield from _channels(tensor)


def _errors(tensor: TensorDiagnosis) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("error")
    for column in ("SQNR dB", "MSE"):
        table.add_column(column, justify="right")
    table.add_column("of what", style="dim")
    rows = [("cumulative", tensor.sqnr_db, tensor.mse, "with all that came before the op")]
    if tensor.role == "activation":
        rows += [
            ("isolated", tensor.isolated_sqnr_db, tensor.isolated_mse, "the op alone quantized, on reference inputs"),
            ("local", tensor.local_sqnr_db, tensor.local_mse, "rounding and clipping of this tensor alone"),
            ("simulated", tensor.simulated_sqnr_db, math.nan, "cumulative, with the quantization simulated in float"),
            ("kernels", tensor.kernels_sqnr_db, math.nan, "what really runs against the simulation"),
        ]
    for name, sqnr_db, mse, meaning in rows:
        if not (math.isnan(sqnr_db) and math.isnan(mse)):
            table.add_row(name, figures.decibel(sqnr_db), figures.number(mse), meaning)
    return table


def _budget(budget: ErrorBudget) -> RenderableType:
    """A bar for each part of the error; a negative one cancels some of the others."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("error budget")
    table.add_column("share", justify="right")
    table.add_column(f"of the MSE {figures.number(budget.mse)} over {budget.count} values")
    table.add_column("")
    for part in PARTS:
        share = getattr(budget, part) / budget.mse if budget.mse else math.nan
        width = 0 if math.isnan(share) else min(round(abs(share) * _BAR), _BAR)
        bar = Text("█" * width, style="red" if share > 0 else "green")
        table.add_row(part, "–" if math.isnan(share) else f"{share:.1%}", bar, Text(_MEANING[part], style="dim"))
    return table


def _values(tensor: TensorDiagnosis) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("values")
    columns = ("min", "max", "mean", "std", "variance", "kurtosis", "outlier_ratio")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for side, summary in (("reference", tensor.reference), ("quantized", tensor.quantized)):
        table.add_row(side, *(figures.number(getattr(summary, column)) for column in columns))
    return table


def _histogram(tensor: TensorDiagnosis) -> Iterator[Text]:
    """Both distributions on the same bins; the range that codes can represent is marked below."""
    histogram = tensor.histogram
    if histogram is None or not histogram.reference.any():
        return
    edges = histogram.edges
    used = np.flatnonzero(histogram.reference + histogram.quantized)
    first, last = int(used[0]), int(used[-1]) + 1
    bins = np.array_split(np.arange(first, last), min(_COLUMNS, last - first))
    for side, counts in (("reference", histogram.reference), ("quantized", histogram.quantized)):
        yield Text.assemble((f"{side:10}", "dim"), _bars([int(counts[b].sum()) for b in bins]))
    low, high = figures.number(float(edges[first])), figures.number(float(edges[last]))
    yield Text(f"{'':10}{low}{high:>{max(len(bins) - len(low), len(high) + 1)}}", style="dim")
    if tensor.clipped_fraction > 0:
        yield Text(f"{'':10}{figures.share(tensor.clipped_fraction)} of the values are clipped", style="yellow")


def _bars(counts: Sequence[int]) -> str:
    """A character per count, its height by the logarithm: tails matter."""
    levels = [math.log1p(count) for count in counts]
    top = max(levels) or 1.0
    return "".join(_HEIGHTS[math.ceil(level / top * (len(_HEIGHTS) - 1))] for level in levels)


def _channels(tensor: TensorDiagnosis) -> Iterator[RenderableType]:
    channels = tensor.channels
    if channels is None or len(channels.minimum) < 2:
        return
    widths: NDArray[np.float64] = np.nan_to_num(channels.maximum - channels.minimum)
    widest = float(widths.max())
    alive = widths[widths > widest * _NEGLIGIBLE]
    text = f"{len(widths)} channels on axis {channels.axis}"
    if len(alive):
        text += f": the widest range is {figures.number(widest / float(alive.min()), 3)} times the narrowest"
    yield Text(text + (f", {len(widths) - len(alive)} are as good as constant" if len(alive) < len(widths) else ""))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("worst channels", "SQNR dB", "MSE", "min", "max", "mean", "std"):
        table.add_column(column, justify="right")
    for index in np.argsort(-np.nan_to_num(channels.mse))[:_WORST_CHANNELS].tolist():
        table.add_row(
            str(index),
            figures.decibel(float(channels.sqnr_db[index])),
            *(
                figures.number(float(values[index]))
                for values in (channels.mse, channels.minimum, channels.maximum, channels.mean, channels.std)
            ),
        )
    yield table
