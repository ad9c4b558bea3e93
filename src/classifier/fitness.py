"""Whether a recording is fit for a network: enough leads, and no flag that voids the prediction."""

from __future__ import annotations

from src.config import STANDARD_LEADS, parse_augment
from src.learning.checkpoints import ModelCard
from src.processed.runs.tasks import RecordTensor

VOID_FLAGS = {
    "gain_low": "voltages too small for an ECG: its gain may be wrong",
    "gain_high": "voltages too large for an ECG: its gain may be wrong",
    "not_an_ecg": "nothing like beats",
}
"""Flags of a whole recording after which a prediction means nothing, and their meaning."""

_UNUSABLE_LEAD = ("flat", "lead_off", "gain_low", "gain_high")
"""Flags of a lead that carries no usable signal."""


def least_leads(card: ModelCard) -> int:
    """Return the number of usable leads below which a recording is unfit for a network.

    A network trained on all leads tolerates the lack of a sixth of them: on fold 9 of PTB-XL, two
    random leads of twelve cost 0.020 of macro AUROC, three 0.039, and each further one as much.
    """
    n_leads = len(card.leads)
    # Lead dropout leaves any number of leads, down to one, and so do sets of leads.
    settings = card.config.get("train", {})
    strengths, _ = parse_augment(settings.get("augment", ()))
    if any(
        (settings.get("lead_dropout"), strengths.get("lead-dropout"), strengths.get("lead-subset"))
    ):
        return 1
    tolerated = n_leads - n_leads // 6
    return min(tolerated, card.min_leads) if card.min_leads else tolerated


def find_unfit(tensor: RecordTensor, card: ModelCard) -> str:
    """Return why a prediction for a recording would mean nothing, or an empty string."""
    marked, void = set(), ""
    for flag in tensor.flags:
        kind, _, lead = flag.partition(":")
        if not lead and kind in VOID_FLAGS:
            void = void or f"{kind}: {VOID_FLAGS[kind]}"
        if kind in _UNUSABLE_LEAD:
            marked.add(lead)
    present = tensor.arrays["lead_present"]
    unusable = []
    for lead in card.leads:
        if lead in marked or not present[STANDARD_LEADS.index(lead)]:
            unusable.append(lead)
    n_usable, least = len(card.leads) - len(unusable), least_leads(card)
    # A wrong gain may switch leads off, and leads that are off have nothing like beats
    if n_usable >= least or void.startswith("gain"):
        return void
    return (
        f"too few usable leads: {n_usable} of {len(card.leads)}, the network needs {least}; "
        f"absent, flat, off or of a wrong gain: {' '.join(unusable)}"
    )
