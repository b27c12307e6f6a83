"""What runs in a process of its own and imports TensorFlow: any of its formats to a float .tflite model."""
