"""Channel equalization, free of any framework: where channels can be scaled, by which factors, and what was done.

A backend says how its ops' operands lie (`Layout`) and rewrites its constants (`Draft`).
"""

from quantscope.equalization.equalize import Draft, equalize
from quantscope.equalization.record import KEY, Record
from quantscope.equalization.regions import Layout, Product, Use
from quantscope.equalization.unit import FormerUnit

__all__ = ["KEY", "Draft", "FormerUnit", "Layout", "Product", "Record", "Use", "equalize"]
