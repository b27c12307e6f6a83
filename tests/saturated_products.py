"""Products as ONNX Runtime computes them on a processor with AVX2 and without VNNI, beside this file as an .npz.

To make it anew, run this file where such a processor is, or is emulated:

    qemu-x86_64 -cpu max python tests/saturated_products.py

It was made by ONNX Runtime 1.32 in QEMU 7.2, whose "max" has AVX2 and neither AVX-512 nor VNNI.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

RESULTS = Path(__file__).with_suffix(".npz")


@dataclass(frozen=True)
class Case:
    """One product: shapes of activations and weight, and the op's attributes; `zero_point` is the activations'."""

    op_type: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    zero_point: int = 7

    @property
    def operands(self) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
        """Codes among which many pairs saturate."""
        random = np.random.default_rng(len(self.x) + sum(self.x) * 31 + sum(self.w))
        x = random.integers(100, 256, self.x).astype(np.uint8)
        return x, random.integers(-128, 128, self.w).astype(np.int8)

    def model(self) -> onnx.ModelProto:
        """The op alone; its real output is its integer sum, or that in steps of 4096 around the code 128."""
        x, w = self.operands
        one, zero = np.float32(1), np.int8(0)
        constants: dict[str, Any] = {"w": w, "xz": np.uint8(self.zero_point)}
        if self.op_type == "MatMulInteger":
            inputs = ["x", "w", "xz"]
        else:
            constants |= {"xs": one, "ws": one, "wz": zero, "ys": np.float32(4096), "yz": np.uint8(128)}
            inputs = ["x", "xs", "xz", "w", "ws", "wz"] + (
                ["", "ys", "yz"] if self.op_type == "QGemm" else ["ys", "yz"]
            )
        domain = "com.microsoft" if self.op_type == "QGemm" else ""
        node = helper.make_node(self.op_type, inputs, ["y"], "product", domain=domain, **self.attributes)
        value = helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, x.shape)
        tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
        graph = helper.make_graph([node], "product", [value], [onnx.ValueInfoProto(name="y")], tensors)
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, ir_version=8, opset_imports=imports)

    def run(self) -> NDArray[Any]:
        """What the kernels of this machine give."""
        import onnxruntime

        session = onnxruntime.InferenceSession(self.model().SerializeToString(), providers=["CPUExecutionProvider"])
        result: NDArray[Any] = session.run(None, {"x": self.operands[0]})[0]
        return result


def _window(stride: int = 1, pad: int = 0, dilation: int = 1, group: int = 1) -> dict[str, Any]:
    return {"strides": [stride] * 2, "pads": [pad] * 4, "dilations": [dilation] * 2, "group": group}


CASES = {
    "one row": Case("MatMulInteger", (1, 64), (64, 40), zero_point=0),
    "odd sum": Case("MatMulInteger", (5, 63), (63, 33)),
    "long sum": Case("MatMulInteger", (3, 1030), (1030, 16)),
    "Gemm": Case("QGemm", (4, 31), (10, 31), {"transB": 1}),
    "three channels": Case("QLinearConv", (1, 3, 9, 12), (16, 3, 3, 3), _window(pad=1)),
    "stride": Case("QLinearConv", (1, 3, 9, 12), (8, 3, 3, 3), _window(2, 1)),
    "one position": Case("QLinearConv", (2, 8, 6, 9), (16, 8, 1, 1), _window()),
    "whole blocks": Case("QLinearConv", (1, 16, 7, 10), (32, 16, 3, 3), _window(pad=1)),
    "dilation": Case("QLinearConv", (1, 5, 7, 10), (7, 5, 3, 3), _window(1, 2, 2)),
    "depthwise": Case("QLinearConv", (1, 16, 7, 10), (16, 1, 3, 3), _window(pad=1, group=16)),
    "groups": Case("QLinearConv", (1, 12, 7, 10), (24, 3, 3, 3), _window(pad=1, group=4)),
    "two outputs for each channel": Case("QLinearConv", (1, 6, 7, 10), (12, 1, 3, 3), _window(pad=1, group=6)),
    "border of 255": Case("QLinearConv", (1, 9, 11, 9), (16, 9, 5, 5), _window(2, 2), zero_point=255),
    "a line": Case("QLinearConv", (1, 4, 20), (6, 4, 5), {"strides": [2], "pads": [2, 1]}),
    "a body": Case("QLinearConv", (1, 3, 4, 5, 6), (5, 3, 2, 2, 3), {"pads": [1, 0, 1, 0, 1, 1]}),
}

if __name__ == "__main__":
    results: dict[str, Any] = {name: case.run() for name, case in CASES.items()}
    np.savez_compressed(RESULTS, **results)
