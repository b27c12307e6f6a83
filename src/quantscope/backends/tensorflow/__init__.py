"""TensorFlow's own formats: each becomes a float .tflite model once, in a process of its own that alone imports it."""

from quantscope.backends.tensorflow.conversion import Conversion, converted
from quantscope.backends.tensorflow.formats import ACCEPTED, files, recognized

__all__ = ["ACCEPTED", "Conversion", "converted", "files", "recognized"]
