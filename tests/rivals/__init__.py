"""Figures of other tools that cannot be installed beside quantscope, and the script that takes them."""
