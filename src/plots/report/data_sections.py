"""The sections on the data: collections, quality and splits, from the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from src.labels.text_tables import split_list, zip_cells
from src.plots.data import flag_kinds, reason_kind
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
    dense,
    join_counts,
    number,
    share,
    text,
    whole,
)
from src.plots.report.page import picture
from src.plots.report.run_files import RunFiles
from src.plots.saved import count_labels, draw_balance
from src.processed.fingerprints import find_copies
from src.processed.manifest import patients_of
from src.processed.splits import SPLIT_NAMES
from src.records.facts import parse_age, parse_sex

if TYPE_CHECKING:
    import pandas as pd


_CAPTIONS = {
    "class_balance": "Records of each class in each split",
    "source_balance": "Which collection the records of each class come from",
    "ages": "Ages",
}
_ALL = "all"


def build_data_sections(files: RunFiles) -> list[Section]:
    """Return the sections on the data; one with a remark alone where no processed folder is
    known.
    """
    if files.manifest is None or files.records is None:
        note = Note(
            "The processed folder of this run is not known: name it with --processed to "
            "see the data.",
            warns=True,
        )
        return [Section("data", "Data", [note])]
    pictures = {
        name: picture(figure, f"d{n}", _CAPTIONS[name], plain=name == "source_balance")
        for n, (name, figure) in enumerate(draw_balance(files.manifest))
    }
    return [
        Section("data", "Data", _describe_collections(files.manifest, files.records, pictures)),
        Section("quality", "Quality", _describe_quality(files.manifest, files.records)),
        Section("splits", "Splits", _describe_splits(files.records, files)),
    ]


# Collections --------------------------------------------------------------------------------------


def _describe_collections(
    manifest: pd.DataFrame, records: pd.DataFrame, pictures: dict[str, Picture]
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
    note = (
        "Age: median with quartiles. Rates and lengths are those of the sources, before resampling."
    )
    first, others = (
        [pictures[name] for name in names if name in pictures]
        for names in (("class_balance",), ("source_balance", "ages"))
    )
    return [
        dense(Table("Collections", columns, rows, note)),
        Pictures(first),
        *_class_table(records),
        Pictures(others),
    ]


def _collection_row(name: str, rows: pd.DataFrame) -> list[Cell]:
    records = rows[rows["status"] == "ok"]
    women, known = _count_women(records)
    patients = set(patients_of(records)) if (records["patient_id"] != "").any() else set()
    return [
        text(name),
        whole(len(rows)),
        whole(len(records)),
        whole(len(rows) - len(records)),
        whole(int(((records["label_source"] == "mapping") & (records["labels"] != "")).sum())),
        whole(len(patients)) if patients else text(None),
        share(women, known),
        describe_ages(records),
        join_counts(Counter(f"{float(rate):g}" for rate in records["fs"] if rate)),
        _describe_lengths(records),
    ]


def _count_women(rows: pd.DataFrame) -> tuple[int, int]:
    sexes = Counter(parse_sex(cell) for cell in rows["sex"])
    return sexes["female"], sexes["female"] + sexes["male"]


def describe_ages(rows: pd.DataFrame) -> Cell:
    """Return the median age with the quartiles."""
    ages = [age for age in map(parse_age, rows["age"]) if age is not None]
    if not ages:
        return Cell(NOTHING)
    low, middle, high = np.percentile(ages, [25, 50, 75])
    return Cell(f"{middle:.0f}", float(middle), f"{low:.0f}\N{EN DASH}{high:.0f}")


def _describe_lengths(rows: pd.DataFrame) -> Cell:
    seconds = [
        float(samples) / float(rate)
        for samples, rate in zip_cells(rows["n_samples"], rows["fs"])
        if samples and rate
    ]
    if not seconds:
        return Cell(NOTHING)
    low, high = min(seconds), max(seconds)
    return Cell(f"{low:g}" if low == high else f"{low:.4g} to {high:.4g}")


def _class_table(records: pd.DataFrame) -> Iterator[Table]:
    by_split = count_labels(records, "split", SPLIT_NAMES)
    totals = Counter(label for cell in records["labels"] for label in split_list(cell))
    if totals:
        rows = [
            [
                text(name),
                whole(total),
                share(total, len(records)),
                *(whole(counts.get(name, 0)) for counts in by_split.values()),
            ]
            for name, total in totals.most_common()
        ]
        columns = ("class", "records", "share", *by_split)
        yield Table(
            "Classes",
            columns,
            rows,
            "A record with several classes counts in each.",
            folded=len(rows) > 20,
        )


# Quality ------------------------------------------------------------------------------------------


def _describe_quality(manifest: pd.DataFrame, records: pd.DataFrame) -> list[Block]:
    blocks: list[Block] = []
    flags = Counter(kind for cell in records["quality_flags"] for kind in flag_kinds(cell) if kind)
    if flags:
        rows = [
            [
                text(kind),
                whole(n),
                share(n, len(records), with_bar=True),
                _leads_of(kind, list(records["quality_flags"])),
            ]
            for kind, n in flags.most_common()
        ]
        blocks.append(
            dense(
                Table(
                    "Quality flags",
                    ("flag", "records", "share", "most often in"),
                    rows,
                    "Flagged records are used.",
                )
            )
        )
    left_out = manifest[manifest["status"] != "ok"]
    if len(left_out):
        reasons = Counter(
            zip(left_out["status"], map(reason_kind, left_out["reason"]), strict=True)
        )
        rows = [
            [text(status), text(reason), whole(n), share(n, len(manifest), with_bar=True)]
            for (status, reason), n in reasons.most_common(50)
        ]
        blocks.append(Table("Records left out", ("status", "reason", "records", "share"), rows))
    return blocks or [Note("Every record was processed, and none was flagged.")]


def _leads_of(kind: str, cells: Sequence[str]) -> Cell:
    """Return the leads, or whatever follows the colon, that a flag names most."""
    flags = (flag.partition(":") for cell in cells for flag in split_list(cell))
    return join_counts(Counter(name for found, _, name in flags if found == kind and name))


# Splits -------------------------------------------------------------------------------------------


def _describe_splits(records: pd.DataFrame, files: RunFiles) -> list[Block]:
    sizes = Counter(records["split"])
    names = [name for name in SPLIT_NAMES if sizes[name]]
    sources = sorted(set(records["dataset"]))
    columns = (
        "split",
        "records",
        "share",
        "patients",
        "women",
        "age",
        *(sources if len(sources) > 1 else ()),
    )
    rows = [_split_row(name, records, columns[6:]) for name in names]
    blocks: list[Block] = [dense(Table("Splits", columns, rows, "Age: median with quartiles."))]
    if facts := _split_facts(files.splits):
        blocks.insert(0, Facts(facts))
    return [*blocks, *_find_leaks(records)]


def _split_row(name: str, records: pd.DataFrame, sources: Sequence[str]) -> list[Cell]:
    rows = records[records["split"] == name]
    by_source = Counter(rows["dataset"])
    return [
        text(name),
        whole(len(rows)),
        share(len(rows), len(records)),
        whole(len(set(patients_of(rows)))) if (rows["patient_id"] != "").any() else text(None),
        share(*_count_women(rows)),
        describe_ages(rows),
        *(whole(by_source[source]) for source in sources),
    ]


def _split_facts(splits: dict[str, object]) -> list[tuple[str, Cell]]:
    rule = splits.get("rule")
    if not isinstance(rule, dict):
        return []
    facts = [("placed by", text(rule.get("method"))), ("seed", text(splits.get("seed")))]
    if "folds" in str(rule.get("method")):
        facts += [
            (f"{name} folds", text(", ".join(map(str, rule.get(f"{name}_folds", [])))))
            for name in ("val", "test")
        ]
    if "stratified" in str(rule.get("method")):
        fractions = rule.get("fractions", {})
        facts += [
            (f"{name} fraction", number(fractions[name], 2))
            for name in SPLIT_NAMES
            if name in fractions
        ]
    return facts


def _find_leaks(records: pd.DataFrame) -> Iterator[Note]:
    """Say whether a patient or a recording is in two splits."""
    placed = records[records["split"].isin(SPLIT_NAMES)]
    known = placed[placed["patient_id"] != ""]
    checks = {
        "patients": _count_divided(list(patients_of(known)), list(known["split"])),
        "recordings": _count_divided(
            _recordings(list(placed["signal_hash"])), list(placed["split"])
        ),
    }
    found = [f"{n:,} {what}" for what, n in checks.items() if n]
    if found:
        yield Note(
            f"In more than one split: {' and '.join(found)}. Numbers on them are too good.",
            warns=True,
        )
    else:
        whom = "patient and no recording" if len(known) else "recording"
        unknown = (
            f" The patients of {len(placed) - len(known):,} records are not known."
            if len(known) < len(placed)
            else ""
        )
        yield Note(f"Checked: no {whom} is in more than one split.{unknown}")


def _recordings(fingerprints: Sequence[str]) -> list[str]:
    """Return a name for each record that it shares with copies of the same recording, "" where
    there is none.
    """
    names = [""] * len(fingerprints)
    for first, group in enumerate(find_copies(fingerprints)):
        for position in group:
            names[position] = str(first)
    return names


def _count_divided(groups: Sequence[str], splits: Sequence[str]) -> int:
    """Return how many groups have members in more than one split."""
    pairs = {(group, split) for group, split in zip(groups, splits, strict=True) if group}
    return sum(n > 1 for n in Counter(group for group, _ in pairs).values())
