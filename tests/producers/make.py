"""Makes the quantized models in `data/` with the tools that other people quantize their models with.

    python tests/producers/make.py NAME --models FOLDER --out tests/producers/data

NAME is one of the producers below, or `all`. FOLDER holds the float models `ppocrv2_cls.onnx` and `ppocrv4_rec.onnx`;
the tests leave both in `.cache/models`, out of the package rapidocr-onnxruntime 1.4.4 (Apache-2.0).

Every producer gets a virtual environment of its own with the versions pinned here, because no two of them agree on a
version of onnx, ONNX Runtime and numpy. The script itself runs in the project's environment. It brings the float model
to opset 17, renders the text lines that calibrate it, and starts `worker_NAME.py` in the producer's environment with
four arguments: the float model, the samples, the file to write, and the variant. Python 3.11 is what the pins are for
(neural-compressor 2.4 needs `distutils`, which Python 3.12 no longer has). AMD Quark compiles a library when it is
imported for the first time and needs a C++ compiler for that. Where PyPI is the only index, pip takes PyTorch with
CUDA; `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu` saves these gigabytes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import version_converter
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".cache"
OPSET = 17
MODELS = {"cls": ("ppocrv2_cls", 192), "rec": ("ppocrv4_rec", 160)}  # the file's name, the width of a text line


@dataclass(frozen=True)
class Producer:
    """A tool: what pip installs for it, and the models it makes."""

    requirements: tuple[str, ...]
    models: tuple[tuple[str, str], ...]  # the key in MODELS and the variant, which the worker knows


PRODUCERS = {
    "neural_compressor": Producer(
        (
            # The package imports the last three without declaring them.
            "neural-compressor==2.4.1", "onnx==1.16.2", "onnxruntime==1.18.1", "numpy==1.26.4",
            "packaging==26.4", "six==1.17.0", "setuptools==65.5.0",
        ),
        (("cls", "qdq"), ("cls", "qoperator"), ("rec", "qdq")),
    ),
    "nncf": Producer(
        ("nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.32.0", "numpy==2.4.6"),
        (("cls", "plain"), ("cls", "folded")),
    ),
    "quark": Producer(
        ("amd-quark==0.13", "onnx==1.22.0", "onnxruntime==1.22.1", "numpy==2.4.6", "torch==2.13.0"),
        (("cls", "xint8"), ("cls", "a8w8"), ("cls", "a16w8")),
    ),
    "aimet": Producer(
        ("aimet-onnx==2.42.0", "onnx==1.23.2", "onnxruntime==1.32.0", "numpy==2.4.6", "torch==2.13.0"),
        (("cls", "w8a8"), ("cls", "w4a16")),
    ),
    "modelopt": Producer(
        (
            # The extra [onnx] wants onnxruntime-gpu and CuPy; these are the rest of it.
            "nvidia-modelopt==0.47.0", "onnx==1.21.0", "onnxruntime==1.24.2", "numpy==2.4.6", "torch==2.13.0",
            "onnx-graphsurgeon==0.6.1", "onnxconverter-common==1.16.0", "onnxslim==0.1.98", "onnxscript==0.7.2",
            "polygraphy==0.53.6", "cppimport==26.4.17", "lief==1.0.0", "ml_dtypes==0.6.0",
        ),
        (("cls", "int8_fp16"),),
    ),
    "esp_ppq": Producer(
        ("esp-ppq==1.3.12", "onnx==1.19.1", "onnxruntime==1.32.0", "numpy==2.4.6", "torch==2.13.0"),
        (("cls", "trt_int8"),),
    ),
}  # fmt: skip


def text_lines(count: int, width: int) -> NDArray[Any]:
    """Rendered text as PP-OCR takes it."""
    font = ImageFont.load_default(30)
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(count):
        image = Image.new("RGB", (width, 48), "white")
        ImageDraw.Draw(image).text((8, 6), "".join(rng.choice(list("abcdefgh 0123"), width // 20)), "black", font)
        lines.append((np.asarray(image, np.float32)[..., ::-1] / 127.5 - 1).transpose(2, 0, 1))
    return np.stack(lines)


def environment(name: str, folder: Path) -> Path:
    """The interpreter of the producer's virtual environment, which is made if it is not there."""
    python = folder / name / "bin" / "python"
    done = folder / name / ".requirements"
    requirements = "\n".join(PRODUCERS[name].requirements)
    if not done.exists() or done.read_text() != requirements:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PRODUCERS[name].requirements], check=True)
        done.write_text(requirements)
    return python


def make(name: str, models: Path, out: Path, environments: Path) -> list[Path]:
    """Makes the producer's models; their files."""
    python = environment(name, environments)
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for key, variant in PRODUCERS[name].models:
        source, width = MODELS[key]
        file = out.resolve() / f"{name}_{key}_{variant}.onnx"
        # Producers leave logs and snapshots where they run.
        with tempfile.TemporaryDirectory() as folder:
            model, samples = Path(folder) / f"{source}.onnx", Path(folder) / "samples.npz"
            upgraded = version_converter.convert_version(onnx.load(str(models / f"{source}.onnx")), OPSET)
            upgraded.ir_version = 8  # the one of opset 17, which the older producers read
            onnx.save(upgraded, str(model))
            np.savez(samples, x=text_lines(8, width))
            worker = [str(python), str(HERE / f"worker_{name}.py"), str(model), str(samples), str(file), variant]
            # Quark compiles with the ninja of its environment, and ESP-PPQ walks through sets of strings.
            paths = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
            subprocess.run(worker, check=True, cwd=folder, env={**os.environ, "PATH": paths, "PYTHONHASHSEED": "0"})
        files.append(file)
    return files


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Makes quantized models with other tools.")
    parser.add_argument("name", choices=[*PRODUCERS, "all"])
    parser.add_argument("--models", type=Path, default=CACHE / "models", help="the folder of the float models")
    parser.add_argument("--out", type=Path, default=HERE / "data", help="the folder that gets the quantized models")
    parser.add_argument("--environments", type=Path, default=CACHE / "producers", help="the virtual environments")
    options = parser.parse_args()
    for name in PRODUCERS if options.name == "all" else [options.name]:
        for file in make(name, options.models, options.out, options.environments.resolve()):
            print(f"{file}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
