"""The records that the page shows with their ECG: the worst mistakes and typical ones, and what
they rest on.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS
from src.learning.mistakes import RankedRecord, find_typical, find_worst
from src.plots.report.content import Block, Browser, Card, Gallery, Note, Section
from src.plots.report.run_files import RunFiles
from src.processed.record_files import load_record_file, record_path, to_millivolts
from src.records.facts import parse_age, parse_sex
from src.records.svg import SHADE_S, draw_ecg_svg
from src.utils import Float32Array

logger = logging.getLogger(__name__)


_MAX_SAMPLES = 30_000
"""Samples of a lead that are kept in the page: a minute at 500 Hz."""


@dataclass(frozen=True, eq=False)
class Example:
    """A record to show: what the model said, its signal (12, n_samples) in mV, and what the answer
    rests on.
    """

    verdict: RankedRecord
    note: str
    signal: Float32Array
    fs: float
    lead_present: NDArray[np.bool_]
    shade: Float32Array | None = None
    shade_class: str = ""

    @property
    def is_mistake(self) -> bool:
        """Whether the model was wrong."""
        return set(self.verdict.true) != set(self.verdict.predicted)


# Choosing -----------------------------------------------------------------------------------------


def collect_examples(files: RunFiles, n_examples: int, *, with_saliency: bool) -> list[Example]:
    """Return the worst mistakes and then typical records of the split that the run is known by.

    Parameters
    ----------
    files
        The run; without predictions, or the processed folder, there is no example.
    n_examples
        At most so many of either.
    with_saliency
        Compute what each answer rests on, where the checkpoint is there; it takes seconds for each.
    """
    predictions = files.evaluations[0].predictions if files.evaluations else None
    if predictions is None or files.processed is None or files.manifest is None or not n_examples:
        return []
    verdicts = [*find_worst(predictions, n_examples), *find_typical(predictions, n_examples)]
    verdicts = [
        verdict for verdict in verdicts if record_path(files.processed, verdict.key).is_file()
    ]
    shades = _explain(files, verdicts) if with_saliency else {}
    examples = []
    for verdict in verdicts:
        arrays = load_record_file(record_path(files.processed, verdict.key))
        note = _describe(files.manifest.loc[[verdict.key]].iloc[0].to_dict())
        signal = to_millivolts(arrays)[:, :_MAX_SAMPLES]
        examples.append(
            Example(
                verdict,
                note,
                signal,
                float(arrays["fs"]),
                arrays["lead_present"],
                *shades.get(verdict.key, ()),
            )
        )
    return examples


def _describe(row: dict[Any, Any]) -> str:
    age, sex = parse_age(row["age"]), parse_sex(row["sex"])
    parts = [
        sex or "",
        f"{age:.0f} years" if age is not None else "",
        f"recorded at {float(row['fs']):g} Hz" if row["fs"] else "",
    ]
    flags = str(row["quality_flags"]).replace(";", ", ")
    return ", ".join(part for part in [*parts, f"flags: {flags}" if flags else ""] if part)


# Saliency -----------------------------------------------------------------------------------------


def _explain(
    files: RunFiles, verdicts: Sequence[RankedRecord]
) -> dict[str, tuple[Float32Array, str]]:
    """Return key -> shade and class explained; nothing without the checkpoint."""
    if files.checkpoint is None or files.processed is None:
        logger.info(
            "no checkpoint in %s: the examples are shown without what the answers rest on",
            files.run,
        )
        return {}
    from src.classifier.saliency import explain
    from src.learning.checkpoints import load_checkpoint
    from src.model import load_model

    checkpoint = load_checkpoint(files.checkpoint)
    model, leads = (
        load_model(checkpoint),
        [STANDARD_LEADS.index(lead) for lead in checkpoint.card.leads],
    )
    found = {}
    for verdict in verdicts:
        wanted = _class_to_explain(verdict)
        if wanted not in checkpoint.card.classes:
            continue
        arrays = load_record_file(record_path(files.processed, verdict.key))
        saliency = explain(model, checkpoint.card, arrays, wanted)
        values = np.zeros((len(STANDARD_LEADS), saliency.values.shape[1]), np.float32)
        values[leads] = saliency.values
        found[verdict.key] = shade_stretches(values, saliency.fs), wanted
    return found


def _class_to_explain(verdict: RankedRecord) -> str:
    """Return the class called wrongly, else the one that was missed, else the one that is right."""
    wrong = [name for name in verdict.predicted if name not in verdict.true]
    missed = [name for name in verdict.true if name not in verdict.predicted]
    return next(iter([*wrong, *missed, *verdict.true]), "")


def shade_stretches(values: Float32Array, fs: float) -> Float32Array:
    """Sum a map over stretches of `SHADE_S`, smooth it over three of them, and scale it to -1 to 1.

    Parameters
    ----------
    values
        Shape (n_leads, n_samples).
    fs
        In Hz.

    Returns
    -------
    ndarray
        Shape (n_leads, n_stretches); the greatest hundredth of the absolute values is 1.
    """
    n_stretches = max(1, round(values.shape[1] / fs / SHADE_S))
    edges = np.linspace(0, values.shape[1], n_stretches, endpoint=False).astype(int)
    sums = np.add.reduceat(values.astype(np.float64), edges, axis=1)
    padded = np.pad(sums, ((0, 0), (1, 1)), mode="edge")
    smooth = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    scale = float(np.quantile(np.abs(smooth), 0.99)) or 1.0
    shade: Float32Array = np.clip(smooth / scale, -1, 1).astype(np.float32)
    return shade


# Showing ------------------------------------------------------------------------------------------


def build_example_sections(examples: Sequence[Example]) -> list[Section]:
    """Return the gallery of mistakes, and the browser of all examples."""
    mistakes = [(place, example) for place, example in enumerate(examples) if example.is_mistake]
    gallery: list[Block] = []
    if mistakes:
        gallery = [
            *_legend(examples),
            Gallery([_card(example, place) for place, example in mistakes]),
        ]
    elif examples:
        gallery = [Note("Every record judged is right.")]
    browser: list[Block] = (
        [Browser([encode_example(example) for example in examples])] if examples else []
    )
    return [
        Section("mistakes", "Worst mistakes", gallery),
        Section("browser", "Record browser", browser),
    ]


def _legend(examples: Sequence[Example]) -> Iterator[Note]:
    yield Note("Large boxes are 0.2 s and 0.5 mV.")
    if any(example.shade is not None for example in examples):
        yield Note(
            "Shaded orange: what speaks for the class named (integrated gradients); blue: "
            "what speaks against it."
        )


def _card(example: Example, place: int) -> Card:
    svg = draw_ecg_svg(
        example.signal,
        example.fs,
        STANDARD_LEADS,
        lead_present=example.lead_present,
        shade=example.shade,
        label=f"ECG of {example.verdict.key}",
    )
    return Card(example.verdict.key, str(example.verdict), _describe_scores(example), svg, place)


def _describe_scores(example: Example) -> str:
    scores = ", ".join(f"{name} {value:.3f}" for name, value in example.verdict.scores.items())
    parts = [
        f"probabilities: {scores}",
        example.note,
        f"shaded for {example.shade_class}" if example.shade_class else "",
    ]
    return "; ".join(part for part in parts if part)


def encode_example(example: Example) -> dict[str, object]:
    """Return an example as plain JSON values for the page's script.

    Samples are 16-bit whole numbers of `step_mv`, lead after lead, in base64; -32768 where a sample
    is missing.
    """
    there = np.isfinite(example.signal) & example.lead_present[:, None]
    largest = float(np.abs(example.signal[there]).max(initial=0.0))
    step = max(0.001, largest / 32767)
    codes = np.where(there, np.round(np.where(there, example.signal, 0) / step), -32768).astype(
        "<i2"
    )
    shade = None
    if example.shade is not None:
        shade = {
            "class": example.shade_class,
            "seconds": SHADE_S,
            "data": _base64(np.round(example.shade * 127).astype(np.int8)),
        }
    return {
        "key": example.verdict.key,
        "title": str(example.verdict),
        "note": _describe_scores(example),
        "fs": example.fs,
        "leads": list(STANDARD_LEADS),
        "step_mv": step,
        "data": _base64(codes),
        "shade": shade,
    }


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
