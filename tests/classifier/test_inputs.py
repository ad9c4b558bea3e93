from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_records import BAD

from src.classifier.inputs import Input, NoInput, iter_inputs, iter_parts, iter_windows, to_input
from src.config import STANDARD_LEADS, PreprocessConfig
from src.learning.checkpoints import ModelCard
from src.preprocessing import build_tensor
from src.processed.normalization import Normalization
from src.records.reading import iter_records, read_record
from src.records.record import ECGRecord
from src.records.sample_collections import SampleData

SMALL = PreprocessConfig(fs=100.0, n_samples=1000)
CARD = ModelCard(("AF", "NORM"), True, preprocess=SMALL)


@pytest.fixture(scope="module")
def path(sample: SampleData) -> Path:
    return sorted(sample.data["synthetic_wfdb"].glob("*.hea"))[0]


def test_a_file_and_its_record_give_the_same_input(path: Path) -> None:
    of_file = next(iter_inputs(path, CARD))
    of_record = next(iter_inputs(read_record(path), CARD))
    assert isinstance(of_file, Input) and isinstance(of_record, Input)
    signals = [to_input(item.arrays, CARD) for item in (of_file, of_record)]
    assert signals[0].shape == (12, 1000) and torch.equal(*signals)
    assert of_file.facts == of_record.facts and of_file.facts.n_valid == 1000


def test_leads_and_scale_are_those_of_the_card(path: Path) -> None:
    arrays = build_tensor(read_record(path), SMALL).arrays
    card = dataclasses.replace(CARD, leads=("V2", "I"), normalization=Normalization("none"))
    millivolts = arrays["signal"] * arrays["lead_std"][:, None]
    rows = [STANDARD_LEADS.index("V2"), 0]
    np.testing.assert_allclose(to_input(arrays, card), millivolts[rows], atol=1e-6)


def test_records_in_memory_are_cut_like_files(path: Path) -> None:
    config = dataclasses.replace(SMALL, n_samples=300, window_s=3.0, stride_s=2.0)
    windows = list(iter_windows(read_record(path), config))
    of_file = list(iter_records(path, window_s=3.0, stride_s=2.0))
    assert [window.record_id for window in windows] == [
        window.record_id for window in of_file
    ] and len(windows) > 2
    for window, other in zip(windows, of_file, strict=True):
        np.testing.assert_array_equal(window.signal, other.signal)


def made(seconds: float, leads: tuple[str, ...] = STANDARD_LEADS, fs: float = 100.0) -> ECGRecord:
    """A record of noise whose samples tell where they were."""
    signal = np.random.default_rng(0).normal(0, 0.3, (len(leads), round(seconds * fs)))
    return ECGRecord("made", signal.astype(np.float32), fs, leads)


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [
        (4, [0]),
        (10, [0]),
        (10.05, [0]),  # half a hundredth more is no window
        (12, [0, 200]),
        (20, [0, 1000]),
        (25, [0, 750, 1500]),
    ],
)
def test_a_long_record_is_cut_into_windows_that_reach_both_ends(
    seconds: float, starts: list[int]
) -> None:
    record = made(seconds)
    parts = list(iter_parts(record, SMALL))
    assert parts[0] is record
    for part, start in zip(parts[1:], starts[1:], strict=True):
        np.testing.assert_array_equal(part.signal, record.signal[:, start : start + 1000])
    assert [part.record_id for part in parts[1:]] == [
        f"made__w0000{i}" for i in range(1, len(starts))
    ]
    assert len(list(iter_parts(record, SMALL, long="first"))) == 1


def test_facts_name_flags_and_absent_leads_of_the_network() -> None:
    record = made(10, ("II", "V1", "resp"))
    record.signal[1] = 2.0
    [made_input] = iter_inputs(record, dataclasses.replace(CARD, leads=("I", "II", "V1")))
    assert isinstance(made_input, Input)
    facts = made_input.facts
    assert facts.absent == ("I",) and facts.duration_s == 10
    assert {"flat:V1", "unknown_lead:resp"} <= set(facts.flags)
    assert facts.unfit == (
        "too few usable leads: 1 of 3, the network needs 3; "
        "absent, flat, off or of a wrong gain: I V1"
    )


def test_what_gives_no_input_says_why(tmp_path: Path) -> None:
    for write, status, reason in BAD.values():
        [answer] = iter_inputs(write(tmp_path), CARD)
        assert isinstance(answer, NoInput) and answer.status == status and reason in answer.reason
    unknown = ECGRecord("r", np.zeros((1, 500), np.float32), 100.0, ("pleth",))
    [rejected] = iter_inputs(unknown, CARD)
    assert isinstance(rejected, NoInput) and rejected.status == "rejected"
