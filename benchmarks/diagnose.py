"""What a diagnosis costs: CPU seconds and peak memory beside plain inference and the rivals' own diagnoses.

    python benchmarks/diagnose.py --models FOLDER [--photos FOLDER] [--neural-compressor PYTHON] [--samples 8 64 512]

benchmarks/README.md says where the models in FOLDER and the environment of PYTHON come from. Every measurement is a
process of its own, after one that fills the compiler's cache, and the jobs take turns, so that a machine that slows
down slows all of them. CPU seconds are those of the job: from after the imports, loading of models included, to the
last result. Memory is the process's peak; it counts the samples' own file, which is mapped and has a column of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import neural_compressor_diagnosis
import numpy as np
from cases import CASES, write
from jobs import JOBS, NEURAL_COMPRESSOR

_MEMORY_LIMIT_GIB = 20
# For quantizing and for the first runs, which are not measured.
_FEW_SAMPLES = 8
# More samples repeat these: what a diagnosis costs does not depend on what they show.
_DISTINCT_SAMPLES = 64
_ERROR_LENGTH = 300


@dataclass(frozen=True)
class Contender:
    """A job on a pair of models, in the environment that it needs; or why there is no such pair."""

    job: str
    label: str
    python: str
    reference: Path
    quantized: Path
    failure: str = ""


def work(name: str, paths: list[str]) -> None:
    """The measured process: import first, then count."""
    job = JOBS[name]
    for module in job.imports:
        importlib.import_module(module)
    importlib.import_module("onnxruntime").set_default_logger_severity(3)
    logging.disable(logging.ERROR)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT_GIB << 30, _MEMORY_LIMIT_GIB << 30))
    before, wall = time.process_time(), time.monotonic()
    try:
        job.run(*paths)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}".splitlines()[0]}))
        return
    seconds = time.process_time() - before
    print(json.dumps({"cpu_s": seconds, "wall_s": time.monotonic() - wall, "peak_mib": peak_mib()}))


def peak_mib() -> float:
    """The process's peak memory; getrusage would count that of the process it was forked from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def start(python: str, *arguments: str, limit: float | None = None) -> subprocess.CompletedProcess[str]:
    """A process of one of the environments, in a folder for what it leaves behind."""
    variables = {**os.environ, "PYTHONHASHSEED": "0"}
    if python == sys.executable:
        # A setting for old versions of OpenBLAS slows the one of a current numpy.
        variables = {name: value for name, value in variables.items() if not name.startswith("OPENBLAS")}
    else:
        variables.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as folder:
        command = [python, *arguments]
        try:
            return subprocess.run(
                command, capture_output=True, text=True, check=False, env=variables, cwd=folder, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 1, "", f"stopped after {limit:.0f} s")


def measure(contender: Contender, data: Path, rival_limit: float) -> dict[str, float] | str:
    """One measurement, or the reason why there is none."""
    paths = [str(path) for path in (contender.reference, contender.quantized, data)]
    limit = rival_limit if JOBS[contender.job].rival else None
    result = start(contender.python, str(Path(__file__).resolve()), "--work", contender.job, *paths, limit=limit)
    found: dict[str, Any] = {"error": death(result)}
    if result.returncode == 0:
        found = json.loads(result.stdout.splitlines()[-1])
    if "error" not in found:
        return found
    error: str = found["error"][:_ERROR_LENGTH].replace("|", "/")
    memory = "MemoryError" in error or "alloc" in error.lower()
    return f"out of memory at {_MEMORY_LIMIT_GIB} GiB ({error})" if memory else f"fails: {error}"


def death(result: subprocess.CompletedProcess[str]) -> str:
    """Why a process ended early: its signal, and the first line of its last error or else its last words."""
    lines = result.stderr.strip().splitlines() or ["no message"]
    words = next((line for line in reversed(lines) if re.match(r"[\w.]+(Error|Exception|Fail): ", line)), lines[-1])
    return f"{signal.Signals(-result.returncode).name}: {words}" if result.returncode < 0 else words


def neural_compressor_version(python: str | None) -> str | None:
    """The version in the environment of this Python; without a usable one a line says why it is left out."""
    if python is None:
        reason = "--neural-compressor PYTHON is not given"
    elif not Path(python).is_file():
        reason = f"{python} is no file"
    else:
        modules = ", ".join(neural_compressor_diagnosis.IMPORTS)
        found = start(python, "-c", f"import {modules}; print(neural_compressor.__version__)")
        version = (found.stdout.split() or [""])[-1]
        if found.returncode == 0 and version.startswith("2."):
            return version
        reason = f"in the environment of {python} it is version {version}, not 2"
        if found.returncode:
            reason = f"the environment of {python} does not import it: {death(found)}"
    print(f"{NEURAL_COMPRESSOR} is left out: {reason}", file=sys.stderr)
    return None


