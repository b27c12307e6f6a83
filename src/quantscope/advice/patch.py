"""What a suggestion changes in a recipe, and the forms in which files, commands and other tools take it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from quantscope import recipe_file
from quantscope.conversions.neural_compressor import to_op_dicts
from quantscope.graph import Graph
from quantscope.qparams import PerTensor, QuantSpec
from quantscope.recipe import Calibration, OpRule, Recipe, SpecChange

_ALL = ".*"
_RULES = "[[rules]]"
# A command with more fallbacks than that is not to be read: it is better said by a recipe file.
_MOST_FLAGS = 8


@dataclass(frozen=True)
class RecipePatch:
    """Changes to a recipe: to its defaults, and rules behind those that are there; what is None stays as it was."""

    rules: tuple[OpRule, ...] = ()
    activations: SpecChange | None = None
    weights: SpecChange | None = None
    op_types: tuple[str, ...] | None = None
    calibration: Calibration | None = None
    reduce_range: bool | None = None
    equalize: bool | None = None

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe with the changes made."""
        return replace(
            recipe,
            rules=(*recipe.rules, *self.rules),
            activations=(self.activations or SpecChange()).applied(recipe.activations),
            weights=(self.weights or SpecChange()).applied(recipe.weights),
            op_types=self.op_types or recipe.op_types,
            calibration=self.calibration or recipe.calibration,
            reduce_range=recipe.reduce_range if self.reduce_range is None else self.reduce_range,
            equalize=recipe.equalize if self.equalize is None else self.equalize,
        )

    def to_dict(self) -> dict[str, Any]:
        """The changes alone, as plain values in the form of a recipe file."""
        values: dict[str, Any] = {
            "reduce_range": self.reduce_range,
            "equalize": self.equalize,
            "op_types": None if self.op_types is None else list(self.op_types),
            "activations": _change_values(self.activations),
            "weights": _change_values(self.weights),
            "calibration": None if self.calibration is None else _calibration_values(self.calibration),
            "rules": recipe_file.to_values(Recipe(rules=self.rules)).get("rules"),
        }
        return {key: value for key, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RecipePatch:
        """The patch that `to_dict` described.

        Raises:
            RecipeError: a key or a value means nothing.
        """
        recipe = Recipe.from_dict(values)
        return cls(
            rules=recipe.rules,
            activations=_change(values.get("activations"), recipe.activations),
            weights=_change(values.get("weights"), recipe.weights),
            op_types=recipe.op_types,
            calibration=recipe.calibration if "calibration" in values else None,
            reduce_range=values.get("reduce_range"),
            equalize=values.get("equalize"),
        )

    def to_toml(self) -> str:
        """The lines that make the changes in a recipe file; alone they are a recipe with all else as default."""
        import tomli_w

        settings = tomli_w.dumps({key: value for key, value in self.to_dict().items() if key != "rules"})
        if not self.rules:
            return settings
        _, head, rules = recipe_file.text(Recipe(rules=self.rules)).partition(_RULES)
        return f"{settings}\n{head}{rules}" if settings else head + rules

    def in_float(self, graph: Graph) -> tuple[str, ...]:
        """The names of the ops that the patch leaves in float: ONNX Runtime's `nodes_to_exclude`."""
        chosen = {name for rule in self.rules if rule.fallback for name in rule.matched(graph)}
        if self.op_types is not None:
            chosen |= {op.name for op in graph.ops if op.op_type not in self.op_types}
        return tuple(op.name for op in graph.ops if op.name in chosen)

    def to_op_dicts(self, graph: Graph) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
        """Neural Compressor's `op_name_dict` and `op_type_dict` that make the changes, and what has no equivalent.

        A change for all ops stands under the expression ".*".
        """
        everything = OpRule(_ALL, "regex", self.activations, self.weights)
        recipe = Recipe(
            rules=(*((everything,) if not everything.fallback else ()), *self.rules),
            op_types=self.op_types,
            calibration=self.calibration or Calibration(),
            reduce_range=bool(self.reduce_range),
            equalize=bool(self.equalize),
        )
        names, types, notes = to_op_dicts(recipe, graph)
        if self.calibration is not None and self.calibration.method == "minmax":
            # The default there too, but not what the recipe had.
            types.setdefault(_ALL, {}).setdefault("activation", {})["algorithm"] = ["minmax"]
        # The format is the recipe's, not the patch's.
        return names, types, tuple(note for note in notes if not note.startswith("format "))

    def to_op_name_dict(self, graph: Graph) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Neural Compressor's `op_name_dict` alone that makes the changes, and what has no equivalent in it.

        What `op_type_dict` would say of a type stands there for each op of it, before all others: later entries win.
        """
        names, types, notes = self.to_op_dicts(graph)
        by_type: dict[str, Any] = {_ALL: types[_ALL]} if _ALL in types else {}
        for op in graph.ops:
            if op.op_type in types:
                by_type[_as_expression(op.name)] = types[op.op_type]
        for role, options in by_type.get(_ALL, {}).items():
            if _ALL in names:
                names[_ALL][role] = {**options, **names[_ALL].get(role, {})}
        return {**by_type, **names}, notes

    def to_command(self, recipe: Recipe | None, arguments: Sequence[str] = ("MODEL.onnx", "--data", "SAMPLES")) -> str:
        """The command that quantizes by the patched recipe, in RECIPE.toml if options do not say it, and diagnoses.

        Args:
            recipe: what the patch is for; quantscope's defaults if None.
            arguments: the model and its samples.
        """
        patched = self.applied(recipe or Recipe())
        flags = recipe_flags(patched) if len(patched.rules) <= _MOST_FLAGS else None
        chosen = ["--recipe", "RECIPE.toml"] if flags is None else flags
        return shlex.join(["quantscope", "diagnose", *arguments, *chosen])


def recipe_flags(recipe: Recipe) -> list[str] | None:
    """Return the options of `quantscope diagnose` that say what a recipe says; None if no options do."""
    default = Recipe()
    activations, weights = recipe.activations, recipe.weights
    sayable = (
        isinstance(activations.granularity, PerTensor)
        and weights.symmetric == weights.signed
        and (recipe.per_channel or isinstance(weights.granularity, PerTensor))
        and all(rule.fallback and rule.by in ("name", "type") for rule in recipe.rules)
    )
    if not sayable:
        return None
    flags: list[str] = []
    if recipe.format != default.format:
        flags += ["--format", recipe.format]
    if not recipe.per_channel:
        flags.append("--per-tensor")
    if activations.dtype != default.activations.dtype:
        flags += ["--activations", activations.dtype]
    if weights.dtype != default.weights.dtype:
        flags += ["--weights", weights.dtype]
    if activations.symmetric:
        flags.append("--symmetric")
    if recipe.calibration.method != default.calibration.method:
        flags += ["--calibration", recipe.calibration.method]
    if recipe.calibration.method == "percentile" and recipe.calibration.percentile != default.calibration.percentile:
        flags += ["--percentile", f"{recipe.calibration.percentile:g}"]
    for rule in recipe.rules:
        flags += ["--fallback-type" if rule.by == "type" else "--fallback", rule.selector]
    for op_type in recipe.op_types or ():
        flags += ["--op-type", op_type]
    if recipe.reduce_range:
        flags.append("--reduce-range")
    if recipe.equalize:
        flags.append("--equalize")
    return flags


def _as_expression(name: str) -> str:
    """A name as a regular expression that matches it alone; as it is where it matches itself."""
    return name if re.fullmatch(r"[\w/:@.-]+", name) else re.escape(name)


def _change_values(change: SpecChange | None) -> dict[str, Any] | None:
    """What a change says as values of a recipe file: those of a rule that makes it."""
    if change is None:
        return None
    values: dict[str, Any] = recipe_file.to_values(Recipe(rules=(OpRule("*", activations=change),)))
    found: dict[str, Any] = values["rules"][0]["activations"]
    return found


def _calibration_values(calibration: Calibration) -> dict[str, Any]:
    values: dict[str, Any] = {"method": calibration.method}
    return {**values, "percentile": calibration.percentile} if calibration.method == "percentile" else values


def _change(values: Mapping[str, Any] | None, spec: QuantSpec) -> SpecChange | None:
    """The part of a specification that the values name."""
    if values is None:
        return None
    return SpecChange(
        values.get("dtype"),
        spec.symmetric if "symmetric" in values else None,
        spec.granularity if "granularity" in values else None,
    )
