"""A profile of two models made from ONNX Runtime's own traces, for tests and pictures of views.

Its numbers were measured and add up, but in a few dozen inferences on whatever else this machine does: they test the
views of a profile, not the measuring of one.
"""

from __future__ import annotations

import json
import resource
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from quantscope.backends.base import Kernel, KernelRole
from quantscope.backends.registry import backend_for
from quantscope.graph import Graph
from quantscope.profiling import (
    AddedTiming,
    Latency,
    LatencyComparison,
    ModelFacts,
    OpSide,
    OpTiming,
    Peak,
    Profile,
    Reason,
    Sums,
    Tried,
)
from quantscope.runfile import RunFile, graph_json

Feed = Mapping[str, NDArray[Any]]
ROLES: Mapping[str, KernelRole] = {
    "QuantizeLinear": "quantize", "DequantizeLinear": "dequantize", "ReorderInput": "layout", "ReorderOutput": "layout",
}  # fmt: skip
WARM, RUNS = 3, 12
PEAK = Peak(float_multiply_adds=4e10, int8_multiply_adds=8e10, signed_multiply_adds=8e10, bytes_per_second=1e10)


def write(path: Path, reference: Path, quantized: Path, feed: Feed) -> Profile:
    """Write a run file that holds the profile of a pair and nothing else, and return the profile."""
    made = profile(reference, quantized, feed)
    models = {"reference": reference, "quantized": quantized}
    facts = {side: graph_json(backend_for(model).load(model).graph) for side, model in models.items()}
    with RunFile.create(
        path,
        kind="profile",
        graph=facts["reference"],
        quantized_graph=facts["quantized"],
        models={side: {"path": str(model), "bytes": model.stat().st_size} for side, model in models.items()},
        environment=dict(made.environment),
    ) as run:
        run.write_about(profile=made.to_dict(), status="finished")
    return made


def profile(reference: Path, quantized: Path, feed: Feed) -> Profile:
    """The profile of a pair for one batch on one thread, with one reason that is made up."""
    graph = backend_for(reference).load(reference).graph
    traced = [_kernels(path, feed, graph) for path in (reference, quantized)]
    sides = [kernels for kernels, _ in traced]
    latencies = [_latencies(path, feed) for path in (reference, quantized)]
    ops = _ops(graph, sides)
    batch = len(next(iter(feed.values())))
    compared = _compared(batch, latencies)
    slowest = max((op for op in ops if op.quantized), key=lambda op: op.quantized.total_us if op.quantized else 0.0)
    assert slowest.quantized is not None
    first, second = latencies
    gain = slowest.quantized.total_us
    return Profile(
        batch=batch,
        threads=1,
        data="random values, made for a test",
        reference=_facts(reference, *traced[0], first),
        quantized=_facts(quantized, *traced[1], second),
        latencies=(compared,),
        ops=ops,
        added=_added(sides),
        peak=PEAK,
        reasons=(
            Reason(
                rule="test",
                ops=(slowest.name,),
                title=f"A reason for a test: {slowest.name} takes most of the time",
                evidence=f"{slowest.quantized.share:.0%} of the quantized model's time",
                change="nothing: this reason was made up to test how reasons are shown",
                cost_us=gain,
                tried=Tried(second.p50_us, second.p50_us - gain / 2, 1.25, 1.2, 1.31),
            ),
            Reason(
                rule="test-untried",
                ops=tuple(op.name for op in ops[1:4]),
                title="Another reason for a test, which nobody tried",
                evidence="the next three ops by time",
                change="nothing either",
                cost_us=gain / 10,
            ),
        ),
        notes=("the trace is of a few inferences: made for a test",),
        environment={"onnxruntime": ort.__version__},
    )


