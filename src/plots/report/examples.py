"""The records shown with their ECG: the worst mistakes and typical ones, with saliency maps."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS
from src.learning.mistakes import RankedRecord, find_typical, find_worst
from src.plots.report.content import Browser, Card, Gallery, Note, Section
from src.plots.report.run_files import RunFiles
from src.processed.record_files import load_record_file, record_path, to_millivolts
from src.processed.runs.heartbeat import Heartbeat
from src.records.facts import parse_age, parse_sex
from src.records.svg import SHADE_S, draw_ecg_svg
from src.utils import Float32Array

logger = logging.getLogger(__name__)

_MAX_SAMPLES = 30_000
"""Samples of a lead that the page keeps: a minute at 500 Hz."""
_MISSING = -32768
# A quarter of the usual points: the sums over 0.04 s differ by less than a level of shade
_SALIENCY_STEPS = 16
_MIN_STEP_MV = 0.001


@dataclass(frozen=True, eq=False)
class Example:
    """A record to show.

    Attributes
    ----------
    ranked
        Its true and predicted classes.
    note
        Sex, age, rate and flags.
    signal
        Shape (12, n_samples), in mV.
    fs
        Sampling rate in Hz.
    lead_present
        Shape (12,).
    shade
        Shape (12, n_stretches): the saliency map over stretches of `SHADE_S`, -1 to 1.
    shade_class
        The class that the map explains.
    """

    ranked: RankedRecord
    note: str
    signal: Float32Array
    fs: float
    lead_present: NDArray[np.bool_]
    shade: Float32Array | None = None
    shade_class: str = ""

    @property
    def is_mistake(self) -> bool:
        """Whether the model was wrong."""
        return set(self.ranked.true) != set(self.ranked.predicted)


EncodedShade = TypedDict("EncodedShade", {"class": str, "seconds": float, "data": str})
"""A saliency map for the page's script; ``data`` holds 8-bit values, lead after lead, in base64."""


class EncodedExample(TypedDict):
    """An example for the page's script; ``data`` holds 16-bit samples of ``step_mv``, in base64."""

    key: str
    title: str
    note: str
    fs: float
    leads: list[str]
    step_mv: float
    data: str
    shade: EncodedShade | None


# Choosing -----------------------------------------------------------------------------------------


def collect_examples(
    files: RunFiles,
    n_examples: int,
    *,
    with_saliency: bool,
    network: str | Callable[..., Any] | None = None,
    beat: Heartbeat | None = None,
) -> list[Example]:
    """Return the worst mistakes and then typical records of the run's first evaluation.

    Parameters
    ----------
    files
        The run; without predictions or the processed folder there is no example.
    n_examples
        Most mistakes, and most typical records.
    with_saliency
        Compute a saliency map for each example, if the checkpoint is there; it takes about a second
        for each.
    network
        For a checkpoint of a network from elsewhere: its factory, or its import path.
    beat
        Is told of each map.
    """
    predictions = files.evaluations[0].predictions if files.evaluations else None
    if predictions is None or files.processed is None or files.manifest is None or not n_examples:
        return []
    candidates = [*find_worst(predictions, n_examples), *find_typical(predictions, n_examples)]
    ranked_records = [
        ranked for ranked in candidates if record_path(files.processed, ranked.key).is_file()
    ]
    maps = _explain(files, ranked_records, network, beat) if with_saliency else {}
    examples = []
    for ranked in ranked_records:
        row = files.manifest.loc[[ranked.key]].iloc[0].to_dict()
        shade, shade_class = maps.get(ranked.key, (None, ""))
        example = load_example(files.processed, ranked, row)
        examples.append(replace(example, shade=shade, shade_class=shade_class))
    return examples


def load_example(processed: str | Path, ranked: RankedRecord, row: Mapping[Any, Any]) -> Example:
    """Return a record with its signal, described by its row of the manifest."""
    arrays = load_record_file(record_path(processed, ranked.key))
    return Example(
        ranked=ranked,
        note=_describe_record(row),
        signal=to_millivolts(arrays)[:, :_MAX_SAMPLES],
        fs=float(arrays["fs"]),
        lead_present=arrays["lead_present"],
    )


def _describe_record(row: Mapping[Any, Any]) -> str:
    """Return sex, age, rate and flags of a row of the manifest, as far as they are known."""
    parts = []
    sex, age = parse_sex(row["sex"]), parse_age(row["age"])
    if sex:
        parts.append(sex)
    if age is not None:
        parts.append(f"{age:.0f} years")
    if row["fs"]:
        parts.append(f"recorded at {float(row['fs']):g} Hz")
    flags = str(row["quality_flags"]).replace(";", ", ")
    if flags:
        parts.append(f"flags: {flags}")
    return ", ".join(parts)


# Saliency -----------------------------------------------------------------------------------------


