"""MIT-BIH Arrhythmia Database (Moody and Mark 2001): rhythm or beats from its ``.atr`` files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from src.labels.collections.rows import Request
from src.labels.collections.wfdb_annotations import build_annotations

if TYPE_CHECKING:
    import pandas as pd


TASKS = ("own",)
OPTIONS = ("annotator", "what")


def build_mitbih(request: Request) -> pd.DataFrame:
    """Build the rows of MIT-BIH; rhythm unless beats are asked for."""
    return build_known(request, "mitdb")


def build_known(request: Request, collection: str) -> pd.DataFrame:
    """Build the rows of a known collection of annotation files; rhythm by default."""
    what = request.options.what or "rhythm"
    options = replace(request.options, collection=collection, what=what)
    return build_annotations(replace(request, options=options))
