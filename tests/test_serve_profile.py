"""What the server answers about a profile."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from starlette.testclient import TestClient

import quantscope
from conftest import BRIEFLY, convolutions, images, with_reasons
from quantscope.profiling import Profile
from quantscope.runfile import RunFile
from quantscope.serve import api
from quantscope.serve.app import application
from quantscope.serve.workspace import Workspace


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of a profile alone, a diagnosis with a profile, and one without."""
    place = tmp_path_factory.mktemp("workspace")
    model, data = place / "model.onnx", place / "samples.npz"
    onnx.save(convolutions(), str(model))
    np.savez(data, x=images(8))
    quantscope.diagnose(model, data=str(data), run=place / "plain.qscope")
    quantized = place / "plain.int8.onnx"
    profile = quantscope.profile(model, quantized, **BRIEFLY, run=place / "timed.qscope")
    quantscope.diagnose(model, quantized, data=str(data), run=place / "both.qscope")
    for name in ("timed", "both"):
        with RunFile.read(place / f"{name}.qscope") as run:
            run.write_about(profile=with_reasons(profile).to_dict())
    return place


@pytest.fixture(scope="module")
def client(folder: Path) -> TestClient:
    return TestClient(application(Workspace(folder), None, folder))


def written(folder: Path, name: str) -> Profile:
    """The profile as the run file holds it."""
    with RunFile.read(folder / f"{name}.qscope") as run:
        return Profile.from_dict(run.about("profile"))


def answer(client: TestClient, name: str) -> Any:
    response = client.get(f"/api/runs/{name}/profile")
    assert response.status_code == 200, response.text
    return api.Profile.model_validate_json(response.content)


@pytest.mark.parametrize("name", ["timed", "both"])
def test_a_profile_is_answered_as_it_was_written(client: TestClient, folder: Path, name: str) -> None:
    found, wanted = answer(client, name), written(folder, name)
    assert (found.batch, found.threads, found.data) == (wanted.batch, wanted.threads, wanted.data)
    assert found.latencies[0].speedup == wanted.latencies[0].speedup
    assert found.reference.sums.kernels_us == wanted.reference.sums.kernels_us
    assert [reason.title for reason in found.reasons] == [reason.title for reason in wanted.reasons]
    assert found.reasons[0].tried.model_dump() == dataclasses.asdict(wanted.reasons[0])["tried"]
    assert found.reasons[1].tried is None
    assert [added.quantized_us for added in found.added] == [added.quantized_us for added in wanted.added]
    assert found.ops.name == [op.name for op in wanted.ops]
    assert found.ops.ops == [list(op.ops) for op in wanted.ops]
    for side in ("reference", "quantized"):
        for column in api.OP_SIDE:
            sides = [getattr(op, side) for op in wanted.ops]
            missing = "" if column == "dtype" else None
            expected = [missing if op is None else getattr(op, column) for op in sides]
            assert getattr(found.ops, f"{side}_{column}") == expected, column


def test_kernels_are_answered_op_by_op(client: TestClient, folder: Path) -> None:
    wanted = written(folder, "timed").ops
    for index, op in enumerate(wanted):
        response = client.get(f"/api/runs/timed/profile/ops/{index}")
        found = api.OpKernels.model_validate_json(response.content)
        assert found.name == op.name
        for kernels, side in ((found.reference, op.reference), (found.quantized, op.quantized)):
            assert (kernels is None) == (side is None)
            for kernel, known in zip(kernels or (), side.kernels if side else (), strict=True):
                assert (kernel.name, kernel.role, kernel.us) == (known.name, known.role, known.us)
                assert (kernel.inputs, kernel.outputs) == (list(known.inputs), list(known.outputs))
    assert client.get(f"/api/runs/timed/profile/ops/{len(wanted)}").status_code == 404
    # The table is without them: of a large model they are most of a profile.
    assert '"kernels"' not in client.get("/api/runs/timed/profile").text


def test_a_run_says_whether_it_has_a_profile(client: TestClient) -> None:
    runs = {run["name"]: run for run in client.get("/api/runs").json()["runs"]}
    assert {name: run["has_profile"] for name, run in runs.items()} == {"timed": True, "both": True, "plain": False}
    assert runs["timed"]["kind"] == "profile"
    assert runs["timed"]["mode"] == "time against plain.int8.onnx"
    missing = client.get("/api/runs/plain/profile")
    assert missing.status_code == 404
    assert "quantscope profile" in missing.json()["next_step"]
    document = client.get("/api/runs/timed").json()
    assert (document["accuracy"], document["coverage"]) == ([], None)
    assert document["command"].split()[:2] == ["quantscope", "profile"]
    assert document["command"].endswith("plain.int8.onnx --batch 4,1 --threads 1 --time 0.5")
    assert client.get("/api/runs/timed/rows").json()["op"] == []


def test_what_json_cannot_say_is_said_as_everywhere(client: TestClient, folder: Path) -> None:
    values = json.loads(json.dumps(written(folder, "timed").to_dict()))
    values["reference"]["load_ms"] = math.nan
    values["peak"]["bytes_per_second"] = math.inf
    with RunFile.create(folder / "odd.qscope", kind="profile", profile=values):
        found = answer(client, "odd")
    (folder / "odd.qscope").unlink()
    assert found.reference.load_ms is None
    assert found.peak.bytes_per_second == "Infinity"


DAMAGE: dict[str, Any] = {
    "no object": 5,
    "a list": [{}],
    "a text": "profile",
    "nothing in it": {},
    "a field too many": {"batch": 1, "surprise": 2},
    "ops that are none": {"ops": [1]},
    "a time in words": {"batch": "four"},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_profile_is_an_error_about_that_run(client: TestClient, folder: Path, damage: str) -> None:
    part = DAMAGE[damage]
    whole = written(folder, "timed").to_dict()
    values = {**whole, **part} if isinstance(part, dict) and part else part
    with RunFile.create(folder / "bad.qscope", kind="profile", profile=values):
        answers = [client.get(f"/api/runs/bad/profile{part}") for part in ("", "/ops/0")]
        assert client.get("/api/runs/bad").status_code == 200
    (folder / "bad.qscope").unlink()
    for response in answers:
        assert response.status_code == 422
        assert "bad.qscope" in response.json()["message"]
        assert response.json()["next_step"]
