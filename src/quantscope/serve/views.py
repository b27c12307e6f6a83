"""What each page needs of a run, as plain values in the form that `api` describes."""

from __future__ import annotations

import math
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from quantscope import advice
from quantscope.advice.commands import arguments_of, profile_arguments_of
from quantscope.diagnosis import Diagnosis, SharedHistogram, TensorDiagnosis
from quantscope.evaluation import Score
from quantscope.fallback.search import Criterion, Search, Trial, as_fast, trial_from
from quantscope.qparams import QuantSpec
from quantscope.recipe import Recipe
from quantscope.recipe_file import text
from quantscope.report.document import overview
from quantscope.report.tables import row as plain_row
from quantscope.runfile import RunFile
from quantscope.serve import api
from quantscope.serve.encoding import packed, shorter
from quantscope.serve.kept import Kept
from quantscope.serve.picture import Picture, picture
from quantscope.serve.problems import MissingError
from quantscope.serve.summary import accuracy, figure, revision, summary
from quantscope.statistics.budget import ErrorBudget
from quantscope.statistics.channels import ChannelStatistics

CHANNEL_FIGURES = (
    "minimum", "maximum", "mean", "std", "quantized_minimum", "quantized_maximum", "quantized_mean", "quantized_std",
    "mse", "sqnr_db",
)  # fmt: skip


def about(folder: Path, *, live: bool) -> api.About:
    """The server itself."""
    return api.About(version=version("quantscope"), workspace=str(folder), live=live)


def document(run: RunFile) -> api.RunDocument:
    """All about a run but its tables."""
    path = _path(run)
    drawn, rows = _picture(run, "reference"), _rows(run)
    diagnosis = run.diagnosis(rows.values(), drawn.graph if drawn is not None else None)
    facts = overview(diagnosis)
    positions = {t.tensor: position for position, t in rows.items() if t.role == "activation"}
    recipe = diagnosis.recipe
    models = run.about("models") or {}
    sources = [
        api.FailureSource(
            op=source.row.op,
            row=positions[source.row.tensor],
            inputs_db=figure(source.inputs_db),
            sqnr_db=figure(source.row.sqnr_db),
        )
        for source in diagnosis.failure_sources
    ]
    return api.RunDocument(
        summary=summary(path, revision(path)),
        document_version=facts["document_version"],
        accuracy=[accuracy(score) for score in _scores(run, diagnosis)],
        reference=_model_file(models.get("reference"), drawn),
        quantized=_model_file(models.get("quantized") or _written(run), _picture(run, "quantized")),
        output=run.about("output"),
        samples=facts["samples"],
        environment=facts["environment"],
        recipe=facts["recipe"],
        recipe_toml=text(recipe) if recipe is not None else None,
        coverage=figure(diagnosis.coverage) if run.about("compute_ops") is not None else None,
        skipped=facts["skipped"],
        trace=diagnosis.trace,
        measuring_changed=None if diagnosis.measuring_changed is None else figure(diagnosis.measuring_changed),
        first_not_finite=facts["first_not_finite"],
        failure_sources=sources,
        notes=facts["notes"],
        stages=[api.Stage(**{**stage, "finished": bool(stage["finished"])}) for stage in facts["stages"]],
        op_types=_op_types(diagnosis),
        command=_command(run),
    )


def _command(run: RunFile) -> str:
    """The command that does the same again."""
    kind = run.about("kind") or "diagnose"
    arguments = profile_arguments_of if kind == "profile" else arguments_of
    return shlex.join(["quantscope", kind, *arguments(_path(run))])


def _path(run: RunFile) -> Path:
    assert run.path is not None
    return run.path


def _scores(run: RunFile, diagnosis: Diagnosis) -> Sequence[Score]:
    search = _search(run)
    return (search.best.score,) if search is not None else diagnosis.scores


def _model_file(identity: Mapping[str, Any] | None, drawn: Picture | None) -> api.ModelFile:
    known = identity or {}
    ops = len(drawn.graph.ops) if drawn is not None else None
    return api.ModelFile(path=known.get("path"), bytes=known.get("bytes"), ops=ops)


