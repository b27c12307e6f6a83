"""Where the time of a run's models goes, as plain values in the form that `api` describes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from quantscope.profiling import OpTiming, Profile
from quantscope.runfile import RunFile
from quantscope.serve import api
from quantscope.serve.kept import Kept
from quantscope.serve.problems import MissingError
from quantscope.serve.summary import revision

_kept: Kept[Profile] = Kept(2)


def profile(run: RunFile) -> dict[str, Any]:
    """All of a profile but the kernels, its ops in columns."""
    found = _profile(run)
    plain = dataclasses.replace(found, ops=()).to_dict()
    return {**plain, "ops": _columns(found.ops)}


def kernels(run: RunFile, index: int) -> dict[str, Any]:
    """The kernels of one op in both models."""
    ops = _profile(run).ops
    if index >= len(ops):
        raise MissingError(f"no op {index} in a profile of {len(ops)} ops")
    return _kernels(ops[index])


def all_kernels(run: RunFile) -> list[dict[str, Any]]:
    """The kernels of every op, each as `kernels` has it."""
    return [_kernels(op) for op in _profile(run).ops]


def _profile(run: RunFile) -> Profile:
    """The profile; those of the last runs that were asked for stay.

    Raises:
        MissingError: the run has none.
        RunFileError: it is damaged.
    """
    path = run.path
    assert path is not None
    return _kept.get((path, revision(path)), lambda: _read(run, path))


def _read(run: RunFile, path: Path) -> Profile:
    found = run.profile()
    if found is None:
        raise MissingError(f"{path.name} was not profiled", next_step="measure it with: quantscope profile")
    return found


def _columns(ops: Iterable[OpTiming]) -> dict[str, list[Any]]:
    table = [_row(op) for op in ops]
    return {column: [line[column] for line in table] for column in api.OpTimings.model_fields}


def _row(op: OpTiming) -> dict[str, Any]:
    sides: dict[str, Any] = {}
    for side in get_args(api.Side):
        found = getattr(op, side)
        for name in api.OP_SIDE:
            sides[f"{side}_{name}"] = getattr(found, name) if found is not None else "" if name == "dtype" else None
    return {
        "name": op.name, "op_type": op.op_type, "scope": op.scope, "ops": list(op.ops),
        "multiply_adds": op.multiply_adds, "speedup": op.speedup, **sides,
    }  # fmt: skip


def _kernels(op: OpTiming) -> dict[str, Any]:
    sides = {side: getattr(op, side) for side in get_args(api.Side)}
    return {
        "name": op.name,
        **{
            side: None if found is None else [dataclasses.asdict(kernel) for kernel in found.kernels]
            for side, found in sides.items()
        },
    }
