"""ECG tensor pipeline: raw recordings in, tensors, a trained classifier and its figures out."""

from __future__ import annotations

__version__ = "0.2.0"
