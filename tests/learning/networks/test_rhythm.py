from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb
from torch import Tensor

from src.learning.networks.resnet1d import ResNet1d
from src.learning.networks.rhythm import (
    N_MEASURES,
    RhythmFeatures,
    find_beats,
    measure_rhythm,
)
from src.records.synthetic import generate_annotated_ecg, generate_ecg

(
    RATE,
    COUNT,
    SPREAD,
    STEP_SPREAD,
    STEP_MEDIAN,
    STEP_LARGEST,
    ALIKE_NEXT,
    ALIKE_SECOND,
    LONGEST,
    SHORTEST,
) = range(10)


def spikes(times_s: list[float], fs: float, duration_s: float = 10.0, n_leads: int = 2) -> Tensor:
    """Return narrow bells at these times, (1, n_leads, T)."""
    times = torch.arange(round(duration_s * fs)) / fs
    beats = [torch.exp(-(((times - at) / 0.012) ** 2)) for at in times_s]
    return torch.stack(beats).sum(dim=0).expand(1, n_leads, -1).contiguous()


def beats_of(intervals_s: list[float], first_s: float = 0.31) -> list[float]:
    return (first_s + np.cumsum([0.0, *intervals_s])).tolist()


def measures(intervals_s: list[float], fs: float = 250.0) -> Tensor:
    return measure_rhythm(find_beats(spikes(beats_of(intervals_s), fs), fs))[0]


@pytest.mark.parametrize("fs", [100.0, 250.0, 500.0])
def test_beats_are_found_between_samples(fs: float) -> None:
    times = beats_of([0.8, 0.75, 0.83, 0.4, 1.2, 0.777])
    beats = find_beats(spikes(times, fs), fs)
    assert beats.times_s.shape == beats.found.shape == (1, 64)
    assert beats.found[0].nonzero().flatten().tolist() == list(range(len(times)))
    np.testing.assert_allclose(beats.times_s[0, : len(times)], times, atol=0.004)
    np.testing.assert_allclose(beats.heights[0, : len(times)], 1.0, atol=0.1)


@pytest.mark.parametrize("label", ["NORM", "AF", "PVC"])
@pytest.mark.parametrize("fs", [100.0, 500.0])
def test_beats_of_generated_recordings_are_found(label: str, fs: float) -> None:
    rng = np.random.default_rng(5)
    for _ in range(5):
        record, made = generate_annotated_ecg(label, fs=fs, duration_s=10.0, rng=rng)
        beats = find_beats(torch.from_numpy(record.signal)[None], fs)
        found = beats.times_s[beats.found].numpy()
        known = np.array([beat.time_s for beat in made])
        inside = known[(known > 0.3) & (known < 9.7)]
        assert np.abs(found[:, None] - inside).min(axis=0).max() < 0.1
        assert len(inside) <= len(found) <= len(inside) + 2


def test_beats_of_real_recordings_are_those_of_their_annotations(
    real_data: Callable[[str], Path],
) -> None:
    n_known = n_found = n_right = 0
    for header in sorted(real_data("mitdb_ds1").glob("*.hea"))[:8]:
        record = str(header.with_suffix(""))
        signal, _ = wfdb.rdsamp(record, sampto=360 * 300)
        annotation = wfdb.rdann(record, "atr", sampto=360 * 300)
        is_beat = np.isin(annotation.symbol, list("NLRBAaJSVrFejnE/fQ"))
        windows = torch.from_numpy(signal.T.astype(np.float32)).view(2, 30, 3600).transpose(0, 1)
        beats = find_beats(windows, 360.0)
        start = torch.arange(30)[:, None] * 10.0
        found = (beats.times_s + start)[beats.found].numpy()
        known = annotation.sample[is_beat] / 360
        n_known, n_found = n_known + len(known), n_found + len(found)
        n_right += int((np.abs(known[:, None] - found).min(axis=1) < 0.1).sum())
    assert n_known > 2000
    assert n_right / n_known > 0.98 and n_right / n_found > 0.98


def test_a_regular_rhythm_has_no_spread() -> None:
    found = measures([0.8] * 10)
    assert found[RATE] == pytest.approx(np.log(0.8), abs=0.005) and found[COUNT] == 10
    for place in (SPREAD, STEP_SPREAD, STEP_MEDIAN):
        assert found[place].exp() - 0.005 < 0.003
    assert abs(found[LONGEST]) < 0.01 and abs(found[SHORTEST]) < 0.01


def test_intervals_are_measured_as_by_hand() -> None:
    intervals = [0.8, 0.9, 0.7, 0.85, 0.75, 0.8, 0.95, 0.65]
    logs = np.log(intervals)
    found = measures(intervals).numpy()
    steps = np.abs(np.diff(logs))
    middle = found[RATE]
    assert np.abs(np.sort(logs)[[3, 4]] - middle).min() < 0.005
    assert np.exp(found[SPREAD]) - 0.005 == pytest.approx(logs.std(), abs=0.003)
    assert np.exp(found[STEP_SPREAD]) - 0.005 == pytest.approx(
        np.sqrt((steps**2).mean()), abs=0.004
    )
    assert np.exp(found[STEP_LARGEST]) - 0.005 == pytest.approx(steps.max(), abs=0.006)
    assert found[LONGEST] == pytest.approx(logs.max() - middle, abs=0.006)
    assert found[SHORTEST] == pytest.approx(logs.min() - middle, abs=0.006)


