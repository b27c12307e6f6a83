"""What the server answers about real runs, live and offline."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnx
import pytest
from starlette.testclient import TestClient

import large_run
import quantscope
from conftest import convolutions, images, with_speeds
from quantscope import advice
from quantscope.errors import QuantscopeError
from quantscope.report.document import document
from quantscope.report.tables import strict
from quantscope.runfile import RunFile
from quantscope.serve import api
from quantscope.serve.app import application
from quantscope.serve.kept import Kept
from quantscope.serve.offline import page
from quantscope.serve.openapi import schema
from quantscope.serve.workspace import Workspace
from quantscope.workflows import open_run
from serving import Server, built, events, serving
from test_runs import SLOW_SAMPLES

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of two diagnoses and a search."""
    place = tmp_path_factory.mktemp("workspace")
    model, data = place / "model.onnx", place / "samples.npz"
    onnx.save(convolutions(), str(model))
    np.savez(data, x=images(24), labels=np.arange(24) % 10)
    quantscope.diagnose(model, data=str(data), run=place / "a.qscope")
    coarse = quantscope.Recipe.from_dict({"weights": {"granularity": "per_tensor"}, "activations": {"dtype": "int8"}})
    quantscope.diagnose(model, data=str(data), run=place / "b.qscope", recipe=coarse)
    quantscope.tune(model, data=str(data), run=place / "search.qscope", metric="cosine", max_drop=1e-7, most_trials=4)
    return place


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("built") / "web")


@pytest.fixture(scope="module")
def client(folder: Path, app: Path) -> TestClient:
    return TestClient(application(Workspace(folder), None, app))


def get(client: TestClient, address: str, model: Any) -> Any:
    """The answer, which must be what the schema says."""
    response = client.get(address)
    assert response.status_code == 200, response.text
    return model.model_validate_json(response.content)


def test_the_list_says_what_each_run_is(client: TestClient, folder: Path) -> None:
    runs = {run.name: run for run in get(client, "/api/runs", api.RunList).runs}
    assert set(runs) == {"a", "b", "search"}
    a = runs["a"]
    score = open_run(folder / "a.qscope").scores[0]
    assert a.accuracy is not None
    assert (a.accuracy.metric, a.accuracy.quantized, a.accuracy.low) == (score.metric, score.quantized, score.low)
    assert a.accuracy.ratio == pytest.approx(score.quantized / score.reference)
    assert (a.kind, a.status, a.reason, a.progress) == ("diagnose", "finished", "", None)
    assert a.mode == "uint8 activations, int8 weights per channel, minmax"
    assert runs["b"].mode == "int8 activations, int8 weights per tensor, minmax"
    assert a.reference_bytes == (folder / "model.onnx").stat().st_size
    assert a.quantized_bytes == (folder / "a.int8.onnx").stat().st_size
    assert runs["search"].kind == "tune"
    assert runs["search"].mode.startswith("search from ")


def test_the_document_is_that_of_the_command_line(client: TestClient, folder: Path) -> None:
    found = get(client, "/api/runs/a", api.RunDocument).model_dump()
    whole = strict(document(open_run(folder / "a.qscope")))
    for key in ("environment", "recipe", "coverage", "skipped", "trace", "notes", "samples", "first_not_finite"):
        assert found[key] == whole[key]
    assert found["op_types"] == [
        {"op_type": "Conv", "total": 2, "quantized": 2, "in_float": 0},
        {"op_type": "GlobalAveragePool", "total": 1, "quantized": 1, "in_float": 0},
        {"op_type": "MatMul", "total": 1, "quantized": 1, "in_float": 0},
    ]
    assert found["command"].startswith(f"quantscope diagnose {folder / 'model.onnx'} --data")
    assert "[weights]" in found["recipe_toml"]


