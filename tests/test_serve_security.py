"""Who gets in, what a request can reach, and files that were made to do harm."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies
from starlette.testclient import TestClient

import quantscope
from conftest import convolutions, images
from quantscope.errors import DataError
from quantscope.runfile import RunFile
from quantscope.serve import tls
from quantscope.serve.app import application
from quantscope.serve.guard import Access, Rate
from quantscope.serve.openapi import schema
from quantscope.serve.server import serve
from quantscope.serve.workspace import Workspace
from serving import Server, built, events, serving

TOKEN = "right-token"
ACCESS = Access(TOKEN, 5000, tls=True, hosts=frozenset(("localhost", "testserver")))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run file of a small diagnosis."""
    place = tmp_path_factory.mktemp("original")
    onnx.save(convolutions(), str(place / "model.onnx"))
    run = place / "run.qscope"
    quantscope.diagnose(place / "model.onnx", data=[images(4)], run=run)
    return run


@pytest.fixture
def folder(tmp_path: Path, original: Path) -> Path:
    place = tmp_path / "workspace"
    place.mkdir()
    (place / "run.qscope").write_bytes(original.read_bytes())
    return place


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> TestClient:
    """A client without token."""
    return TestClient(
        application(Workspace(folder), ACCESS, built(tmp_path / "web")), base_url="https://testserver",
        raise_server_exceptions=False,
    )  # fmt: skip


RIGHT = {"Authorization": f"Bearer {TOKEN}"}
ADDRESSES = [*json.loads(schema())["paths"], "/", "/assets/app-1.js", "/index.html", "/nothing"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_is_answered_without_the_token(client: TestClient, address: str, method: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": "quantscope-5000=x"},
    ):
        answer = client.request(method, address, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert client.request(method, f"{address}?token=wrong").status_code == 401


def test_a_link_opens_the_app_once_and_a_strict_cookie_from_then_on(client: TestClient) -> None:
    entered = client.get(f"/?token={TOKEN}&to=/runs/a b<")
    assert entered.status_code == 200
    assert TOKEN not in entered.text
    assert 'content="0;url=/#/runs/a b&lt;"' in entered.text
    cookie = entered.headers["set-cookie"]
    assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert TOKEN not in cookie
    assert client.get("/api/runs").status_code == 200
    assert "token" not in client.get("/").text
    # The cookie's value opens nothing where the token is asked for, and the other way round.
    assert not ACCESS.is_token(ACCESS.cookie_value)
    assert not ACCESS.is_cookie(TOKEN)
    assert not ACCESS.is_token("ünï")


def test_a_page_loads_from_its_own_server_alone(client: TestClient) -> None:
    policy = client.get("/", headers=RIGHT).headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    for address in ("/api/runs", "/", "/assets/app-1.js"):
        headers = client.get(address, headers=RIGHT).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
    assert client.get("/api/runs", headers=RIGHT).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:5000", 200), ("LOCALHOST", 200), ("127.0.0.1:5000", 200), ("[::1]:5000", 200), ("10.1.2.3", 200),
        ("evil.example", 403), ("localhost.evil.example", 403), ("", 403), ("127.0.0.1.evil.example:5000", 403),
        ("[::1", 403), ("localhost@evil.example", 403),
    ],
)  # fmt: skip
def test_names_of_other_sites_are_not_answered(client: TestClient, host: str, status: int) -> None:
    assert client.get("/api/runs", headers={**RIGHT, "Host": host}).status_code == status


def test_other_sites_change_nothing(client: TestClient, folder: Path) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.delete("/api/runs/run", headers={**RIGHT, **headers}).status_code == 403
        assert client.patch("/api/runs/run", json={"tags": []}, headers={**RIGHT, **headers}).status_code == 403
    assert (folder / "run.qscope").exists()
    own = {"Origin": "https://testserver", "Sec-Fetch-Site": "same-origin"}
    assert client.patch("/api/runs/run", json={"tags": ["x"]}, headers={**RIGHT, **own}).status_code == 200


