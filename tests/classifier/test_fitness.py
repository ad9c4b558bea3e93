from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from src.classifier.fitness import find_unfit, least_leads
from src.config import STANDARD_LEADS
from src.learning.checkpoints import ModelCard
from src.processed.runs.tasks import RecordTensor

CARD = ModelCard(("A", "B"), True)


def tensor(n_leads: int = 12, flags: tuple[str, ...] = ()) -> RecordTensor:
    present = np.arange(12) < n_leads
    return RecordTensor({"lead_present": present}, flags, "")


@pytest.mark.parametrize(
    ("card", "least"),
    [
        (CARD, 10),
        (dataclasses.replace(CARD, leads=("I", "II")), 2),
        (dataclasses.replace(CARD, leads=STANDARD_LEADS[:8]), 7),
        # Trained on a collection of fewer leads too, or on recordings that lost some
        (dataclasses.replace(CARD, min_leads=1), 1),
        (dataclasses.replace(CARD, min_leads=12), 10),
        (dataclasses.replace(CARD, config={"train": {"lead_dropout": 0.5}}), 1),
        (dataclasses.replace(CARD, config={"train": {"augment": ["lead-subset=0.2"]}}), 1),
        (dataclasses.replace(CARD, config={"train": {"augment": ["gain=0.2"]}}), 10),
    ],
)
def test_leads_that_a_network_needs(card: ModelCard, least: int) -> None:
    assert least_leads(card) == least
    assert find_unfit(tensor(least), card) == ""
    if least > 1:
        n_leads = len(card.leads)
        assert find_unfit(tensor(least - 1), card).startswith(
            f"too few usable leads: {least - 1} of {n_leads}, the network needs {least}; "
        )


@pytest.mark.parametrize("flag", ["gain_low", "gain_high", "not_an_ecg"])
def test_flags_of_a_whole_recording_void_it(flag: str) -> None:
    assert find_unfit(tensor(flags=("noise:V1", flag)), CARD).startswith(f"{flag}: ")


@pytest.mark.parametrize("kind", ["flat", "lead_off", "gain_high"])
def test_flags_of_leads_count_as_absent_leads(kind: str) -> None:
    assert find_unfit(tensor(flags=(f"{kind}:V1", f"{kind}:V2")), CARD) == ""
    assert find_unfit(tensor(11, flags=(f"{kind}:V1", f"{kind}:V2", f"{kind}:V1")), CARD).endswith(
        "V1 V2 V6"
    )


def test_other_flags_void_nothing() -> None:
    assert find_unfit(tensor(flags=("clipped:V1", "limb_swap:RA-LA", "amplitude:V2")), CARD) == ""
