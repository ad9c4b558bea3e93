"""PhysioNet/CinC Challenge 2017 (Clifford et al. 2017): four rhythms of one lead, in REFERENCE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.labels.collections.annotation import RecordLabels, label_record, load_sources
from src.labels.collections.rows import (
    Request,
    Row,
    build_frame,
    find_table,
    index_stems,
    report_missing,
)
from src.labels.crosswalk import ClassSet
from src.labels.text_tables import read_text
from src.utils import printable

if TYPE_CHECKING:
    import pandas as pd


TASKS = ("rhythm",)
_RHYTHMS = {"N": "NSR", "A": "AF", "O": "OTHER_RHYTHM", "~": "NOISE"}


def build_challenge2017(request: Request) -> pd.DataFrame:
    """Build the rows: normal rhythm, atrial fibrillation, other rhythm or noise."""
    table = find_table(request.root, "REFERENCE-v3.csv", "REFERENCE.csv")
    paths = index_stems(request.root, (".hea", ".mat"))
    rows: list[Row] = []
    missing: list[str] = []
    # The table has no header, so that `read_table` cannot read it.
    for number, line in enumerate(read_text(table).splitlines(), start=1):
        name, _, letter = (part.strip() for part in line.partition(","))
        if not line.strip() or (number == 1 and name.lower() in {"record", "recording"}):
            continue
        if letter not in _RHYTHMS:
            raise ValueError(
                f"{table}: row {number}, label {printable(repr(letter))}: expected one of "
                f"{', '.join(_RHYTHMS)}"
            )
        if name not in paths:
            missing.append(name)
            continue
        result = _label_rhythm(letter, request.classes)
        rows.append(Row(name, result.labels, result.annotated, path=paths[name]))
    report_missing(request.dataset, missing)
    return build_frame(request.dataset, rows)


def _label_rhythm(letter: str, classes: ClassSet | None) -> RecordLabels:
    """Return the rhythm, or its labels in a label set; there, nothing is known of noise."""
    if classes is None:
        return RecordLabels((_RHYTHMS[letter],), tuple(_RHYTHMS.values()))
    if letter == "~":
        return RecordLabels((), ())
    codes = [letter] if letter in {"N", "A"} else []
    return label_record(codes, load_sources()["challenge2017"], classes)