@pytest.mark.parametrize("side", ["reference", "quantized"])
def test_a_graph_has_all_ops_edges_and_rows(client: TestClient, folder: Path, side: str) -> None:
    graph = get(client, f"/api/runs/a/graphs/{side}", api.Graph)
    model = onnx.load(folder / ("model.onnx" if side == "reference" else "a.int8.onnx"))
    assert graph.nodes.name == [node.name for node in model.graph.node]
    assert [graph.ops[i] for i in graph.nodes.op] == [node.op_type for node in model.graph.node]
    made = {name: i for i, node in enumerate(model.graph.node) for name in node.output}
    wanted = {(made[name], i, name) for i, node in enumerate(model.graph.node) for name in node.input if name in made}
    assert set(zip(graph.edges.src, graph.edges.dst, graph.edges.tensor, strict=True)) == wanted
    assert all(parent < i for i, parent in enumerate(graph.groups.parent))
    assert [port.tensor for port in graph.outputs] == ["logits"]
    rows = get(client, "/api/runs/a/rows", api.Rows)
    places = rows.node if side == "reference" else rows.quantized_node
    assert all(place >= 0 for place in places)
    for place, row in enumerate(graph.nodes.row):
        assert row == next((i for i, at in zip(rows.index, places, strict=True) if at == place), -1)


def test_a_node_tells_all_about_its_op(client: TestClient) -> None:
    node = get(client, "/api/runs/a/graphs/reference/nodes/0", api.Node)
    assert (node.name, node.op, node.scope) == ("/stem/conv/Conv", "Conv", "stem/conv")
    assert node.attributes == {"pads": [1, 1, 1, 1]}
    x, weight, _ = node.inputs
    assert (x.tensor, x.dtype, x.shape, x.constant, x.nodes) == ("x", "float32", ["N", 3, 12, 12], False, [])
    assert (weight.shape, weight.constant) == ([8, 3, 3, 3], True)
    assert node.outputs[0].nodes == [1]
    weights = {encoding.role: encoding for encoding in node.encodings}
    assert weights["weight"].dtype == "int8"
    assert weights["weight"].granularity == "per channel, axis 0"
    assert client.get("/api/runs/a/graphs/reference/nodes/6").status_code == 404


def test_rows_are_the_tables_of_the_run(client: TestClient, folder: Path) -> None:
    rows = get(client, "/api/runs/a/rows", api.Rows).model_dump()
    diagnosis = open_run(folder / "a.qscope")
    assert rows["op"] == [t.op for t in diagnosis.tensors]
    for column, side, name in (
        ("mse", None, "mse"),
        ("quantized_std", "quantized", "std"),
        ("reference_min", "reference", "min"),
    ):
        values = [getattr(getattr(t, side) if side else t, name) for t in diagnosis.tensors]
        assert rows[column] == strict(values)
    for t, *shares in zip(
        diagnosis.tensors, *(rows[f"budget_{part}"] for part in ("inherited", "residual")), strict=True
    ):
        assert shares == ([t.budget.inherited, t.budget.residual] if t.budget is not None else [None, None])


def counts(values: api.Counts | None) -> np.ndarray[Any, Any]:
    assert values is not None
    content = zlib.decompress(base64.b64decode(values.data))
    return np.frombuffer(content, f"<u{values.bytes_per_number}").reshape(values.shape)


def test_a_row_in_full_has_its_histogram_channels_and_budget(client: TestClient, folder: Path) -> None:
    rows = get(client, "/api/runs/a/rows", api.Rows)
    with RunFile.read(folder / "a.qscope") as run:
        for index in rows.index:
            details = get(client, f"/api/runs/a/rows/{index}", api.RowDetails)
            tensor = run.row(index)
            assert tensor is not None
            assert tensor.histogram is not None
            assert details.histogram is not None
            edges = details.histogram.first + details.histogram.width * np.arange(len(details.histogram.reference) + 1)
            np.testing.assert_array_equal(edges, tensor.histogram.edges)
            assert sum(details.histogram.reference) == tensor.reference.count
            if details.range is not None:
                assert details.range[1] - details.range[0] == pytest.approx(255 * tensor.scale)
            if tensor.channels is not None:
                assert details.channels is not None
                np.testing.assert_array_equal(
                    counts(details.channels.quantized_counts), tensor.channels.quantized_counts
                )
                np.testing.assert_allclose(details.channels.minimum, tensor.channels.minimum, rtol=1e-6)
            if tensor.budget is not None:
                assert details.budget is not None
                assert sum(details.budget.shares.values()) == pytest.approx(tensor.budget.mse)
    assert any(get(client, f"/api/runs/a/rows/{i}", api.RowDetails).channels for i in rows.index)
    assert client.get("/api/runs/a/rows/999").status_code == 404


