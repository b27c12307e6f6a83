"""Tiny .tflite models made by hand, and real ones from a package of the registry."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quantscope.testing import TinyNetwork


def tiny(path: Path) -> Path:
    """The tiny network as a float .tflite: channels last, an open batch, and TensorFlow's names."""
    from quantscope.backends.litert.building import Builder

    net, made = TinyNetwork(), Builder()
    made.tensor("serving_default_image:0", [None, 8, 8, 3])
    made.constant("net/stem/Conv2D", np.ascontiguousarray(net.stem.transpose(0, 2, 3, 1)))
    made.constant("net/stem/BiasAdd/ReadVariableOp", net.stem_bias)
    made.constant("net/body/Conv2D", np.ascontiguousarray(net.body.transpose(0, 2, 3, 1)))
    made.constant("net/body/BiasAdd/ReadVariableOp", net.body_bias)
    made.constant("net/pool/Mean/reduction_indices", np.array([1, 2], np.int32))
    made.constant("net/head/MatMul", np.ascontiguousarray(net.head.T))
    made.constant("net/head/BiasAdd/ReadVariableOp", net.head_bias)
    stem = made.tensor("net/stem/Relu;net/stem/BiasAdd;net/body/Conv2D;net/stem/Conv2D1", [None, 8, 8, 8])
    body = made.tensor("net/body/BiasAdd;net/body/Conv2D", [None, 8, 8, 16])
    pool = made.tensor("net/pool/Mean", [None, 16])
    out = made.tensor("StatefulPartitionedCall:0", [None, 5])
    same = {"padding": 0, "strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    made.op(
        "CONV_2D", ["serving_default_image:0", "net/stem/Conv2D", "net/stem/BiasAdd/ReadVariableOp"], [stem],
        "Conv2DOptions", **same, fusedActivationFunction=1,
    )  # fmt: skip
    made.op("CONV_2D", [stem, "net/body/Conv2D", "net/body/BiasAdd/ReadVariableOp"], [body], "Conv2DOptions", **same)
    made.op("MEAN", [body, "net/pool/Mean/reduction_indices"], [pool], "ReducerOptions", keepDims=False)
    made.op(
        "FULLY_CONNECTED", [pool, "net/head/MatMul", "net/head/BiasAdd/ReadVariableOp"], [out], "FullyConnectedOptions"
    )
    path.write_bytes(
        made.finished(["serving_default_image:0"], [out], {"serving_default_image:0": "image", out: "scores"})
    )
    return path
