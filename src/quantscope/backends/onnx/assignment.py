"""Which codes each tensor gets: the recipe carried through the graph the way ONNX Runtime's quantizer goes.

ONNX Runtime takes specifications per tensor (`TensorQuantOverrides`), a recipe gives them per op. What an op cannot get
is said here, op by op, with what it gets instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from quantscope.errors import RecipeError
from quantscope.graph import Graph, Op
from quantscope.qparams import PerBlock, PerChannel, PerTensor, QuantSpec
from quantscope.recipe import PER_CHANNEL, OpSpecs, Recipe

KNOWN_TYPES = frozenset(QLinearOpsRegistry) | frozenset(QDQRegistry)
# Their output has the scale and zero point of their input.
_MOVE_DATA = frozenset(
    ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Resize", "MaxPool", "AveragePool", "Slice", "TopK")
)
# ONNX Runtime fuses them into the op before: other codes than that op's would stop the fusion.
_ABSORBED = frozenset(("Relu", "Clip"))
_GATHERS = frozenset(("Gather", "GatherElements"))
_NORMALIZATIONS = frozenset(("InstanceNormalization", "LayerNormalization", "BatchNormalization"))
WEIGHTED_TYPES = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul")) | _NORMALIZATIONS
_FOLLOW_INPUT = _MOVE_DATA | _ABSORBED | _GATHERS | {"Split", "Pad"}


@dataclass(frozen=True)
class Activation:
    """The codes that a tensor's producer writes, and those that `receivers` get converted from them."""

    spec: QuantSpec
    converted: QuantSpec | None = None
    receivers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Assignment:
    """What ONNX Runtime's quantizer shall do.

    `activations` and `constants` hold every tensor that gets codes, each constant under its name after `copies`, which
    gives ops that want different codes of one constant a copy of their own: (op, constant) → the copy's name. `changed`
    names the tensors that ONNX Runtime would treat otherwise by itself; `unsupported` says per op what it cannot get,
    `uncoded` why an op has no codes at all. `keep_absorbed` is True if no Relu may go: ONNX Runtime takes one away
    because codes from zero upwards clip like it, and does not see that symmetric ones do not.
    """

    float_ops: frozenset[str]
    activations: Mapping[str, Activation]
    constants: Mapping[str, QuantSpec]
    copies: Mapping[tuple[str, str], str]
    changed: frozenset[str]
    unsupported: Mapping[str, str]
    uncoded: Mapping[str, str]
    keep_absorbed: bool = False

    @property
    def blocks(self) -> dict[str, QuantSpec]:
        """The constants with one scale per block, which ONNX Runtime's quantizer has no override for."""
        return {name: spec for name, spec in self.constants.items() if isinstance(spec.granularity, PerBlock)}

    def uses_bits(self, *bits: int) -> bool:
        """True if some tensor gets codes of one of these widths."""
        return any(spec.bits in bits for spec in (*self.constants.values(), *self._activation_specs()))

    def uses_int8(self) -> bool:
        """True if some activation gets int8 codes."""
        return any(spec.dtype == "int8" for spec in self._activation_specs())

    def _activation_specs(self) -> Iterable[QuantSpec]:
        for activation in self.activations.values():
            yield activation.spec
            if activation.converted is not None:
                yield activation.converted

    def overrides(self, reduce_range: bool) -> dict[str, list[dict[str, Any]]]:
        """`TensorQuantOverrides` for the tensors in `changed`, with types and receivers as plain names."""
        return {name: [self.override(name, reduce_range)] for name in sorted(self.changed)}

    def override(self, name: str, reduce_range: bool) -> dict[str, Any]:
        """What a tensor gets as an entry of `TensorQuantOverrides`; nothing if it gets no codes."""
        if name in self.activations:
            activation = self.activations[name]
            entry = _type_and_symmetry(activation.spec)
            if activation.converted is not None:
                entry["convert"] = {
                    **_type_and_symmetry(activation.converted),
                    "recv_nodes": sorted(activation.receivers),
                }
            return entry
        if name not in self.constants:
            return {}
        spec = self.constants[name]
        entry = _type_and_symmetry(spec)
        if isinstance(spec.granularity, PerChannel):
            entry["axis"] = spec.granularity.axis
        if reduce_range:
            # The reduced range is for 8-bit products that saturate.
            entry["reduce_range"] = spec.bits == 8
        return entry


def quant_type(spec: QuantSpec) -> str:
    """The name of ONNX Runtime's QuantType: "QUInt8"."""
    return f"Q{'' if spec.signed else 'U'}Int{spec.bits}"


def _type_and_symmetry(spec: QuantSpec) -> dict[str, Any]:
    return {"quant_type": quant_type(spec), "symmetric": spec.symmetric}


def check_defaults(recipe: Recipe) -> None:
    """Raise a RecipeError if no op could get what the recipe's defaults ask for."""
    activations, weights = recipe.activations, recipe.weights
    if activations.bits == 4:
        raise RecipeError(
            f"ONNX Runtime runs no activations of 4 bits: activations.dtype is {activations.dtype}",
            accepted="uint8, int8, uint16, int16",
        )
    if not isinstance(activations.granularity, PerTensor):
        raise RecipeError("ONNX Runtime has one scale per activation", accepted='activations.granularity "per_tensor"')
    if recipe.format == "qdq":
        return
    if activations.bits != 8 or weights.bits != 8 or isinstance(weights.granularity, PerBlock):
        asked = f"activations {activations.dtype}, weights {weights.dtype}"
        raise RecipeError(
            f"the QOperator format has no form for {asked}{', in blocks' * isinstance(weights.granularity, PerBlock)}",
            accepted='8 bits, per tensor or per channel, or format "qdq"',
        )
    if activations.signed and not weights.signed:
        raise RecipeError(
            "ONNX Runtime has no QOperator kernel for int8 activations with uint8 weights",
            accepted='int8 weights, uint8 activations, or format "qdq"',
        )


def assign(graph: Graph, recipe: Recipe, *, per_channel: bool = True, blocks: bool = True) -> Assignment:
    """Return what each tensor gets and what ops cannot get.

    Args:
        recipe: all its rules match something in this graph.
        per_channel: False if the model's opset has no per-channel form.
        blocks: False if the model cannot have opset 21, which has the form with blocks.
    """
    specs = recipe.specs_for(graph)
    if recipe.format == "qoperator":
        return _one_for_all(graph, recipe, specs)
    return _Walk(graph, recipe, specs, per_channel, blocks).assignment()


def _one_for_all(graph: Graph, recipe: Recipe, specs: Mapping[str, OpSpecs | None]) -> Assignment:
    """The QOperator format: the defaults or float."""
    problems, uncoded = {}, {}
    for op in graph.ops:
        wanted = specs[op.name]
        if wanted is None:
            uncoded[op.name] = _left_out(op, recipe)
        elif op.op_type not in QLinearOpsRegistry:
            uncoded[op.name] = _no_form(op)
            if wanted.asked:
                problems[op.name] = f"stays in float: {_no_form(op)}"
        elif (wanted.activations, wanted.weights) != (recipe.activations, recipe.weights):
            problems[op.name] = 'the QOperator format has one specification for all ops: use format "qdq"'
    float_ops = frozenset(name for name, wanted in specs.items() if wanted is None)
    return Assignment(float_ops, {}, {}, {}, frozenset(), problems, uncoded)


def _left_out(op: Op, recipe: Recipe) -> str:
    if recipe.op_types is not None and op.op_type not in recipe.op_types:
        return "op_types leaves its type out"
    return "fallback"


def _no_form(op: Op) -> str:
    return f"ONNX Runtime's quantizer has no form for {op.op_type}"


@dataclass
class _Uses:
    """Who reads a constant: ops that want codes of it, by what they want, and ops that want it as it is."""

    coded: dict[tuple[QuantSpec, QuantSpec], list[str]] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)


