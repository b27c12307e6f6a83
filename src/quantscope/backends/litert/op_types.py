"""What LiteRT's ops are called in quantscope: by the names of the ONNX operator set where it has such an op."""

from __future__ import annotations

_NAMES = {
    "ADD_N": "Sum", "AVERAGE_POOL_2D": "AveragePool", "BATCH_MATMUL": "MatMul", "BROADCAST_TO": "Expand",
    "CONCATENATION": "Concat", "CONV_2D": "Conv", "CONV_3D": "Conv", "CONV_3D_TRANSPOSE": "ConvTranspose",
    "CUMSUM": "CumSum", "DEPTHWISE_CONV_2D": "Conv", "DEQUANTIZE": "DequantizeLinear", "EMBEDDING_LOOKUP": "Gather",
    "EXPAND_DIMS": "Unsqueeze", "FULLY_CONNECTED": "Gemm", "GATHER_ND": "GatherND",
    "L2_NORMALIZATION": "LpNormalization",
    "L2_POOL_2D": "LpPool", "LOCAL_RESPONSE_NORMALIZATION": "LRN", "LOGISTIC": "Sigmoid", "LSTM": "LSTM",
    "MAXIMUM": "Max", "MAX_POOL_2D": "MaxPool", "MEAN": "ReduceMean", "MINIMUM": "Min", "MIRROR_PAD": "Pad",
    "PADV2": "Pad", "PRELU": "PRelu", "QUANTIZE": "QuantizeLinear", "RELU6": "Clip", "RELU_0_TO_1": "Clip",
    "RELU_N1_TO_1": "Clip", "RESIZE_BILINEAR": "Resize", "RESIZE_NEAREST_NEIGHBOR": "Resize", "SELECT": "Where",
    "SELECT_V2": "Where", "SPLIT_V": "Split", "STRIDED_SLICE": "Slice", "SUM": "ReduceSum", "TOPK_V2": "TopK",
    "TRANSPOSE_CONV": "ConvTranspose", "UNIDIRECTIONAL_SEQUENCE_LSTM": "LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN": "RNN",
}  # fmt: skip
# By op type of LiteRT: the operand that is its weight, and the weight's axis of output channels.
WEIGHTS = {
    "CONV_2D": (1, 0), "CONV_3D": (1, 4), "DEPTHWISE_CONV_2D": (1, 3), "FULLY_CONNECTED": (1, 0),
    "TRANSPOSE_CONV": (1, 0), "BATCH_MATMUL": (1, -1), "EMBEDDING_LOOKUP": (1, 0), "GATHER": (0, 0),
}  # fmt: skip
NO_WEIGHT = -1
# Ops with states or graphs of their own, whose integer forms have operands that the float ones lack.
COMPOUND = frozenset(
    (
        "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN",
        "BIDIRECTIONAL_SEQUENCE_RNN", "RNN", "SVDF", "STABLEHLO_COMPOSITE", "CALL", "CALL_ONCE", "IF", "WHILE",
    )
)  # fmt: skip
BIASES = {"CONV_2D": 2, "CONV_3D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}


def op_type(native: str) -> str:
    """quantscope's name for a type of op: Conv for CONV_2D, LeakyRelu for LEAKY_RELU; a custom op keeps its own."""
    if native in _NAMES:
        return _NAMES[native]
    if native != native.upper():
        return native
    return "".join(part.capitalize() for part in native.split("_"))
