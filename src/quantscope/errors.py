"""Every error that quantscope raises on purpose.

A message says what failed and with which value; `accepted` says what would have worked; `next_step` says
what to do now. The command line prints the three and exits with code 2.
"""


class QuantscopeError(Exception):
    """Base class: catch this one to catch them all.

    Args:
        message: what failed, with the value that was got.
        accepted: what is accepted instead.
        next_step: what the user can do now.
    """

    def __init__(self, message: str, *, accepted: str = "", next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.accepted = accepted
        self.next_step = next_step

    def __str__(self) -> str:
        lines = [self.message]
        if self.accepted:
            lines.append(f"accepted: {self.accepted}")
        if self.next_step:
            lines.append(f"next step: {self.next_step}")
        return "\n".join(lines)


class ModelError(QuantscopeError):
    """The model file is missing, damaged or of a kind that no backend reads."""


class DataError(QuantscopeError):
    """The samples are missing, empty, unreadable or do not fit the model's inputs or labels."""


class ShapeError(QuantscopeError):
    """Two arrays that should be compared have different shapes."""


class RecipeError(QuantscopeError):
    """A recipe asks for something that does not exist, such as a selector that matches no op."""


class RunFileError(QuantscopeError):
    """A run file is missing, damaged, too new, or being written by another process."""


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C during a run. `run` is the file to go on with, "" if nothing was measured yet and nothing is left."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run


class OutputError(QuantscopeError):
    """A result could not be written (disk full, no permission, the file exists)."""


class WorkerError(QuantscopeError):
    """A worker process or a cluster that shares the work cannot be reached, or keeps dying."""


class UnsupportedError(QuantscopeError):
    """This backend, or this machine, cannot do what was asked."""
