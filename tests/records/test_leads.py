from __future__ import annotations

import numpy as np
import pytest

from src.config import STANDARD_LEADS
from src.records.leads import canonical_lead, derive_limb_leads, is_unnamed


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
        ("I - II", None),
        ("II_I", None),
        ("aVL-III", None),
        ("ECG-II", "II"),
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


@pytest.mark.parametrize("pair", [("I", "II"), ("DI", "D3"), ("MLII", "lead III")])
def test_the_limb_leads_follow_from_any_two_of_three(pair: tuple[str, str]) -> None:
    lead_i, lead_ii = 0.3, 1.0
    values = {"I": 0.3, "II": 1.0, "III": 0.7, "aVR": -0.65, "aVL": -0.2, "aVF": 0.85}
    assert values["III"] == pytest.approx(lead_ii - lead_i)
    given = [values[canonical_lead(name) or ""] for name in pair]
    signal, leads, flags = derive_limb_leads(np.array(given, np.float32)[:, None], pair)
    found = {canonical_lead(name): float(row[0]) for name, row in zip(leads, signal, strict=True)}
    assert found == pytest.approx(values)
    assert set(flags) == {f"derived:{name}" for name in leads[2:]} and len(flags) == 4


def test_nothing_follows_from_one_limb_lead() -> None:
    signal = np.ones((2, 4), np.float32)
    assert derive_limb_leads(signal, ("II", "I-II")) == (signal, ("II", "I-II"), ())
