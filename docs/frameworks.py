"""Write what each backend says it can do into the table of docs/frameworks.md: python docs/frameworks.py"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from quantscope.backends.base import Feature
from quantscope.backends.registry import backend, names

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def table() -> str:
    """Return the table as Markdown, a row per feature and a column per backend."""
    backends = [backend(name) for name in names()]
    lines = [
        "| | " + " | ".join(f"{b.name} (`{b.suffix}`)" for b in backends) + " |",
        "|---" * (len(backends) + 1) + "|",
    ]
    for feature in get_args(Feature):
        cells = (b.capabilities[feature] or "no" for b in backends)
        lines.append(f"| {feature} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """Return the page with the table of today."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