def _explain(
    files: RunFiles,
    ranked_records: Sequence[RankedRecord],
    network: str | Callable[..., Any] | None,
    beat: Heartbeat | None,
) -> dict[str, tuple[Float32Array, str]]:
    """Return key -> shade and class explained; nothing without the checkpoint."""
    if files.checkpoint is None or files.processed is None:
        logger.info("no checkpoint in %s: the examples are shown without saliency", files.run)
        return {}
    from src.classifier.saliency import explain
    from src.learning.checkpoints import load_checkpoint
    from src.learning.networks import NETWORKS
    from src.model import load_model

    checkpoint = load_checkpoint(files.checkpoint, network=network)
    name = checkpoint.card.model.network
    if network is None and name not in NETWORKS:
        logger.info("the examples are shown without saliency: its network needs --network %s", name)
        return {}
    model = load_model(checkpoint)
    model_leads = [STANDARD_LEADS.index(lead) for lead in checkpoint.card.leads]
    maps: dict[str, tuple[Float32Array, str]] = {}
    if beat is not None:
        beat.start_step("computing saliency maps", total=len(ranked_records))
    for ranked in ranked_records:
        if beat is not None and maps:
            beat.count()
        class_name = _class_to_explain(ranked)
        if class_name not in checkpoint.card.classes:
            continue
        arrays = load_record_file(record_path(files.processed, ranked.key))
        # The network may have fewer leads than the page; the others have no weight
        saliency = explain(model, checkpoint.card, arrays, class_name, n_steps=_SALIENCY_STEPS)
        values = np.zeros((len(STANDARD_LEADS), saliency.values.shape[1]), np.float32)
        values[model_leads] = saliency.values
        maps[ranked.key] = shade_stretches(values, saliency.fs), class_name
    return maps


def _class_to_explain(ranked: RankedRecord) -> str:
    """Return a class that was predicted wrongly, else one that was missed, else one that is right.

    Without any, return an empty name.
    """
    wrong = [name for name in ranked.predicted if name not in ranked.true]
    missed = [name for name in ranked.true if name not in ranked.predicted]
    return next(iter([*wrong, *missed, *ranked.true]), "")


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
    sums = np.add.reduceat(values.astype(np.float64), edges, axis=1)  # (n_leads, n_stretches)
    padded = np.pad(sums, ((0, 0), (1, 1)), mode="edge")
    smooth = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    # A map of zeros stays as it is
    scale = float(np.quantile(np.abs(smooth), 0.99)) or 1.0
    shade: Float32Array = np.clip(smooth / scale, -1, 1).astype(np.float32)
    return shade


# Showing ------------------------------------------------------------------------------------------


def build_example_sections(examples: Sequence[Example]) -> list[Section]:
    """Return the gallery of mistakes, and the browser of all examples."""
    n_mistakes = sum(example.is_mistake for example in examples)
    title = {0: "Mistakes", 1: "Worst mistake"}.get(n_mistakes, "Worst mistakes")
    return [
        Section("mistakes", title, _build_gallery(examples)),
        Section("browser", "Record browser", _build_browser(examples)),
    ]


def _build_gallery(examples: Sequence[Example]) -> list[Note | Gallery]:
    if not examples:
        return []
    cards = [_card(example, place) for place, example in enumerate(examples) if example.is_mistake]
    if not cards:
        return [Note("Every record was predicted correctly.")]
    blocks: list[Note | Gallery] = [Note("Large boxes are 0.2 s and 0.5 mV.")]
    if any(example.shade is not None for example in examples):
        blocks.append(Note("Shaded by integrated gradients, as the key of each record says."))
    return [*blocks, Gallery(cards)]


def _build_browser(examples: Sequence[Example]) -> list[Browser]:
    if not examples:
        return []
    return [Browser([encode_example(example) for example in examples])]


def _card(example: Example, place: int) -> Card:
    svg = draw_ecg_svg(
        example.signal,
        example.fs,
        STANDARD_LEADS,
        lead_present=example.lead_present,
        shade=example.shade,
        label=f"ECG of {example.ranked.key}",
    )
    title, note = str(example.ranked), _describe_scores(example)
    return Card(example.ranked.key, title, note, svg, place, example.shade_class)


def _describe_scores(example: Example) -> str:
    """Return the probabilities of a record, followed by its note."""
    scores = ", ".join(f"{name} {value:.3f}" for name, value in example.ranked.scores.items())
    parts = [f"probabilities: {scores}"]
    if example.note:
        parts.append(example.note)
    return "; ".join(parts)


def encode_example(example: Example) -> EncodedExample:
    """Return an example as plain JSON values for the page's script.

    Samples are 16-bit whole numbers of `step_mv`, lead after lead, in base64; -32768 where a sample
    is missing.
    """
    # 16 bits hold 33 mV in steps of 1 uV; larger signals get coarser steps
    known = np.isfinite(example.signal) & example.lead_present[:, None]
    largest = float(np.abs(example.signal[known]).max(initial=0.0))
    step_mv = max(_MIN_STEP_MV, largest / 32767)
    steps = np.round(np.where(known, example.signal, 0) / step_mv)
    samples = np.where(known, steps, _MISSING).astype("<i2")
    shade: EncodedShade | None = None
    if example.shade is not None:
        shade = {
            "class": example.shade_class,
            "seconds": SHADE_S,
            "data": _base64(np.round(example.shade * 127).astype(np.int8)),
        }
    return {
        "key": example.ranked.key,
        "title": str(example.ranked),
        "note": _describe_scores(example),
        "fs": example.fs,
        "leads": list(STANDARD_LEADS),
        "step_mv": step_mv,
        "data": _base64(samples),
        "shade": shade,
    }


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
