"""Ops of a graph that reach outside it: into Python, or into files. A model that is only looked at never runs them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quantscope.errors import ModelError

_OUTSIDE = frozenset(("PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles"))


def refuse_code(nodes: Iterable[Any], path: Path) -> None:
    """Raise a ModelError if one of these nodes is such an op."""
    found = next((node for node in nodes if node.op in _OUTSIDE), None)
    if found is not None:
        raise ModelError(
            f"the op {found.name} of {path} is a {found.op}, which is not run: it reaches outside the model",
            accepted="a model of arithmetic alone",
            next_step="save the model without it",
        )
