"""Lead names: the standard order and the spellings under which sources write it."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from src.config import STANDARD_LEADS
from src.utils import Float32Array

_ALIASES = {
    **{name.upper(): name for name in STANDARD_LEADS},
    **{
        f"ML{roman}": roman for roman in ("I", "II", "III")
    },  # modified limb leads of ambulatory recorders
    **{
        f"D{roman}": roman for roman in ("I", "II", "III")
    },  # derivation, in Spanish and French exports
    **{f"D{i}": roman for i, roman in enumerate(("I", "II", "III"), 1)},
    **{
        f"LEAD{i}": roman for i, roman in enumerate(("I", "II", "III"), 1)
    },  # while "ECG 1" is the first channel, whatever its lead
    **{f"C{i}": f"V{i}" for i in range(1, 7)},  # chest electrodes by their IEC name
    **{f"MV{i}": f"V{i}" for i in range(1, 7)},
}
_PREFIX = re.compile(r"^(LEAD|EKG|ECG|MDC)(?=.)")
_SUFFIX = re.compile(r"(?<=.)(LEAD|EKG|ECG)$")

_FROM_I_AND_II = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}


@lru_cache(maxsize=4096)
def canonical_lead(name: str) -> str | None:
    """Return the standard name of a lead, or None when it is none of the twelve.

    Case, spaces, punctuation, the words *lead*, *ECG* and *EKG*, and the common aliases
    (``MLII``, ``DII``, ``C1``) are understood. A lead of inverted polarity such as ``-aVR`` is
    another lead and gives None.
    """
    text = name.strip().upper()
    if text.startswith("-"):
        return None
    text = re.sub(r"[\s_.:\-]+", "", text)
    for pattern in (_PREFIX, _PREFIX, _SUFFIX, _PREFIX):  # "MDC_ECG_LEAD_I" carries several
        if text in _ALIASES:
            break
        text = pattern.sub("", text)
    return _ALIASES.get(text)


def is_unnamed(name: str) -> bool:
    """Tell whether a source's lead name says only that the channel is an ECG, or nothing."""
    return re.sub(r"[\s_\-\d]+", "", name).upper() in {
        "",
        "ECG",
        "EKG",
        "LEAD",
        "CH",
        "CHANNEL",
        "SIGNAL",
        "VAL",
    }


def derive_limb_leads(
    signal: Float32Array, leads: tuple[str, ...]
) -> tuple[Float32Array, tuple[str, ...], tuple[str, ...]]:
    """Add the limb leads that follow from I and II where a format stores only these, with a flag
    for each.

    III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2 (Einthoven 1912,
    Goldberger 1942).
    """
    rows = {canonical_lead(name): row for row, name in enumerate(leads)}
    absent = [name for name in _FROM_I_AND_II if name not in rows]
    if "I" not in rows or "II" not in rows or not absent:
        return signal, leads, ()
    weights = np.array([_FROM_I_AND_II[name] for name in absent], np.float32)
    derived = weights @ signal[[rows["I"], rows["II"]]]
    return (
        np.concatenate([signal, derived]),
        (*leads, *absent),
        tuple(f"derived:{name}" for name in absent),
    )
