"""The profile that `BenchmarkConfig(diagnosis=True)` asks for: its run file, its table, and its two files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from quantscope import workflows
from quantscope.backends.base import Model
from quantscope.neural_compressor import loaders
from quantscope.neural_compressor.config import BenchmarkConfig, options
from quantscope.neural_compressor.diagnosing import free_run
from quantscope.profiling import Profile
from quantscope.report.tables import write_whole

COLUMNS: Mapping[str, str] = {
    "Node name": "node_name",
    "Total execution time [us]": "total_execution_time",
    "Accelerator execution time [us]": "accelerator_execution_time",
    "CPU execution time [us]": "cpu_execution_time",
    "OP run": "op_run",
    "OP defined": "op_defined",
}
"""The columns of the table, by their names in the JSON file."""
_SHOWN = 20
_FIGURE_WIDTH = 14
_CSV, _JSON = "profiling_table.csv", "profiling_data.json"


def profiled(given: object, model: Model, loader: Any, batch_size: int, conf: BenchmarkConfig) -> Profile:
    """Return the profile of a model on a batch of the loader, and write it to the workspace: a run, CSV and JSON.

    Args:
        given: the model as the user gave it.
        model: the same, loaded.
        loader: gives batches.
        batch_size: how many samples to feed at once.
        conf: how to measure.
    """
    samples = loaders.samples_of(loader, model.graph.inputs, stop=batch_size)
    run = free_run(conf.ni_workload_name)
    profile = workflows.profile(given, data=samples, batches=(batch_size,), threads=(conf.threads,), run=run)
    found = entries(profile)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(COLUMNS))
    writer.writeheader()
    writer.writerows({title: entry[key] for title, key in COLUMNS.items()} for entry in found)
    write_whole(_file(_CSV), table.getvalue().encode())
    write_whole(_file(_JSON), json.dumps(found, indent=4).encode())
    return profile


def entries(profile: Profile) -> list[dict[str, Any]]:
    """The ops, slowest first: times in µs of one inference, how often their kernels run in it, and how many there are.

    `ops` are all those whose work the row's kernels do, `node_name` the one of them with most multiply-adds.
    """
    return [
        {
            "node_name": row.name,
            "total_execution_time": round(side.total_us, 3),
            "accelerator_execution_time": round(side.accelerator_us, 3),
            "cpu_execution_time": round(side.total_us - side.accelerator_us, 3),
            "op_run": round(side.calls, 3),
            "op_defined": side.defined,
            "op_type": row.op_type,
            "ops": list(row.ops),
        }
        for row in profile.ops
        if (side := row.reference) is not None
    ]


def show(profile: Profile) -> None:
    """Print the table, and where the rest of it is."""
    from quantscope.report.terminal import console

    found = entries(profile)
    table = Table(title="Profiling", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for title in COLUMNS:
        name = title == "Node name"
        justify: Literal["left", "right"] = "left" if name else "right"
        # "[us]" is text here, no markup.
        table.add_column(Text(title), justify=justify, overflow="fold", max_width=None if name else _FIGURE_WIDTH)
    for entry in found[:_SHOWN]:
        op, *figures = (entry[key] for key in COLUMNS.values())
        table.add_row(Text(op), *(f"{figure:.0f}" for figure in figures))
    out = console()
    out.print(table)
    more = f"the slowest {_SHOWN} of {len(found)} ops; " if len(found) > _SHOWN else ""
    out.print(f"{more}all of them: {_file(_CSV)}, {_file(_JSON)}, quantscope show {profile.run}", soft_wrap=True)


def _file(name: str) -> Path:
    return Path(options.workspace) / name
