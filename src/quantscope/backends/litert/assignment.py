"""Which codes each op gets: the recipe carried through the graph, as far as LiteRT's quantizer has a form for it.

LiteRT's quantizer (ai-edge-quantizer) is told op by op what to do. What it and LiteRT's kernels cannot do is said here,
op by op, with what the op gets instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from ai_edge_quantizer import default_policy

from quantscope.errors import RecipeError
from quantscope.graph import Graph, Op
from quantscope.qparams import PerBlock, PerChannel, PerTensor, QuantSpec
from quantscope.recipe import OpSpecs, Recipe

# LiteRT's quantizer calls this op otherwise than LiteRT does.
QUANTIZER_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
# The quantizer's lists of ops, by the bits of activations and weights.
_POLICIES = {(8, 8): "static_wi8_ai8", (16, 8): "static_wi8_ai16", (8, 4): "static_wi4_ai8", (16, 4): "static_wi4_ai16"}
_MOVE_DATA = frozenset(
    ("RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "SPLIT", "GATHER", "GATHER_ND", "PACK", "UNPACK", "BROADCAST_TO",
     "SPACE_TO_DEPTH", "MAX_POOL_2D", "PAD", "MIRROR_PAD", "RESIZE_NEAREST_NEIGHBOR"),
)  # fmt: skip
WEIGHTED = frozenset(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL"))
# The integer kernel fails when a divisor's code is that of zero.
_FAILING = frozenset(("DIV",))
_WIDTHS = (8, 16)


@dataclass(frozen=True)
class Chosen:
    """What one op gets: the bits of its activations and weights, and how their scales are chosen."""

    activation_bits: int
    symmetric: bool
    weight_bits: int
    per_channel: bool


@dataclass(frozen=True)
class Assignment:
    """What LiteRT's quantizer shall do by op; why the others stay in float; and what an op cannot get."""

    chosen: Mapping[str, Chosen]
    in_float: Mapping[str, str]
    unsupported: Mapping[str, str] = field(default_factory=dict)


@cache
def supported(activation_bits: int, weight_bits: int) -> frozenset[str]:
    """The types of op that the installed quantizer has an integer form for, by LiteRT's names."""
    listed = json.loads(default_policy.DEFAULT_JSON_POLICY)["ops_per_config"]
    ours = {theirs: name for name, theirs in QUANTIZER_NAMES.items()}
    names = listed[_POLICIES[activation_bits, weight_bits]]
    return frozenset(ours.get(name, name) for name in names) - {"INPUT", "OUTPUT", "STABLEHLO_COMPOSITE"} - _FAILING


def check_defaults(recipe: Recipe) -> None:
    """Raise a RecipeError if no op could get what the recipe's defaults ask for."""
    activations, weights = recipe.activations, recipe.weights
    if activations.bits not in _WIDTHS:
        raise RecipeError(
            f"LiteRT runs no activations of {activations.bits} bits: activations.dtype is {activations.dtype}",
            accepted="int8, int16; uint8 and uint16 become those",
        )
    if not isinstance(activations.granularity, PerTensor):
        raise RecipeError("LiteRT has one scale per activation", accepted='activations.granularity "per_tensor"')
    if weights.bits == 16:
        raise RecipeError(f"LiteRT has no {weights.dtype} weights", accepted="int8, int4")


def assign(graph: Graph, recipe: Recipe) -> Assignment:
    """Return what each op gets, why others stay in float, and what ops cannot get.

    Args:
        recipe: all its rules match something in this graph.
    """
    walk = _Walk(graph, recipe)
    for op in graph.ops:
        walk.visit(op)
    problems = {name: "; ".join(dict.fromkeys(texts)) for name, texts in walk.problems.items()}
    return Assignment(walk.chosen, walk.in_float, problems)


