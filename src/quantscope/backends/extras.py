"""Packages that only some models need: whether they are there, and the command that installs them."""

from __future__ import annotations

from importlib.util import find_spec

from quantscope.errors import UnsupportedError

# What each extra of quantscope brings, by the names under which it is imported.
_PACKAGES = {
    "litert": ("ai_edge_litert", "ai_edge_quantizer"),
    "tensorflow": ("tensorflow", "ai_edge_litert", "ai_edge_quantizer"),
}


def missing(extra: str) -> str:
    """The command that installs this extra; "" if all its packages are there. Imports none."""
    return f"pip install 'quantscope[{extra}]'" if _absent(extra) else ""


def require(extra: str, what: str) -> None:
    """Raise an UnsupportedError with the command to run if a package of this extra is not installed; import none.

    Args:
        extra: its name in quantscope's own requirements.
        what: what cannot be done without it, as the message begins.
    """
    if absent := _absent(extra):
        raise UnsupportedError(
            f"{what} needs {' and '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed",
            accepted=f"an installation with the extra {extra}",
            next_step=missing(extra),
        )


def _absent(extra: str) -> list[str]:
    return [package for package in _PACKAGES[extra] if find_spec(package) is None]
