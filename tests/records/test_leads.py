from __future__ import annotations

import pytest

from src.config import STANDARD_LEADS
from src.records.leads import canonical_lead, is_unnamed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aVR", "aVR"),
        ("AVR", "aVR"),
        ("avf", "aVF"),
        ("v1", "V1"),
        (" II ", "II"),
        ("MLII", "II"),
        ("Lead I", "I"),
        ("LEAD_V6", "V6"),
        ("DII", "II"),
        ("D3", "III"),
        ("C4", "V4"),
        ("ECG II", "II"),
        ("MDC_ECG_LEAD_V2", "V2"),
        ("V1-ECG", "V1"),
        ("EKG aVL", "aVL"),
        ("V7", None),
        ("-aVR", None),
        ("PLETH", None),
        ("", None),
        ("ECG", None),
        ("I-II", None),
        ("I II", None),
        ("V1-V2", None),
        ("ECG LA-RA", "I"),
        ("LL-RA", "II"),
        ("RA-LA", None),
        ("II (filtered)", "II"),
        ("ECG (lead II)", "II"),
        ("EKG II-REF", "II"),
        ("C3-REF", None),
        ("a-VR", "aVR"),
        ("MDC_ECG_ELEC_POTL_AVF", "aVF"),
        ("2:1", "I"),
        ("MDC 2:317", "III"),
        ("131330", "II"),
        ("131134", "aVR"),
        ("5.6.3-9-64", "aVF"),
        ("2:99", None),
    ],
)
def test_spellings(name: str, expected: str | None) -> None:
    assert canonical_lead(name) == expected


def test_standard_names_are_their_own() -> None:
    assert [canonical_lead(name) for name in STANDARD_LEADS] == list(STANDARD_LEADS)


def test_unnamed_channels() -> None:
    assert is_unnamed("ECG") and is_unnamed("") and is_unnamed("ecg1")
    assert not is_unnamed("II") and not is_unnamed("RESP")


def test_the_first_channel_is_not_lead_i() -> None:
    assert [canonical_lead(name) for name in ("ECG1", "EKG 2", "ecg_3", "1")] == [None] * 4
    assert [
        canonical_lead(name) for name in ("Lead 1", "ECG lead 2", "D3", "MDC_ECG_LEAD_III")
    ] == ["I", "II", "III", "III"]
