"""Rewrites the graph by LiteRT's quantizer, with ranges that quantscope calibrated."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from ai_edge_quantizer import qtyping, quantizer
from ai_edge_quantizer.utils import tfl_flatbuffer_utils

from quantscope.backends.base import Ranges
from quantscope.backends.litert import schema
from quantscope.backends.litert.assignment import (
    QUANTIZER_NAMES,
    Assignment,
    Chosen,
    assign,
    check_defaults,
)
from quantscope.backends.litert.constants import Constants
from quantscope.backends.litert.files import LiteRTModel, checked
from quantscope.backends.litert.interpreters import first_line
from quantscope.backends.litert.names import unique
from quantscope.backends.litert.op_types import COMPOUND
from quantscope.backends.litert.structure import Structure
from quantscope.backends.litert.weights import operands
from quantscope.errors import ModelError, RecipeError
from quantscope.graph import Graph
from quantscope.recipe import Recipe

_NAMES = qtyping.TFLOperationName


def planned(graph: Graph, recipe: Recipe) -> Assignment:
    """What each op would get, with what LiteRT cannot do.

    Raises:
        RecipeError: no op at all could get what the defaults ask for.
    """
    check_defaults(recipe)
    return assign(graph, recipe.without_unmatched(graph)[0])


def tensors_to_calibrate(structure: Structure, graph: Graph, recipe: Recipe) -> list[str]:
    """The float tensors that the ops read and write that get codes.

    Raises:
        ModelError: the model holds codes already.
        RecipeError: no op at all could get what the defaults ask for.
    """
    coded = (structure.constants.qparams(operand.constant) is not None for operand in operands(structure))
    if any(map(structure.is_codes, range(len(structure.tensors)))) or any(coded):
        raise ModelError(
            "the model is quantized already: some of its tensors or weights are codes",
            accepted="a float model",
            next_step="give the float model first, and this one as the second: quantscope diagnose FLOAT QUANTIZED",
        )
    chosen = planned(graph, recipe).chosen
    names = dict.fromkeys(
        name
        for op in graph.ops
        if op.name in chosen
        for name in (*op.inputs, *op.outputs)
        if name not in graph.constants
    )
    return [name for name in names if name and graph.tensor(name).dtype == "float32"]


def quantize(
    model: LiteRTModel, structure: Structure, graph: Graph, recipe: Recipe, ranges: Ranges
) -> tuple[LiteRTModel, tuple[str, ...]]:
    """The quantized model, and notes on what the quantizer could not do.

    Raises:
        ModelError: LiteRT's quantizer fails on the model.
        RecipeError: no op at all could get what the recipe asks for.
    """
    check_defaults(recipe)
    recipe, lost = recipe.without_unmatched(graph)
    notes = [f"{selector} matches no op of the model" for selector in lost]
    assignment = assign(graph, recipe)
    notes += _summary(assignment.unsupported)
    wide = recipe.activations
    if wide.bits == 16 and not (wide.signed and wide.symmetric):
        notes.append("activations of 16 bits are int16 and symmetric in LiteRT: the code of zero is 0")
    if recipe.format == "qoperator":
        notes.append("LiteRT has one format: its integer ops read and write codes")
    if recipe.reduce_range:
        notes.append("reduce_range is left out: LiteRT's kernels add products in 32 bits, which do not saturate")
    if not assignment.chosen:
        raise RecipeError(
            f"every op stays in float: {'; '.join(dict.fromkeys(assignment.in_float.values()))}",
            accepted="a recipe and a model of which at least one op can have codes",
            next_step="leave fewer ops in float; write loops out, in Keras by unroll=True",
        )
    compound = [
        f"{name!r} ({native})"
        for name, native in zip(structure.op_names, structure.native, strict=True)
        if native in COMPOUND
    ]
    if compound:
        notes.append(f"LiteRT's quantizer leaves in float, with the weights in them: {', '.join(compound)}")
    table, renamed = _normalised(model)
    content = schema.packed(table) if renamed else model.content
    names = [schema.text(tensor.name) for tensor in table.subgraphs[0].tensors]
    numbers = {name: i for i, name in enumerate(structure.names)}
    calibrated = {
        names[numbers[n]]: _range(low, high, structure.shape(numbers[n])) for n, (low, high) in ranges.items()
    }
    try:
        with _quiet():
            made = quantizer.Quantizer(bytearray(content))
            for chosen, scopes in _scopes(table, structure, assignment).items():
                _add(made, chosen, scopes)
            result = made.quantize(calibrated, enable_progress_bar=False, enable_progress_report=False)
    except Exception as error:  # The quantizer raises errors of many kinds on models it does not foresee.
        raise ModelError(
            f"LiteRT's quantizer fails on this model: {first_line(error)}",
            accepted="leaving the op it fails on in float",
            next_step="try --fallback-type for the op's type, or --per-tensor",
        ) from error
    return _with_one_type(checked(bytes(result.quantized_model), "the quantized model")), tuple(notes)


def _with_one_type(model: LiteRTModel) -> LiteRTModel:
    """The model with codes in all outputs of its ops that have some.

    The quantizer leaves an output that nobody reads in float, as in the first step of an LSTM, and LiteRT refuses a
    SPLIT that writes both.
    """
    table, changed = model.copied(), False
    graph, constants = table.subgraphs[0], Constants(table)
    read = {i for op in graph.operators for i in schema.indices(op.inputs)} | {*schema.indices(graph.outputs)}
    for op in graph.operators:
        written = schema.indices(op.outputs)
        coded = next((graph.tensors[i] for i in written if constants.qparams(i) is not None), None)
        for tensor in (graph.tensors[i] for i in written if i not in read):
            if coded is not None and int(tensor.type) in schema.FLOATS:
                tensor.type, tensor.quantization, changed = coded.type, coded.quantization, True
    return checked(schema.packed(table), "the quantized model") if changed else model


def _summary(unsupported: Mapping[str, str]) -> list[str]:
    """A note per reason, with the ops it holds for."""
    by_reason: dict[str, list[str]] = {}
    for op, reason in unsupported.items():
        by_reason.setdefault(reason, []).append(op)
    return [
        f"not as the recipe asks: {ops[0]!r}{f' and {len(ops) - 1} more' if len(ops) > 1 else ''}: {reason}"
        for reason, ops in by_reason.items()
    ]


def _normalised(model: LiteRTModel) -> tuple[Any, bool]:
    """The tables as the quantizer wants them, and whether they differ from the model's.

    It tells tensors apart by name over all graphs, reads operator codes where files from before 2020 have none, and
    goes through a list of signatures that a file may lack.
    """
    table = model.copied()
    changed = table.signatureDefs is None
    table.signatureDefs = table.signatureDefs or []
    for code in table.operatorCodes:
        if int(code.builtinCode) != schema.builtin(code):
            code.builtinCode, changed = schema.builtin(code), True
    tensors = [tensor for graph in table.subgraphs for tensor in graph.tensors]
    given = [schema.text(tensor.name) for tensor in tensors]
    own = unique(name or f"tensor {i}" for i, name in enumerate(given))
    for tensor, name, before in zip(tensors, own, given, strict=True):
        if name != before:
            tensor.name, changed = name.encode(), True
    return table, changed


def _range(low: float, high: float, shape: tuple[int, ...]) -> dict[str, Any]:
    view = [1] * len(shape)
    return {"min": np.full(view, low, np.float32), "max": np.full(view, high, np.float32)}


def _scopes(table: Any, structure: Structure, assignment: Assignment) -> dict[Chosen, dict[str, list[str]]]:
    """By what ops get and their type, what the quantizer calls them."""
    found: dict[Chosen, dict[str, list[str]]] = {}
    graph = table.subgraphs[0]
    for name, native, op in zip(structure.op_names, structure.native, graph.operators, strict=True):
        if name in assignment.chosen:
            scope = tfl_flatbuffer_utils.get_op_scope(op, graph.tensors)
            found.setdefault(assignment.chosen[name], {}).setdefault(native, []).append(scope)
    return found


def _add(made: Any, chosen: Chosen, scopes: Mapping[str, list[str]]) -> None:
    for native, names in scopes.items():
        config = qtyping.OpQuantizationConfig(
            activation_tensor_config=qtyping.TensorQuantizationConfig(chosen.activation_bits, chosen.symmetric),
            weight_tensor_config=qtyping.TensorQuantizationConfig(
                chosen.weight_bits,
                True,
                qtyping.QuantGranularity.CHANNELWISE if chosen.per_channel else qtyping.QuantGranularity.TENSORWISE,
            ),
            compute_precision=qtyping.ComputePrecision.INTEGER,
        )
        regex = "^(?:" + "|".join(map(re.escape, names)) + ")$"
        made.update_quantization_recipe(regex, _NAMES(QUANTIZER_NAMES.get(native, native)), config)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the quantizer prints and logs."""
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
