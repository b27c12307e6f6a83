"""What LiteRT's kernels do on this processor at most: products in float and in int8, and a pass through memory."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from quantscope.backends.base import Peak
from quantscope.backends.litert import interpreters
from quantscope.backends.litert.building import Builder

_SIZE = 512
# Larger than the caches: of what an op reads and of what it writes.
_PASS_ELEMENTS = 32 * 2**20
_SECONDS = 0.2
_SCALE = 0.01


def measured(threads: int) -> Peak:
    """Return the best of what repeated runs of about 0.2 s per kind did; 0 threads means all cores.

    LiteRT multiplies int8 by int8 alone: both figures for integers are that one.
    """
    # Each thread gets as much to do as a single one.
    rows = _SIZE * (threads or os.cpu_count() or 1)
    products = rows * _SIZE * _SIZE
    integer = products / _best_seconds(_product(rows, "int8"), threads)
    return Peak(
        products / _best_seconds(_product(rows, "float32"), threads),
        integer,
        integer,
        2 * 4 * _PASS_ELEMENTS / _best_seconds(_pass(), threads),
    )


def _product(rows: int, dtype: str) -> bytes:
    random = np.random.default_rng(0)
    builder = Builder()
    codes = dtype != "float32"
    quantization: dict[str, Any] = {"scale": [_SCALE]} if codes else {}
    weight = random.integers(-64, 64, (_SIZE, _SIZE)).astype(dtype)
    builder.tensor("x", [rows, _SIZE], dtype, **quantization)
    builder.constant("w", weight, **quantization)
    bias = {"scale": [_SCALE * _SCALE]} if codes else {}
    builder.constant("b", np.zeros(_SIZE, np.int32 if codes else np.float32), **bias)
    builder.tensor("y", [rows, _SIZE], dtype, scale=[1.0] if codes else [])
    builder.op("FULLY_CONNECTED", ["x", "w", "b"], ["y"], "FullyConnectedOptions")
    return builder.finished(["x"], ["y"])


def _pass() -> bytes:
    builder = Builder()
    builder.tensor("x", [_PASS_ELEMENTS])
    builder.tensor("y", [_PASS_ELEMENTS])
    builder.op("NEG", ["x"], ["y"])
    return builder.finished(["x"], ["y"])


def _best_seconds(content: bytes, threads: int) -> float:
    """The shortest time of one run, all memory in place before."""
    made = interpreters.interpreter(content, threads=threads)
    details = made.get_input_details()[0]
    made.set_tensor(details["index"], np.ones(details["shape"], details["dtype"]))
    made.invoke()
    best, until = float("inf"), time.perf_counter() + _SECONDS
    while (began := time.perf_counter()) < until:
        made.invoke()
        best = min(best, time.perf_counter() - began)
    return best
