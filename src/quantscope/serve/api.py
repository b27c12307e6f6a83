"""What the server answers: the models from which the schema, and from that the app's TypeScript types, are made.

Numbers that JSON cannot say are `null` (not a number) and "Infinity" or "-Infinity", everywhere. Tables are columns of
one length. A node is known by its index in its graph, a row by its index in the run file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import GenericAlias, UnionType
from typing import Any, Literal, Optional, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from quantscope.backends.base import Kernel
from quantscope.diagnosis import TensorDiagnosis, TensorSummary
from quantscope.profiling import document as profiling
from quantscope.report.tables import NESTED
from quantscope.statistics.budget import PARTS

Figure = float | Literal["Infinity", "-Infinity"] | None
"""A number, infinite or not; null where there is none."""

Side = Literal["reference", "quantized"]
Status = Literal["running", "finished", "failed", "killed", "damaged"]


class Model(BaseModel):
    """Values that never change once they are made."""

    model_config = ConfigDict(frozen=True)


class Problem(Model):
    """What failed, what is accepted instead, and what to do now."""

    message: str
    accepted: str = ""
    next_step: str = ""


class About(Model):
    """The server, or the offline page: `live` is false there and nothing can be changed."""

    version: str
    workspace: str
    live: bool


class Accuracy(Model):
    """One metric of both models over the same samples; `low` and `high` are the difference's 95 % interval.

    `ratio` is quantized over reference. For the metric "mse" less is better. `samples` is null, and the interval with
    it, where one figure for each model is all that is known.
    """

    metric: str
    samples: int | None
    reference: Figure
    quantized: Figure
    difference: Figure
    ratio: Figure
    low: Figure
    high: Figure


class Stage(Model):
    """A part of the run: how many samples or ops are done of how many, and how long it took; `total` may be unknown."""

    name: str
    done: int
    total: int | None
    finished: bool
    seconds: float


class Progress(Model):
    """Where a run is now; `rate` is samples or ops per second."""

    stage: str
    done: int
    total: int | None
    rate: float | None
    seconds_left: float | None


Kind = Literal["diagnose", "sensitivity", "tune", "profile"]


class RunSummary(Model):
    """A run in the list.

    `name` is the run file's, without its ending, and the key of every other address. `reason` says why the run failed,
    was killed or cannot be read; "" otherwise. `mode` is the recipe in words. `rows` counts the compared tensors so
    far; `has_profile` tells whether times were measured; `revision` changes whenever anything in the file does, so that
    what was fetched under another one is old.
    """

    name: str
    model: str
    kind: Kind
    status: Status
    reason: str
    mode: str
    accuracy: Accuracy | None
    created: str
    modified: str
    size_bytes: int
    reference_bytes: int | None
    quantized_bytes: int | None
    tags: list[str]
    progress: Progress | None
    rows: int
    has_profile: bool
    revision: str


class RunChange(BaseModel):
    """What to change of a run: its name, its tags, or both."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(default=None, min_length=1, max_length=200)
    tags: list[str] | None = Field(default=None, max_length=32)


class RunList(Model):
    """All runs of the workspace, the newest first."""

    runs: list[RunSummary]


class RunsEvent(Model):
    """All runs: the first event of a stream."""

    kind: Literal["runs"]
    runs: list[RunSummary]


class RunEvent(Model):
    """A run appeared or changed: its progress, its rows, its status."""

    kind: Literal["run"]
    run: RunSummary


class RemovedEvent(Model):
    """A run is gone, or has another name now."""

    kind: Literal["removed"]
    name: str


Event = RunsEvent | RunEvent | RemovedEvent


class OpTypeCount(Model):
    """How many ops of a type compute on codes, and how many in float."""

    op_type: str
    total: int
    quantized: int
    in_float: int


class FailureSource(Model):
    """An op whose output is broken while its inputs, the worst with `inputs_db`, were not."""

    op: str
    row: int
    inputs_db: Figure
    sqnr_db: Figure


class ModelFile(Model):
    """A model's file as it was when the run began; `ops` counts the nodes of its graph, None if the run has none."""

    path: str | None
    bytes: int | None
    ops: int | None


