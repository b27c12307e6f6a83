"""The tables as rows of plain values, and as CSV, JSON, Parquet and data frames."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from quantscope.diagnosis import Diagnosis, TensorDiagnosis, TensorSummary
from quantscope.errors import OutputError, UnsupportedError
from quantscope.pairing import Role
from quantscope.profiling.document import OpSide, Profile
from quantscope.statistics.budget import PARTS

NESTED = ("reference", "quantized", "budget", "histogram", "channels")
_OWN = tuple(f.name for f in fields(TensorDiagnosis) if f.name not in NESTED)
_SUMMARY = tuple(
    (side, f.name, f"{side}_{f.name}") for side in ("reference", "quantized") for f in fields(TensorSummary)
)  # fmt: skip
_TIMES = tuple(f.name for f in fields(OpSide) if f.name != "kernels")
_SHARES = tuple((part, f"budget_{part}") for part in PARTS)


def row(tensor: TensorDiagnosis) -> dict[str, Any]:
    """A row as plain values: the columns of both models are called reference_min, quantized_min and so on.

    The parts of the error budget, budget_inherited and so on, are shares of the mean squared error.
    """
    values = {name: getattr(tensor, name) for name in _OWN}
    for side, name, column in _SUMMARY:
        values[column] = getattr(getattr(tensor, side), name)
    for part, column in _SHARES:
        values[column] = getattr(tensor.budget, part) if tensor.budget is not None else math.nan
    values["remark"] = tensor.remark
    return values


def rows(diagnosis: Diagnosis, role: Role | None = None) -> list[dict[str, Any]]:
    """The rows of a role worst first; of all roles, activations before weights before biases, without one."""
    if role == "bias" or role is None:
        biases = [t for t in diagnosis.tensors if t.role == "bias"]
        chosen: Iterable[TensorDiagnosis] = biases if role else (*diagnosis.activations, *diagnosis.weights, *biases)
    else:
        chosen = diagnosis.weights if role == "weight" else diagnosis.activations
    return [row(tensor) for tensor in chosen]


def strict(value: Any) -> Any:
    """The value with what JSON cannot say replaced: nan by null, infinity by "Infinity" or "-Infinity"."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {key: strict(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(v) for v in value]
    return value


def timing_rows(profile: Profile) -> list[dict[str, Any]]:
    """The times of a profile: a row per op, the columns of both models called reference_us, quantized_us and so on.

    Total, accelerator and CPU time in µs, calls and kernels are Neural Insights' columns "Total execution time",
    "Accelerator execution time", "CPU execution time", "OP run" and "OP defined".
    """
    return [
        {
            **{name: getattr(timing, name) for name in ("name", "op_type", "scope", "multiply_adds", "speedup")},
            "ops": " ".join(timing.ops),
            **{
                f"{side}_{column}": getattr(getattr(timing, side), column, None)
                for side in ("reference", "quantized")
                for column in _TIMES
            },
        }
        for timing in profile.ops
    ]


def _table(result: Diagnosis | Profile) -> list[dict[str, Any]]:
    return timing_rows(result) if isinstance(result, Profile) else rows(result)


def as_csv(result: Diagnosis | Profile) -> bytes:
    """All rows as CSV with a header."""
    table = _table(result)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(table[0]) if table else ["op"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return buffer.getvalue().encode()


def as_json(result: Diagnosis | Profile) -> bytes:
    """The whole document as JSON."""
    from quantscope.report.document import document, profile_document

    values = profile_document(result) if isinstance(result, Profile) else document(result)
    return json.dumps(strict(values), indent=2).encode() + b"\n"


def as_parquet(result: Diagnosis | Profile) -> bytes:
    """All rows as a Parquet table.

    Raises:
        UnsupportedError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UnsupportedError(
            "Parquet needs the package pyarrow", next_step="install it: pip install 'quantscope[parquet]'"
        ) from error
    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(_table(result)), buffer)
    content: bytes = buffer.getvalue().to_pybytes()
    return content


FORMATS = {"csv": as_csv, "json": as_json, "parquet": as_parquet}


def frame(diagnosis: Diagnosis, role: Role) -> Any:
    """A pandas DataFrame of the rows of a role.

    Raises:
        UnsupportedError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UnsupportedError(
            "data frames need the package pandas", next_step="install it: pip install 'quantscope[pandas]'"
        ) from error
    return pandas.DataFrame(rows(diagnosis, role))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, then rename it: it appears whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    # Not a temporary file, which nobody else could read under its new name either.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}", next_step="choose another place with --output"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
