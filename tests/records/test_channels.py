from __future__ import annotations

import pytest

from src.config import STANDARD_LEADS
from src.records.channels import Channel, LeadNames, find_ecg, name_leads


def ecg_of(*names: str) -> list[str]:
    channels = tuple(Channel(name, unit="uV") for name in names)
    return [names[i] for i in find_ecg(channels).rows]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["RESP", "ECG"], ["ECG"]),
        (["ECG", "EEG (C4-A1)", "EOG"], ["ECG"]),
        (["EEG Fp1-REF", "EEG EKG-REF", "POL X1"], ["EEG EKG-REF"]),
        (["ECG1", "ECG2", "C3"], ["ECG1", "ECG2"]),
        (["C1", "C2", "I", "II"], ["C1", "C2", "I", "II"]),
        (["ECG", "D1", "D2"], ["ECG"]),
        (["ECG quality", "ECG", "ECG HR"], ["ECG"]),
        (["EEG", "", "Nasal pressure"], [""]),
        (["MLII", "V5", "VX", "Pleth"], ["MLII", "V5", "VX"]),
        (["MDC_ECG_LEAD_II", "MDC_PULS_OXIM_PLETH"], ["MDC_ECG_LEAD_II"]),
        (["2:1", "5.6.3-9-2", "SpO2"], ["2:1", "5.6.3-9-2"]),
        (["C3", "C4", "EMG"], []),
        (["my device"], ["my device"]),
    ],
)
def test_ecg_by_its_name_or_for_want_of_any_other(names: list[str], expected: list[str]) -> None:
    assert ecg_of(*names) == expected


def test_ecg_by_its_transducer() -> None:
    channels = (
        Channel("chan 1", "AgCl electrodes, EEG", "uV", 500),
        Channel("chan 2", "ECG electrode", "mV", 250),
        Channel("ECG gain", "", "dB"),
    )
    found = find_ecg(channels)
    assert found == ((1,), (2,), (0, 2))


def test_a_channel_that_the_user_names_is_an_ecg() -> None:
    channels = (Channel("Abdomen_1", unit="uV"), Channel("ECG", unit="uV"))
    assert find_ecg(channels).rows == (1,)
    assert find_ecg(channels, ("abdomen_1:V1",)).rows == (0, 1)


@pytest.mark.parametrize(
    "name",
    [
        "ECG", "", "ECG1-ECG2", "EKG1-REF", "ECG waveform", "POL EKG", "EEG EKG-REF",
        "ECG (filtered)", "ECG L-ECG R", "record 100, signal 0", "my device",
    ],
)  # fmt: skip
def test_one_ecg_of_unknown_lead_is_lead_i(name: str) -> None:
    assert name_leads((name,)) == (("I",), ("single_lead_as_I",))


@pytest.mark.parametrize("name", ["I-II", "V7", "-aVR", "ECG RA-LA", "ECG I-II", "pleth"])
def test_another_lead_or_signal_is_not_lead_i(name: str) -> None:
    assert name_leads((name,)) == ((None,), ())


def test_assumptions_about_several_channels() -> None:
    assert name_leads(("ECG LA-RA",)) == (("I",), ())
    assert name_leads(("ECG1", "ECG2")) == (("I", None), ("first_lead_as_I",))
    assert name_leads(("II", "ECG")) == (("II", None), ())
    twelve = tuple(f"ECG {i}" for i in range(1, 13))
    assert name_leads(twelve) == (STANDARD_LEADS, ("lead_names_assumed",))


def test_leads_named_by_the_user() -> None:
    assert LeadNames.parse(("II", "-", "V5")) == (("II", "-", "V5"), {})
    assert LeadNames.parse(("ECG1:II", "b: ECG:V5")).by_name == {"ecg1": "II", "b: ecg": "V5"}
    for texts, message in (
        (("ECG1",), "'ECG1': expected one of I, II"),
        (("II", "II"), "expected each lead once"),
        (("II", "ECG2:V5"), "all by place"),
    ):
        with pytest.raises(ValueError, match=message):
            LeadNames.parse(texts)
