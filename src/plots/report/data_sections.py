"""The sections on the data: collections, quality and splits, from the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from src.config import SPLIT_NAMES
from src.labels.text_tables import split_list, zip_cells
from src.plots.quality import flag_kinds, reason_kind
from src.plots.report.content import (
    NOTHING,
    Block,
    Cell,
    Facts,
    Note,
    Picture,
    Pictures,
    Section,
    Table,
    drop_empty_columns,
    join_counts,
    number,
    share,
    text,
    whole,
)
from src.plots.report.flag_meanings import FLAG_MEANINGS
from src.plots.report.page import picture
from src.plots.report.run_files import RunFiles
from src.plots.saved import count_labels, draw_balance
from src.processed.fingerprints import find_copies
from src.processed.manifest import patients_of
from src.records.facts import parse_age, parse_sex
from src.utils import format_range

if TYPE_CHECKING:
    import pandas as pd


_CAPTIONS = {
    "class_balance": "Records of each class in each split",
    "source_balance": "Which collection the records of each class come from",
    "ages": "Ages",
}
_ALL = "all"
"""Name of the row for all collections."""
_MAX_REASONS = 50


def build_data_sections(files: RunFiles) -> list[Section]:
    """Return the sections on the data, a single remark if the processed folder is unknown."""
    manifest, records = files.manifest, files.records
    if manifest is None or records is None:
        note = Note(
            "The processed folder of this run was not found: give it with --processed to show "
            "the data.",
            warns=True,
        )
        return [Section("data", "Data", [note])]
    pictures = {}
    for n, (name, figure) in enumerate(draw_balance(manifest)):
        is_plain = name == "source_balance"
        pictures[name] = picture(figure, f"d{n}", _CAPTIONS[name], plain=is_plain)
    return [
        Section("data", "Data", _describe_collections(manifest, records, pictures)),
        Section("quality", "Quality", _describe_quality(manifest, records)),
        Section("splits", "Splits", _describe_splits(records, files.splits)),
    ]


# Collections --------------------------------------------------------------------------------------


def _describe_collections(
    manifest: pd.DataFrame, records: pd.DataFrame, pictures: Mapping[str, Picture]
) -> list[Block]:
    columns = (
        "collection",
        "attempted",
        "records",
        "left out",
        "labelled",
        "patients",
        "women",
        "age",
        "rates in Hz",
        "length in s",
    )
    names = sorted(set(manifest["dataset"]))
    rows = [_collection_row(name, manifest[manifest["dataset"] == name]) for name in names]
    if len(names) > 1:
        rows.append(_collection_row(_ALL, manifest))
    note = _age_note(manifest) + "Rates and lengths are those of the sources, before resampling."
    return [
        drop_empty_columns(Table("Collections", columns, rows, note)),
        Pictures(list(pictures.values())),
        *_class_table(records),
    ]


def _collection_row(name: str, rows: pd.DataFrame) -> list[Cell]:
    records = rows[rows["status"] == "ok"]
    # The fallback OTHER is a label too, but nobody gave it
    is_labelled = (records["label_source"] == "mapping") & (records["labels"] != "")
    rates = Counter(f"{float(rate):g}" for rate in records["fs"] if rate)
    return [
        text(name),
        whole(len(rows)),
        whole(len(records)),
        whole(len(rows) - len(records)),
        whole(int(is_labelled.sum())),
        _count_patients(records),
        _share_of_women(records),
        describe_ages(records),
        join_counts(rates),
        _describe_lengths(records),
    ]


def _count_patients(records: pd.DataFrame) -> Cell:
    """Return the number of patients, a dash where no record names one."""
    if not (records["patient_id"] != "").any():
        return Cell(NOTHING)
    return whole(len(set(patients_of(records))))


def _share_of_women(records: pd.DataFrame) -> Cell:
    """Return the share of women among the records of known sex."""
    sexes = Counter(parse_sex(cell) for cell in records["sex"])
    return share(sexes["female"], sexes["female"] + sexes["male"])


def describe_ages(rows: pd.DataFrame) -> Cell:
    """Return the median age with the quartiles."""
    ages = [age for age in map(parse_age, rows["age"]) if age is not None]
    if not ages:
        return Cell(NOTHING)
    low, middle, high = np.percentile(ages, [25, 50, 75])
    return Cell(f"{middle:.0f}", float(middle), format_range(low, high, digits=0))


def _describe_lengths(rows: pd.DataFrame) -> Cell:
    """Return the range of lengths in seconds."""
    seconds = []
    for n_samples, fs in zip_cells(rows["n_samples"], rows["fs"]):
        if n_samples and fs:
            seconds.append(float(n_samples) / float(fs))
    if not seconds:
        return Cell(NOTHING)
    low, high = min(seconds), max(seconds)
    return Cell(f"{low:g}" if low == high else f"{low:.4g} to {high:.4g}")


def _class_table(records: pd.DataFrame) -> Iterator[Table]:
    """Yield the number of records of each class, nothing where no record has one."""
    by_split = count_labels(records, "split", SPLIT_NAMES)
    totals = Counter(label for cell in records["labels"] for label in split_list(cell))
    if not totals:
        return
    rows = []
    for name, total in totals.most_common():
        in_splits = [whole(counts.get(name, 0)) for counts in by_split.values()]
        rows.append([text(name), whole(total), share(total, len(records)), *in_splits])
    columns = ("class", "records", "share", *by_split)
    note = "A record with several classes counts in each."
    yield Table("Classes", columns, rows, note, folded=len(rows) > 20)


# Quality ------------------------------------------------------------------------------------------


def _describe_quality(manifest: pd.DataFrame, records: pd.DataFrame) -> list[Block]:
    blocks: list[Block] = [
        *_flag_table(list(records["quality_flags"])),
        *_left_out_table(manifest),
    ]
    return blocks or [Note("Every record was processed, and none was flagged.")]


def _flag_table(cells: Sequence[str]) -> Iterator[Table]:
    """Yield the number of records with each kind of flag; `cells` holds the flags of each."""
    flags = Counter(kind for cell in cells for kind in flag_kinds(cell) if kind)
    if not flags:
        return
    rows = []
    for kind, n in flags.most_common():
        shown_share = share(n, len(cells), with_bar=True)
        meaning = text(FLAG_MEANINGS.get(kind))
        rows.append([text(kind), whole(n), shown_share, _flagged_leads(kind, cells), meaning])
    columns = ("flag", "records", "share", "most often in", "meaning")
    yield drop_empty_columns(Table("Quality flags", columns, rows, "Flagged records are used."))


def _flagged_leads(kind: str, cells: Sequence[str]) -> Cell:
    """Return the leads, or whatever follows the colon, that a kind of flag names most."""
    leads: Counter[str] = Counter()
    for cell in cells:
        for flag in split_list(cell):
            flag_kind, _, lead = flag.partition(":")
            if flag_kind == kind and lead:
                leads[lead] += 1
    return join_counts(leads)


def _left_out_table(manifest: pd.DataFrame) -> Iterator[Table]:
    """Yield the number of records left out for each reason."""
    left_out = manifest[manifest["status"] != "ok"]
    if not len(left_out):
        return
    reasons = Counter(zip(left_out["status"], map(reason_kind, left_out["reason"]), strict=True))
    rows = []
    for (status, reason), n in reasons.most_common(_MAX_REASONS):
        shown_share = share(n, len(manifest), with_bar=True)
        rows.append([text(status), text(reason), whole(n), shown_share])
    yield Table("Records left out", ("status", "reason", "records", "share"), rows)


def _age_note(records: pd.DataFrame) -> str:
    """Return what the column of ages shows; empty where no age is known, as it is then left out."""
    is_known = any(parse_age(age) is not None for age in set(records["age"]))
    return "Age: median with quartiles. " if is_known else ""


# Splits -------------------------------------------------------------------------------------------


def _describe_splits(records: pd.DataFrame, splits: Mapping[str, object]) -> list[Block]:
    sizes = Counter(records["split"])
    names = [name for name in SPLIT_NAMES if sizes[name]]
    sources = sorted(set(records["dataset"]))
    if len(sources) == 1:
        sources = []
    rows = [_split_row(name, records, sources) for name in names]
    columns = ("split", "records", "share", "patients", "women", "age", *sources)
    blocks: list[Block] = []
    facts = _split_facts(splits)
    if facts:
        blocks.append(Facts(facts))
    table = Table("Splits", columns, rows, _age_note(records))
    return [*blocks, drop_empty_columns(table), _check_leaks(records)]


def _split_row(name: str, records: pd.DataFrame, sources: Sequence[str]) -> list[Cell]:
    rows = records[records["split"] == name]
    by_source = Counter(rows["dataset"])
    return [
        text(name),
        whole(len(rows)),
        share(len(rows), len(records)),
        _count_patients(rows),
        _share_of_women(rows),
        describe_ages(rows),
        *(whole(by_source[source]) for source in sources),
    ]


def _split_facts(splits: Mapping[str, object]) -> list[tuple[str, Cell]]:
    """Return the rule of the splits and its settings."""
    rule = splits.get("rule")
    if not isinstance(rule, dict):
        return []
    method = str(rule.get("method"))
    facts = [("method", text(rule.get("method"))), ("seed", text(splits.get("seed")))]
    if "folds" in method:
        for name in ("val", "test"):
            folds = ", ".join(map(str, rule.get(f"{name}_folds", [])))
            facts.append((f"{name} folds", text(folds)))
    if "stratified" in method:
        fractions = rule.get("fractions", {})
        for name in SPLIT_NAMES:
            if name in fractions:
                facts.append((f"{name} fraction", number(fractions[name], 2)))
    return facts


def _check_leaks(records: pd.DataFrame) -> Note:
    """Return whether a patient or a recording is in more than one split."""
    placed = records[records["split"].isin(SPLIT_NAMES)]
    known = placed[placed["patient_id"] != ""]
    # By fingerprint as well: a copy under another name and patient is a leak too
    recordings = _recordings(list(placed["signal_hash"]))
    n_divided = {
        "patients": _count_divided(patients_of(known), list(known["split"])),
        "recordings": _count_divided(recordings, list(placed["split"])),
    }
    leaks = [f"{n:,} {kind}" for kind, n in n_divided.items() if n]
    if leaks:
        return Note(
            f"In more than one split: {' and '.join(leaks)}. Scores on them are too high.",
            warns=True,
        )
    checked = "patient and no recording" if len(known) else "recording"
    remark = f"Checked: no {checked} is in more than one split."
    n_unknown = len(placed) - len(known)
    if n_unknown:
        remark += f" The patients of {n_unknown:,} records are not known."
    return Note(remark)


def _recordings(fingerprints: Sequence[str]) -> list[str]:
    """Return a name for each record that copies of the same recording share, "" without copies."""
    names = [""] * len(fingerprints)
    for group_number, group in enumerate(find_copies(fingerprints)):
        for position in group:
            names[position] = str(group_number)
    return names


def _count_divided(groups: Sequence[str], splits: Sequence[str]) -> int:
    """Return the number of groups with members in more than one split."""
    pairs = {(group, split) for group, split in zip(groups, splits, strict=True) if group}
    n_splits = Counter(group for group, _ in pairs)
    return sum(n > 1 for n in n_splits.values())
