"""Times of the ops that really run, by ONNX Runtime's own profiler, and how much work they do.

What is profiled is the graph after optimization, written down and run as it is: it has the kernels and the speed of the
model in production, and names of its own for all ops, where ONNX Runtime leaves some nameless.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantscope.backends.base import Kernel
from quantscope.backends.onnx.files import OnnxModel
from quantscope.backends.onnx.folders import TemporaryFolder
from quantscope.backends.onnx.kernels import Origin, origins
from quantscope.backends.onnx.sessions import SessionRunner, production_options, session
from quantscope.backends.onnx.structure import graph_of
from quantscope.graph import Op

_EVENT = "_kernel_time"
_NUMPY_NAMES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class _Run:
    """One inference: when it was, and the event of each op."""

    us: float
    events: tuple[Mapping[str, Any], ...]


class Profiler:
    """Runs a model under ONNX Runtime's profiler; see `quantscope.backends.base.Profiler`."""

    def __init__(
        self, model: OnnxModel, options: Any, folder: TemporaryFolder, came_from: Mapping[str, Origin]
    ) -> None:
        options.enable_profiling = True
        options.profile_file_prefix = str(folder.path / "profile")
        self._folder = folder
        self._origins = came_from
        self._session: Any = session(model, options)
        self._runner = SessionRunner(self._session)
        self._runs: list[_Run] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The model's outputs by name."""
        return self._runner.run(inputs)

    def finish(self, warm_up: int = 0) -> tuple[float, list[Kernel]]:
        """The time of a run in µs, and the kernels in the order they ran; nothing runs afterwards.

        Times are means over the faster half of the runs, so that they add up and what else the machine does counts
        least.

        Args:
            warm_up: how many of the first runs do not count.
        """
        self.close()
        by_time = sorted(self._runs[warm_up:], key=lambda run: run.us)
        half = by_time[: math.ceil(len(by_time) / 2)]
        return float(np.mean([run.us for run in half])), self._kernels(half)

    def close(self) -> None:
        """End profiling and read what was written."""
        if self._session is None:
            return
        path = Path(self._session.end_profiling())
        self._session = None
        self._runs = _runs(json.loads(path.read_text()), self._origins)
        path.unlink()

    def _kernels(self, runs: Sequence[_Run]) -> list[Kernel]:
        events: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for run in runs:
            for event in run.events:
                events[event["name"].removesuffix(_EVENT)].append(event)
        return [self._kernel(name, found, len(runs)) for name, found in events.items()]

    def _kernel(self, name: str, events: Sequence[Mapping[str, Any]], runs: int) -> Kernel:
        origin, arguments = self._origins[name], events[-1]["args"]
        sizes = ("activation_size", "parameter_size", "output_size")
        return Kernel(
            name,
            arguments["op_name"],
            origin.role,
            sum(event["dur"] for event in events) / runs,
            len(events) / runs,
            origin.ops,
            tuple(map(_text, arguments.get("input_type_shape", ()))),
            tuple(map(_text, arguments.get("output_type_shape", ()))),
            sum(int(arguments.get(size, 0)) for size in sizes),
            arguments.get("provider", "CPUExecutionProvider").removesuffix("ExecutionProvider"),
        )


def _runs(events: Sequence[Mapping[str, Any]], known: Mapping[str, Any]) -> list[_Run]:
    """The events of each inference; those of ops inside loops and branches are part of the op around them."""
    runs: list[_Run] = []
    waiting: list[Mapping[str, Any]] = []
    for event in sorted((e for e in events if "dur" in e), key=lambda e: (e["ts"] + e["dur"], -e["dur"])):
        if event["name"].endswith(_EVENT) and event["name"].removesuffix(_EVENT) in known:
            waiting.append(event)
        elif event["name"] == "model_run":
            runs.append(_Run(float(event["dur"]), tuple(sorted(waiting, key=lambda e: float(e["ts"])))))
            waiting = []
    return runs


def _text(typed: Mapping[str, Sequence[int]]) -> str:
    """Type and shape of an operand: {"float": [1, 64]} as "float32[1, 64]"."""
    return ", ".join(f"{_NUMPY_NAMES.get(kind, kind)}{list(shape)}" for kind, shape in typed.items())


@contextmanager
def profiled(model: OnnxModel, deployed: OnnxModel, *, threads: int) -> Iterator[Profiler]:
    """A profiler of the model as production runs it, or as it is written.

    Args:
        model: the model as it is written.
        deployed: the same after all of ONNX Runtime's optimization, or the model itself.
        threads: 0 means ONNX Runtime's own choice.
    """
    folder = TemporaryFolder()
    found = origins(graph_of(model), graph_of(deployed))
    profiler = Profiler(deployed, production_options(threads, "ORT_DISABLE_ALL"), folder, found)
    try:
        yield profiler
    finally:
        profiler.close()


def multiply_adds(model: OnnxModel, inputs: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """How many multiply-adds each op makes for these inputs, from the shapes that it has when they run through."""
    graph = graph_of(model)
    everything = {op.name: Origin("compute", (op.name,)) for op in graph.ops}
    options = production_options(0, "ORT_DISABLE_ALL")
    profiler = Profiler(model, options, TemporaryFolder(), everything)
    try:
        profiler.run(inputs)
    finally:
        profiler.close()
    _, kernels = profiler.finish()
    return {kernel.name: _multiply_adds(graph.by_name[kernel.name], kernel) for kernel in kernels}


def _shape(typed: str) -> tuple[int, ...]:
    return tuple(json.loads(typed[typed.index("[") :]))


def _multiply_adds(op: Op, kernel: Kernel) -> int:  # noqa: PLR0911 - a line for each kind of op
    """Of an op as it is written; 0 where products are not what it is about."""
    inputs, outputs = list(map(_shape, kernel.inputs)), list(map(_shape, kernel.outputs))
    if not inputs or not outputs:
        return 0
    count = round(kernel.calls)
    match op.op_type:
        case "Conv":
            return count * math.prod(outputs[0]) * math.prod(inputs[1][1:])
        case "ConvTranspose":
            return count * math.prod(inputs[0]) * math.prod(inputs[1][1:])
        case "MatMul":
            return count * math.prod(outputs[0]) * inputs[0][-1]
        case "Gemm":
            return count * math.prod(outputs[0]) * inputs[0][0 if op.attributes.get("transA") else -1]
        case "LSTM" | "GRU" | "RNN":
            steps_and_batch = math.prod(inputs[0][:2])
            return count * steps_and_batch * (math.prod(inputs[1]) + math.prod(inputs[2]))
        case "MultiHeadAttention" | "Attention":
            *batch, length, _ = inputs[0]
            across = inputs[1][1] if op.op_type == "MultiHeadAttention" and len(inputs) > 1 else length
            return count * 2 * math.prod(batch) * length * across * outputs[0][-1]
    return 0
