"""What ONNX Runtime's kernels do on this processor at most: products in float and in int8, and a pass through memory.

The integer product is MatMulInteger, the kernel inside QLinearMatMul, QGemm and QLinearConv without the rounding behind
it: the fastest of them, so that no op of a model does more (docs/decisions/0012-machine.md).
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from quantscope.backends.base import Peak
from quantscope.backends.onnx import sessions
from quantscope.backends.onnx.files import OnnxModel

_SIZE = 512
# Larger than the caches: of what an op reads and of what it writes.
_PASS_BYTES = 128 * 2**20
_SECONDS = 0.2
_OPSET = 17


def measured(threads: int) -> Peak:
    """Return the best of what repeated runs of about 0.2 s per kind did; 0 threads means all cores."""
    # Each thread gets as much to do as a single one.
    parts = threads or os.cpu_count() or 1
    rows = _SIZE * parts
    random = np.random.default_rng(0)

    def multiply_adds(op_type: str, x: NDArray[Any], w: NDArray[Any]) -> float:
        return rows * _SIZE * _SIZE / _best_seconds(op_type, x, {"w": w}, (rows, _SIZE), threads)

    def integer(dtype: type) -> float:
        codes: NDArray[Any] = np.tile(random.integers(0, 100, (_SIZE, _SIZE)).astype(dtype), (parts, 1))
        return multiply_adds("MatMulInteger", codes, random.integers(-64, 64, (_SIZE, _SIZE), np.int8))

    x: NDArray[Any] = random.standard_normal((_SIZE, _SIZE), np.float32)
    passed = np.ones(_PASS_BYTES // 4, np.float32)
    return Peak(
        multiply_adds("MatMul", np.tile(x, (parts, 1)), x),
        integer(np.uint8),
        integer(np.int8),
        2 * passed.nbytes / _best_seconds("Relu", passed, {}, passed.shape, threads),
    )


def _best_seconds(
    op_type: str, x: NDArray[Any], constants: dict[str, NDArray[Any]], shape: tuple[int, ...], threads: int
) -> float:
    """The shortest time of one run of an op on `x` and these constants, all memory in place before."""
    output = np.zeros(shape, np.int32 if op_type == "MatMulInteger" else np.float32)
    # As in production: threads that wait for the next run are awake.
    options = sessions.production_options(threads)
    session = sessions.session(OnnxModel(_model(op_type, x, constants), None), options)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y", "cpu", 0, output.dtype, output.shape, output.ctypes.data)
    session.run_with_iobinding(binding)
    best, until = float("inf"), time.perf_counter() + _SECONDS
    while (began := time.perf_counter()) < until:
        session.run_with_iobinding(binding)
        best = min(best, time.perf_counter() - began)
    return best


def _model(op_type: str, x: NDArray[Any], constants: dict[str, NDArray[Any]]) -> onnx.ModelProto:
    node = helper.make_node(op_type, ["x", *constants], ["y"])
    value = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], op_type, [value], [onnx.ValueInfoProto(name="y")], weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", _OPSET)])
