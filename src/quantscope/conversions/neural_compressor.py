"""Recipes from and to `op_name_dict` and `op_type_dict` of Neural Compressor 2.x.

Their keys are regular expressions that a whole name or type must match; types come before names, and later entries
win (neural_compressor/strategy/utils/tuning_space.py). An op with "fp32" in either role stays in float.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from quantscope.errors import RecipeError, UnsupportedError
from quantscope.graph import Graph
from quantscope.qparams import Granularity, PerBlock, PerChannel, PerTensor, QuantSpec
from quantscope.recipe import PER_CHANNEL, Calibration, Dtype, OpRule, Recipe, SpecChange

FP32: Mapping[str, Any] = {"weight": {"dtype": ["fp32"]}, "activation": {"dtype": ["fp32"]}}
"""Neural Compressor's shorthand for an op that stays in float."""

_ALL = ".*"
_PLAIN_NAME = re.compile(r"[\w/:@-]+")
# The article's second example writes "weights", which Neural Compressor itself does not read.
_ROLES: Mapping[str, Literal["activations", "weights"]] = {
    "activation": "activations", "activations": "activations", "weight": "weights", "weights": "weights",
}  # fmt: skip
_METHODS: Mapping[str, Literal["minmax", "entropy", "percentile"]] = {
    "minmax": "minmax", "kl": "entropy", "percentile": "percentile",
}  # fmt: skip
_ALGORITHMS = {method: algorithm for algorithm, method in _METHODS.items()}
_SCHEMES = {"sym": True, "asym": False}
_GRANULARITIES: Mapping[str, Granularity] = {"per_tensor": PerTensor(), "per_channel": PER_CHANNEL}
_DTYPES = ("int8", "uint8")
_DEFAULTS = Recipe()

OpDict = Mapping[str, Mapping[str, Any]]


