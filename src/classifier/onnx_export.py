"""Export of a checkpoint to ONNX, with a JSON file that describes its input and output.

onnx, onnxscript and onnxruntime come with requirements-export.txt.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from src.classifier.fitness import VOID_FLAGS, least_leads
from src.config import LoaderConfig
from src.dataloaders import make_loader
from src.eval import predict_records, split_records
from src.learning.checkpoints import Checkpoint, ModelCard
from src.learning.leaks import refuse_overlap
from src.learning.metrics import compute_metrics
from src.model import (
    load_model,
    needs_rr,
    predict_logits,
    predict_whole,
    shortest_input,
    to_probabilities,
)
from src.processed.datasets import ECGDataset, View
from src.processed.mirror import local_copy
from src.processed.normalization import HIGHPASS_ORDER
from src.processed.runs.heartbeat import Heartbeat
from src.processed.targets import LabelledRecords
from src.utils import Float32Array, atomic_path, import_extra, save_json

EXTRA = "-r requirements-export.txt"
INPUT, OUTPUT = "signal", "probabilities"
_FORMAT = 1
_OPSET = 20


class _Graph(nn.Module):
    """The exported computation: from signals (B, n_leads, n_samples) to probabilities.

    The probabilities have shape (B, n_classes); logits are averaged over crops before.
    """

    def __init__(self, model: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.model = model
        self.crop_samples = card.crop_samples
        self.single_label = card.single_label
        self.calibration = card.calibration

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        logits = predict_logits(self.model, signal, self.crop_samples)
        if self.calibration is not None:
            logits = self.calibration.apply(logits)
        return to_probabilities(logits, self.single_label)


def export_onnx(checkpoint: Checkpoint, out: str | Path, *, int8: bool = False) -> list[Path]:
    """Write ``NAME.onnx`` and ``NAME.json``, and return the files.

    The exported model takes batches of any size, and any n_samples from the shortest input of its
    network up; of a model trained on crops, more samples than a crop has, as the crops are cut
    inside the file. One whose network gives no `min_samples` takes one length alone.

    Parameters
    ----------
    checkpoint
        The checkpoint to export.
    out
        Path of ``NAME.onnx``.
    int8
        Also write ``NAME_int8.onnx`` with 8-bit weights and dynamically quantized activations. It
        has a quarter of the size; `compare_onnx` measures the loss.

    Raises
    ------
    ValueError
        If `out` does not end in .onnx, or a package of requirements-export.txt is missing.
    """
    out = Path(out)
    if out.suffix != ".onnx":
        raise ValueError(f"{out}: expected a name that ends in .onnx")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        import_extra(package, "export to ONNX", EXTRA)
    model = load_model(checkpoint)
    if needs_rr(model):
        raise ValueError(
            f"{checkpoint.path}: its network takes RR intervals beside the signal, which the "
            "exported file has no input for: export a network of signals alone"
        )
    with Heartbeat("export", f"writing {out}"), atomic_path(out) as temporary:
        _write_graph(model, checkpoint.card, temporary)
    description = out.with_suffix(".json")
    save_json(describe_input(checkpoint.card, shortest_input(model)), description)
    if not int8:
        return [out, description]
    quantized = out.with_name(f"{out.stem}_int8.onnx")
    with Heartbeat("export", f"writing {quantized}"), atomic_path(quantized) as temporary:
        _quantize(out, temporary)
    return [out, description, quantized]


def _write_graph(model: nn.Module, card: ModelCard, path: Path) -> None:
    """Write the ONNX file."""
    shape: dict[int, Any] = {0: torch.export.Dim("batch")}
    if shortest := _shortest_exported(card, shortest_input(model)):
        shape[2] = torch.export.Dim("n_samples", min=shortest)
    # The exporter would take a batch of one for a fixed size.
    example = torch.zeros(2, len(card.leads), card.preprocess.n_samples)
    with _quiet():
        program = torch.onnx.export(
            _Graph(model, card).eval(),
            (example,),
            dynamo=True,
            dynamic_shapes={"signal": shape},
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=_OPSET,
            verbose=False,
        )
        assert program is not None  # with dynamo=True
        program.save(str(path))


def _shortest_exported(card: ModelCard, shortest: int) -> int:
    """Return the fewest samples that the exported file takes; 0 if it takes one length alone.

    A record no longer than a crop takes another way through the program than longer ones, of which
    the file has one.
    """
    if not shortest or not card.crop_samples:
        return shortest
    is_cropped = card.crop_samples < card.preprocess.n_samples
    return max(shortest, card.crop_samples + 1) if is_cropped else 0


def _quantize(source: Path, path: Path) -> None:
    """Write an ONNX file with 8-bit weights."""
    quantization = import_extra("onnxruntime.quantization", "export to ONNX", EXTRA)
    with _quiet():
        # Signed weights (QInt8) are several times slower.
        quantization.quantize_dynamic(source, path, weight_type=quantization.QuantType.QUInt8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings about packages not needed here and about their future."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def describe_input(card: ModelCard, shortest: int) -> dict[str, object]:
    """Return the content of the JSON file: how to make the input, and what the output means.

    Parameters
    ----------
    card
        The card of the model.
    shortest
        Fewest samples that its network takes (`src.model.shortest_input`).
    """
    settings, crops = card.preprocess, card.crop_samples
    shortest_exported = _shortest_exported(card, shortest)
    n_samples = {
        "n_samples": settings.n_samples,
        "n_samples_is_fixed": not shortest_exported,
        "n_samples_min": shortest_exported or settings.n_samples,
    }
    crop_facts = None
    if crops:
        crop_facts = {
            "crop_samples": crops,
            "stride": "half",
            "average": "logits",
            "inside_the_graph": True,
        }
    window_facts = None
    if settings.window_s:
        window_facts = {
            "window_s": settings.window_s,
            "stride_s": settings.stride_s or settings.window_s,
            "average": "probabilities",
        }
    return {
        "format": _FORMAT,
        "input": {
            "name": INPUT,
            "type": "float32",
            "shape": ["batch", "leads", "n_samples"],
            **n_samples,
        },
        "output": {"name": OUTPUT, "type": "float32", "shape": ["batch", "classes"]},
        "classes": card.classes,
        "single_label": card.single_label,
        "thresholds": card.thresholds or None,
        "thresholds_chosen_on": asdict(card.thresholds_on) if card.thresholds_on else None,
        "calibration": _describe_calibration(card),
        "coverage": _describe_coverage(card),
        "leads": card.leads,
        "fs": settings.fs,
        "normalization": asdict(card.normalization),
        "crops": crop_facts,
        "windows": window_facts,
        "preprocessing": _describe_steps(card, shortest),
        "advice": _give_advice(card),
    }


def _describe_calibration(card: ModelCard) -> dict[str, object] | None:
    """Return the calibration of the logits, which the graph holds, and what it was chosen on."""
    scale, chosen_on = card.calibration, card.calibration_on
    if scale is None:
        return None
    return {
        "slope": scale.slope,
        "intercept": scale.intercept,
        "inside_the_graph": True,
        "chosen_on": asdict(chosen_on) if chosen_on else None,
    }


def _describe_coverage(card: ModelCard) -> dict[str, object] | None:
    """Return the limits of coverage, how to use them, and what they were fitted on."""
    limits, chosen_on = card.coverage, card.coverage_on
    if limits is None:
        return None
    rule = (
        "a class at its threshold or above is not sure if its probability is at most absent_to; "
        "one below its threshold is not sure if its probability is at least present_from"
    )
    if card.single_label:
        rule = (
            "the most probable class and all of at least present_from are not sure if these are "
            "more than one"
        )
    return {
        **asdict(limits),
        "rule": rule,
        "chosen_on": asdict(chosen_on) if chosen_on else None,
    }


def _describe_steps(card: ModelCard, shortest: int) -> list[str]:
    """Return the preprocessing as sentences, for those who implement it elsewhere."""
    settings, mode = card.preprocess, card.normalization.mode
    scaling = {
        "zscore": [],
        "global": [
            "multiply by that standard deviation and divide by std_mv of the normalization (the "
            "entry with the empty name serves any dataset)"
        ],
        "none": ["multiply by that standard deviation: mV without the mean of each lead"],
    }
    filtering = []
    if hz := card.normalization.highpass_hz:
        filtering.append(
            f"high-pass the samples before the padding: scipy.signal.sosfiltfilt with "
            f"butter({HIGHPASS_ORDER}, {hz:g}, 'highpass', fs={settings.fs:g}, output='sos') and "
            f"padlen {round(settings.fs / hz)}, or the number of samples - 1 if that is less; "
            "then subtract the mean of each lead"
            + (" and divide by its standard deviation" if mode == "zscore" else "")
        )
    return [
        "put the leads into the order of `leads`, in mV; an absent lead is 0 throughout",
        (
            f"interpolate linearly over missing samples, up to {settings.max_gap_s:g} s in a "
            "row; the ends take the nearest value"
        ),
        (
            f"resample to {settings.fs:g} Hz by a polyphase filter, as "
            "scipy.signal.resample_poly does with its default window and padtype edge; where "
            "that changes the rate, a lead that was constant stays at its value"
        ),
        f"keep the first {settings.n_samples} samples",
        (
            "subtract the mean of each lead and divide by its standard deviation (divisor "
            f"n); a lead whose standard deviation is up to {settings.flat_std_mv:g} mV "
            "becomes 0"
        ),
        _describe_padding(card, shortest),
        *scaling[mode],
        *filtering,
    ]


def _describe_padding(card: ModelCard, shortest: int) -> str:
    """Return the step that pads short recordings."""
    step = f"append zeros up to {card.preprocess.n_samples} samples"
    # A graph of crops takes them from the samples before the padding.
    if not shortest or card.unpadded_below <= shortest:
        return step
    return (
        f"{step}; a recording of fewer than {card.unpadded_below} samples is only padded up to "
        f"{shortest}"
    )


def _give_advice(card: ModelCard) -> list[str]:
    """Return what `predict` does beside the computation, for those who implement it elsewhere."""
    settings = card.preprocess
    void = "; ".join(f"{name} ({meaning})" for name, meaning in VOID_FLAGS.items())
    advice = [
        f"do not predict for a recording with fewer than {least_leads(card)} of the "
        f"{len(card.leads)} leads that are neither absent nor flat",
        f"do not predict for a recording with one of these flags: {void}; docs/quality.md says "
        "how they are found",
    ]
    if not settings.window_s:
        advice.append(
            f"cut a recording longer than {settings.n_samples / settings.fs:g} s into windows of "
            "that length that reach both its ends, and average their probabilities"
        )
    return advice


# Evaluation ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OnnxComparison:
    """Scores of an ONNX file beside those of the network that it was exported from.

    Attributes
    ----------
    path
        The ONNX file.
    n_records
        Number of records compared.
    auroc_macro, auroc_macro_torch
        Macro AUROC of the file and of the network; None where undefined.
    largest_difference
        Largest absolute difference of a probability.
    """

    path: Path
    n_records: int
    auroc_macro: float | None
    auroc_macro_torch: float | None
    largest_difference: float

    def __str__(self) -> str:
        after, before = _format(self.auroc_macro), _format(self.auroc_macro_torch)
        return (
            f"{self.path}: macro AUROC {after} on {self.n_records} records, {before} before the "
            f"export; probabilities differ by up to {self.largest_difference:.2g}"
        )


def _format(auroc: float | None) -> str:
    """Return an AUROC for text."""
    return "undefined" if auroc is None else f"{auroc:.4f}"


def score_onnx(path: str | Path, signals: Float32Array) -> Float32Array:
    """Return the probabilities (B, n_classes) of an ONNX file, computed on one thread.

    Parameters
    ----------
    path
        The ONNX file.
    signals
        Shape (B, n_leads, n_samples).

    Raises
    ------
    ValueError
        If onnxruntime is missing.
    """
    return _run_session(_open_session(path), signals)


def _open_session(path: str | Path) -> Any:
    """Return an onnxruntime session on one thread."""
    runtime = import_extra("onnxruntime", "running ONNX files", EXTRA)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run_session(session: Any, signals: Float32Array) -> Float32Array:
    probabilities: Float32Array = session.run([OUTPUT], {INPUT: signals})[0]
    return probabilities


def compare_onnx(
    checkpoint: Checkpoint,
    path: str | Path,
    processed: str | Path,
    *,
    split: str = "val",
    batch_size: int = 64,
    allow_overlap: bool = False,
) -> OnnxComparison:
    """Compare an ONNX file with its checkpoint on a split of a processed folder.

    Parameters
    ----------
    checkpoint
        The checkpoint that the file was exported from.
    path
        The ONNX file.
    processed
        The processed folder.
    split
        train, val or test.
    batch_size
        Records at a time.
    allow_overlap
        Include recordings that the model was trained on.

    Raises
    ------
    ValueError
        If onnxruntime is missing, or the split has no records for the checkpoint, or val or test
        holds recordings that the model was trained on and `allow_overlap` is not set.
    """
    with Heartbeat("export", f"comparing {path} with the checkpoint on the {split} split"):
        records = split_records(checkpoint, local_copy(processed), split)
        refuse_overlap(
            checkpoint.card.train_hashes,
            records.keys,
            records.signal_hashes,
            split,
            allow_overlap=allow_overlap,
        )
        return _compare_onnx(checkpoint, Path(path), records, batch_size)


def _compare_onnx(
    checkpoint: Checkpoint, path: Path, records: LabelledRecords, batch_size: int
) -> OnnxComparison:
    before = predict_records(checkpoint, records, batch_size=batch_size, device="cpu")
    card, session = checkpoint.card, _open_session(path)
    dataset = ECGDataset(
        records.paths, before.y_true, View(card.leads, card.normalization), records.datasets
    )
    loader = make_loader(dataset, LoaderConfig(batch_size=batch_size))

    def run(signal: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(_run_session(session, signal.numpy()))

    shortest = shortest_input(load_model(checkpoint))
    scores = [predict_whole(run, batch.signal, card.unpadded_below, shortest) for batch in loader]
    after = replace(before, y_score=torch.cat(scores).numpy())
    return OnnxComparison(
        path=path,
        n_records=len(records),
        auroc_macro=compute_metrics(after)["auroc_macro"],
        auroc_macro_torch=compute_metrics(before)["auroc_macro"],
        largest_difference=float(np.abs(after.y_score - before.y_score).max()),
    )