def _written(run: RunFile) -> dict[str, Any] | None:
    """The model that the run wrote, if it is there."""
    output = run.about("output")
    return {"path": output, "bytes": os.path.getsize(output)} if output and os.path.isfile(output) else None


def _op_types(diagnosis: Diagnosis) -> list[api.OpTypeCount]:
    """The compared ops by type, the most frequent first; one with any tensor in codes is quantized."""
    total: Counter[str] = Counter()
    quantized: Counter[str] = Counter()
    for op in diagnosis.rows:
        total[op.op_type] += 1
        quantized[op.op_type] += any(t.is_quantized for t in (*op.activations, *op.weights))
    return [
        api.OpTypeCount(op_type=t, total=n, quantized=quantized[t], in_float=n - quantized[t])
        for t, n in total.most_common()
    ]


_kept_rows: Kept[Mapping[int, TensorDiagnosis]] = Kept(2)


def _rows(run: RunFile) -> Mapping[int, TensorDiagnosis]:
    """The rows so far by position, without histograms and channels; those of the last runs that were asked for stay."""
    path = _path(run)
    return _kept_rows.get((path, revision(path)), run.plain_rows)


def _picture(run: RunFile, side: api.Side) -> Picture | None:
    graph = run.about_text("graph" if side == "reference" else "quantized_graph")
    return picture(graph) if graph is not None and graph != "null" else None


def _needed_picture(run: RunFile, side: api.Side) -> Picture:
    found = _picture(run, side)
    if found is None:
        raise MissingError(
            f"{_path(run).name} holds no graph of the {side} model",
            accepted="runs that got as far as that model, with quantscope 0.1 or newer",
        )
    return found


def graph(run: RunFile, side: api.Side) -> dict[str, Any]:
    """A model's graph in columns."""
    drawn = _needed_picture(run, side)
    by_node: dict[int, int] = {}
    for position, tensor in _rows(run).items():
        by_node.setdefault(drawn.node_of(tensor, side), position)
    by_node.pop(-1, None)
    return {
        **drawn.columns,
        "nodes": {**drawn.columns["nodes"], "row": [by_node.get(i, -1) for i in range(len(drawn.graph.ops))]},
    }


def node(run: RunFile, side: api.Side, index: int) -> dict[str, Any]:
    """All that is known of one op."""
    drawn = _needed_picture(run, side)
    if index >= len(drawn.graph.ops):
        raise MissingError(f"no node {index} in a graph of {len(drawn.graph.ops)} ops")
    rows = {position: row for position, row in _rows(run).items() if drawn.node_of(row, side) == index}
    return _node(run, drawn, side, index, rows)


def nodes(run: RunFile, side: api.Side) -> list[dict[str, Any]]:
    """All ops of a graph, each as `node` has it."""
    drawn = _needed_picture(run, side)
    by_node: dict[int, dict[int, TensorDiagnosis]] = {}
    for position, tensor in _rows(run).items():
        by_node.setdefault(drawn.node_of(tensor, side), {})[position] = tensor
    return [_node(run, drawn, side, i, by_node.get(i, {})) for i in range(len(drawn.graph.ops))]


def _node(
    run: RunFile, drawn: Picture, side: api.Side, index: int, rows: Mapping[int, TensorDiagnosis]
) -> dict[str, Any]:
    op = drawn.graph.ops[index]
    skipped = (run.about("skipped") or {}).get(op.name, "") if side == "reference" else ""
    return {
        "index": index,
        "name": op.name,
        "op": op.op_type,
        "scope": op.scope,
        "attributes": dict(op.attributes),
        "inputs": [drawn.operand(name, drawn.producers(name)) for name in op.inputs if name],
        "outputs": [drawn.operand(name, drawn.readers(name)) for name in op.outputs if name],
        "encodings": [
            {
                "row": position, "role": t.role, "tensor": t.tensor if side == "reference" else t.quantized_tensor,
                "dtype": t.dtype, "granularity": t.granularity, "scale": t.scale, "zero_point": t.zero_point,
            }
            for position, t in rows.items()
        ],
        "rows": list(rows),
        "skipped": skipped,
    }  # fmt: skip


