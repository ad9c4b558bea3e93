"""Georgia collection (Perez Alday et al. 2020): headers ``E00001.hea`` of the Challenges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.labels.collections.challenge import TASKS as TASKS
from src.labels.collections.challenge import build_sources
from src.labels.collections.rows import Request

if TYPE_CHECKING:
    import pandas as pd


def build_georgia(request: Request) -> pd.DataFrame:
    """Build the rows of the Georgia records below the root from their SNOMED CT codes."""
    return build_sources(request, ("georgia",))
