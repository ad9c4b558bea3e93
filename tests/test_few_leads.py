from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import CONFIG

from src.classifier.file_predictions import predict_files
from src.config import ModelConfig
from src.learning.checkpoints import load_checkpoint
from src.model import ResNet1d
from src.records.sample_collections import write_wfdb
from src.records.synthetic import generate_ecg
from src.training import run_training


def test_a_network_that_knows_what_is_absent_tells_it_from_a_flat_answer() -> None:
    torch.manual_seed(0)
    model = ResNet1d(3, 2, base_channels=8, lead_mask=True).eval()
    assert model.lead_mask is not None
    signal = torch.randn(1, 3, 300)
    signal[:, 2] = 0.0
    before = model(signal)
    torch.nn.init.normal_(model.lead_mask.weight)
    assert not torch.allclose(model(signal), before)
    whole = torch.randn(1, 3, 300)
    after = model(whole)
    torch.nn.init.normal_(model.lead_mask.weight)
    torch.testing.assert_close(model(whole), after)  # nothing absent, nothing added


@pytest.mark.parametrize(
    "leads", [("I",), ("I", "II", "V2"), ("I", "II", "III", "aVR", "aVL", "aVF")]
)
def test_one_checkpoint_serves_records_of_fewer_leads(
    processed: Path, tmp_path: Path, leads: tuple[str, ...]
) -> None:
    train = dataclasses.replace(CONFIG.train, epochs=1, lead_dropout=0.8, normalization="global")
    config = dataclasses.replace(
        CONFIG, train=train, model=ModelConfig(base_channels=8, lead_mask=True)
    )
    checkpoint = load_checkpoint(run_training(config, processed, tmp_path).best_path)
    record = generate_ecg("AF", fs=250.0, rng=np.random.default_rng(0), record_id="few")
    rows = [record.leads.index(lead) for lead in leads]
    write_wfdb(dataclasses.replace(record, signal=record.signal[rows], leads=leads), tmp_path)
    (answer,) = predict_files(checkpoint, [tmp_path / "few.hea"])
    assert (
        answer.status == "ok" and answer.scores is not None and abs(sum(answer.scores) - 1) < 1e-6
    )


def test_training_on_a_lead_subset(processed: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG, train=dataclasses.replace(CONFIG.train, epochs=1, leads=("II",))
    )
    card = run_training(config, processed, tmp_path).card
    assert (
        card.leads == ("II",)
        and load_checkpoint(tmp_path / "models" / "best.pth").weights["stem.0.weight"].shape[1] == 1
    )