def rows(run: RunFile) -> dict[str, list[Any]]:
    """All compared tensors so far, in columns."""
    drawn = _picture(run, "reference"), _picture(run, "quantized")
    table = [_row(position, tensor, *drawn) for position, tensor in _rows(run).items()]
    return {column: [line[column] for line in table] for column in api.Rows.model_fields}


def _row(
    position: int, tensor: TensorDiagnosis, reference: Picture | None, quantized: Picture | None
) -> dict[str, Any]:
    return {
        "index": position,
        "node": reference.node_of(tensor, "reference") if reference is not None else -1,
        "quantized_node": quantized.node_of(tensor, "quantized") if quantized is not None else -1,
        **plain_row(tensor),
    }


def row_details(run: RunFile, index: int) -> dict[str, Any]:
    """One tensor in full."""
    tensor = run.row(index)
    if tensor is None:
        raise MissingError(f"no row {index} in {_path(run).name}")
    return {
        "row": _row(index, tensor, _picture(run, "reference"), _picture(run, "quantized")),
        "range": _range(tensor),
        "histogram": _histogram(tensor.histogram),
        "channels": _channels(tensor.channels),
        "budget": _budget(tensor.budget),
    }


def _range(tensor: TensorDiagnosis) -> list[float] | None:
    """The smallest and the largest value that the tensor's codes stand for, if one scale serves them all."""
    if tensor.zero_point is None or math.isnan(tensor.scale):
        return None
    low, high = QuantSpec.from_dtype(tensor.dtype).code_range
    return [(low - tensor.zero_point) * tensor.scale, (high - tensor.zero_point) * tensor.scale]


def _histogram(histogram: SharedHistogram | None) -> dict[str, Any] | None:
    if histogram is None or len(histogram.edges) < 2:
        return None
    return {
        "first": float(histogram.edges[0]),
        "width": float(histogram.edges[1] - histogram.edges[0]),
        "reference": histogram.reference.tolist(),
        "quantized": histogram.quantized.tolist(),
    }


def _channels(channels: ChannelStatistics | None) -> dict[str, Any] | None:
    if channels is None or len(channels.edges) < 2:
        return None
    return {
        "axis": channels.axis,
        **{name: shorter(getattr(channels, name)) for name in CHANNEL_FIGURES},
        "first": float(channels.edges[0]),
        "width": float(channels.edges[1] - channels.edges[0]),
        "reference_counts": packed(channels.reference_counts),
        "quantized_counts": packed(channels.quantized_counts),
    }


def _budget(budget: ErrorBudget | None) -> dict[str, Any] | None:
    if budget is None:
        return None
    return {
        "count": budget.count, "left_out": budget.left_out, "mse": budget.mse, "shares": dict(budget.shares),
        "energies": dict(budget.energies), "isolated_mse": budget.isolated_mse,
        "isolated_sqnr_db": budget.isolated_sqnr_db,
    }  # fmt: skip


def suggestions(run: RunFile) -> dict[str, Any]:
    """What to change in the recipe, best first."""
    path = _path(run)
    diagnosis = run.diagnosis()
    found = advice.ranked(advice.remembered(path, advice.advise(diagnosis)))
    first_rows: dict[str, int] = {}
    for position, tensor in _rows(run).items():
        first_rows.setdefault(tensor.op, position)
    arguments = arguments_of(path)
    recipe = diagnosis.recipe or Recipe()
    nothing = "" if found else advice.why_nothing(diagnosis) or "no rule finds what to change: look at the tables"
    return {
        "suggestions": [
            {
                "rule": s.rule,
                "title": s.title,
                "ops": list(s.ops),
                "rows": [first_rows.get(op, -1) for op in s.ops],
                "evidence": list(s.evidence),
                "share": s.share,
                "cost": s.cost,
                "patch_toml": s.patch.to_toml(),
                "recipe_toml": text(s.patch.applied(recipe)),
                "op_name_dict": s.patch.to_op_name_dict(diagnosis.graph)[0] if diagnosis.graph is not None else {},
                "nodes_to_exclude": list(s.patch.in_float(diagnosis.graph)) if diagnosis.graph is not None else [],
                "command": s.patch.to_command(recipe, arguments),
                "verified": _verified(s.verified),
            }
            for s in found
        ],
        "nothing": nothing,
        "verify": shlex.join(["quantscope", "advise", str(path), "--verify"]),
    }


