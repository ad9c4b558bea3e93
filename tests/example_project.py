"""Build the folder in which the documents' examples run.

It is a copy of the project with small generated collections in the layout of the real ones.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np

from src.records.record import ECGRecord
from src.records.sample_collections import write_challenge, write_wfdb
from src.records.synthetic import CLASSES, generate_ecg, generate_patient
from src.utils import PROJECT_ROOT

COPIED = ("src", "recipes", "notebooks", "artifacts/pretrained", "Makefile", "pyproject.toml")
SCP = {
    "NORM": "NORM",
    "AF": "AFIB",
    "LBBB": "CLBBB",
    "RBBB": "CRBBB",
    "AVB1": "1AVB",
    "PVC": "PVC",
    "STE": "IMI",
    "BRADY": "LVH",
    "TACHY": "NDT",
}
AHA = {
    "NORM": "1",
    "AF": "50",
    "LBBB": "104",
    "RBBB": "106",
    "AVB1": "82",
    "PVC": "60",
    "STE": "145",
    "BRADY": "22",
    "TACHY": "21",
}
CPSC = {"NORM": 1, "AF": 2, "AVB1": 3, "LBBB": 4, "RBBB": 5, "PVC": 7, "STE": 9}


def build_project(folder: Path) -> Path:
    """Copy the project and write its collections below `data`; return the folder."""
    for name in COPIED:
        source, target = PROJECT_ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, target)
    for name in ("logs", "figures"):
        (folder / name).mkdir()
    write_own(folder / "data" / "mine")
    write_ptbxl(folder / "data" / "ptb-xl")
    write_challenge2021(folder / "data" / "challenge2021")
    write_sph(folder / "data" / "sph")
    write_cpsc2018(folder / "data" / "cpsc2018")
    write_long(folder / "data" / "mitdb")
    return folder


def generate(
    n: int,
    name: Callable[[int], str],
    *,
    seed: int,
    fs: float,
    duration_s: float = 10.0,
    classes: Iterable[str] = CLASSES,
) -> list[ECGRecord]:
    """Return records that cycle through the classes, two for each patient."""
    rng, labels = np.random.default_rng(seed), list(classes)
    patients = [generate_patient(rng, f"p{i:03d}") for i in range(-(-n // 2))]
    owners = [patients[i % len(patients)] for i in range(n)]
    return [
        generate_ecg(
            labels[i % len(labels)],
            fs=fs,
            duration_s=duration_s,
            rng=rng,
            patient=owners[i],
            record_id=name(i + 1),
        )
        for i in range(n)
    ]


def write_table(path: Path, header: str, rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header.split(","), *rows])


def write_own(folder: Path) -> None:
    """Write WFDB records and a table with other column names than ours."""
    folder.mkdir(parents=True)
    records = generate(45, lambda i: f"rec{i:03d}", seed=1, fs=250, classes=("NORM", "AF", "PVC"))
    for record in records:
        write_wfdb(record, folder)
    write_table(
        folder / "labels.csv",
        "file,diagnosis,patient",
        ((r.record_id, r.codes[0], r.patient_id) for r in records),
    )


def write_ptbxl(folder: Path) -> None:
    """Write PTB-XL's database and records100, with every class in every fold."""
    records = generate(90, lambda i: f"{i:05d}_lr", seed=2, fs=100)
    (folder / "records100" / "00000").mkdir(parents=True)
    rows = []
    for i, record in enumerate(records):
        write_wfdb(record, folder / "records100" / "00000")
        place = f"00000/{record.record_id}"
        codes = {SCP[record.codes[0]]: 100.0, "SR": 0.0}
        rows.append(
            (
                i + 1,
                i + 1,
                f"{record.age:.0f}",
                int(record.sex == "female"),
                codes,
                i // len(CLASSES) + 1,
                f"records100/{place}",
                f"records500/{place}",
            )
        )
    write_table(
        folder / "ptbxl_database.csv",
        "ecg_id,patient_id,age,sex,scp_codes,strat_fold,filename_lr,filename_hr",
        rows,
    )


def write_challenge2021(folder: Path) -> None:
    folder.mkdir(parents=True)
    for record in generate(18, lambda i: f"JS{i:05d}", seed=3, fs=500):
        write_challenge(record, folder)


def write_sph(folder: Path) -> None:
    (folder / "records").mkdir(parents=True)
    records = generate(18, lambda i: f"A{i:05d}", seed=4, fs=500)
    for record in records:
        with h5py.File(folder / "records" / f"{record.record_id}.h5", "w") as file:
            file["ecg"] = record.signal.astype(np.float16)
    rows = (
        (
            r.record_id,
            AHA[r.codes[0]],
            r.patient_id,
            f"{r.age:.0f}",
            str(r.sex)[0].upper(),
            r.n_samples,
            "2020-01-01",
        )
        for r in records
    )
    write_table(folder / "metadata.csv", "ECG_ID,AHA_Code,Patient_ID,Age,Sex,N,Date", rows)


def write_cpsc2018(folder: Path) -> None:
    folder.mkdir(parents=True)
    records = generate(14, lambda i: f"A{i:04d}", seed=5, fs=500, classes=CPSC)
    for record in records:
        write_challenge(record, folder)
    write_table(
        folder / "REFERENCE.csv",
        "Recording,First_label,Second_label,Third_label",
        ((r.record_id, CPSC[r.codes[0]], "", "") for r in records),
    )


def write_long(folder: Path) -> None:
    folder.mkdir(parents=True)
    for record in generate(3, lambda i: str(99 + i), seed=6, fs=360, duration_s=40.0):
        write_wfdb(record, folder)
