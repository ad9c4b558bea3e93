"""Generated 12-lead recordings with known labels, for demo and tests; not for clinical use.

A moving cardiac dipole (Frank's axes: x to the left, y to the feet, z to the back) is the sum of
Gaussian waves in every beat. Lead vectors project it to the leads. Only I, II and V1 to V6 are
simulated; the other four leads follow from I and II, noise included, as in an electrocardiograph.
`src.records.sample_collections` writes collections of such recordings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from src.config import STANDARD_LEADS
from src.records.record import ECGRecord
from src.utils import Float32Array, Float64Array

SNOMED_CODES = {
    "NORM": "426783006",
    "AF": "164889003",
    "LBBB": "164909002",
    "RBBB": "59118001",
    "AVB1": "270492004",
    "PVC": "17338001",
    "STE": "164931005",
    "BRADY": "426177001",
    "TACHY": "427084000",
}
CLASSES = tuple(SNOMED_CODES)

_R_PEAK_S = 0.04  # from the onset of the QRS complex
INDEPENDENT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
# mV in these leads per mV of x, y and z (Dower, Machado, Osborne, Clin Cardiol 1980;3:87-95).
_LEAD_VECTORS = np.array(
    [
        (0.632, 0.235, -0.515, 0.044, 0.882, 1.213, 1.125, 0.831),
        (-0.235, 1.066, 0.157, 0.164, 0.098, 0.127, 0.127, 0.076),
        (0.059, -0.132, -0.917, -1.387, -1.277, -0.601, -0.086, 0.230),
    ]
).T


@dataclass(frozen=True)
class NoiseLevels:
    """Noise of an electrode, as standard deviations in mV; zero switches a kind off.

    Attributes
    ----------
    white_mv
        Muscle and amplifier.
    wander_mv
        Baseline wander: respiration at 0.15 to 0.35 Hz, and slow drift.
    mains_mv
        Mains interference.
    mains_hz
        Its frequency in Hz.
    """

    white_mv: float = 0.010
    wander_mv: float = 0.040
    mains_mv: float = 0.006
    mains_hz: float = 50.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < np.inf:
                raise ValueError(f"{name} is {value}: expected zero or more")


@dataclass(frozen=True)
class Patient:
    """The person of a recording: the heart's position, amplitudes and QT interval.

    Attributes
    ----------
    patient_id, age, sex
        As in an `ECGRecord`; the age in years.
    axis_deg
        Rotation in the frontal plane, clockwise positive as for the electrical axis.
    turn_deg
        Rotation in the horizontal plane.
    gain, t_gain
        Factors on all amplitudes, and on that of the T wave.
    qtc_s
        Corrected QT interval in s.
    """

    patient_id: str
    age: int
    sex: str
    axis_deg: float
    turn_deg: float
    gain: float
    t_gain: float
    qtc_s: float


@dataclass(frozen=True)
class _Traits:
    """The traits that a label may change; two labels are compatible if they change others."""

    rate_bpm: tuple[float, float] = (62.0, 92.0)
    rhythm: str = "sinus"
    pr_s: tuple[float, float] = (0.13, 0.185)
    conduction: str = "normal"
    st_elevation: bool = False
    ectopy: bool = False


_CHANGES: dict[str, dict[str, Any]] = {
    "NORM": dataclasses.asdict(_Traits()),
    "AF": {
        "rate_bpm": (65.0, 115.0),
        "rhythm": "fibrillation",
        "pr_s": (0.0, 0.0),
        "ectopy": False,
    },
    "LBBB": {"conduction": "LBBB", "st_elevation": False},
    "RBBB": {"conduction": "RBBB", "st_elevation": False},
    "AVB1": {"pr_s": (0.225, 0.32)},
    "PVC": {"ectopy": True, "rate_bpm": (60.0, 85.0)},
    "STE": {"st_elevation": True, "conduction": "normal"},
    "BRADY": {"rate_bpm": (40.0, 56.0)},
    "TACHY": {"rate_bpm": (105.0, 150.0), "pr_s": (0.115, 0.15), "ectopy": False},
}


@dataclass(frozen=True)
class _Conduction:
    """How the ventricles are activated.

    Attributes
    ----------
    qrs_s
        Range of the QRS duration in s.
    qrs_waves
        For each wave its centre and width in QRS durations, then x, y and z in mV.
    t_wave
        x, y and z of the T wave in mV.
    """

    qrs_s: tuple[float, float]
    qrs_waves: tuple[tuple[float, float, float, float, float], ...]
    t_wave: tuple[float, float, float]


_CONDUCTION = {
    "normal": _Conduction(
        qrs_s=(0.080, 0.100),
        qrs_waves=(
            (0.20, 0.075, -0.12, -0.06, -0.26),  # septum, to the right and forward
            (0.46, 0.110, 1.10, 0.78, 0.22),  # left ventricle
            (0.70, 0.100, -0.24, -0.10, 0.72),  # basal parts, backward
        ),
        t_wave=(0.32, 0.24, -0.16),
    ),
    "LBBB": _Conduction(
        qrs_s=(0.138, 0.165),
        qrs_waves=(
            (0.12, 0.060, 0.02, 0.05, -0.16),  # no septal Q
            (0.36, 0.120, 0.90, 0.42, 0.72),  # left ventricle late, in two notched steps
            (0.68, 0.130, 1.00, 0.32, 1.10),
        ),
        t_wave=(-0.34, -0.12, -0.40),  # against the QRS, as after every abnormal activation
    ),
    "RBBB": _Conduction(
        qrs_s=(0.128, 0.158),
        qrs_waves=(
            (0.12, 0.045, -0.12, -0.06, -0.26),
            (0.28, 0.070, 1.05, 0.74, 0.22),
            (0.43, 0.060, -0.15, -0.10, 0.50),
            (0.72, 0.105, -0.52, -0.14, -0.72),  # right ventricle late, to the right and forward
        ),
        t_wave=(0.30, 0.18, 0.20),
    ),
}


_ECTOPIC = (
    # From the right ventricular outflow tract: negative in V1, inferior axis
    _Conduction(
        qrs_s=(0.145, 0.175),
        qrs_waves=((0.33, 0.13, 0.55, 1.10, 0.75), (0.66, 0.13, 0.60, 1.20, 1.10)),
        t_wave=(-0.28, -0.55, -0.50),
    ),
    # From the left ventricle: positive in V1, superior axis
    _Conduction(
        qrs_s=(0.145, 0.175),
        qrs_waves=((0.33, 0.13, -0.40, -0.80, -0.95), (0.66, 0.13, -0.75, -0.90, -0.75)),
        t_wave=(0.32, 0.42, 0.42),
    ),
)


# Injury current of an anterior and of an inferior infarction; ST is depressed in opposite leads.
_INJURY = ((0.10, -0.14, -0.26), (-0.12, 0.26, 0.10))


class Beat(NamedTuple):
    """A beat of a recording: the time of its R peak in s, and its symbol in WFDB, N or V."""

    time_s: float
    symbol: str


@dataclass(frozen=True)
class Wave:
    """A wave of the dipole in every beat: ``exp(-|u|**power / 2)``, u the time in widths.

    Attributes
    ----------
    centre_s
        Time of the centre in s from the onset of the QRS complex, one for all beats or one each.
    left_s, right_s
        Widths in s before and after the centre, likewise.
    dipole
        x, y and z in mV at the centre.
    power
        2 is Gaussian, 4 has a flat top.
    """

    centre_s: float | Float64Array
    left_s: float | Float64Array
    right_s: float | Float64Array
    dipole: Float64Array | Sequence[float]
    power: int = 2


def generate_ecg(
    label: str,
    *,
    fs: float,
    duration_s: float = 10.0,
    rng: np.random.Generator,
    noise: NoiseLevels | float = 1.0,
    patient: Patient | None = None,
    record_id: str = "synthetic",
) -> ECGRecord:
    """Generate one recording in the standard lead order.

    Parameters
    ----------
    label
        One of `CLASSES`, or several compatible ones, such as ``AVB1;RBBB``.
    fs
        Sampling rate in Hz, 50 or more.
    duration_s
        Length in seconds.
    rng
        Source of all variation between records and beats.
    noise
        Levels in mV, or a factor on the default levels; 0 gives the same signal clean.
    patient
        The person; drawn from `rng` by default.
    record_id
        Id of the record.

    Returns
    -------
    ECGRecord
        Signal of shape (12, n_samples), float32, in mV; `codes` are the labels.

    Raises
    ------
    ValueError
        If a label is unknown, labels contradict each other, or a number is out of range.
    """
    return generate_annotated_ecg(
        label,
        fs=fs,
        duration_s=duration_s,
        rng=rng,
        noise=noise,
        patient=patient,
        record_id=record_id,
    )[0]


def generate_annotated_ecg(
    label: str,
    *,
    fs: float,
    duration_s: float,
    rng: np.random.Generator,
    noise: NoiseLevels | float = 1.0,
    patient: Patient | None = None,
    record_id: str = "synthetic",
) -> tuple[ECGRecord, tuple[Beat, ...]]:
    """Generate one recording, and return it with the beats in it.

    Parameters
    ----------
    label, fs, duration_s, rng, noise, patient, record_id
        As for `generate_ecg`.
    """
    traits = _find_traits(label)
    if not (50 <= fs < np.inf and 0 < duration_s < np.inf and round(duration_s * fs) > 0):
        raise ValueError(
            f"fs is {fs} and duration_s {duration_s}: expected at least 50 Hz, and a length"
        )
    if isinstance(noise, NoiseLevels):
        levels, factor = noise, 1.0
    else:
        levels, factor = NoiseLevels(), noise
    if not 0 <= factor < np.inf:
        raise ValueError(f"noise is {factor}: expected zero or more, or NoiseLevels")
    patient = patient or generate_patient(rng)
    t = np.arange(round(duration_s * fs)) / fs
    dipole, onsets, ectopic = _simulate_dipole(traits, patient, t, rng)  # dipole (3, n_samples)
    independent = lead_vectors(patient) @ dipole  # (8, n_samples)
    independent += factor * _electrode_noise(levels, t, fs, rng)
    record = ECGRecord(
        record_id,
        signal_from_independent(independent),
        float(fs),
        STANDARD_LEADS,
        codes=tuple(label.split(";")),
        age=float(patient.age),
        sex=patient.sex,
        patient_id=patient.patient_id or None,
    )
    beats = [Beat(s + _R_PEAK_S, "N") for s in onsets] + [Beat(s + _R_PEAK_S, "V") for s in ectopic]
    return record, tuple(sorted(beat for beat in beats if 0 <= beat.time_s < duration_s))


def generate_patient(rng: np.random.Generator, patient_id: str = "") -> Patient:
    """Draw a person: the axis turns left with age, women have lower voltages and a longer QT."""
    age = int(np.clip(rng.normal(58, 16), 18, 92))
    female = rng.random() < 0.5
    return Patient(
        patient_id=patient_id,
        age=age,
        sex="female" if female else "male",
        axis_deg=float(np.clip(rng.normal(-6 - 0.2 * (age - 50), 12), -25, 20)),
        turn_deg=float(np.clip(rng.normal(0, 5), -10, 10)),
        gain=float(np.clip(rng.lognormal(0, 0.15), 0.75, 1.4)) * (0.93 if female else 1.0),
        t_gain=float(np.clip(rng.lognormal(0, 0.2), 0.7, 1.5)),
        qtc_s=float(np.clip(rng.normal(0.412, 0.012), 0.385, 0.44)) + (0.01 if female else 0.0),
    )


def compatible_labels(label: str) -> tuple[str, ...]:
    """Return the classes that a record of class `label` can have as well."""
    changes = _CHANGES[label].keys()
    return tuple(other for other in CLASSES if not changes & _CHANGES[other].keys())


def _find_traits(label: str) -> _Traits:
    """Return the traits of a record with all of the labels, separated by ``;``."""
    changes: dict[str, Any] = {}
    for name in label.split(";"):
        if name not in _CHANGES:
            raise ValueError(f"label is {name!r}: expected one of {', '.join(CLASSES)}")
        if changes.keys() & _CHANGES[name].keys():
            raise ValueError(
                f"labels {label!r} exclude each other: choose compatible ones, such as AVB1;RBBB"
            )
        changes |= _CHANGES[name]
    return _Traits(**changes)


def lead_vectors(patient: Patient) -> Float64Array:
    """Return the lead vectors, shape (8, 3), relative to a heart that is rotated and scaled."""
    a, b = np.deg2rad(patient.axis_deg), np.deg2rad(patient.turn_deg)
    frontal = np.array([(np.cos(a), -np.sin(a), 0), (np.sin(a), np.cos(a), 0), (0, 0, 1)])
    horizontal = np.array([(np.cos(b), 0, -np.sin(b)), (0, 1, 0), (np.sin(b), 0, np.cos(b))])
    vectors: Float64Array = patient.gain * _LEAD_VECTORS @ frontal @ horizontal
    return vectors


def signal_from_independent(independent: Float64Array) -> Float32Array:
    """Derive all leads, shape (12, n), from the independent ones, (8, n).

    The limb leads follow Einthoven (1912) and Goldberger (1942).
    """
    i, ii = independent[0], independent[1]
    limbs = (i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2)
    return np.concatenate([np.stack(limbs), independent[2:]]).astype(np.float32)


def signal_from_waves(
    waves: Sequence[Wave], onsets_s: Float64Array, gains: Float64Array, t: Float64Array
) -> Float64Array:
    """Return the dipole in mV, shape (3, n): the sum of waves over beats.

    A sample gets only the nearest beat's wave of each kind; waves of other beats are negligible
    there.

    Parameters
    ----------
    waves
        The waves of a beat.
    onsets_s, gains
        QRS onset of each beat in s, and the factor on its amplitude, shape (n_beats,).
    t
        Times of the samples in s, shape (n,).
    """
    dipole = np.zeros((3, t.size))
    for wave in waves:
        centres = onsets_s + wave.centre_s
        beat = np.searchsorted((centres[1:] + centres[:-1]) / 2, t)
        u = t - centres[beat]
        left = np.broadcast_to(wave.left_s, onsets_s.shape)[beat]
        right = np.broadcast_to(wave.right_s, onsets_s.shape)[beat]
        width = np.where(u < 0, left, right)
        course = gains[beat] * np.exp(-0.5 * np.abs(u / width) ** wave.power)  # (n,)
        dipole += np.outer(wave.dipole, course)
    return dipole


def compute_qt_s(qtc_s: float, rr_s: float | Float64Array) -> Float64Array:
    """Return the QT interval in s for RR intervals (Fridericia, Acta Med Scand 1920;53:469-486)."""
    return np.asarray(qtc_s * np.cbrt(rr_s), dtype=np.float64)


def _electrode_noise(
    levels: NoiseLevels, t: Float64Array, fs: float, rng: np.random.Generator
) -> Float64Array:
    """Return noise of the independent leads in mV, shape (8, n)."""
    n_leads = len(INDEPENDENT_LEADS)
    noise = rng.normal(0, levels.white_mv, (n_leads, t.size))
    # An anti-aliasing filter removes mains interference above the Nyquist frequency.
    mains_mv = levels.mains_mv if levels.mains_hz < fs / 2 else 0.0
    level_mv = np.array((0.9 * levels.wander_mv, 0.44 * levels.wander_mv, mains_mv))
    angle = 2 * np.pi * np.outer((rng.uniform(0.15, 0.35), 0.06, levels.mains_hz), t)  # (3, n)
    tones = np.concatenate([np.sin(angle), np.cos(angle)])  # (6, n)
    noise += rng.normal(0, np.tile(level_mv, 2), (n_leads, 6)) @ tones
    return noise


def _simulate_dipole(
    traits: _Traits, patient: Patient, t: Float64Array, rng: np.random.Generator
) -> tuple[Float64Array, list[float], list[float]]:
    """Return the dipole in the heart's own axes in mV, shape (3, n), and the onsets of beats in s.

    The onsets are of the beats of the rhythm, and of the ectopic ones.
    """
    rr_s = 60 / rng.uniform(*traits.rate_bpm)
    duration_s = float(t[-1])
    fibrillates = traits.rhythm == "fibrillation"
    onsets = _beat_onsets(rr_s, duration_s, fibrillates, rng)
    ectopic = np.zeros(0)
    if traits.ectopy:
        onsets, ectopic = _with_ectopic_beats(onsets, duration_s, rng)
    rr = np.diff(onsets, prepend=onsets[0] - rr_s)
    qt_s = compute_qt_s(patient.qtc_s, 0.7 * rr_s + 0.3 * rr)  # QT follows the rate slowly
    waves = _ventricular_waves(_CONDUCTION[traits.conduction], qt_s, patient.t_gain, rng)
    if traits.st_elevation:
        waves += _injury_waves(qt_s, rng)
    if not fibrillates:
        waves += _atrial_waves(min(rng.uniform(*traits.pr_s), 0.42 * rr_s), rng)
    dipole = signal_from_waves(waves, onsets, _beat_gains(onsets, rng), t)
    if fibrillates:
        dipole += _fibrillation_waves(t, rng)
    if ectopic.size:
        origin = _ECTOPIC[rng.integers(len(_ECTOPIC))]
        waves = _ventricular_waves(origin, compute_qt_s(patient.qtc_s, rr_s), patient.t_gain, rng)
        dipole += signal_from_waves(waves, ectopic, _beat_gains(ectopic, rng), t)
    return dipole, onsets.tolist(), ectopic.tolist()


def _beat_onsets(
    rr_s: float, duration_s: float, fibrillates: bool, rng: np.random.Generator
) -> Float64Array:
    """Return QRS onsets in s, from before the first sample to beyond the last.

    Sinus rhythm varies with respiration. In fibrillation, intervals are independent of each other,
    with a minimum of 0.33 s.
    """
    n_beats = int((duration_s + 4 * rr_s) / min(0.33, 0.9 * rr_s)) + 1
    if fibrillates:
        rr = np.maximum(rr_s * rng.lognormal(0, rng.uniform(0.18, 0.26), n_beats), 0.33)
    else:
        phase = 2 * np.pi * (rng.uniform(0.15, 0.35) * rr_s * np.arange(n_beats) + rng.random())
        jitter = np.clip(rng.normal(0, 0.006, n_beats), -0.02, 0.02)
        rr = rr_s * (1 + rng.uniform(0.005, 0.03) * np.sin(phase) + jitter)
    return np.cumsum(rr) - (2 + rng.random()) * rr_s


def _with_ectopic_beats(
    onsets: Float64Array, duration_s: float, rng: np.random.Generator
) -> tuple[Float64Array, Float64Array]:
    """Replace some beats by premature ones; return the onsets of both kinds in s.

    The next sinus beat keeps its time, so that a compensatory pause follows.
    """
    coupling = rng.uniform(0.60, 0.72) + rng.normal(0, 0.01, onsets.size - 1)
    # Onsets of beats 1, 2, ... if they were premature
    early = onsets[:-1] + coupling * np.diff(onsets)
    visible = np.flatnonzero((early > 0.1) & (early < duration_s - 0.4))
    every = int(rng.integers(3, 7))
    first = int(rng.integers(max(min(every, visible.size), 1)))
    chosen = visible[first::every]
    return np.delete(onsets, chosen + 1), early[chosen]


def _beat_gains(onsets: Float64Array, rng: np.random.Generator) -> Float64Array:
    """Return a factor on the amplitude of each beat, as respiration moves the heart a little."""
    breath = 0.03 * np.sin(2 * np.pi * (rng.uniform(0.15, 0.35) * onsets + rng.random()))
    return 1 + breath + np.clip(rng.normal(0, 0.01, onsets.size), -0.03, 0.03)


def _t_wave(qt_s: Float64Array, dipole: Float64Array | Sequence[float]) -> Wave:
    """Return the T wave.

    It ends two widths after its peak, where the tangent of a Gaussian meets the baseline.
    """
    return Wave(0.80 * qt_s, 0.145 * qt_s, 0.10 * qt_s, dipole)


def _ventricular_waves(
    beat: _Conduction, qt_s: Float64Array, t_gain: float, rng: np.random.Generator
) -> list[Wave]:
    """Return the waves of the QRS complex, and the T wave."""
    qrs_s = rng.uniform(*beat.qrs_s)
    waves = []
    for centre, width, *dipole in beat.qrs_waves:
        waves.append(Wave(centre * qrs_s, width * qrs_s, width * qrs_s, dipole))
    qt_s = qt_s + max(qrs_s - 0.09, 0.0)  # a wide QRS lengthens QT
    waves.append(_t_wave(qt_s, [t_gain * value for value in beat.t_wave]))
    return waves


def _injury_waves(qt_s: Float64Array, rng: np.random.Generator) -> list[Wave]:
    """Return a plateau from the J point to the peak of T, and a taller T, in one territory."""
    injury = rng.uniform(0.9, 1.5) * np.array(_INJURY[rng.integers(len(_INJURY))])
    j_s, peak_s = 0.09, 0.80 * qt_s
    half_s = (peak_s - j_s) / 2
    return [Wave(j_s + half_s, 1.15 * half_s, half_s, injury, power=4), _t_wave(qt_s, 0.6 * injury)]


def _atrial_waves(pr_s: float, rng: np.random.Generator) -> list[Wave]:
    """Return the P wave: the right atrium, then the left.

    The right atrium points to the feet and forward, the left one to the left and backward.
    """
    gain, width_s = rng.uniform(0.8, 1.2), rng.uniform(0.016, 0.020)
    centre_s = 2 * width_s - pr_s
    right = Wave(centre_s, width_s, width_s, gain * np.array((0.030, 0.095, -0.060)))
    left = Wave(centre_s + 1.9 * width_s, width_s, width_s, gain * np.array((0.080, 0.065, 0.050)))
    return [right, left]


def _fibrillation_waves(t: Float64Array, rng: np.random.Generator) -> Float64Array:
    """Return f waves of 4.5 to 8 Hz, strongest in V1 and in the inferior leads, shape (3, n)."""
    drift = rng.normal(0, 1.2, 3) @ np.sin(2 * np.pi * np.outer((0.11, 0.23, 0.41), t))
    phase = 2 * np.pi * rng.uniform(4.5, 8) * t + drift
    swell = 1 + 0.3 * np.sin(2 * np.pi * (rng.uniform(0.2, 0.6) * t + rng.random()))
    course = rng.uniform(0.035, 0.075) * swell * (np.sin(phase) + 0.35 * np.sin(2 * phase + 0.8))
    return np.outer((-0.4, 0.65, -0.8), course)
