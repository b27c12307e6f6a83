"""The addresses of the API and what each answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from quantscope.serve import api, profiles, views
from quantscope.serve.live import Live
from quantscope.serve.workspace import Workspace

Name = Annotated[str, Path(description="The run file's name without its ending.", max_length=200)]
Index = Annotated[int, Path(ge=0, le=2**31)]
RunName = Annotated[str, Query(max_length=200)]

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": api.Problem, "description": text}
    for status, text in {
        400: "The request makes no sense.",
        401: "The token is missing or wrong.",
        403: "The request comes from another site, or names another host.",
        404: "There is no such run, or the run has no such part.",
        409: "The run cannot be changed now.",
        413: "The request is too large.",
        422: "A value is not accepted, or the run file is damaged.",
        429: "Too many requests.",
    }.items()
}


class EventStream(StreamingResponse):
    """Server-sent events, which no cache and no proxy may hold back."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], status_code: int = 200) -> None:
        super().__init__(events, status_code, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


def _workspace(request: Request) -> Workspace:
    workspace: Workspace = request.app.state.workspace
    return workspace


Runs = Annotated[Workspace, Depends(_workspace)]
router = APIRouter(prefix="/api", responses=_PROBLEMS)


@router.get("/about")
def about(runs: Runs) -> api.About:
    """The server's version and its folder."""
    return views.about(runs.folder, live=True)


@router.get("/runs")
def run_list(runs: Runs) -> api.RunList:
    """All runs, the newest first; a damaged file is there with its reason."""
    return api.RunList(runs=runs.summaries())


@router.get("/runs/{name}")
def run(runs: Runs, name: Name) -> api.RunDocument:
    """All about a run but its tables."""
    return runs.view(name, views.document)


@router.patch("/runs/{name}")
def change_run(runs: Runs, name: Name, change: api.RunChange) -> api.RunSummary:
    """Rename a run, or tag it."""
    return runs.change(name, change)


@router.delete("/runs/{name}", status_code=204)
def delete_run(runs: Runs, name: Name) -> Response:
    """Delete the run file. Models that the run wrote stay."""
    runs.delete(name)
    return Response(status_code=204)


@router.get("/runs/{name}/graphs/{side}", response_model=api.Graph)
def graph(runs: Runs, name: Name, side: api.Side) -> Response:
    """A model's graph in columns, with groups."""
    return runs.answer(name, views.graph, side)


@router.get("/runs/{name}/graphs/{side}/nodes/{index}", response_model=api.Node)
def node(runs: Runs, name: Name, side: api.Side, index: Index) -> Response:
    """All that is known of one op."""
    return runs.answer(name, views.node, side, index)


@router.get("/runs/{name}/rows", response_model=api.Rows)
def rows(runs: Runs, name: Name) -> Response:
    """All compared tensors so far, in columns."""
    return runs.answer(name, views.rows)


@router.get("/runs/{name}/rows/{index}", response_model=api.RowDetails)
def row(runs: Runs, name: Name, index: Index) -> Response:
    """One tensor with its histogram, its channels and its error budget."""
    return runs.answer(name, views.row_details, index)


@router.get("/runs/{name}/suggestions", response_model=api.Suggestions)
def suggestions(runs: Runs, name: Name) -> Response:
    """What to change in the recipe, best first."""
    return runs.answer(name, views.suggestions)


@router.get("/runs/{name}/trials", response_model=api.Trials)
def trials(runs: Runs, name: Name) -> Response:
    """What a search tried; 404 for a diagnosis."""
    return runs.answer(name, views.trials)


@router.get("/runs/{name}/sensitivity", response_model=api.Sensitivities)
def sensitivity(runs: Runs, name: Name) -> Response:
    """What each op does to the model's output, as far as it is measured; 404 for other kinds of run."""
    return runs.answer(name, views.sensitivity)


@router.get("/runs/{name}/profile", response_model=api.Profile)
def profile(runs: Runs, name: Name) -> Response:
    """Where the time goes: latency of both models, time per op, reasons; 404 for a run that was not profiled."""
    return runs.answer(name, profiles.profile)


@router.get("/runs/{name}/profile/ops/{index}", response_model=api.OpKernels)
def kernels(runs: Runs, name: Name, index: Index) -> Response:
    """The kernels of an op of the profile, by its place in the table."""
    return runs.answer(name, profiles.kernels, index)


@router.get("/compare", response_model=api.Comparison)
def compare(runs: Runs, a: RunName, b: RunName) -> Response:
    """Two runs side by side."""
    return runs.compare(a, b)


@router.get(
    "/events",
    response_class=EventStream,
    responses={200: {"model": api.Event, "description": "Each event's data is one of these, as JSON."}},
)
def events(request: Request) -> EventStream:
    """What changes in the workspace, as it happens: first all runs, then each that appears, changes or goes."""
    live: Live = request.app.state.live
    return EventStream(live.events())
