"""What a diagnosis of a LiteRT pair costs beside plain inference of both models, at 8 and at 64 samples.

    python benchmarks/litert.py FLOAT.tflite INT8.tflite SAMPLES.npz

Each job in a process of its own: CPU seconds from after the imports, and peak memory of the process. Prints the table
of docs/benchmarks.md. benchmarks/tensorflow_models.py makes models and samples.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

_JOB = """
import sys, time
from quantscope import workflows
from quantscope.backends.registry import backend_for
from quantscope.samples import Samples
job, reference, quantized, data, count = *sys.argv[1:5], int(sys.argv[5])
backend = backend_for(reference)
models = [backend.load(path) for path in (reference, quantized)]
began = time.process_time()
if job == "floor":
    samples = Samples.of(data).for_inputs(models[0].graph.inputs)
    for model in models:
        with backend.deploy(model, threads=0) as runner:
            for batch in samples.batches(1, stop=count):
                runner.run(batch.inputs)
else:
    budget = 0 if job == "without budgets" else None
    workflows.diagnose(reference, quantized, data=data, samples=count, budget_samples=budget, run=None)
status = open("/proc/self/status").read()
peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
print(time.process_time() - began, peak / 1024)
"""
_JOBS = {"floor": "floor", "without budgets": "quantscope --budget-samples 0", "diagnosis": "quantscope"}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("quantized", type=Path)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    print("| samples | job | CPU s | × floor | peak MiB |\n|---|---|---|---|---|")
    for count in (8, 64):
        floor = 0.0
        for job, name in _JOBS.items():
            files = map(str, (arguments.reference, arguments.quantized, arguments.data))
            command = [sys.executable, "-c", _JOB, job, *files, str(count)]
            found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            seconds, peak = float(found[-2]), float(found[-1])
            floor = floor or seconds
            print(f"| {count} | {name} | {seconds:.2f} | {seconds / floor:.2f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
