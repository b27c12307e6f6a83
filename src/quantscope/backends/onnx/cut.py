"""A model cut at some of its tensors: each is fed from outside, and what the op before it computed comes out.

The op's output gets a new name, and its own name becomes an input of the graph. So whatever reads the tensor, in graphs
inside the graph too, reads what is fed, and quantizes it as the model does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from quantscope.backends.onnx import sessions
from quantscope.backends.onnx.constants import Constants
from quantscope.backends.onnx.external import content
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.float_view import CODES_SUFFIX, OP_SUFFIX, computed_names, float_view
from quantscope.backends.onnx.order import read_by
from quantscope.backends.onnx.simulation import FreshNames, know_domain, quantization_domain
from quantscope.equalization import FormerUnit, Record
from quantscope.errors import DataError, UnsupportedError
from quantscope.qparams import QParams

_FLOATS = frozenset((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE))
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, eq=False)
class Changes:
    """What a cut model computes otherwise than the model: see `quantscope.backends.base.Backend.open_cut`."""

    absorbed: Mapping[str, tuple[OnnxModel, str]]
    constants: Mapping[tuple[str, str], NDArray[Any]]


class Runner:
    """Runs a cut model under the names of its float view."""

    def __init__(
        self,
        runner: sessions.SessionRunner,
        feeds: Mapping[str, onnx.ValueInfoProto],
        results: Mapping[str, str],
    ) -> None:
        self.inputs = tuple(feeds)
        self._runner = runner
        self._feeds = feeds
        self._results = results

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What was computed at the cuts by name, for one batch.

        Raises:
            DataError: a tensor is missing, or the model fails on these values.
        """
        missing = [name for name in self._feeds if name not in inputs]
        if missing:
            raise DataError(f"tensors to feed are missing: {', '.join(missing)}", accepted=", ".join(self.inputs))
        computed = self._runner.run({value.name: _cast(inputs[name], value) for name, value in self._feeds.items()})
        return {name: computed[result] for name, result in self._results.items()}


def _cast(array: NDArray[Any], value: onnx.ValueInfoProto) -> NDArray[Any]:
    kind = value.type.tensor_type.elem_type
    if kind in (TensorProto.UNDEFINED, TensorProto.STRING):
        return array
    return np.asarray(array).astype(helper.tensor_dtype_to_np_dtype(kind), copy=False)


@contextmanager
def opened(
    model: OnnxModel,
    names: Mapping[str, str],
    tensors: Sequence[str],
    outputs: Sequence[str],
    changes: Changes,
    record: Record,
    *,
    threads: int,
) -> Iterator[FormerUnit]:
    """A runner of the model cut at these tensors.

    Args:
        model: the model, with its ops as they shall run.
        names: the real tensors that the float view of this model needs to be told.
        tensors: names in that view.
        outputs: those to compute.
        changes: other activations and constants.
        record: what equalization did to the model: tensors and constants are in the unit from before.
        threads: 0 means all cores.
    """
    cut = _Cut(model, names, tensors)
    for (op, tensor), values in changes.constants.items():
        cut.replace_constant(op, tensor, record.scaled(tensor, values))
    for name in outputs:
        if name in changes.absorbed:
            cut.apply_activation(name, *changes.absorbed[name])
    proto, feeds, results = cut.finished(outputs)
    with sessions.opened(OnnxModel(proto, model.folder), (), optimize=False, threads=threads) as runner:
        made = Runner(runner, feeds, results)
        yield FormerUnit(made.inputs, made.run, record.tensors)


