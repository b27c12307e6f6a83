"""From a `PostTrainingQuantConfig` to the recipe that asks for the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quantscope.backends.base import Backend, Model
from quantscope.conversions.neural_compressor import from_op_dicts
from quantscope.errors import UnsupportedError
from quantscope.graph import Graph
from quantscope.neural_compressor.config import PostTrainingQuantConfig
from quantscope.recipe import Calibration, Recipe

# What Neural Compressor's recipes call a conv or matmul.
_WEIGHTED = frozenset(("Conv", "MatMul", "Gemm", "Attention"))
# Neural Compressor's percentile calibrator keeps so many percent of the values.
_PERCENTILE = 99.999


def recipe_of(
    config: PostTrainingQuantConfig, backend: Backend, reference: Model, prepared: Model
) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe that a configuration stands for, on this model, and what is not quite the same.

    The format is QOperator unless QDQ was asked for, as in Neural Compressor; where the format is left open and only
    QDQ has what the dictionaries ask of some ops, it is QDQ.

    Args:
        reference: the user's model, whose ops the dictionaries name.
        prepared: the same, prepared by the backend.
    Raises:
        RecipeError: a name, type or expression matches no op.
        UnsupportedError: an entry has no equivalent, or the QOperator format was asked for and cannot do it.
    """
    base = Recipe(
        "qdq" if config.quant_format == "QDQ" else "qoperator",
        reduce_range=bool(config.reduce_range),
        calibration=Calibration(percentile=_PERCENTILE),
    )
    graph = reference.graph
    recipe, notes = from_op_dicts(config.op_name_dict, config.op_type_dict, base=base, graph=graph, strict=True)
    recipe = recipe.with_fallback(left_in_float(config.recipes, graph))
    recipe.fallback_ops(graph)
    if recipe.format == "qdq":
        return recipe, notes
    other = replace(recipe, format="qdq")
    unsupported, there = (
        backend.check(prepared, either.without_unmatched(prepared.graph)[0]).unsupported for either in (recipe, other)
    )
    lost = [op for op in unsupported if op not in there]
    if not lost:
        return recipe, notes
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    if config.quant_format == "QOperator":
        raise UnsupportedError(
            f"quant_format QOperator: {lost[0]!r}{more}: {unsupported[lost[0]]}",
            accepted="one specification for all ops, and ops left in float",
            next_step='PostTrainingQuantConfig(quant_format="QDQ"), or op_type_dict={".*": ...}',
        )
    return other, (*notes, f"quant_format is QDQ: QOperator has no form for what {lost[0]!r}{more} shall get")


def left_in_float(recipes: Mapping[str, Any], graph: Graph) -> list[str]:
    """The ops that entries of `recipes` keep from being quantized, in execution order."""
    weighted = [op.name for op in graph.ops if op.op_type in _WEIGHTED]
    kept: set[str] = set()
    if recipes.get("first_conv_or_matmul_quantization") is False:
        kept.update(weighted[:1])
    if recipes.get("last_conv_or_matmul_quantization") is False:
        kept.update(weighted[-1:])
    if recipes.get("pre_post_process_quantization") is False and len(weighted) > 1:
        kept.update({op.name for op in graph.ops} - _between(graph, weighted))
    return [op.name for op in graph.ops if op.name in kept]


def _between(graph: Graph, weighted: list[str]) -> set[str]:
    """The convs and matmuls and all that they are computed from, but for what comes before the first one."""
    found = set(weighted)
    waiting = weighted[1:]
    while waiting:
        for name in graph.by_name[waiting.pop()].inputs:
            producer = graph.producers.get(name)
            if producer is not None and producer.name not in found:
                found.add(producer.name)
                waiting.append(producer.name)
    return found
