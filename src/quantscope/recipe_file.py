"""A recipe as a TOML file, read strictly: whatever means nothing is named with its place and what is accepted."""

from __future__ import annotations

import difflib
import json
import os
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from quantscope.errors import OutputError, RecipeError
from quantscope.qparams import Granularity, PerBlock, PerChannel, PerTensor, QuantSpec
from quantscope.recipe import (
    PER_CHANNEL,
    Calibration,
    CalibrationMethod,
    Dtype,
    Format,
    OpRule,
    Recipe,
    Selection,
    SpecChange,
    per_block,
)

_SELECTORS: Mapping[str, Selection] = {"op": "name", "regex": "regex", "type": "type", "scope": "scope"}
_GRANULARITIES = ("per_tensor", "per_channel", "per_block")
_SOURCE = "recipe"


def read(path: Path) -> Recipe:
    """Return the recipe in a TOML file.

    Raises:
        RecipeError: the file is missing, is no TOML, or a key or value in it means nothing.
    """
    if not path.is_file():
        raise RecipeError(
            f"{path} is a folder" if path.is_dir() else f"no such recipe file: {path}",
            accepted="the path of a TOML file",
            next_step="docs/recipes.md shows one",
        )
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RecipeError(f"{path} is no text", accepted="a TOML file in UTF-8") from None
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        problem = str(error).replace("at end of document", f"at line {len(content.splitlines())}, its end")
        raise RecipeError(f"{path} is no TOML: {problem}", accepted="TOML, as docs/recipes.md shows it") from None
    return from_values(values, str(path))


def write(recipe: Recipe, path: Path) -> None:
    """Write the recipe to a TOML file, beside it first and then renamed.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(text(recipe), path)


def text(recipe: Recipe) -> str:
    """Return the text of the recipe's file: tables, then a table per rule with its specifications in one line each."""
    import tomli_w

    values = to_values(recipe)
    parts = [tomli_w.dumps({key: value for key, value in values.items() if key != "rules"})]
    for rule in values.get("rules", ()):
        lines = ["[[rules]]"]
        for key, value in rule.items():
            if isinstance(value, Mapping):
                inner = ", ".join(tomli_w.dumps({name: item}).strip() for name, item in value.items())
                lines.append(f"{key} = {{ {inner} }}" if inner else f"{key} = {{}}")
            else:
                lines.append(tomli_w.dumps({key: value}).strip())
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def write_text(text: str, path: Path) -> None:
    """Write a text file, beside it first and then renamed.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(text.encode())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", next_step="choose another path") from error
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                os.unlink(temporary)


def to_values(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain values in the order of a file."""
    values: dict[str, Any] = {
        "format": recipe.format, "reduce_range": recipe.reduce_range, "equalize": recipe.equalize,
    }  # fmt: skip
    if recipe.op_types is not None:
        values["op_types"] = list(recipe.op_types)
    values["activations"] = _spec_values(recipe.activations)
    values["weights"] = _spec_values(recipe.weights)
    values["calibration"] = {"method": recipe.calibration.method, "percentile": recipe.calibration.percentile}
    if recipe.rules:
        values["rules"] = [_rule_values(rule) for rule in recipe.rules]
    return values


def _spec_values(spec: QuantSpec | SpecChange) -> dict[str, Any]:
    values: dict[str, Any] = {"dtype": spec.dtype, "symmetric": spec.symmetric}
    if isinstance(spec.granularity, PerBlock):
        values |= {"granularity": "per_block", "block_size": spec.granularity.size}
    elif spec.granularity is not None:
        values["granularity"] = "per_channel" if isinstance(spec.granularity, PerChannel) else "per_tensor"
    return {key: value for key, value in values.items() if value is not None}


def spec_text(change: SpecChange) -> str:
    """Return a change in a few words: "uint16", "int4 asymmetric per_block 32"."""
    values = _spec_values(change)
    if "symmetric" in values:
        values["symmetric"] = "symmetric" if values["symmetric"] else "asymmetric"
    return " ".join(str(value) for value in values.values()) or "as the defaults say"


def _rule_values(rule: OpRule) -> dict[str, Any]:
    values: dict[str, Any] = {rule.key: rule.selector}
    if rule.fallback:
        values["fallback"] = True
    for role, change in (("activations", rule.activations), ("weights", rule.weights)):
        if change is not None:
            values[role] = _spec_values(change)
    return values


def from_values(values: Mapping[str, Any], source: str = _SOURCE) -> Recipe:
    """Return the recipe that `to_values` described, also in the form that version 0.1 wrote into run files.

    Raises:
        RecipeError: a key or a value means nothing; `source` names the file.
    """
    defaults = Recipe()
    top = _Table(_current(values), source, "")
    format = top.choice("format", get_args(Format), defaults.format)
    reduce_range = top.flag("reduce_range", defaults.reduce_range)
    equalize = top.flag("equalize", defaults.equalize)
    op_types = top.names("op_types")
    calibration = top.table("calibration")
    activations = _change(top.table("activations"))
    weights = _change(top.table("weights"))
    rules = [_rule(table) for table in top.tables("rules")]
    top.finish()
    method = calibration.choice("method", get_args(CalibrationMethod), defaults.calibration.method)
    percentile = calibration.number("percentile", defaults.calibration.percentile)
    calibration.finish()
    with calibration.named():
        chosen = Calibration(method, percentile)
    if weights.symmetric is None and weights.dtype is not None:
        # Codes without a sign have no code for zero in their middle.
        weights = SpecChange(weights.dtype, not weights.dtype.startswith("u"), weights.granularity)
    with top.named():
        return Recipe(
            format=format,
            activations=activations.applied(defaults.activations),
            weights=weights.applied(defaults.weights),
            op_types=op_types,
            rules=tuple(rules),
            calibration=chosen,
            reduce_range=reduce_range,
            equalize=equalize,
        )


