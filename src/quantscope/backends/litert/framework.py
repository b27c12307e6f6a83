"""LiteRT as it is installed here."""

from __future__ import annotations

import os
from importlib.metadata import version

from quantscope.backends.base import Framework
from quantscope.backends.litert import interpreters
from quantscope.backends.litert.building import Builder


def installed() -> Framework:
    """Its version, the quantizer's, and the threads that an interpreter starts if nobody says."""
    return Framework(
        "LiteRT",
        version("ai-edge-litert"),
        f"with XNNPACK; ai-edge-quantizer {version('ai-edge-quantizer')}",
        ("CPU",),
        _default_threads(),
    )


def _default_threads() -> int:
    """The threads that appear with an interpreter, and the one that calls it; 1 where they cannot be counted."""
    builder = Builder()
    builder.tensor("x", [1])
    builder.tensor("y", [1])
    builder.op("NEG", ["x"], ["y"])
    content = builder.finished(["x"], ["y"])
    before = _threads()
    made = interpreters.interpreter(content, threads=None)
    made.invoke()
    started = _threads() - before
    return 1 + max(started, 0)


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0
