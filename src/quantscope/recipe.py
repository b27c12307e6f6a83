"""What each op shall get: defaults, then rules of which later ones win, and how ranges are calibrated."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from quantscope.errors import RecipeError
from quantscope.graph import Graph, Op
from quantscope.qparams import Granularity, PerBlock, PerChannel, QuantSpec

CalibrationMethod = Literal["minmax", "percentile", "entropy", "mse"]
Format = Literal["qdq", "qoperator"]
Dtype = Literal["int4", "uint4", "int8", "uint8", "int16", "uint16"]
SIGNED: Mapping[str, Dtype] = {"uint4": "int4", "uint8": "int8", "uint16": "int16"}
"""The signed type of as many bits."""
Role = Literal["activations", "weights"]
Selection = Literal["name", "regex", "type", "scope"]

# The axis of a recipe's granularity stands for whichever axis an op has: that of its output channels, or, for blocks,
# the one it sums over. A backend knows which that is.
PER_CHANNEL = PerChannel(0)
_GLOB = re.compile(r"[*?[]")
_KEYS = {"name": "op", "regex": "regex", "type": "type", "scope": "scope"}


def per_block(size: int) -> PerBlock:
    """One scale per `size` weights along the axis that an op sums over."""
    return PerBlock(0, size)


@dataclass(frozen=True)
class Calibration:
    """How ranges are taken from the statistics of the samples; `percentile` is for the method of that name."""

    method: CalibrationMethod = "minmax"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.method not in get_args(CalibrationMethod):
            raise RecipeError(
                f"unknown calibration method {self.method!r}", accepted=", ".join(get_args(CalibrationMethod))
            )
        if not 50 < self.percentile <= 100:
            raise RecipeError(f"percentile is {self.percentile}", accepted="more than 50, at most 100")


@dataclass(frozen=True)
class SpecChange:
    """What a rule changes in a specification; what is None stays as it was."""

    dtype: Dtype | None = None
    symmetric: bool | None = None
    granularity: Granularity | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in get_args(Dtype):
            raise RecipeError(f"unknown dtype {self.dtype!r}", accepted=", ".join(get_args(Dtype)))
        _check_granularity(self.granularity)

    def applied(self, spec: QuantSpec) -> QuantSpec:
        """The specification with this change made."""
        return QuantSpec.from_dtype(
            self.dtype or spec.dtype,
            symmetric=spec.symmetric if self.symmetric is None else self.symmetric,
            granularity=self.granularity or spec.granularity,
        )


@dataclass(frozen=True)
class OpRule:
    """A rule for the ops that a selector matches; without specifications it is a fallback: they stay in float.

    `selector` is, by `by`: "name", an op's exact name or a glob such as "/layer4/*"; "regex", an expression that the
    whole name must match; "type", an op type; "scope", a module and all inside it.
    """

    selector: str
    by: Selection = "name"
    activations: SpecChange | None = None
    weights: SpecChange | None = None

    def __post_init__(self) -> None:
        if self.by not in get_args(Selection):
            raise RecipeError(f"a rule selects by {self.by!r}", accepted=", ".join(get_args(Selection)))
        if not self.selector:
            raise RecipeError(f"the {self.key} of a rule is empty", accepted="what it shall match")
        if self.by == "regex":
            try:
                re.compile(self.selector)
            except re.error as error:
                raise RecipeError(
                    f"regex {self.selector!r}: {error}", accepted="a regular expression as Python's re reads it"
                ) from None

    @property
    def fallback(self) -> bool:
        """True if the ops stay in float."""
        return self.activations is None and self.weights is None

    @property
    def key(self) -> str:
        """The name of the selector in a recipe file: op, regex, type or scope."""
        return _KEYS[self.by]

    def matches(self, op: Op) -> bool:
        """True if the rule is about this op."""
        if self.by == "type":
            return op.is_of(self.selector)
        if self.by == "scope":
            prefix = self.selector.strip("/")
            return op.scope == prefix or op.scope.startswith(prefix + "/")
        return op.name == self.selector or bool(_pattern(self.by, self.selector).fullmatch(op.name))

    def matched(self, graph: Graph) -> tuple[str, ...]:
        """The names of the ops that the rule is about; a name that an op has is that op alone, never a glob."""
        # A fallback search makes rules of exact names by the thousand, for graphs of many thousand ops.
        if self.by == "name":
            if self.selector in graph.by_name:
                return (self.selector,)
            if not _GLOB.search(self.selector):
                return ()
        return tuple(op.name for op in graph.ops if self.matches(op))


@dataclass(frozen=True)
class OpSpecs:
    """What the tensors of one op shall get; `asked` holds the roles for which a rule, not the defaults, says so."""

    activations: QuantSpec
    weights: QuantSpec
    asked: frozenset[Role] = frozenset()


@dataclass(frozen=True)
class Recipe:
    """Defaults, then rules, of which later ones win.

    `op_types` limits the defaults to these types of op; None means every type that the backend quantizes.
    `reduce_range` uses 7 of the 8 bits of weights, for processors whose 8-bit products saturate. `equalize` scales the
    channels of neighbouring ops to like ranges before anything is quantized.
    """

    format: Format = "qdq"
    activations: QuantSpec = field(default_factory=lambda: QuantSpec(8, signed=False, symmetric=False))
    weights: QuantSpec = field(default_factory=lambda: QuantSpec(8, granularity=PER_CHANNEL))
    op_types: tuple[str, ...] | None = None
    rules: tuple[OpRule, ...] = ()
    calibration: Calibration = field(default_factory=Calibration)
    reduce_range: bool = False
    equalize: bool = False

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise RecipeError(f"unknown format {self.format!r}", accepted=", ".join(get_args(Format)))
        for role, spec in (("activations", self.activations), ("weights", self.weights)):
            if spec.dtype not in get_args(Dtype):
                raise RecipeError(f"{role} of {spec.bits} bits", accepted="4, 8 or 16 bits")
            _check_granularity(spec.granularity)

    @property
    def per_channel(self) -> bool:
        """True if weights get one scale per output channel."""
        return isinstance(self.weights.granularity, PerChannel)

    def with_fallback(self, selectors: Iterable[str]) -> Recipe:
        """The same recipe with ops of these names or globs left in float."""
        return replace(self, rules=(*self.rules, *(OpRule(selector) for selector in selectors)))

    @property
    def defaults_in_words(self) -> str:
        """What ops get for which no rule says more, on one line."""
        return ", ".join(
            [
                f"{self.activations.dtype} activations",
                f"{self.weights.dtype} weights {'per channel' if self.per_channel else 'per tensor'}",
                self.calibration.method,
                *([self.format] if self.format != "qdq" else []),
            ]
        )

    def fallback_ops(self, graph: Graph) -> frozenset[str]:
        """The names of the ops that rules leave in float.

        Raises:
            RecipeError: a selector matches no op; the nearest names are given.
        """
        chosen: set[str] = set()
        for rule, names in self._matched(graph):
            (chosen.update if rule.fallback else chosen.difference_update)(names)
        return frozenset(chosen)

    def specs_for(self, graph: Graph) -> Mapping[str, OpSpecs | None]:
        """Each op's specifications by its name; None for one that stays in float.

        Raises:
            RecipeError: a selector matches no op; the nearest names are given.
        """
        defaults = OpSpecs(self.activations, self.weights)
        types = set(self.op_types) if self.op_types is not None else None
        found: dict[str, OpSpecs | None] = {
            op.name: defaults if types is None or any(map(op.is_of, types)) else None for op in graph.ops
        }
        for rule, names in self._matched(graph):
            for name in names:
                found[name] = None if rule.fallback else _changed(found[name] or defaults, rule)
        return found

    def without_unmatched(self, graph: Graph) -> tuple[Recipe, tuple[str, ...]]:
        """The recipe without rules and types that match nothing in this graph, and those as phrases.

        For a graph in which ops are gone that the user's model has: folded batch normalization, for example.
        """
        kept, lost = [], []
        for rule in self.rules:
            if rule.matched(graph):
                kept.append(rule)
            else:
                lost.append(f"{rule.key} {rule.selector!r}")
        present = {kind for op in graph.ops for kind in (op.op_type, op.native_type)}
        types = None if self.op_types is None else tuple(t for t in self.op_types if t in present)
        lost += [f"op type {t!r}" for t in self.op_types or () if t not in present]
        return (replace(self, rules=tuple(kept), op_types=types) if lost else self), tuple(lost)

    def _matched(self, graph: Graph) -> list[tuple[OpRule, tuple[str, ...]]]:
        matched = []
        for rule in self.rules:
            names = rule.matched(graph)
            if not names:
                raise RecipeError(
                    f"{'fallback' if rule.fallback else 'rule'} {rule.key} {rule.selector!r} matches no op",
                    accepted=nearest(rule.selector, _known(rule, graph)),
                    next_step="check the name in the op table: quantscope show RUN --all",
                )
            matched.append((rule, names))
        present = (
            {kind for op in graph.ops for kind in (op.op_type, op.native_type) if kind} if self.op_types else set()
        )
        for op_type in self.op_types or ():
            if op_type not in present:
                raise RecipeError(
                    f"op type {op_type!r} does not occur in the model", accepted=nearest(op_type, sorted(present))
                )
        return matched

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values, as they stand in a recipe file."""
        from quantscope import recipe_file

        return recipe_file.to_values(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` described, today or in an earlier version.

        Raises:
            RecipeError: a key or a value means nothing.
        """
        from quantscope import recipe_file

        return recipe_file.from_values(values)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """The recipe in a TOML file.

        Raises:
            RecipeError: the file is missing, is no TOML, or a key or value in it means nothing.
        """
        from quantscope import recipe_file

        return recipe_file.read(Path(path))

    def save(self, path: str | Path) -> None:
        """Write the recipe to a TOML file; it appears whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        from quantscope import recipe_file

        recipe_file.write(self, Path(path))


def nearest(name: str, known: list[str], count: int = 3) -> str:
    """The known names most like this one, as a phrase for a message."""
    found = difflib.get_close_matches(name, known, n=count, cutoff=0.3) or known[:count]
    return "for example " + ", ".join(found) if found else "the model has no ops"


@lru_cache(maxsize=1024)
def _pattern(by: Selection, selector: str) -> re.Pattern[str]:
    return re.compile(selector if by == "regex" else fnmatch.translate(selector))


def _changed(specs: OpSpecs, rule: OpRule) -> OpSpecs:
    asked = set(specs.asked)
    activations, weights = specs.activations, specs.weights
    if rule.activations is not None:
        activations = rule.activations.applied(activations)
        asked.add("activations")
    if rule.weights is not None:
        weights = rule.weights.applied(weights)
        asked.add("weights")
    return OpSpecs(activations, weights, frozenset(asked))


def _known(rule: OpRule, graph: Graph) -> list[str]:
    if rule.by == "type":
        return sorted({kind for op in graph.ops for kind in (op.op_type, op.native_type) if kind})
    if rule.by == "scope":
        parts = [op.scope.split("/") for op in graph.ops if op.scope]
        return sorted({"/".join(part[:length]) for part in parts for length in range(1, len(part) + 1)})
    return sorted(graph.by_name)


def _check_granularity(granularity: Granularity | None) -> None:
    if isinstance(granularity, PerBlock) and granularity.size < 1:
        raise RecipeError(f"block_size is {granularity.size}", accepted="1 or more, such as 32")
