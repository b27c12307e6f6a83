"""A run as one line of a list."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from quantscope.evaluation import Score
from quantscope.fallback.search import trial_from
from quantscope.recipe import Recipe
from quantscope.runfile import RunFile
from quantscope.serve import api

_BEFORE_MODE: Mapping[api.Kind, str] = {
    "diagnose": "", "sensitivity": "each op alone: ", "tune": "search from ", "profile": "time of ",
}  # fmt: skip


def figure(value: float) -> api.Figure:
    """A number as the API says it."""
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def accuracy(score: Score) -> api.Accuracy:
    """A score as the API says it."""
    ratio = score.quantized / score.reference if score.reference else math.nan
    return api.Accuracy(
        metric=score.metric,
        samples=score.samples,
        reference=figure(score.reference),
        quantized=figure(score.quantized),
        difference=figure(score.difference),
        ratio=figure(ratio),
        low=figure(score.low),
        high=figure(score.high),
    )


def revision(path: Path) -> str:
    """What changes whenever the file, or the journal of a transaction beside it, does."""
    stat = path.stat()
    journal = path.with_name(f"{path.name}-journal")
    began = journal.stat().st_mtime_ns if journal.exists() else 0
    return f"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{stat.st_size:x}-{began:x}"


def summary(path: Path, now: str) -> api.RunSummary:
    """Return the line of a run.

    Args:
        path: the run file.
        now: its revision.
    Raises:
        RunFileError: it is damaged.
    """
    with RunFile.read(path) as run:
        models = run.about("models") or {}
        recipe = run.about("recipe")
        kind: api.Kind = run.about("kind") or "diagnose"
        tune = kind == "tune"
        reference = models.get("reference") or {}
        status, reason = _status(run)
        return api.RunSummary(
            name=path.stem,
            model=Path(reference.get("path") or "").stem or "a model in memory",
            kind=kind,
            status=status,
            reason=reason,
            mode=_mode(recipe, models, kind),
            accuracy=_accuracy(run, tune=tune),
            created=str(run.about("created")),
            modified=_modified(path),
            size_bytes=path.stat().st_size,
            reference_bytes=reference.get("bytes"),
            quantized_bytes=_quantized_bytes(run.about("output"), models),
            tags=[str(tag) for tag in run.about("tags") or ()],
            progress=None if status == "finished" else _progress(run.about("progress"), running=status == "running"),
            rows=run.row_count(),
            has_profile=run.about_text("profile") not in (None, "null"),
            revision=now,
        )


def damaged(path: Path, reason: str, now: str) -> api.RunSummary:
    """The line of a file that cannot be read."""
    try:
        size, modified = path.stat().st_size, _modified(path)
    except OSError:
        size, modified = 0, ""
    return api.RunSummary(
        name=path.stem, model="", kind="diagnose", status="damaged", reason=reason, mode="", accuracy=None,
        created=modified, modified=modified, size_bytes=size, reference_bytes=None, quantized_bytes=None, tags=[],
        progress=None, rows=0, has_profile=False, revision=now,
    )  # fmt: skip


def _modified(path: Path) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(path.stat().st_mtime))


def _status(run: RunFile) -> tuple[Literal["running", "finished", "failed", "killed"], str]:
    killed = run.why_killed()
    if killed:
        return "killed", killed
    text = str(run.about("status"))
    if text in ("running", "finished"):
        return ("running", "") if text == "running" else ("finished", "")
    return "failed", text.removeprefix("failed: ")


def _mode(recipe: Mapping[str, Any] | None, models: Mapping[str, Any], kind: api.Kind) -> str:
    """What was done to the model, in words."""
    path = (models.get("quantized") or {}).get("path")
    if kind == "profile" and recipe is None:
        return f"time against {os.path.basename(path)}" if path else "time of one model"
    if recipe is None:
        return f"quantized by another tool: {os.path.basename(path)}" if path else "quantized by another tool"
    chosen = Recipe.from_dict(recipe)
    kept = sum(rule.fallback for rule in chosen.rules)
    rules = [f"{kept} rules for float"] if kept > 1 else ["1 rule for float"] if kept else []
    return _BEFORE_MODE[kind] + ", ".join([chosen.defaults_in_words, *rules])


def _accuracy(run: RunFile, *, tune: bool) -> api.Accuracy | None:
    """The first metric: of a search that of its best trial, or of its last one while it goes on."""
    if not tune:
        scores = run.scores()
        return accuracy(scores[0]) if scores else None
    trials = run.about("trials") or []
    if not trials:
        return None
    best = (run.about("search") or {"best": len(trials) - 1})["best"]
    return accuracy(trial_from(trials[best]).score)


def _quantized_bytes(output: str | None, models: Mapping[str, Any]) -> int | None:
    given = models.get("quantized") or {}
    if given.get("bytes") is not None:
        return int(given["bytes"])
    try:
        return os.path.getsize(output) if output else None
    except OSError:
        return None


def _progress(fact: Mapping[str, Any] | None, *, running: bool) -> api.Progress | None:
    """Where the run is; rate and time left only while it goes on."""
    if not fact:
        return None
    rate = fact["rate"] if running else None
    left = None
    if rate and fact["total"] is not None:
        left = max((fact["total"] - fact["done"]) / rate - max(time.time() - fact["at"], 0.0), 0.0)
    return api.Progress(
        stage=fact["stage"], done=fact["done"], total=fact["total"], rate=rate, seconds_left=left
    )  # fmt: skip