class RunDocument(Model):
    """All about a run but its tables: the document that the command line exports, with what pages need beside it."""

    summary: RunSummary
    document_version: int
    accuracy: list[Accuracy]
    reference: ModelFile
    quantized: ModelFile
    output: str | None
    samples: dict[str, Any]
    environment: dict[str, str]
    recipe: dict[str, Any] | None
    recipe_toml: str | None
    coverage: Figure
    skipped: dict[str, str]
    trace: Literal["deployed", "simulated", "both"]
    measuring_changed: Figure
    first_not_finite: str | None
    failure_sources: list[FailureSource]
    notes: list[str]
    stages: list[Stage]
    op_types: list[OpTypeCount]
    command: str


class Nodes(Model):
    """Ops in execution order; `op` is an index into the graph's `ops`, `group` into its groups, −1 at the top.

    `row` is the row of the op's first output, −1 where it was not compared.
    """

    name: list[str]
    label: list[str]
    op: list[int]
    group: list[int]
    row: list[int]


class Groups(Model):
    """Scopes; `parent` is an index into the groups, −1 at the top. Parents precede children."""

    name: list[str]
    parent: list[int]


class Edges(Model):
    """Which node's output another one reads; each triple is there once."""

    src: list[int]
    dst: list[int]
    tensor: list[str]


class Port(Model):
    """A tensor that enters or leaves the model, and the nodes that read it or the one that computes it."""

    tensor: str
    dtype: str
    shape: list[int | str | None] | None
    nodes: list[int]


class Graph(Model):
    """A model's graph in columns; constants are no nodes. `grouping` says where the groups come from."""

    grouping: Literal["scopes", "weights", "cuts", "none"]
    ops: list[str]
    nodes: Nodes
    groups: Groups
    edges: Edges
    inputs: list[Port]
    outputs: list[Port]


class Operand(Model):
    """A tensor that an op reads or writes; `nodes` are those at its other end."""

    tensor: str
    dtype: str
    shape: list[int | str | None] | None
    constant: bool
    nodes: list[int]


class Encoding(Model):
    """How a tensor of the op is quantized; `scale` and `zero_point` only where one pair serves the whole tensor."""

    row: int
    role: Literal["activation", "weight", "bias"]
    tensor: str
    dtype: str
    granularity: str
    scale: Figure
    zero_point: int | None


class Node(Model):
    """All that is known of one op; `rows` are those of its outputs, weights and biases."""

    index: int
    name: str
    op: str
    scope: str
    attributes: dict[str, Any]
    inputs: list[Operand]
    outputs: list[Operand]
    encodings: list[Encoding]
    rows: list[int]
    skipped: str


def _column(annotation: Any) -> Any:
    """The type of a row's value as the API says it."""
    if annotation is float:
        return Figure
    parts = get_args(annotation) if isinstance(annotation, UnionType) else ()
    return Figure if float in parts else annotation


def _row_types() -> dict[str, Any]:
    """Each column of `report.tables.row` with its type."""
    hints = get_type_hints(TensorDiagnosis)
    types = {f.name: _column(hints[f.name]) for f in fields(TensorDiagnosis) if f.name not in NESTED}
    summary = get_type_hints(TensorSummary)
    for side in get_args(Side):
        types |= {f"{side}_{f.name}": _column(summary[f.name]) for f in fields(TensorSummary)}
    return {**types, **{f"budget_{part}": Figure for part in PARTS}, "remark": str}


_KEYS: dict[str, Any] = {"index": int, "node": int, "quantized_node": int}


def _made(name: str, meaning: str, types: Mapping[str, Any], *, columns: bool) -> Any:
    """A model with these fields, or with a list of each."""
    made: dict[str, Any] = {key: (GenericAlias(list, (kind,)) if columns else kind, ...) for key, kind in types.items()}
    return create_model(name, __base__=Model, __doc__=meaning, **made)


Row: Any = _made(
    "Row",
    "A compared tensor; `node` and `quantized_node` are its op in the two graphs, −1 where it is in none.",
    {**_KEYS, **_row_types()},
    columns=False,
)
Rows: Any = _made(
    "Rows",
    "All compared tensors in execution order, activations before weights, a list per column of `Row`.",
    {**_KEYS, **_row_types()},
    columns=True,
)


