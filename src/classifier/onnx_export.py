"""A checkpoint as an ONNX file that answers with probabilities, and a JSON file that says what it
expects.

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

from src.config import LoaderConfig
from src.dataloaders import make_loader
from src.eval import predict_records, split_records
from src.learning.checkpoints import Checkpoint, ModelCard
from src.learning.metrics import compute_metrics
from src.model import MIN_SAMPLES, ResNet1d, load_model, predict_logits, to_probabilities
from src.processed.datasets import ECGDataset, View
from src.processed.mirror import local_copy
from src.utils import Float32Array, atomic_path, import_extra, save_json

EXTRA = "-r requirements-export.txt"
INPUT, OUTPUT = "signal", "probabilities"
_FORMAT = 1
_OPSET = 20


class _Graph(nn.Module):
    """What the file computes: probabilities (B, n_classes) of signals (B, n_leads, n_samples),
    averaged over crops.
    """

    def __init__(self, model: ResNet1d, card: ModelCard) -> None:
        super().__init__()
        self.model, self.crop_samples, self.single_label = (
            model,
            card.crop_samples,
            card.single_label,
        )

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return to_probabilities(
            predict_logits(self.model, signal, self.crop_samples), self.single_label
        )


def export_onnx(checkpoint: Checkpoint, out: str | Path, *, int8: bool = False) -> list[Path]:
    """Write ``NAME.onnx`` and ``NAME.json``, and with `int8` ``NAME_int8.onnx``; returns the files.

    The batch may have any size. So may n_samples, from 250 up, unless the model was trained on
    crops: their windows are cut inside the file, for records of the length it was trained on.

    Parameters
    ----------
    checkpoint
        What to export.
    out
        ``NAME.onnx``.
    int8
        Write a second file with weights of 8 bits, whose activations are quantized as they come. It
        is a quarter of the size; `compare_onnx` measures what it loses.

    Raises
    ------
    ValueError
        If the name ends otherwise, or a package of the extra is missing.
    """
    out = Path(out)
    if out.suffix != ".onnx":
        raise ValueError(f"{out}: expected a name that ends in .onnx")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        import_extra(package, "export to ONNX", EXTRA)
    files = [out, out.with_suffix(".json")]
    with atomic_path(out) as temporary:
        _write_graph(load_model(checkpoint), checkpoint.card, temporary)
    save_json(describe_input(checkpoint.card), files[1])
    if int8:
        files.append(out.with_name(f"{out.stem}_int8.onnx"))
        with atomic_path(files[2]) as temporary:
            _quantize(out, temporary)
    return files


def _write_graph(model: ResNet1d, card: ModelCard, path: Path) -> None:
    shape: dict[int, Any] = {0: torch.export.Dim("batch")}
    if not card.crop_samples:
        shape[2] = torch.export.Dim("n_samples", min=MIN_SAMPLES)
    example = torch.zeros(
        2, len(card.leads), card.preprocess.n_samples
    )  # a batch of one would be taken for fixed
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


def _quantize(source: Path, path: Path) -> None:
    quantization = import_extra("onnxruntime.quantization", "export to ONNX", EXTRA)
    with _quiet():
        quantization.quantize_dynamic(
            source, path, weight_type=quantization.QuantType.QUInt8
        )  # QInt8 is several times slower


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporters say of themselves: packages that they do not need here, and
    their own future.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def describe_input(card: ModelCard) -> dict[str, Any]:
    """Return what the JSON file says: how a recording becomes the input, and what the output
    means.
    """
    settings, crops = card.preprocess, card.crop_samples
    n_samples = {
        "n_samples": settings.n_samples,
        "n_samples_is_fixed": bool(crops),
        "n_samples_min": settings.n_samples if crops else MIN_SAMPLES,
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
        "leads": card.leads,
        "fs": settings.fs,
        "normalization": asdict(card.normalization),
        "crops": {
            "crop_samples": crops,
            "stride": "half",
            "average": "logits",
            "inside_the_graph": True,
        }
        if crops
        else None,
        "windows": {
            "window_s": settings.window_s,
            "stride_s": settings.stride_s or settings.window_s,
            "average": "probabilities",
        }
        if settings.window_s
        else None,
        "preprocessing": _describe_steps(card),
    }


def _describe_steps(card: ModelCard) -> list[str]:
    settings = card.preprocess
    scaling = {
        "zscore": [],
        "global": [
            "multiply by that standard deviation and add that mean, then subtract mean_mv and "
            "divide by std_mv of the "
            "normalization (the entry with the empty name serves any dataset); "
            "absent leads stay 0"
        ],
        "none": [
            ("multiply by that standard deviation and add that mean: mV again; absent leads stay 0")
        ],
    }
    return [
        "put the leads into the order of `leads`, in mV; an absent lead is 0 throughout",
        (
            f"interpolate linearly over missing samples, up to {settings.max_gap_s:g} s in a "
            "row; the ends take the nearest value"
        ),
        (
            f"resample to {settings.fs:g} Hz by a polyphase filter, as "
            "scipy.signal.resample_poly does with its default window; where that changes the "
            "rate, a lead that was constant stays at its value"
        ),
        f"keep the first {settings.n_samples} samples",
        (
            "subtract the mean of each lead and divide by its standard deviation (divisor "
            f"n); a lead whose standard deviation is up to {settings.flat_std_mv:g} mV "
            "becomes 0"
        ),
        f"append zeros up to {settings.n_samples} samples",
        *scaling[card.normalization.mode],
    ]


# Judging ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OnnxComparison:
    """How a file does on records beside the network that it was made of."""

    path: Path
    n_records: int
    auroc_macro: float | None
    auroc_macro_torch: float | None
    largest_difference: float

    def __str__(self) -> str:
        shown = [
            f"{value:.4f}" if value is not None else "undefined"
            for value in (self.auroc_macro, self.auroc_macro_torch)
        ]
        return (
            f"{self.path}: macro AUROC {shown[0]} on {self.n_records} records, {shown[1]} "
            "before the export; "
            f"probabilities differ by up to {self.largest_difference:.2g}"
        )


def score_onnx(path: str | Path, signals: Float32Array) -> Float32Array:
    """Return the probabilities (B, n_classes) that a file gives for signals (B, n_leads,
    n_samples), on one thread.

    Raises
    ------
    ValueError
        If onnxruntime is missing.
    """
    return _run_session(_open_session(path), signals)


def _open_session(path: str | Path) -> Any:
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
) -> OnnxComparison:
    """Hold a file to the network that it was made of, on a split of a processed folder.

    Raises
    ------
    ValueError
        If onnxruntime is missing, or the split has no records for the checkpoint.
    """
    records = split_records(checkpoint, local_copy(processed), split)
    before = predict_records(checkpoint, records, batch_size=batch_size, device="cpu")
    card, session = checkpoint.card, _open_session(path)
    dataset = ECGDataset(
        records.paths, before.y_true, View(card.leads, card.normalization), records.datasets
    )
    loader = make_loader(dataset, LoaderConfig(batch_size=batch_size))
    after = replace(
        before,
        y_score=np.concatenate([_run_session(session, batch.signal.numpy()) for batch in loader]),
    )
    return OnnxComparison(
        path=Path(path),
        n_records=len(records),
        auroc_macro=compute_metrics(after)["auroc_macro"],
        auroc_macro_torch=compute_metrics(before)["auroc_macro"],
        largest_difference=float(np.abs(after.y_score - before.y_score).max()),
    )
