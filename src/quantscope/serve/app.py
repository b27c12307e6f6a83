"""The application: the API, and the built app's pages, behind the guard."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import JSONResponse
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from quantscope.errors import QuantscopeError
from quantscope.serve.guard import POLICY, Access, Guard
from quantscope.serve.live import Live
from quantscope.serve.problems import STATUS
from quantscope.serve.routes import router
from quantscope.serve.workspace import Workspace

BUILT = Path(__file__).parents[1] / "_web"

_COMPRESSED_FROM = 2000


def application(workspace: Workspace, access: Access | None, built: Path = BUILT) -> FastAPI:
    """Return the application for a workspace.

    Args:
        access: who may ask; None leaves the guard away, for the schema and for tests of answers alone.
        built: the folder of the built app.
    """
    app = FastAPI(
        title="quantscope", version="1", docs_url=None, redoc_url=None, openapi_url=None,
        generate_unique_id_function=lambda route: route.name,
    )  # fmt: skip
    app.state.workspace = workspace
    app.state.live = Live(workspace)
    app.include_router(router)
    app.add_exception_handler(QuantscopeError, _failed)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_api_route("/{path:path}", _pages(workspace, built), include_in_schema=False)
    app.add_middleware(GZipMiddleware, minimum_size=_COMPRESSED_FROM, compresslevel=4)
    if access is not None:
        app.add_middleware(Guard, access=access)
    return app


def _problem(status: int, message: str, accepted: str = "", next_step: str = "") -> JSONResponse:
    return JSONResponse({"message": message, "accepted": accepted, "next_step": next_step}, status)


def _failed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, QuantscopeError)
    status = next((number for kind, number in STATUS.items() if isinstance(error, kind)), 400)
    return _problem(status, error.message, error.accepted, error.next_step)


def _not_valid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return _problem(422, f"{where}: {first['msg']}")


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse(
        {"message": str(error.detail), "accepted": "", "next_step": ""}, error.status_code, error.headers
    )  # fmt: skip


def _pages(workspace: Workspace, built: Path) -> Callable[[str], Response]:
    """What answers with the files of the built app: those it has by name, and its one page for every other address."""
    files = {file.relative_to(built).as_posix(): file for file in sorted(built.rglob("*")) if file.is_file()}

    def page(path: str) -> Response:
        if path.startswith("api/"):
            return _problem(404, f"no such address: /{path}")
        if path in files and path != "index.html":
            kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
            # The names of files below assets/ tell what is in them.
            lasting = "private, max-age=31536000, immutable" if path.startswith("assets/") else "no-cache"
            return Response(files[path].read_bytes(), media_type=kind, headers={"Cache-Control": lasting})
        if "index.html" not in files:
            return Response("this installation has no built web app\n", 404, media_type="text/plain")
        policy = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        # What a run's page asks for first is read while the browser still loads the app.
        parts = path.split("/")
        ahead = BackgroundTask(workspace.read_ahead, parts[1]) if parts[0] == "runs" and len(parts) > 1 else None
        return Response(files["index.html"].read_bytes(), media_type="text/html", headers=policy, background=ahead)

    return page
