"""The networks in the box, with their size and their speed on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from src.learning.networks import NETWORKS, find_network
from src.model import count_parameters
from src.utils import device_info

_REPEATS = 3


@dataclass(frozen=True)
class NetworkRow:
    """A network in the box.

    Attributes
    ----------
    name
        As ``--network`` takes it.
    n_parameters
        Trainable parameters, for 12 leads and 5 classes.
    trained_per_s, predicted_per_s
        Records per second in training and in prediction.
    auroc
        As in `src.learning.networks.NetworkEntry`.
    paper
        Where it was published.
    """

    name: str
    n_parameters: int
    trained_per_s: float
    predicted_per_s: float
    auroc: float | None
    paper: str


def measure_networks(
    *, n_samples: int = 250, batch_size: int = 64, device: str = "auto"
) -> list[NetworkRow]:
    """Return the networks in the box, with their speed as measured on random records.

    Parameters
    ----------
    n_samples
        Length of the records; 2.5 s at 100 Hz by default, which is a crop of training.
    batch_size
        Records per batch.
    device
        The torch device: auto, cpu, cuda, cuda:N or mps.
    """
    place = device_info(device).device
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn((batch_size, 12, n_samples), generator=generator).to(place)
    rows = []
    for name, entry in NETWORKS.items():
        model = find_network(name)(n_leads=12, n_classes=5).to(place)
        seconds = [
            _time(_training_step(model, signal), place),
            _time(_forward(model, signal), place),
        ]
        trained, predicted = (batch_size / each for each in seconds)
        rows.append(
            NetworkRow(name, count_parameters(model), trained, predicted, entry.auroc, entry.paper)
        )
    return rows


def _training_step(model: nn.Module, signal: torch.Tensor) -> Callable[[], object]:
    """Return a function that takes a step of AdamW on a batch."""
    optimizer = torch.optim.AdamW(model.parameters())
    target = torch.zeros(len(signal), 5, device=signal.device)

    def step() -> None:
        model.train()
        loss = nn.functional.binary_cross_entropy_with_logits(model(signal), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _forward(model: nn.Module, signal: torch.Tensor) -> Callable[[], object]:
    """Return a function that predicts a batch."""

    def forward() -> None:
        model.eval()
        with torch.inference_mode():
            model(signal)

    return forward


def _time(work: Callable[[], object], device: str) -> float:
    """Return the median time of a few calls in seconds, after one that warms up."""
    work()
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def format_networks(rows: Sequence[NetworkRow]) -> str:
    """Return the networks as a table."""
    table = [("network", "parameters", "trained/s", "predicted/s", "fold 9", "published")]
    for row in rows:
        auroc = "-" if row.auroc is None else f"{row.auroc:.3f}"
        speeds = f"{row.trained_per_s:,.0f}", f"{row.predicted_per_s:,.0f}"
        table.append((row.name, f"{row.n_parameters:,}", *speeds, auroc, row.paper))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for name, *numbers, paper in table:
        cells = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:-1], strict=True)]
        lines.append("  ".join([f"{name:{widths[0]}}", *cells, paper]))
    note = "fold 9: macro AUROC over the 71 statements of PTB-XL; speeds: of this machine"
    return "\n".join([*lines, note])
