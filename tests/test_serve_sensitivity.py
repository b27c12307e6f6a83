"""What the server answers about the effect of ops on the output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from starlette.testclient import TestClient

import quantscope
from conftest import convolutions, images
from quantscope.runfile import RunFile
from quantscope.serve import api
from quantscope.serve.app import application
from quantscope.serve.workspace import Workspace
from quantscope.workflows.ranking import sensitivity


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of a measurement and a search that measured too."""
    place = tmp_path_factory.mktemp("workspace")
    model, data = place / "model.onnx", place / "samples.npz"
    onnx.save(convolutions(), str(model))
    np.savez(data, x=images(24))
    sensitivity(str(model), data=str(data), run=place / "effects.qscope", samples=8)
    quantscope.tune(
        model, data=str(data), run=place / "search.qscope", metric="cosine", max_drop=1e-7, most_trials=4, moves=()
    )
    return place


@pytest.fixture(scope="module")
def client(folder: Path) -> TestClient:
    return TestClient(application(Workspace(folder), None, folder))


def answer(client: TestClient, name: str) -> api.Sensitivities:
    response = client.get(f"/api/runs/{name}/sensitivity")
    assert response.status_code == 200, response.text
    return api.Sensitivities.model_validate_json(response.content)


def test_a_measurement_shows_what_each_op_does(client: TestClient, folder: Path) -> None:
    with RunFile.read(folder / "effects.qscope") as run:
        written = run.about("sensitivities")
    found = answer(client, "effects")
    assert found.finished
    assert (found.by, found.damage, found.samples) == ("op", written["damage"], written["samples"])
    assert [(row.op, row.alone, row.best_rank) for row in found.rows] == [
        (row["op"], row["alone"], row["best_rank"]) for row in written["ops"]
    ]
    assert client.get("/api/runs/effects/graphs/reference").status_code == 200
    assert client.get("/api/runs/effects/rows").json()["op"] == []
    assert client.get("/api/runs/search/sensitivity").status_code == 404


def test_a_measurement_that_goes_on_shows_what_it_has_got_to(client: TestClient, folder: Path) -> None:
    with RunFile.read(folder / "effects.qscope") as run:
        measured = run.about("measured")
    few = dict(list(measured.items())[:2])
    with RunFile.create(
        folder / "cut.qscope", kind="sensitivity", asked={"most_ops": 64, "by": "op"}, measured=few
    ) as run:
        found = answer(client, "cut")
        run.write_about(measured={})
        assert answer(client, "cut").rows == []
    assert not found.finished
    assert [row.alone for row in found.rows] == pytest.approx(
        sorted((np.mean(m["alone"]) for m in few.values()), reverse=True)
    )
    assert all(row.best_rank is None and row.alone_low is None for row in found.rows)


def test_a_search_shows_what_each_op_does(client: TestClient, folder: Path) -> None:
    found = api.Trials.model_validate_json(client.get("/api/runs/search/trials").content)
    with RunFile.read(folder / "search.qscope") as run:
        written = run.about("sensitivities")
    assert written is not None
    assert found.sensitivities is not None
    assert [row.op for row in found.sensitivities.rows] == [row["op"] for row in written["ops"]]