class Counts(Model):
    """Whole numbers, row after row, little-endian in `bytes_per_number` bytes each, deflated (zlib), in base64."""

    shape: list[int]
    bytes_per_number: Literal[1, 2, 4, 8]
    data: str


class Histogram(Model):
    """How often values fall between edges `first + i · width`; one count less than edges."""

    first: float
    width: float
    reference: list[int]
    quantized: list[int]


class Channels(Model):
    """Figures per channel along `axis`; histograms of both models, shape (channels, bins), share their edges.

    Counts are null only in an offline page that leaves them out to be smaller.
    """

    axis: int
    minimum: list[Figure]
    maximum: list[Figure]
    mean: list[Figure]
    std: list[Figure]
    quantized_minimum: list[Figure]
    quantized_maximum: list[Figure]
    quantized_mean: list[Figure]
    quantized_std: list[Figure]
    mse: list[Figure]
    sqnr_db: list[Figure]
    first: float
    width: float
    reference_counts: Counts | None
    quantized_counts: Counts | None


class Budget(Model):
    """The mean squared error in six parts that sum to it, each with what it would cost alone (`energies`)."""

    count: int
    left_out: int
    mse: Figure
    shares: dict[str, Figure]
    energies: dict[str, Figure]
    isolated_mse: Figure
    isolated_sqnr_db: Figure


class RowDetails(Model):
    """One tensor in full.

    `range` is what its codes can represent, if one scale serves it: what lies beyond is clipped.
    """

    row: Row
    range: list[float] | None
    histogram: Histogram | None
    channels: Channels | None
    budget: Budget | None


class Verified(Model):
    """What a suggestion brought when it was tried: the metric before (`reference`) and after (`quantized`)."""

    accuracy: Accuracy
    float_value: Figure
    gain: Figure
    certain: bool
    notes: list[str]


class Suggestion(Model):
    """What to change and why, in the forms that files, commands and other tools take.

    `share` estimates the part of the error that goes, `cost` the part of the work that leaves 8 bits. `recipe_toml` is
    the whole recipe with the patch, `patch_toml` the patch alone.
    """

    rule: str
    title: str
    ops: list[str]
    rows: list[int]
    evidence: list[str]
    share: float
    cost: float
    patch_toml: str
    recipe_toml: str
    op_name_dict: dict[str, Any]
    nodes_to_exclude: list[str]
    command: str
    verified: Verified | None


class Suggestions(Model):
    """Suggestions, best first; `nothing` says why there is none. `verify` is the command that tries them."""

    suggestions: list[Suggestion]
    nothing: str
    verify: str


class Speed(Model):
    """The float model's time over a trial's, run in turn, with a 95 % interval; and the trial's time in µs.

    `us` is the median time of the float model over all trials by the speed-up; `low_us` and `high_us` are its bounds.
    """

    speedup: float
    low: float
    high: float
    us: float
    low_us: float
    high_us: float


class Trial(Model):
    """One recipe that a search tried; `speed` is null if the search does not weigh time.

    `as_fast_as_best` tells of a trial whose time differs from the best one's by no more than the noise.
    """

    change: str
    recipe_toml: str
    fallback: list[str]
    accuracy: Accuracy
    quantized_share: float
    seconds: float
    speed: Speed | None
    as_fast_as_best: bool
    best: bool
    pareto: bool
    meets: bool


class Sensitivity(Model):
    """What one op, or one module with its `ops`, does to the model's output: `report.search` says it in words.

    `alone` is the damage with it alone quantized, with a 95 % interval; `gain` the damage that goes if it alone is left
    in float. Its place by the damage alone is between `best_rank` and `worst_rank`, 1 being the one that matters most.
    What is not known, or not yet, is null.
    """

    op: str
    op_type: str
    scope: str
    ops: list[str]
    alone: Figure
    alone_low: Figure
    alone_high: Figure
    gain: Figure
    best_rank: int | None
    worst_rank: int | None


class Sensitivities(Model):
    """The ops or modules by what each does to the model's output, the one that matters most first.

    While the measurement goes on, and where it was cut off, `rows` are those that it has got to and `finished` is
    false. `damage` is that of the whole quantized model. `others` were not measured, since they come later by
    estimate. `agreement` is the rank correlation of cheaper columns with the damage alone, on this model.
    """

    by: Literal["op", "scope"]
    finished: bool
    most_ops: int
    rows: list[Sensitivity]
    damage_name: str
    damage: Figure
    samples: int
    others: list[str]
    agreement: dict[str, Figure]