def _session(path: Path, trace: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _latencies(path: Path, feed: Feed) -> Latency:
    session = _session(path)
    wall, cpu = [], []
    for run in range(WARM + RUNS):
        began, spent = time.perf_counter(), time.process_time()
        session.run(None, dict(feed))
        if run >= WARM:
            wall.append((time.perf_counter() - began) * 1e6)
            cpu.append((time.process_time() - spent) * 1e6)
    p50, p90, p99 = np.percentile(wall, (50, 90, 99)).tolist()
    c50, c90, c99 = np.percentile(cpu, (50, 90, 99)).tolist()
    return Latency(p50, p90, p99, c50, c90, c99, len(next(iter(feed.values()))) * 1e6 / p50, RUNS)


def _compared(batch: int, latencies: Sequence[Latency]) -> LatencyComparison:
    first, second = latencies
    speedup = first.p50_us / second.p50_us
    return LatencyComparison(batch, 1, first, second, speedup, speedup * 0.97, speedup * 1.04, rounds=1)


def _kernels(path: Path, feed: Feed, graph: Graph) -> tuple[list[Kernel], float]:
    """The kernels of a model in the order in which they run, each with the ops of the reference that it is for; and
    the median inference with the trace, in µs.
    """
    walls = []
    with TemporaryDirectory() as folder:
        session = _session(path, Path(folder) / "trace")
        for _ in range(WARM + RUNS):
            began = time.perf_counter()
            session.run(None, dict(feed))
            walls.append((time.perf_counter() - began) * 1e6)
        events = json.loads(Path(session.end_profiling()).read_text())
    begins = sorted(event["ts"] for event in events if event["name"] == "model_run")[WARM]
    found: dict[str, list[Any]] = defaultdict(list)
    for event in sorted(events, key=lambda event: event["ts"]):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= begins:
            found[event["name"].removesuffix("_kernel_time")].append(event)
    # A kernel has the name of its op, or that of the tensor that it computes, either with something behind it.
    known = {name: op.name for op in graph.ops for name in (op.name, *op.outputs)}
    names = dict(sorted(known.items(), key=lambda item: -len(item[0])))
    kernels = [_kernel(name, runs, names) for name, runs in found.items()]
    # A change of type or layout is there for the kernel that comes after it.
    owner: tuple[str, ...] = ()
    for i in range(len(kernels) - 1, -1, -1):
        if kernels[i].role == "compute":
            owner = kernels[i].ops or owner
        elif owner:
            kernels[i] = Kernel(**{**kernels[i].__dict__, "ops": owner})
    return kernels, float(np.median(walls[WARM:]))


def _kernel(name: str, runs: Sequence[Any], names: Mapping[str, str]) -> Kernel:
    args = runs[0]["args"]
    op = next((op for known, op in names.items() if name.startswith(known)), None)
    role = ROLES.get(args["op_name"], "compute")
    sizes = sum(int(args[key]) for key in ("output_size", "parameter_size", "activation_size"))
    return Kernel(
        name=name,
        op_type=args["op_name"],
        role=role,
        us=float(np.median([run["dur"] for run in runs])) * len(runs) / RUNS,
        calls=len(runs) / RUNS,
        ops=(op,) if op and role == "compute" else (),
        inputs=_shapes(args["input_type_shape"]),
        outputs=_shapes(args["output_type_shape"]),
        bytes_moved=sizes,
    )


def _shapes(found: Sequence[Mapping[str, Sequence[int]]]) -> tuple[str, ...]:
    return tuple(f"{dtype}{list(shape)}" for each in found for dtype, shape in each.items())


def _rows(graph: Graph, sides: Sequence[Sequence[Kernel]]) -> dict[str, list[str]]:
    """The ops that run as one in either model, by the one with most of the work.

    An op that has no kernel is part of that of the op which it reads; a convolution without one, of that which reads
    it, since ONNX Runtime names a fused kernel by what it computes last.
    """
    row_of = {op.name: op.name for op in graph.ops}
    producer = {tensor: op for op in graph.ops for tensor in op.outputs}
    for side in sides:
        with_kernel = {op for kernel in side for op in kernel.ops}
        for op in graph.ops:
            for before in (producer[tensor] for tensor in op.inputs if tensor in producer):
                fused = before.op_type == "Conv" and before.name not in with_kernel
                if op.name not in with_kernel or fused:
                    old, new = row_of[op.name], row_of[before.name]
                    row_of = {name: new if row == old else row for name, row in row_of.items()}
                    break
    rows: dict[str, list[str]] = defaultdict(list)
    for name, row in row_of.items():
        rows[row].append(name)
    return rows


def _ops(graph: Graph, sides: Sequence[Sequence[Kernel]]) -> tuple[OpTiming, ...]:
    rows = _rows(graph, sides)
    known = {op.name: op for op in graph.ops}
    totals = [sum(kernel.us for kernel in side if kernel.ops) for side in sides]
    result = []
    for row, ops in rows.items():
        kernels = [[k for k in side if any(op in ops for op in k.ops)] for side in sides]
        if not any(kernels):
            continue
        work = max((_multiply_adds(k) for k in kernels[0] if k.role == "compute"), default=0)
        reference, quantized = (_side(k, total, work) for k, total in zip(kernels, totals, strict=True))
        speedup = reference.total_us / quantized.total_us if reference and quantized and quantized.total_us else None
        op = known[row]
        result.append(OpTiming(row, op.op_type, op.scope, tuple(ops), work, reference, quantized, speedup))
    result.sort(key=lambda op: -(op.quantized.total_us if op.quantized else 0.0))
    return tuple(result)


def _side(kernels: Sequence[Kernel], total: float, work: int) -> OpSide | None:
    if not kernels:
        return None
    us = sum(k.us for k in kernels if k.role == "compute")
    added = sum(k.us for k in kernels if k.role != "compute")
    moved = sum(k.bytes_moved for k in kernels)
    first = next((k for k in kernels if k.role == "compute"), kernels[0])
    dtype = first.inputs[0].partition("[")[0] if first.inputs else ""
    peak = PEAK.int8_multiply_adds if "int8" in dtype else PEAK.float_multiply_adds
    seconds = max(us + added, 1e-3) / 1e6
    return OpSide(
        us=us,
        added_us=added,
        total_us=us + added,
        share=(us + added) / total,
        cpu_us=us + added,
        accelerator_us=0.0,
        calls=sum(k.calls for k in kernels),
        defined=len(kernels),
        dtype=dtype,
        bytes_moved=moved,
        peak_share=work / max(us, 1e-3) * 1e6 / peak if work else None,
        bandwidth_share=moved / seconds / PEAK.bytes_per_second,
        kernels=tuple(kernels),
    )


def _multiply_adds(kernel: Kernel) -> int:
    """Of a convolution or a product of matrices, by its shapes; 0 for others."""
    if len(kernel.inputs) < 2 or not kernel.outputs:
        return 0
    left, weight, out = (
        json.loads(text[text.index("[") :]) for text in (kernel.inputs[0], kernel.inputs[1], kernel.outputs[0])
    )
    if "Conv" in kernel.op_type:
        return int(np.prod(out) * np.prod(weight[1:]))
    return int(np.prod(out) * left[-1]) if "MatMul" in kernel.op_type or "Gemm" in kernel.op_type else 0


def _added(sides: Sequence[Sequence[Kernel]]) -> tuple[AddedTiming, ...]:
    types = {(k.op_type, k.role): None for side in sides for k in side if k.role != "compute"}
    result = []
    for op_type, role in types:
        own = [[k for k in side if (k.op_type, k.role) == (op_type, role)] for side in sides]
        times = [sum(k.us for k in found) for found in own]
        result.append(AddedTiming(op_type, role, times[0], times[1], len(own[0]), len(own[1])))
    return tuple(result)


def _facts(path: Path, kernels: Sequence[Kernel], profiled: float, latency: Latency) -> ModelFacts:
    began = time.perf_counter()
    session = _session(path)
    loaded = (time.perf_counter() - began) * 1e3
    del session
    total = sum(kernel.us for kernel in kernels)
    named = sum(kernel.us for kernel in kernels if kernel.ops)
    return ModelFacts(
        path=str(path),
        bytes=path.stat().st_size,
        load_ms=loaded,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        sums=Sums(latency.p50_us, profiled, total, named / total),
    )
