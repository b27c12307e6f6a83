"""quantscope recipe: check one against a model, convert one from and to other tools' settings."""

from __future__ import annotations

import json as encoder
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from quantscope.cli.options import FLOAT_MODEL
from quantscope.errors import RecipeError

if TYPE_CHECKING:
    from quantscope.graph import Graph
    from quantscope.recipe import OpRule, Recipe

Kind = Literal["recipe", "neural-compressor", "onnxruntime"]

_CHECK_EPILOG = """[bold]Examples[/bold]

  quantscope recipe check recipe.toml model.onnx

  quantscope recipe check recipe.toml model.onnx --json
"""
_CONVERT_EPILOG = """[bold]Examples[/bold]

Neural Compressor's op_name_dict in a JSON file, or both: {"op_name_dict": {...}, "op_type_dict": {...}}
  quantscope recipe convert ops.json recipe.toml --from neural-compressor

and back:
  quantscope recipe convert recipe.toml ops.json --to neural-compressor

ONNX Runtime's nodes_to_exclude, ["/head/fc/MatMul", ...], or arguments of quantize_static:
{"nodes_to_exclude": [...], "extra_options": {"TensorQuantOverrides": {...}}}
  quantscope recipe convert arguments.json recipe.toml --from onnxruntime --model model.onnx

and back:
  quantscope recipe convert recipe.toml arguments.json --to onnxruntime --model model.onnx
"""
_commands = typer.Typer(name="recipe", help="Check and convert recipes: what each op shall get.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(
        _commands,
        epilog="[bold]Examples[/bold]\n\n  quantscope recipe check recipe.toml model.onnx\n\n"
        "  quantscope recipe convert ops.json recipe.toml --from neural-compressor",
    )


@_commands.command(epilog=_CHECK_EPILOG)
def check(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a TOML file.")],
    model: Annotated[Path, typer.Argument(help=FLOAT_MODEL)],
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Say how many ops each rule matches, what stays in float, and what the backend cannot do."""
    from quantscope.backends.registry import backend_for
    from quantscope.cli.progress import ProgressBars
    from quantscope.recipe import Recipe

    chosen = Recipe.load(recipe)
    backend = backend_for(model)
    with ProgressBars() as progress:
        loaded = backend.load(model, progress)
    # Before preparation folds ops: the user's selectors are for the user's model.
    chosen.specs_for(loaded.graph)
    prepared = backend.prepare(loaded)
    found = backend.check(prepared, chosen)
    matched = [(rule, rule.matched(loaded.graph)) for rule in chosen.rules]
    if json:
        facts = {
            "ops": len(prepared.graph.ops),
            "rules": [{rule.key: rule.selector, "ops": list(names)} for rule, names in matched],
            "float": dict(found.in_float),
            "unsupported": dict(found.unsupported),
        }
        sys.stdout.write(encoder.dumps(facts, indent=2) + "\n")
        return
    typer.echo(f"{recipe}: {_counted(len(chosen.rules), 'rule')}, all match ops of {model}")
    for rule, names in matched:
        typer.echo(f"  {rule.key} {rule.selector!r}: {_counted(len(names), 'op')}, {_asked(rule)}")
    typer.echo(f"{len(found.in_float)} of {_counted(len(prepared.graph.ops), 'op')} stay in float")
    for reason, count in Counter(found.in_float.values()).most_common():
        typer.echo(f"  {count}: {reason}")
    if not found.unsupported:
        typer.echo("the backend can do all that the recipe asks")
        return
    typer.echo("what the backend cannot do")
    for name, reason in found.unsupported.items():
        typer.echo(f"  {name}: {reason}")


@_commands.command(epilog=_CONVERT_EPILOG.replace("\n  ", "\n\n  "))
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The file to convert: TOML for a recipe, else JSON.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    source_kind: Annotated[
        Kind | None, typer.Option("--from", help="What IN is; a recipe if it ends in .toml.")
    ] = None,
    target_kind: Annotated[
        Kind | None, typer.Option("--to", help="What OUT shall be; a recipe if it ends in .toml.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="The float model, for what depends on its ops and tensors.")
    ] = None,
) -> None:
    """Convert a recipe from and to Neural Compressor's op_name_dict and ONNX Runtime's quantize_static arguments."""
    from quantscope.recipe_file import write_text

    begin, end = _kind(source, source_kind, "--from"), _kind(target, target_kind, "--to")
    graph = _graph(model)
    recipe, notes = _read(source, begin, graph)
    if graph is not None:
        recipe.specs_for(graph)
    if end == "recipe":
        recipe.save(target)
    else:
        values, more = _values(recipe, end, graph)
        notes = (*notes, *more)
        write_text(encoder.dumps(values, indent=2) + "\n", target)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"wrote {target}: {_counted(len(recipe.rules), 'rule')}")


def _read(path: Path, kind: Kind, graph: Graph | None) -> tuple[Recipe, tuple[str, ...]]:
    from quantscope.recipe import Recipe

    if kind == "recipe":
        return Recipe.load(path), ()
    values = _json(path)
    try:
        if kind == "onnxruntime":
            from quantscope.conversions.onnxruntime import from_arguments

            return from_arguments(values, graph)
        from quantscope.conversions.neural_compressor import from_op_dicts

        if not isinstance(values, dict):
            raise RecipeError(f"a {type(values).__name__}", accepted="an op_name_dict")
        both = values.keys() <= {"op_name_dict", "op_type_dict"}
        return from_op_dicts(**values if both else {"op_name_dict": values}, graph=graph)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error.message}", accepted=error.accepted, next_step=error.next_step) from None


def _values(recipe: Recipe, kind: Kind, graph: Graph | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    if kind == "onnxruntime":
        from quantscope.conversions.onnxruntime import to_arguments

        if graph is None:
            raise RecipeError(
                "ONNX Runtime names every op and tensor: its arguments depend on the model",
                next_step="give the model: --model MODEL.onnx",
            )
        return to_arguments(recipe, graph)
    from quantscope.conversions.neural_compressor import to_op_dicts

    names, types, notes = to_op_dicts(recipe, graph)
    return {"op_name_dict": names, "op_type_dict": types}, notes


def _kind(path: Path, kind: Kind | None, option: str) -> Kind:
    if kind is None and path.suffix != ".toml":
        raise RecipeError(
            f"what {path} is is not said: {option} is missing", accepted="neural-compressor, onnxruntime, recipe"
        )
    return kind or "recipe"


def _json(path: Path) -> Any:
    try:
        return encoder.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"no such file: {path}", accepted="the path of a JSON file") from None
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:  # Also of text that is not UTF-8.
        raise RecipeError(f"{path} is no JSON: {error}", accepted="a JSON file") from None


def _graph(model: Path | None) -> Graph | None:
    from quantscope.backends.registry import backend_for
    from quantscope.cli.progress import ProgressBars

    if model is None:
        return None
    with ProgressBars() as progress:
        return backend_for(model).load(model, progress).graph


def _asked(rule: OpRule) -> str:
    if rule.fallback:
        return "in float"
    from quantscope.recipe_file import spec_text

    parts = [
        f"{role} {spec_text(change)}"
        for role, change in (("activations", rule.activations), ("weights", rule.weights))
        if change is not None
    ]
    return ", ".join(parts)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
