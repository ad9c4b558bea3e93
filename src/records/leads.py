"""Lead names: the standard order and the spellings under which sources write it."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from src.config import STANDARD_LEADS
from src.utils import Float32Array

_LIMB = ("I", "II", "III")
_ALIASES = {
    **{name.upper(): name for name in STANDARD_LEADS},
    # Modified limb leads of ambulatory recorders
    **{f"ML{lead}": lead for lead in _LIMB},
    # Derivation, in Spanish and French exports
    **{f"D{lead}": lead for lead in _LIMB},
    **{f"D{number}": lead for number, lead in enumerate(_LIMB, 1)},
    # Not "ECG 1", which is the first channel, whatever its lead
    **{f"LEAD{number}": lead for number, lead in enumerate(_LIMB, 1)},
    # Chest electrodes by their IEC names
    **{f"C{i}": f"V{i}" for i in range(1, 7)},
    # Modified chest leads
    **{f"MV{i}": f"V{i}" for i in range(1, 7)},
}
_GENERIC_NAMES = frozenset({"", "ECG", "EKG", "LEAD", "CH", "CHANNEL", "SIGNAL", "VAL"})
_PREFIX = re.compile(r"^(LEAD|EKG|ECG|MDC)(?=.)")
_SUFFIX = re.compile(r"(?<=.)(LEAD|EKG|ECG)$")

# Weights of I and II.
_FROM_I_AND_II = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}


@lru_cache(maxsize=4096)
def canonical_lead(name: str) -> str | None:
    """Return the standard name of a lead, or None if it is none of the twelve.

    Case, spaces, punctuation, the words *lead*, *ECG* and *EKG*, and the common aliases
    (``MLII``, ``DII``, ``C1``) are understood. A lead of inverted polarity such as ``-aVR`` is
    another lead and gives None.
    """
    text = name.strip().upper()
    if text.startswith("-"):
        return None
    text = re.sub(r"[\s_.:\-]+", "", text)
    # A name may have several such words: "MDC_ECG_LEAD_I".
    for pattern in (_PREFIX, _PREFIX, _SUFFIX, _PREFIX):
        if text in _ALIASES:
            break
        text = pattern.sub("", text)
    return _ALIASES.get(text)


def is_unnamed(name: str) -> bool:
    """Return whether a lead name is empty or says only that the channel is an ECG."""
    return re.sub(r"[\s_\-\d]+", "", name).upper() in _GENERIC_NAMES


def derive_limb_leads(
    signal: Float32Array, leads: tuple[str, ...]
) -> tuple[Float32Array, tuple[str, ...], tuple[str, ...]]:
    """Add the limb leads that follow from I and II, for formats that store only these.

    III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2 (Einthoven 1912,
    Goldberger 1942).

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples).
    leads
        Names of its rows.

    Returns
    -------
    signal, leads
        With the derived leads at the end.
    flags
        One for each derived lead, such as ``derived:aVF``.
    """
    rows = {canonical_lead(name): row for row, name in enumerate(leads)}
    absent = [name for name in _FROM_I_AND_II if name not in rows]
    if "I" not in rows or "II" not in rows or not absent:
        return signal, leads, ()
    weights = np.array([_FROM_I_AND_II[name] for name in absent], np.float32)
    derived = weights @ signal[[rows["I"], rows["II"]]]  # (n_absent, n_samples)
    flags = tuple(f"derived:{name}" for name in absent)
    return np.concatenate([signal, derived]), (*leads, *absent), flags
