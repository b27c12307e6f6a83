"""Recipes from and to the arguments of ONNX Runtime's `quantize_static`, types and methods by their names.

`nodes_to_exclude` is a fallback. `TensorQuantOverrides` is per tensor, a recipe is per op: an op's tensors that agree
make a rule, and what the recipe then does not say of a tensor is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from quantscope.backends.onnx.assignment import WEIGHTED_TYPES, assign, check_defaults, quant_type
from quantscope.errors import RecipeError
from quantscope.graph import Graph, Op
from quantscope.qparams import PerTensor, QuantSpec
from quantscope.recipe import PER_CHANNEL, Calibration, OpRule, OpSpecs, Recipe, SpecChange

_METHODS = {"MinMax": "minmax", "Entropy": "entropy", "Percentile": "percentile"}
_NAMES = {method: name for name, method in _METHODS.items()}
_FORMATS = {"QDQ": "qdq", "QOperator": "qoperator"}
_DTYPES = {f"Q{sign}Int{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (4, 8, 16)}
_PERCENTILE = 99.999  # ONNX Runtime's default
_ARGUMENTS = (
    "quant_format", "activation_type", "weight_type", "per_channel", "reduce_range", "op_types_to_quantize",
    "nodes_to_exclude", "calibrate_method", "extra_options",
)  # fmt: skip
_OPTIONS = (
    "ActivationSymmetric", "WeightSymmetric", "CalibPercentile", "TensorQuantOverrides",
    # Decided anew from the types that a recipe asks for.
    "UseQDQContribOps", "QDQKeepRemovableActivations",
)  # fmt: skip
_OVERRIDE_KEYS = ("quant_type", "symmetric", "axis", "convert", "recv_nodes", "reduce_range")

Arguments = Mapping[str, Any]


def to_arguments(recipe: Recipe, graph: Graph) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return keyword arguments for `quantize_static`, and what has no equivalent in them, by name.

    Types and methods are names: `QuantType[name]`, `QuantFormat[name]`, `CalibrationMethod[name]` make them ONNX
    Runtime's. The operators' names are those of the model that the graph is of.

    Raises:
        RecipeError: a selector matches no op, or the defaults are beyond ONNX Runtime.
    """
    check_defaults(recipe)
    assignment = assign(graph, recipe)
    notes = [f"{op}: {reason}" for op, reason in assignment.unsupported.items()]
    notes += [f"{name}: a scale per block has no equivalent in TensorQuantOverrides" for name in assignment.blocks]
    if recipe.equalize:
        notes.append("equalize has no equivalent in ONNX Runtime")
    extra: dict[str, Any] = {
        "ActivationSymmetric": recipe.activations.symmetric,
        "WeightSymmetric": recipe.weights.symmetric,
    }
    if recipe.calibration.method == "percentile":
        extra["CalibPercentile"] = recipe.calibration.percentile
    if recipe.calibration.method not in _NAMES:
        notes.append(f"calibration.method {recipe.calibration.method} has no equivalent in ONNX Runtime: MinMax")
    overrides = assignment.overrides(recipe.reduce_range)
    if overrides:
        extra["TensorQuantOverrides"] = overrides
    if assignment.keep_absorbed:
        extra["QDQKeepRemovableActivations"] = True
    if assignment.copies:
        shared = sorted({name for _, name in assignment.copies})
        notes.append(f"constants that ops with different codes share have one override: {', '.join(shared)}")
    # Rules may give codes to ops of types that the defaults leave out.
    coded = dict.fromkeys(op.op_type for op in graph.ops if op.name not in assignment.float_ops)
    types = None if recipe.op_types is None else list(dict.fromkeys((*recipe.op_types, *coded)))
    excluded = {name for name in assignment.float_ops if types is None or graph.by_name[name].op_type in types}
    arguments: dict[str, Any] = {
        "quant_format": {name: form for form, name in _FORMATS.items()}[recipe.format],
        "activation_type": quant_type(recipe.activations),
        "weight_type": quant_type(replace(recipe.weights, granularity=PerTensor())),
        "per_channel": recipe.per_channel,
        "reduce_range": recipe.reduce_range,
        "nodes_to_exclude": [op.name for op in graph.ops if op.name in excluded],
        "calibrate_method": _NAMES.get(recipe.calibration.method, "MinMax"),
        "extra_options": extra,
    }
    if types is not None:
        arguments["op_types_to_quantize"] = types
    return arguments, tuple(notes)


