"""Quantized models that ONNX Runtime's own tools make, for tests that make them as they run.

Every function takes the float model's file, the samples to calibrate with (some need none), and the file to write.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

Samples = list[dict[str, NDArray[Any]]]
Variant = Callable[[Path, Samples, Path], None]


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Samples as ONNX Runtime's calibration takes them."""

    def __init__(self, samples: Samples) -> None:
        self.rest = iter(samples)

    def get_next(self) -> Any:
        return next(self.rest, None)


@contextmanager
def prepared(float_path: Path, opset: int = 17) -> Iterator[str]:
    """The model as ONNX Runtime's documentation wants it: at least this opset, optimized, with inferred shapes."""
    with tempfile.TemporaryDirectory() as folder:
        upgraded, ready = str(Path(folder) / "upgraded.onnx"), str(Path(folder) / "prepared.onnx")
        onnx.save(at_opset(float_path, opset), upgraded)
        quant_pre_process(upgraded, ready, skip_symbolic_shape=True)
        yield ready


def at_opset(float_path: Path, opset: int) -> Any:
    """The model, brought to this opset if its own is older."""
    model = onnx.load(str(float_path))
    version = next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    if version < opset:
        model = version_converter.convert_version(model, opset)
    model.ir_version = max(model.ir_version, 10 if opset > 20 else 8)
    return model


def static(float_path: Path, samples: Samples, out: Path, opset: int = 17, **options: Any) -> None:
    """Static quantization, with the options of `quantize_static`."""
    with prepared(float_path, opset) as path:
        quantize_static(path, str(out), Reader(samples), **options)


def qdq_per_tensor(float_path: Path, samples: Samples, out: Path) -> None:
    """QuantizeLinear and DequantizeLinear around float operators."""
    static(float_path, samples, out, quant_format=QuantFormat.QDQ, per_channel=False)


def qdq_per_channel(float_path: Path, samples: Samples, out: Path) -> None:
    """The same, with a scale for every channel of the weights."""
    static(float_path, samples, out, quant_format=QuantFormat.QDQ, per_channel=True)


def qoperator_per_tensor(float_path: Path, samples: Samples, out: Path) -> None:
    """Integer operators such as QLinearConv."""
    static(float_path, samples, out, quant_format=QuantFormat.QOperator, per_channel=False)


def qoperator_per_channel(float_path: Path, samples: Samples, out: Path) -> None:
    """The same, with a scale for every channel of the weights."""
    static(float_path, samples, out, quant_format=QuantFormat.QOperator, per_channel=True)


def qdq_int16(float_path: Path, samples: Samples, out: Path) -> None:
    """Activations of 16 bits with the standard Q and DQ, which know 16 bits from opset 21."""
    static(float_path, samples, out, 21, activation_type=QuantType.QUInt16, weight_type=QuantType.QInt8)


def qdq_int16_contrib(float_path: Path, samples: Samples, out: Path) -> None:
    """Activations of 16 bits with the Q and DQ of the domain com.microsoft, which knew 16 bits before."""
    types = {"activation_type": QuantType.QUInt16, "weight_type": QuantType.QInt8}
    static(float_path, samples, out, **types, extra_options={"UseQDQContribOps": True})


def qdq_int4_weights(float_path: Path, samples: Samples, out: Path) -> None:
    """Weights of 4 bits per channel and activations of 8."""
    static(float_path, samples, out, 21, weight_type=QuantType.QInt4, per_channel=True)


def dynamic(float_path: Path, samples: Samples, out: Path) -> None:
    """DynamicQuantizeLinear before ConvInteger and MatMulInteger: no calibration, scales of activations at run time."""
    with prepared(float_path) as path:
        quantize_dynamic(path, str(out), weight_type=QuantType.QUInt8)


def matmul_int4(float_path: Path, samples: Samples, out: Path) -> None:
    """Weights of MatMuls in blocks of 4 bits inside MatMulNBits, everything else float; needs the package onnx_ir."""
    weights_only(float_path, out, QuantFormat.QOperator)


def matmul_int4_qdq(float_path: Path, samples: Samples, out: Path) -> None:
    """The same blocks behind a DequantizeLinear of opset 21; needs the package onnx_ir."""
    weights_only(float_path, out, QuantFormat.QDQ)


def weights_only(float_path: Path, out: Path, form: Any) -> None:
    """Blocks of 32 weights, 4 bits each."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    model = at_opset(float_path, 21)
    # The quantizer takes weights from initializers only. The usual preparation would make them of Constant nodes as
    # well, but it also makes Gemms of MatMuls, which this quantizer leaves alone.
    for node in [node for node in model.graph.node if node.op_type == "Constant"]:
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        model.graph.node.remove(node)
    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, quant_format=form)
    quantizer = MatMulNBitsQuantizer(model, algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(out))


def float16(float_path: Path, samples: Samples, out: Path) -> None:
    """Weights and activations of 16 bit floats, between a Cast of the inputs and one of the outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(at_opset(float_path, 17), keep_io_types=True), str(out))


VARIANTS: dict[str, Variant] = {
    variant.__name__: variant
    for variant in (
        qdq_per_tensor,
        qdq_per_channel,
        qoperator_per_tensor,
        qoperator_per_channel,
        qdq_int16,
        qdq_int16_contrib,
        qdq_int4_weights,
        dynamic,
        matmul_int4,
        matmul_int4_qdq,
        float16,
    )
}
