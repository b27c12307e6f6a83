"""Draw a run as the terminal shows it: python docs/picture.py magika.qscope docs/demo.svg"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rich.console import Console

import quantscope
from quantscope.report import terminal

out = Console(record=True, width=100, force_terminal=True, color_system="truecolor", file=sys.stderr, highlight=False)
diagnosis = quantscope.open(sys.argv[1])
for part in (
    terminal.accuracy(diagnosis),
    terminal.activation_table(diagnosis.activations, 6, "sqnr_db"),
    terminal.weight_table(diagnosis.weights, 4, "sqnr_db"),
    terminal.remarks(diagnosis),
):
    out.print(part)
    out.print()
# The fonts that rich would load from the web are left out: the reader's own will do.
svg = re.sub(r"@font-face \{.*?\}", "", out.export_svg(title="quantscope demo"), flags=re.DOTALL)
Path(sys.argv[2]).write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")
