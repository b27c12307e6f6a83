"""Packages that only some models need: whether they are there, and the command that installs them."""

from __future__ import annotations

from importlib.util import find_spec

from quantscope.errors import UnsupportedError

# What each extra of quantscope brings, by the names under which it is imported.
_PACKAGES = {
    "litert": ("ai_edge_litert", "ai_edge_quantizer"),
    "tensorflow": ("tensorflow", "ai_edge_litert", "ai_edge_quantizer"),
}


def require(extra: str, what: str) -> None:
    """Raise an UnsupportedError with the command to run if a package of this extra is not installed; import none.

    Args:
        extra: its name in quantscope's own requirements.
        what: what cannot be done without it, as the message begins.
    """
    missing = [package for package in _PACKAGES[extra] if find_spec(package) is None]
    if missing:
        raise UnsupportedError(
            f"{what} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            next_step=f"pip install 'quantscope[{extra}]'",
        )
