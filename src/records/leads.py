"""Lead names: the standard order and the spellings under which sources write it."""

from __future__ import annotations

import re
from collections.abc import Collection
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

_SEPARATORS = re.compile(r"[\s_.:\-]+")

# Weights of the two leads from which the others follow (Einthoven 1912, Goldberger 1942)
_FROM_TWO = {
    ("I", "II"): {
        "III": (-1.0, 1.0),
        "aVR": (-0.5, -0.5),
        "aVL": (1.0, -0.5),
        "aVF": (-0.5, 1.0),
    },
    ("I", "III"): {"II": (1.0, 1.0), "aVR": (-1.0, -0.5), "aVL": (0.5, -0.5), "aVF": (0.5, 1.0)},
    ("II", "III"): {"I": (1.0, -1.0), "aVR": (-1.0, 0.5), "aVL": (0.5, -1.0), "aVF": (0.5, 0.5)},
}


@lru_cache(maxsize=4096)
def canonical_lead(name: str) -> str | None:
    """Return the standard name of a lead, or None if it is none of the twelve.

    Case, spaces, punctuation, the words *lead*, *ECG* and *EKG*, and the common aliases
    (``MLII``, ``DII``, ``C1``) are understood. A lead of inverted polarity such as ``-aVR``, or the
    difference of two such as ``I-II``, is another lead and gives None.
    """
    text = name.strip().upper()
    if text.startswith("-"):
        return None
    words = _SEPARATORS.split(text)
    if sum([word in _ALIASES for word in words]) > 1:
        return None
    text = "".join(words)
    # A name may have several such words: "MDC_ECG_LEAD_I".
    for pattern in (_PREFIX, _PREFIX, _SUFFIX, _PREFIX):
        if text in _ALIASES:
            break
        text = pattern.sub("", text)
    return _ALIASES.get(text)


def is_unnamed(name: str) -> bool:
    """Return whether a lead name is empty or says only that the channel is an ECG."""
    return re.sub(r"[\s_\-\d]+", "", name).upper() in _GENERIC_NAMES


def limb_weights(known: Collection[str]) -> tuple[tuple[str, str], dict[str, tuple[float, float]]]:
    """Return two of the leads I, II and III, and the weights of both in each lead that follows.

    Parameters
    ----------
    known
        Standard names of the leads of a source.

    Returns
    -------
    pair
        The two leads; empty names if fewer are known.
    weights
        By name of the limb leads that are not known. III = II - I, aVR = -(I + II) / 2,
        aVL = I - II / 2, aVF = II - I / 2 (Einthoven 1912, Goldberger 1942).
    """
    for pair, weights in _FROM_TWO.items():
        if pair[0] in known and pair[1] in known:
            return pair, {name: two for name, two in weights.items() if name not in known}
    return ("", ""), {}


def derive_limb_leads(
    signal: Float32Array, leads: tuple[str, ...]
) -> tuple[Float32Array, tuple[str, ...], tuple[str, ...]]:
    """Add the limb leads that follow from two of I, II and III, as `limb_weights` states them.

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
    pair, weights_of = limb_weights([name for name in rows if name])
    if not weights_of:
        return signal, leads, ()
    weights = np.array(list(weights_of.values()), np.float32)
    derived = weights @ signal[[rows[pair[0]], rows[pair[1]]]]  # (n_absent, n_samples)
    flags = tuple(f"derived:{name}" for name in weights_of)
    return np.concatenate([signal, derived]), (*leads, *weights_of), flags