def from_arguments(arguments: Arguments | Iterable[str], graph: Graph | None = None) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe that asks for the same, and what has no equivalent in it, by name.

    Args:
        arguments: those of `quantize_static`, or the list `nodes_to_exclude` alone; an argument that is missing is the
            recipe's default, not ONNX Runtime's. Types and methods are ONNX Runtime's, or their names.
        graph: the model's, needed for `TensorQuantOverrides`.
    Raises:
        RecipeError: a value means nothing, or the graph is needed.
    """
    if not isinstance(arguments, Mapping):
        arguments = {"nodes_to_exclude": list(arguments)}
    extra = arguments.get("extra_options") or {}
    if not isinstance(extra, Mapping):
        raise RecipeError(f"extra_options is {extra!r}", accepted="a dictionary")
    notes = [f"{key} has no equivalent in a recipe" for key in arguments if key not in _ARGUMENTS]
    notes += [f"extra_options[{key!r}] has no equivalent in a recipe" for key in extra if key not in _OPTIONS]
    base = Recipe()
    activations = _spec("activation_type", arguments, base.activations, extra.get("ActivationSymmetric"))
    weights = _spec("weight_type", arguments, base.weights, extra.get("WeightSymmetric"))
    if "per_channel" in arguments:
        weights = replace(weights, granularity=PER_CHANNEL if arguments["per_channel"] else PerTensor())
    types = _strings("op_types_to_quantize", arguments)
    recipe = Recipe(
        format=_named("quant_format", arguments, _FORMATS, base.format),
        activations=activations,
        weights=weights,
        op_types=tuple(types) if types else None,
        calibration=_calibration(arguments, extra),
        reduce_range=bool(arguments.get("reduce_range", False)),
    ).with_fallback(_strings("nodes_to_exclude", arguments))
    overrides = extra.get("TensorQuantOverrides")
    if not overrides:
        return recipe, tuple(notes)
    if graph is None:
        raise RecipeError(
            "TensorQuantOverrides can only be converted for a model", next_step="give the model: --model MODEL.onnx"
        )
    wanted = {name: _override(name, entries, notes) for name, entries in overrides.items()}
    recipe = replace(recipe, rules=(*recipe.rules, *_rules(recipe, graph, wanted)))
    made = assign(graph, recipe)
    notes += [
        f"TensorQuantOverrides[{name!r}] has no equivalent: a recipe is about all tensors of an op"
        for name, override in wanted.items()
        if not _same(made.override(name, recipe.reduce_range), override)
    ]
    return recipe, tuple(notes)


def _rules(recipe: Recipe, graph: Graph, wanted: Mapping[str, Mapping[str, Any]]) -> list[OpRule]:
    """A rule for each op with tensors that are overridden and agree."""
    specs = recipe.specs_for(graph)
    plain = assign(graph, recipe)
    rules = []
    for op in graph.ops:
        current = specs[op.name]
        if current is None or op.name in plain.uncoded:
            continue
        constants = [name for name in op.inputs if name in plain.constants]
        weights = None
        if op.op_type in WEIGHTED_TYPES:
            weight = next((name for name in constants if name in wanted), None)
            weights = _change(wanted[weight]) if weight is not None else None
            constants = []
        tensors = [name for name in (*op.inputs, *op.outputs) if name in plain.activations] + constants
        seen = {_seen(op, name, wanted.get(name, {}), current) for name in tensors}
        overridden = any(name in wanted for name in tensors)
        activations = None
        if overridden and len(seen) == 1:
            spec = seen.pop()
            if spec != current.activations:
                activations = _difference(spec, current.activations)
        if activations is not None or weights is not None:
            rules.append(OpRule(op.name, "name", activations, weights))
    return rules


def _seen(op: Op, name: str, override: Mapping[str, Any], specs: OpSpecs) -> QuantSpec:
    """The codes in which an op reads or writes a tensor."""
    convert = override.get("convert")
    if convert and name not in op.outputs and op.name in convert.get("recv_nodes", (op.name,)):
        return _override_spec(convert, specs.activations)
    return _override_spec(override, specs.activations)


def _override_spec(override: Mapping[str, Any], default: QuantSpec) -> QuantSpec:
    dtype = _DTYPES[override["quant_type"]] if "quant_type" in override else default.dtype
    return QuantSpec.from_dtype(dtype, symmetric=override.get("symmetric", default.symmetric))


def _change(override: Mapping[str, Any]) -> SpecChange:
    dtype = _DTYPES[override["quant_type"]] if "quant_type" in override else None
    granularity = PER_CHANNEL if "axis" in override else PerTensor()
    return SpecChange(dtype, override.get("symmetric"), granularity)  # type: ignore[arg-type]


def _difference(spec: QuantSpec, default: QuantSpec) -> SpecChange:
    return SpecChange(
        spec.dtype if spec.dtype != default.dtype else None,  # type: ignore[arg-type]
        spec.symmetric if spec.symmetric != default.symmetric else None,
    )


def _same(made: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """True if what a recipe makes of a tensor is all that was given for it."""
    for key, value in given.items():
        if key == "convert":
            if not _same(made.get("convert", {}), value):
                return False
        elif key == "recv_nodes":
            if sorted(made.get("recv_nodes", ())) != sorted(value):
                return False
        elif made.get(key, False if key == "reduce_range" else None) != value:
            return False
    return True


def _override(name: str, entries: object, notes: list[str]) -> dict[str, Any]:
    """One tensor's overrides with type names, those of the first channel; what a recipe cannot say is noted."""
    place = f"TensorQuantOverrides[{name!r}]"
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, Mapping) for entry in entries):
        raise RecipeError(f"{place} is {entries!r}", accepted='[{"quant_type": "QUInt16"}], for example')
    if len(entries) > 1:
        notes.append(f"{place}: settings per channel have no equivalent: those of the first channel are taken")
    return _plain(place, entries[0], notes)


