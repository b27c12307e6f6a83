"""What the server cannot do, beyond the errors of a run file."""

from __future__ import annotations

from quantscope.errors import DataError, QuantscopeError, RunFileError, UnsupportedError


class MissingError(QuantscopeError):
    """There is no such run, or the run has no such part."""


class ConflictError(QuantscopeError):
    """The run cannot be changed now, or the name is taken."""


class BusyError(QuantscopeError):
    """More is asked at once than the server answers."""


STATUS: dict[type[QuantscopeError], int] = {
    MissingError: 404,
    ConflictError: 409,
    BusyError: 429,
    RunFileError: 422,
    DataError: 422,
    UnsupportedError: 422,
}
"""The HTTP status that an error is answered with; 400 for any other."""
