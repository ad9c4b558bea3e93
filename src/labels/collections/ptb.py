"""PTB (Bousseljot et al. 1995) as part of the Challenges: headers ``S0001.hea``.

The headers of ptbdb on PhysioNet, which describe the patient in words, are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.labels.collections.challenge import TASKS as TASKS
from src.labels.collections.challenge import build_sources
from src.labels.collections.rows import Request

if TYPE_CHECKING:
    import pandas as pd


def build_ptb(request: Request) -> pd.DataFrame:
    """Build the rows of the PTB records below the root from their SNOMED CT codes."""
    return build_sources(request, ("ptb",))