def test_bigeminy_is_told_from_an_irregular_rhythm_of_the_same_spread() -> None:
    bigeminy = measures([0.6, 1.0] * 5)
    drifting = measures([0.6] * 5 + [1.0] * 5)
    assert bigeminy[SPREAD] == pytest.approx(float(drifting[SPREAD]), abs=0.05)
    assert bigeminy[ALIKE_NEXT] < -0.7 and bigeminy[ALIKE_SECOND] > 0.6
    assert drifting[ALIKE_NEXT] > 0.6


def test_size_polarity_offset_and_absent_leads_do_not_matter() -> None:
    times = beats_of([0.8, 0.9, 0.7, 0.85, 0.75])
    signal = spikes(times, 250.0, n_leads=3)
    expected = measure_rhythm(find_beats(signal, 250.0))
    others = signal * torch.tensor([0.2, -3.0, 1.0])[:, None] + 5.0
    torch.testing.assert_close(
        measure_rhythm(find_beats(others, 250.0)), expected, atol=1e-3, rtol=1e-3
    )
    alone = signal.clone()
    alone[:, 1:] = 0.0
    torch.testing.assert_close(
        measure_rhythm(find_beats(alone, 250.0)), expected, atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("n_samples", [250, 257, 1000, 8000])
@pytest.mark.parametrize("fs", [100.0, 500.0])
def test_any_signal_has_finite_measurements(n_samples: int, fs: float) -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, n_samples).expand(12, -1)
    noise = torch.randn(12, n_samples)
    spike = torch.zeros(12, n_samples)
    spike[:, n_samples // 2] = 1e6
    signals = torch.stack([torch.zeros(12, n_samples), ramp, noise, spike, noise * 1e-9])
    found = measure_rhythm(find_beats(signals, fs))
    assert found.shape == (5, N_MEASURES) and torch.isfinite(found).all()
    assert found[0, COUNT] == 0


@pytest.mark.parametrize("n_valid", [600, 450, 300])
def test_padding_does_not_matter(n_valid: int) -> None:
    record = generate_ecg("NORM", fs=100.0, rng=np.random.default_rng(1))
    signal = torch.from_numpy(record.signal)[None]
    alone = signal[:, :, :n_valid] - signal[:, :, :n_valid].mean(dim=2, keepdim=True)
    padded = torch.nn.functional.pad(alone, (0, 1000 - n_valid))
    found, expected = (measure_rhythm(find_beats(x, 100.0)) for x in (padded, alone))
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)


def test_an_artefact_on_a_flat_record_is_limited() -> None:
    signal = 1e-4 * torch.randn(1, 1, 1000, generator=torch.Generator().manual_seed(0))
    signal[0, 0, 500:503] = 5.0
    assert measure_rhythm(find_beats(signal, 100.0))[0, 12:].max() <= 20


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_other_types_get_features_of_theirs(dtype: torch.dtype) -> None:
    model = RhythmFeatures(250.0).eval().to(dtype)
    signal = spikes(beats_of([0.8, 0.9, 0.7]), 250.0).to(dtype)
    assert model(signal).dtype == dtype and torch.isfinite(model(signal)).all()


def test_a_batch_of_one_trains() -> None:
    model = RhythmFeatures(250.0).train()
    signal = spikes(beats_of([0.8, 0.9, 0.7]), 250.0)
    assert torch.isfinite(model(signal)).all()
    assert torch.equal(model.scale.running_mean, torch.zeros(N_MEASURES))
    model(torch.cat([signal, signal]))
    assert not torch.equal(model.scale.running_mean, torch.zeros(N_MEASURES))


def test_records_of_a_batch_do_not_matter_to_each_other() -> None:
    torch.manual_seed(0)
    signals = torch.randn(4, 12, 1000)
    model = RhythmFeatures(100.0).eval()
    together = model(signals)
    for number in range(4):
        torch.testing.assert_close(model(signals[number : number + 1])[0], together[number])


def test_resnet1d_classifies_by_them_too() -> None:
    torch.manual_seed(0)
    model = ResNet1d(2, 3, base_channels=8, rhythm_fs=250.0).eval()
    regular, irregular = (
        spikes(beats_of(intervals), 250.0)
        for intervals in ([0.8] * 10, [0.8, 0.5, 1.1, 0.6, 1.0, 0.9, 0.7])
    )
    features = model.features(regular)
    assert features.shape == (1, 72 + RhythmFeatures.n_features)
    assert torch.equal(model.head(features), model(regular))
    assert not torch.equal(model.features(irregular)[:, 72:], features[:, 72:])
    for rate in (20, "100", True, float("nan")):
        with pytest.raises(ValueError, match="expected 0, or a rate of 50 to 4000 Hz"):
            ResNet1d(2, 3, rhythm_fs=rate)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="late_pool is 'no': expected true or false"):
        ResNet1d(2, 3, late_pool="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_measures_in_full(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    signal = spikes(beats_of([0.8, 0.9, 0.7, 0.85, 0.75]), 250.0)
    model = RhythmFeatures(250.0).eval()
    with torch.autocast("cpu", dtype=dtype):
        found = model(signal)
    torch.testing.assert_close(found.float(), model(signal), atol=0.02, rtol=0.02)
