"""A run as one HTML page that needs no server: the built app with the API's answers inside.

The answers stand in one JSON object by the path of their address. A short one is there as it is. A long one is a
string: base64 of the deflated (zlib) JSON. "…/nodes/*" holds the answers of all "…/nodes/INDEX" as one list, and
"…/ops/*" those of a profile's ops.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

from quantscope.errors import UnsupportedError
from quantscope.runfile import RunFile
from quantscope.serve import api, profiles, views
from quantscope.serve.app import BUILT
from quantscope.serve.encoding import as_json
from quantscope.serve.problems import MissingError
from quantscope.serve.summary import revision, summary

MOST_BYTES = 5_000_000
_SHORT = 2000
_DATA = re.compile(rb'(<script id="quantscope-data" type="application/json">)\s*(</script>)')


@dataclass(frozen=True)
class _Detail:
    """How much of the channels goes into the page; `left_out` says it in words.

    The counts are the histograms per channel, of activations apart.
    """

    left_out: str
    digits: int | None = None
    activations: bool = True
    counts: tuple[str, ...] = ("reference", "quantized")
    activation_counts: tuple[str, ...] = ("reference", "quantized")


# From all to little: the first that fits is taken.
_DIGITS = "figures per channel beyond 3 digits"
_DETAILS = (
    _Detail(""),
    _Detail("figures per channel beyond 4 digits", 4),
    _Detail(_DIGITS, 3),
    _Detail(f"{_DIGITS}, and the histograms per channel of quantized activations", 3, activation_counts=("reference",)),
    _Detail(f"{_DIGITS}, and the histograms per channel of activations", 3, activation_counts=()),
    _Detail(f"{_DIGITS}, and all channels of activations", 3, activations=False),
    _Detail(f"{_DIGITS}, all histograms per channel, and all channels of activations", 3, activations=False, counts=()),
)


def page(path: Path, *, most_bytes: int = MOST_BYTES, built: Path = BUILT) -> tuple[bytes, str]:
    """Return the page of a run, and what was left out so that it is no larger than wanted, "" if nothing was.

    A page is larger all the same where even the least is more.

    Raises:
        RunFileError: the run file is missing or damaged.
        UnsupportedError: the app was not built with this installation.
    """
    template = built / "offline.html"
    if not template.is_file():
        raise UnsupportedError(
            "this installation has no built web app", next_step="install again: pip install quantscope"
        )
    app = template.read_bytes()
    if len(_DATA.findall(app)) != 1:
        raise UnsupportedError(f"{template} has no place for a run's data", next_step="install quantscope again")
    with RunFile.read(path) as run:
        answers = _answers(run, path)
        rows = [(index, views.row_details(run, index)) for index in run.plain_rows()]
    base = f"/api/runs/{quote(path.stem, safe='')}"
    room = most_bytes - len(app) - len(_embedded({key: _compact(values) for key, values in answers.items()}))
    for detail in _DETAILS:
        details = {f"{base}/rows/{index}": _compact(_reduced(row, detail)) for index, row in rows}
        if detail is _DETAILS[-1] or len(_embedded(details)) <= room:
            break
    if detail.left_out:
        answers[base]["notes"] = [*answers[base]["notes"], f"this page leaves out {detail.left_out}"]
    data = _embedded({**{address: _compact(values) for address, values in answers.items()}, **details})
    return _DATA.sub(lambda found: found[1] + data + found[2], app), detail.left_out


def _answers(run: RunFile, path: Path) -> dict[str, Any]:
    """All answers about a run but its tensors one by one."""
    line = summary(path, revision(path)).model_dump()
    base = f"/api/runs/{quote(path.stem, safe='')}"
    answers: dict[str, Any] = {
        "/api/about": views.about(path.parent, live=False).model_dump(),
        "/api/runs": {"runs": [line]},
        base: views.document(run).model_dump(),
        f"{base}/rows": views.rows(run),
    }
    answers |= _if_there(f"{base}/suggestions", partial(views.suggestions, run))
    answers |= _if_there(f"{base}/trials", partial(views.trials, run))
    answers |= _if_there(f"{base}/sensitivity", partial(views.sensitivity, run))
    answers |= _if_there(f"{base}/profile", partial(profiles.profile, run))
    answers |= _if_there(f"{base}/profile/ops/*", partial(profiles.all_kernels, run))
    for side in get_args(api.Side):
        answers |= _if_there(f"{base}/graphs/{side}", partial(views.graph, run, side))
        answers |= _if_there(f"{base}/graphs/{side}/nodes/*", partial(views.nodes, run, side))
    return answers


def _if_there(address: str, view: Callable[[], Any]) -> dict[str, Any]:
    """The answer by its address; nothing where the run has none."""
    try:
        return {address: view()}
    except MissingError:
        return {}


def _reduced(row: dict[str, Any], detail: _Detail) -> dict[str, Any]:
    channels = row["channels"]
    if channels is None:
        return row
    activation = row["row"]["role"] == "activation"
    if activation and not detail.activations:
        return {**row, "channels": None}
    reduced = dict(channels)
    if detail.digits is not None:
        for name in views.CHANNEL_FIGURES:
            reduced[name] = [float(f"{value:.{detail.digits}g}") for value in channels[name]]
    kept = detail.activation_counts if activation else detail.counts
    for side in get_args(api.Side):
        if side not in kept:
            reduced[f"{side}_counts"] = None
    return {**row, "channels": reduced}


def _compact(values: Any) -> Any:
    content = as_json(values)
    return values if len(content) <= _SHORT else base64.b64encode(zlib.compress(content, 9)).decode()


def _embedded(values: dict[str, Any]) -> bytes:
    """Values as JSON that no HTML parser takes for a tag."""
    return as_json(values).replace(b"<", b"\\u003c")
