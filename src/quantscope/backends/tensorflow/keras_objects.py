"""Keras models that the user has at hand, as files: their own methods write them."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from quantscope.backends.tensorflow import formats
from quantscope.errors import ModelError


def saved(model: Any, path: Path) -> Path:
    """Write the model there, as a SavedModel if the path is not that of a .keras file; the same path.

    Raises:
        ModelError: Keras cannot.
    """
    try:
        # Keras prints what it wrote.
        with redirect_stdout(io.StringIO()):
            if path.suffix == formats.KERAS:
                model.save(str(path))
            else:
                model.export(str(path))
    except Exception as error:  # Keras raises errors of many kinds.
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"Keras cannot save the model {getattr(model, 'name', '')!r}: {why}",
            accepted="a built model, which knows the shape of its inputs",
            next_step="call it once with some samples",
        ) from error
    return path
