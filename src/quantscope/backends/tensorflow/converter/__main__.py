"""`python -m quantscope.backends.tensorflow.converter SOURCE FOLDER` writes a model and a report into the folder."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from quantscope.backends.tensorflow.conversion import MODEL, REPORT
from quantscope.errors import QuantscopeError


def _end_with_parent() -> None:
    """End this process when nobody holds the other end of its standard input any more."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _converted(source: Path) -> tuple[bytes, list[str]]:
    from quantscope.backends.tensorflow.converter import loading, naming, verification, writing

    frozen = loading.load(source)
    notes = writing.notes(frozen)
    content = naming.renamed(writing.written(frozen, source), frozen)
    return content, [*notes, *verification.verified(content, frozen, source)]


def main() -> None:
    """Convert."""
    _end_with_parent()
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    report: dict[str, Any]
    try:
        content, notes = _converted(source)
        (folder / MODEL).write_bytes(content)
        report = {"notes": notes}
    except QuantscopeError as error:
        explained = {"message": error.message, "accepted": error.accepted, "next_step": error.next_step}
        report = {"error": {"kind": type(error).__name__, **explained}}
    except MemoryError:
        explained = {"message": f"not enough memory to convert {source}", "next_step": "try again with more of it free"}
        report = {"error": {"kind": "ModelError", **explained}}
    except OSError as error:
        explained = {"message": f"cannot convert {source}: {error.strerror or error}"}
        report = {"error": {"kind": "OutputError", **explained}}
    (folder / REPORT).write_text(json.dumps(report), "utf-8")


if __name__ == "__main__":
    main()