def _plain(place: str, entry: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in entry.items():
        if key == "convert":
            found[key] = _plain(f"{place}['convert']", value, notes)
        elif key == "quant_type":
            if str(value).removeprefix("QuantType.") not in _DTYPES:
                raise RecipeError(f"{place}['quant_type'] is {value}", accepted=", ".join(_DTYPES))
            found[key] = str(value).removeprefix("QuantType.")
        elif key in _OVERRIDE_KEYS:
            found[key] = value
        else:
            notes.append(f"{place}: {key} has no equivalent in a recipe")
    return found


def _calibration(arguments: Arguments, extra: Mapping[str, Any]) -> Calibration:
    method = _named("calibrate_method", arguments, _METHODS, Calibration().method)
    percentile = extra.get("CalibPercentile", _PERCENTILE if method == "percentile" else Calibration().percentile)
    if isinstance(percentile, bool) or not isinstance(percentile, int | float):
        raise RecipeError(f"extra_options['CalibPercentile'] is {percentile!r}", accepted="a number")
    return Calibration(method, float(percentile))


def _spec(key: str, arguments: Arguments, default: QuantSpec, symmetric: bool | None) -> QuantSpec:
    dtype = _named(key, arguments, _DTYPES, default.dtype)
    if symmetric is None:
        # As ONNX Runtime has it: weights are symmetric where their codes have a sign, activations where one asks.
        symmetric = key == "weight_type" and not dtype.startswith("u")
    return QuantSpec.from_dtype(dtype, symmetric=symmetric, granularity=default.granularity)


def _named(key: str, arguments: Arguments, known: Mapping[str, str], default: str) -> Any:
    if key not in arguments:
        return default
    name = str(arguments[key]).rpartition(".")[2]
    if name not in known:
        raise RecipeError(f"{key} is {arguments[key]}", accepted=", ".join(known))
    return known[name]


def _strings(key: str, arguments: Arguments) -> list[str]:
    value = arguments.get(key) or []
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise RecipeError(f"{key} is {value!r}", accepted="a list of names")
    return list(value)
