"""MIT-BIH Atrial Fibrillation Database (Moody and Mark 1983): rhythm from its ``.atr`` files.

Records 00735 and 03665 have no signals, so that they cannot be processed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.labels.collections.mitbih import build_known
from src.labels.collections.rows import Request

if TYPE_CHECKING:
    import pandas as pd


TASKS = ("own",)
OPTIONS = ("annotator", "what")


def build_afdb(request: Request) -> pd.DataFrame:
    """Build the rows of AFDB: fibrillation, flutter, junctional rhythm, and N for all others."""
    return build_known(request, "afdb")
