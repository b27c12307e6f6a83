"""quantscope advise."""

from __future__ import annotations

import json as encoder
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quantscope.cli import options as o
from quantscope.errors import DataError, ModelError, RecipeError

if TYPE_CHECKING:
    from rich.console import Console

    from quantscope.advice import RecipePatch, Suggestion
    from quantscope.diagnosis import Diagnosis

_EPILOG = """[bold]Examples[/bold]

What to change, and why:
  quantscope advise model.qscope

Try the three best, and measure what each brings:
  quantscope advise model.qscope --verify --top 3

Write the recipe of the best one, and use it:
  quantscope advise model.qscope --verify --recipe-out better.toml
  quantscope quantize model.onnx int8.onnx --data samples.npz --recipe better.toml
"""
_MOST_OPS = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG.replace("\n  ", "\n\n  "))(advise)


def advise(
    run: Annotated[Path, typer.Argument(help="A run file of quantscope diagnose.")],
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Quantize anew by each suggestion shown, on the same samples, and measure."),
    ] = False,
    top: Annotated[int, typer.Option("--top", metavar="N", help="Suggestions to show, and to verify.")] = 5,
    recipe_out: Annotated[
        Path | None,
        typer.Option("--recipe-out", metavar="FILE", help="Write the recipe of the first suggestion shown, as TOML."),
    ] = None,
    json: o.Json = False,
) -> None:
    """Say what to change in the recipe and why, best first; with --verify, what each change really brings."""
    from quantscope import advice
    from quantscope.workflows import open_run

    if top < 1:
        raise DataError(f"--top {top}", accepted="1 or more")
    diagnosis = open_run(run)
    found = advice.remembered(run, advice.advise(diagnosis))
    shown = advice.ranked(found)[:top]
    if recipe_out is not None and not shown:
        raise DataError(f"no recipe to write to {recipe_out}: {_nothing(diagnosis)}")
    failures: dict[RecipePatch, str] = {}
    if verify:
        shown = advice.ranked(_verified(shown, run, failures))
    if recipe_out is not None:
        _write(shown[0], diagnosis, recipe_out)
    if json:
        _print_json(shown, diagnosis, failures)
    else:
        _print(shown, diagnosis, failures, len(found), recipe_out)


def _verified(suggestions: Sequence[Suggestion], run: Path, failures: dict[RecipePatch, str]) -> list[Suggestion]:
    """The suggestions with what they bring; those tried before are not tried again.

    Args:
        failures: gets the reason of each that the quantizer refuses.
    """
    from quantscope.advice import verify
    from quantscope.cli.progress import ProgressBars

    found = list(suggestions)
    for position, suggestion in enumerate(suggestions):
        if suggestion.verified is not None:
            continue
        try:
            with ProgressBars() as progress:
                found[position] = verify(suggestion, run, progress=progress)
        except (ModelError, RecipeError) as error:
            failures[suggestion.patch] = error.message
        except KeyboardInterrupt:
            sys.stderr.write(f"interrupted; what was tried so far is remembered: quantscope advise {run}\n")
            raise
    return found


def _write(suggestion: Suggestion, diagnosis: Diagnosis, path: Path) -> None:
    from quantscope.recipe import Recipe

    suggestion.patch.applied(diagnosis.recipe or Recipe()).save(path)


def _nothing(diagnosis: Diagnosis) -> str:
    """Why there is no suggestion."""
    from quantscope.advice import why_nothing

    command = shlex.join(["quantscope", "show", diagnosis.run])
    return why_nothing(diagnosis) or f"no rule finds what to change; look at the tables: {command}"


def _print_json(suggestions: Sequence[Suggestion], diagnosis: Diagnosis, failures: Mapping[RecipePatch, str]) -> None:
    from quantscope.report.tables import strict

    values: list[dict[str, Any]] = []
    for suggestion in suggestions:
        entry = {**suggestion.to_dict(), "cannot_be_tried": failures.get(suggestion.patch)}
        if diagnosis.graph is not None:
            entry["op_name_dict"] = suggestion.patch.to_op_name_dict(diagnosis.graph)[0]
            entry["nodes_to_exclude"] = list(suggestion.patch.in_float(diagnosis.graph))
        if suggestion.verified is not None:
            entry["verified"]["gain"] = suggestion.verified.gain
        values.append(entry)
    facts = {
        "run": diagnosis.run,
        "suggestions": values,
        "nothing": "" if suggestions else _nothing(diagnosis),
    }
    sys.stdout.write(encoder.dumps(strict(facts), indent=2) + "\n")


