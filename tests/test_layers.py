"""The import rules of the design, drawn from the code: arrows point down only, and frameworks are lazy guests."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import quantscope

ROOT = Path(quantscope.__file__).parent

# Each layer may import its own modules and those of the layers below it.
LAYERS = (
    {"errors"},
    {"graph", "qparams", "progress", "scopes", "memory", "plan"},
    {"machine", "recommendation"},
    {"quantized", "recipe", "recipe_file", "channel_axes", "grouping"},
    {"matching", "confirmation", "error_flow", "equalization"},
    {"statistics", "pairing", "samples", "sources", "binding", "images"},
    {"backends.base", "backends.extras"},
    {"backends.tensorflow"},
    {"backends.onnx", "backends.litert"},
    {"backends.registry"},
    {"calibration", "evaluation", "tracing", "spread", "conversions"},
    {"diagnosis", "accuracy", "fallback", "profiling", "saturation", "doctor"},
    {"output_error"},
    {"report", "runfile"},
    {"sweep", "weights", "attribution", "recorded"},
    {"workflows", "demo"},
    {"advice"},
    {"serve"},
    {"cli", "neural_compressor", "testing"},
)
# A backend sees the core types alone; a Diagnosis may show itself, which it does lazily.
BACKEND_MAY_IMPORT = {
    "equalization",
    "errors",
    "graph",
    "qparams",
    "quantized",
    "progress",
    "recipe",
    "scopes",
    "backends.base",
    "backends.extras",
    "backends.tensorflow",
}
LAZY_UPWARDS = {("diagnosis", "report")}


def unit(module: str) -> str:
    """The room a module belongs to: its top-level name, or two levels for backends."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "backends" else parts[0]


def imports() -> set[tuple[str, str]]:
    arrows = set()
    for path in ROOT.rglob("*.py"):
        relative = path.relative_to(ROOT).with_suffix("")
        module = ".".join(part for part in relative.parts if part != "__init__")
        if module in ("", "__main__", "backends"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                target = name.removeprefix("quantscope.")
                if name.startswith("quantscope.") and (
                    (ROOT / (target.replace(".", "/") + ".py")).exists() or (ROOT / target.replace(".", "/")).is_dir()
                ):
                    arrows.add((unit(module), unit(target)))
    return {(source, target) for source, target in arrows if target not in (source, "backends")}


def test_every_room_has_its_layer() -> None:
    known = set().union(*LAYERS)
    assert {source for source, _ in imports()} <= known
    assert {target for _, target in imports()} <= known


def test_no_arrow_points_up() -> None:
    height = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
    wrong = [arrow for arrow in sorted(imports() - LAZY_UPWARDS) if height[arrow[0]] < height[arrow[1]]]
    assert not wrong


def test_backends_see_the_core_types_alone() -> None:
    backends = {"backends.onnx", "backends.litert", "backends.tensorflow"}
    wrong = [(a, b) for a, b in sorted(imports()) if a in backends and b not in BACKEND_MAY_IMPORT]
    assert not wrong


def test_no_module_above_the_backends_names_a_framework() -> None:
    for path in ROOT.rglob("*.py"):
        if {"onnx", "litert", "tensorflow"} & set(path.relative_to(ROOT).parts):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {name.split(".")[0] for name in names} & {
                "onnx",
                "onnxruntime",
                "torch",
                "tensorflow",
                "keras",
                "ai_edge_litert",
                "ai_edge_quantizer",
            }, path


def test_importing_quantscope_and_its_command_line_imports_no_framework() -> None:
    heavy = ["onnx", "onnxruntime", "numpy", "numba", "pandas", "PIL", "sqlite3", "fastapi", "uvicorn", "cryptography"]
    code = f"import sys, quantscope, quantscope.cli; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_public_names_are_all_there() -> None:
    assert sorted(quantscope.__all__) == quantscope.__all__
    for name in quantscope.__all__:
        assert getattr(quantscope, name).__doc__