def _verified(found: advice.Verification | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "accuracy": accuracy(found.score).model_dump(),
        "float_value": found.float_value,
        "gain": found.gain,
        "certain": found.certain,
        "notes": list(found.notes),
    }


def _search(run: RunFile) -> Search | None:
    """The search as far as it is; None for a diagnosis, and before the first trial."""
    trials = tuple(trial_from(values) for values in run.about("trials") or ())
    if run.about("kind") != "tune" or not trials:
        return None
    tuning = run.about("tuning")
    criterion = Criterion(tuning["max_drop"], tuning["relative"])
    best = trials[(run.about("search") or {"best": len(trials) - 1})["best"]]
    return Search(trials, best, criterion.met_by(best.score), criterion, tuple(run.about("ranking") or ()))


def trials(run: RunFile) -> dict[str, Any]:
    """What a search tried."""
    tuning = run.about("tuning")
    if run.about("kind") != "tune" or tuning is None:
        raise MissingError(f"{_path(run).name} is a diagnosis, no search", next_step="search with: quantscope tune")
    search = _search(run)
    tried = search.trials if search is not None else ()
    front = {id(trial) for trial in search.pareto} if search is not None else set()
    finished = run.about("search")
    effects = _effects(run)
    return {
        "max_drop": tuning["max_drop"],
        "relative": tuning["relative"],
        "most_trials": tuning["most_trials"],
        "met": finished["met"] if finished is not None else None,
        "reference_us": search.reference_us if search is not None else None,
        "trials": [
            {
                "change": trial.change,
                "recipe_toml": text(trial.recipe),
                "fallback": list(trial.fallback),
                "accuracy": accuracy(trial.score).model_dump(),
                "quantized_share": trial.quantized_share,
                "seconds": trial.seconds,
                "speed": _speed(search, trial) if search is not None else None,
                "as_fast_as_best": _equal(search, trial) if finished is not None and search is not None else False,
                "best": finished is not None and number == finished["best"],
                "pareto": id(trial) in front,
                "meets": search is not None and search.criterion.met_by(trial.score),
            }
            for number, trial in enumerate(tried)
        ],
        "ranking": list(run.about("ranking") or ()),
        "sensitivities": effects if effects["rows"] else None,
        "output": run.about("output"),
    }


def _speed(search: Search, trial: Trial) -> dict[str, float] | None:
    speed, reference_us = trial.speed, search.reference_us
    if speed is None or reference_us is None:
        return None
    times = {"us": speed.speedup, "low_us": speed.high, "high_us": speed.low}
    return {
        "speedup": speed.speedup,
        "low": speed.low,
        "high": speed.high,
        **{name: reference_us / factor for name, factor in times.items()},
    }


def _equal(search: Search, trial: Trial) -> bool:
    return trial is not search.best and trial.speed is not None and as_fast(trial, search.best)


def sensitivity(run: RunFile) -> dict[str, Any]:
    """What each op does to the output, as far as it is measured."""
    if run.about("kind") != "sensitivity":
        raise MissingError(
            f"{_path(run).name} measured no op's effect", next_step="measure it with: quantscope sensitivity"
        )
    return _effects(run)