def test_suggestions_come_with_every_form_of_the_patch(client: TestClient, folder: Path, tmp_path: Path) -> None:
    found = get(client, "/api/runs/b/suggestions", api.Suggestions)
    wanted = advice.advise(open_run(folder / "b.qscope"))
    assert [s.title for s in found.suggestions] == [s.title for s in wanted]
    assert bool(found.nothing) == (not wanted)
    recipe = open_run(folder / "b.qscope").recipe
    assert recipe is not None
    for suggestion, origin in zip(found.suggestions, wanted, strict=True):
        patched = tmp_path / "patched.toml"
        patched.write_text(suggestion.recipe_toml)
        assert quantscope.Recipe.load(patched) == origin.patch.applied(recipe)
        assert suggestion.command.startswith("quantscope diagnose")


def test_a_search_shows_its_trials(client: TestClient, folder: Path) -> None:
    found = get(client, "/api/runs/search/trials", api.Trials)
    with RunFile.read(folder / "search.qscope") as run:
        written = run.about("trials")
        best = run.about("search")["best"]
    assert [t.change for t in found.trials] == [t["change"] for t in written]
    assert [t.best for t in found.trials] == [i == best for i in range(len(written))]
    assert any(t.pareto for t in found.trials)
    assert get(client, "/api/runs/search/graphs/quantized", api.Graph).nodes.name
    assert client.get("/api/runs/a/trials").status_code == 404


def test_a_search_that_weighs_time_shows_it(client: TestClient, folder: Path) -> None:
    plain = get(client, "/api/runs/search/trials", api.Trials)
    assert plain.reference_us is None
    assert all(trial.speed is None and not trial.as_fast_as_best for trial in plain.trials)
    speedups = with_speeds(folder / "search.qscope", folder / "timed.qscope")
    found = get(client, "/api/runs/timed/trials", api.Trials)
    assert found.reference_us == 20_000
    for trial, speedup in zip(found.trials, speedups, strict=True):
        assert trial.speed is not None
        times = (20_000 / speedup, 20_000 / (speedup + 0.2), 20_000 / (speedup - 0.2))
        assert (trial.speed.us, trial.speed.low_us, trial.speed.high_us) == pytest.approx(times)
        assert trial.as_fast_as_best == (trial is found.trials[-2])
    assert found.trials[-1].best
    (folder / "timed.qscope").unlink()


def test_two_runs_side_by_side(client: TestClient) -> None:
    found = get(client, "/api/compare?a=a&b=b", api.Comparison).model_dump()
    for side, name in (("in_a", "a"), ("in_b", "b")):
        rows = get(client, f"/api/runs/{name}/rows", api.Rows).model_dump()
        place = {index: i for i, index in enumerate(rows["index"])}
        assert sorted(i for i in found[side]["index"] if i >= 0) == sorted(place)
        for i, index in enumerate(found[side]["index"]):
            if index >= 0:
                assert (rows["op"][place[index]], rows["role"][place[index]]) == (found["op"][i], found["role"][i])
                assert rows["mse"][place[index]] == found[side]["mse"][i]
    pairs = zip(found["in_a"]["sqnr_db"], found["in_b"]["sqnr_db"], found["difference"]["sqnr_db"], strict=True)
    for x, y, difference in pairs:
        assert difference == (pytest.approx(y - x) if None not in (x, y) else None)
    assert client.get("/api/compare?a=a&b=nothing").status_code == 404