def neural_compressor_contender(
    version: str, arguments: argparse.Namespace, model: Path, calibration: Path, folder: Path
) -> Contender:
    """Neural Compressor's diagnosis of a pair that it makes itself, in the first layout that it does not fail in."""
    failures = []
    for layout in neural_compressor_diagnosis.LAYOUTS:
        target = folder / layout
        target.mkdir()
        label = f"{NEURAL_COMPRESSOR} {version}, its own {layout} pair, 1 sample only"
        pair = target / "float.onnx", target / "int8.onnx"
        contender = Contender(NEURAL_COMPRESSOR, label, arguments.neural_compressor, *pair)
        command = [str(Path(neural_compressor_diagnosis.__file__).resolve()), str(model), str(calibration), str(target)]
        made = start(contender.python, *command, layout, limit=arguments.rival_limit)
        tried = f"fails: {death(made)}" if made.returncode else measure(contender, calibration, arguments.rival_limit)
        if not isinstance(tried, str):
            return contender
        failures.append(f"its {layout} pair {tried}")
        print(f"{model.stem}: {NEURAL_COMPRESSOR}, {failures[-1]}", file=sys.stderr)
    return replace(contender, label=f"{NEURAL_COMPRESSOR} {version}", failure="; ".join(failures))


def benchmark(name: str, version: str | None, arguments: argparse.Namespace, folder: Path) -> None:
    """All jobs on one model."""
    import quantscope

    reference, quantized = arguments.models.resolve() / f"{name}.onnx", folder / f"{name}.int8.onnx"
    distinct = min(max(_FEW_SAMPLES, *arguments.samples), _DISTINCT_SAMPLES)
    x = CASES[name].samples(arguments.models, arguments.photos, distinct)
    few = write(x, _FEW_SAMPLES, folder / "few")
    quantscope.quantize(reference, few, quantized)
    contenders = [
        Contender(job, job, sys.executable, reference, quantized)
        for job in JOBS
        if job != NEURAL_COMPRESSOR and not (arguments.skip_rivals and JOBS[job].rival)
    ]
    for contender in contenders:
        if not JOBS[contender.job].rival:
            measure(contender, few, arguments.rival_limit)
    if version is not None:
        contenders.append(neural_compressor_contender(version, arguments, reference, few, folder))
    for count in arguments.samples:
        data = write(x, count, folder / "samples")
        outcomes: list[list[Any]] = [[contender.failure] if contender.failure else [] for contender in contenders]
        for _ in range(arguments.repeat):
            for contender, outcome in zip(contenders, outcomes, strict=True):
                if not any(isinstance(run, str) for run in outcome):
                    outcome.append(measure(contender, data, arguments.rival_limit))
        print_rows(f"| {name} | {count} | {data.stat().st_size / 2**20:.1f}", contenders, outcomes)


def print_rows(beginning: str, contenders: list[Contender], outcomes: list[list[Any]]) -> None:
    """A row for each contender: the medians of its measurements, or why it has none."""
    base = None
    for contender, outcome in zip(contenders, outcomes, strict=True):
        failure = next((run for run in outcome if isinstance(run, str)), None)
        if failure is not None:
            print(f"{beginning} | {contender.label} | {failure} | | | |", flush=True)
            continue
        cpu, wall, peak = (float(np.median([run[key] for run in outcome])) for key in ("cpu_s", "wall_s", "peak_mib"))
        base = cpu if contender.job == next(iter(JOBS)) else base
        ratio = f"{cpu / base:.2f}" if base else ""
        print(f"{beginning} | {contender.label} | {cpu:.2f} | {ratio} | {wall:.2f} | {peak:.0f} |", flush=True)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--photos", type=Path, help="a folder of photos; without it the models for photos get noise")
    parser.add_argument("--samples", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="MODEL")
    parser.add_argument("--repeat", type=int, default=3, help="the median of so many measurements")
    parser.add_argument(
        "--neural-compressor", type=os.path.abspath, metavar="PYTHON", help="of an environment with neural-compressor 2"
    )
    parser.add_argument("--rival-limit", type=float, default=600, metavar="SECONDS", help="for each run of a rival")
    parser.add_argument("--skip-rivals", action="store_true")
    arguments = parser.parse_args()
    version = None if arguments.skip_rivals else neural_compressor_version(arguments.neural_compressor)
    print("| model | samples | their MiB | job | CPU s | × floor | wall s | peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            benchmark(name, version, arguments, Path(folder))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], sys.argv[3:])
    else:
        main()
