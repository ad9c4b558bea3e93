"""EchoNext (Elias and Finer 2025): findings of an echocardiogram for 100,000 ECGs.

Layout as on physionet.org/content/echonext: ``echonext_metadata_100k.csv`` with a row per ECG
(ecg_key, patient_key, split, age_at_ecg, sex, and flags 0 or 1 whose names end in ``_flag``), and
``EchoNext_train_waveforms.npy`` (N, 1, 2500, 12) at 250 Hz with the rows of each split in their
order. The samples are filtered and standardized, in no unit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.collections.annotation import RecordLabels, Source, label_record
from src.labels.collections.code15 import read_flags
from src.labels.collections.rows import (
    CodeReport,
    Request,
    Row,
    age_text,
    build_frame,
    find_table,
    list_files,
    report_missing,
    sex_text,
)
from src.labels.crosswalk import OWN_NAMES, ClassSet
from src.labels.ids import id_text
from src.labels.text_tables import open_table
from src.records.reading import list_parts

if TYPE_CHECKING:
    import pandas as pd


TASKS = ("disease", "findings")
_WAVEFORMS = re.compile(r"echonext_(\w+?)_waveforms\.npy", re.IGNORECASE)
_FLAG = "_flag"
_DISEASE = "shd_moderate_or_greater"
# Our folds: 9 is validation and 10 is test by default.
_FOLDS = {"train": "1", "val": "9", "test": "10"}
# A flag is 0 also where its measurement is missing, which is then not annotated.
_MEASURED = {
    "lvef_lte_45": ("lvef_value",),
    "lvwt_gte_13": ("ivs_measurement", "lvpw_measurement"),
    "aortic_stenosis_moderate_or_greater": ("aortic_stenosis_value",),
    "aortic_regurgitation_moderate_or_greater": ("aortic_regurgitation_value",),
    "mitral_regurgitation_moderate_or_greater": ("mitral_regurgitation_value",),
    "tricuspid_regurgitation_moderate_or_greater": ("tricuspid_regurgitation_value",),
    "pulmonary_regurgitation_moderate_or_greater": ("pulmonary_regurgitation_value",),
    "rv_systolic_dysfunction_moderate_or_greater": ("rv_systolic_function_value",),
    "pericardial_effusion_moderate_large": ("pericardial_effusion_value",),
    "pasp_gte_45": ("pasp_value",),
    "tr_max_gte_32": ("tr_max_velocity_value",),
}


def build_echonext(request: Request) -> pd.DataFrame:
    """Build the rows of EchoNext: structural heart disease, or each finding; the authors' splits.

    ECGs without a split are skipped. Records are named as the array names them, by file and row.
    """
    path = find_table(request.root, "echonext_metadata_100k.csv", "EchoNext_metadata_100k.csv")
    table = open_table(path, ("patient_key", "split", "age_at_ecg", "sex", f"{_DISEASE}{_FLAG}"))
    flags = [name for name in table.header if name.endswith(_FLAG)]
    class_of = {name: name.removesuffix(_FLAG) for name in flags}
    if request.task == "disease" and request.classes is None:
        class_of = {f"{_DISEASE}{_FLAG}": _DISEASE}
    arrays = _find_arrays(request.root)
    report = CodeReport(request.dataset, OWN_NAMES, "the findings of EchoNext")
    counts: Counter[str] = Counter()
    rows: list[Row] = []
    missing: list[str] = []
    for number, cells in table.lines:
        record = dict.fromkeys(table.header, "") | dict(zip(table.header, cells, strict=False))
        split = record["split"].lower()
        place = counts[split]
        counts[split] += 1
        if split not in arrays or split not in _FOLDS:
            missing.append(f"row {number}")
            continue
        file, names = arrays[split]
        if place >= len(names):
            continue
        result = report.add(_label(path, number, record, class_of, request.classes))
        rows.append(
            Row(
                record_id=names[place],
                labels=result.labels,
                annotated=result.annotated,
                patient_id=id_text(record["patient_key"]),
                fold=_FOLDS[split],
                path=file,
                age=age_text(record["age_at_ecg"]),
                sex=sex_text(record["sex"]),
            )
        )
    _check_counts(path, arrays, counts)
    report_missing(request.dataset, missing, "are of no split, or its array is missing, skipped")
    report.log()
    return build_frame(request.dataset, rows)


def _find_arrays(root: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return split -> the file of its waveforms, relative to the root, and its record ids."""
    arrays = {}
    for file in list_files(root, (".npy",)):
        if match := _WAVEFORMS.fullmatch(file.rsplit("/", 1)[-1]):
            # An array of one record is named by its file.
            names = list_parts(root / file) or (Path(file).stem,)
            arrays[match[1].lower()] = (file, names)
    if not arrays:
        raise ValueError(f"{root}: no EchoNext_train_waveforms.npy below it, nor that of a split")
    return arrays


def _check_counts(
    path: Path, arrays: Mapping[str, tuple[str, tuple[str, ...]]], counts: Mapping[str, int]
) -> None:
    """Refuse arrays that have another number of records than the table has rows of their split."""
    for split, (file, names) in arrays.items():
        if len(names) != counts.get(split, 0):
            raise ValueError(
                f"{path}: has {counts.get(split, 0)} rows of split {split}, {file} holds "
                f"{len(names)} records: expected as many"
            )


def _label(
    path: Path,
    number: int,
    record: Mapping[str, str],
    class_of: Mapping[str, str],
    classes: ClassSet | None,
) -> RecordLabels:
    """Return the labels of a row; what was not measured is not annotated."""
    present, looked_for = read_flags(path, number, record, class_of)
    annotated = tuple(
        name
        for name in looked_for
        if name in present or all(record.get(held, "-") for held in _MEASURED.get(name, ()))
    )
    if classes is None:
        return RecordLabels(present, annotated)
    return label_record(present, Source("echonext", OWN_NAMES, annotated), classes)
