"""Every backend does what the Protocol says: one suite for all of them, and the table of what each can do."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import helper

from conftest import make_model
from quantscope.backends.base import Feature
from quantscope.backends.registry import backend, names
from quantscope.testing import CHECKS, Case, TinyNetwork, check_backend
from tflite import tiny

DOCS = Path(__file__).parent.parent / "docs"
NETWORK = TinyNetwork()
SAMPLES = NETWORK.samples(8)


def onnx_case(folder: Path) -> Case:
    nodes = [
        helper.make_node("Conv", ["x", "stem", "stem_bias"], ["c"], name="/stem/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="/stem/Relu"),
        helper.make_node("Conv", ["r", "body", "body_bias"], ["d"], name="/body/Conv"),
        helper.make_node("ReduceMean", ["d"], ["p"], name="/pool/ReduceMean", axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["p", "head", "head_bias"], ["scores"], name="/head/Gemm"),
    ]
    weights = {n: getattr(NETWORK, n) for n in ("stem", "stem_bias", "body", "body_bias", "head", "head_bias")}
    path = folder / "tiny.onnx"
    onnx.save(make_model(nodes, {"x": ["N", 3, 8, 8]}, {"scores": ["N", 5]}, weights), str(path))
    return Case(backend("onnx"), path, {"x": SAMPLES}, NETWORK.outputs(SAMPLES), NETWORK.multiply_adds)


def litert_case(folder: Path) -> Case:
    images = {"image": np.ascontiguousarray(SAMPLES.transpose(0, 2, 3, 1))}
    path = tiny(folder / "tiny.tflite")
    return Case(backend("litert"), path, images, NETWORK.outputs(SAMPLES), NETWORK.multiply_adds)


MAKERS: dict[str, Callable[[Path], Case]] = {"onnx": onnx_case, "litert": litert_case}


@pytest.fixture(scope="module", params=list(MAKERS))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name: str = request.param
    if missing := backend(name).missing():
        pytest.skip(f"the backend {name} is not installed; next step: {missing}")
    return MAKERS[name](tmp_path_factory.mktemp(name))


def test_the_table_in_the_docs_is_what_the_backends_say() -> None:
    module = runpy.run_path(str(DOCS / "frameworks.py"))
    page = (DOCS / "frameworks.md").read_text()
    assert module["with_table"](page) == page, "next step: python docs/frameworks.py"
    assert all(f"| {feature} |" in page for feature in get_args(Feature))


def test_every_backend_is_checked() -> None:
    assert set(MAKERS) == set(names())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_backend(case: Case, check: Callable[[Case, Path], None], tmp_path: Path) -> None:
    check(case, tmp_path)


def test_the_whole_suite_names_what_fails(case: Case, tmp_path: Path) -> None:
    wrong = Case(case.backend, case.path, case.inputs, case.outputs + 1, case.multiply_adds + 1)
    with pytest.raises(AssertionError) as caught:
        check_backend(wrong, tmp_path)
    failed = [
        line.partition(":")[0] for line in str(caught.value).splitlines() if line.partition(":")[0].isidentifier()
    ]
    assert {"float_values_are_right", "work_is_counted"} <= set(failed)
    assert "files_come_back" not in failed
