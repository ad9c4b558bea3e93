"""The sections on what to doubt: disturbed recordings, suspicious labels, and the model's card."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from src.learning.checkpoints import Checkpoint, FittedOn, ModelCard, load_checkpoint
from src.learning.results import StressRow, StressTable
from src.plots.report.content import (
    Block,
    Cell,
    Facts,
    Note,
    Pictures,
    Section,
    Table,
    drop_empty_columns,
    number,
    score,
    text,
    whole,
)
from src.plots.report.page import picture
from src.plots.report.run_files import RunFiles
from src.plots.stress import plot_stress

logger = logging.getLogger(__name__)

_ISSUES_SHOWN = 100
_LEADS_NOTE = (
    "Change is that of the macro AUROC. Unlike is the AUROC with which predict tells disturbed "
    "recordings from undisturbed ones by how unlike the training recordings they are."
)


def build_trust_sections(files: RunFiles) -> list[Section]:
    """Return disturbed recordings and suspicious labels, without blocks where there are none."""
    blocks: list[Block] = []
    for i, table in enumerate(files.stress):
        if table["rows"]:
            blocks += _describe_stress(table, f"d{i}")
    issues = _describe_issues(files)
    return [
        Section("disturbances", "Disturbances", blocks),
        Section("suspicious", "Suspicious labels", issues),
    ]


# Disturbed recordings -----------------------------------------------------------------------------


def _describe_stress(table: StressTable, ident: str) -> Iterator[Block]:
    rows = table["rows"]
    caption = f"Macro AUROC on disturbed recordings of the {table['split']} split"
    yield Pictures([picture(plot_stress(rows), ident, caption)])
    columns = ("disturbance", "records", "macro AUROC", "change", "unlike", "unfit", "rejected")
    cells = [_stress_row(row) for row in rows]
    yield drop_empty_columns(Table("Disturbances", columns, cells, _LEADS_NOTE))


def _stress_row(row: StressRow) -> list[Cell]:
    change = row["change"]
    return [
        text(f"{row['kind']} {row['strength']}".strip()),
        whole(row["n_records"]),
        score(row["auroc_macro"]),
        number(None) if change is None else Cell(f"{change:+.3f}", change),
        number(row.get("unlike")),
        whole(row["n_unfit"]),
        whole(row["n_rejected"]) if row["n_rejected"] else text(None),
    ]


# Suspicious labels --------------------------------------------------------------------------------


def _describe_issues(files: RunFiles) -> list[Block]:
    issues = files.issues
    if not issues:
        return []
    n_records = len({(row["dataset"], row["record_id"]) for row in issues})
    counts = Counter((row["class"], _is_added(row["suggestion"])) for row in issues)
    classes = sorted({row["class"] for row in issues})
    by_class = [
        [text(name), whole(counts[name, False]), whole(counts[name, True])] for name in classes
    ]
    shown = [_issue_row(row) for row in issues[:_ISSUES_SHOWN]]
    columns = ("record", "given", "suggestion", "class in doubt", "its probability", "score")
    note = (
        f"{len(issues):,} labels of {n_records:,} records are contradicted by predictions of "
        "networks that did not see them. A suggestion is no diagnosis: label-issues --page shows "
        "the ECGs to decide on."
    )
    return [
        Note(note),
        Table("Suspicious labels by class", ("class", "to lose it", "to get it"), by_class),
        Table("The most suspicious labels", columns, shown, folded=True),
    ]


def _is_added(suggestion: str) -> bool:
    return suggestion.startswith("add ")


def _issue_row(row: Mapping[str, str]) -> list[Cell]:
    return [
        text(f"{row['dataset']} {row['record_id']}"),
        text(row["given"]),
        text(row["suggestion"]),
        text(row["class"]),
        *(number(_to_number(row[name])) for name in ("probability", "score")),
    ]


def _to_number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


# The card -----------------------------------------------------------------------------------------


def build_card_section(files: RunFiles) -> Section:
    """Return what the checkpoint says of its input, its decisions, and what they rest on."""
    checkpoint = _load(files.checkpoint)
    if checkpoint is None:
        return Section("card", "Model card")
    card = checkpoint.card
    blocks: list[Block] = [Facts(_card_facts(checkpoint))]
    if card.thresholds or card.calibration or card.coverage:
        blocks.append(_decision_table(card))
    return Section("card", "Model card", [*blocks, *_describe_fits(card)])


def _load(path: Path | None) -> Checkpoint | None:
    if path is None:
        return None
    try:
        return load_checkpoint(path)
    except ValueError as error:
        logger.warning("no model card: %s", error)
        return None


def _card_facts(checkpoint: Checkpoint) -> list[tuple[str, Cell]]:
    card, settings = checkpoint.card, checkpoint.card.preprocess
    reference = checkpoint.reference
    compared = f"{reference.n_records:,} of these" if reference else ""
    return [
        ("network", text(card.model.network)),
        ("leads", text(" ".join(card.leads))),
        ("input", text(f"{settings.n_samples / settings.fs:g} s at {settings.fs:g} Hz")),
        ("normalization", text(card.normalization.mode)),
        ("labels per record", text("one" if card.single_label else "several")),
        ("trained on", text(f"{len(card.train_hashes):,} recordings" if card.train_hashes else "")),
        *([("inputs are compared with", text(compared))] if compared else []),
    ]


def _decision_table(card: ModelCard) -> Table:
    """Return the thresholds, the calibration and the limits of each class."""
    n_classes = len(card.classes)
    scale, limits = card.calibration, card.coverage
    nothing: Sequence[float | None] = [None] * n_classes
    values = [
        card.thresholds or nothing,
        scale.slope if scale else nothing,
        scale.intercept if scale else nothing,
        limits.present_from if limits else nothing,
        (limits.absent_to if limits else ()) or nothing,
    ]
    rows = [
        [text(name), *(number(column[i]) for column in values)]
        for i, name in enumerate(card.classes)
    ]
    columns = ("class", "threshold", "slope", "intercept", "plausible from", "absent up to")
    table = Table("Decisions of the model", columns, rows, folded=n_classes > 15)
    return drop_empty_columns(table)


def _describe_fits(card: ModelCard) -> Iterator[Note]:
    fits: dict[str, FittedOn | None] = {
        "Calibration": card.calibration_on,
        "Thresholds": card.thresholds_on,
        "Limits": card.coverage_on,
    }
    for name, chosen_on in fits.items():
        if chosen_on is not None:
            yield Note(f"{name}: {chosen_on}.")
