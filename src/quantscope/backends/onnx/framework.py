"""ONNX Runtime as it is installed here."""

from __future__ import annotations

import os

import onnxruntime
from onnx import TensorProto, helper

from quantscope.backends.base import Framework
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.sessions import session, session_options


def installed() -> Framework:
    """Its version and build, what it can run on, and the threads that a session starts if nobody says."""
    return Framework(
        "ONNX Runtime",
        onnxruntime.__version__,
        str(onnxruntime.get_build_info()).removeprefix("ORT Build Info: "),
        tuple(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()),
        _default_threads(),
    )


def _default_threads() -> int:
    """The threads that appear with a session, and the one that calls it; all cores where threads cannot be counted."""
    before = _threads()
    if not before:
        return os.cpu_count() or 1
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", values[:1], values[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    opened = session(OnnxModel(model), session_options(0))
    started = _threads() - before
    del opened
    return 1 + max(started, 0)


def _threads() -> int:
    """The threads of this process; 0 where the system does not say."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0
