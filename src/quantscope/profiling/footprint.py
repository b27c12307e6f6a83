"""How much memory a model takes: measured in a process of its own, in which nothing else has been loaded.

That process runs this module: `python -m quantscope.profiling.footprint MODEL INPUTS THREADS OPTIMIZED` prints the
bytes; OPTIMIZED is 0 or 1.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from quantscope.backends.base import Backend, Model
from quantscope.backends.registry import backend_for
from quantscope.profiling.inputs import Inputs

# Linux counts in KiB, macOS in bytes.
_UNIT = 1 if sys.platform == "darwin" else 1024
_RUNS = 2


def peak_memory(backend: Backend, model: Model, inputs: Inputs, threads: int, optimized: bool) -> int | None:
    """Return how many bytes loading the model and running it takes at most; None if it cannot be measured.

    Args:
        backend: the model's.
        model: a model; one that is no file is written to a temporary one.
        inputs: what it is fed.
        threads: as in production.
        optimized: False without the framework's own optimization.
    """
    with tempfile.TemporaryDirectory(prefix="quantscope-memory-") as folder:
        path = model.path
        if path is None:
            path = Path(folder) / f"model{backend.suffix}"
            backend.save(model, path)
        arrays = Path(folder) / "inputs.npz"
        np.savez(arrays, **inputs)  # type: ignore[arg-type]
        command = [sys.executable, "-m", __name__, str(path), str(arrays), str(threads), str(int(optimized))]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(found.stdout) if found.returncode == 0 else None


def _highest() -> int:
    """The most memory that this process has held, in bytes."""
    try:
        # getrusage counts what the process that started this one held, too.
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _measure(path: str, arrays: str, threads: int, optimized: bool) -> int:
    with np.load(arrays) as loaded:
        inputs = dict(loaded)
    backend = backend_for(path)
    before = _highest()
    with backend.deploy(Path(path), threads=threads, optimized=optimized) as runner:
        for _ in range(_RUNS):
            runner.run(inputs)
    return _highest() - before


if __name__ == "__main__":
    sys.stdout.write(str(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1")))
