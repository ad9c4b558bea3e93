"""How well a network predicts recordings that something is wrong with.

Each recording of a split is disturbed in memory, in mV, and predicted as `predict` would predict
its file: quality flags, derived leads, resampling and windows included.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.classifier.file_predictions import FilePrediction, predict_sources
from src.config import STANDARD_LEADS
from src.eval import split_records
from src.labels.text_tables import save_frame
from src.learning.checkpoints import Checkpoint, load_checkpoint
from src.learning.disturbances import KINDS, Disturbance, list_disturbances
from src.learning.leaks import TrainingRecordings, refuse_overlap
from src.learning.metrics import Ranking, compute_metrics
from src.learning.predictions import Predictions
from src.learning.results import StressRow, StressTable
from src.model import Member, load_members
from src.processed.mirror import local_copy
from src.processed.record_files import load_record_file, to_millivolts
from src.processed.runs.heartbeat import Heartbeat
from src.processed.targets import LabelledRecords, encode_targets
from src.records.record import ECGRecord
from src.utils import format_number, save_json

logger = logging.getLogger(__name__)


def run_stress(
    checkpoint: str | Path | Sequence[str | Path] | Checkpoint,
    processed: str | Path,
    *,
    split: str = "val",
    out: str | Path | None = None,
    kinds: Sequence[str] = KINDS,
    max_records: int = 0,
    seed: int = 0,
    batch_size: int = 64,
    device: str = "cpu",
    allow_overlap: bool = False,
) -> StressTable:
    """Evaluate a checkpoint on a split under each disturbance and strength.

    Parameters
    ----------
    checkpoint
        A ``best.pth`` or ``latest.pth``, several that are used as one, or one that is loaded.
    processed
        The folder that preprocessing filled.
    split
        train, val or test.
    out
        Folder for ``stress_<split>.json`` and ``stress_<split>.csv``.
    kinds
        Kinds of disturbance, of `src.learning.disturbances.KINDS`; the undisturbed recordings are
        always evaluated.
    max_records
        Evaluate this many records, drawn at random; 0 takes all.
    seed
        Of the disturbances and of the draw.
    batch_size, device
        Recordings at a time, and the torch device that predicts them.
    allow_overlap
        Include recordings that the model was trained on.

    Raises
    ------
    ValueError
        If a kind is unknown, or `src.eval.evaluate` would refuse the checkpoint, folder or split.
    """
    disturbances = list_disturbances(kinds)
    processed = local_copy(processed)
    loaded = load_checkpoint(checkpoint, device)
    records = split_records(loaded, processed, split)
    refuse_overlap(
        loaded.card.train_hashes,
        records.keys,
        records.signal_hashes,
        split,
        allow_overlap=allow_overlap,
    )
    if 0 < max_records < len(records):
        rng = np.random.default_rng(seed)
        records = records.subset(sorted(rng.permutation(len(records))[:max_records]))
    members = load_members(loaded, device)
    rows: list[StressRow] = []
    clean_ranks: list[float] = []
    with Heartbeat("stress", f"predicting {len(records)} records"):
        for disturbance in disturbances:
            predicted = _predict(members, loaded, records, disturbance, seed, batch_size, device)
            row = _evaluate(loaded, records, disturbance, predicted)
            ranks = [found.unlike for found in predicted if found.unlike is not None]
            if rows:
                row["unlike"] = _tell_apart(clean_ranks, ranks)
            else:
                clean_ranks = ranks
            clean = (rows[0] if rows else row)["auroc_macro"]
            if clean is not None and row["auroc_macro"] is not None:
                row["change"] = row["auroc_macro"] - clean
            rows.append(row)
            logger.info("%s %s: AUROC %s", row["kind"], row["strength"], row["auroc_macro"])
    table: StressTable = {
        "split": split,
        "checkpoint": loaded.name,
        "seed": seed,
        "rows": rows,
    }
    if out is not None:
        _save(table, Path(out))
    return table


def _predict(
    members: Sequence[Member],
    checkpoint: Checkpoint,
    records: LabelledRecords,
    disturbance: Disturbance,
    seed: int,
    batch_size: int,
    device: str,
) -> list[FilePrediction]:
    """Return the predictions for disturbed recordings."""
    rng = np.random.default_rng(seed)
    disturbed = (disturbance.apply(record, rng) for record in _iter_recordings(records))
    return list(
        predict_sources(
            members,
            checkpoint.card,
            disturbed,
            trained_on=TrainingRecordings(()),
            batch_size=batch_size,
            device=device,
            predict_unfit=True,
        )
    )


def _tell_apart(clean: Sequence[float], disturbed: Sequence[float]) -> float | None:
    """Return the AUROC of values that are higher for what is disturbed; None without values."""
    if not (clean and disturbed):
        return None
    is_disturbed = np.repeat([0, 1], [len(clean), len(disturbed)])
    return float(Ranking.of(is_disturbed, [*clean, *disturbed]).auroc()[0])


def _evaluate(
    checkpoint: Checkpoint,
    records: LabelledRecords,
    disturbance: Disturbance,
    predicted: Sequence[FilePrediction],
) -> StressRow:
    card = checkpoint.card
    used = [row for row, found in enumerate(predicted) if found.scores is not None]
    n_unfit = sum(found.status == "unfit" for found in predicted)
    metrics = None
    if used:
        metrics = compute_metrics(_collect(checkpoint, records.subset(used), predicted))
    return {
        "kind": disturbance.kind,
        "strength": disturbance.strength,
        "n_records": len(used),
        "n_unfit": n_unfit,
        "n_rejected": len(predicted) - len(used),
        "auroc_macro": metrics["auroc_macro"] if metrics else None,
        "auroc_frequent": metrics["frequent"]["auroc_macro"] if metrics else None,
        "change": None,
        "unlike": None,
        "auroc": {
            name: metrics["per_class"][name]["auroc"] if metrics else None for name in card.classes
        },
    }


def _iter_recordings(records: LabelledRecords) -> Iterator[ECGRecord]:
    """Yield the recordings of record files in mV, with the leads that were recorded."""
    for key, path in zip(records.keys, records.paths, strict=True):
        arrays = load_record_file(path)
        present = np.flatnonzero(arrays["lead_present"])
        yield ECGRecord(
            key,
            to_millivolts(arrays)[present],
            float(arrays["fs"]),
            tuple(STANDARD_LEADS[row] for row in present),
        )


def _collect(
    checkpoint: Checkpoint, records: LabelledRecords, predicted: Sequence[FilePrediction]
) -> Predictions:
    scores = [found.scores for found in predicted if found.scores is not None]
    return Predictions(
        keys=records.keys,
        y_true=encode_targets(records, checkpoint.card.classes),
        y_score=np.array(scores, np.float32),
        classes=checkpoint.card.classes,
        single_label=checkpoint.card.single_label,
        signal_hashes=records.signal_hashes,
        train_hashes=checkpoint.card.train_hashes,
    )


# Tables -------------------------------------------------------------------------------------------


def _save(table: StressTable, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    save_json(table, out / f"stress_{table['split']}.json")
    rows = []
    for row in table["rows"]:
        of_classes = {f"auroc_{name}": value for name, value in row["auroc"].items()}
        facts = {name: value for name, value in row.items() if name != "auroc"}
        rows.append(facts | of_classes)
    texts = [{name: _format_cell(value) for name, value in row.items()} for row in rows]
    save_frame(pd.DataFrame(texts), out / f"stress_{table['split']}.csv")


def _format_cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def format_stress(table: StressTable) -> str:
    """Return the table as text: kind, strength, AUROC, its change, and recordings called unfit."""
    lines = [
        f"split {table['split']}, macro AUROC",
        f"{'':<34}{'all':>7}{'10+':>7}{'change':>9}{'unfit':>7}{'unlike':>8}",
    ]
    for row in table["rows"]:
        lines.append(
            f"{row['kind'] + ' ' + row['strength']:<34}"
            f"{format_number(row['auroc_macro']):>7}{format_number(row['auroc_frequent']):>7}"
            f"{'-' if row['change'] is None else format(row['change'], '+.3f'):>9}"
            f"{row['n_unfit'] or '':>7}{format_number(row.get('unlike')):>8}"
        )
    return "\n".join(lines)
