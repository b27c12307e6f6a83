"""The quantization that a file asks for: what stands around each of its ops, and of which kind it is."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.onnx.constants import Constants
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.structure import graph_of
from quantscope.graph import Graph, Op

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
PRODUCTS = frozenset(("Conv", "MatMul", "Gemm"))


class Written:
    """A quantized model as it is written: its graph, and what its QuantizeLinear and DequantizeLinear say."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        self.graph: Graph = graph_of(model)
        self.constants = Constants(model)
        self.outputs = {tensor.name for tensor in self.graph.outputs}

    @cached_property
    def fixed(self) -> set[str]:
        """The tensors that follow from constants alone: ONNX Runtime computes them once, when it loads the model."""
        found = set(self.graph.constants) | {""}
        for op in self.graph.ops:
            if op.inputs and all(name in found for name in op.inputs):
                found.update(op.outputs)
        return found

    def dequantization(self, tensor: str) -> Op | None:
        """The DequantizeLinear that writes this tensor."""
        producer = self.graph.producers.get(tensor)
        return producer if producer is not None and producer.op_type == DEQUANTIZE else None

    def quantizations(self, tensor: str) -> tuple[Op, ...]:
        """Each QuantizeLinear that reads this tensor as its values."""
        readers = self.graph.consumers.get(tensor, ())
        return tuple(op for op in readers if op.op_type == QUANTIZE and op.inputs[0] == tensor)

    def pair_behind(self, quantize: Op) -> tuple[Op, ...]:
        """Each DequantizeLinear that reads the codes of a QuantizeLinear."""
        return tuple(op for op in self.graph.consumers.get(quantize.outputs[0], ()) if op.op_type == DEQUANTIZE)

    def is_quantized(self, op: Op) -> bool:
        """True if an op that is no conversion reads dequantized operands, or is a product whose result is quantized.

        Any other op before a QuantizeLinear has nothing to gain: this would only move before it.
        """
        if op.op_type in (QUANTIZE, DEQUANTIZE):
            return False
        return any(map(self.dequantization, op.inputs)) or (
            op.op_type in PRODUCTS and any(map(self.quantizations, op.outputs))
        )

    def code_type(self, conversion: Op) -> str:
        """numpy's name for the codes of a conversion."""
        codes = (conversion.inputs if conversion.op_type == DEQUANTIZE else conversion.outputs)[0]
        zero_point = (*conversion.inputs, "")[2]
        return self.graph.tensor(zero_point).dtype or self.graph.tensor(codes).dtype or "uint8"

    def stays_signed(self, conversion: Op) -> bool:
        """True if codes are int8, and more than one op reads them or their real values.

        ONNX Runtime gives each reader a DequantizeLinear of its own, and turns int8 codes into the uint8 ones that its
        kernels for x86 take only where one DequantizeLinear reads them.
        """
        if self.code_type(conversion) != "int8":
            return False
        codes = (conversion.inputs if conversion.op_type == DEQUANTIZE else conversion.outputs)[0]
        behind = self.graph.consumers.get(codes, ())
        if codes not in self.graph.producers or any(op.op_type != DEQUANTIZE for op in behind):
            return True
        return sum(len(self.graph.consumers.get(op.outputs[0], ())) for op in behind) > 1

    def scale_type(self, conversion: Op) -> str:
        """numpy's name for the type that a conversion has real values in."""
        return self.graph.tensor(conversion.inputs[1]).dtype or "float32"

    def real_type(self, tensor: str) -> str:
        """numpy's name for the type of a tensor of real values."""
        before = self.dequantization(tensor)
        return self.scale_type(before) if before is not None else self.graph.tensor(tensor).dtype or "float32"

    def follows_from_data(self, conversion: Op) -> bool:
        """True if the scale or the zero point of a conversion is no constant."""
        return any(name not in self.fixed for name in conversion.inputs[1:3])

    def scale_shape(self, conversion: Op) -> tuple[int, ...]:
        """The shape of a conversion's scale, () for one scale whatever its rank; unknown ones count as one."""
        name = conversion.inputs[1]
        shape = self.constants.shape(name) if name in self.constants else self.graph.tensor(name).shape or ()
        sizes = tuple(size if isinstance(size, int) else 1 for size in shape)
        return sizes if np.prod(sizes, initial=1) > 1 else ()

    def axis(self, conversion: Op, rank: int) -> int:
        """The axis that a conversion's scales belong to."""
        return int(conversion.attributes.get("axis", 1)) % max(rank, 1)

    def rank(self, tensor: str) -> int:
        """The number of a tensor's axes; 0 where unknown."""
        return len(self.graph.tensor(tensor).shape or ())

    def value(self, name: str) -> NDArray[Any] | None:
        """The values of a constant; None for anything else."""
        return self.constants.array(name) if name in self.constants else None

    def same_codes(self, first: Op, second: Op) -> bool:
        """True if two conversions have the same scale and zero point, as constants."""
        for one, other in zip((*first.inputs[1:], ""), (*second.inputs[1:], ""), strict=False):
            if one != other:
                values = self.value(one), self.value(other)
                if values[0] is None or values[1] is None or not np.array_equal(*values):  # type: ignore[arg-type]
                    return False
        return True