class _Cut:
    """A model on its way to being cut: the nodes before, instead of and behind its own."""

    def __init__(self, model: OnnxModel, names: Mapping[str, str], tensors: Sequence[str]) -> None:
        graph = model.proto.graph
        self._model = model
        self._constants = Constants(model)
        self._fresh = FreshNames(graph)
        self._types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*graph.value_info, *graph.output, *graph.input)
            if value.type.HasField("tensor_type")
        }
        self._nodes = list(graph.node)
        self._producers = {name: node for node in self._nodes for name in node.output if name}
        self._before: list[onnx.NodeProto] = []
        self._behind: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._imports: list[onnx.OperatorSetIdProto] = []
        self._renamed: dict[str, str] = {}
        self._fed: dict[str, onnx.ValueInfoProto] = {}
        self._results: dict[str, str] = {}
        inputs = {value.name for value in graph.input}
        computed = computed_names(model, names)
        view = float_view(model, names)
        for name in dict.fromkeys(tensors):
            if name in computed:
                encoded = view.tensors[name]
                is_codes = encoded.codes == computed[name]
                self._cut(name, computed[name], encoded.qparams if is_codes else None)
            elif name not in inputs:
                raise UnsupportedError(f"cannot cut the model at {name!r}: no op computes it")

    def _cut(self, name: str, source: str, qparams: QParams | None) -> None:
        """Cut at the output `source` of a node; with `qparams` that are codes, but real values go in and out."""
        fed = source
        kind = self._types.get(source) or TensorProto.FLOAT
        result = self._renamed[source] = self._fresh(f"{source}/computed")
        if qparams is not None:
            fed, real = self._fresh(name), self._fresh(f"{name}/real")
            parameters = self._parameters(source, qparams)
            kind = helper.np_dtype_to_tensor_dtype(qparams.scale.dtype)
            domain = quantization_domain(self._model)
            self._imports.append(helper.make_opsetid(domain, 1))
            for op_type, read, written, nodes in (
                ("QuantizeLinear", fed, source, self._before),
                ("DequantizeLinear", result, real, self._behind),
            ):
                node = self._fresh(f"{written}:{op_type}")
                nodes.append(helper.make_node(op_type, [read, *parameters], [written], node, domain=domain))
            result = real
        self._fed[name] = helper.make_tensor_value_info(fed, kind, None)
        self._results[name] = result

    def _parameters(self, source: str, qparams: QParams) -> tuple[str, str]:
        """Scale and zero point of codes that an op passes on as they are; per channel it could not do that."""
        if not qparams.per_tensor:
            raise UnsupportedError(f"cannot cut the model at {source!r}: it has a scale for each channel")
        scale, zero_point = self._fresh(f"{source}_scale"), self._fresh(f"{source}_zero_point")
        self._initializers += [
            numpy_helper.from_array(qparams.scale.reshape(()), scale),
            numpy_helper.from_array(qparams.zero_point.reshape(()).astype(qparams.spec.dtype), zero_point),
        ]
        return scale, zero_point

    def replace_constant(self, op: str, tensor: str, values: NDArray[Any]) -> None:
        """Let an op compute with these values in the place of a constant.

        Raises:
            UnsupportedError: it is not an ordinary float operand of the op.
        """
        for index, node in enumerate(self._nodes):
            if node.name.removesuffix(OP_SUFFIX) != op:
                continue
            kinds = {i: kind for i, name in enumerate(node.input) if (kind := self._kind_behind(name, tensor))}
            if not kinds or not _FLOATS.issuperset(kinds.values()):
                raise UnsupportedError(
                    f"cannot replace {tensor!r} of the op {op!r} ({node.op_type}): it is not a float operand",
                    accepted="a weight or bias that the op reads in float",
                )
            changed = onnx.NodeProto()
            changed.CopyFrom(node)
            for position, kind in kinds.items():
                changed.input[position] = self._fresh(f"{tensor}/replaced")
                array = np.ascontiguousarray(values, helper.tensor_dtype_to_np_dtype(kind))
                self._initializers.append(numpy_helper.from_array(array, changed.input[position]))
            self._nodes[index] = changed
            return
        raise UnsupportedError(f"cannot replace {tensor!r}: the model has no op {op!r}")

    def _kind_behind(self, name: str, tensor: str) -> int:
        """The element type in which the constant `tensor` arrives here; 0 if something else does.

        The way is that of `quantscope.backends.onnx.weights`: through dequantization, transposes and casts.
        """
        if name in self._constants:
            same = name.removesuffix(CODES_SUFFIX) == tensor
            return int(self._constants.tensors[name].data_type) if same else 0
        node = self._producers.get(name)
        if node is None or node.op_type not in _TRANSPARENT:
            return 0
        behind = self._kind_behind(node.input[0], tensor)
        if behind and node.op_type == "DequantizeLinear":
            scale = self._constants.tensors.get(node.input[1])
            return TensorProto.FLOAT if scale is None else int(scale.data_type)
        if behind and node.op_type == "Cast":
            return next(int(a.i) for a in node.attribute if a.name == "to")
        return behind

    def apply_activation(self, name: str, reference: OnnxModel, op: str) -> None:
        """Let what comes out at a cut go through an activation of the reference.

        Raises:
            UnsupportedError: the op computes with more than one tensor that is not constant.
        """
        if name not in self._results:
            raise UnsupportedError(f"the model is not cut at {name!r}")
        part, data, output = _activation(reference, op, self._model.opset)
        source = self._results[name]
        ours, theirs = self._fed[name].type.tensor_type.elem_type, part.graph.input[0].type.tensor_type.elem_type
        if ours != theirs:
            cast = self._fresh(f"{source}/cast")
            self._behind.append(helper.make_node("Cast", [source], [cast], self._fresh(f"{cast}:Cast"), to=theirs))
            source = cast
        renamed = {"": "", data: source}
        for tensor in part.graph.initializer:
            renamed[tensor.name] = self._fresh(f"{op}/{tensor.name}")
            tensor.name = renamed[tensor.name]
        for node in part.graph.node:
            renamed |= {o: self._fresh(f"{op}/{o}") for o in node.output if o}
            node.name = self._fresh(f"{op}/{node.name}")
            node.input[:] = [renamed[i] for i in node.input]
            node.output[:] = [renamed[o] for o in node.output]
        self._initializers += part.graph.initializer
        self._behind += part.graph.node
        self._imports += part.opset_import
        self._results[name] = renamed[output]

    def finished(
        self, outputs: Sequence[str]
    ) -> tuple[onnx.ModelProto, dict[str, onnx.ValueInfoProto], dict[str, str]]:
        """The cut model; by name what to feed into which of its inputs, and which of its outputs is what."""
        unknown = [name for name in outputs if name not in self._results]
        if unknown:
            raise UnsupportedError(f"the model is not cut at {', '.join(map(repr, unknown))}")
        results = {name: self._results[name] for name in outputs}
        nodes = [*self._before, *self._nodes, *self._behind]
        own = range(len(self._before), len(self._before) + len(self._nodes))
        kept, needed = _needed(nodes, results.values(), dict.fromkeys(own, self._renamed))

        graph = self._model.proto.graph
        proto = onnx.ModelProto(
            ir_version=self._model.proto.ir_version,
            opset_import=self._model.proto.opset_import,
            functions=self._model.proto.functions,
        )
        for entry in self._imports:
            know_domain(proto, entry.domain, entry.version)
        proto.graph.name = graph.name
        for index in kept:
            node = proto.graph.node.add()
            node.CopyFrom(nodes[index])
            if index in own:
                node.output[:] = [self._renamed.get(name, name) for name in node.output]
        proto.graph.initializer.extend(t for t in (*graph.initializer, *self._initializers) if t.name in needed)
        proto.graph.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in needed)
        given = {value.name: value for value in graph.input if value.name not in self._constants}
        feeds = {name: value for name, value in (given | self._fed).items() if value.name in needed}
        proto.graph.input.extend(feeds.values())
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in results.values())
        return proto, feeds, results


