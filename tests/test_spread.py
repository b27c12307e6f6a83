"""The same figures to the last bit, wherever the work is done and whoever dies while it is done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantscope
from conftest import images
from quantscope.errors import DataError, WorkerError
from quantscope.report.document import document
from quantscope.runfile import RunFile
from quantscope.tracing import shard_stop

COUNT = 90
# The last ones: all that was traced before waits for a process that is no more.
HELD = 80


class Slow:
    """Samples that come one by one, with time to kill somebody between them."""

    def __init__(self, seconds: float = 0.08) -> None:
        self.seconds = seconds
        self.x = np.random.default_rng(1).normal(0, 1, (COUNT, 3, 12, 12)).astype(np.float32)

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> Any:
        time.sleep(self.seconds)
        return self.x[i], np.array(i % 10)


def figures(diagnosis: quantscope.Diagnosis) -> dict[str, Any]:
    found = document(diagnosis)
    text = {key: repr(found[key]) for key in ("activations", "weights", "accuracy", "coverage", "skipped")}
    histograms = [
        (t.op, t.histogram.edges.tolist(), t.histogram.reference.tolist(), t.histogram.quantized.tolist())
        for t in diagnosis.tensors
        if t.histogram is not None
    ]
    return {**text, "histograms": histograms}


@pytest.fixture
def quantized(model: Path, tmp_path: Path) -> Path:
    quantscope.quantize(model, images(8), tmp_path / "int8.onnx")
    return tmp_path / "int8.onnx"


def diagnosed(model: Path, quantized: Path, **options: Any) -> quantscope.Diagnosis:
    return quantscope.diagnose(model, quantized, data=options.pop("data", Slow(0)), **options)


@contextmanager
def killing(run: Path, samples: int, victim: Any) -> Iterator[list[int]]:
    """Kill a process once a run has compared so many samples."""
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            time.sleep(0.02)
            if not run.exists() or run.stat().st_size == 0:
                continue
            with RunFile.read(run) as run_file:
                if run_file.samples_compared() < samples:
                    continue
            # Between two pools there is nobody, and who is there may be on the way out.
            with suppress(IndexError, ProcessLookupError):
                pid = victim()
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        thread.join()


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_shards_cover_all_samples_and_depend_on_nothing_else(batch_size: int) -> None:
    stops, position = [], 0
    while position < 200:
        stop = shard_stop(position, batch_size)
        assert stop > position
        assert (stop - position) % batch_size == 0
        assert all(shard_stop(inside, batch_size) == stop for inside in range(position, stop))
        stops.append(stop)
        position = stop
    assert stops[0] == batch_size, "the first rows come soon"
    assert max(np.diff(stops)) <= max(16, batch_size)


def test_processes_give_the_figures_of_one(model: Path, quantized: Path) -> None:
    alone = figures(diagnosed(model, quantized, trace="both"))
    assert figures(diagnosed(model, quantized, trace="both", workers=2)) == alone
    assert figures(diagnosed(model, quantized, trace="both", workers=3, threads=1)) == alone


class Held(Slow):
    """Samples of which one is not given out until a worker process was killed."""

    def __init__(self) -> None:
        super().__init__(0)
        self.killed = threading.Event()

    def __getitem__(self, i: int) -> Any:
        if i == HELD and not self.killed.is_set():
            deadline = time.monotonic() + 90
            while not multiprocessing.active_children() and time.monotonic() < deadline:
                time.sleep(0.02)
            multiprocessing.active_children()[0].kill()
            self.killed.set()
        return super().__getitem__(i)


def test_a_worker_process_that_dies_changes_no_figure(model: Path, quantized: Path, tmp_path: Path) -> None:
    samples = Held()
    found = diagnosed(model, quantized, data=samples, workers=2, run=tmp_path / "run.qscope")
    assert samples.killed.is_set()
    assert found.status == "finished"
    assert figures(found) == figures(diagnosed(model, quantized))
    assert not multiprocessing.active_children(), "no process is left behind"


def test_workers_that_keep_dying_end_the_run_with_one_message(model: Path, quantized: Path) -> None:
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.05):
            for child in multiprocessing.active_children():
                child.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with pytest.raises(WorkerError, match="died 4 times"):
            diagnosed(model, quantized, workers=2)
    finally:
        over.set()
        thread.join()


def started(stack: ExitStack, *arguments: str) -> subprocess.Popen[bytes]:
    process = stack.enter_context(
        subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    )
    stack.callback(process.kill)
    return process


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A real Dask scheduler and two worker processes: its address, and the workers."""
    distributed = pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    common = ("--scheduler-file", str(file), "--no-dashboard")
    with ExitStack() as stack:
        started(stack, "distributed.cli.dask_scheduler", "--port", "0", *common)
        workers = [
            started(
                stack, "distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1", "--death-timeout", "60",
                "--local-directory", str(tmp_path), *common,
            )
            for _ in range(2)
        ]  # fmt: skip
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with distributed.Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            address = client.scheduler.address
        yield address, workers


def test_a_cluster_that_loses_a_worker_gives_the_figures_of_one_process(
    model: Path, quantized: Path, tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, workers = cluster
    alone = figures(diagnosed(model, quantized))
    assert figures(diagnosed(model, quantized, scheduler=address)) == alone
    run = tmp_path / "run.qscope"
    with killing(run, 16, lambda: workers[0].pid) as killed:
        found = diagnosed(model, quantized, data=Slow(), scheduler=address, run=run)
    assert killed
    assert workers[0].wait() == -signal.SIGKILL
    assert workers[1].poll() is None
    assert figures(found) == alone


def test_without_a_scheduler_there_is_one_message(model: Path, quantized: Path) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(WorkerError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        diagnosed(model, quantized, scheduler="tcp://127.0.0.1:9")
    with pytest.raises(WorkerError, match="no Dask scheduler answers at nonsense"):
        diagnosed(model, quantized, scheduler="nonsense")


def test_workers_and_a_scheduler_together_are_refused(model: Path, quantized: Path) -> None:
    with pytest.raises(DataError, match="both 2 workers and the scheduler"):
        diagnosed(model, quantized, workers=2, scheduler="tcp://127.0.0.1:1")
    with pytest.raises(DataError, match="0 workers"):
        diagnosed(model, quantized, workers=0)
