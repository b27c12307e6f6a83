"""The one document behind every view: a diagnosis as plain values, with a version."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from quantscope.diagnosis import Diagnosis
from quantscope.profiling.document import Profile
from quantscope.report.tables import rows

DOCUMENT_VERSION = 1


def document(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as plain values that JSON can hold, histograms left out."""
    return {
        **overview(diagnosis),
        "activations": rows(diagnosis, "activation"),
        "weights": rows(diagnosis, "weight"),
        "biases": rows(diagnosis, "bias"),
    }


def profile_document(profile: Profile) -> dict[str, Any]:
    """A profile as plain values, with what follows from its sums."""
    values = {"document_version": DOCUMENT_VERSION, **profile.to_dict()}
    for name, facts in (("reference", profile.reference), ("quantized", profile.quantized)):
        if facts is not None:
            values[name]["sums"] |= {"agreement": facts.sums.agreement, "overhead": facts.sums.overhead}
    return values


def overview(diagnosis: Diagnosis) -> dict[str, Any]:
    """The document without its tables."""
    first = diagnosis.first_not_finite
    return {
        "document_version": DOCUMENT_VERSION,
        "run": diagnosis.run,
        "status": diagnosis.status,
        "models": dict(diagnosis.models),
        "samples": dict(diagnosis.samples),
        "environment": dict(diagnosis.environment),
        "recipe": diagnosis.recipe.to_dict() if diagnosis.recipe else None,
        "accuracy": [
            {**asdict(s), "difference": s.difference, "relative_difference": s.relative_difference}
            for s in diagnosis.scores
        ],
        "coverage": diagnosis.coverage,
        "skipped": dict(diagnosis.skipped),
        "trace": diagnosis.trace,
        "measuring_changed": diagnosis.measuring_changed,
        "first_not_finite": first.op if first else None,
        "failure_sources": [
            {"op": source.row.op, "inputs_db": source.inputs_db, "sqnr_db": source.row.sqnr_db}
            for source in diagnosis.failure_sources
        ],
        "notes": list(diagnosis.notes),
        "stages": [dict(stage) for stage in diagnosis.stages],
    }
