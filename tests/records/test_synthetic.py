"""Sample recordings: classes are measured on clean signals."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks

from src.config import STANDARD_LEADS
from src.records.record import ECGRecord
from src.records.synthetic import (
    CLASSES,
    INDEPENDENT_LEADS,
    NoiseLevels,
    compatible_labels,
    compute_qt_s,
    generate_ecg,
    generate_patient,
)

FS = 500.0
SEEDS = range(12)
Array = NDArray[Any]


def clean(label: str, seed: int, duration_s: float = 10.0) -> ECGRecord:
    return generate_ecg(
        label, fs=FS, duration_s=duration_s, rng=np.random.default_rng(seed), noise=0
    )


def lead(record: ECGRecord, name: str) -> Array:
    return np.asarray(record.signal[record.leads.index(name)], dtype=np.float64)


@dataclass
class Beats:
    """QRS onset and end of the beats that lie whole in a clean record, in samples."""

    onsets: Array
    ends: Array

    @property
    def rr_s(self) -> Array:
        return np.diff(self.onsets) / FS

    @property
    def qrs_s(self) -> Array:
        return (self.ends - self.onsets) / FS


def find_beats(record: ECGRecord) -> Beats:
    """Find QRS complexes by speed; they end where the vector magnitude falls below 3 % of its
    peak.
    """
    vector = np.stack([lead(record, name) for name in INDEPENDENT_LEADS])
    magnitude = np.linalg.norm(vector, axis=0)
    speed = uniform_filter1d(np.linalg.norm(np.gradient(vector, axis=1), axis=0), round(0.12 * FS))
    centres, _ = find_peaks(speed, height=0.3 * speed.max(), distance=round(0.25 * FS))
    limits = []
    for centre in centres[(centres > 0.4 * FS) & (centres < record.n_samples - 0.5 * FS)]:
        low = magnitude < 0.03 * magnitude[centre - 50 : centre + 50].max()
        limits.append((centre - np.argmax(low[centre::-1]), centre + np.argmax(low[centre:])))
    onsets, ends = np.array(limits).T
    return Beats(onsets, ends)


def pr_s(record: ECGRecord) -> float:
    """Measure the PR interval in lead II: P begins where it rises over an eighth of its height."""
    ii, values = lead(record, "II"), []
    for onset in find_beats(record).onsets:
        before = ii[onset - 180 : onset]
        peak = find_peaks(before, prominence=0.01)[0][-1]
        foot = before[max(peak - 45, 0) : peak] < before[peak] / 8
        values.append((before.size - (peak - np.argmax(foot[::-1]))) / FS)
    return float(np.median(values))


def st_level_mv(record: ECGRecord, name: str) -> float:
    """Measure 60 ms after the usual end of QRS against the PR segment."""
    signal, onsets = lead(record, name), find_beats(record).onsets
    return float(np.median(signal[onsets + round(0.15 * FS)] - signal[onsets - round(0.01 * FS)]))


def test_leads_follow_einthoven_and_goldberger_with_and_without_noise() -> None:
    for noise in (0.0, 1.0, 5.0):
        record = generate_ecg("NORM", fs=FS, rng=np.random.default_rng(0), noise=noise)
        i, ii, iii, avr, avl, avf = record.signal[:6].astype(np.float64)
        np.testing.assert_allclose(iii, ii - i, atol=1e-6)
        np.testing.assert_allclose(avr, -(i + ii) / 2, atol=1e-6)
        np.testing.assert_allclose(avl, i - ii / 2, atol=1e-6)
        np.testing.assert_allclose(avf, ii - i / 2, atol=1e-6)


@pytest.mark.parametrize("label", CLASSES)
@pytest.mark.parametrize(
    ("fs", "duration_s", "n"), [(257.0, 10, 2570), (100.0, 0.5, 50), (50.0, 0.02, 1)]
)
def test_record_has_the_length_and_names_asked_for(
    label: str, fs: float, duration_s: float, n: int
) -> None:
    record = generate_ecg(
        label, fs=fs, duration_s=duration_s, rng=np.random.default_rng(1), record_id="x"
    )
    assert (record.leads, record.codes, record.record_id, record.fs) == (
        STANDARD_LEADS,
        (label,),
        "x",
        fs,
    )
    assert record.signal.shape == (12, n)
    assert record.signal.dtype == np.float32
    assert np.isfinite(record.signal).all()


def test_normal_beats_have_adult_voltages_and_intervals() -> None:
    for seed in SEEDS:
        record = clean("NORM", seed)
        beats, onset = find_beats(record), find_beats(record).onsets[1]
        r = {name: lead(record, name)[onset : onset + 60].max() for name in STANDARD_LEADS}
        s = {name: lead(record, name)[onset : onset + 60].min() for name in STANDARD_LEADS}
        assert r["V1"] < r["V2"] < r["V3"] < r["V4"] < 1.15 * r["V5"]
        assert 0.1 < r["V1"] < -s["V1"] < 2  # rS
        assert s["aVR"] < -0.4
        assert 0.6 < r["V5"] < 2.6
        assert ((beats.qrs_s > 0.065) & (beats.qrs_s < 0.11)).all()
        assert 0.11 < pr_s(record) < 0.2
        assert 60 <= 60 / beats.rr_s.mean() <= 100
        assert beats.rr_s.std() / beats.rr_s.mean() < 0.05
        assert all(abs(st_level_mv(record, name)) < 0.06 for name in STANDARD_LEADS)


def test_t_wave_follows_the_rate() -> None:
    assert compute_qt_s(0.41, 1.0) == pytest.approx(0.41)
    assert compute_qt_s(0.41, 0.512) == pytest.approx(0.41 * 0.8)  # cube root of 0.512
    peaks = {}
    for label in ("BRADY", "TACHY"):
        v4, onset = lead(clean(label, 3), "V4"), find_beats(clean(label, 3)).onsets[1]
        peaks[label] = (60 + np.argmax(v4[onset + 60 : onset + 200])) / FS
    assert 0.33 < peaks["BRADY"] < 0.42
    assert 0.22 < peaks["TACHY"] < 0.3


@pytest.mark.parametrize(("label", "low", "high"), [("BRADY", 35, 60), ("TACHY", 100, 160)])
def test_rates(label: str, low: float, high: float) -> None:
    for seed in SEEDS:
        assert low < 60 / find_beats(clean(label, seed)).rr_s.mean() < high


def test_fibrillation_is_irregular_and_has_no_p_waves() -> None:
    for seed in SEEDS:
        record = clean("AF", seed, duration_s=30)
        beats, ii = find_beats(record), lead(record, "II")
        assert beats.rr_s.std() / beats.rr_s.mean() > 0.13
        after_pauses = beats.onsets[1:][beats.rr_s > 0.65]
        before = np.mean([ii[onset - 90 : onset - 10] for onset in after_pauses], axis=0)
        assert np.ptp(before) < 0.07  # f waves cancel in the mean, P waves would not


def test_first_degree_block_has_a_long_pr_interval() -> None:
    for seed in SEEDS:
        assert 0.2 < pr_s(clean("AVB1", seed)) < 0.36


@pytest.mark.parametrize(("label", "v1_sign"), [("LBBB", -1), ("RBBB", 1)])
def test_bundle_branch_blocks_are_wide_with_late_forces_to_their_side(
    label: str, v1_sign: int
) -> None:
    for seed in SEEDS:
        record = clean(label, seed)
        beats = find_beats(record)
        assert ((beats.qrs_s > 0.12) & (beats.qrs_s < 0.19)).all()
        onset, end = beats.onsets[1], beats.ends[1]
        late = slice((onset + end) // 2 + 10, end)
        t_wave = slice(end + 60, end + 130)
        for name, sign in (("V1", v1_sign), ("V6", -v1_sign), ("I", -v1_sign)):
            assert sign * lead(record, name)[late].mean() > 0.05
            assert sign * lead(record, name)[t_wave].mean() < 0
        assert lead(record, "V1")[onset:end].sum() * v1_sign > 0 or label == "RBBB"


def test_ectopic_beats_are_early_wide_and_discordant_with_a_compensatory_pause() -> None:
    for seed in SEEDS:
        record = clean("PVC", seed)
        beats = find_beats(record)
        vector = np.stack([lead(record, name) for name in INDEPENDENT_LEADS])
        wide = np.flatnonzero(beats.qrs_s > 0.12)
        assert 1 <= wide.size < beats.onsets.size / 2
        sinus_rr = np.median(beats.rr_s)
        for k in wide[(wide > 0) & (wide < beats.rr_s.size)]:
            assert beats.rr_s[k - 1] < 0.8 * sinus_rr
            assert beats.rr_s[k - 1] + beats.rr_s[k] == pytest.approx(2 * sinus_rr, rel=0.1)
            onset, end = beats.onsets[k], beats.ends[k]
            assert (
                vector[:, onset:end].mean(axis=1) @ vector[:, end + 75 : end + 125].mean(axis=1) < 0
            )


def test_st_elevation_in_one_territory_with_reciprocal_depression() -> None:
    territories: Counter[str] = Counter()
    for seed in SEEDS:
        record = clean("STE", seed)
        st = {name: st_level_mv(record, name) for name in STANDARD_LEADS}
        if st["V3"] > 0.2:
            territories["anterior"] += 1
            assert st["V2"] > 0.2
            assert st["III"] < -0.05
        else:
            territories["inferior"] += 1
            assert min(st["II"], st["III"], st["aVF"]) > 0.1
            assert st["aVL"] < -0.05
    assert len(territories) == 2


def test_noise_levels() -> None:
    def noise_of(noise: NoiseLevels, fs: float = FS) -> Array:
        noisy, base = (
            generate_ecg(
                "NORM", fs=fs, duration_s=100, rng=np.random.default_rng(4), noise=level
            ).signal
            for level in (noise, 0)
        )
        return (noisy - base)[[STANDARD_LEADS.index(name) for name in INDEPENDENT_LEADS]]

    assert noise_of(NoiseLevels(0.02, 0, 0)).std() == pytest.approx(0.02, rel=0.02)
    both = noise_of(NoiseLevels(0, 0.1, 0.05))
    spectrum = np.abs(np.fft.rfft(both * np.hanning(both.shape[1]))).sum(axis=0)  # bins of 0.01 Hz
    assert np.argmax(spectrum[10:4000]) + 10 in range(15, 36)
    assert np.argmax(spectrum[4000:]) + 4000 == 5000
    assert not noise_of(NoiseLevels(0, 0, 0.1), fs=90).any()  # 50 Hz is above the Nyquist frequency


def test_same_seed_same_record_and_other_seed_other_record() -> None:
    assert np.array_equal(clean("AF", 5).signal, clean("AF", 5).signal)
    assert not np.allclose(clean("AF", 5).signal, clean("AF", 6).signal, atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"label": "VT"},
            "'VT': expected one of NORM, AF, LBBB, RBBB, AVB1, PVC, STE, BRADY, TACHY",
        ),
        ({"label": "AF;TACHY"}, "exclude each other"),
        ({"label": "NORM;LBBB"}, "exclude each other"),
        ({"fs": 10.0}, "fs is 10.0"),
        ({"duration_s": float("nan")}, "duration_s nan"),
        ({"noise": -1.0}, "noise is -1.0"),
    ],
)
def test_errors_name_the_value_and_the_choices(arguments: dict[str, Any], message: str) -> None:
    defaults: dict[str, Any] = {"label": "NORM", "fs": FS, "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match=message):
        generate_ecg(**(defaults | arguments))
    with pytest.raises(ValueError, match="white_mv is -1"):
        NoiseLevels(white_mv=-1)


def test_two_labels_show_both_properties() -> None:
    assert set(compatible_labels("AVB1")) == {"LBBB", "RBBB", "PVC", "STE", "BRADY"}
    assert not compatible_labels("NORM")
    record = clean("AVB1;RBBB", 2)
    assert record.codes == ("AVB1", "RBBB")
    assert pr_s(record) > 0.2
    assert (find_beats(record).qrs_s > 0.12).all()


def test_patients_differ() -> None:
    patients = [generate_patient(np.random.default_rng(seed)) for seed in range(40)]
    assert {patient.sex for patient in patients} == {"male", "female"}
    assert all(18 <= patient.age <= 92 for patient in patients)
    assert all(a != b for a, b in pairwise(patients))