def test_requests_have_bounds(client: TestClient) -> None:
    def pieces() -> Any:
        for _ in range(100):
            yield b" " * 1000

    headers = {**RIGHT, "Content-Type": "application/json"}
    assert client.patch("/api/runs/run", content=b" " * 70_000, headers=headers).status_code == 413
    assert client.patch("/api/runs/run", content=pieces(), headers=headers).status_code == 413
    assert client.get("/api/runs?" + "x" * 5000, headers=RIGHT).status_code == 400
    assert client.patch("/api/runs/run", json={"tags": ["x"] * 100}, headers=RIGHT).status_code == 422
    # Who guesses tokens is soon answered no more; who has it still is.
    codes = [client.get("/api/runs").status_code for _ in range(60)]
    assert codes[0] == 401
    assert codes[-1] == 429
    assert client.get("/api/runs", headers=RIGHT).status_code == 200


def test_a_rate_allows_so_many_at_once_and_so_many_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rate = Rate(10, 3)
    assert [rate.allows() for _ in range(5)] == [True, True, True, False, False]
    now[0] += 0.25
    assert [rate.allows() for _ in range(4)] == [True, True, False, False]


@pytest.mark.parametrize(
    "name",
    [
        "../secret", "..%2fsecret", "%2e%2e%2fsecret", "link", "pipe", "folder", "/etc/passwd",
        "%2fetc%2fpasswd", "run%00", "run.qscope", "%ff", "a\\b", "x" * 5000,
    ],
)  # fmt: skip
def test_only_run_files_of_the_folder_are_reached(client: TestClient, folder: Path, name: str) -> None:
    secret = folder.parent / "secret.qscope"
    secret.write_bytes((folder / "run.qscope").read_bytes())
    (folder / "link.qscope").symlink_to(secret)
    os.mkfifo(folder / "pipe.qscope")
    (folder / "folder.qscope").mkdir()
    for method, address in (("GET", ""), ("GET", "/rows"), ("DELETE", ""), ("PATCH", "")):
        body = {"json": {"tags": ["x"]}} if method == "PATCH" else {}
        answer = client.request(method, f"/api/runs/{name}{address}", headers=RIGHT, **body)  # type: ignore[arg-type]
        assert answer.status_code in (400, 404, 405, 422), answer.text
    assert [run["name"] for run in client.get("/api/runs", headers=RIGHT).json()["runs"]] == ["run"]
    assert secret.exists()
    for target in ("../moved", "a/b", "..", "/tmp/moved"):
        assert client.patch("/api/runs/run", json={"name": target}, headers=RIGHT).status_code == 409


