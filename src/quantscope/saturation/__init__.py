"""What 8-bit products lose on processors that add pairs of them in 16 bits, counted on real samples."""

from quantscope.saturation.document import OpSaturation, OutputChange, Saturation

__all__ = ["OpSaturation", "OutputChange", "Saturation"]