def test_a_run_of_an_older_version_has_no_quantized_graph_and_says_so(client: TestClient, folder: Path) -> None:
    with RunFile.read(folder / "a.qscope") as run:
        kept = run.about("quantized_graph")
        run.write_about(quantized_graph=None)
    try:
        answer = client.get("/api/runs/a/graphs/quantized")
        assert answer.status_code == 404
        assert "holds no graph of the quantized model" in answer.json()["message"]
        assert get(client, "/api/runs/a/rows", api.Rows).quantized_node[0] == -1
    finally:
        with RunFile.read(folder / "a.qscope") as run:
            run.write_about(quantized_graph=kept)


def test_runs_are_tagged_renamed_and_deleted(tmp_path: Path, folder: Path, app: Path) -> None:
    (tmp_path / "a.qscope").write_bytes((folder / "a.qscope").read_bytes())
    (tmp_path / "taken.qscope").write_bytes((folder / "a.qscope").read_bytes())
    client = TestClient(application(Workspace(tmp_path), None, app))
    changed = client.patch("/api/runs/a", json={"tags": ["release 2", "  ", "release 2"]}).json()
    assert changed["tags"] == ["release 2"]
    assert client.patch("/api/runs/a", json={"name": "taken"}).status_code == 409
    for name in ("../b", "x/y", "..", " ", "a\nb", "n" * 200 + "é" * 100):
        assert client.patch("/api/runs/a", json={"name": name}).status_code in (409, 422), name
    assert client.patch("/api/runs/a", json={"name": "ö b.2"}).json()["name"] == "ö b.2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken.qscope", "ö b.2.qscope"]
    assert client.get("/api/runs/ö b.2").json()["summary"]["tags"] == ["release 2"]
    assert client.delete("/api/runs/ö b.2").status_code == 204
    assert client.delete("/api/runs/ö b.2").status_code == 404
    assert [run["name"] for run in client.get("/api/runs").json()["runs"]] == ["taken"]


