"""MIMIC-IV-ECG (Gow et al. 2023): the statements of its machines, by a table of phrases.

Layout as on physionet.org/content/mimic-iv-ecg/1.0: ``record_list.csv`` (subject_id, study_id,
file_name, ecg_time, path), ``machine_measurements.csv`` (subject_id, study_id, report_0 to
report_17 among others) and ``files/p1000/p10000032/s40689238/40689238.hea``. Machines wrote the
statements, and no cardiologist checked them here.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.collections.annotation import Source
from src.labels.collections.phrases import label_meaning, load_phrases
from src.labels.collections.rows import (
    CodeReport,
    Request,
    Row,
    build_frame,
    find_table,
    index_stems,
    log_unknown_statements,
    report_missing,
)
from src.labels.crosswalk import OWN_NAMES, SUPERCLASSES, TABLES
from src.labels.ids import id_text
from src.labels.text_tables import open_table

if TYPE_CHECKING:
    import pandas as pd


TASKS = ("statements",)
OPTIONS = ("table",)
_REPORT = "report_"


def build_mimic_iv_ecg(request: Request) -> pd.DataFrame:
    """Build the rows of MIMIC-IV-ECG: classes of the machine's statements, patients by subject_id.

    A statement in doubt, such as *possible left atrial abnormality*, leaves its class open. With
    the option `table`, phrases are those of the user.
    """
    given = request.options.table
    phrases = load_phrases(TABLES / "mimic_phrases.csv" if given is None else Path(given))
    source = Source("mimic-iv-ecg", OWN_NAMES, phrases.classes, SUPERCLASSES)
    reports = _read_reports(find_table(request.root, "machine_measurements.csv"))
    paths = index_stems(request.root, (".hea",))
    report = CodeReport(request.dataset, OWN_NAMES, "the table of phrases")
    rows: list[Row] = []
    missing: list[str] = []
    silent: list[str] = []
    unknown: Counter[str] = Counter()
    table = open_table(
        find_table(request.root, "record_list.csv"), ("subject_id", "study_id", "path")
    )
    subject, study, place = map(table.header.index, ("subject_id", "study_id", "path"))
    for _, cells in table.lines:
        cells += [""] * (len(table.header) - len(cells))
        name, stem = id_text(cells[study]), cells[place].rsplit("/", 1)[-1]
        if stem not in paths:
            missing.append(name)
            continue
        meaning, not_known = phrases.read_all(reports.get(name, ()))
        unknown.update(not_known)
        if not meaning.is_known:
            silent.append(name)
            continue
        result = report.add(label_meaning(meaning, phrases.classes, request.classes, source))
        rows.append(
            Row(
                record_id=stem,
                labels=result.labels,
                annotated=result.annotated,
                patient_id=id_text(cells[subject]),
                path=paths[stem],
            )
        )
    report_missing(request.dataset, missing)
    report_missing(request.dataset, silent, "have no statement of the machine and are skipped")
    log_unknown_statements(request.dataset, unknown)
    report.log()
    return build_frame(request.dataset, rows)


def _read_reports(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the statements of each study; those of all studies share their texts."""
    table = open_table(path, ("study_id", f"{_REPORT}0"))
    study = table.header.index("study_id")
    places = [i for i, name in enumerate(table.header) if name.startswith(_REPORT)]
    texts: dict[str, str] = {}
    reports: dict[str, tuple[str, ...]] = {}
    for _, cells in table.lines:
        if len(cells) <= study:
            continue
        held = [cells[i] for i in places if i < len(cells) and cells[i]]
        reports[id_text(cells[study])] = tuple([texts.setdefault(text, text) for text in held])
    return reports
