"""What each op shall get: the specification of codes, the calibration method, and the ops that stay in float."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from quantscope.errors import RecipeError
from quantscope.graph import Graph, Op
from quantscope.qparams import PerChannel, PerTensor, QuantSpec

CalibrationMethod = Literal["minmax", "percentile", "entropy"]
Format = Literal["qdq", "qoperator"]


@dataclass(frozen=True)
class Calibration:
    """How ranges are taken from the statistics of the samples."""

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
class OpRule:
    """A rule for the ops that a selector matches; without specifications it is a fallback: they stay in float.

    `selector` is an op's exact name or a glob such as "/layer4/*"; with `by="type"` it is an op type.
    """

    selector: str
    by: Literal["name", "type"] = "name"

    def matches(self, op: Op) -> bool:
        """True if the rule is about this op."""
        if self.by == "type":
            return op.op_type == self.selector
        return op.name == self.selector or fnmatch.fnmatchcase(op.name, self.selector)


@dataclass(frozen=True)
class Recipe:
    """Defaults, then rules.

    `op_types` limits quantization to these types of op; None means every type that the backend quantizes.
    `reduce_range` uses 7 of the 8 bits of weights, for processors whose 8-bit products saturate.
    """

    format: Format = "qdq"
    activations: QuantSpec = field(default_factory=lambda: QuantSpec(8, signed=False, symmetric=False))
    weights: QuantSpec = field(default_factory=lambda: QuantSpec(8, granularity=PerChannel(0)))
    op_types: tuple[str, ...] | None = None
    rules: tuple[OpRule, ...] = ()
    calibration: Calibration = field(default_factory=Calibration)
    reduce_range: bool = False

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise RecipeError(f"unknown format {self.format!r}", accepted=", ".join(get_args(Format)))
        for role, spec in (("activations", self.activations), ("weights", self.weights)):
            if spec.bits != 8:
                raise RecipeError(f"{role} of {spec.bits} bits", accepted="8 bits")

    @property
    def per_channel(self) -> bool:
        """True if weights get one scale per output channel."""
        return isinstance(self.weights.granularity, PerChannel)

    def with_fallback(self, selectors: Iterable[str]) -> Recipe:
        """The same recipe with ops of these names or globs left in float."""
        return replace(self, rules=(*self.rules, *(OpRule(selector) for selector in selectors)))

    def fallback_ops(self, graph: Graph) -> frozenset[str]:
        """The names of the ops that stay in float.

        Raises:
            RecipeError: a selector matches no op; the nearest names are given.
        """
        chosen: set[str] = set()
        for rule in self.rules:
            matched = [op.name for op in graph.ops if rule.matches(op)]
            if not matched:
                known = sorted({op.op_type if rule.by == "type" else op.name for op in graph.ops})
                raise RecipeError(
                    f"fallback {rule.by} {rule.selector!r} matches no op",
                    accepted=nearest(rule.selector, known),
                    next_step="check the name in the op table: quantscope show RUN --all",
                )
            chosen.update(matched)
        for op_type in self.op_types or ():
            if not any(op.op_type == op_type for op in graph.ops):
                raise RecipeError(
                    f"op type {op_type!r} does not occur in the model",
                    accepted=nearest(op_type, sorted({op.op_type for op in graph.ops})),
                )
        return frozenset(chosen)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values, for a run file."""
        return {
            "format": self.format,
            "activations": {"dtype": self.activations.dtype, "symmetric": self.activations.symmetric},
            "weights": {
                "dtype": self.weights.dtype,
                "symmetric": self.weights.symmetric,
                "per_channel": self.per_channel,
            },
            "op_types": list(self.op_types) if self.op_types is not None else None,
            "rules": [asdict(rule) for rule in self.rules],
            "calibration": asdict(self.calibration),
            "reduce_range": self.reduce_range,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` described."""
        activations, weights = values["activations"], values["weights"]
        return cls(
            format=values["format"],
            activations=QuantSpec.from_dtype(activations["dtype"], symmetric=activations["symmetric"]),
            weights=QuantSpec.from_dtype(
                weights["dtype"],
                symmetric=weights["symmetric"],
                granularity=PerChannel(0) if weights["per_channel"] else PerTensor(),
            ),
            op_types=tuple(values["op_types"]) if values["op_types"] is not None else None,
            rules=tuple(OpRule(**rule) for rule in values["rules"]),
            calibration=Calibration(**values["calibration"]),
            reduce_range=values["reduce_range"],
        )


def nearest(name: str, known: list[str], count: int = 3) -> str:
    """The known names most like this one, as a phrase for a message."""
    found = difflib.get_close_matches(name, known, n=count, cutoff=0.3) or known[:count]
    return "for example " + ", ".join(found) if found else "the model has no ops"
