"""The ops that would saturate: where their codes are, how they are scaled, and why others have no row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.base import Backend, IntegerProduct, Model
from quantscope.graph import Op
from quantscope.qparams import PerTensor, QParams
from quantscope.quantized import FloatView, RescaledQParams, Weight
from quantscope.saturation.pairs import Codes, Convolution, MatrixProduct

_SHIFT = 128


@dataclass(frozen=True, eq=False)
class Product:
    """An op with pairs that can saturate: it reads the tensor `source` and writes `target`.

    `scale` is that of its weight, one for each output channel along `axis` of the output; with `shifted` the framework
    adds 128 to the model's int8 codes. `factors` say by what an equalized model multiplied both tensors.
    """

    op: Op
    source: str
    target: str
    qparams: QParams | None
    pairs: MatrixProduct | Convolution
    scale: NDArray[Any]
    axis: int
    shifted: bool
    factors: tuple[NDArray[Any] | None, NDArray[Any] | None]

    def codes(self, values: NDArray[Any]) -> tuple[Codes, int, float]:
        """The codes that the kernel multiplies for these real values, the code of zero, and their scale."""
        if self.factors[0] is not None:
            values = values * self.factors[0]
        if self.qparams is None:
            return _dynamic(values)
        zero_point, scale = int(self.qparams.zero_point.reshape(())), float(self.qparams.scale.reshape(()))
        low, high = self.qparams.spec.code_range
        codes = np.rint(values / np.float32(scale))
        codes += zero_point
        np.clip(codes, low, high, out=codes)
        shift = _SHIFT if self.shifted else 0
        return (codes + shift).astype(np.uint8), zero_point + shift, scale

    def real(self, loss: NDArray[np.int32], scale: float) -> NDArray[np.float32]:
        """What the output loses in its own unit."""
        view = [1] * loss.ndim
        view[self.axis] = -1
        values = loss.astype(np.float32) * (self.scale.reshape(view) * np.float32(scale)).astype(np.float32)
        return values if self.factors[1] is None else (values / self.factors[1]).astype(np.float32)


def _dynamic(values: NDArray[Any]) -> tuple[Codes, int, float]:
    """Codes with a scale that covers the values and zero (ONNX operator specification, DynamicQuantizeLinear)."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = np.float32((high - low) / 255) or np.float32(1)
    zero_point = int(np.clip(np.rint(-low / scale), 0, 255))
    codes = np.clip(np.rint(values / scale) + zero_point, 0, 255).astype(np.uint8)
    return codes, zero_point, float(scale)


def products_of(backend: Backend, model: Model) -> tuple[list[Product], dict[str, str]]:
    """Return the products whose pairs can saturate, in execution order, and why each of the others has no row."""
    view = backend.float_view(model, "simulated")
    weights = {w.op: w for w in backend.weights(model, "simulated") if w.role == "weight" and w.qparams is not None}
    found: dict[str, Product] = {}
    skipped: dict[str, str] = {}
    for product in backend.integer_products(model):
        made = _product(product, view, weights)
        if isinstance(made, str):
            skipped[product.op] = made
        else:
            found[product.op] = made
    return [found[op.name] for op in view.graph.ops if op.name in found], skipped


def _product(  # noqa: PLR0911 - a line for each reason
    product: IntegerProduct, view: FloatView, weights: Mapping[str, Weight]
) -> Product | str:
    """The product; a text that says why it cannot saturate, or is not looked at."""
    op = view.graph.by_name.get(product.op)
    weight = weights.get(product.op)
    if (product.activations, product.weights) != ("uint8", "int8"):
        return f"{product.activations} activations and {product.weights} weights are not added in 16 bits"
    if op is None or weight is None or weight.qparams is None:
        return "not looked at: it has no op of its own in the model as it is written"
    groups = int(op.attributes.get("group", 1))
    if op.op_type == "Conv" and groups > 1 and weight.shape[:2] == (groups, 1):
        return "a depthwise convolution: its kernel adds in 32 bits"
    stored = weight.qparams.stored if isinstance(weight.qparams, RescaledQParams) else weight.qparams
    matrix = op.op_type in ("MatMul", "Gemm")
    if not (op.op_type == "Conv" or (matrix and len(weight.shape) == 2)):
        return f"not looked at: {op.op_type} with a weight of {len(weight.shape)} axes"
    source = op.inputs[0]
    encoded = view.tensors.get(source)
    qparams = encoded.qparams if encoded is not None else None
    if qparams is None and not product.dynamic:
        return "not looked at: nothing says what its codes stand for"
    codes = weight.qparams.quantize(weight.read()).astype(np.int8)
    pairs = MatrixProduct(op, codes) if matrix else Convolution(op, codes)
    if not pairs.can_saturate:
        return "no pair of its weights can saturate"
    scale = stored.scale.astype(np.float32).reshape(-1)
    if not isinstance(stored.spec.granularity, PerTensor) and weight.channel_axis is None:
        return "not looked at: its weight has scales along another axis"
    return Product(
        op, source, op.outputs[0], None if product.dynamic else qparams, pairs,
        scale * np.float32(op.attributes.get("alpha", 1.0) if op.op_type == "Gemm" else 1.0),
        -1 if matrix else 1, bool(qparams is not None and qparams.spec.signed and not product.dynamic),
        (view.factors.get(source), view.factors.get(op.outputs[0])),
    )  # fmt: skip
