"""`benchmark.fit` of Neural Compressor 2.x: latency and throughput of a model, and with `diagnosis` its time per op."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from quantscope.backends.base import Backend, Model
from quantscope.backends.registry import backend_for
from quantscope.binding import chunk_of, fitted
from quantscope.errors import DataError, UnsupportedError
from quantscope.neural_compressor import limits, loaders
from quantscope.neural_compressor.config import BenchmarkConfig
from quantscope.neural_compressor.model import QuantizedModel, as_given_to_user
from quantscope.neural_compressor.profiling import profiled, show
from quantscope.profiling import Latency, Profile
from quantscope.profiling.inputs import Inputs
from quantscope.profiling.latency import Times


@dataclass(frozen=True)
class Benchmark:
    """What was measured: times of a batch, the mean time of a sample, samples per second, and the profile.

    `latency` has the percentiles for a batch. All but the profile are None where a `b_func` did the measuring; the
    profile is there with `diagnosis`.
    """

    batch_size: int | None = None
    latency: Latency | None = None
    latency_ms: float | None = None
    throughput: float | None = None
    profile: Profile | None = None


def fit(
    model: object,
    conf: BenchmarkConfig | None = None,
    b_dataloader: Any = None,
    b_func: Callable[[Any], Any] | None = None,
    config: BenchmarkConfig | None = None,
) -> Benchmark:
    """Return how fast the model is, and print it as Neural Compressor does.

    The model runs alone, in this process: the script is not started again for it.

    Args:
        model: the path of an ONNX model, a `ModelProto`, or what `quantization.fit` returned.
        conf: how to measure; `config` is another name of it.
        b_dataloader: gives batches (inputs, labels).
        b_func: gets a `ModelProto` (a path above 2 GB), and measures by itself; nothing is printed then.
    Raises:
        QuantscopeError: one of its subclasses, with what is accepted instead. What `b_func` raises comes through.
    """
    conf = conf if conf is not None else config
    if not isinstance(conf, BenchmarkConfig):
        raise DataError(f"conf is {type(conf).__name__}", accepted="quantscope.neural_compressor.BenchmarkConfig")
    limits.check_benchmark(conf)
    if b_dataloader is None and b_func is None:
        raise DataError("neither b_dataloader nor b_func is given", accepted="one of them")
    given = model.model if isinstance(model, QuantizedModel) else model
    backend = backend_for(given)
    loaded = backend.load(given)
    loader = loaders.checked(b_dataloader, "b_dataloader") if b_dataloader is not None else None
    profile = None
    if conf.diagnosis and loader is None:
        what = "diagnosis=True changes nothing here: there is no b_dataloader to profile with"
        warnings.warn(what, limits.CompatibilityWarning, stacklevel=2)
    elif conf.diagnosis:
        profile = profiled(given, loaded, loader, _size(loaded, loader), conf)
        show(profile)
    if b_func is not None:
        with as_given_to_user(loaded) as handed:
            b_func(handed)
        return Benchmark(profile=profile)
    measured = replace(_measured(backend, loaded, loader, conf), profile=profile)
    _show(measured, conf.warmup)
    return measured


def _measured(backend: Backend, model: Model, loader: Any, conf: BenchmarkConfig) -> Benchmark:
    """Time `conf.iteration` batches, or those of the loader once, after `conf.warmup` that do not count."""
    times, samples = Times(), 0
    with backend.deploy(model, threads=conf.threads) as runner:
        for inputs, _ in islice(_repeated(model, loader), conf.warmup):
            runner.run(inputs)
        counted = _batches(model, loader) if conf.iteration < 0 else islice(_repeated(model, loader), conf.iteration)
        for inputs, size in counted:
            wall, cpu = time.perf_counter(), time.process_time()
            runner.run(inputs)
            times.wall.append(time.perf_counter() - wall)
            times.cpu.append(time.process_time() - cpu)
            samples += size
    batch_size = _size(model, loader)
    seconds = sum(times.wall) / samples
    return Benchmark(batch_size, times.latency(batch_size), seconds * 1e3, 1 / seconds)


def _show(measured: Benchmark, warmup: int) -> None:
    """Print it in Neural Compressor's words, which scripts may look for, and the percentiles."""
    from quantscope.report.terminal import console

    assert measured.latency is not None
    latency, out = measured.latency, console()
    times = ", ".join(
        f"{name} {us / 1e3:.3f} ms"
        for name, us in (("p50", latency.p50_us), ("p90", latency.p90_us), ("p99", latency.p99_us))
    )
    out.print("\nbenchmark result:")
    out.print(f"Batch size = {measured.batch_size}")
    out.print(f"Latency: {measured.latency_ms:.3f} ms")
    out.print(f"Throughput: {measured.throughput:.3f} images/sec")
    out.print(f"per batch: {times}; {latency.runs} runs after {warmup} to warm up")


def _batches(model: Model, loader: Any) -> Iterator[tuple[Inputs, int]]:
    """The batches as the model takes them, and how many samples each has.

    Raises:
        DataError: they do not fit the model, or there are none.
    """
    wanted, empty = model.graph.inputs, True
    for item in loader:
        empty = False
        batch = fitted(chunk_of(loaders.inputs_of(item, wanted), wanted, 0), wanted)
        yield dict(batch.arrays), batch.size
    if empty:
        raise DataError("b_dataloader gave no batch", accepted="at least one")


def _repeated(model: Model, loader: Any) -> Iterator[tuple[Inputs, int]]:
    while True:
        yield from _batches(model, loader)


def _size(model: Model, loader: Any) -> int:
    """How many samples a batch has: what the loader says, else as many as its first one."""
    own = getattr(loader, "batch_size", None)
    return own if isinstance(own, int) and own > 0 else next(_batches(model, loader))[1]


def __getattr__(name: str) -> Any:
    if name == "benchmark_with_raw_cmd":
        raise UnsupportedError(
            f"neural_compressor.benchmark.{name} has no equivalent in quantscope",
            accepted="fit",
            next_step="start the script several times, each on cores of its own, such as: taskset -c 0-3 python SCRIPT",
        )
    raise AttributeError(f"module 'quantscope.neural_compressor.benchmark' has no attribute {name!r}")
