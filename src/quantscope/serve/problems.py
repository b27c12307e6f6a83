"""What the server cannot do, beyond the errors of a run file."""

from __future__ import annotations

from quantscope.errors import DataError, QuantscopeError, RunFileError, UnsupportedError


class Missing(QuantscopeError):
    """There is no such run, or the run has no such part."""


class Conflict(QuantscopeError):
    """The run cannot be changed now, or the name is taken."""


class Busy(QuantscopeError):
    """More is asked at once than the server answers."""


STATUS: dict[type[QuantscopeError], int] = {
    Missing: 404,
    Conflict: 409,
    Busy: 429,
    RunFileError: 422,
    DataError: 422,
    UnsupportedError: 422,
}
"""The HTTP status that an error is answered with; 400 for any other."""
