"""python -m quantscope."""

from quantscope.cli import main

main()