class _Walk:
    def __init__(self, graph: Graph, recipe: Recipe) -> None:
        self._graph, self._recipe = graph, recipe
        self._specs = recipe.specs_for(graph)
        self._coded: set[str] = set()
        self.chosen: dict[str, Chosen] = {}
        self.in_float: dict[str, str] = {}
        self.problems: dict[str, list[str]] = {}

    def visit(self, op: Op) -> None:
        wanted = self._specs[op.name]
        chosen = self._possible(op, wanted) if wanted is not None else None
        if wanted is None or chosen is None:
            self.in_float[op.name] = reason = self._why_float(op, wanted)
            if wanted is not None and wanted.asked:
                self.problems.setdefault(op.name, []).append(f"stays in float: {reason}")
            return
        self.chosen[op.name] = chosen
        self._coded.update((*op.outputs, *(name for name in op.inputs if op.native_type not in _MOVE_DATA)))

    def _computes(self, op: Op) -> bool:
        """True if it reads real values and writes some."""
        return all(
            any(name and self._graph.tensor(name).dtype == "float32" for name in names)
            for names in (op.inputs, op.outputs)
        )

    def _possible(self, op: Op, wanted: OpSpecs) -> Chosen | None:
        if not self._computes(op) or (op.native_type in _MOVE_DATA and not self._fed_with_codes(op)):
            return None
        activations, weights = wanted.activations, wanted.weights
        bits = activations.bits
        if op.native_type not in supported(8, 8) | supported(16, 8):
            return None
        if bits not in _WIDTHS or op.native_type not in supported(bits, 8):
            other = 8 if op.native_type in supported(8, 8) else 16
            self._problem(op, f"LiteRT has no {op.native_type} of {activations.dtype}: it gets int{other}", always=True)
            bits = other
        if not isinstance(activations.granularity, PerTensor):
            self._problem(op, "activations have one scale per tensor, not per channel or block")
        if bits == 16 and not activations.symmetric:
            # Its zero is always the code 0.
            activations = replace(activations, symmetric=True)
        if op.native_type not in WEIGHTED:
            if "weights" in wanted.asked:
                self._problem(op, "has no weights")
            return Chosen(bits, activations.symmetric, 8, True)
        weight_bits, per_channel = self._weights(op, weights, bits, asked="weights" in wanted.asked)
        return Chosen(bits, activations.symmetric, weight_bits, per_channel)

    def _fed_with_codes(self, op: Op) -> bool:
        return any(name in self._coded for name in op.inputs)

    def _weights(self, op: Op, spec: QuantSpec, bits: int, *, asked: bool) -> tuple[int, bool]:
        """The bits of its weights, and whether each channel has a scale."""
        width = 4 if spec.bits == 4 and op.native_type in supported(bits, 4) else 8
        if spec.bits != width:
            self._problem(
                op, f"LiteRT has no {op.native_type} with {spec.dtype} weights: they get int{width}", always=True
            )
        if (not spec.symmetric or not spec.signed) and asked:
            self._problem(op, f"LiteRT's weights are symmetric and signed: they get int{width}")
        if isinstance(spec.granularity, PerBlock):
            self._problem(
                op, "LiteRT has blocks for float activations alone: its weights get a scale per channel", always=True
            )
        return width, isinstance(spec.granularity, PerChannel | PerBlock)

    def _problem(self, op: Op, text: str, *, always: bool = False) -> None:
        """Note what an op cannot get, if a rule asked for it: of the defaults each op gets what it can."""
        wanted = self._specs[op.name]
        if always or (wanted is not None and wanted.asked):
            self.problems.setdefault(op.name, []).append(text)

    def _why_float(self, op: Op, wanted: OpSpecs | None) -> str:
        types = self._recipe.op_types
        if wanted is None:
            left_out = types is not None and not any(map(op.is_of, types))
            return "op_types leaves its type out" if left_out else "fallback"
        if not self._computes(op):
            return "its inputs or outputs are no floats"
        if op.native_type in _FAILING:
            return f"LiteRT's integer {op.native_type} fails on a sample for which it divides by zero"
        if op.native_type not in supported(8, 8) | supported(16, 8):
            return f"LiteRT's quantizer has no form for {op.native_type}"
        return "it gets codes only where its input has some"