# Ops behind which a constant is still the same constant.
_TRANSPARENT = frozenset(("DequantizeLinear", "QuantizeLinear", "Identity", "Cast", "Transpose"))


def _needed(
    nodes: Sequence[onnx.NodeProto], outputs: Any, renamed: Mapping[int, Mapping[str, str]]
) -> tuple[list[int], set[str]]:
    """The nodes, in order, and the tensors that these outputs need; the outputs of some nodes have other names."""
    producers = {
        renamed.get(index, {}).get(name, name): index for index, node in enumerate(nodes) for name in node.output
    }
    kept: set[int] = set()
    needed: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if not name or name in needed:
            continue
        needed.add(name)
        index = producers.get(name)
        if index is not None and index not in kept:
            kept.add(index)
            waiting += read_by(nodes[index])
    return sorted(kept), needed


def _activation(reference: OnnxModel, op: str, opset: int) -> tuple[onnx.ModelProto, str, str]:
    """A model of one op with all that is constant before it, in this opset; the names of what goes in and comes out."""
    graph = reference.proto.graph
    node = next((n for n in graph.node if n.name == op), None)
    if node is None:
        raise UnsupportedError(f"the reference has no op {op!r}")
    constant = {"", *(t.name for t in graph.initializer)}
    for other in graph.node:
        if all(name in constant for name in read_by(other)):
            constant.update(other.output)
    data = list(dict.fromkeys(name for name in node.input if name not in constant))
    if len(data) != 1:
        raise UnsupportedError(
            f"the op {op!r} ({node.op_type}) cannot be applied to an output: it has {len(data)} inputs",
            accepted="an op with one input that is not constant",
        )
    nodes = list(graph.node)
    kept, needed = _needed([n if n is node or n.output[0] in constant else _NOTHING for n in nodes], node.output, {})
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    kind = types.get(data[0]) or TensorProto.FLOAT
    part = helper.make_model(
        helper.make_graph(
            [nodes[index] for index in kept],
            op,
            [helper.make_tensor_value_info(data[0], kind, None)],
            [helper.make_tensor_value_info(node.output[0], kind, None)],
            [_loaded(tensor, reference) for tensor in graph.initializer if tensor.name in needed],
        ),
        ir_version=reference.proto.ir_version,
        opset_imports=reference.proto.opset_import,
    )
    return _at_opset(part, reference.opset, opset), data[0], node.output[0]


_NOTHING = onnx.NodeProto()


def _loaded(tensor: onnx.TensorProto, model: OnnxModel) -> onnx.TensorProto:
    """The tensor with its values in the message, for they will be used beside another model's file."""
    if not uses_external_data(tensor):
        return tensor
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.raw_data = content(tensor, model.folder)
    copy.data_location = TensorProto.DEFAULT
    del copy.external_data[:]
    return copy


def _at_opset(part: onnx.ModelProto, opset: int, wanted: int) -> onnx.ModelProto:
    """The model with ops that mean the same in another opset."""
    types = [node.op_type for node in part.graph.node if node.domain in _STANDARD]
    if all(_since(op_type, opset) == _since(op_type, wanted) for op_type in types):
        return part
    try:
        return onnx.version_converter.convert_version(part, wanted)
    except Exception as error:  # The converter raises bare RuntimeErrors and more.
        raise UnsupportedError(
            f"{', '.join(types)} of opset {opset} cannot be brought to opset {wanted}: {sessions.first_line(error)}",
            next_step="give both models the same opset",
        ) from error


def _since(op_type: str, opset: int) -> int:
    return int(onnx.defs.get_schema(op_type, opset).since_version)