class _Walk:
    """Goes through the ops in order and marks tensors as ONNX Runtime's QDQ quantizer does."""

    def __init__(
        self, graph: Graph, recipe: Recipe, specs: Mapping[str, OpSpecs | None], per_channel: bool, blocks: bool
    ) -> None:
        self._graph, self._recipe, self._specs = graph, recipe, specs
        self._per_channel, self._blocks = per_channel, blocks
        self._produced: dict[str, QuantSpec] = {}
        self._wanted: dict[str, dict[str, QuantSpec]] = {}
        self._constants: dict[str, _Uses] = {}
        self._problems: dict[str, list[str]] = {}
        self._uncoded: dict[str, str] = {}

    def assignment(self) -> Assignment:
        for op in self._graph.ops:
            self._visit(op)
        activations = {name: self._activation(name) for name in dict.fromkeys((*self._wanted, *self._produced))}
        plain = replace(self._recipe.activations, granularity=PerTensor())
        changed = {name for name, a in activations.items() if a != Activation(plain)}
        constants: dict[str, QuantSpec] = {}
        copies: dict[tuple[str, str], str] = {}
        for name, uses in self._constants.items():
            for i, ((spec, default), ops) in enumerate(uses.coded.items()):
                own = name if i == 0 else self._free_name(f"{name}.{i}")
                copies |= {(op, name): own for op in ops if i}
                constants[own] = spec
                if spec != default:
                    changed.add(own)
            if uses.coded and uses.plain:
                copies |= dict.fromkeys(((op, name) for op in uses.plain), self._free_name(f"{name}.float"))
        return Assignment(
            frozenset(name for name, wanted in self._specs.items() if wanted is None),
            activations,
            constants,
            copies,
            frozenset(changed),
            {op: "; ".join(dict.fromkeys(problems)) for op, problems in self._problems.items()},
            self._uncoded,
            not plain.symmetric and any(a.spec.symmetric for name, a in activations.items() if self._absorbed(name)),
        )

    def _visit(self, op: Op) -> None:
        wanted = self._specs[op.name]
        coded = self._coded_inputs(op) if wanted is not None and op.op_type in KNOWN_TYPES else ()
        read = set(coded)
        for name in op.inputs:
            if name in self._graph.constants and name not in read and name not in _biases(op) and self._is_float(name):
                self._constants.setdefault(name, _Uses()).plain.append(op.name)
        if wanted is None or not coded:
            self._uncoded[op.name] = reason = self._why_float(op, wanted)
            if wanted is not None and wanted.asked:
                self._problem(op, f"stays in float: {reason}")
            return
        spec = self._activation_spec(op, wanted, coded[0])
        weights = [name for name in coded if name in self._graph.constants and op.op_type in WEIGHTED_TYPES]
        for name in coded:
            if name in weights:
                self._use(name, op, *self._weight_spec(op, name, wanted))
            elif name in self._graph.constants:
                self._use(name, op, spec, self._recipe.activations)
            else:
                self._wanted.setdefault(name, {})[op.name] = spec
        if "weights" in wanted.asked and not weights:
            constant = any(name in self._graph.constants for name in coded)
            self._problem(op, "its constants get the codes of its activations" if constant else "has no weights")
        for name in op.outputs:
            if name and self._is_float(name):
                self._produced[name] = spec

    def _coded_inputs(self, op: Op) -> tuple[str, ...]:
        """The inputs that get codes; none if the op stays as it is."""
        kind, inputs = op.op_type, op.inputs
        if kind in _MOVE_DATA or kind in _ABSORBED:
            chosen: Iterable[str] = inputs[:1] if self._has_codes(inputs[0]) else ()
        elif kind in _GATHERS:
            chosen = inputs[:1] if inputs[0] in self._graph.constants or self._has_codes(inputs[0]) else ()
        elif kind == "Where":
            chosen = inputs[1:3] if all(map(self._has_codes, inputs[1:3])) else ()
        elif kind == "Split":
            chosen = inputs[:1]
        elif kind in WEIGHTED_TYPES:
            chosen = inputs[:2]
        else:
            chosen = inputs
        return tuple(dict.fromkeys(name for name in chosen if name and self._is_float(name)))

    def _absorbed(self, name: str) -> bool:
        producer = self._graph.producers.get(name)
        return producer is not None and producer.op_type in _ABSORBED

    def _has_codes(self, name: str) -> bool:
        uses = self._constants.get(name)
        return name in self._produced or name in self._wanted or (uses is not None and bool(uses.coded))

    def _is_float(self, name: str) -> bool:
        return self._graph.tensor(name).dtype in ("float32", "float16")

    def _use(self, name: str, op: Op, spec: QuantSpec, default: QuantSpec) -> None:
        self._constants.setdefault(name, _Uses()).coded.setdefault((spec, default), []).append(op.name)

    def _free_name(self, name: str) -> str:
        while name in self._graph.tensors or name in self._graph.constants or name in self._graph.producers:
            name += "_"
        return name

    def _problem(self, op: Op, text: str) -> None:
        self._problems.setdefault(op.name, []).append(text)

    def _why_float(self, op: Op, wanted: OpSpecs | None) -> str:
        if wanted is None:
            return _left_out(op, self._recipe)
        if op.op_type not in KNOWN_TYPES:
            return _no_form(op)
        if not any(self._is_float(name) for name in op.inputs if name):
            return "its inputs are no floats"
        return "it gets codes only where its input has some"

    def _activation_spec(self, op: Op, wanted: OpSpecs, first: str) -> QuantSpec:
        default = self._recipe.activations
        if "activations" not in wanted.asked:
            if op.op_type not in _FOLLOW_INPUT or first in self._graph.constants:
                return default
            # What moves data, or is fused into the op before, keeps the codes that it gets.
            return self._produced.get(first) or next(iter(self._wanted.get(first, {}).values()), default)
        spec = wanted.activations
        if not isinstance(spec.granularity, PerTensor):
            self._problem(op, "activations have one scale per tensor, not per channel or block")
            spec = replace(spec, granularity=PerTensor())
        if spec.bits == 4:
            self._problem(op, f"ONNX Runtime runs no {spec.dtype} activations: they get {default.dtype}")
            spec = default
        return spec

    def _weight_spec(self, op: Op, name: str, wanted: OpSpecs) -> tuple[QuantSpec, QuantSpec]:
        """What a weight gets, and what ONNX Runtime would give it by itself."""
        shape = self._graph.tensor(name).shape or ()
        spec, reason = self._possible(op, name, wanted.weights, len(shape))
        if reason and ("weights" in wanted.asked or isinstance(wanted.weights.granularity, PerBlock)):
            self._problem(op, reason)
        default = self._recipe.weights
        axis = _default_axis(op)
        if self._recipe.per_channel and self._per_channel and axis < len(shape):
            # By itself ONNX Runtime makes every per-channel weight symmetric.
            return spec, replace(default, granularity=PerChannel(axis), symmetric=True)
        return spec, replace(default, granularity=PerTensor())

    def _possible(self, op: Op, name: str, spec: QuantSpec, rank: int) -> tuple[QuantSpec, str]:
        """The nearest specification that a weight can have, and why it is not the one asked for."""
        granularity, reason = spec.granularity, ""
        if isinstance(granularity, PerBlock):
            if op.op_type in ("MatMul", "Gemm") and rank > 1 and self._blocks:
                return replace(spec, granularity=PerBlock(_sum_axis(op, name, rank), granularity.size)), ""
            why = "needs opset 21" if op.op_type in ("MatMul", "Gemm") and rank > 1 else "is for MatMul and Gemm alone"
            granularity, reason = PER_CHANNEL, f"a scale per block {why}: its weights get one per channel"
        if isinstance(granularity, PerChannel):
            if op.op_type in _NORMALIZATIONS or rank < 2:
                reason = "its weights have no channels: they get one scale"
            elif self._per_channel:
                return replace(spec, granularity=PerChannel(_channel_axis(op, name, rank))), reason
        return replace(spec, granularity=PerTensor()), reason

    def _activation(self, name: str) -> Activation:
        """One specification as the producer writes it, and at most one more for some of the readers."""
        wanted = self._wanted.get(name, {})
        written = self._produced.get(name) or max(wanted.values(), key=lambda spec: spec.bits)
        # ONNX Runtime converts to another type, not to another symmetry of the same type.
        others = Counter(spec for spec in wanted.values() if spec.dtype != written.dtype)
        converted = others.most_common(1)[0][0] if others else None
        for op, spec in wanted.items():
            if spec not in (written, converted):
                self._problem(
                    self._graph.by_name[op],
                    f"reads {name!r} in {_named(written)}: ONNX Runtime has no {_named(spec)} beside "
                    f"{'it' if converted is None else f'it and {_named(converted)}'}",
                )
        receivers = frozenset(op for op, spec in wanted.items() if spec == converted)
        return Activation(written, converted, receivers)


def _named(spec: QuantSpec) -> str:
    return f"{'symmetric ' if spec.symmetric else ''}{spec.dtype}"


def _biases(op: Op) -> tuple[str, ...]:
    return op.inputs[2:3] if op.op_type in WEIGHTED_TYPES - {"MatMul"} else ()


def _transposed(op: Op) -> bool:
    return op.op_type == "Gemm" and bool(op.attributes.get("transB", 0))


def _default_axis(op: Op) -> int:
    """The axis that ONNX Runtime takes for that of the channels by itself, whatever the rank."""
    return 0 if op.op_type == "Conv" or _transposed(op) else 1


def _channel_axis(op: Op, name: str, rank: int) -> int:
    """The axis of a weight's output channels."""
    if op.op_type == "MatMul":
        return rank - 2 if op.inputs[0] == name else rank - 1
    return _default_axis(op)


def _sum_axis(op: Op, name: str, rank: int) -> int:
    """The axis of a MatMul's or Gemm's weight that it sums over."""
    if op.op_type == "MatMul":
        return rank - 1 if op.inputs[0] == name else rank - 2
    return 1 if _transposed(op) else 0