def test_every_address_of_the_app_is_its_page(client: TestClient) -> None:
    for address in ("/", "/anything/else"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert '<div id="root">' in answer.text
        assert "script-src 'self';" in answer.headers["content-security-policy"]
    script = client.get("/assets/app-1.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "immutable" in script.headers["cache-control"]
    assert client.get("/api/nothing").status_code == 404


def test_the_schema_in_the_repository_is_the_servers() -> None:
    assert (ROOT / "frontend" / "openapi.json").read_bytes() == schema(), (
        "write it anew: python -m quantscope.serve.openapi frontend/openapi.json, then npm run types in frontend/"
    )


# Live.


def begin(folder: Path, function: str) -> subprocess.Popen[bytes]:
    (folder / "slow_samples.py").write_text(SLOW_SAMPLES)
    onnx.save(convolutions(), str(folder / "model.onnx"))
    command = [
        sys.executable, "-m", "quantscope", "diagnose", "model.onnx", "--data", f"slow_samples:{function}", "--run",
        "live.qscope",
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(stream: Iterator[dict[str, Any]], wanted: Any, seconds: float = 90) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    for event in stream:
        if event["kind"] == "run" and wanted(event["run"]):
            run: dict[str, Any] = event["run"]
            return run
        assert time.monotonic() < deadline
    raise AssertionError("the stream ended")


def test_a_run_appears_fills_and_is_seen_as_killed_without_asking_again(tmp_path: Path, app: Path) -> None:
    with serving(tmp_path, app) as server, server.client() as client, client.stream("GET", "/api/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = events(response)
        assert next(stream) == {"kind": "runs", "runs": []}
        process = begin(tmp_path, "batches")
        try:
            first = until(stream, lambda run: True)
            assert (first["name"], first["status"]) == ("live", "running")
            early = until(stream, lambda run: run["progress"] and run["progress"]["stage"] == "calibrate")
            assert early["progress"]["total"] == 50
            moving = until(stream, lambda run: run["progress"]["stage"] == "compare" and run["progress"]["rate"])
            assert moving["progress"]["total"] == 150
            assert moving["progress"]["seconds_left"] > 0
            filled = until(stream, lambda run: run["rows"] > 0 and run["accuracy"])
            assert len(client.get("/api/runs/live/rows").json()["op"]) >= filled["rows"]
            assert client.delete("/api/runs/live").status_code == 409
            assert client.patch("/api/runs/live", json={"name": "other"}).status_code == 409
            assert client.patch("/api/runs/live", json={"tags": ["seen"]}).json()["tags"] == ["seen"]
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        killed = until(stream, lambda run: run["status"] == "killed")
        assert f"its process, {process.pid}, is gone" in killed["reason"]
        assert killed["progress"]["rate"] is None
        assert client.delete("/api/runs/live").status_code == 204
        assert next(event for event in stream if event["kind"] == "removed") == {"kind": "removed", "name": "live"}


def test_a_failed_run_says_why(tmp_path: Path, app: Path) -> None:
    onnx.save(convolutions(), str(tmp_path / "model.onnx"))

    class Camera:
        def __len__(self) -> int:
            return 30

        def __getitem__(self, i: int) -> Any:
            if i == 25:
                raise QuantscopeError("the camera was unplugged")
            time.sleep(0.2)
            return images(1, i)[0], np.array(0)

    with pytest.raises(QuantscopeError):
        quantscope.diagnose(
            tmp_path / "model.onnx", data=Camera(), calibration_samples=2, run=tmp_path / "failed.qscope"
        )
    found = TestClient(application(Workspace(tmp_path), None, app)).get("/api/runs").json()["runs"]
    assert [(run["status"], run["reason"]) for run in found] == [("failed", "the camera was unplugged")]


def test_pages_that_come_and_go_leave_room_for_others(tmp_path: Path, app: Path) -> None:
    with serving(tmp_path, app) as server, server.client() as client:
        for _ in range(130):
            with client.stream("GET", "/api/events") as response:
                assert response.status_code == 200
                assert next(events(response))["kind"] == "runs"
        limits = httpx2.Limits(max_connections=200)
        with server.client(limits=limits) as many, ExitStack() as pages:
            streams = [events(pages.enter_context(many.stream("GET", "/api/events"))) for _ in range(100)]
            assert {next(stream)["kind"] for stream in streams} == {"runs"}
            assert many.get("/api/events").status_code == 429
            assert many.get("/api/runs").status_code == 200


def test_a_run_that_begins_is_not_taken_for_a_damaged_one(tmp_path: Path, app: Path) -> None:
    client = TestClient(application(Workspace(tmp_path), None, app))
    (tmp_path / "new.qscope").write_bytes(b"")
    assert client.get("/api/runs").json()["runs"] == []
    os.utime(tmp_path / "new.qscope", (1, 1))
    (left,) = client.get("/api/runs").json()["runs"]
    assert left["status"] == "damaged"
    assert "killed before it began" in left["reason"]


def resident(process: int) -> int:
    """The memory of a process in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_two_hundred_requests_at_once_and_ten_viewers_cost_no_memory(folder: Path, app: Path) -> None:
    addresses = [
        "/api/runs", "/api/runs/a", "/api/runs/a/rows", "/api/runs/a/graphs/reference", "/api/runs/b/graphs/quantized",
        "/api/runs/a/rows/0", "/api/runs/b/suggestions", "/api/compare?a=a&b=b", "/api/runs/search/trials",
        "/api/runs/a/graphs/quantized/nodes/3",
    ]  # fmt: skip

    def all_at_once(server: Server, client: httpx2.Client) -> None:
        with ThreadPoolExecutor(200) as pool:
            answers = list(pool.map(client.get, addresses * 20))
        assert {answer.status_code for answer in answers} == {200}

    limits = httpx2.Limits(max_connections=220, max_keepalive_connections=0)
    with serving(folder, app) as server, server.client(limits=limits) as client, ExitStack() as viewers:
        streams = [events(viewers.enter_context(client.stream("GET", "/api/events"))) for _ in range(10)]
        assert all(next(stream)["kind"] == "runs" for stream in streams)
        for _ in range(3):
            all_at_once(server, client)
        before = resident(server.process.pid)
        for _ in range(5):
            all_at_once(server, client)
        # A thousand answers more; what an answer left behind would be there a thousand times.
        assert resident(server.process.pid) - before < 8 * 2**20
        client.patch("/api/runs/a", json={"tags": ["watched"]})
        for stream in streams:
            assert until(stream, lambda run: run["tags"] == ["watched"])["name"] == "a"
        client.patch("/api/runs/a", json={"tags": []})
        assert server.stop() == (0, "", "")


# Offline.


def held(content: bytes) -> dict[str, Any]:
    """The answers in a page, as the app reads them."""
    found = re.search(rb'<script id="quantscope-data" type="application/json">(.*?)</script>', content, re.S)
    assert found is not None
    return {
        address: json.loads(zlib.decompress(base64.b64decode(value))) if isinstance(value, str) else value
        for address, value in json.loads(found[1]).items()
    }


def test_a_page_holds_every_answer_of_its_run(folder: Path, app: Path, client: TestClient) -> None:
    content, left_out = page(folder / "b.qscope", built=app)
    assert left_out == ""
    answers = held(content)
    assert answers["/api/about"]["live"] is False
    assert [run["name"] for run in answers["/api/runs"]["runs"]] == ["b"]
    count = len(answers["/api/runs/b/rows"]["index"])
    addresses = [
        "/api/runs/b", "/api/runs/b/rows", "/api/runs/b/suggestions", "/api/runs/b/graphs/reference",
        "/api/runs/b/graphs/quantized", *(f"/api/runs/b/rows/{i}" for i in range(count)),
    ]  # fmt: skip
    for address in addresses:
        assert answers[address] == client.get(address).json(), address
    for side in ("reference", "quantized"):
        for i, node in enumerate(answers[f"/api/runs/b/graphs/{side}/nodes/*"]):
            assert node == client.get(f"/api/runs/b/graphs/{side}/nodes/{i}").json()


def test_a_page_says_what_it_leaves_out_to_be_small(folder: Path, app: Path) -> None:
    whole = len(page(folder / "a.qscope", built=app)[0])
    sizes = []
    for most in (whole - 1, whole * 2 // 3, whole // 3):
        content, left_out = page(folder / "a.qscope", built=app, most_bytes=most)
        sizes.append(len(content))
        assert left_out
        answers = held(content)
        assert answers["/api/runs/a"]["notes"][-1] == f"this page leaves out {left_out}"
        for i in answers["/api/runs/a/rows"]["index"]:
            api.RowDetails.model_validate(answers[f"/api/runs/a/rows/{i}"])
    assert whole > sizes[0] >= sizes[1] >= sizes[2]


def test_nothing_in_a_run_gets_out_of_its_place_in_the_page(tmp_path: Path, folder: Path, app: Path) -> None:
    run_file = tmp_path / "x.qscope"
    run_file.write_bytes((folder / "a.qscope").read_bytes())
    hostile = "</script><script>alert(1)</script><!--<script>"
    with RunFile.read(run_file) as run:
        run.write_about(notes=[hostile], tags=[hostile])
    content, _ = page(run_file, built=app)
    assert content.count(b"</script>") == 2
    assert b"alert(1)" not in content.partition(b'type="application/json">')[0]
    assert held(content)["/api/runs"]["runs"][0]["tags"] == [hostile]


def test_the_command_line_writes_the_page(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.html"
    done = subprocess.run(
        [sys.executable, "-m", "quantscope", "export", str(folder / "a.qscope"), "--html", str(target)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    from quantscope.serve.app import BUILT

    if (BUILT / "offline.html").is_file():
        assert done.returncode == 0, done.stderr
        assert held(target.read_bytes())["/api/runs"]["runs"][0]["name"] == "a"
    else:
        assert done.returncode == 2
        assert "no built web app" in done.stderr


def test_diagnose_opens_the_app_on_the_new_run_and_ends_with_it(folder: Path, tmp_path: Path) -> None:
    from quantscope.serve.app import BUILT

    if not (BUILT / "index.html").is_file():
        pytest.skip("this installation has no built web app")
    (tmp_path / "model.qscope").write_bytes(b"")
    command = [
        sys.executable, "-m", "quantscope", "diagnose", str(folder / "model.onnx"), "--data",
        str(folder / "samples.npz"), "--open",
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**environment, "XDG_DATA_HOME": str(tmp_path / "data")},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        address = next(line for line in process.stderr if line.startswith("Open address"))
        found = re.search(r"(https://\S+/)\?token=(\S+)&to=/runs/model-2\n", address)
        assert found is not None, address
        with httpx2.Client(base_url=found[1], headers={"Authorization": f"Bearer {found[2]}"}, verify=False) as client:
            deadline = time.monotonic() + 60
            while client.get("/api/runs/model-2").json().get("summary", {}).get("status") != "finished":
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "model-2.qscope" in out
    assert "Traceback" not in err
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(found[1], verify=False)


def test_a_graph_of_twenty_thousand_ops_is_answered_like_any_other(tmp_path: Path, app: Path) -> None:
    made = large_run.write(tmp_path / "large.qscope", 350)
    assert len(made.ops) > 19_000
    client = TestClient(application(Workspace(tmp_path), None, app))
    graph = get(client, "/api/runs/large/graphs/reference", api.Graph)
    assert graph.nodes.name == [op.name for op in made.ops]
    children = Counter(graph.groups.parent) + Counter(graph.nodes.group)
    assert max(children.values()) <= 32
    rows = get(client, "/api/runs/large/rows", api.Rows)
    assert [graph.nodes.name[i] for i in rows.node] == rows.op
    assert get(client, f"/api/runs/large/graphs/quantized/nodes/{len(made.ops) - 1}", api.Node).op == "MatMul"


def test_what_many_ask_for_at_once_is_computed_once_and_a_failure_again() -> None:
    kept: Kept[str] = Kept(10, len)
    began: list[str] = []

    def slow() -> str:
        began.append("slow")
        time.sleep(0.05)
        if len(began) == 1:
            raise ValueError("the first one fails")
        return "result"

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(kept.get, "key", slow) for _ in range(8)]
        assert sum(future.exception() is not None for future in asked) == 1
        assert {future.result() for future in asked if future.exception() is None} == {"result"}
    assert began == ["slow", "slow"]
    assert kept.get("other", lambda: "four") == "four"
    assert kept.get("key", lambda: "used again") == "result"
    assert kept.get("third", lambda: "four") == "four"  # Six, four and four are more than ten: "other" goes.
    assert kept.get("other", lambda: "anew") == "anew"


def test_a_page_of_a_run_has_its_graph_and_rows_read_before_they_are_asked_for(
    folder: Path, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    real = RunFile.read

    def counted(path: Path) -> RunFile:
        read.append(path)
        return real(path)

    monkeypatch.setattr(RunFile, "read", counted)
    client = TestClient(application(Workspace(folder), None, app))
    assert client.get("/runs/a/graph").status_code == 200
    assert read
    read.clear()
    assert client.get("/api/runs/a/graphs/reference").status_code == 200
    assert client.get("/api/runs/a/rows").status_code == 200
    assert not read
    assert client.get("/runs/nothing/graph").status_code == 200, "the page itself says that there is no such run"
    assert client.get("/runs").status_code == 200
    assert not read
    workspace = Workspace(folder)
    workspace.read_ahead()
    last = max(folder.glob("*.qscope"), key=lambda path: path.stat().st_mtime)
    assert set(read) == {last}
    Workspace(folder / "nothing").read_ahead()
