from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from src.config import STANDARD_LEADS, PreprocessConfig, QualityConfig, from_dict
from src.preprocessing import build_tensor
from src.processed.quality import find_rejection, measure_quality, quality_flags
from src.processed.runs.tasks import RejectedError
from src.processed.signals import order_leads
from src.records.reading import read_record
from src.records.record import ECGRecord
from src.utils import Float32Array

FS = 500.0
ALL = np.ones((1, 12), bool)
TIME = np.arange(5000) / FS
# Sizes of a healthy heart's beats, so that limb leads obey their equations and the chest leads
# explain them
SIZES = {"I": 0.6, "II": 1.0, "V1": -0.5, "V2": -0.2, "V3": 0.4, "V4": 1.2, "V5": 1.2, "V6": 1.0}


def heart(fs: float = FS, seconds: float = 10.0) -> Float32Array:
    """Return twelve leads with a narrow beat every 0.8 s and no noise."""
    time = np.arange(round(seconds * fs)) / fs
    beat = np.exp(-0.5 * (((time + 0.4) % 0.8 - 0.4) / 0.015) ** 2)
    wave = 0.25 * np.exp(-0.5 * (((time + 0.15) % 0.8 - 0.4) / 0.04) ** 2)
    leads = {name: size * (beat + wave) for name, size in SIZES.items()}
    one, two = leads["I"], leads["II"]
    leads |= {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return np.stack([leads[name] for name in STANDARD_LEADS]).astype(np.float32)


def flags(
    signal: Float32Array, fs: float = FS, limits: QualityConfig | None = None, max_mv: float = 10.0
) -> list[str]:
    return quality_flags(
        measure_quality([signal], fs, ALL), ALL, limits or QualityConfig(), max_mv
    )[0]


def row(name: str) -> int:
    return STANDARD_LEADS.index(name)


def with_lead(name: str, values: object) -> Float32Array:
    signal = heart()
    signal[row(name)] += np.asarray(values, np.float32)
    return signal


@pytest.mark.parametrize("fs", [100.0, 250.0, 257.0, 500.0, 1000.0])
def test_a_clean_recording_has_no_flag(fs: float) -> None:
    assert flags(heart(fs), fs) == []


def test_measures_are_in_mv_and_seconds() -> None:
    signal = with_lead("V3", 0.03 * np.sin(2 * np.pi * 50 * TIME))
    signal[row("V4"), 2000:3500] = 0.7
    measures = measure_quality([signal], FS, ALL)
    assert measures.hum_mv[0, 0, row("V3")] == pytest.approx(0.03, rel=0.02)
    assert measures.hum_mv[1, 0, row("V3")] < 0.001
    assert measures.still_s[0, row("V4")] == pytest.approx(3.0)
    assert measures.amplitude_mv[0, row("II")] == pytest.approx(1.0, abs=0.01)
    assert measures.highest_mv.tolist() == [signal.max(axis=1).tolist()]
    assert measures.lowest_mv.tolist() == [signal.min(axis=1).tolist()]


@pytest.mark.parametrize(
    ("lead", "added", "expected"),
    [
        ("V2", 0.04 * np.sin(2 * np.pi * 50 * TIME), ["hum50:V2"]),
        ("V2", 0.04 * np.sin(2 * np.pi * 60 * TIME + 1), ["hum60:V2"]),
        ("V6", 0.8 * np.sin(2 * np.pi * 0.2 * TIME), ["wander:V6"]),
        (
            "V4",
            0.06 * np.random.default_rng(0).normal(size=5000) * np.sqrt(5000 / 500),
            ["noise:V4"],
        ),
        ("V3", 0.2 * np.sin(2 * np.pi * 35 * TIME) * (abs(TIME - 5) < 0.8), ["burst:V3"]),
        ("V5", 11.0 * np.exp(-TIME), ["amplitude:V5", "wander:V5", "offset:V5"]),
    ],
)
def test_each_disturbance_has_its_flag(lead: str, added: object, expected: list[str]) -> None:
    assert flags(with_lead(lead, added)) == expected


def test_hum_beyond_the_reach_of_the_rate_is_not_guessed() -> None:
    time = np.arange(1000) / 100.0
    assert (
        flags(
            heart(100.0) + np.float32(0.001) * np.sin(2 * np.pi * 50 * time + 1).astype(np.float32),
            100.0,
        )
        == []
    )
    assert not measure_quality([heart(100.0)], 100.0, ALL).hum_mv.any()


def test_clipping_is_told_from_rounded_peaks() -> None:
    clipped = heart()
    clipped[row("V4")] = np.minimum(clipped[row("V4")], 0.5)
    assert flags(clipped) == ["clipped:V4"]
    assert flags((heart() / 0.005).round().astype(np.float32) * np.float32(0.005)) == []


def test_a_lead_lost_on_the_way_is_flat_in_part() -> None:
    signal = heart()
    signal[row("V2"), 3000:] = 0.1
    assert flags(signal) == ["flat_part:V2"]


@pytest.mark.parametrize(("gain", "expected"), [(1 / 4.88, ["gain_low"]), (10.0, ["gain_high"])])
def test_an_implausible_gain_is_flagged_once(gain: float, expected: list[str]) -> None:
    signal = heart() - heart().mean(axis=1, keepdims=True)
    assert flags(signal * np.float32(gain), max_mv=100) == expected


def test_equations_name_the_lead_that_breaks_them() -> None:
    signal = heart()
    signal[row("III")] *= -1
    assert flags(signal) == ["limb_equation:III"]
    signal = heart()
    signal[row("aVL")] = signal[row("aVF")]
    assert flags(signal) == ["limb_equation:aVL"]


def test_swapped_arm_electrodes_keep_the_equations_and_are_found() -> None:
    good = heart()
    swapped = good.copy()
    for name, source, sign in (
        ("I", "I", -1),
        ("II", "III", 1),
        ("III", "II", 1),
        ("aVR", "aVL", 1),
        ("aVL", "aVR", 1),
    ):
        swapped[row(name)] = sign * good[row(source)]
    assert flags(swapped) == ["limb_swap:RA-LA"]
    swapped = good.copy()
    for name, source, sign in (
        ("I", "III", -1),
        ("II", "II", -1),
        ("III", "I", -1),
        ("aVR", "aVF", 1),
        ("aVF", "aVR", 1),
    ):
        swapped[row(name)] = sign * good[row(source)]
    assert flags(swapped) == ["limb_swap:RA-LL"]


def test_absent_leads_have_no_flags() -> None:
    signal = np.zeros((12, 5000), np.float32)
    signal[1] = heart()[1]
    present = np.arange(12)[None] == 1
    assert quality_flags(
        measure_quality([signal], FS, present), present, QualityConfig(), 10.0
    ) == [[]]
    assert measure_quality([signal], FS, present).swap_ratios.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("n_samples", [1, 3, 99, 101, 501])
def test_short_recordings_are_measured_too(n_samples: int) -> None:
    measures = measure_quality([heart()[:, :n_samples]], FS, ALL)
    assert np.isfinite(measures.noise_mv).all() and measures.amplitude_mv.shape == (1, 12)


def test_recordings_measured_together_are_measured_as_alone() -> None:
    dead, still = heart(), heart()
    dead[1], still[row("V4"), 2000:3500] = 0.0, 0.7
    clipped = np.minimum(with_lead("V3", 0.5 * np.sin(2 * np.pi * TIME)), 0.6)
    noisy = with_lead("V1", 0.02 * np.random.default_rng(0).normal(size=5000) * np.sqrt(5000 / 500))
    several = [dead, heart(), still, clipped.astype(np.float32), noisy]
    present = np.repeat(ALL, len(several), axis=0)
    present[0, 1] = False
    together = measure_quality(several, FS, present)
    for i, signal in enumerate(several):
        alone = measure_quality([signal], FS, present[i : i + 1])
        for name, values in vars(alone).items():
            np.testing.assert_array_equal(
                getattr(together, name)[..., i, :], values[..., 0, :], err_msg=name
            )
        assert (
            quality_flags(together, present, QualityConfig(), 10.0)[i]
            == quality_flags(alone, present[i : i + 1], QualityConfig(), 10.0)[0]
        )


def test_rules_reject_by_kind_and_number_of_leads() -> None:
    held = ["flat:V1", "flat:V2", "gain_low"]
    assert find_rejection(held, ()) == find_rejection(held, ("flat:3", "noise")) == ""
    assert (
        find_rejection(held, ("flat:2",))
        == "quality: flat in V1, V2, which reject_flags=flat:2 keeps out"
    )
    assert (
        find_rejection(held, ("gain_low",))
        == "quality: gain_low, which reject_flags=gain_low keeps out"
    )


def test_limits_reject_a_record_with_its_flags() -> None:
    record = ECGRecord(
        "r", with_lead("V6", 0.8 * np.sin(2 * np.pi * 0.2 * TIME)), FS, STANDARD_LEADS
    )
    assert build_tensor(record, PreprocessConfig()).flags == ("wander:V6",)
    strict = replace(PreprocessConfig(), quality=QualityConfig(reject_flags=("wander",)))
    with pytest.raises(RejectedError, match="quality: wander in V6") as caught:
        build_tensor(record, strict)
    assert caught.value.flags == ("wander:V6",)


def test_wrong_limits_are_refused() -> None:
    with pytest.raises(
        ValueError, match="reject_flags is 'wonder': expected some of amplitude, flat"
    ):
        from_dict(PreprocessConfig, {"quality": {"reject_flags": ["wonder"]}})
    with pytest.raises(ValueError, match="flat:N with N leads, 1 or more"):
        QualityConfig(reject_flags=("flat:0",))
    with pytest.raises(ValueError, match=r"amplitude_high_mv is 0\.1"):
        QualityConfig(amplitude_high_mv=0.1)


@pytest.mark.parametrize("fs", [100.0, 500.0, 1000.0])
@pytest.mark.parametrize("noise_mv", [0.002, 0.005, 0.01])
def test_a_lead_of_a_few_microvolts_of_noise_is_off(fs: float, noise_mv: float) -> None:
    signal = heart(fs)
    rng = np.random.default_rng(0)
    signal[row("V3")] = rng.normal(scale=noise_mv, size=signal.shape[1])
    assert flags(signal, fs) == ["lead_off:V3"]


@pytest.mark.parametrize("lead", ["II", "V4", "V6"])
def test_a_lead_ten_times_its_neighbours_has_an_odd_gain(lead: str) -> None:
    signal = heart()
    signal[row(lead)] *= 10
    found = flags(signal, max_mv=100)
    assert [flag for flag in found if flag.startswith("gain")] == [f"gain_high:{lead}"]


def test_an_offset_is_flagged_whatever_its_sign() -> None:
    assert flags(with_lead("V2", 0.7)) == ["offset:V2"]
    assert flags(with_lead("V2", -5.0)) == ["offset:V2"]
    assert flags(with_lead("V2", 0.3)) == []


def test_chest_leads_in_reverse_order_are_no_swapped_limbs() -> None:
    signal = heart()
    signal[6:] = signal[:5:-1].copy()
    assert flags(signal) == ["chest_order"]


def no_ecgs(fs: float = 500.0) -> dict[str, Float32Array]:
    """Return twelve leads of what is no ECG, in mV."""
    rng = np.random.default_rng(3)
    time = np.arange(round(10 * fs)) / fs
    phases = np.arange(12)[:, None]
    noise = rng.normal(size=(12, len(time)))
    pulse = np.sin(2.2 * np.pi * time + phases) + 0.4 * np.sin(4.4 * np.pi * time + phases)
    signals = {
        "noise": noise,
        "walk": noise.cumsum(axis=1) / 10,
        "sine": np.sin(2 * np.pi * 1.2 * time + phases),
        "mains": np.sin(2 * np.pi * 50 * time + phases),
        "pulse wave": pulse,
        "ramp": time + 0 * phases,
        "step": (time > 5) + 0.01 * noise,
        "uniform": rng.uniform(size=noise.shape),
    }
    return {name: signal.astype(np.float32) for name, signal in signals.items()}


@pytest.mark.parametrize("name", list(no_ecgs()))
@pytest.mark.parametrize("fs", [100.0, 500.0])
def test_what_has_no_beats_is_no_ecg(name: str, fs: float) -> None:
    if name == "mains" and fs == 100.0:
        pytest.skip("50 Hz cannot be sampled at 100 Hz")
    assert "not_an_ecg" in flags(no_ecgs(fs)[name], fs, max_mv=1000)


def test_one_lead_with_beats_is_enough() -> None:
    signal = no_ecgs()["noise"]
    signal[row("V5")] = heart()[row("V5")]
    assert "not_an_ecg" not in flags(signal)


def test_new_flags_are_rare_in_real_recordings(real_data: Callable[[str], Path]) -> None:
    """At most one in a hundred recordings of PTB-XL has one of them by mistake."""
    paths = sorted(real_data("ptbxl100").rglob("*.hea"))[::20]
    signals = [read_record(path).signal for path in paths]
    present = np.ones((len(signals), 12), bool)
    measures = measure_quality(signals, 100.0, present)
    found = quality_flags(measures, present, QualityConfig(), 10.0)
    for kind in (
        "lead_off",
        "offset",
        "gain_high",
        "chest_order",
        "not_an_ecg",
        "noise",
        "limb_swap",
    ):
        n = sum(any(flag.split(":")[0] == kind for flag in own) for own in found)
        assert n < 0.01 * len(paths), kind


def test_real_recordings_have_few_flags(real_data: Callable[[str], Path]) -> None:
    paths = sorted(real_data("ptbxl500").rglob("*.hea"))
    kinds = [
        {flag.split(":")[0] for flag in build_tensor(read_record(path), PreprocessConfig()).flags}
        for path in paths
    ]
    assert len(kinds) == 40
    assert not any(
        k & {"gain_low", "gain_high", "limb_equation", "limb_swap", "clipped", "hum50", "hum60"}
        for k in kinds
    )
    assert not any("noise" in k for k in kinds) and sum("wander" in k for k in kinds) == 5


def plainly_measured(signal: Float32Array, fs: float) -> dict[str, NDArray[np.floating[Any]]]:
    """The measures of blocks once more, lead by lead and second by second in double precision, as
    docs/quality.md words them.
    """
    size = max(1, min(round(0.2 * fs), signal.shape[1]))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(size) + 0.5) / size)
    scale = {hz: 2 * window / window.sum() * (hz <= 0.45 * fs) for hz in (30, 40, 50, 60, 70)}
    phase = {hz: 2 * np.pi * hz * np.arange(size) / fs for hz in scale}
    found: dict[str, list[Any]] = {
        name: []
        for name in ("amplitude_mv", "wander_mv", "noise_mv", "burst_mv", "hum_mv", "beside_hum_mv")
    }
    for lead in signal.astype(float):
        blocks = lead[: lead.size // size * size].reshape(-1, size)
        per = min(5, len(blocks))
        seconds = blocks[: len(blocks) // per * per].reshape(-1, per, size)
        tones = {
            hz: np.hypot(
                seconds @ (scale[hz] * np.cos(phase[hz])), seconds @ (scale[hz] * np.sin(phase[hz]))
            )
            for hz in scale
        }
        quiet = {hz: np.median(tone.min(axis=1)) for hz, tone in tones.items()}
        both = np.hypot(tones[30], tones[40])
        usual = np.median(both, axis=1)
        found["amplitude_mv"].append(np.median(np.ptp(seconds, axis=(1, 2))))
        found["wander_mv"].append(np.ptp(seconds.mean(axis=(1, 2))))
        found["noise_mv"].append(np.median(both.min(axis=1)))
        found["burst_mv"].append(usual.max() - np.median(usual))
        found["hum_mv"].append([quiet[50], quiet[60]])
        found["beside_hum_mv"].append(max(quiet[40], quiet[70]))
    return {name: np.array(values).T for name, values in found.items()}


def require_plain_measures(signal: Float32Array, fs: float) -> None:
    given = signal.copy()
    measures = measure_quality([signal], fs, ALL)
    np.testing.assert_array_equal(signal, given)
    for name, expected in plainly_measured(signal, fs).items():
        np.testing.assert_allclose(
            getattr(measures, name)[..., 0, :],
            expected,
            rtol=2e-4,
            atol=2e-5 * max(1.0, np.abs(signal).max()),
            err_msg=name,
        )


@pytest.mark.parametrize("fs", [100.0, 257.0, 500.0, 1000.0])
@pytest.mark.parametrize("n_samples", [1, 3, 99, 777, 5001])
def test_measures_are_those_of_the_plain_way(fs: float, n_samples: int) -> None:
    rng = np.random.default_rng(n_samples)
    signal = np.cumsum(rng.normal(size=(12, n_samples)), axis=1).astype(np.float32) * np.float32(
        0.02
    )
    signal[3], signal[4, n_samples // 3 :] = 5.0, 1.0
    require_plain_measures(signal, fs)


def test_real_measures_are_those_of_the_plain_way(real_data: Callable[[str], Path]) -> None:
    for path in [
        *sorted(real_data("ptbxl500").rglob("*.hea")),
        *sorted(real_data("challenge2021").rglob("*.hea"))[::4],
    ]:
        record = read_record(path)
        require_plain_measures(
            order_leads(np.nan_to_num(record.signal), record.leads).signal, record.fs
        )


def test_voltages_of_damaged_files_are_measured_without_a_warning() -> None:
    signal = heart()
    signal[2], signal[7, ::2] = np.float32(3e38), np.float32(-1e30)
    assert {"amplitude:III", "amplitude:V2"} <= set(flags(signal))
