"""Writes the schema that the app's TypeScript types are made from: python -m quantscope.serve.openapi FILE."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fastapi import FastAPI

from quantscope.report.tables import write_whole


def schema() -> bytes:
    """The schema as JSON."""
    from quantscope.serve.routes import router

    app = FastAPI(title="quantscope", version="1", generate_unique_id_function=lambda route: route.name)
    app.include_router(router)
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False).encode() + b"\n"


if __name__ == "__main__":
    write_whole(Path(sys.argv[1]), schema())
