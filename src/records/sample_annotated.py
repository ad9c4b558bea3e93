"""A sample collection of long recordings: two leads, with rhythms and beats in annotation files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.records.record import ECGRecord
from src.records.sample_collections import put_file, write_wfdb
from src.records.synthetic import Patient, generate_annotated_ecg, generate_patient
from src.utils import Float32Array, make_folder, temporary_folder

logger = logging.getLogger(__name__)


ANNOTATED = "synthetic_annotated"
"""Name of the collection."""
_FS = 360.0  # Hz, as MIT-BIH
_LEADS = ("II", "V1")
_DURATION_S = 120.0
_EPISODE_S = (15.0, 35.0)
# Label of the generator -> rhythm; ventricular ectopic beats are in a sinus rhythm.
_RHYTHMS = {"NORM": "(N", "AF": "(AFIB", "PVC": "(N"}


def write_annotated_collection(dest: str | Path, *, n_records: int = 12, seed: int = 0) -> Path:
    """Write a collection of long recordings and return its folder, ``synthetic_annotated``.

    Each record, of a patient of its own, changes between sinus rhythm, atrial fibrillation, and
    sinus rhythm with ventricular ectopic beats. The same arguments write the same bytes.
    """
    folder = make_folder(Path(dest) / ANNOTATED)
    rng = np.random.default_rng([seed, 360])
    for number in range(1, n_records + 1):
        patient = generate_patient(rng, f"a{number:04d}")
        record_id = f"sa{number:05d}"
        episodes = list(_iter_episodes(patient, rng))
        signal = np.concatenate([samples for samples, _ in episodes], axis=1)
        record = ECGRecord(record_id, signal, _FS, _LEADS, age=float(patient.age), sex=patient.sex)
        write_wfdb(record, folder, f"# {patient.age} {patient.sex[0].upper()}\n")
        marks = [mark for _, inside in episodes for mark in inside]
        put_file(folder / f"{record_id}.atr", _annotation_file(record_id, marks))
    logger.info("wrote %d annotated recordings to %s", n_records, folder)
    return folder


_Mark = tuple[int, str, str]
"""Sample, symbol and text of an annotation."""


def _iter_episodes(
    patient: Patient, rng: np.random.Generator
) -> Iterator[tuple[Float32Array, list[_Mark]]]:
    """Yield the samples (2, n) and the marks of each episode of a record."""
    first = 0
    n_left = round(_DURATION_S * _FS)
    labels = list(_RHYTHMS)
    turn = int(rng.integers(len(labels)))
    while n_left > 0:
        n_samples = min(n_left, round(rng.uniform(*_EPISODE_S) * _FS))
        if n_left - n_samples < _EPISODE_S[0] * _FS:
            n_samples = n_left
        label = labels[turn % len(labels)]
        record, beats = generate_annotated_ecg(
            label, fs=_FS, duration_s=n_samples / _FS, rng=rng, patient=patient
        )
        rows = [record.leads.index(lead) for lead in _LEADS]
        marks = [(first, "+", _RHYTHMS[label])]
        marks += [(first + round(beat.time_s * _FS), beat.symbol, "") for beat in beats]
        yield record.signal[rows], marks
        first += n_samples
        n_left -= n_samples
        turn += 1


def _annotation_file(record_id: str, marks: list[_Mark]) -> bytes:
    """Return the bytes of an annotation file as ``wfdb`` writes it."""
    import wfdb

    samples: NDArray[np.int64] = np.array([sample for sample, _, _ in marks], np.int64)
    with temporary_folder() as folder:
        wfdb.wrann(
            record_id,
            "atr",
            samples,
            symbol=[symbol for _, symbol, _ in marks],
            aux_note=[note for _, _, note in marks],
            write_dir=str(folder),
        )
        return (folder / f"{record_id}.atr").read_bytes()