class Trials(Model):
    """A search: what was allowed, what was tried, and what each op does to the output, where that was measured.

    `reference_us` is the float model's time in µs; null if the search does not weigh time.
    """

    max_drop: float
    relative: bool
    most_trials: int
    met: bool | None
    reference_us: float | None
    trials: list[Trial]
    ranking: list[str]
    sensitivities: Sensitivities | None
    output: str | None


_mirrored: dict[type, Any] = {}


def _as_answered(annotation: Any) -> Any:
    """The type of a profile's value as the API says it."""
    if is_dataclass(annotation) and isinstance(annotation, type):
        return _mirror(annotation)
    parts = get_args(annotation)
    if isinstance(annotation, UnionType):
        known = next(part for part in parts if part is not type(None))
        return Figure if known is float else Optional[_as_answered(known)]  # noqa: UP045 - made while it runs
    if get_origin(annotation) is tuple:
        return GenericAlias(list, (_as_answered(parts[0]),))
    return Figure if annotation is float else annotation


def _mirror(kind: Any, **others: Any) -> Any:
    """A model with the fields of a dataclass and its meaning; `others` have a type of their own."""
    if kind not in _mirrored:
        hints = get_type_hints(kind)
        types = {f.name: others.get(f.name) or _as_answered(hints[f.name]) for f in fields(kind)}
        _mirrored[kind] = _made(kind.__name__, kind.__doc__, types, columns=False)
    return _mirrored[kind]


OP_SIDE: tuple[str, ...] = tuple(f.name for f in fields(profiling.OpSide) if f.name != "kernels")
"""What the table of a profile says of an op in one model."""


def _timing_types() -> dict[str, Any]:
    """Each column of the table of a profile with its type."""
    types = get_type_hints(profiling.OpSide)
    sides = {f"{side}_{name}": str if types[name] is str else Figure for side in get_args(Side) for name in OP_SIDE}
    return {
        "name": str, "op_type": str, "scope": str, "ops": list[str], "multiply_adds": int, "speedup": Figure, **sides,
    }  # fmt: skip


OpTimings: Any = _made(
    "OpTimings",
    "The ops by their time, a list per column; those of one model are called reference_us, quantized_us and so on, and "
    "hold null where it has nothing to run for the op. `ops` are all that the row stands for.",
    _timing_types(),
    columns=True,
)
Profile: Any = _mirror(profiling.Profile, ops=OpTimings)


class OpKernels(Model):
    """The kernels that compute an op, as the framework runs them; null where a model has nothing to run for it."""

    name: str
    reference: list[_mirror(Kernel)] | None  # type: ignore[valid-type]
    quantized: list[_mirror(Kernel)] | None  # type: ignore[valid-type]


COMPARED: tuple[str, ...] = (
    "sqnr_db", "mse", "cosine", "rmse_over_scale", "isolated_sqnr_db", "local_sqnr_db", "clipped_fraction",
    "effective_bits", "levels_used", "reference_min", "reference_max", "quantized_min", "quantized_max", "dtype",
    "granularity",
)  # fmt: skip
"""The columns in which two runs are compared."""

SideColumns: Any = _made(
    "SideColumns",
    "The columns of one run; where it lacks the row, null, and −1 for its index and node.",
    {"index": int, "node": int, **{name: _row_types()[name] | None for name in COMPARED}},
    columns=True,
)
DifferenceColumns: Any = _made(
    "DifferenceColumns",
    "The value of b minus that of a.",
    {name: Figure for name in COMPARED if _row_types()[name] is not str},
    columns=True,
)


class Comparison(Model):
    """Two runs row by row, matched by op, role and tensor, else by op and role in their order."""

    a: RunSummary
    b: RunSummary
    op: list[str]
    op_type: list[str]
    role: list[Literal["activation", "weight", "bias"]]
    tensor: list[str]
    in_a: SideColumns
    in_b: SideColumns
    difference: DifferenceColumns