def _print(
    suggestions: Sequence[Suggestion],
    diagnosis: Diagnosis,
    failures: Mapping[RecipePatch, str],
    count: int,
    recipe_out: Path | None,
) -> None:
    from rich.text import Text

    from quantscope.advice.commands import arguments_of
    from quantscope.report import terminal

    out = terminal.console()
    out.print(terminal.accuracy(diagnosis))
    out.print()
    if not suggestions:
        out.print(Text(_nothing(diagnosis)))
        return
    arguments = arguments_of(diagnosis.run)
    for number, suggestion in enumerate(suggestions, 1):
        _print_one(out, number, suggestion, diagnosis, arguments, failures.get(suggestion.patch))
    if count > len(suggestions):
        out.print(Text(f"{count - len(suggestions)} more: --top {count}", style="dim"))
    untried = any(s.verified is None and s.patch not in failures for s in suggestions)
    if untried and diagnosis.recipe is not None:
        command = shlex.join(["quantscope", "advise", diagnosis.run, "--verify"])
        out.print(Text(f"the order is an estimate; measure it: {command}"), soft_wrap=True)
    if diagnosis.recipe is None:
        out.print(
            Text("another tool made the quantized model: quantize anew with it as suggested, and diagnose the result"),
            soft_wrap=True,
        )
    if recipe_out is not None:
        out.print(Text(f"wrote {recipe_out}: the recipe of suggestion 1"), soft_wrap=True)


def _print_one(
    out: Console,
    number: int,
    suggestion: Suggestion,
    diagnosis: Diagnosis,
    arguments: tuple[str, ...],
    failure: str | None,
) -> None:
    from rich.table import Table
    from rich.text import Text

    out.print(Text.assemble((f"{number}  {suggestion.title}", "bold"), (f"  {suggestion.rule}", "dim")))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for i, line in enumerate(suggestion.evidence):
        grid.add_row("" if i else "   why", Text(line))
    for i, line in enumerate(_toml(suggestion)):
        grid.add_row("" if i else "   recipe", Text(line))
    gain = _gain(suggestion, diagnosis) if failure is None else Text(f"cannot be tried: {failure}", style="bold red")
    grid.add_row("   gain", gain)
    for note in suggestion.verified.notes if suggestion.verified is not None else ():
        if note not in diagnosis.notes:
            grid.add_row("   note", Text(note, style="yellow"))
    out.print(grid)
    if diagnosis.recipe is None:
        for line in _for_other_tools(suggestion, diagnosis):
            out.print(Text(line), soft_wrap=True)
    else:
        out.print(Text(f"   try     {suggestion.patch.to_command(diagnosis.recipe, arguments)}"), soft_wrap=True)
    out.print()


def _toml(suggestion: Suggestion) -> list[str]:
    """The lines of the patch; of many rules the first ones."""
    lines = [line for line in suggestion.patch.to_toml().splitlines() if line]
    heads = [i for i, line in enumerate(lines) if line == "[[rules]]"]
    if len(heads) <= _MOST_OPS:
        return lines
    more = len(heads) - _MOST_OPS
    return [*lines[: heads[_MOST_OPS]], f"# and {more} more rules like these: --recipe-out FILE writes them all"]


def _gain(suggestion: Suggestion, diagnosis: Diagnosis) -> Any:
    from rich.text import Text

    from quantscope.report import figures

    verified = suggestion.verified
    if verified is None:
        return Text("not tried yet" if diagnosis.recipe is None else "not tried yet: --verify", style="dim")
    score = verified.score
    absolute, _, interval = figures.difference(score)
    text = (
        f"{score.metric} {figures.metric_value(score.metric, score.reference)} → "
        f"{figures.metric_value(score.metric, score.quantized)}, {absolute}, 95 % interval {interval}, "
        f"{score.samples} samples; in float {figures.metric_value(score.metric, verified.float_value)}"
    )
    return Text(text, style="bold green" if verified.certain else "bold red" if verified.gain < 0 else "bold")


def _for_other_tools(suggestion: Suggestion, diagnosis: Diagnosis) -> Iterator[str]:
    if diagnosis.graph is None:
        return
    patch = suggestion.patch
    names, types, notes = patch.to_op_dicts(diagnosis.graph)
    for key, value in (("op_name_dict", names), ("op_type_dict", types)):
        if value:
            yield f"   Neural Compressor  {key} = {value}"
    for note in notes:
        yield f"   Neural Compressor  {note}"
    if patch.op_types is not None:
        yield f"   ONNX Runtime       op_types_to_quantize = {list(patch.op_types)}"
    elif excluded := patch.in_float(diagnosis.graph):
        yield f"   ONNX Runtime       nodes_to_exclude = {list(excluded)}"
