"""Spreads work over processes on this machine, or shards over a Dask cluster; a worker that dies costs time alone."""

from __future__ import annotations

import multiprocessing
import pickle
import secrets
import signal
import socket
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from quantscope.backends.registry import backend
from quantscope.errors import QuantscopeError, UnsupportedError, WorkerError
from quantscope.samples import Batch
from quantscope.tracing import Job, Shard, Tracer, opened

# Shards that wait for each worker: one to work on, one to go on with at once.
_AHEAD = 2
_MOST_DEATHS = 3
_CONNECT_SECONDS = 10


Item = TypeVar("Item")
Result = TypeVar("Result")


def over_processes(task: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """What the task makes of each item, in order, by so many processes on this machine.

    A process that dies is replaced, and what it was given is done again. The task is sent to each process once.

    Raises:
        WorkerError: processes keep dying.
    """
    source, waiting, deaths = iter(items), deque[Item](), 0
    while True:
        with _pool(task, workers) as (pool, folder):

            def submitted(item: Item, pool: ProcessPoolExecutor = pool, folder: Path = folder) -> Future[str]:
                path = folder / secrets.token_hex(8)
                path.write_bytes(pickle.dumps(item))
                return pool.submit(_do_own, str(path))

            try:
                futures: deque[Future[str]] = deque(map(submitted, waiting))
                while True:
                    while len(waiting) < _AHEAD * workers and (item := next(source, None)) is not None:
                        waiting.append(item)
                        futures.append(submitted(item))
                    if not futures:
                        return
                    path = Path(futures[0].result())
                    result: Result = pickle.loads(path.read_bytes())
                    path.unlink()
                    futures.popleft()
                    waiting.popleft()
                    yield result
            except BrokenProcessPool as error:
                deaths += 1
                if deaths > _MOST_DEATHS:
                    raise WorkerError(
                        f"worker processes died {deaths} times, the last time without a message",
                        accepted="workers that find enough memory; a script that starts them under "
                        'if __name__ == "__main__":',
                        next_step="use fewer --workers, or a smaller --memory",
                    ) from error


@contextmanager
def _pool(task: Callable[[Any], Any], workers: int) -> Iterator[tuple[ProcessPoolExecutor, Path]]:
    """Processes that begin anew: a forked one would inherit the locks of ONNX Runtime's threads.

    All that is large goes through files in the folder: a process that dies while it reads or writes a pipe leaves the
    other end waiting for the rest. What is temporary is kept there too, so that nothing is left of one that was killed.
    """
    before = set(multiprocessing.active_children())
    with tempfile.TemporaryDirectory(prefix="quantscope-") as folder:
        path = Path(folder) / "task"
        path.write_bytes(pickle.dumps(task))
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (str(path),))
        try:
            yield pool, Path(folder)
        finally:
            # Nobody waits for what they are computing; and one that waits for the lock of a queue, which a killed one
            # took with it, would never end by itself.
            for process in set(multiprocessing.active_children()) - before:
                process.kill()
            pool.shutdown(cancel_futures=True)


_own_task: Callable[[Any], Any] | None = None


def _begin(path: str) -> None:
    """In a new process: remember the task. Ctrl-C is for the process that collects."""
    global _own_task  # noqa: PLW0603 - a worker process has one task for life
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = str(Path(path).parent)
    # Written by the process that started this one.
    _own_task = pickle.loads(Path(path).read_bytes())


def _do_own(path: str) -> str:
    """Do the task on the item in a file; returns the file of the result."""
    assert _own_task is not None
    item = pickle.loads(Path(path).read_bytes())
    Path(path).unlink()
    result = Path(f"{path}.result")
    result.write_bytes(pickle.dumps(_own_task(item)))
    return str(result)


class _Open:
    """The job that this process has open; several threads of a Dask worker share it."""

    lock = threading.Lock()
    job: Job | None = None
    tracer: Tracer | None = None
    stack = ExitStack()


def trace(job: Job, batches: list[Batch]) -> Shard:
    """Return the shard of these batches; the job's models stay open for the next one."""
    with _Open.lock:
        if _Open.job is not job or _Open.tracer is None:
            _Open.stack = ExitStack()
            _Open.tracer = _Open.stack.enter_context(opened(job))
            _Open.job = job
        tracer = _Open.tracer
    return next(tracer.shards(batches, job.comparisons, lambda batch: False))


def over_cluster(job: Job, groups: Iterable[list[Batch]], scheduler: str) -> Iterator[Shard]:
    """The shard of each group of batches, in order, traced by the workers of a Dask cluster.

    Dask gives what a dead worker was given to another one. Workers need quantscope installed, in the same version.

    Raises:
        UnsupportedError: Dask is not installed.
        WorkerError: there is no such scheduler, it has no workers, or they keep dying.
    """
    try:
        from distributed import Client
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise UnsupportedError(
            "a scheduler needs the package distributed", next_step="install it: pip install 'quantscope[dask]'"
        ) from error
    connect: Any = Client
    # Another machine does not see the files that weights are kept in here.
    job = replace(
        job,
        reference=backend(job.reference.backend).portable(job.reference),
        quantized=backend(job.quantized.backend).portable(job.quantized),
    )
    try:
        _reach(scheduler)
        client = connect(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise WorkerError(
            f"no Dask scheduler answers at {scheduler}",
            accepted="an address such as tcp://host:8786",
            next_step="start one: dask scheduler, and workers: dask worker ADDRESS",
        ) from error
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise WorkerError(
                f"the Dask scheduler at {scheduler} has no workers",
                next_step=f"start some where quantscope is installed: dask worker {scheduler}",
            )
        try:
            yield from _collected(client, job, groups, _AHEAD * threads)
        except (KilledWorker, CancelledError) as error:
            raise WorkerError(
                f"workers of {scheduler} died again and again while they traced one shard",
                accepted="workers that find enough memory",
                next_step="look at the worker's log, or use a smaller --memory",
            ) from error
        except QuantscopeError:
            raise
        except (ModuleNotFoundError, AttributeError, TypeError) as error:
            raise WorkerError(
                f"a worker of {scheduler} cannot do the work: {error}",
                accepted="workers with the same versions of quantscope and onnxruntime",
            ) from error


def _reach(scheduler: str) -> None:
    """Raise an OSError or a ValueError if nobody listens there: a client would go on trying in the background."""
    protocol, _, place = scheduler.rpartition("://")
    if protocol in ("", "tcp", "tls"):
        host, _, port = place.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS):
            pass


def _collected(client: Any, job: Job, groups: Iterable[list[Batch]], ahead: int) -> Iterator[Shard]:
    def submitted(group: list[Batch]) -> Any:
        with warnings.catch_warnings():
            # Samples travel with their task: scattered ones would be lost with the worker that holds them.
            warnings.filterwarnings("ignore", message="Sending large graph")
            return client.submit(trace, shared, group, pure=False, retries=_MOST_DEATHS)

    shared = client.scatter(job, broadcast=True, hash=False)
    source, waiting, losses = iter(groups), deque[tuple[list[Batch], Any]](), 0
    while True:
        while len(waiting) < ahead and (group := next(source, None)) is not None:
            waiting.append((group, submitted(group)))
        if not waiting:
            return
        try:
            shard = waiting[0][1].result()
        except CancelledError:
            # A worker died with a result, or with its copy of the job, while it was being fetched.
            losses += 1
            if losses > _MOST_DEATHS:
                raise
            shared = client.scatter(job, broadcast=True, hash=False)
            waiting = deque((group, submitted(group)) for group, _ in waiting)
            continue
        yield shard
        waiting.popleft()
