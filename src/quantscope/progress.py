"""What a long run tells while it goes on; the terminal draws bars from it, a notebook or a test can listen too."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Listens to a run."""

    def stage(self, name: str, total: int | None) -> None:
        """A stage begins; `total` counts its samples or ops, None where that is not known."""
        ...

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        ...

    def note(self, text: str) -> None:
        """Something the user should know."""
        ...


class Silent:
    """Listens and says nothing."""

    def stage(self, name: str, total: int | None) -> None:
        pass

    def advance(self, count: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass
