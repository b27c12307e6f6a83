"""Quantized models made by other tools, and the scripts that make them."""
