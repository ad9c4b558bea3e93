from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_records import BAD

from src.classifier.inputs import NoInput, iter_inputs, iter_windows, to_input
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
    [of_file] = iter_inputs(path, CARD)
    [of_record] = iter_inputs(read_record(path), CARD)
    assert isinstance(of_file, torch.Tensor) and of_file.shape == (12, 1000)
    assert torch.equal(of_file, of_record)


def test_leads_and_scale_are_those_of_the_card(path: Path) -> None:
    arrays = build_tensor(read_record(path), SMALL).arrays
    card = dataclasses.replace(CARD, leads=("V2", "I"), normalization=Normalization("none"))
    millivolts = arrays["signal"] * arrays["lead_std"][:, None] + arrays["lead_mean"][:, None]
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


def test_what_gives_no_input_says_why(tmp_path: Path) -> None:
    for write, status, reason in BAD.values():
        [answer] = iter_inputs(write(tmp_path), CARD)
        assert isinstance(answer, NoInput) and answer.status == status and reason in answer.reason
    unknown = ECGRecord("r", np.zeros((1, 500), np.float32), 100.0, ("pleth",))
    assert next(iter_inputs(unknown, CARD)).status == "rejected"
