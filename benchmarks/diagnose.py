"""What a diagnosis costs: CPU seconds and peak memory beside plain inference and ONNX Runtime's own debugger.

    python benchmarks/diagnose.py --models FOLDER [--photos FOLDER] [--samples 8 64] [--only NAME]

FOLDER holds resnet50_v1.onnx, efficientnet_lite0.onnx and ppocrv4_rec.onnx; benchmarks/README.md says where they come
from. Every measurement is a process of its own, after one that fills the compiler's cache. CPU seconds are those of the
job: from after the imports, loading of models included, to the last result. Memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MEMORY_LIMIT_BYTES = 20 << 30


@dataclass(frozen=True)
class Case:
    """A model and how its samples are made."""

    input_name: str
    samples: Callable[[Path | None, int], NDArray[Any]]


def photos(preset: str) -> Callable[[Path | None, int], NDArray[Any]]:
    """Preprocessed photos; noise of the same shape without a folder of photos."""

    def make(folder: Path | None, count: int) -> NDArray[Any]:
        from quantscope import Preprocessing, Samples
        from quantscope.images import PRESETS

        if folder is None:
            return np.random.default_rng(0).normal(0, 50, (count, 3, 224, 224)).astype(np.float32)
        preprocessing = PRESETS.get(preset) or Preprocessing(resize=256, crop=224, mean=(127,), std=(128,))
        samples = Samples.of(folder, preprocessing=preprocessing)
        return np.concatenate([b.inputs["0"] for b in samples.batches(16, stop=count)])

    return make


def text_lines(folder: Path | None, count: int) -> NDArray[Any]:
    """Rendered text lines as PP-OCR takes them."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(30)
    rng = np.random.default_rng(0)
    letters = "abcdefghijklmnopqrstuvwxyz 0123456789"
    lines = []
    for _ in range(count):
        image = Image.new("RGB", (320, 48), "white")
        ImageDraw.Draw(image).text((8, 6), "".join(rng.choice(list(letters), 18)), "black", font)
        lines.append((np.asarray(image, np.float32)[..., ::-1] / 127.5 - 1).transpose(2, 0, 1))
    return np.stack(lines)


CASES = {
    "resnet50_v1": Case("input", photos("imagenet-caffe")),
    "efficientnet_lite0": Case("input", photos("")),
    "ppocrv4_rec": Case("x", text_lines),
}


def floor(reference: str, quantized: str, data: str) -> None:
    """Plain inference of both models, one sample at a time, with ONNX Runtime's defaults."""
    import onnxruntime

    x = np.load(data, mmap_mode="r")
    for model in (reference, quantized):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # As in quantscope: idle threads that spin would be counted as work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        for i in range(len(x)):
            session.run(None, {name: x[i : i + 1]})


def quantscope_diagnose(reference: str, quantized: str, data: str) -> None:
    """All statistics and histograms of every paired tensor, weights, accuracy, and the run file."""
    import quantscope

    with tempfile.TemporaryDirectory() as folder:
        quantscope.diagnose(reference, quantized, data=data, run=Path(folder) / "run.qscope")


def debugger(reference: str, quantized: str, data: str) -> None:
    """onnxruntime.quantization.qdq_loss_debug: all activations of both models, matched, and both tables."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, qdq_loss_debug

    x = np.load(data, mmap_mode="r")
    name = onnx.load(reference).graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([{name: x[i : i + 1]} for i in range(len(x))])

        def get_next(self) -> Any:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder:
        activations = []
        for index, model in enumerate((reference, quantized)):
            exposed = f"{folder}/{index}.onnx"
            qdq_loss_debug.modify_model_output_intermediate_tensors(model, exposed)
            activations.append(qdq_loss_debug.collect_activations(exposed, Reader()))
        matching = qdq_loss_debug.create_activation_matching(activations[1], activations[0])
        qdq_loss_debug.compute_activation_error(matching)
        qdq_loss_debug.compute_weight_error(qdq_loss_debug.create_weight_matching(reference, quantized))


JOBS = {"floor": floor, "quantscope": quantscope_diagnose, "qdq_loss_debug": debugger}


def work(job: str, arguments: list[str]) -> None:
    """The measured process: import first, then count."""
    import onnxruntime
    import onnxruntime.quantization.qdq_loss_debug

    import quantscope.workflows  # noqa: F401

    onnxruntime.set_default_logger_severity(3)
    logging.disable(logging.ERROR)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT_BYTES, _MEMORY_LIMIT_BYTES))
    before, wall = time.process_time(), time.monotonic()
    JOBS[job](*arguments)
    seconds = time.process_time() - before
    print(json.dumps({"cpu_s": seconds, "wall_s": time.monotonic() - wall, "peak_mib": peak_mib()}))


def peak_mib() -> float:
    """The process's peak memory; getrusage would count that of the process it was forked from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def measure(job: str, *arguments: str) -> dict[str, float] | str:
    """One measurement, or the reason why there is none."""
    result = subprocess.run(
        [sys.executable, __file__, "--work", job, *arguments], capture_output=True, text=True, check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")},
    )  # fmt: skip
    if result.returncode == 0:
        found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
        return found
    last = (result.stderr.strip() or f"killed by signal {-result.returncode}").splitlines()[-1]
    return "out of memory" if "alloc" in last.lower() or "Memory" in last or result.returncode < 0 else last[:60]


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--samples", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--only", choices=list(CASES))
    parser.add_argument("--repeat", type=int, default=3, help="the median of so many measurements")
    parser.add_argument("--skip-rival", action="store_true")
    arguments = parser.parse_args()
    print("| model | samples | job | CPU s | × floor | wall s | peak MiB |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in [arguments.only] if arguments.only else CASES:
            benchmark(name, arguments, Path(folder))


def benchmark(name: str, arguments: argparse.Namespace, folder: Path) -> None:
    """All jobs on one model."""
    import quantscope

    case, reference, quantized = CASES[name], arguments.models / f"{name}.onnx", folder / f"{name}.int8.onnx"
    x = case.samples(arguments.photos, max(arguments.samples))
    quantscope.quantize(reference, {case.input_name: x[:8]}, quantized, calibration_samples=4)
    for count in arguments.samples:
        data = folder / f"{name}-{count}.npy"
        np.save(data, np.tile(x, (-(-count // len(x)), 1, 1, 1))[:count])
        base = 0.0
        for job in JOBS:
            if job == "qdq_loss_debug" and arguments.skip_rival:
                continue
            runs = [measure(job, str(reference), str(quantized), str(data)) for _ in range(arguments.repeat)]
            good = [run for run in runs if not isinstance(run, str)]
            if not good:
                print(f"| {name} | {count} | {job} | {runs[0]} | | | |", flush=True)
                continue
            cpu, wall = (float(np.median([run[key] for run in good])) for key in ("cpu_s", "wall_s"))
            peak = float(np.median([run["peak_mib"] for run in good]))
            base = cpu if job == "floor" else base
            print(f"| {name} | {count} | {job} | {cpu:.2f} | {cpu / base:.2f} | {wall:.2f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], sys.argv[3:])
    else:
        main()
