"""Small changes of a quantized model, made to time them: scales are plausible, not calibrated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from quantscope.backends.onnx.constants import Constants
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.order import read_by, sort_nodes
from quantscope.backends.onnx.slowness.written import DEQUANTIZE, QUANTIZE
from quantscope.backends.onnx.structure import graph_of

_SCALE = 0.05
_MIDDLE = 128
_SMALLEST = 1e-30


class Rewriting:
    """A copy of a model that is being changed."""

    def __init__(self, model: OnnxModel) -> None:
        self._before = model
        self._model = model.copy()
        self._graph = self._model.proto.graph
        self._count = 0
        self.constants = Constants(self._model)
        self.nodes: dict[str, onnx.NodeProto] = {}
        self._producers: dict[str, onnx.NodeProto] = {}
        # Those that read a tensor, and some that did before.
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        self._added: list[onnx.NodeProto] = []
        for node in self._graph.node:
            self._note(node)
        self._taken = {*self.nodes, *self._producers, *self._readers, *self.constants.tensors}
        ours = next((n.domain for n in self._graph.node if n.op_type == QUANTIZE), "")
        self._domain = ours if model.opset < 13 or ours else ""
        self.per_channel = model.opset >= 13 or bool(ours)

    def finish(self) -> OnnxModel:
        """The changed model, without nodes and constants that nothing reads any more."""
        for node in list(self.nodes.values()):
            if node.op_type in ("Conv", "Gemm"):
                self._refit_bias(node)
        self._graph.node.extend(self._added)
        self._added = []
        del self._graph.value_info[:]
        needed = {output.name for output in self._graph.output}
        sort_nodes(self._graph)
        kept = []
        for node in reversed(self._graph.node):
            if needed.intersection(node.output):
                needed.update(read_by(node))
                kept.append(node)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
        del self._graph.node[:]
        self._graph.node.extend(copies)
        constants = [tensor for tensor in self._graph.initializer if tensor.name in needed]
        del self._graph.initializer[:]
        self._graph.initializer.extend(constants)
        return self._model

    def _refit_bias(self, node: onnx.NodeProto) -> None:
        """Give an int32 bias the scale that it has to have: that of the input times that of the weight."""
        before = [found for name in node.input if (found := self.producer(name)) is not None]
        constant = [all(name in self.constants for name in found.input[1:3] if name) for found in before]
        if len(before) < 3 or not all(constant) or any(found.op_type != DEQUANTIZE for found in before):
            return
        bias = self.real(node.input[2])
        scales = [np.asarray(self.constants.array(found.input[1]), np.float32).reshape(-1) for found in before]
        wanted = scales[0] * scales[1]
        if bias is None or len(scales[0]) > 1 or len(wanted) not in (1, bias.size):
            return
        if self.constants.array(before[2].input[0]).dtype == np.int32 and not np.allclose(scales[2], wanted, 1e-5):
            steps = np.rint(bias.astype(np.float64) / np.maximum(wanted, _SMALLEST))
            codes = np.clip(steps, -(2**31), 2**31 - 1).astype(np.int32)
            scale = wanted if len(wanted) > 1 else wanted.reshape(())
            inputs = [self.constant(codes), self.constant(scale), self.constant(np.zeros(scale.shape, np.int32))]
            along: dict[str, Any] = {"axis": 0} if len(wanted) > 1 else {}
            self.read(node, 2, self.node(DEQUANTIZE, inputs, domain=before[2].domain, **along))

    # ------------------------------------------------------------------ the graph

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that writes a tensor."""
        return self._producers.get(tensor)

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor."""
        found = {id(node): node for node in self._readers.get(tensor, ()) if tensor in node.input}
        return list(found.values())

    def read(self, node: onnx.NodeProto, place: int, tensor: str) -> None:
        """Let a node read another tensor at one place among its inputs, or behind the last one."""
        if place == len(node.input):
            node.input.append(tensor)
        node.input[place] = tensor
        self._readers.setdefault(tensor, []).append(node)

    def constant(self, values: NDArray[Any]) -> str:
        """The name of a new constant."""
        name = self._name()
        tensor = numpy_helper.from_array(values, name)
        self._graph.initializer.append(tensor)
        self.constants.tensors[name] = tensor
        return name

    def node(self, op_type: str, inputs: Sequence[str], output: str = "", domain: str = "", **attributes: Any) -> str:
        """The output of a new node."""
        name = output or self._name()
        node = helper.make_node(op_type, inputs, [name], name=self._name(), domain=domain, **attributes)
        self._added.append(node)
        self._note(node)
        return name

    def channels(self, tensor: str) -> int | None:
        """The length of axis 1 of a tensor; None where unknown."""
        shape = graph_of(self._before).tensor(tensor).shape or ()
        return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else None

    def outputs(self) -> set[str]:
        """The names of the model's outputs."""
        return {output.name for output in self._graph.output}

    def renamed(self, node: onnx.NodeProto, tensor: str) -> str:
        """A new name for what a node writes; whoever reads the old one has to get it from elsewhere."""
        name = self._name()
        place = list(node.output).index(tensor)
        node.output[place] = name
        self._producers[name] = node
        self._producers.pop(tensor, None)
        return name

    def replace(self, node: onnx.NodeProto, old: str, new: str) -> None:
        """Let a node read another tensor."""
        for place, name in enumerate(node.input):
            if name == old:
                self.read(node, place, new)

    def _note(self, node: onnx.NodeProto) -> None:
        self.nodes[node.name] = node
        for name in node.output:
            self._producers[name] = node
        for name in node.input:
            self._readers.setdefault(name, []).append(node)

    def _name(self) -> str:
        while True:
            self._count += 1
            name = f"quantscope_{self._count}"
            # A model that was changed before has some of them.
            if name not in self._taken:
                return name

    # ------------------------------------------------------------------ quantization

    def pair(self, tensor: str, *, dtype: Any = np.uint8, scale: float = _SCALE, output: str = "") -> str:
        """The tensor behind a new QuantizeLinear and DequantizeLinear."""
        zero = self.constant(np.array(_MIDDLE if dtype == np.uint8 else 0, dtype))
        return self.pair_like(tensor, [self.constant(np.float32(scale)), zero], output)  # type: ignore[arg-type]

    def pair_like(self, tensor: str, qparams: Sequence[str], output: str = "") -> str:
        """The same with this scale and zero point."""
        codes = self.node(QUANTIZE, [tensor, *qparams], domain=self._domain)
        return self.node(DEQUANTIZE, [codes, *qparams], output, domain=self._domain)

    def quantize_output(self, node: onnx.NodeProto, tensor: str) -> None:
        """Put a pair between a node and all that read this output of it."""
        self.pair(self.renamed(node, tensor), output=tensor)

    def quantized_weight(self, values: NDArray[Any], axis: int | None) -> str:
        """A new weight as int8 codes and their DequantizeLinear, with a scale for each channel of an axis."""
        axis = axis if self.per_channel else None
        others = tuple(i for i in range(values.ndim) if i != axis) if axis is not None else None
        scale = np.maximum(np.abs(values).max(axis=others) / 127, 1e-8).astype(np.float32)
        wide = scale if axis is None else scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        codes = np.clip(np.rint(values / wide), -127, 127).astype(np.int8)
        inputs = [self.constant(codes), self.constant(scale), self.constant(np.zeros(scale.shape, np.int8))]
        if axis is None:
            return self.node(DEQUANTIZE, inputs, domain=self._domain)
        return self.node(DEQUANTIZE, inputs, domain=self._domain, axis=axis)

    def real(self, tensor: str) -> NDArray[Any] | None:
        """The real values of a constant, dequantized if it is one of codes; None for anything else."""
        if tensor in self.constants:
            return np.asarray(self.constants.array(tensor), np.float32)
        node = self.producer(tensor)
        if node is None or node.op_type != DEQUANTIZE or any(n and n not in self.constants for n in node.input):
            return None
        return self.dequantized(node)

    def dequantized(self, node: onnx.NodeProto) -> NDArray[Any]:
        """What a DequantizeLinear of constants computes."""
        codes, scale = (np.asarray(self.constants.array(name), np.float32) for name in node.input[:2])
        zero = np.zeros_like(scale)
        if len(node.input) > 2 and node.input[2]:
            zero = np.asarray(self.constants.array(node.input[2]), np.float32)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        axis, block = int(attributes.get("axis", 1)) % max(codes.ndim, 1), int(attributes.get("block_size", 0))
        if block:
            scale, zero = (np.repeat(part, block, axis)[_up_to(codes.shape, axis)] for part in (scale, zero))
        elif scale.size > 1:
            scale, zero = (part.reshape([-1 if i == axis else 1 for i in range(codes.ndim)]) for part in (scale, zero))
        values: NDArray[Any] = (codes - zero) * scale
        return values

    def set_qparams(self, conversions: Iterable[onnx.NodeProto], qparams: Sequence[str]) -> None:
        """Let conversions use this scale and zero point."""
        for node in conversions:
            for place, name in enumerate(qparams, start=1):
                self.read(node, place, name)
            kept = [a for a in node.attribute if a.name not in ("axis", "block_size", "output_dtype", "precision")]
            del node.attribute[:]
            node.attribute.extend(kept)

    def with_codes_of(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """A conversion of activations with all others of the same codes."""
        codes = node.input[0] if node.op_type == DEQUANTIZE else node.output[0]
        before = self.producer(codes)
        found = [before] if before is not None and before.op_type == QUANTIZE else []
        return found + [reader for reader in self.readers(codes) if reader.op_type == DEQUANTIZE]

    def uint8_qparams(self, node: onnx.NodeProto, *, whole: float = 1) -> list[str]:
        """A new scale, one for the tensor, `whole` times the mean of the old ones, and a zero point of uint8."""
        scale = self.constants.array(node.input[1]) if node.input[1] in self.constants else np.array(_SCALE)
        return [
            self.constant(np.array(np.mean(scale, dtype=np.float64) * whole, np.float32)),
            self.constant(np.array(_MIDDLE, np.uint8)),
        ]


def _up_to(shape: tuple[int, ...], axis: int) -> tuple[slice, ...]:
    return tuple(slice(shape[axis]) if i == axis else slice(None) for i in range(len(shape)))