def change(path: Path, *statements: str, values: tuple[Any, ...] = ()) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement, values)
    connection.close()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _scrambled(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = np.random.default_rng(0).bytes(len(content) - 4096)
    path.write_bytes(content)


def _endless_view(path: Path) -> None:
    change(
        path,
        "DROP TABLE about",
        "CREATE VIEW about AS WITH RECURSIVE n(key, value) AS (SELECT 'a', 'b' UNION ALL SELECT key, value FROM n) "
        "SELECT * FROM n",
    )


def _trigger(path: Path) -> None:
    change(path, "CREATE TRIGGER t AFTER INSERT ON about BEGIN DELETE FROM tensors; END")


def _bomb(path: Path) -> None:
    content = zlib.compress(b'[["x", "<f8", [1]]]\n' + bytes(2**29), 9)
    change(path, "UPDATE tensors SET arrays = ?", values=(content,))


def _deep(path: Path) -> None:
    change(path, "UPDATE about SET value = ? WHERE key IN ('graph', 'models')", values=("[" * 200_000,))


def _objects(path: Path) -> None:
    content = zlib.compress(b'[["histogram.edges", "|O", [4]]]\n' + bytes(range(32)))
    change(path, "UPDATE tensors SET arrays = ?", values=(content,))


def _other_types(path: Path) -> None:
    change(path, "UPDATE about SET value = '[1, {}]'", "UPDATE tensors SET row = '{\"op\": 1}'")


def _numbers(path: Path) -> None:
    change(path, "UPDATE about SET value = '1e999' WHERE key != 'status'", "UPDATE tensors SET row = '9'")


def _wrong_graph(path: Path) -> None:
    loop = {
        "ops": [["a", "Add", ["x", "y"], ["y"], "", {}]] * 3,
        "tensors": [],
        "inputs": ["x"],
        "outputs": ["q"],
        "constants": [],
    }
    change(path, "UPDATE about SET value = ? WHERE key IN ('graph', 'quantized_graph')", values=(json.dumps(loop),))


def _not_text(path: Path) -> None:
    change(path, "UPDATE about SET value = x'ff00fe'")


def _empty(path: Path) -> None:
    path.write_bytes(b"")
    os.utime(path, (1, 1))


HOSTILE = [
    _cut, _scrambled, _endless_view, _trigger, _bomb, _deep, _objects, _other_types, _numbers, _wrong_graph, _not_text,
    _empty,
]  # fmt: skip


@pytest.mark.parametrize("harm", HOSTILE, ids=lambda harm: harm.__name__)
def test_a_hostile_file_is_an_error_of_its_own(
    client: TestClient, folder: Path, original: Path, harm: Callable[[Path], None]
) -> None:
    (folder / "bad.qscope").write_bytes(original.read_bytes())
    harm(folder / "bad.qscope")
    listed = client.get("/api/runs", headers=RIGHT)
    assert listed.status_code == 200
    assert {run["name"] for run in listed.json()["runs"]} == {"bad", "run"}
    addresses = [
        "", "/rows", "/rows/0", "/graphs/reference", "/graphs/quantized", "/graphs/reference/nodes/0", "/suggestions",
        "/trials",
    ]  # fmt: skip
    answers = [client.get(f"/api/runs/bad{address}", headers=RIGHT) for address in addresses]
    answers.append(client.get("/api/compare?a=run&b=bad", headers=RIGHT))
    assert {answer.status_code for answer in answers} <= {200, 404, 422}
    assert any(answer.status_code != 200 for answer in answers)
    for answer in answers:
        assert answer.status_code == 200 or answer.json()["message"]
    assert client.get("/api/runs/run/rows", headers=RIGHT).status_code == 200
    assert client.delete("/api/runs/bad", headers=RIGHT).status_code == 204
    assert not (folder / "bad.qscope").exists()


OPERATIONS = [
    (address, method)
    for address, methods in json.loads(schema())["paths"].items()
    for method in methods
    if address != "/api/events"  # Its answer has no end.
]


@pytest.fixture(scope="module")
def fuzzed(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("fuzzed")
    (place / "run.qscope").write_bytes(original.read_bytes())
    with serving(place, built(place / "web")) as server:
        yield server


@pytest.mark.parametrize(("address", "method"), OPERATIONS)
def test_requests_made_from_the_schema_find_no_server_error(fuzzed: Server, address: str, method: str) -> None:
    """Valid and invalid requests, every other one about the run that is there."""
    operation = schemathesis.openapi.from_dict(json.loads(schema()))[address][method.upper()]
    seen: Counter[int] = Counter()

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(), real=strategies.booleans())
    def run(case: Any, real: bool) -> None:
        if real and method != "delete" and "name" in (case.path_parameters or {}):
            case.path_parameters["name"] = "run"
        response = case.call(base_url=fuzzed.url.rstrip("/"), headers=fuzzed.headers)
        seen[response.status_code] += 1
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert response.json()["message"]
        elif method == "get":
            case.validate_response(response, checks=[schemathesis.checks.response_schema_conformance])

    run()
    assert seen
    assert fuzzed.process.poll() is None


# A real process: TLS, ports, streams, the end.


def test_tls_is_on_with_a_key_that_its_owner_alone_can_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    app = built(tmp_path / "web")
    contents = []
    for _ in range(2):
        with serving(folder, app, with_tls=True) as server, server.client() as client:
            assert server.url.startswith("https://127.0.0.1:")
            assert client.get("/api/runs").status_code == 200
            with pytest.raises(httpx2.HTTPError):
                httpx2.get(server.url.replace("https", "http"))
        key = tmp_path / "data" / "quantscope" / "tls" / "key.pem"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
        contents.append(key.read_bytes())
    assert contents[0] == contents[1]
    # A certificate that others could have read, or that names other hosts, is not taken again.
    key.chmod(0o644)
    tls.certificate(["localhost"], key.parent)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_bytes() != contents[0]
    before = key.read_bytes()
    tls.certificate(["localhost", "box.example"], key.parent)
    assert key.read_bytes() != before


def test_a_stream_needs_the_token_and_nothing_that_is_said_has_it(folder: Path, tmp_path: Path) -> None:
    with serving(folder, built(tmp_path / "web")) as server, httpx2.Client(base_url=server.url) as bare:
        assert bare.get("/api/events").status_code == 401
        assert bare.get("/api/events?token=" + server.token).status_code == 401
        entered = bare.get("/", params={"token": server.token})
        assert entered.status_code == 200
        assert "Secure" not in entered.headers["set-cookie"]
        with bare.stream("GET", "/api/events") as response:
            assert next(events(response))["kind"] == "runs"
            bare.get("/%00?token=" + server.token + "x")
            (folder / "bad.qscope").write_bytes(b"SQLite format 3\0" + bytes(100))
            bare.get("/api/runs")
            code, out, err = server.stop()
    assert code == 0
    assert server.token not in out + err
    assert "Traceback" not in out + err


def test_a_taken_port_gives_the_next_one_and_says_so(folder: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        program = (
            "from pathlib import Path; from quantscope.serve.server import serve\n"
            f"serve(Path({str(folder)!r}), built=Path({str(built(tmp_path / 'web'))!r}), port={port}, with_tls=False,"
            "note=lambda text: print(text, flush=True), started=lambda a: print(a.url, flush=True))"
        )
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(f"port {port} is taken: ")
            chosen = int(process.stdout.readline().rpartition(":")[2].strip("/\n"))
            assert chosen > port
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "0.0.0.0", "with_tls": False}, "no TLS on 0.0.0.0"),
        ({"host": "no.such.host.invalid"}, "no such host"),
        ({"host": "192.0.2.1"}, "is no address of this machine"),
        ({"port": 70000}, "port 70000"),
        ({"certificate": Path("a.pem")}, "a certificate needs its key"),
        ({"certificate": Path("a.pem"), "key": Path("b.pem")}, "cannot use the certificate a.pem"),
    ],
)
def test_what_cannot_be_served_is_said(folder: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        serve(folder, built=built(tmp_path / "web"), **{"port": 0, **options})
    with pytest.raises(DataError, match="no such folder"):
        serve(folder / "nothing", built=tmp_path / "web")


def test_a_killed_runs_journal_is_played_back_before_it_is_renamed(folder: Path, client: TestClient) -> None:
    """A transaction that a kill cut off leaves a journal beside the file, which belongs to the file's name."""
    code = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA cache_size=1');"
        "c.execute('BEGIN IMMEDIATE'); c.execute(\"UPDATE tensors SET row = row || ' ', arrays = zeroblob(100000)\");"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "run.qscope")], check=False)
    assert (folder / "run.qscope-journal").stat().st_size > 0
    before = client.get("/api/runs/run/rows", headers=RIGHT).json()
    assert client.patch("/api/runs/run", json={"name": "moved"}, headers=RIGHT).status_code == 200
    assert sorted(path.name for path in folder.iterdir()) == ["moved.qscope"]
    assert client.get("/api/runs/moved/rows", headers=RIGHT).json() == before
    with RunFile.read(folder / "moved.qscope") as run:
        assert run.row(0) is not None
