"""The user's own op names, found in the names of tensors.

A tensor of a .tflite file is named after all ops that were fused into the one that writes it, joined by semicolons, and
some whose constants it shares: "model/relu/Relu;model/bn/FusedBatchNormV3;model/other/Conv2D;model/conv/Conv2D1".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

# One may stand for another: the converter writes them as it likes.
_SHAPES = "Reshape|Squeeze|ExpandDims"
# How TensorFlow calls, as the last part of an op's name, what becomes this op of LiteRT.
_WORDS = {
    "ADD": "add|Add|AddV2|BiasAdd", "AVERAGE_POOL_2D": "AvgPool", "BATCH_MATMUL": "MatMul|BatchMatMulV?\\d?|einsum",
    "CONCATENATION": "concat", "CONV_2D": "Conv2D|conv1d|Conv1D|convolution", "CONV_3D": "Conv3D",
    "DEPTHWISE_CONV_2D": "depthwise|DepthwiseConv2dNative", "DIV": "truediv|div|RealDiv|div_no_nan",
    "EXPAND_DIMS": _SHAPES, "FULLY_CONNECTED": "MatMul|Tensordot|einsum", "GATHER": "GatherV2|embedding_lookup",
    "GELU": "Gelu", "LOGISTIC": "Sigmoid", "MAX_POOL_2D": "MaxPool", "MEAN": "Mean",
    # A product may have been one of these two.
    "MUL": "mul|Mul|Neg|Square", "NEG": "Neg", "PAD": "Pad", "RELU": "Relu", "RELU6": "Relu6", "RESHAPE": _SHAPES,
    "RSQRT": "Rsqrt", "SOFTMAX": "Softmax", "SQRT": "Sqrt", "SQUARE": "Square", "SQUEEZE": _SHAPES,
    "STRIDED_SLICE": "strided_slice", "SUB": "sub|Sub", "SUM": "Sum",
    "TANH": "Tanh", "TRANSPOSE": "transpose|Transpose", "TRANSPOSE_CONV": "conv2d_transpose|Conv2DBackpropInput",
}  # fmt: skip
_PRODUCTS = frozenset(("CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV"))
# Names that the converter gives to a model's outputs, in the place of what the user called them.
_GIVEN = re.compile(r"(StatefulPartitionedCall|PartitionedCall|Identity)(_\d+)?(:\d+)?\d*|Identity\d*")


def is_given(name: str) -> bool:
    """True if a tensor's name says nothing of the user's model."""
    return not name or _GIVEN.fullmatch(name) is not None


def op_name(tensor: str, native_type: str) -> str:
    """The name of the op that writes a tensor, as the user's framework had it.

    Of joined names a product is that of its own kind, and if there are several, the one whose layer most others belong
    to: the rest share a constant with it. Any other op is the one of its kind that comes first, else the first of all.

    Args:
        tensor: the tensor's name in the file.
        native_type: what LiteRT calls the op.
    """
    parts = _parts(tensor)
    if len(parts) < 2:
        return parts[0] if parts else ""
    words = _WORDS.get(native_type)
    fitting = [part for part in parts if words and re.fullmatch(f"(?:{words})(?:_\\d+)?", part.rpartition("/")[2])]
    if not fitting:
        return parts[0]
    if native_type not in _PRODUCTS:
        return fitting[0]
    layers = Counter(part.partition("/BiasAdd")[0] if "/BiasAdd" in part else _layer(part) for part in parts)
    # The last of them that has the most: shared constants come first.
    return max(reversed(fitting), key=lambda part: layers[_layer(part)])


def _layer(name: str) -> str:
    return name.rpartition("/")[0]


def _parts(tensor: str) -> list[str]:
    """The joined names, each once; without the digits that make the whole unique."""
    parts = list(dict.fromkeys(part for part in tensor.split(";") if part))
    if len(parts) > 1:
        stem = parts[-1].rstrip("0123456789")
        last = next((p for p in parts[:-1] if p.startswith(stem) and parts[-1].startswith(p)), None)
        if last is not None:
            return parts[:-1]
        known = "|".join(_WORDS.values())
        match = re.fullmatch(f"(.*/(?:{known}))\\d+", parts[-1])
        if match:
            parts[-1] = match[1]
    return parts


def unique(names: Iterable[str]) -> list[str]:
    """The same names, '#2' behind a repeated one."""
    seen: dict[str, int] = {}
    taken: set[str] = set()
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        own = name if seen[name] == 1 else f"{name}#{seen[name]}"
        while own in taken:
            seen[name] += 1
            own = f"{name}#{seen[name]}"
        taken.add(own)
        result.append(own)
    return result
