"""Lead names: the standard order and the spellings under which sources write it."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

import numpy as np

from src.config import STANDARD_LEADS
from src.utils import Float32Array

MAX_NAME = 200
"""Characters; a longer text is the name of no lead."""

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
_GENERIC_NAMES = frozenset(
    {"", "ECG", "EKG", "LEAD", "CH", "CHAN", "CHANNEL", "SIG", "SIGNAL", "VAL"}
)
# Left and right are not electrodes here: "ECG L-ECG R" of sleep studies lies on the trunk.
_ELECTRODE_PAIRS = {
    ("LA", "RA"): "I",
    ("LL", "RA"): "II",
    ("LF", "RA"): "II",
    ("LL", "LA"): "III",
    ("LF", "LA"): "III",
}
# Numbers of leads in SCP-ECG and in the codes of IEEE 11073 (MDC), which are the same.
LEAD_OF_CODE = {
    1: "I",
    2: "II",
    **{number: f"V{number - 2}" for number in range(3, 9)},
    61: "III",
    62: "aVR",
    63: "aVL",
    64: "aVF",
}
# "2:1", "MDC:131073", "5.6.3-9-1". MDC writes the potential of a lead as its number + 256.
_CODE = re.compile(
    r"(?:(?:MDC\W?)?(?:2::?(?P<part>\d+)|(?P<full>131\d{3}))|5\.6\.3-9-(?P<scp>\d+))"
)
_MDC_PARTITION = 2 << 16
_POTENTIAL = 256

_SEPARATORS = re.compile(r"[\s_.,:;\-\u2013]+")
_BRACKETS = re.compile(r"[(\[{][^)\]}]*[)\]}]")
_PREFIX = re.compile(r"^(LEAD|EKG|ECG|MDC|ELECPOTL)(?=.)")
_SUFFIX = re.compile(r"(?<=.)(LEAD|EKG|ECG)$")
# Words that say how a lead was recorded, not which it is
_REMARKS = frozenset(
    {"REF", "GND", "WCT", "WAVEFORM", "WAVE", "FILTERED", "UNFILTERED", "RAW", "MV", "UV"}
)
_ECG_WORD = re.compile(r"ECG|EKG|EL[EC]+[CK]TRO[CK]ARDI|ELEKTROKARDI")
# Leads and electrodes besides the twelve: right-sided, posterior, Frank's, Holter recorders'
_OTHER_LEAD = re.compile(
    r"M?V|V\d+R?|V[XYZ]|[XYZ]|C[MCSBR]\d|CM[CV]?\d?|MCL\d|ML[VI\d]+|(?:RA|LA|RL|LL|LF|RF)"
)
# Pairs of the EASI system and of the Long-Term ST Database
_OTHER_PAIRS = frozenset({("A", "S"), ("E", "S"), ("A", "I")})

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


def canonical_lead(name: str) -> str | None:
    """Return the standard name of a lead, or None if it is none of the twelve.

    Case, spaces, punctuation, remarks such as *(filtered)* and *-REF*, the words *lead*, *ECG* and
    *EKG*, the common aliases (``MLII``, ``DII``, ``C1``), pairs of limb electrodes (``LA-RA``), and
    MDC and SCP-ECG codes (``2:1``, ``5.6.3-9-1``) are understood. A lead of inverted polarity such
    as ``-aVR``, and the difference of two leads such as ``I-II``, are other leads and give None.
    """
    # Neither a pattern nor the cache sees a text of any length.
    return _canonical_lead(name) if len(name) <= MAX_NAME else None


@lru_cache(maxsize=4096)
def _canonical_lead(name: str) -> str | None:
    text = name.strip().upper()
    if text.startswith(("-", "\u2013")):
        return None
    if code := _CODE.fullmatch(text):
        return _lead_of_code(code)
    lead = _lead_of_text(_BRACKETS.sub(" ", text))
    if lead is None and _BRACKETS.search(text):
        # "ECG (lead II)"
        lead = _lead_of_text(re.sub(r"[()\[\]{}]", " ", text))
    return lead


def _lead_of_code(code: re.Match[str]) -> str | None:
    """Return the lead of an MDC or SCP-ECG code that `_CODE` matches."""
    number = int(code["part"] or code["scp"] or int(code["full"] or 0) - _MDC_PARTITION)
    if code["scp"] is None and number > _POTENTIAL:
        number -= _POTENTIAL
    return LEAD_OF_CODE.get(number)


def _lead_of_text(text: str) -> str | None:
    """Return the lead that a name in capitals spells out."""
    all_words = [word for word in _SEPARATORS.split(text) if word]
    words = [word for word in all_words if word not in _REMARKS]
    cores = tuple(_without_ecg(word) for word in words)
    pair = tuple(core for core in cores if not _ECG_WORD.fullmatch(core))
    if pair in _ELECTRODE_PAIRS:
        return _ELECTRODE_PAIRS[pair]
    # "I-II" and "V1 V2" are no leads of the twelve. "C3-REF" is an EEG electrode.
    if sum(core in _ALIASES for core in cores) > 1 or (
        "REF" in all_words and any(re.fullmatch(r"C\d", core) for core in cores)
    ):
        return None
    return _ALIASES.get(_without_ecg("".join(words)))


def _without_ecg(text: str) -> str:
    """Return a name without the words ECG, EKG and lead before and after it."""
    # A name may have several such words: "MDC_ECG_LEAD_I".
    while text not in _ALIASES:
        shorter = _SUFFIX.sub("", _PREFIX.sub("", text))
        if shorter == text:
            break
        text = shorter
    return text


def has_ecg_word(name: str) -> bool:
    """Return whether a name or a transducer says that a channel is an ECG."""
    return _ECG_WORD.search(name[:MAX_NAME].upper()) is not None


def is_other_lead(name: str) -> bool:
    """Return whether a name is that of a lead besides the twelve, or of a pair of leads."""
    if len(name) > MAX_NAME:
        return False
    words = [_without_ecg(word) for word in _SEPARATORS.split(name.strip().upper()) if word]
    words = [word for word in words if not _ECG_WORD.fullmatch(word) and word not in _REMARKS]
    return bool(words) and (
        tuple(words) in _OTHER_PAIRS
        or all(word in _ALIASES or _OTHER_LEAD.fullmatch(word) for word in words)
    )


def is_unnamed(name: str) -> bool:
    """Return whether a name says no lead: it is empty, a number, or says only that it is an ECG.

    Examples are ``ECG1``, ``ECG1-ECG2``, ``EKG-REF`` and ``ECG waveform``.
    """
    return len(name) <= MAX_NAME and _is_unnamed(name)


@lru_cache(maxsize=4096)
def _is_unnamed(name: str) -> bool:
    if re.sub(r"[\W_\d]+", "", name).upper() in _GENERIC_NAMES:
        return True
    if re.fullmatch(r"record\s.*,\s*signal\s*\d+", name.strip(), re.IGNORECASE):
        return True  # The WFDB library's name for a signal without one
    return has_ecg_word(name) and canonical_lead(name) is None and not is_other_lead(name)


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
