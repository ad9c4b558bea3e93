"""ECG tensor pipeline: raw recordings in, tensors, a trained classifier and its figures out."""

__version__ = "0.1.0"
