"""Finds the backend for a model, importing its framework no earlier than that."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

from quantscope.backends.base import Backend
from quantscope.errors import ModelError

_MODULES = {"onnx": "quantscope.backends.onnx", "litert": "quantscope.backends.litert"}


def names() -> tuple[str, ...]:
    """The backends that there are, the one to begin with first."""
    return tuple(_MODULES)


@cache
def backend(name: str) -> Backend:
    """The backend of this name."""
    loaded: Backend = import_module(_MODULES[name]).BACKEND
    return loaded


def backend_for(source: object) -> Backend:
    """The backend that reads this path or object.

    Raises:
        ModelError: none does.
    """
    for name in _MODULES:
        candidate = backend(name)
        if candidate.accepts(source):
            return candidate
    known = [backend(name).sources for name in _MODULES]
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.exists():
            raise ModelError(
                f"no such model file: {path}", accepted=f"the path of {' or '.join(known)}", next_step="check the path"
            )
        raise ModelError(
            f"not a model that quantscope reads: {path}",
            accepted=" or ".join(known),
            next_step="export the model to ONNX, for example with torch.onnx.export",
        )
    raise ModelError(
        f"not a model that quantscope reads: an object of type {type(source).__name__}",
        accepted=f"the path of {' or '.join(known)}, or an onnx.ModelProto",
    )
