from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch

from src.classifier.file_predictions import predict_files
from src.classifier.inputs import Input, iter_inputs, to_input
from src.classifier.onnx_export import compare_onnx, describe_input, export_onnx, score_onnx
from src.config import STANDARD_LEADS, ModelConfig, PreprocessConfig
from src.learning.checkpoints import Checkpoint, ModelCard, load_checkpoint, save_checkpoint
from src.model import MIN_SAMPLES, build_model, load_model, predict_logits, to_scores
from src.processed.normalization import Normalization
from src.records.reading import read_record
from src.records.sample_collections import SampleData
from src.utils import load_json

MISSING = [
    name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None
]
needs_extra = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not installed (requirements-export.txt)"
)

SMALL = PreprocessConfig(fs=100.0, n_samples=1000)


@pytest.fixture(scope="module")
def checkpoint(trained: Path) -> Checkpoint:
    return load_checkpoint(trained / "models" / "best.pth")


@pytest.fixture(scope="module")
def exported(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert export_onnx(checkpoint, out, int8=True) == [
        out,
        out.with_suffix(".json"),
        out.with_name("model_int8.onnx"),
    ]
    return out


def untrained(path: Path, **card: Any) -> Checkpoint:
    """A checkpoint of random weights that answers differently for different signals."""
    made = ModelCard(("A", "B", "C"), False, model=ModelConfig(base_channels=4), preprocess=SMALL)
    made = dataclasses.replace(made, **card)
    torch.manual_seed(0)
    model = build_model(made)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    save_checkpoint(path, made, model.state_dict())
    return load_checkpoint(path)


def expected(checkpoint: Checkpoint, signals: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        logits = predict_logits(load_model(checkpoint), signals, checkpoint.card.crop_samples)
    return to_scores(logits, checkpoint.card.single_label)


@needs_extra
@pytest.mark.parametrize(
    ("n_records", "n_samples"), [(1, 1000), (5, 1000), (2, 250), (1, 999), (3, 257), (2, 4096)]
)
def test_any_batch_and_any_length_get_the_same_probabilities(
    checkpoint: Checkpoint, exported: Path, n_records: int, n_samples: int
) -> None:
    signals = torch.randn(n_records, 12, n_samples)
    np.testing.assert_allclose(
        score_onnx(exported, signals.numpy()), expected(checkpoint, signals), atol=1e-5
    )


@needs_extra
@pytest.mark.parametrize(
    "card",
    [
        {"leads": ("V2", "I"), "crop_samples": 400},
        {
            "single_label": True,
            "crop_samples": 300,
            "model": ModelConfig(base_channels=4, lead_mask=True),
        },
        {"model": ModelConfig(base_channels=4, lead_mask=True)},
        {"model": ModelConfig(base_channels=4, network_args={"rhythm_fs": 100, "late_pool": True})},
    ],
)
def test_crops_leads_and_lead_masks_are_inside(tmp_path: Path, card: dict[str, Any]) -> None:
    checkpoint = untrained(tmp_path / "c.pth", **card)
    [path, _] = export_onnx(checkpoint, tmp_path / "m.onnx")
    signals = torch.randn(3, len(checkpoint.card.leads), 1000)
    signals[1, 0] = 0.0
    found = score_onnx(path, signals.numpy())
    np.testing.assert_allclose(found, expected(checkpoint, signals), atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01
    for n_records, n_samples in ((1, 401), (2, 777), (4, 2500)):
        others = torch.randn(n_records, len(checkpoint.card.leads), n_samples)
        others[0, :, 390:] = 0.0
        found = score_onnx(path, others.numpy())
        np.testing.assert_allclose(found, expected(checkpoint, others), atol=1e-5)


@needs_extra
def test_real_recordings_get_the_same_probabilities(
    checkpoint: Checkpoint, exported: Path, real_data: Callable[[str], Path]
) -> None:
    paths = sorted(real_data("challenge2021").rglob("*.hea"))[::10]
    inputs = [next(iter_inputs(path, checkpoint.card)) for path in paths]
    rows = predict_files(checkpoint, paths, long="first", predict_unfit=True)
    used = [
        (to_input(item.arrays, checkpoint.card), row.scores)
        for item, row in zip(inputs, rows, strict=True)
        if isinstance(item, Input)
    ]
    assert len(used) > 10
    found = score_onnx(exported, torch.stack([item for item, _ in used]).numpy())
    np.testing.assert_allclose(found, [scores for _, scores in used], atol=1e-5)


@needs_extra
def test_eight_bits_lose_little(checkpoint: Checkpoint, exported: Path, processed: Path) -> None:
    small = exported.with_name("model_int8.onnx")
    assert (
        small.stat().st_size < 0.6 * exported.stat().st_size
    )  # a quarter for a network of usual width
    full, quantized = (
        compare_onnx(checkpoint, path, processed, split="train") for path in (exported, small)
    )
    assert (
        full.largest_difference < 1e-5
        and full.auroc_macro == full.auroc_macro_torch == quantized.auroc_macro_torch
    )
    assert full.auroc_macro is not None and quantized.auroc_macro == pytest.approx(
        full.auroc_macro, abs=0.02
    )
    assert 1e-5 < quantized.largest_difference < 0.1
    assert f"on {full.n_records} records" in str(full)


@needs_extra
def test_exporting_says_nothing_and_leaves_whole_files(
    checkpoint: Checkpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export_onnx(checkpoint, tmp_path / "m.onnx", int8=True)
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.json", "m.onnx", "m_int8.onnx"]
    described = load_json(tmp_path / "m.json")
    assert described["classes"] == list(checkpoint.card.classes)


def test_the_description_has_all_that_an_input_needs() -> None:
    spread = Normalization("global", {"": 0.2}, 0.5)
    settings = dataclasses.replace(SMALL, window_s=10.0, stride_s=5.0)
    card = ModelCard(
        ("A", "B"),
        False,
        preprocess=settings,
        leads=("I", "V1"),
        normalization=spread,
        crop_samples=250,
        thresholds=(0.2, 0.4),
    )
    found = describe_input(card, MIN_SAMPLES)
    assert (found["fs"], found["leads"], found["classes"], found["single_label"]) == (
        100.0,
        ("I", "V1"),
        ("A", "B"),
        False,
    )
    assert (found["input"]["n_samples"], found["input"]["n_samples_min"]) == (1000, 251)
    assert found["normalization"] == {"mode": "global", "std_mv": {"": 0.2}, "highpass_hz": 0.5}
    assert (found["crops"]["crop_samples"], found["windows"]["stride_s"], found["thresholds"]) == (
        250,
        5.0,
        (0.2, 0.4),
    )
    assert "std_mv" in found["preprocessing"][-2] and "0.5" in found["preprocessing"][-1]
    assert "fewer than 2 of the 2 leads" in found["advice"][0]
    assert "gain_high" in found["advice"][1] and len(found["advice"]) == 2
    plain = describe_input(ModelCard(("A", "B"), True, preprocess=SMALL), MIN_SAMPLES)
    assert "cut a recording longer than 10 s into windows" in plain["advice"][2]
    assert "fewer than 1000 samples is only padded up to 250" in plain["preprocessing"][-1]
    assert (
        plain["crops"] is plain["windows"] is plain["thresholds"] is None
        and not plain["input"]["n_samples_is_fixed"]
    )


@pytest.mark.parametrize("highpass_hz", [0.0, 0.5])
@pytest.mark.parametrize("mode", ["zscore", "none"])
def test_the_description_can_be_followed_without_this_program(
    sample: SampleData, mode: str, highpass_hz: float
) -> None:
    """Its steps, done with NumPy and SciPy alone, make the same input."""
    record = read_record(
        sorted(sample.data["synthetic_mat"].glob("*.mat"))[0],
        source_fs=257,
        source_gain_per_mv=1000,
    )
    normalization = Normalization(mode, {}, highpass_hz)
    card = ModelCard(("A", "B"), True, preprocess=SMALL, normalization=normalization)
    ours = next(iter_inputs(record, card))
    assert isinstance(ours, Input)
    signal = record.signal[[record.leads.index(lead) for lead in STANDARD_LEADS]].astype(float)
    signal = scipy.signal.resample_poly(signal, 100, 257, axis=1, padtype="edge")[:, :1000]
    signal = signal - signal.mean(axis=1, keepdims=True)
    if highpass_hz:
        sections = scipy.signal.butter(2, 0.5, "highpass", fs=100, output="sos")
        signal = scipy.signal.sosfiltfilt(
            sections, signal, axis=1, padlen=min(200, signal.shape[1] - 1)
        )
        signal = signal - signal.mean(axis=1, keepdims=True)
    if mode == "zscore":
        signal = signal / signal.std(axis=1, keepdims=True)
    np.testing.assert_allclose(signal, to_input(ours.arrays, card), atol=1e-4)


def test_what_cannot_be_written_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"m\.pt: expected a name that ends in \.onnx"):
        export_onnx(checkpoint, tmp_path / "m.pt")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ValueError,
        match=r"export to ONNX needs the package onnx: pip install -r requirements-export\.txt",
    ):
        export_onnx(checkpoint, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
