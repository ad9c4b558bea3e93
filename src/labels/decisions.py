"""Decisions of a reader on labels: a table of them, and the label mapping that they give.

The page of `label-issues` writes the table. Columns: dataset, record_id and mapped_label, as in a
label mapping; decision (``keep``, ``change`` or ``drop``), given (the labels that the reader saw)
and path (the recording, by which its row is found where ids are spelled otherwise).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.ids import clean_id
from src.labels.mapping import (
    LabelRow,
    MappingError,
    find_problems,
    iter_rows,
    load_mapping,
    save_mapping,
)
from src.labels.matching import match_records
from src.labels.text_tables import join_list, plain_cell, read_table, split_list
from src.records.folders import FoundRecord
from src.records.windows import window_parent
from src.utils import printable

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("keep", "change", "drop")
DECISION_COLUMNS = ("dataset", "record_id", "mapped_label", "decision", "given", "path")
_REQUIRED = DECISION_COLUMNS[:-1]


@dataclass(frozen=True)
class Decision:
    """What a reader decided on one record.

    Attributes
    ----------
    dataset, record_id, path
        The record, as the manifest names it, and its file.
    kind
        One of `KINDS`: the labels stay, they become `labels`, or the record loses its row.
    given
        The labels that the reader saw.
    labels
        The labels that the record gets with ``change``.
    row
        Number of its row in the table, for messages.
    """

    dataset: str
    record_id: str
    kind: str
    given: tuple[str, ...]
    labels: tuple[str, ...]
    path: str = ""
    row: int = 0


def load_decisions(path: str | Path) -> list[Decision]:
    """Read a table of decisions.

    Raises
    ------
    ValueError
        If the file is no such table, a decision is another word, a record is a window of a
        recording, or a record is decided twice; the message names the row.
    """
    table = read_table(Path(path), _REQUIRED)
    decisions = []
    for number, cells in zip(table.numbers, table.rows, strict=True):
        cell = {name: plain_cell(text) for name, text in cells.items()}
        decisions.append(
            Decision(
                dataset=clean_id(cell["dataset"]),
                record_id=cell["record_id"],
                kind=cell["decision"].casefold(),
                given=split_list(cell["given"]),
                labels=split_list(cell["mapped_label"]),
                path=cell.get("path", ""),
                row=number,
            )
        )
    if problems := _find_decision_problems(decisions):
        raise MappingError(path, problems)
    return decisions


def _find_decision_problems(decisions: Sequence[Decision]) -> list[str]:
    problems: list[str] = []
    rows: dict[tuple[str, str], int] = {}
    for decision in decisions:
        name = printable(repr(decision.record_id))
        # Two names of one file are one record, too
        keys = {decision.record_id, decision.path or decision.record_id}
        first = min(rows.setdefault((decision.dataset, key), decision.row) for key in keys)
        if decision.kind not in KINDS:
            kind = printable(repr(decision.kind))
            problem = f"column decision, value {kind}: expected one of {', '.join(KINDS)}"
        elif window_parent(decision.record_id) != decision.record_id:
            problem = (
                f"{name} is a window of a recording: expected whole recordings; give its labels "
                "start_s and end_s in the label mapping"
            )
        elif first != decision.row:
            problem = f"{name} is decided in row {first} already: expected each record once"
        else:
            continue
        problems.append(f"row {decision.row}, {problem}")
    return problems


def apply_decisions(
    mapping: str | Path, decisions: str | Path, out: str | Path
) -> Mapping[str, int]:
    """Write a label mapping with the labels that a reader decided on; the given one stays as it is.

    Changed records get their new labels and keep everything else; dropped ones lose their row, so
    that they are neither trained on nor evaluated. A record that is left without any label is one
    that was looked at for all labels of its dataset. A decision that the mapping follows already
    changes nothing.

    Parameters
    ----------
    mapping
        The label mapping that the records were preprocessed with.
    decisions
        The table of decisions.
    out
        The label mapping to write.

    Returns
    -------
    mapping
        Kind of decision -> number of records.

    Raises
    ------
    ValueError
        If a record has no row of its own, or one with times, or its row has other labels than the
        reader saw; nothing is written then.
    """
    frame = load_mapping(mapping)
    decided = load_decisions(decisions)
    row_of, problems = _find_rows(frame, decided)
    for decision in decided:
        row = row_of.get(decision.row)
        if row is not None and (problem := _find_contradiction(decision, row)):
            problems.append(problem)
    if problems:
        raise MappingError(decisions, sorted(problems))
    changed = _change_rows(frame, decided, row_of)
    if new_problems := find_problems(changed):
        raise MappingError(f"{out} with the decisions of {decisions}", new_problems)
    save_mapping(changed, out)
    return Counter(decision.kind for decision in decided)


def _find_rows(
    frame: pd.DataFrame, decisions: Sequence[Decision]
) -> tuple[dict[int, LabelRow], list[str]]:
    """Return row of a decision -> row of the mapping, and what hinders the other decisions."""
    rows: dict[str, list[LabelRow]] = {}
    for row in iter_rows(frame):
        rows.setdefault(row.dataset, []).append(row)
    row_of: dict[int, LabelRow] = {}
    problems = []
    for dataset in dict.fromkeys(decision.dataset for decision in decisions):
        of_dataset = [decision for decision in decisions if decision.dataset == dataset]
        found = [FoundRecord(each.path or each.record_id, each.record_id) for each in of_dataset]
        matches = match_records(rows.get(dataset, []), found)
        for decision, match in zip(of_dataset, matches.records, strict=True):
            if match.row is not None:
                row_of[decision.row] = match.row
            elif decision.kind != "drop":
                problems.append(
                    f"row {decision.row}, record {printable(repr(decision.record_id))} of "
                    f"{printable(dataset)} has no row of its own in the label mapping: expected "
                    "the mapping that the records were preprocessed with"
                )
    return row_of, problems


def _find_contradiction(decision: Decision, row: LabelRow) -> str:
    """Say why a decision cannot be applied to a row of the mapping; "" if it can."""
    name = f"row {decision.row}, record {printable(repr(decision.record_id))}"
    if row.intervals and decision.kind != "keep":
        return f"{name} has labels with times in the label mapping: change these there"
    is_applied = decision.kind == "change" and set(row.labels) == set(decision.labels)
    if set(row.labels) != set(decision.given) and not is_applied:
        return (
            f"{name} has the labels {printable(repr(join_list(row.labels)))} in the label mapping: "
            f"the reader saw {printable(repr(join_list(decision.given)))}; expected the mapping "
            "that the records were preprocessed with"
        )
    return ""


def _change_rows(
    frame: pd.DataFrame, decisions: Sequence[Decision], row_of: Mapping[int, LabelRow]
) -> pd.DataFrame:
    """Return the mapping with the decisions in it."""
    new_labels: dict[tuple[str, str], tuple[str, ...]] = {}
    dropped = set()
    for decision in decisions:
        row = row_of.get(decision.row)
        if row is None:
            continue
        if decision.kind == "change":
            new_labels[row.dataset, row.record_id] = decision.labels
        elif decision.kind == "drop":
            dropped.add((row.dataset, row.record_id))
    keys = list(zip(frame["dataset"], frame["record_id"], strict=True))
    changed = frame.copy()
    labels, annotated = frame["mapped_label"].tolist(), frame["annotated"].tolist()
    for position, key in enumerate(keys):
        if key in new_labels:
            labels[position] = join_list(new_labels[key])
            if not new_labels[key] and not annotated[position]:
                annotated[position] = _labels_of(frame, key[0])
    changed = changed.assign(mapped_label=labels, annotated=annotated)
    return changed[[key not in dropped for key in keys]]


def _labels_of(frame: pd.DataFrame, dataset: str) -> str:
    """Return all labels of a dataset as a cell."""
    cells = frame.loc[frame["dataset"] == dataset, "mapped_label"]
    return join_list(sorted({label for cell in cells for label in split_list(cell)}))