def _effects(run: RunFile) -> dict[str, Any]:
    """The ops by what each does to the output, as far as that is measured."""
    asked = run.about("asked") or run.about("tuning") or {}
    facts = {"by": asked.get("by", "op"), "most_ops": asked.get("most_ops", 0)}
    found = run.about("sensitivities")
    if isinstance(found, Mapping):
        whole = {key: found[key] for key in ("damage_name", "damage", "samples", "others", "agreement")}
        return {**facts, **whole, "finished": True, "rows": found["ops"]}
    measured: Mapping[str, Any] = run.about("measured") or {}
    drawn = _picture(run, "reference")
    ops = {op.name: op for op in drawn.graph.ops} if drawn is not None else {}
    rows = [
        {
            "op": name,
            "op_type": ops[name].op_type if name in ops else "",
            "scope": ops[name].scope if name in ops else name,
            "ops": [name] if name in ops else [],
            "alone": sum(values["alone"]) / len(values["alone"]),
            "alone_low": math.nan, "alone_high": math.nan, "gain": math.nan, "best_rank": None, "worst_rank": None,
        }
        for name, values in measured.items()
    ]  # fmt: skip
    rows.sort(key=lambda row: -row["alone"])
    samples = max((len(values["alone"]) for values in measured.values()), default=0)
    return {**facts, "finished": False, "rows": rows, "damage_name": "damage", "damage": math.nan,
            "samples": samples, "others": [], "agreement": {}}  # fmt: skip


def comparison(
    lines: tuple[api.RunSummary, api.RunSummary], tables: tuple[dict[str, list[Any]], dict[str, list[Any]]]
) -> dict[str, Any]:
    """Two runs row by row.

    Args:
        lines: the two runs.
        tables: the `rows` of each.
    """
    a, b = tables
    matches = _matches(a, b)

    def value(table: dict[str, list[Any]], column: str, at: int | None, missing: Any = None) -> Any:
        return missing if at is None else table[column][at]

    def shared(column: str) -> list[Any]:
        return [value(a, column, i) if i is not None else value(b, column, j) for i, j in matches]

    sides = []
    for table, places in ((a, [i for i, _ in matches]), (b, [j for _, j in matches])):
        keys = {key: [value(table, key, at, -1) for at in places] for key in ("index", "node")}
        sides.append({**keys, **{c: [value(table, c, at) for at in places] for c in api.COMPARED}})
    return {
        "a": lines[0].model_dump(),
        "b": lines[1].model_dump(),
        **{column: shared(column) for column in ("op", "op_type", "role", "tensor")},
        "in_a": sides[0],
        "in_b": sides[1],
        "difference": {
            column: [
                _difference(value(a, column, i), value(b, column, j)) for i, j in matches
            ]
            for column in api.DifferenceColumns.model_fields
        },
    }  # fmt: skip


def _matches(a: dict[str, list[Any]], b: dict[str, list[Any]]) -> list[tuple[int | None, int | None]]:
    """Which row of a is which of b: the same op, role and tensor, else the same op and role in their order."""
    left: list[tuple[int | None, int | None]] = []
    free = set(range(len(b["op"])))
    exact = {key: j for j, key in enumerate(zip(b["op"], b["role"], b["tensor"], strict=True))}
    found: dict[int, int] = {}
    for i, key in enumerate(zip(a["op"], a["role"], a["tensor"], strict=True)):
        j = exact.get(key)
        if j is not None and j in free:
            found[i] = j
            free.discard(j)
    by_op: dict[tuple[str, str], list[int]] = {}
    for j in sorted(free, reverse=True):
        by_op.setdefault((b["op"][j], b["role"][j]), []).append(j)
    for i, pair in enumerate(zip(a["op"], a["role"], strict=True)):
        if i not in found and by_op.get(pair):
            found[i] = by_op[pair].pop()
            free.discard(found[i])
        left.append((i, found.get(i)))
    return [*left, *((None, j) for j in sorted(free))]


def _difference(a: Any, b: Any) -> float | None:
    return None if a is None or b is None else float(b) - float(a)