def _rule(table: _Table) -> OpRule:
    given = [key for key in _SELECTORS if key in table]
    if len(given) != 1:
        table.fail(
            f"selects by {' and '.join(given) if given else 'nothing'}",
            accepted=f"exactly one of {', '.join(_SELECTORS)}",
        )
    selector = table.text(given[0])
    fallback = table.flag("fallback", None)
    changes = [_change(table.table(role)) if role in table else None for role in ("activations", "weights")]
    table.finish()
    if fallback and any(changes):
        table.fail("has both fallback = true and specifications", accepted="one of them")
    if not fallback and not any(changes):
        if fallback is None:
            table.fail("asks for nothing", accepted="fallback = true, or activations or weights")
        # Undoes an earlier fallback: the ops get codes as the defaults say.
        changes[0] = SpecChange()
    with table.named():
        return OpRule(selector, _SELECTORS[given[0]], changes[0], changes[1])


def _change(table: _Table) -> SpecChange:
    dtype = table.choice("dtype", get_args(Dtype), None)
    symmetric = table.flag("symmetric", None)
    name = table.choice("granularity", _GRANULARITIES, None)
    size = table.number("block_size", None, kind=int)
    table.finish()
    if (size is not None) != (name == "per_block"):
        table.fail(
            'block_size without granularity = "per_block"' if size is not None else 'granularity "per_block"',
            accepted='granularity = "per_block" with block_size = 32, for example',
        )
    granularity: Granularity | None = None
    if name is not None:
        granularity = PerTensor() if name == "per_tensor" else PER_CHANNEL
    with table.named():
        return SpecChange(dtype, symmetric, granularity if size is None else per_block(size))


def _current(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values in today's form: version 0.1 wrote `per_channel` and rules of `selector` and `by`."""
    weights = values.get("weights")
    if not isinstance(weights, Mapping) or "per_channel" not in weights:
        return values
    granularity = "per_channel" if weights["per_channel"] else "per_tensor"
    names = {by: key for key, by in _SELECTORS.items()}
    return {
        **{key: value for key, value in values.items() if value is not None},
        "weights": {"dtype": weights["dtype"], "symmetric": weights["symmetric"], "granularity": granularity},
        "rules": [{names[rule["by"]]: rule["selector"], "fallback": True} for rule in values.get("rules", ())],
    }


class _Named:
    """Puts the file and the place before the message of a recipe error."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RecipeError):
            raise RecipeError(
                f"{self._place}: {error.message}", accepted=error.accepted, next_step=error.next_step
            ) from None


class _Table:
    """A table of a file, each key of which is asked for by name; `finish` names those that nobody asked for."""

    def __init__(self, values: object, source: str, path: str) -> None:
        self._place, self._path = source, path
        if not isinstance(values, Mapping):
            self._wrong("", values, "a table")
        self._values: Mapping[str, Any] = values  # type: ignore[assignment]
        self._asked: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def named(self) -> _Named:
        """A context in which a recipe error gets the file and the table before its message."""
        return _Named(f"{self._place}: {self._path}" if self._path else self._place)

    def fail(self, problem: str, accepted: str) -> None:
        """Raise a RecipeError about this table."""
        raise RecipeError(": ".join(part for part in (self._place, self._path, problem) if part), accepted=accepted)

    def _wrong(self, key: str, value: object, accepted: str) -> None:
        place = ".".join(part for part in (self._path, key) if part)
        raise RecipeError(f"{self._place}: {place} is {_shown(value)}", accepted=accepted)

    def _get(self, key: str) -> Any:
        self._asked.append(key)
        return self._values.get(key)

    def choice(self, key: str, choices: Sequence[str], default: Any) -> Any:
        """One of these words; the default where the key is missing."""
        value = self._get(key)
        if value is None:
            return default
        if value not in choices:
            self._wrong(key, value, ", ".join(choices))
        return value

    def flag(self, key: str, default: Any) -> Any:
        """True or false; the default where the key is missing."""
        value = self._get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self._wrong(key, value, "true or false")
        return value

    def number(self, key: str, default: Any, kind: type = float) -> Any:
        """A number, or a whole one; the default where the key is missing."""
        value = self._get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
            self._wrong(key, value, "a whole number" if kind is int else "a number")
        return kind(value)

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self._get(key)
        if not isinstance(value, str) or not value:
            self._wrong(key, value, "a text that is not empty")
        return str(value)

    def names(self, key: str) -> tuple[str, ...] | None:
        """A list of texts; None where the key is missing."""
        value = self._get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
            self._wrong(key, value, 'a list of op types, such as ["Conv", "MatMul"]')
        return tuple(value)

    def table(self, key: str) -> _Table:
        """The table below a key; an empty one where the key is missing."""
        value = self._get(key)
        return _Table({} if value is None else value, self._place, f"{self._path}.{key}" if self._path else key)

    def tables(self, key: str) -> list[_Table]:
        """The tables of an array, counted from 1 in messages."""
        value = self._get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self._wrong(key, value, f"[[{key}]] before each rule")
        return [_Table(item, self._place, f"{key}[{i}]") for i, item in enumerate(value, 1)]

    def finish(self) -> None:
        """Raise a RecipeError if the table has a key that nobody asked for."""
        for key in self._values:
            if key not in self._asked:
                alike = difflib.get_close_matches(key, self._asked, n=1)
                place = ".".join(part for part in (self._path, key) if part)
                raise RecipeError(
                    f"{self._place}: unknown key {place}",
                    accepted=f"{alike[0]}, or another of " * bool(alike) + ", ".join(self._asked),
                )


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except TypeError:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