def from_op_dicts(
    op_name_dict: OpDict | None = None,
    op_type_dict: OpDict | None = None,
    *,
    base: Recipe | None = None,
    graph: Graph | None = None,
    strict: bool = False,
) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe that asks for the same, and what has no equivalent in it, by name.

    Args:
        base: the recipe that the entries are added to.
        graph: the model's, needed for expressions in `op_type_dict`.
        strict: what has no equivalent and would change the model is an error, not a note.
    Raises:
        RecipeError: an entry is no dictionary, its key no regular expression, or the graph is needed.
        UnsupportedError: by `strict`.
    """
    recipe = base or Recipe()
    limited: list[_Entry] = []
    notes: list[str] = []
    for place, entries in (("op_type_dict", op_type_dict or {}), ("op_name_dict", op_name_dict or {})):
        if not isinstance(entries, Mapping):
            raise RecipeError(f"{place} is {type(entries).__name__}", accepted="a dictionary")
        for pattern, settings in entries.items():
            entry = _Entry(f"{place}[{pattern!r}]", settings, strict)
            notes += entry.notes
            if place == "op_type_dict" and pattern == _ALL and not entry.fallback:
                recipe = _with_defaults(recipe, entry)
                continue
            limited.append(entry)
            if entry.asks:
                changes = (None, None) if entry.fallback else (entry.activations, entry.weights)
                rules = _type_rules(pattern, graph) if place == "op_type_dict" else [_name_rule(str(pattern))]
                rules = [replace(rule, activations=changes[0], weights=changes[1]) for rule in rules]
                recipe = replace(recipe, rules=(*recipe.rules, *rules))
    # The method of the whole recipe is known once all entries are read.
    for entry in limited:
        notes += entry.other_algorithm(recipe.calibration)
    return recipe, tuple(notes)


def to_op_dicts(recipe: Recipe, graph: Graph | None = None) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """Return `op_name_dict`, `op_type_dict`, and what has no equivalent in them, by name.

    Args:
        graph: the model's; needed where rules select by scope, where rules by type follow others, and for `op_types`.
    Raises:
        RecipeError: the graph is needed.
    """
    names: dict[str, Any] = {}
    types: dict[str, Any] = {}
    notes = _configuration_notes(recipe)
    defaults = _settings(
        "defaults", SpecChange(*_difference(recipe.activations, _DEFAULTS.activations)),
        SpecChange(*_difference(recipe.weights, _DEFAULTS.weights)), notes,
    )  # fmt: skip
    if recipe.calibration.method in _ALGORITHMS:
        if recipe.calibration.method != "minmax":
            defaults.setdefault("activation", {})["algorithm"] = [_ALGORITHMS[recipe.calibration.method]]
    else:
        notes.append(f"calibration.method {recipe.calibration.method} has no equivalent in Neural Compressor")
    if recipe.calibration.method == "percentile":
        notes.append(f"calibration.percentile {recipe.calibration.percentile} has no equivalent in op_name_dict")
    if defaults:
        types[_ALL] = defaults
    if recipe.op_types is not None:
        present = _needed(graph, "op_types").by_name.values()
        others = dict.fromkeys(op.op_type for op in present if op.op_type not in recipe.op_types)
        types |= {op_type: _fp32() for op_type in others}
    for rule in recipe.rules:
        where = f"rule {rule.key} {rule.selector!r}"
        settings = _fp32() if rule.fallback else _settings(where, rule.activations, rule.weights, notes)
        if not settings:
            continue
        if rule.by == "type" and not names:
            _add(types, rule.selector, settings)
        else:
            for pattern in _patterns(rule, graph):
                _add(names, pattern, settings)
    return names, types, tuple(notes)


class _Entry:
    """One entry of a dictionary, read: what it asks for, and notes on what means nothing here."""

    def __init__(self, place: str, settings: object, strict: bool = False) -> None:
        self.place = place
        self.strict = strict
        self.notes: list[str] = []
        self.fallback = False
        self.algorithm: str | None = None
        self.activations: SpecChange | None = None
        self.weights: SpecChange | None = None
        if not isinstance(settings, Mapping):
            raise RecipeError(f"{place} is {settings!r}", accepted='{"activation": {"dtype": ["fp32"]}}, for example')
        for key, options in settings.items():
            if key not in _ROLES:
                self._no_equivalent(str(key))
            elif options is not None:
                self._read(str(key), options)

    @property
    def asks(self) -> bool:
        """True if there is something to make a rule of."""
        return self.fallback or self.activations is not None or self.weights is not None

    def other_algorithm(self, calibration: Calibration) -> list[str]:
        """A note if the entry asks for another algorithm than that of the whole recipe."""
        if not self.algorithm or self.fallback or _METHODS[self.algorithm] == calibration.method:
            return []
        return self._lost(
            f"{self.place}: algorithm {self.algorithm} for some ops alone has no equivalent: a recipe calibrates "
            f"all ranges by one method, here {calibration.method}",
            f'say it for all: op_type_dict={{".*": {{"activation": {{"algorithm": ["{self.algorithm}"]}}}}}}',
        )

    def _no_equivalent(self, what: str) -> None:
        self.notes += self._lost(f"{self.place}: {what} has no equivalent in a recipe", "take it out")

    def _lost(self, what: str, next_step: str) -> list[str]:
        if self.strict:
            raise UnsupportedError(
                what,
                accepted="weight and activation with dtype, scheme, granularity, and algorithm minmax, kl, percentile",
                next_step=next_step,
            )
        return [what]

    def _read(self, key: str, options: object) -> None:
        if not isinstance(options, Mapping):
            raise RecipeError(f"{self.place}[{key!r}] is {options!r}", accepted='{"dtype": ["int8"]}, for example')
        role = _ROLES[key]
        change = SpecChange()
        for name, given in options.items():
            values = given if isinstance(given, list | tuple) else [given]
            if not values or given is None:
                continue
            value = values[0]
            if name == "dtype" and "fp32" in values:
                # Neural Compressor takes float whenever it is among the choices.
                self.fallback = True
                continue
            if len(values) > 1:
                self.notes.append(f"{self.place}: {key} {name} {list(values)} is a choice to tune: {value} is taken")
            if name == "dtype" and value in get_args(Dtype):
                change = replace(change, dtype=value)
            elif name == "scheme" and value in _SCHEMES:
                change = replace(change, symmetric=_SCHEMES[value])
            elif name == "granularity" and value in _GRANULARITIES:
                change = replace(change, granularity=_GRANULARITIES[value])
            elif name == "algorithm" and role == "activations" and value in _METHODS:
                self.algorithm = value
            elif name == "dtype" and value in ("bf16", "fp16"):
                self.fallback = True
                self.notes.append(f"{self.place}: {key} dtype {value} has no equivalent: the ops stay in float32")
            elif not (name == "algorithm" and value == "minmax"):
                self._no_equivalent(f"{key} {name} {value}")
        if change != SpecChange():
            setattr(self, role, change)


def _with_defaults(recipe: Recipe, entry: _Entry) -> Recipe:
    """The recipe with the entry for all types as its defaults."""
    method = _METHODS[entry.algorithm] if entry.algorithm else recipe.calibration.method
    return replace(
        recipe,
        activations=(entry.activations or SpecChange()).applied(recipe.activations),
        weights=(entry.weights or SpecChange()).applied(recipe.weights),
        calibration=replace(recipe.calibration, method=method),
    )


def _name_rule(pattern: str) -> OpRule:
    return OpRule(pattern, "name" if _PLAIN_NAME.fullmatch(pattern) else "regex")


def _type_rules(pattern: str, graph: Graph | None) -> list[OpRule]:
    if pattern.isidentifier():
        return [OpRule(pattern, "type")]
    if pattern == _ALL:
        return [OpRule(_ALL, "regex")]
    expression = OpRule(pattern, "regex").selector
    present = dict.fromkeys(op.op_type for op in _needed(graph, f"op_type_dict[{pattern!r}]").ops)
    rules = [OpRule(op_type, "type") for op_type in present if re.fullmatch(expression, op_type)]
    if not rules:
        raise RecipeError(f"op_type_dict[{pattern!r}] matches no op type", accepted=", ".join(sorted(present)))
    return rules


def _needed(graph: Graph | None, what: str) -> Graph:
    if graph is None:
        raise RecipeError(f"{what} can only be converted for a model", next_step="give the model: --model MODEL.onnx")
    return graph


def _patterns(rule: OpRule, graph: Graph | None) -> Iterable[str]:
    """Regular expressions for the names that a rule matches."""
    if rule.by == "regex":
        return [rule.selector]
    if rule.by == "name" and (graph is None or rule.selector in graph.by_name):
        names: Iterable[str] = [rule.selector]
        if graph is None and re.search(r"[*?[]", rule.selector):
            return [_expression(rule.selector)]
    elif rule.by == "name":
        return [_expression(rule.selector)]
    else:
        names = rule.matched(_needed(graph, f"rule {rule.key} {rule.selector!r}"))
    # As it is where it matches itself, for who reads it; the dots of a name match themselves.
    return [name if re.fullmatch(r"[\w/:@.-]+", name) else re.escape(name) for name in names]


def _expression(glob: str) -> str:
    """A glob as a regular expression that every version of Python reads."""
    parts = re.split(r"(\*|\?|\[!?\]?[^]]*\])", glob)
    return "".join(
        {"*": ".*", "?": "."}.get(part) or (part.replace("[!", "[^", 1) if part[:1] == "[" else re.escape(part))
        for part in parts
    )


def _add(entries: dict[str, Any], pattern: str, settings: dict[str, Any]) -> None:
    """Add an entry behind all others, also where its key is there already."""
    while pattern in entries:
        pattern = f"(?:{pattern})"
    entries[pattern] = settings


def _fp32() -> dict[str, Any]:
    return {role: {key: list(values) for key, values in options.items()} for role, options in FP32.items()}


def _difference(spec: QuantSpec, default: QuantSpec) -> tuple[Any, Any, Any]:
    return (
        spec.dtype if spec.dtype != default.dtype else None,
        spec.symmetric if spec.symmetric != default.symmetric else None,
        spec.granularity if type(spec.granularity) is not type(default.granularity) else None,
    )


def _settings(
    where: str, activations: SpecChange | None, weights: SpecChange | None, notes: list[str]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for role, change in (("activation", activations), ("weight", weights)):
        if change is None:
            continue
        options: dict[str, Any] = {}
        if change.dtype in _DTYPES:
            options["dtype"] = [change.dtype]
        elif change.dtype is not None:
            notes.append(f"{where}: {role} dtype {change.dtype} has no equivalent in Neural Compressor")
        if change.symmetric is not None:
            options["scheme"] = ["sym" if change.symmetric else "asym"]
        if isinstance(change.granularity, PerBlock):
            notes.append(f"{where}: {role} granularity per_block has no equivalent in Neural Compressor")
        elif change.granularity is not None:
            options["granularity"] = ["per_channel" if isinstance(change.granularity, PerChannel) else "per_tensor"]
        if options:
            found[role] = options
    return found


def _configuration_notes(recipe: Recipe) -> list[str]:
    """What belongs into PostTrainingQuantConfig, with how to say it there."""
    quant_format = {"qdq": "QDQ", "qoperator": "QOperator"}[recipe.format]
    notes = [f'format {recipe.format}: say PostTrainingQuantConfig(quant_format="{quant_format}")']
    if recipe.reduce_range:
        notes.append("reduce_range: say PostTrainingQuantConfig(reduce_range=True)")
    if recipe.equalize:
        notes.append("equalize has no equivalent in Neural Compressor")
    return notes
